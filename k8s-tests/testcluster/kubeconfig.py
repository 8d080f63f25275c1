"""How a client finds the API server and says who it is."""

import base64
from pathlib import Path

import yaml


def write(file: Path, server: str, certificates: Path, user: str) -> None:
    """Write a kubeconfig for the one whose certificate is ``user`` in ``certificates``."""
    ca, certificate, key = (_encoded(certificates / name) for name in ("ca.crt", f"{user}.crt", f"{user}.key"))
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": user, "user": {"client-certificate-data": certificate, "client-key-data": key}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        "current-context": "test",
    }
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(config))


def _encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()

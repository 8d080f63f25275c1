"""A cluster in a container, by ``kind``, where a container engine runs."""

import os
import tempfile
from pathlib import Path

from testcluster import audit, cache
from testcluster.choice import Kind, engine
from testcluster.cluster import Cluster
from testcluster.commands import run
from testcluster.errors import ClusterUnavailable
from testcluster.images import full_name
from testcluster.progress import Say
from testcluster.tools import path

CONFIG = Path(__file__).parent.parent / "kind.yaml"
SHARED = "embedding-service"
START_TIMEOUT_SECONDS = 600
# Where kind.yaml lets the API server write its audit log, in the cluster's directory here.
_AUDIT = Path("audit/audit.jsonl")


def up(name: str, say: Say) -> Cluster:
    """Start a cluster, and return once its node is Ready."""
    home = _home(name)
    directory = (home / _AUDIT).parent
    directory.mkdir(parents=True, exist_ok=True)
    audit.write_policy(directory / "policy.yaml")
    config = home / "kind.yaml"
    config.write_text(CONFIG.read_text().replace("AUDIT_DIRECTORY", str(directory)))
    say(f"starting kind's cluster {name}")
    _kind("create", "cluster", "--name", name, "--config", config, "--kubeconfig", home / "kubeconfig", "--wait=5m")
    # The API server writes it for root alone.
    run(_engine(), "exec", f"{name}-control-plane", "chmod", "a+r", "/audit/audit.jsonl")
    return cluster(name)


def down(name: str) -> None:
    """Delete a cluster."""
    _kind("delete", "cluster", "--name", name, "--kubeconfig", _home(name) / "kubeconfig")


def exists(name: str) -> bool:
    """Whether there is a cluster of that name."""
    return name in _kind("get", "clusters").split()


def cluster(name: str) -> Cluster:
    """Return a cluster that runs."""

    def load(image: str) -> str:
        with tempfile.TemporaryDirectory() as directory:
            # Not kind's `load docker-image`, which knows no Podman.
            archive = Path(directory) / "image.tar"
            run(_engine(), "save", "--output", archive, full_name(image), timeout=START_TIMEOUT_SECONDS)
            _kind("load", "image-archive", archive, "--name", name)
        return full_name(image)

    return Cluster(
        kind=f"{Kind.KIND.value} ({name})",
        kubeconfig=_home(name) / "kubeconfig",
        host_address=_gateway(),
        audit_log=_home(name) / _AUDIT,
        load_image=load,
    )


def _gateway() -> str:
    template = "{{range .IPAM.Config}}{{.Gateway}} {{end}}"
    if _engine() == "podman":
        template = "{{range .Subnets}}{{.Gateway}} {{end}}"
    found = run(_engine(), "network", "inspect", "kind", "--format", template).stdout.split()
    addresses = [address for address in found if "." in address]
    if not addresses:
        raise ClusterUnavailable(f"the network `kind` of {_engine()} has no IPv4 gateway: {found}")
    return addresses[0]


def _kind(*arguments: str | Path) -> str:
    environment = os.environ | {"KIND_EXPERIMENTAL_PROVIDER": _engine()}
    return run(path("kind"), *arguments, environment=environment, timeout=START_TIMEOUT_SECONDS).stdout


def _engine() -> str:
    name = engine()
    if name is None:
        raise ClusterUnavailable("kind needs Docker or Podman, and neither answers")
    return name


def _home(name: str) -> Path:
    return cache.directory() / "kind" / name

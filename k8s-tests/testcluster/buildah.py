"""Building images where no container engine runs: Debian's buildah, with a store of our own."""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from testcluster import base_image, cache, packages
from testcluster.commands import run
from testcluster.errors import CommandFailed
from testcluster.progress import Say

BUILD_TIMEOUT_SECONDS = 1800
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PIP = Path("/etc/pip.conf")
# uv trusts what it was built with, unless it is told that this machine knows more authorities.
_UV = "system-certs = true\n"


def store() -> Path:
    """Return the directory of the layers; on one file system with containerd's, which links to them."""
    return cache.directory() / "images" / "storage"


def build(context: Path, target: str, reference: str, arguments: Mapping[str, str], say: Say) -> None:
    """Build a target of the Dockerfile in ``context``.

    Raises ``CommandFailed`` with the end of what the build said.
    """
    packages.ensure(packages.BUILDER, say)
    with _alone():
        base_image.ensure(buildah, say)
        words = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        try:
            buildah(
                # Or buildah would make a bridge and firewall rules of its own.
                *("build", "--layers", "--force-rm", "--pull-never", "--network=host"),
                # The one that knows health checks.
                "--format=docker",
                *(f"--volume={source}:{inside}" for source, inside in _mounts().items()),
                *(f"--target={target}", f"--tag={reference}", *words, str(context)),
                timeout=BUILD_TIMEOUT_SECONDS,
            )
        except CommandFailed:
            # A build that failed leaves its container, and that a mount.
            buildah("rm", "--all", check=False)
            raise


def buildah(*arguments: str, check: bool = True, timeout: float = 300) -> CompletedProcess[str]:
    """Run buildah on our store."""
    directory = store().parent
    # The Dockerfile's cache mounts are below it, and stay.
    temporary = directory / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    config = directory / "storage.conf"
    text = f'[storage]\ndriver = "overlay"\ngraphroot = "{store()}"\nrunroot = "/run/embedding-service-images"\n'
    if not config.exists() or config.read_text() != text:
        config.write_text(text)
    environment = os.environ | {"CONTAINERS_STORAGE_CONF": str(config), "TMPDIR": str(temporary)}
    return run("buildah", *arguments, check=check, timeout=timeout, environment=environment)


def layers(reference: str) -> tuple[bytes, list[dict[str, Any]]]:
    """Return an image's configuration, and its layers as the store notes them, the lowest first."""
    images = json.loads((store() / "overlay-images" / "images.json").read_text())
    image = next((image for image in images if reference in image.get("names", ())), None)
    if image is None:
        raise CommandFailed(f"{reference} was not built here; build_image builds it")
    config = buildah("inspect", "--type=image", "--format={{.Config}}", reference).stdout.rstrip("\n").encode()
    known = {layer["id"]: layer for layer in json.loads((store() / "overlay-layers" / "layers.json").read_text())}
    chain: list[dict[str, Any]] = []
    layer = known.get(image["layer"])
    while layer is not None:
        chain.insert(0, layer)
        layer = known.get(layer.get("parent", ""))
    return config, chain


def _mounts() -> dict[str, str]:
    """What of this machine's settings a build needs to reach the package index; no image keeps it."""
    settings = store().parent / "uv.toml"
    settings.write_text(_UV)
    mounts = {settings: "/etc/uv/uv.toml:ro"}
    mounts |= {file: f"{file}:ro" for file in (_CERTIFICATES, _PIP) if file.exists()}
    return {str(source): inside for source, inside in mounts.items()}


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other process builds."""
    store().parent.mkdir(parents=True, exist_ok=True)
    with (store().parent / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

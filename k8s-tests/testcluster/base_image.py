"""The image that ours are made from: the registry's, or where none is reachable, one like it of Debian's packages."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

from testcluster import cache
from testcluster.commands import run
from testcluster.errors import CommandFailed
from testcluster.progress import Say

REFERENCE = "docker.io/library/python:3.11-slim-bookworm"
TIMEOUT_SECONDS = 900
_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
_LEFT_OUT = ("man", "doc", "locale")
# $1 is the root of the image. Like the registry's: commands in /usr/local/bin, and pip may install anywhere.
_CUSTOMIZE = """\
rm -f "$1"/usr/lib/python3.11/EXTERNALLY-MANAGED "$1"/etc/resolv.conf "$1"/etc/hostname
ln -s /usr/bin/python3 "$1"/usr/local/bin/python
ln -s /usr/bin/python3 "$1"/usr/local/bin/python3
ln -s /usr/bin/pip3 "$1"/usr/local/bin/pip
"""

Buildah = Callable[..., CompletedProcess[str]]


def ensure(buildah: Buildah, say: Say) -> None:
    """Have the base image in the builder's store."""
    if buildah("inspect", "--type=image", REFERENCE, check=False).returncode == 0:
        return
    try:
        buildah("pull", "--quiet", REFERENCE, timeout=TIMEOUT_SECONDS)
    except CommandFailed:
        say(f"no registry is reachable; making {REFERENCE} of Debian's packages, once")
        _make(buildah)


def _make(buildah: Buildah) -> None:
    root = cache.directory() / "images" / "base.tar"
    _bootstrap(root)
    container = buildah("from", "scratch").stdout.strip()
    buildah("add", "--quiet", container, str(root), "/")
    buildah("config", f"--env=PATH={_PATH}", "--env=LANG=C.UTF-8", "--cmd=python3", container)
    # Always the same bytes, so that what was built on it before is still of use.
    buildah("commit", "--quiet", "--rm", "--timestamp=0", container, REFERENCE)
    root.unlink()


def _bootstrap(root: Path) -> None:
    run(
        *("mmdebstrap", "--mode=root", "--variant=minbase", f"--include={_PACKAGES}"),
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT),
        *(f"--customize-hook={line}" for line in _CUSTOMIZE.splitlines()),
        *("bookworm", root),
        timeout=TIMEOUT_SECONDS,
    )

"""What the distribution must have installed, and its installation."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from testcluster.commands import run
from testcluster.errors import ClusterUnavailable
from testcluster.progress import Say

# A command, or a file, and the Debian package that has it.
NODE = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "ip": "iproute2",
    "iptables": "iptables",
}
BUILDER = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
TIMEOUT_SECONDS = 600


def ensure(needs: Mapping[str, str], say: Say) -> None:
    """Install what is missing, as root on Debian.

    Raises ``ClusterUnavailable`` elsewhere, with the line to run.
    """
    packages = missing(needs)
    if not packages:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterUnavailable(what_to_install(packages))
    say(f"installing Debian packages: {' '.join(packages)}")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", environment=quiet, timeout=TIMEOUT_SECONDS)
    run(*_install(packages), environment=quiet, timeout=TIMEOUT_SECONDS)


def missing(needs: Mapping[str, str]) -> list[str]:
    """Return the packages that are not installed."""
    return [package for name, package in needs.items() if not (Path(name).exists() or shutil.which(name))]


def what_to_install(packages: list[str]) -> str:
    """Return the line to run where the tests may not install packages."""
    return f"the one-node cluster needs {', '.join(packages)}: sudo {' '.join(_install(packages))}"


def _install(packages: list[str]) -> list[str]:
    return ["apt-get", "install", "--yes", "--no-install-recommends", *packages]

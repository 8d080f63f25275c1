"""The cluster that the user has given, with what the tests must be told about it."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from testcluster.choice import CURRENT_VARIABLE, Kind
from testcluster.cluster import Cluster
from testcluster.errors import ClusterUnavailable

ADDRESS_VARIABLE = "E2E_HOST_ADDRESS"
IMAGES_VARIABLE = "E2E_IMAGE_PREFIX"


def cluster(environ: Mapping[str, str] = os.environ) -> Cluster:
    """Return the cluster of KUBECONFIG."""
    return Cluster(
        kind=Kind.CURRENT.value,
        kubeconfig=Path(environ["KUBECONFIG"]),
        host_address=environ.get(ADDRESS_VARIABLE) or _own_address(),
        audit_log=None,
        load_image=lambda name: pushed(name, environ),
    )


def pushed(name: str, environ: Mapping[str, str]) -> str:
    """Return where the cluster finds an image that was pushed for it.

    Raises ``ClusterUnavailable`` where nobody said so.
    """
    prefix = environ.get(IMAGES_VARIABLE)
    short = name.rpartition("/")[2]
    if not prefix:
        raise ClusterUnavailable(
            f"with {CURRENT_VARIABLE}=1 images must be where the cluster can pull them: push {name} and set "
            f"{IMAGES_VARIABLE} to the repository (registry.example/team for registry.example/team/{short})"
        )
    return f"{prefix.rstrip('/')}/{short}"


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Sends nothing; only asks which of our addresses faces the rest of the network (this one is for documentation).
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])

"""Where the one-node cluster keeps what it has on this machine's disk and in its memory."""

import os
from dataclasses import dataclass
from pathlib import Path

from testcluster import cache
from testcluster.errors import ClusterUnavailable

# Short, for a socket's path has little room; and gone after a reboot, like the cluster.
RUNTIME = Path("/run/embedding-service")
CONTAINERD_SOCKET = RUNTIME / "containerd.sock"
# Everything of the cluster runs in this cgroup: the components in one below it, the pods in others. It has another name
# where a second cluster runs in namespaces of its own, which hide all but cgroups: in the tests of start and end.
CGROUP = os.environ.get("TESTCLUSTER_CGROUP", "embsvc")
CNI_NETWORK = "embsvc"
# A socket's path has 107 characters at most; the longest that the kubelet adds has 42.
LONGEST_BASE = 65


@dataclass(frozen=True, slots=True)
class Layout:
    """The directories of one cluster. ``containers`` stays: the images that were loaded are there the next time."""

    base: Path

    @property
    def containers(self) -> Path:
        """The root of containerd; on one file system with the builder's images, or they could not share layers."""
        return self.base / "containerd"

    @property
    def run(self) -> Path:
        """What a cluster writes while it runs."""
        return self.base / "run"

    @property
    def logs(self) -> Path:
        """A log for each component; kept until the next cluster starts."""
        return self.base / "logs"

    @property
    def audit_log(self) -> Path:
        """What service accounts asked of the API server."""
        return self.logs / "audit.jsonl"

    @property
    def certificates(self) -> Path:
        """Certificates and keys."""
        return self.run / "certificates"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.run / "admin.kubeconfig"

    @property
    def network(self) -> Path:
        """The configuration of the pods' network."""
        return self.run / "cni"


def default() -> Layout:
    """Return the layout in this user's cache.

    Raises ``ClusterUnavailable`` where its path is too long for the kubelet's sockets, which are below it.
    """
    base = cache.directory() / "cluster"
    if len(str(base)) > LONGEST_BASE:
        raise ClusterUnavailable(
            f"{base} has {len(str(base))} characters, and sockets in it can have {LONGEST_BASE} there: set "
            "XDG_CACHE_HOME to a shorter path"
        )
    return Layout(base)

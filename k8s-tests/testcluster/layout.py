"""Where the one-node cluster keeps what it has on this machine's disk and in its memory."""

from dataclasses import dataclass
from pathlib import Path

from testcluster import cache

# Short, for a socket's path has little room; and gone after a reboot, like the cluster.
RUNTIME = Path("/run/embedding-service")
CONTAINERD_SOCKET = RUNTIME / "containerd.sock"
# Everything of the cluster runs in this cgroup: the components in one below it, the pods in others.
CGROUP = "embsvc"
CNI_NETWORK = "embsvc"


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
    """Return the layout in this user's cache."""
    return Layout(cache.directory() / "cluster")

"""The node's container runtime: the distribution's containerd, with a socket and a directory of its own."""

import platform
import shutil
from subprocess import CompletedProcess

from testcluster import oci
from testcluster.commands import run
from testcluster.components import Components
from testcluster.layout import CONTAINERD_SOCKET, RUNTIME, Layout
from testcluster.tools import path

PAUSE_IMAGE = "docker.io/embedding-service/pause:1"
# Where the CRI plugin notes what it knows of pods and containers, below containerd's root.
CRI_NOTES = "io.containerd.grpc.v1.cri"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

# restrict_oom_score_adj: a machine without CAP_SYS_RESOURCE (most sandboxes) could start no pod otherwise.
_CONFIG = """\
version = 2
root = "{root}"
state = "{state}"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  netns_mounts_under_state_dir = true
  restrict_oom_score_adj = true
  sandbox_image = "{pause}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{network}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{runc}"
        SystemdCgroup = false
"""


def ctr(*arguments: str, check: bool = True, stdin: bytes | None = None) -> CompletedProcess[str]:
    """Run containerd's command on what Kubernetes has in it."""
    return run("ctr", "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", *arguments, check=check, stdin=stdin)


def start(components: Components, layout: Layout) -> None:
    """Start containerd without what an earlier cluster left of its pods; images stay."""
    shutil.rmtree(layout.containers / CRI_NOTES, ignore_errors=True)
    _start(components, layout)
    old = ctr("containers", "ls", "--quiet").stdout.split()
    if old:
        ctr("containers", "rm", *old)
    nameless = replaced_images(ctr("images", "ls").stdout)
    if nameless:
        ctr("images", "rm", *nameless)
    if old or nameless:
        # It has read them at its start, and would offer them to the kubelet.
        components.stop("containerd")
        _start(components, layout)


def replaced_images(listing: str) -> list[str]:
    """Return the images that lost their name to a newer one, from what ``ctr images ls`` says; pure.

    Each image has an entry by its name and one by its digest, which keeps it when the name moves on.
    """
    rows = [line.split() for line in listing.splitlines()[1:]]
    named = {row[2] for row in rows if not row[0].startswith("sha256:")}
    return [row[0] for row in rows if row[0].startswith("sha256:") and row[2] not in named]


def load_pause_image() -> None:
    """Give containerd the image of the process that holds a pod's namespaces."""
    if PAUSE_IMAGE not in ctr("images", "ls", "--quiet").stdout.split():
        image = oci.one_file(PAUSE_IMAGE, path("pause"), _ARCHITECTURES[platform.machine()])
        ctr("images", "import", "-", stdin=image)


def _start(components: Components, layout: Layout) -> None:
    config = layout.run / "containerd.toml"
    config.write_text(
        _CONFIG.format(
            root=layout.containers,
            state=RUNTIME / "containerd",
            socket=CONTAINERD_SOCKET,
            pause=PAUSE_IMAGE,
            network=layout.network,
            runc=RUNTIME / "runc",
        )
    )
    components.start("containerd", "containerd", "--config", config)
    components.wait(lambda: ctr("version", check=False).returncode == 0, "no answer from containerd")

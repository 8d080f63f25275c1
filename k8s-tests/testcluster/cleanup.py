"""The end of a one-node cluster, however far it came and however the run that had it ended."""

import shutil
from contextlib import suppress
from pathlib import Path

from testcluster import cgroups, iptables, network
from testcluster.commands import run
from testcluster.errors import ClusterUnavailable
from testcluster.layout import CNI_NETWORK, RUNTIME, Layout
from testcluster.progress import Say
from testcluster.remains import SHIM_SOCKETS, facts, interfaces, leftovers, mount_points, stray_sockets
from waiting import wait_until

TIMEOUT_SECONDS = 60
# Where the kubelet and the network plugins write whatever they are told. Nobody else's kubelet is on this machine.
_CNI_RESULTS = Path("/var/lib/cni/results")
_LOG_LINKS = Path("/var/log/containers")
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")


def clean(layout: Layout, say: Say) -> None:
    """Remove all that a cluster has on this machine but its logs and its images.

    Raises ``ClusterUnavailable`` with what could not be removed.
    """
    # All at once and without a goodbye: nothing of it is to be kept, and nothing must start anything again.
    cgroups.kill()
    wait_until(_no_process, TIMEOUT_SECONDS, "processes of the cluster that don't end")
    say("processes ended")
    for point in mount_points(facts().mounts, layout):
        if run("umount", point, check=False).returncode != 0:
            run("umount", "--lazy", point)
    if mounted := mount_points(facts().mounts, layout):
        # What is mounted there would be deleted with the files.
        raise ClusterUnavailable(f"these could not be unmounted: {', '.join(mounted)}")
    say("mounts gone")
    _remove_network()
    say("network gone")
    wait_until(cgroups.remove, TIMEOUT_SECONDS, "cgroups of the cluster that are still in use")
    network.restore_settings()
    _remove_files(layout)
    left = leftovers(layout)
    if left:
        raise ClusterUnavailable("the cluster could not be removed; this is left:\n" + "\n".join(left))
    say("nothing is left")


def _no_process() -> bool:
    # Again and again: one may have been starting another.
    cgroups.kill()
    return not cgroups.processes()


def _remove_network() -> None:
    for name in interfaces(facts().links):
        run("ip", "link", "delete", name, check=False)
    if facts().routes:
        run("ip", "route", "flush", "table", network.TABLE)
    while network.TABLE in facts().rules:
        run("ip", "rule", "delete", "priority", network.TABLE)
    for family in ("iptables", "ip6tables"):
        script = iptables.removal(run(f"{family}-save", check=False).stdout)
        if script:
            run(f"{family}-restore", "--noflush", stdin=script)


def _remove_files(layout: Layout) -> None:
    shutil.rmtree(layout.run, ignore_errors=True)
    shutil.rmtree(RUNTIME, ignore_errors=True)
    shutil.rmtree(_DEVICE_PLUGINS, ignore_errors=True)
    links = _LOG_LINKS.iterdir() if _LOG_LINKS.is_dir() else []
    for file in [*_CNI_RESULTS.glob(f"{CNI_NETWORK}-*"), *stray_sockets(), *links]:
        # Log links of another kubelet lead to files that are there.
        if not (file.is_symlink() and file.exists()):
            file.unlink(missing_ok=True)
    for directory in (_CNI_RESULTS, _CNI_RESULTS.parent, _LOG_LINKS, _DEVICE_PLUGINS.parent, SHIM_SOCKETS):
        with suppress(OSError):
            # It is somebody else's too, or was never made.
            directory.rmdir()

"""What of a one-node cluster is on this machine: found by what the machine itself says, whoever started it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testcluster import cgroups, iptables
from testcluster.addresses import BRIDGE
from testcluster.commands import run
from testcluster.layout import RUNTIME, Layout
from testcluster.network import TABLE

SHIM_SOCKETS = Path("/run/containerd/s")
SAVE_COMMANDS = ("iptables-save", "ip6tables-save")


@dataclass(frozen=True, slots=True)
class Facts:
    """What this machine says. ``links``, ``rules`` and ``routes`` are ``ip``'s words, ``mounts`` /proc/mounts'."""

    processes: Mapping[int, str]
    cgroups: Sequence[str]
    links: str
    rules: str
    routes: str
    mounts: str
    iptables: str


def leftovers(layout: Layout) -> list[str]:
    """Return a line for each thing of a cluster that is on this machine."""
    return found(facts(), layout)


def found(facts: Facts, layout: Layout) -> list[str]:
    """Return a line for each thing of a cluster among ``facts``; pure."""
    return [
        *(f"process {pid}: {command}" for pid, command in facts.processes.items()),
        *(f"mount {point}" for point in mount_points(facts.mounts, layout)),
        *(f"network interface {name}" for name in interfaces(facts.links)),
        *(f"routing rule: {line}" for line in facts.rules.splitlines() if line.startswith(f"{TABLE}:")),
        *(f"route in table {TABLE}: {line}" for line in facts.routes.splitlines()),
        *(f"iptables chain {chain}" for chain in iptables.chains(facts.iptables)),
        *(f"cgroup {path}" for path in facts.cgroups),
    ]


def interfaces(links: str) -> list[str]:
    """Return the bridge and what is plugged into it, the bridge last."""
    names = []
    for line in links.splitlines():
        name = line.split(": ")[1].partition("@")[0]
        if name == BRIDGE or f"master {BRIDGE} " in line:
            names.append(name)
    return sorted(names, key=lambda name: name == BRIDGE)


def mount_points(mounts: str, layout: Layout) -> list[str]:
    """Return the cluster's mount points, the inner ones first."""
    points = [line.split()[1].replace("\\040", " ") for line in mounts.splitlines()]
    below = (f"{RUNTIME}/", f"{layout.base}/")
    return [point for point in reversed(points) if f"{point}/".startswith(below)]


def facts() -> Facts:
    """Look at this machine."""
    return Facts(
        processes=cgroups.processes(),
        cgroups=[str(path) for path in cgroups.groups()],
        links=_said("ip", "-oneline", "link"),
        rules=_said("ip", "rule"),
        # A table that was never used is an error to `ip`.
        routes=_said("ip", "route", "show", "table", TABLE),
        mounts=Path("/proc/mounts").read_text(),
        iptables="".join(_said(command) for command in SAVE_COMMANDS),
    )


def stray_sockets() -> list[Path]:
    """Return the sockets of containerd's shims that nothing listens at: a shim that was killed leaves its own."""
    listening = Path("/proc/net/unix").read_text()
    sockets = SHIM_SOCKETS.iterdir() if SHIM_SOCKETS.is_dir() else []
    return [socket for socket in sockets if str(socket) not in listening]


def _said(*command: str) -> str:
    return run(*command, check=False).stdout

"""The cgroup that everything of the cluster runs in: whatever is started there is found there, whoever started it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from testcluster.layout import CGROUP

ROOT = Path("/sys/fs/cgroup")
COMPONENTS = "components"


def unified() -> bool:
    """Whether this machine has cgroups of version 2 only."""
    return (ROOT / "cgroup.controllers").exists()


def make() -> Path:
    """Make the cluster's cgroup in each hierarchy; return the file into which its components write themselves."""
    if unified():
        controllers = (ROOT / "cgroup.controllers").read_text().split()
        (ROOT / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))
        hierarchies = [ROOT]
    else:
        hierarchies = [path for path in ROOT.iterdir() if (path / "cgroup.procs").exists() and not path.is_symlink()]
    for hierarchy in hierarchies:
        (hierarchy / CGROUP).mkdir(exist_ok=True)
    # One hierarchy of version 1 is enough to find them all again; this one limits nothing.
    components = (ROOT if unified() else ROOT / "pids") / CGROUP / COMPONENTS
    components.mkdir(exist_ok=True)
    return components / "cgroup.procs"


def processes() -> dict[int, str]:
    """Each process of the cluster, by its id, with the command that it was started by."""
    found = {}
    for group in groups():
        for pid in _lines(group / "cgroup.procs"):
            found[int(pid)] = _command(int(pid))
    return found


def kill() -> None:
    """Send SIGKILL to all processes of the cluster."""
    for pid in processes():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def remove() -> bool:
    """Remove the cluster's cgroups; whether all of them are gone, which takes a moment after the last process."""
    for group in groups():
        try:
            group.rmdir()
        except OSError:
            # Still in use.
            continue
    return not any(groups())


def groups() -> Iterator[Path]:
    """Look for the cluster's cgroups, the inner ones first."""
    for root in [ROOT / CGROUP, *ROOT.glob(f"*/{CGROUP}")]:
        for directory, _, _ in os.walk(root, topdown=False):
            yield Path(directory)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""

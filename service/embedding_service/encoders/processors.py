"""How many processors the worker may use: what the container's limit allows, and not what the node has."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import torch

_CGROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")
_CPU_INFO = Path("/proc/cpuinfo")


def quota(version_2: str | None, version_1: tuple[str, str] | None) -> float | None:
    """Processors that a cgroup allows; ``None`` where it sets no limit.

    From ``cpu.max`` of version 2 ("max 100000", "150000 100000"), or ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us`` of
    version 1 (-1: no limit).
    """
    for pair in (version_2.split() if version_2 else None, version_1):
        if pair is not None and len(pair) == 2 and pair[0].strip().isdigit():
            allowed, period = int(pair[0]), int(pair[1])
            return allowed / period if allowed > 0 and period > 0 else None
    return None


def usable(present: int, limit: float | None) -> int:
    """Threads that compute: a part of a processor is one, too."""
    return max(1, min(present, math.ceil(limit) if limit is not None else present))


def available(cgroups: Path = _CGROUPS, own: Path = _OWN) -> int:
    """Processors that this process may use now."""
    limits = [limit for folder in _folders(cgroups, own) if (limit := quota(*_limits_in(folder))) is not None]
    return usable(len(os.sched_getaffinity(0)), min(limits, default=None))


def follow_limit(count: int) -> None:
    """Have PyTorch and the tokenizers use as many threads. Before the first text is tokenised."""
    torch.set_num_threads(count)
    os.environ.setdefault("RAYON_NUM_THREADS", str(count))


def cpu_flags() -> frozenset[str]:
    """What the processor can do, in the kernel's words; empty where it doesn't say."""
    for line in (_read(_CPU_INFO) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def _folders(cgroups: Path, own: Path) -> Iterator[Path]:
    """The process's own cgroups and all above: the tightest limit counts. In a container the mount is its own."""
    for line in (_read(own) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = cgroups / controllers if controllers else cgroups
        below = Path(path.lstrip("/"))
        yield from (root / part for part in (below, *below.parents))


def _limits_in(folder: Path) -> tuple[str | None, tuple[str, str] | None]:
    allowed, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    return _read(folder / "cpu.max"), (allowed, period) if allowed is not None and period is not None else None


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None

"""Is anybody else using the processor? Figures of a disturbed round are worth nothing."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

# Of all cores: what the system itself and a shell or two take.
_ALLOWED = 0.05
_LOOK_SECONDS = 1.0
_WAIT_SECONDS = 120.0
_REPEATS = 3
_TICKS = os.sysconf("SC_CLK_TCK")

T = TypeVar("T")


def undisturbed(work: Callable[[], T]) -> tuple[T, float]:
    """What ``work`` returns, and the share of all cores that others than this process and its children used.

    Waits until the machine is quiet, and repeats a disturbed run up to twice.
    """
    for last in range(_REPEATS, 0, -1):
        _wait_until_quiet()
        before, started = _others_seconds(), time.monotonic()
        result = work()
        share = (_others_seconds() - before) / (time.monotonic() - started) / (os.cpu_count() or 1)
        if share <= _ALLOWED:
            return result, share
        what = "once more" if last > 1 else "kept all the same"
        print(f"  disturbed: others used {share:.0%} of the processor; {what}", flush=True)
        if last == 1:
            return result, share
    raise AssertionError


def spread(found: Sequence[float], digits: int) -> str:
    """The median, and in brackets the least and the most."""
    numbers = (f"{number:,.{digits}f}" for number in (statistics.median(found), min(found), max(found)))
    return "{} ({}-{})".format(*numbers)


def _wait_until_quiet() -> None:
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        before = _others_seconds()
        # A share is of a time.
        time.sleep(_LOOK_SECONDS)
        share = (_others_seconds() - before) / _LOOK_SECONDS / (os.cpu_count() or 1)
        if share <= _ALLOWED:
            return
        if time.monotonic() > deadline:
            print(f"  not quiet: others use {share:.0%} of the processor (load {os.getloadavg()[0]:.1f})", flush=True)
            return


def _others_seconds() -> float:
    """CPU seconds of everybody else since the machine started, steal included: another guest disturbs as well."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    busy = (sum(fields) - fields[3] - fields[4]) / _TICKS
    return busy - _own_seconds()


def _own_seconds() -> float:
    """CPU seconds of this process, its children, and theirs: brokers, workers, other libraries."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(entry.parent.name)
        parents[pid] = int(fields[1])
        # Those of children that have ended, too.
        seconds[pid] = sum(map(int, fields[11:15])) / _TICKS
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(seconds.get(pid, 0.0) for pid in ours)

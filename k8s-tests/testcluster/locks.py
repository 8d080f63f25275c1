"""Who may start and stop the one-node cluster: there is one bridge, so there is one cluster on a machine."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testcluster.errors import ClusterUnavailable
from testcluster.progress import Say
from waiting import wait_until

_CHANGE = Path("/run/embedding-service-change.lock")
_OWNER = Path("/run/embedding-service-owner.lock")
CHANGE_TIMEOUT_SECONDS = 300


@contextmanager
def changing(say: Say) -> Iterator[None]:
    """Start or stop the cluster while nobody else does."""
    with _CHANGE.open("a") as file:
        if not _take(file.fileno()):
            say("waiting for another process that starts or stops the cluster")
            wait_until(lambda: _take(file.fileno()), CHANGE_TIMEOUT_SECONDS, f"{_CHANGE} is held by another process")
        yield


@contextmanager
def owning() -> Iterator[None]:
    """Own the cluster: none but this process has one. The kernel lets go of it, however the process ends.

    Raises ``ClusterUnavailable`` where another owns one.
    """
    with _OWNER.open("a+") as file:
        if not _take(file.fileno()):
            file.seek(0)
            raise ClusterUnavailable(
                f"process {file.read().strip()} has a cluster of its own on this machine, which can have one: wait for "
                "its end, or let all runs share the one of `make cluster-up`"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

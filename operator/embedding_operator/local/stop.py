"""SIGINT and SIGTERM as a flag, so that clean-up is never cut in half."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from embedding_operator.local.errors import Interrupted

# 128 and the number of SIGINT, as shells have it.
EXIT_INTERRUPTED = 130


class Stop:
    """Whether somebody asked the run to end. Every wait in a run looks at it several times a second."""

    TICK_SECONDS = 0.1

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Raise ``Interrupted`` where the run shall end."""
        if self.requested:
            raise Interrupted

    def tick(self) -> None:
        """Wait a moment between two looks at something that takes long; raises as ``check`` does."""
        self.check()
        time.sleep(self.TICK_SECONDS)
        self.check()

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True


@contextmanager
def signals() -> Iterator[Stop]:
    """Turn SIGINT and SIGTERM into a flag for the length of a ``with`` block, in the main thread."""
    stop = Stop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = [signal.signal(number, stop._request) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)

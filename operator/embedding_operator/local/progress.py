"""How far a run is, on standard error: a bar on a terminal, else a line now and then."""

import os
import sys
import time
from types import TracebackType
from typing import Protocol

from tqdm import tqdm

from embedding_operator import console
from embedding_operator.local.report import progress_line
from embedding_operator.local.tracker import RecordTracker

_LINE_SECONDS = 5.0


def say(line: str) -> None:
    """One line for the person at the terminal; a bar that stands there moves down."""
    console.say(line, lambda text: tqdm.write(text, file=sys.stderr))


class Progress(Protocol):
    """Shows how far a run is."""

    def show(self, tracker: RecordTracker) -> None:
        """Show what the tracker holds now, if it is time to."""

    def __enter__(self) -> "Progress": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


class _Bar:
    def __init__(self, total: int | None) -> None:
        self._bar = tqdm(total=total, unit=" messages", dynamic_ncols=True)

    def show(self, tracker: RecordTracker) -> None:
        self._bar.set_postfix(lag=tracker.lag, refresh=False)
        self._bar.update(tracker.answered - self._bar.n)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


class _Lines:
    def __init__(self, total: int | None) -> None:
        self._total = total
        self._next = 0.0
        self._shown = 0

    def show(self, tracker: RecordTracker) -> None:
        now = time.monotonic()
        if tracker.answered > self._shown and now >= self._next:
            self._next = now + _LINE_SECONDS
            self._shown = tracker.answered
            say(progress_line(tracker, self._total))

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def progress(total: int | None) -> Progress:
    """The bar or the lines; ``total`` is how many messages there will be, where that is known."""
    return _Bar(total) if _is_screen() else _Lines(total)


def _is_screen() -> bool:
    """Whether standard error is a terminal that a bar fits on; one of a pipeline's log may have no size."""
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except OSError:
        return False
    return size.columns > 0 and size.lines > 0

"""The loop of a run: feed what there is room for, read what comes back, until all is answered."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import BinaryIO

from embedding_operator.local.errors import LocalError
from embedding_operator.local.ledger import Embedded, Ledger, given_up
from embedding_operator.local.neighbours import Vectors
from embedding_operator.local.progress import Progress
from embedding_operator.local.stop import Stop
from embedding_operator.local.texts import Arriving, Text
from embedding_operator.local.wire import Reply, Wire
from embedding_operator.local.worker import Worker

_STATS_SECONDS = 1.0


class Ending(Enum):
    """How the loop ended."""

    COMPLETE = auto()
    INTERRUPTED = auto()
    INCOMPLETE = auto()


class Feeder:
    """Feeds texts as far as there is room and as they arrive."""

    def __init__(self, texts: Arriving, ledger: Ledger, wire: Wire) -> None:
        self._texts = texts
        self._ledger = ledger
        self._wire = wire
        self._next: Text | None = None
        self.done = False

    def fill(self) -> None:
        """Feed until there is no room, nothing more has arrived, or all is fed."""
        while not self.done:
            if self._next is None:
                try:
                    self._next = next(self._texts)
                except StopIteration:
                    self.done = True
                    return
            if self._next is None or not self._ledger.has_room(self._next.value):
                return
            text, self._next = self._next, None
            self._wire.feed(self._ledger.feed(text, time.monotonic()), text)


class Collector:
    """Takes what comes back: into the ledger, the output file and the vectors."""

    def __init__(self, ledger: Ledger, output: BinaryIO | None) -> None:
        self.ledger = ledger
        self.vectors = Vectors()
        self.written = 0
        self._output = output

    def take(self, reply: Reply) -> None:
        """Enter a reply. Raises ``LocalError`` where the output file can't be written."""
        text = self.ledger.answer(reply.number, reply.answer, time.monotonic())
        if text is None or not isinstance(reply.answer, Embedded):
            return
        if text.query is not None:
            self.vectors.add_query(reply.number, text.query, json.loads(reply.value)["embedding"])
            return
        self._write(reply.value)
        if self.vectors.wants_text():
            output = json.loads(reply.value)
            shown = output["original_text"] or text.label
            self.vectors.add_text(reply.number, f"{output['id']}: {shown}", output["embedding"])

    def finish(self) -> None:
        """Write out what the file's buffer holds. Raises ``LocalError``."""
        if self._output is not None:
            with _writing():
                self._output.flush()

    def _write(self, value: bytes) -> None:
        if self._output is not None:
            with _writing():
                self._output.write(value + b"\n")
            self.written += 1


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalError(f"--output: {error.strerror}") from None


def exchange(
    feeder: Feeder, collector: Collector, wire: Wire, worker: Worker, progress: Progress, stop: Stop
) -> Ending:
    """Feed and read until all is answered, given up, or asked to end. Raises ``LocalError`` where the worker ended."""
    ledger = collector.ledger
    silence = _Silence(time.monotonic)
    while True:
        feeder.fill()
        replies = wire.receive()
        for reply in replies:
            collector.take(reply)
        progress.show(ledger)
        if stop.requested:
            return Ending.INTERRUPTED
        if feeder.done and not ledger.lag:
            collector.finish()
            return Ending.COMPLETE
        worker.check()
        if replies or not ledger.lag:
            silence.broken()
        elif silence.time_to_ask() and given_up(silence.seconds, worker.stats()):
            return Ending.INCOMPLETE


class _Silence:
    """How long nothing has come back, and when the worker was last asked about it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.broken()

    def broken(self) -> None:
        self._since = self._asked = self._clock()

    @property
    def seconds(self) -> float:
        return self._clock() - self._since

    def time_to_ask(self) -> bool:
        due = self._clock() - self._asked >= _STATS_SECONDS
        if due:
            self._asked = self._clock()
        return due

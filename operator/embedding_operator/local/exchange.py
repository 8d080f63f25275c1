"""The loop of a run: feed what there is room for, read what comes back, until all is answered."""

import json
import time
from collections.abc import Callable
from enum import Enum, auto

from embedding_operator.local.clients import KafkaClients, Reply
from embedding_operator.local.neighbours import Vectors
from embedding_operator.local.output import Output
from embedding_operator.local.progress import Progress
from embedding_operator.local.stop import Stop
from embedding_operator.local.texts import Arriving, Text
from embedding_operator.local.tracker import Embedded, RecordTracker, given_up
from embedding_operator.local.worker import Worker
from embedding_service.contract.outputs import vector

_STATS_SECONDS = 1.0


class Ending(Enum):
    """How the loop ended."""

    COMPLETE = auto()
    INTERRUPTED = auto()
    INCOMPLETE = auto()


class Feeder:
    """Feeds texts as far as there is room and as they arrive."""

    def __init__(self, texts: Arriving, tracker: RecordTracker, clients: KafkaClients) -> None:
        self._texts = texts
        self._tracker = tracker
        self._clients = clients
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
            if self._next is None or not self._tracker.has_room(self._next.value):
                return
            if not self._clients.feed(self._tracker.fed, self._next):
                return
            self._tracker.feed(self._next, time.monotonic())
            self._next = None


class Collector:
    """Takes what comes back: into the tracker, the output file and the vectors."""

    def __init__(self, tracker: RecordTracker, output: Output | None) -> None:
        self.tracker = tracker
        self.vectors = Vectors()
        self._output = output

    def take(self, reply: Reply) -> None:
        """Enter a reply. Raises ``LocalError`` where the output file can't be written."""
        text = self.tracker.answer(reply.number, reply.answer, time.monotonic())
        if text is None or not isinstance(reply.answer, Embedded):
            return
        if text.query is not None:
            self.vectors.add_query(reply.number, text.query, vector(json.loads(reply.value)))
            return
        if self._output is not None:
            self._output.write(reply.value)
        if self.vectors.wants_text():
            output = json.loads(reply.value)
            shown = output["original_text"] or text.label
            self.vectors.add_text(reply.number, f"{output['id']}: {shown}", vector(output))


def exchange(
    feeder: Feeder, collector: Collector, clients: KafkaClients, worker: Worker, progress: Progress, stop: Stop
) -> Ending:
    """Feed and read until all is answered, given up, or asked to end. Raises ``LocalError``."""
    tracker = collector.tracker
    silence = _Silence(time.monotonic)
    while True:
        feeder.fill()
        replies = clients.receive()
        for reply in replies:
            collector.take(reply)
        progress.show(tracker)
        if stop.requested:
            return Ending.INTERRUPTED
        if feeder.done and not tracker.lag:
            return Ending.COMPLETE
        worker.check()
        if replies or not tracker.lag:
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

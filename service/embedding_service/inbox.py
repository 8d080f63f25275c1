"""Where messages wait for the model, and are tokenised meanwhile."""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from embedding_service.embedding import Prepared
from embedding_service.records import InputRecord, Parsed


@dataclass(slots=True, eq=False)
class Waiting:
    """A message that waits for the model, and what the tokenizer has made of it."""

    parsed: Parsed
    prepared: Prepared | None = None


class Inbox:
    """Messages admitted and not yet in the model, in the order consumed.

    What is being tokenised stands here, too: messages are dropped from the newest of a partition to the oldest that
    isn't in the model, without a gap.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[Waiting] = deque()
        self._unprepared: deque[Waiting] = deque()
        self._closed = False

    def put(self, items: Iterable[Parsed]) -> None:
        """Append; never blocks, since the consumer admits only what there is room for."""
        with self._changed:
            waiting = [Waiting(item) for item in items]
            self._items.extend(waiting)
            self._unprepared.extend(waiting)
            self._changed.notify_all()

    def take_unprepared(self, max_messages: int, timeout: float) -> list[Waiting]:
        """Up to ``max_messages`` to prepare, which go on waiting here; empty after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._unprepared or self._closed, timeout)
            return [self._unprepared.popleft() for _ in range(min(max_messages, len(self._unprepared)))]

    def prepare(self, items: Sequence[Waiting], prepared: Sequence[Prepared]) -> None:
        """Those are ready for the model."""
        with self._changed:
            for item, ready in zip(items, prepared, strict=True):
                item.prepared = ready
            self._changed.notify_all()

    def take(self, max_messages: int, fit: Callable[[Sequence[Prepared]], int], timeout: float) -> list[Prepared]:
        """Up to ``max_messages`` from the front, as many of them as ``fit`` says; empty after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready(1) or (self._closed and not self._items), timeout)
            window = self._ready(max_messages)
            window = window[: fit(window)]
            for _ in window:
                self._items.popleft()
            return window

    def drop(self, partitions: Collection[int]) -> list[InputRecord]:
        """Remove what is of these partitions; return its records."""
        with self._changed:
            dropped = [item.parsed.record for item in self._items if item.parsed.record.partition in partitions]
            self._items = _without(partitions, self._items)
            self._unprepared = _without(partitions, self._unprepared)
            return dropped

    def close(self) -> None:
        """No more will come: nobody waits any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def all_prepared(self) -> bool:
        """Closed, and nothing left to prepare."""
        with self._changed:
            return self._closed and not self._unprepared

    @property
    def closed(self) -> bool:
        """Closed, and everything taken."""
        with self._changed:
            return self._closed and not self._items

    def _ready(self, max_messages: int) -> list[Prepared]:
        """The first ones, as far as they are prepared."""
        ready = []
        for item in itertools.islice(self._items, max_messages):
            if item.prepared is None:
                break
            ready.append(item.prepared)
        return ready


def _without(partitions: Collection[int], items: Iterable[Waiting]) -> deque[Waiting]:
    return deque(item for item in items if item.parsed.record.partition not in partitions)

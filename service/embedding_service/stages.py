"""The threads of the loop and the bounded queues between them: consumer → inbox → model → outbox → producer.

The inbox is bounded by what the consumer admits (messages in flight, in number and bytes), the outbox by windows. A
stage that fails stops the others; the first failure is the one that counts.
"""

import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from embedding_service.batching import BASE_TOKENS, Pace, window_count
from embedding_service.delivery.protocol import Delivery
from embedding_service.embedding import Embedder, Preparation, Prepared, TokenizedMessage
from embedding_service.metrics import Metrics
from embedding_service.records import InputRecord, Outcome, Parsed

_IDLE_SECONDS = 0.5
_ACKNOWLEDGEMENT_SECONDS = 0.005
# So that neither the model nor the delivery waits for the other.
OUTBOX_WINDOWS = 2

# Few enough that the first of a backlog reach the model soon, and that the tokenizer's cores share them.
_CHUNK = 128

Outbox = queue.Queue[list[Outcome]]


class Failure:
    """The first error of any stage."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._occurred = threading.Event()
        self.error: BaseException | None = None

    def set(self, error: BaseException) -> None:
        """Keep the first error."""
        with self._lock:
            if self.error is None:
                self.error = error
            self._occurred.set()

    def occurred(self) -> bool:
        """Whether a stage has failed."""
        return self._occurred.is_set()


class Heartbeat:
    """When a stage last showed that it moves, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def beat(self) -> None:
        """Move."""
        self._last = time.monotonic()

    def age(self) -> float:
        """Seconds since the last move."""
        return time.monotonic() - self._last


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


class TokenizeStage(threading.Thread):
    """Takes what was admitted, and hands texts on as tokens while the model is busy with those before."""

    def __init__(
        self,
        inbox: Inbox,
        preparation: Preparation,
        metrics: Metrics,
        failure: Failure,
    ) -> None:
        super().__init__(name="tokenizer", daemon=True)
        self.heartbeat = Heartbeat()
        self._inbox = inbox
        self._preparation = preparation
        self._metrics = metrics
        self._failure = failure

    def run(self) -> None:
        """Until the inbox is closed and empty, or a stage has failed."""
        try:
            while not self._inbox.all_prepared and not self._failure.occurred():
                self.heartbeat.beat()
                chunk = self._inbox.take_unprepared(_CHUNK, _IDLE_SECONDS)
                if chunk:
                    self._prepare(chunk)
        except BaseException as error:  # noqa: BLE001 - whatever ends this thread ends the worker, with its reason
            self._failure.set(error)

    def _prepare(self, chunk: list[Waiting]) -> None:
        started = time.monotonic()
        prepared = self._preparation.prepare([item.parsed for item in chunk])
        self._inbox.prepare(chunk, prepared)
        self._metrics.stage_seconds.labels("tokenize").observe(time.monotonic() - started)


class ModelStage(threading.Thread):
    """Takes windows from the inbox, embeds them and hands the outcomes on."""

    def __init__(
        self,
        inbox: Inbox,
        outbox: Outbox,
        embedder: Embedder,
        *,
        max_window: int,
        window_seconds: float,
        heartbeat: Heartbeat,
        metrics: Metrics,
        failure: Failure,
    ) -> None:
        super().__init__(name="model", daemon=True)
        self.heartbeat = heartbeat
        self._inbox = inbox
        self._outbox = outbox
        self._embedder = embedder
        self._max_window = max_window
        self._pace = Pace(window_seconds)
        self._metrics = metrics
        self._failure = failure

    def run(self) -> None:
        """Until the inbox is closed and empty, or a stage has failed."""
        try:
            while not self._inbox.closed and not self._failure.occurred():
                self.heartbeat.beat()
                window = self._inbox.take(self._max_window, self._fit, _IDLE_SECONDS)
                if window:
                    self._embed(window)
        except BaseException as error:  # noqa: BLE001 - whatever ends this thread ends the worker, with its reason
            self._failure.set(error)

    def _embed(self, window: list[Prepared]) -> None:
        # Counted here, since what waits before the model may be dropped and consumed again.
        self._metrics.consumed.inc(len(window))
        started = time.monotonic()
        outcomes = self._embedder.embed(window)
        seconds = time.monotonic() - started
        self._pace.learn(sum(self._costs(window)), seconds)
        self._metrics.stage_seconds.labels("model").observe(seconds)
        self._pass_on(outcomes)

    def _pass_on(self, outcomes: list[Outcome]) -> None:
        while not self._failure.occurred():
            self.heartbeat.beat()
            try:
                self._outbox.put(outcomes, timeout=_IDLE_SECONDS)
            except queue.Full:
                continue
            return

    def _fit(self, items: Sequence[Prepared]) -> int:
        return window_count(self._costs(items), self._pace.max_cost)

    def _costs(self, items: Sequence[Prepared]) -> list[int]:
        return [BASE_TOKENS + item.text.length if isinstance(item, TokenizedMessage) else 0 for item in items]


class DeliveryStage(threading.Thread):
    """Takes outcomes and delivers them; serves acknowledgements."""

    def __init__(self, outbox: Outbox, delivery: Delivery, metrics: Metrics, failure: Failure) -> None:
        super().__init__(name="delivery", daemon=True)
        self.heartbeat = Heartbeat()
        self._outbox = outbox
        self._delivery = delivery
        self._metrics = metrics
        self._failure = failure
        self._closing = threading.Event()

    def run(self) -> None:
        """Until closed and all is acknowledged or given up, or a stage has failed."""
        try:
            while not self._closing.is_set() and not self._failure.occurred():
                self.heartbeat.beat()
                self._step()
        except BaseException as error:  # noqa: BLE001 - as in ModelStage
            self._failure.set(error)
        finally:
            self._delivery.close()

    def close(self) -> None:
        """Stop; what isn't acknowledged by now is given up."""
        self._closing.set()

    def _step(self) -> None:
        waiting = self._delivery.outstanding() > 0
        try:
            outcomes = self._outbox.get(timeout=_ACKNOWLEDGEMENT_SECONDS if waiting else _IDLE_SECONDS)
        except queue.Empty:
            self._delivery.poll(0)
            return
        started = time.monotonic()
        self._delivery.deliver(outcomes)
        self._metrics.stage_seconds.labels("produce").observe(time.monotonic() - started)

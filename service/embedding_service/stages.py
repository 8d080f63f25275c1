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

from embedding_service.batching import Pace, text_cost, window_count
from embedding_service.delivery.protocol import Delivery
from embedding_service.embedding import Embedder
from embedding_service.metrics import Metrics
from embedding_service.records import InputRecord, Outcome, Parsed, TextMessage

_IDLE_SECONDS = 0.5
_ACKNOWLEDGEMENT_SECONDS = 0.005
# So that neither the model nor the delivery waits for the other.
OUTBOX_WINDOWS = 2

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


class Inbox:
    """Messages admitted and not yet in the model, in the order consumed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[Parsed] = deque()
        self._closed = False

    def put(self, items: Iterable[Parsed]) -> None:
        """Append; never blocks, since the consumer admits only what there is room for."""
        with self._changed:
            self._items.extend(items)
            self._changed.notify()

    def take(self, max_messages: int, fit: Callable[[Sequence[Parsed]], int], timeout: float) -> list[Parsed]:
        """Up to ``max_messages`` from the front, as many of them as ``fit`` says; empty after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout)
            first = list(itertools.islice(self._items, max_messages))
            return [self._items.popleft() for _ in range(fit(first))]

    def drop(self, partitions: Collection[int]) -> list[InputRecord]:
        """Remove what is of these partitions; return its records."""
        with self._changed:
            dropped = [item.record for item in self._items if item.record.partition in partitions]
            self._items = deque(item for item in self._items if item.record.partition not in partitions)
            return dropped

    def close(self) -> None:
        """No more will come: ``take`` no longer waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Closed, and everything taken."""
        with self._changed:
            return self._closed and not self._items


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
        max_length: int,
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
        self._max_length = max_length
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

    def _embed(self, window: list[Parsed]) -> None:
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

    def _fit(self, items: Sequence[Parsed]) -> int:
        return window_count(self._costs(items), self._pace.max_cost)

    def _costs(self, items: Sequence[Parsed]) -> list[int]:
        return [text_cost(len(item.text), self._max_length) if isinstance(item, TextMessage) else 0 for item in items]


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

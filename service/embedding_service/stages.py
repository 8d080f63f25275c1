"""The threads of the loop and the bounded queues between them: consumer → inbox → model → outbox → producer.

The inbox is bounded by what the consumer admits (messages in flight, in number and bytes), the outbox by windows. A
stage that fails stops the others; the first failure is the one that counts.
"""

import queue
import threading
import time
from collections.abc import Sequence

from embedding_service.batching import BASE_TOKENS, Pace, window_count
from embedding_service.contract.settings import EngineSettings
from embedding_service.delivery.protocol import Delivery
from embedding_service.embedding import BatchReport, Embedder, Preparation, Prepared, TokenizedMessage, Window
from embedding_service.encoders.protocol import LoadedModel
from embedding_service.inbox import Inbox, Waiting
from embedding_service.metrics import Metrics
from embedding_service.records import Outcome

_IDLE_SECONDS = 0.5
# What comes out of the model meanwhile waits as long.
_ACKNOWLEDGEMENT_SECONDS = 0.02
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
        model: LoadedModel,
        engine: EngineSettings,
        metrics: Metrics,
        failure: Failure,
    ) -> None:
        super().__init__(name="model", daemon=True)
        self.heartbeat = Heartbeat()
        self._inbox = inbox
        self._outbox = outbox
        batch_tokens = engine.max_batch_tokens or model.batch_tokens
        self._embedder = Embedder(model.encoder, batch_tokens, model.batch_cost, self._on_batch, self._on_window)
        # Half of what may be in flight is in the model, half is read meanwhile.
        self._max_window = max(1, engine.max_in_flight // 2)
        self._pace = Pace(engine.window_seconds)
        self._last = 0.0
        self._metrics = metrics
        self._failure = failure

    def run(self) -> None:
        """Until the inbox is closed and empty, or a stage has failed."""
        try:
            while not (self._inbox.closed and self._embedder.is_idle) and not self._failure.occurred():
                self.heartbeat.beat()
                idle = self._embedder.is_idle
                window = self._inbox.take(self._max_window, self._fit, _IDLE_SECONDS if idle else 0)
                if window:
                    # Counted here, since what waits before the model may be dropped and consumed again.
                    self._metrics.consumed.inc(len(window))
                    self._embedder.start(window)
                else:
                    self._embedder.advance()
        except BaseException as error:  # noqa: BLE001 - whatever ends this thread ends the worker, with its reason
            self._failure.set(error)

    def _on_batch(self, report: BatchReport) -> None:
        # A window of a slow model takes long; a batch shows that it moves.
        self.heartbeat.beat()
        self._metrics.batch(report)

    def _on_window(self, window: Window) -> None:
        now = time.monotonic()
        # The model may have begun with this one while it was busy with the last.
        seconds = now - max(window.started, self._last)
        self._last = now
        self._pace.learn(sum(self._costs(window.items)), seconds)
        self._metrics.stage_seconds.labels("model").observe(seconds)
        self._pass_on(window.ordered())

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
            outcomes = self._outbox.get(timeout=0 if waiting else _IDLE_SECONDS)
        except queue.Empty:
            # Nothing is about to follow, so what was handed over needn't linger.
            self._delivery.flush(_ACKNOWLEDGEMENT_SECONDS)
            return
        started = time.monotonic()
        self._delivery.deliver(outcomes)
        self._metrics.stage_seconds.labels("produce").observe(time.monotonic() - started)

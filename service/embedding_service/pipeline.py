"""One run of the loop, from the first look at the brokers to the drain. A run that has ended isn't started again."""

import logging
import threading
from functools import partial

from confluent_kafka import Producer

from embedding_service.client_logs import ClientErrors, client_logger
from embedding_service.connection_watch import ConnectionWatch, Reach
from embedding_service.consumer import ConsumerLoop
from embedding_service.contract.kafka import DEFAULT_BATCH_BYTES, producer_config
from embedding_service.contract.settings import KafkaSettings, Settings
from embedding_service.contract.stats import State
from embedding_service.delivery.at_least_once import AtLeastOnce
from embedding_service.delivery.offsets import OffsetTracker
from embedding_service.delivery.output import Target
from embedding_service.delivery.protocol import Delivery
from embedding_service.embedding import Preparation
from embedding_service.encoders.protocol import LoadedModel
from embedding_service.inbox import Inbox
from embedding_service.metrics import Metrics
from embedding_service.stages import (
    OUTBOX_WINDOWS,
    DeliveryStage,
    Failure,
    Heartbeat,
    ModelStage,
    Outbox,
    TokenizeStage,
)
from embedding_service.topics import Partitions, TopicCheck

logger = logging.getLogger(__name__)

_PRODUCER_STATISTICS_MS = 5_000


class Pipeline(threading.Thread):
    """Kafka to Kafka with one model. ``stop`` drains; ``failure`` holds what ended it otherwise."""

    def __init__(self, settings: Settings, model: LoadedModel, metrics: Metrics) -> None:
        super().__init__(name="consumer", daemon=True)
        self._settings = settings
        self._model = model
        self.metrics = metrics
        self._stop_requested = threading.Event()
        self._stages: tuple[TokenizeStage, ModelStage, DeliveryStage] | None = None
        self._loop: ConsumerLoop | None = None
        self._producer_reach = Reach()
        self._offsets = OffsetTracker()
        self.failure = Failure()

    def run(self) -> None:
        """Until stopped or failed."""
        try:
            partitions = TopicCheck(self._settings.kafka, self._required_contract(), self._stop_requested).run()
            if partitions is not None:
                self._flow(partitions)
        except BaseException as error:  # noqa: BLE001 - whatever ends this thread ends the worker, with its reason
            self.failure.set(error)

    def stop(self) -> None:
        """Ask for the drain; ``join`` waits for it."""
        self._stop_requested.set()

    @property
    def state(self) -> State:
        """Where this run stands."""
        if self.failure.occurred():
            return State.FAILED
        if not self.is_alive():
            return State.STOPPED
        if self._stop_requested.is_set():
            return State.DRAINING
        return State.RUNNING if self._loop is not None and self._loop.assigned.is_set() else State.CONNECTING

    @property
    def connected(self) -> bool:
        """Whether a broker is reached."""
        return self._loop is not None and self._loop.reach.connected

    @property
    def lag(self) -> dict[int, int]:
        """Messages not yet dealt with, by assigned partition, as far as known."""
        return self._loop.lag if self._loop is not None else {}

    @property
    def in_flight(self) -> int:
        """Messages consumed and not yet committed."""
        return self._offsets.in_flight()[0]

    def heartbeat_age(self) -> float:
        """Seconds since the slowest stage last moved."""
        beats: list[Heartbeat] = [stage.heartbeat for stage in self._stages or ()]
        if self._loop is not None:
            beats.append(self._loop.heartbeat)
        return max((beat.age() for beat in beats), default=0.0)

    def _required_contract(self) -> str | None:
        mixed = self._settings.model.change_policy == "allow_mixed"
        return None if mixed else self._model.contract.fingerprint()

    def _flow(self, partitions: Partitions) -> None:
        inbox, outbox = Inbox(), Outbox(maxsize=OUTBOX_WINDOWS)
        tokenizer = TokenizeStage(
            inbox,
            Preparation(self._model.encoder, rejects_long=self._settings.model.on_overflow == "reject"),
            self.metrics,
            self.failure,
        )
        model = ModelStage(inbox, outbox, self._model, self._settings.engine, self.metrics, self.failure)
        at_least_once = AtLeastOnce(
            partial(_new_producer, self._settings.kafka, self._producer_reach, partitions),
            self._output_target(partitions),
            self._offsets,
            self.metrics.delivered,
        )
        delivery = DeliveryStage(outbox, at_least_once, self.metrics, self.failure)
        self._loop = ConsumerLoop(self._settings, self._offsets, inbox, self.metrics, self.failure)
        self._stages = (tokenizer, model, delivery)
        watch = ConnectionWatch(self._settings.kafka, lambda: self._lost(at_least_once), self.failure)
        for thread in (*self._stages, watch):
            thread.start()
        try:
            self._loop.run(self._stop_requested)
        finally:
            watch.close()
            inbox.close()
            tokenizer.join()
            model.join()
            delivery.close()
            delivery.join()

    def _lost(self, delivery: Delivery) -> str | None:
        """The client that needs a broker and has none."""
        # A drain has its own deadline.
        if self._loop is None or self._stop_requested.is_set():
            return None
        if self._loop.reach.is_lost:
            return "consumer"
        # Without anything to send it needs none, and may have none.
        return "producer" if delivery.outstanding() > 0 and self._producer_reach.is_lost else None

    def _output_target(self, partitions: Partitions) -> Target:
        return Target(
            output_topic=self._settings.kafka.output_topic,
            dead_letter_topic=self._settings.kafka.dead_letter_topic,
            model_name=self._model.name,
            contract=self._model.contract.fingerprint(),
            encoding=self._settings.output.encoding,
            include_text=self._settings.output.include_text,
            same_partitions=partitions.input == partitions.output,
            max_batch_bytes=partitions.max_batch_bytes,
        )


# Not of the run: a producer that a run and its delivery hold in a circle would outlive them.
def _new_producer(kafka: KafkaSettings, reach: Reach, partitions: Partitions) -> Producer:
    config = producer_config(kafka, partitions.max_batch_bytes or DEFAULT_BATCH_BYTES)
    statistics = {"statistics.interval.ms": _PRODUCER_STATISTICS_MS, "stats_cb": reach.on_stats}
    return Producer(config | statistics | {"error_cb": ClientErrors("producer", logger)}, logger=client_logger())

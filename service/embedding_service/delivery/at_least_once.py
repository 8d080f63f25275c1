"""At least once: produce, and let an input offset be committed when the broker has acknowledged its output.

The producer never gives a record up by time, so order holds and trouble of the broker is waited out. What the broker
refuses for good is either the record's fault (too large: dead letter) or ends the process. Outputs of a partition that
is gone are given up: its next owner makes them again, and a late one would stand behind that owner's newer ones.
"""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.delivery.errors import ACCESS_DENIED, TOPIC_MISSING, access_denied
from embedding_service.delivery.offsets import OffsetTracker
from embedding_service.delivery.output import (
    OutputRecord,
    Target,
    dead_letter,
    smaller_dead_letter,
    to_record,
    too_large,
)
from embedding_service.records import Outcome, Rejection

logger = logging.getLogger(__name__)

# Each message's callback tells that it was given up; nothing of it waits for a broker.
_PURGE_SECONDS = 30.0
_LOWERED = (
    "topic '{}': refuses batches with a record of {} bytes; its max.message.bytes was lowered while this worker ran, "
    "which reads it when it starts"
)

OnDelivered = Callable[[Sequence[Outcome]], None]


class AtLeastOnce:
    """See ``Delivery``. ``on_delivered`` gets each outcome once, when it is acknowledged."""

    def __init__(
        self, new_producer: Callable[[], Producer], target: Target, offsets: OffsetTracker, on_delivered: OnDelivered
    ) -> None:
        self._new_producer = new_producer
        self._producer = new_producer()
        self._target = target
        self._offsets = offsets
        self._on_delivered = on_delivered
        self._abandonments = offsets.abandonments()
        self._delivered: list[Outcome] = []
        self._purged: list[Outcome] = []
        self._failure: Termination | None = None

    def deliver(self, outcomes: Sequence[Outcome]) -> None:
        """See ``Delivery``."""
        now = time.time()
        for outcome in self._current([*self._recovered(), *outcomes]):
            self._produce(*to_record(outcome, self._target, now))
        self._serve(self._producer.poll, 0)

    def flush(self, timeout: float) -> None:
        """See ``Delivery``."""
        # Nothing may come from the model for a long time.
        if self._offsets.abandonments() != self._abandonments:
            self.deliver([])
        self._serve(self._producer.flush, timeout)

    def _recovered(self) -> list[Outcome]:
        """What isn't acknowledged, if some of it was abandoned since the last time: taken back from the producer.

        Which is replaced: what of its requests has reached the brokers isn't known.
        """
        abandonments = self._offsets.abandonments()
        if abandonments == self._abandonments:
            return []
        self._abandonments = abandonments
        # What has been acknowledged meanwhile is none of it.
        self._serve(self._producer.poll, 0)
        if not len(self._producer):
            return []
        logger.warning("partitions have gone before all was acknowledged: what the producer has of them is given up")
        self._producer.purge()
        self._serve(self._producer.flush, _PURGE_SECONDS)
        if len(self._producer):
            raise Termination(TerminationReason.CRASHED, "the Kafka client doesn't give up what it was told to")
        self._producer = self._new_producer()
        purged, self._purged = self._purged, []
        return sorted(purged, key=lambda outcome: (outcome.record.partition, outcome.record.offset))

    def _current(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        """Those of partitions that are still ours; the rest has been dealt with."""
        ours = {*self._offsets.assignments().items()}
        gone = [record for one in outcomes if ((record := one.record).partition, record.assignment) not in ours]
        if not gone:
            return outcomes
        self._offsets.done(gone)
        return [one for one in outcomes if (one.record.partition, one.record.assignment) in ours]

    def _serve(self, call: Callable[[float], int], timeout: float) -> None:
        try:
            call(timeout)
        except KafkaException as error:
            # What is fatal to the producer itself, such as that it may be none.
            raise _termination(error.args[0], self._target.output_topic) from None
        self._settle()
        if self._failure is not None:
            raise self._failure

    def outstanding(self) -> int:
        """See ``Delivery``."""
        return len(self._producer)

    def close(self) -> None:
        """See ``Delivery``."""
        self._producer.purge()
        self._producer.poll(0)
        self._settle()

    def _settle(self) -> None:
        """Tell of what the callbacks have noted: together, since each telling takes locks."""
        delivered, self._delivered = self._delivered, []
        if delivered:
            # In this order, so that what is committed is counted.
            self._on_delivered(delivered)
            self._offsets.done(outcome.record for outcome in delivered)

    def _produce(self, outcome: Outcome, record: OutputRecord) -> None:
        # Outputs aren't kept until the broker has them: each would be written to memory that no cache knows.
        letter = record if isinstance(outcome, Rejection) else None
        try:
            self._producer.produce(
                record.topic,
                key=record.key,
                value=record.value,
                headers=list(record.headers),
                partition=-1 if record.partition is None else record.partition,
                on_delivery=partial(self._acknowledged, outcome, letter),
            )
        except KafkaException as error:
            self._refused(error.args[0], outcome, letter)

    def _acknowledged(
        self, outcome: Outcome, letter: OutputRecord | None, error: KafkaError | None, _message: Message
    ) -> None:
        if error is None:
            self._delivered.append(outcome)
        else:
            self._refused(error, outcome, letter)

    def _refused(self, error: KafkaError, outcome: Outcome, letter: OutputRecord | None) -> None:
        if error.code() == KafkaError._PURGE_QUEUE or error.code() == KafkaError._PURGE_INFLIGHT:
            self._purged.append(outcome)
            return
        if self._failure is not None:
            return
        # Written a second time where it wasn't kept.
        record = letter or to_record(outcome, self._target, time.time())[1]
        if error.code() != KafkaError.MSG_SIZE_TOO_LARGE:
            self._failure = _termination(error, record.topic)
        elif self._fits(record):
            self._failure = Termination(TerminationReason.DELIVERY_FAILED, _LOWERED.format(record.topic, record.size))
        elif smaller := self._smaller(outcome, record):
            self._produce(*smaller)
        else:
            self._failure = _termination(error, record.topic)

    def _fits(self, record: OutputRecord) -> bool:
        """Whether it would have been taken when the topics were asked. A batch is refused whole."""
        limit = self._target.max_batch_bytes
        return limit is not None and record.batch_bytes <= limit

    def _smaller(self, outcome: Outcome, record: OutputRecord) -> tuple[Outcome, OutputRecord] | None:
        """What is produced in place of a record that was too large; ``None`` where nothing smaller says anything."""
        if not isinstance(outcome, Rejection):
            rejection = too_large(outcome, record.size)
            return rejection, dead_letter(rejection, self._target)
        smaller = smaller_dead_letter(record)
        if smaller is None:
            return None
        logger.warning("%s can't take a dead letter whole: %s", record.topic, outcome.message)
        return outcome, smaller


def _termination(error: KafkaError, topic: str) -> Termination:
    if error.code() in TOPIC_MISSING:
        return Termination(
            TerminationReason.TOPIC_MISSING, f"topic '{topic}': {error.str()}; expected it to exist with its partitions"
        )
    if error.code() in ACCESS_DENIED:
        return access_denied("WRITE", f"topic '{topic}'")
    return Termination(TerminationReason.DELIVERY_FAILED, f"topic '{topic}': {error.name()}: {error.str()}")

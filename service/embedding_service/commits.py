"""Commits of what has been delivered, made by the consumer's thread and never waited for.

A synchronous commit would wait for a broker that hangs as long as it hangs.
"""

import logging
import time
from collections.abc import Collection

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from embedding_service.contract.settings import KafkaSettings
from embedding_service.delivery.errors import ACCESS_DENIED, TOPIC_MISSING, reading_denied
from embedding_service.delivery.offsets import OffsetTracker
from embedding_service.logs import Reminder
from embedding_service.metrics import Metrics
from embedding_service.stages import Failure

logger = logging.getLogger(__name__)

_COMMIT_SECONDS = 0.1
_FULL_SECONDS = 0.01
_COMMIT_TIMEOUT_SECONDS = 10.0
# A rebalance makes these normal: the commit is repeated, or the partition's next owner does the work again.
_REBALANCE_ERRORS = frozenset(
    {KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID}
)


class Commits:
    """One at a time. ``on_commit`` is the consumer's callback, which its poll and close serve."""

    def __init__(self, kafka: KafkaSettings, offsets: OffsetTracker, metrics: Metrics, failure: Failure) -> None:
        self._kafka = kafka
        self._offsets = offsets
        self._metrics = metrics
        self._failure = failure
        self._started: float | None = None
        self._last = 0.0
        self._topic_missing = False
        self._reminder = Reminder(logger)

    @property
    def waiting(self) -> bool:
        """Whether one is unanswered."""
        return self._started is not None

    @property
    def under_way(self) -> bool:
        """Whether one is unanswered, or due as soon as its turn comes and not refused since the topic is gone."""
        return self.waiting or (bool(self._offsets.to_commit()) and not self._topic_missing)

    def regular(self, consumer: Consumer, *, is_full: bool) -> None:
        """Commit what is due, unless that was done a moment ago: a shorter one where room in flight is waited for."""
        now = time.monotonic()
        if self._started is not None and now - self._started < _COMMIT_TIMEOUT_SECONDS:
            return
        if now - self._last >= (_FULL_SECONDS if is_full else _COMMIT_SECONDS):
            self._send(consumer, self._offsets.to_commit())

    def last(self, consumer: Consumer, partitions: Collection[int]) -> None:
        """Commit what is due of partitions that are given away."""
        due = self._offsets.to_commit().items()
        self._send(consumer, {partition: offset for partition, offset in due if partition in partitions})

    def on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """What the brokers answer."""
        self._started = None
        if error is not None:
            self._failed(error)
            return
        for position in partitions:
            if position.error is not None:
                self._failed(position.error)
            else:
                self._topic_missing = False
                self._offsets.committed(position.partition, position.offset)
        self._metrics.commits.labels("ok").inc()

    def _send(self, consumer: Consumer, offsets: dict[int, int]) -> None:
        if not offsets:
            return
        self._last = self._started = time.monotonic()
        topic = self._kafka.input_topic
        positions = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        try:
            consumer.commit(offsets=positions, asynchronous=True)
        except KafkaException as error:
            self._started = None
            self._failed(error.args[0])

    def _failed(self, error: KafkaError) -> None:
        self._metrics.commits.labels("failed").inc()
        if error.code() in ACCESS_DENIED:
            # Not raised: close, in a thread of its own, serves the callback too.
            self._failure.set(reading_denied(error, self._kafka.input_topic, self._kafka.consumer_group))
            return
        self._topic_missing = error.code() in TOPIC_MISSING
        told = f"commit failed, will be repeated: {error.name()}: {error.str()}"
        if error.code() in _REBALANCE_ERRORS:
            logger.info("%s", told)
        else:
            self._reminder.tell(told)

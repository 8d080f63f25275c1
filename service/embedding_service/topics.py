"""What must be there before the loop can start: the brokers, the topics, and the group's first offsets."""

import logging
import threading
import time
from dataclasses import dataclass

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs forget to export these
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from embedding_service.contract.kafka import common_config, consumer_config
from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.contract.settings import KafkaSettings
from embedding_service.contract.topics import dead_letter_max_bytes

logger = logging.getLogger(__name__)

_REQUEST_SECONDS = 5.0
_RETRY_SECONDS = 1.0
# A topic that was made a moment ago may not be known to every broker.
_MISSING_SECONDS = 5.0
_LOG_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Partitions:
    """How many partitions the topics have."""

    input: int
    output: int


class TopicCheck:
    """Waits for the brokers and looks at the topics, until done or stopped."""

    def __init__(self, kafka: KafkaSettings, stop: threading.Event) -> None:
        self._kafka = kafka
        self._stop = stop
        self._admin = AdminClient(common_config(kafka), logger=logger)
        self._last_logged = -_LOG_SECONDS

    def run(self) -> Partitions | None:
        """Partition counts once everything is there; ``None`` where stopped before.

        Raises ``Termination`` for a topic that is missing or not allowed. An unreachable broker is waited for.
        """
        first_missing: float | None = None
        while not self._stop.is_set():
            try:
                return self._look()
            except Termination as missing:
                first_missing = first_missing or time.monotonic()
                if (
                    missing.reason is not TerminationReason.TOPIC_MISSING
                    or time.monotonic() - first_missing > _MISSING_SECONDS
                ):
                    raise
            except KafkaException as error:
                self._log_unreachable(error.args[0])
            self._stop.wait(_RETRY_SECONDS)
        return None

    def _look(self) -> Partitions:
        counted = Partitions(
            self._partitions("input_topic", self._kafka.input_topic),
            self._partitions("output_topic", self._kafka.output_topic),
        )
        try:
            self._partitions("dead_letter_topic", self._kafka.dead_letter_topic)
        except Termination as missing:
            if missing.reason is not TerminationReason.TOPIC_MISSING or not self._kafka.create_dead_letter_topic:
                raise
            self._create_dead_letter_topic(counted.input)
        if self._kafka.start_from == "latest":
            self._start_from_latest(counted.input)
        return counted

    def _partitions(self, key: str, topic: str) -> int:
        metadata = self._admin.list_topics(topic, timeout=_REQUEST_SECONDS).topics[topic]
        error = metadata.error
        if error is None:
            return len(metadata.partitions)
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise Termination(
                TerminationReason.TOPIC_MISSING,
                f"kafka.{key}: '{topic}': no such topic at {','.join(self._kafka.bootstrap_servers)}; expected an "
                f"existing one (make it with: kafka-cli create-topic {topic})",
            )
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise Termination(
                TerminationReason.ACCESS_DENIED,
                f"kafka.{key}: '{topic}': not allowed; expected an ACL that lets this user describe it",
            )
        raise KafkaException(error)

    def _create_dead_letter_topic(self, partitions: int) -> None:
        topic = self._kafka.dead_letter_topic
        resource = ConfigResource(ResourceType.TOPIC, self._kafka.input_topic)
        config = self._admin.describe_configs([resource], request_timeout=_REQUEST_SECONDS)[resource].result()
        largest = dead_letter_max_bytes(int(config["max.message.bytes"].value))
        wanted = NewTopic(topic, num_partitions=partitions, config={"max.message.bytes": str(largest)})
        try:
            self._admin.create_topics([wanted], request_timeout=_REQUEST_SECONDS)[topic].result()
        except KafkaException as error:
            # Another worker was faster.
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return
            raise
        logger.info("dead-letter topic '%s' created with %d partitions", topic, partitions)

    def _start_from_latest(self, partitions: int) -> None:
        """Commit the end offsets once, before the group's first start; later members find them and change nothing."""
        topic = self._kafka.input_topic
        consumer = Consumer(consumer_config(self._kafka) | {"statistics.interval.ms": 0}, logger=logger)
        try:
            everything = [TopicPartition(topic, number) for number in range(partitions)]
            committed = consumer.committed(everything, timeout=_REQUEST_SECONDS)
            if any(position.offset != OFFSET_INVALID for position in committed):
                return
            ends = [TopicPartition(topic, number, self._end(consumer, topic, number)) for number in range(partitions)]
            consumer.commit(offsets=ends, asynchronous=False)
            logger.info("group '%s' starts at the latest offsets", self._kafka.consumer_group)
        except KafkaException as error:
            # The group has members already: the first of them has done this.
            if error.args[0].code() not in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION):
                raise
        finally:
            consumer.close()

    def _end(self, consumer: Consumer, topic: str, number: int) -> int:
        offsets = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_REQUEST_SECONDS)
        if offsets is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return int(offsets[1])

    def _log_unreachable(self, error: KafkaError) -> None:
        now = time.monotonic()
        if now - self._last_logged >= _LOG_SECONDS:
            self._last_logged = now
            logger.warning(
                "kafka.bootstrap_servers: '%s': can't be reached: expected running brokers; still trying: %s",
                ",".join(self._kafka.bootstrap_servers),
                error.str(),
            )

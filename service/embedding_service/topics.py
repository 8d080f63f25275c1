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

from embedding_service.contract.kafka import DEFAULT_BATCH_BYTES, common_config, consumer_config
from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.contract.settings import KafkaSettings
from embedding_service.contract.topics import dead_letter_max_bytes
from embedding_service.delivery.errors import ACCESS_DENIED

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
    # Bytes of a batch that neither the output nor the dead-letter topic refuses: brokers measure batches, not records.
    max_batch_bytes: int = DEFAULT_BATCH_BYTES


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
                if error.args[0].code() in ACCESS_DENIED:
                    raise Termination(
                        TerminationReason.ACCESS_DENIED, f"{error.args[0].str()}; expected ACLs for topics and group"
                    ) from None
                self._log_unreachable(error.args[0])
            self._stop.wait(_RETRY_SECONDS)
        return None

    def _look(self) -> Partitions:
        inputs = self._partitions("input_topic", self._kafka.input_topic)
        outputs = self._partitions("output_topic", self._kafka.output_topic)
        try:
            self._partitions("dead_letter_topic", self._kafka.dead_letter_topic)
        except Termination as missing:
            if missing.reason is not TerminationReason.TOPIC_MISSING or not self._kafka.create_dead_letter_topic:
                raise
            self._create_dead_letter_topic(inputs)
        if self._kafka.start_from == "latest":
            self._start_from_latest(inputs)
        return Partitions(inputs, outputs, self._max_batch_bytes())

    def _max_batch_bytes(self) -> int:
        """The smallest limit of the topics that are written to; librdkafka's default where they can't be asked."""
        try:
            limits = [
                self._max_message_bytes(topic) for topic in (self._kafka.output_topic, self._kafka.dead_letter_topic)
            ]
        except KafkaException as error:
            logger.warning(
                "max.message.bytes of the output topics can't be read, expected the default: %s", error.args[0].str()
            )
            return DEFAULT_BATCH_BYTES
        return min(DEFAULT_BATCH_BYTES, *limits)

    def _max_message_bytes(self, topic: str) -> int:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        config = self._admin.describe_configs([resource], request_timeout=_REQUEST_SECONDS)[resource].result()
        return int(config["max.message.bytes"].value)

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
        largest = dead_letter_max_bytes(self._max_message_bytes(self._kafka.input_topic))
        wanted = NewTopic(topic, num_partitions=partitions, config={"max.message.bytes": str(largest)})
        try:
            self._admin.create_topics([wanted], request_timeout=_REQUEST_SECONDS)[topic].result()
        except KafkaException as error:
            refusal = error.args[0]
            # Another worker was faster.
            if refusal.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return
            # Positive codes are the broker's own.
            if refusal.code() > 0 and not refusal.retriable() and refusal.code() not in ACCESS_DENIED:
                raise Termination(
                    TerminationReason.TOPIC_MISSING,
                    f"kafka.dead_letter_topic: '{topic}': can't be made: {refusal.str()}; "
                    "expected a name that the brokers take",
                ) from None
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

"""Where a consumer group begins that shall skip what is there: ``kafka.start_from: latest``."""

import logging

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # exported without saying so

from embedding_service.contract.kafka import common_config
from embedding_service.contract.settings import KafkaSettings

logger = logging.getLogger(__name__)


def commit_end(admin: AdminClient, kafka: KafkaSettings, partitions: int, timeout: float) -> None:
    """Commit the end offsets once, before the group's first start; later members find them and change nothing.

    Raises ``KafkaException``; no request takes longer than ``timeout`` seconds.
    """
    group, topic = kafka.consumer_group, kafka.input_topic
    if _has_begun(kafka, partitions, timeout):
        return
    ends = end_offsets(admin, topic, range(partitions), timeout)
    positions = [TopicPartition(topic, number, offset) for number, offset in ends.items()]
    wanted = ConsumerGroupTopicPartitions(group, positions)
    try:
        # Not by the consumer: its commit waits for a broker that hangs as long as it hangs.
        _check(admin.alter_consumer_group_offsets([wanted], request_timeout=timeout)[group].result())
    except KafkaException as error:
        # The group has members already: the first of them has done this.
        if error.args[0].code() not in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.NON_EMPTY_GROUP):
            raise
    else:
        logger.info("group '%s' starts at the latest offsets", group)


def _has_begun(kafka: KafkaSettings, partitions: int, timeout: float) -> bool:
    # Not by the AdminClient: where a coordinator has just moved, its list_consumer_group_offsets ends the process
    # (librdkafka's issue 5040).
    config = common_config(kafka) | {"group.id": kafka.consumer_group, "log_level": 0}
    with Consumer(config) as consumer:
        everything = [TopicPartition(kafka.input_topic, number) for number in range(partitions)]
        return any(position.offset >= 0 for position in consumer.committed(everything, timeout=timeout))


def end_offsets(admin: AdminClient, topic: str, partitions: range, timeout: float) -> dict[int, int]:
    """The end of each partition, before which every transaction is decided. Raises ``KafkaException``."""
    latest = {TopicPartition(topic, number): OffsetSpec.latest() for number in partitions}
    asked = admin.list_offsets(latest, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=timeout)
    return {position.partition: future.result().offset for position, future in asked.items()}


def _check(answer: ConsumerGroupTopicPartitions) -> None:
    for position in answer.topic_partitions or []:
        if position.error is not None:
            raise KafkaException(position.error)

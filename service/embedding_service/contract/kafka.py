"""librdkafka client configuration, from the settings. Names and units are librdkafka's own."""

from typing import Any

from embedding_service.contract.settings import KafkaSettings

ClientConfig = dict[str, Any]

# librdkafka's default of 1,000,000 is below the broker's 1,048,588: a legal record could be read and not written back.
# Above it the broker judges, by the topic's max.message.bytes.
MAX_REQUEST_BYTES = 16 * 1024 * 1024

# librdkafka's.
DEFAULT_BATCH_BYTES = 1_000_000


def common_config(kafka: KafkaSettings) -> ClientConfig:
    """What every client needs to reach the cluster."""
    return {
        "bootstrap.servers": ",".join(kafka.bootstrap_servers),
        "socket.keepalive.enable": True,
        # A deleted topic must stay deleted; topics are made on purpose.
        "allow.auto.create.topics": False,
    }


def consumer_config(kafka: KafkaSettings) -> ClientConfig:
    """A member of the consumer group that commits by itself what has been delivered."""
    return common_config(kafka) | {
        "group.id": kafka.consumer_group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "partition.assignment.strategy": "cooperative-sticky",
        # Tells when a partition is read to its end, control records included.
        "enable.partition.eof": True,
        # A killed worker's partitions move on after this; heartbeats have their own thread, whatever the model does.
        "session.timeout.ms": 15_000,
        "max.poll.interval.ms": 300_000,
        "queued.max.messages.kbytes": 16 * 1024,
        "fetch.queue.backoff.ms": 50,
        "statistics.interval.ms": 2_000,
        # How soon new partitions, and a topic that is made again, are seen.
        "topic.metadata.refresh.interval.ms": 30_000,
    }


def producer_config(kafka: KafkaSettings, batch_bytes: int = DEFAULT_BATCH_BYTES) -> ClientConfig:
    """An idempotent producer that never gives a record up: the world's trouble is waited out.

    ``batch_bytes`` bounds a batch before it is compressed; a larger record stands alone in one.
    """
    return common_config(kafka) | {
        "enable.idempotence": True,
        "message.timeout.ms": 0,
        "message.max.bytes": MAX_REQUEST_BYTES,
        "batch.size": batch_bytes,
        "linger.ms": 5,
        "compression.type": "lz4",
        "partitioner": "murmur2_random",
        # The consumer's bound on messages in flight bounds this queue; a second bound could only block on the first.
        "queue.buffering.max.messages": 0,
        "queue.buffering.max.kbytes": 2**31 - 1,
    }

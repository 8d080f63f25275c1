"""What tests and benchmarks do with a Kafka cluster: make topics, write, read to the end, ask for a group's lag.

Every function takes the bootstrap servers first, times are in seconds, and what does not come in time raises
``TimeoutError`` or ``KafkaException``.
"""

import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # exported without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from waiting import wait_until

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]
RecordTuple: TypeAlias = tuple[str, int | None, bytes | None, bytes | None, Headers]

TIMEOUT_SECONDS = 60.0
_NO_COORDINATOR = frozenset(
    {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE}
)
BEGINNING, END = OffsetSpec.earliest(), OffsetSpec.latest()


class Record(NamedTuple):
    """A record to produce; without a partition, the key decides as in Java's clients."""

    topic: str
    partition: int | None = None
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()


def create_topics(
    bootstrap_servers: str, names: Sequence[str], *, partitions: int = 4, config: Mapping[str, str] | None = None
) -> None:
    """Create topics, and return once each partition has a leader."""
    wanted = [NewTopic(name, num_partitions=partitions, config=dict(config or {})) for name in names]
    with _admin(bootstrap_servers) as admin:
        for future in admin.create_topics(wanted, operation_timeout=TIMEOUT_SECONDS).values():
            future.result(TIMEOUT_SECONDS)
        for name in names:
            _wait_for_leaders(admin, name, partitions)


def alter_topic(bootstrap_servers: str, name: str, changes: Mapping[str, str]) -> None:
    """Change a topic's configuration, as somebody with Kafka's tools does."""
    entries = [ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in changes.items()]
    resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
    with _admin(bootstrap_servers) as admin:
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(TIMEOUT_SECONDS)


def delete_topics(bootstrap_servers: str, names: Iterable[str]) -> None:
    """Delete topics; one that is gone already is no error."""
    with _admin(bootstrap_servers) as admin:
        # The client refuses an empty list.
        futures = admin.delete_topics(wanted, operation_timeout=TIMEOUT_SECONDS) if (wanted := list(names)) else {}
        for future in futures.values():
            try:
                future.result(TIMEOUT_SECONDS)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise


def topic_names(bootstrap_servers: str) -> list[str]:
    """Return the names of the cluster's topics, sorted."""
    with _admin(bootstrap_servers) as admin:
        return sorted(admin.list_topics(timeout=TIMEOUT_SECONDS).topics)


def produce(
    bootstrap_servers: str, records: Iterable[RecordTuple], *, timeout: float = TIMEOUT_SECONDS
) -> list[Message]:
    """Produce records (``Record`` or such tuples) and return them as delivered, in the same order."""
    delivered: dict[int, Message] = {}
    failed: list[KafkaError] = []
    config = _client_config(bootstrap_servers) | {
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "message.max.bytes": 16 * 1024 * 1024,
        # No limit in messages: a benchmark hands over everything at once.
        "queue.buffering.max.messages": 0,
        "message.timeout.ms": int(timeout * 1000),
    }
    count = 0
    with Producer(config) as producer:
        for index, (topic, partition, key, value, headers) in enumerate(records):

            def report(error: KafkaError | None, message: Message, index: int = index) -> None:
                if error is not None:
                    failed.append(error)
                delivered[index] = message

            producer.produce(
                topic, value, key, -1 if partition is None else partition, headers=list(headers), on_delivery=report
            )
            producer.poll(0)
            count += 1
        producer.flush(timeout)
    if failed:
        raise KafkaException(failed[0])
    if len(delivered) < count:
        raise TimeoutError(f"{len(delivered)} of {count} records delivered in {timeout:g} s")
    return [delivered[index] for index in range(count)]


def read_all(
    bootstrap_servers: str, topic: str, *, count: int | None = None, timeout: float = TIMEOUT_SECONDS
) -> list[Message]:
    """Read a topic from its beginning with ``read_committed``, in no consumer group.

    Without ``count``: to the end of every partition, which is at or after its end at the time of the call. With it:
    until at least as many records have come. Each partition's records are in its order.
    """
    config = _client_config(bootstrap_servers) | {
        # The client insists on a group; with assigned partitions and no commits the broker never hears of it.
        "group.id": f"read-all-{uuid.uuid4().hex}",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        # How long the broker holds back its answer on a partition that has no more.
        "fetch.wait.max.ms": 10,
    }
    messages: list[Message] = []
    deadline = time.monotonic() + timeout
    with Consumer(config) as consumer:
        unread = set(_partitions(consumer, topic, timeout))
        consumer.assign([TopicPartition(topic, partition, 0) for partition in unread])
        while unread if count is None else len(messages) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                wanted = f"{count}" if count is not None else f"all; partitions {sorted(unread)} not at their end"
                raise TimeoutError(f"{len(messages)} records of {topic} read in {timeout:g} s, wanted {wanted}")
            for message in consumer.consume(1000, min(left, 0.1)):
                _take(message, messages, unread)
    return messages


def end_offsets(bootstrap_servers: str, topic: str) -> dict[int, int]:
    """Return the end offset of each partition, before which every transaction is decided."""
    with _admin(bootstrap_servers) as admin:
        return _offsets(admin, topic, _partitions(admin, topic), END)


def commit_offsets(bootstrap_servers: str, group: str, topic: str, *offsets: int) -> None:
    """Commit for a group without members, from partition 0 on."""
    with Consumer(_client_config(bootstrap_servers) | {"group.id": group}) as consumer:
        places = [TopicPartition(topic, partition, offset) for partition, offset in enumerate(offsets)]
        consumer.commit(offsets=places, asynchronous=False)


def committed_offsets(bootstrap_servers: str, group: str, topic: str) -> dict[int, int]:
    """Return what a consumer group has committed, without the partitions in which it has committed nothing."""
    # Not by AdminClient: where a coordinator has just moved, its list_consumer_group_offsets ends the process.
    with Consumer(_client_config(bootstrap_servers) | {"group.id": group}) as consumer:
        partitions = [TopicPartition(topic, partition) for partition in _partitions(consumer, topic)]
        found = wait_until(
            lambda: _committed(consumer, partitions), TIMEOUT_SECONDS, f"an answer about the offsets of {group}"
        )
    return {position.partition: position.offset for position in found if position.offset >= 0}


def group_lag(bootstrap_servers: str, group: str, topic: str) -> int:
    """Return how many offsets a consumer group is behind; from the beginning where it has committed nothing.

    A transaction's control record counts as one where the group has not committed past it.
    """
    committed = committed_offsets(bootstrap_servers, group, topic)
    ends = end_offsets(bootstrap_servers, topic)
    with _admin(bootstrap_servers) as admin:
        beginnings = _offsets(admin, topic, ends, BEGINNING)
    return sum(end - committed.get(partition, beginnings[partition]) for partition, end in ends.items())


def _client_config(bootstrap_servers: str) -> dict[str, Any]:
    # What goes wrong is raised; librdkafka would print it too.
    return {"bootstrap.servers": bootstrap_servers, "log_level": 0}


def _admin(bootstrap_servers: str) -> AdminClient:
    return AdminClient(_client_config(bootstrap_servers))


def _committed(consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
    """What the coordinator knows; empty while it isn't there yet, as after a restart."""
    try:
        return consumer.committed(partitions, timeout=TIMEOUT_SECONDS)
    except KafkaException as error:
        if error.args[0].code() not in _NO_COORDINATOR:
            raise
        return []


def _wait_for_leaders(admin: AdminClient, topic: str, partitions: int) -> None:
    def has_leaders() -> bool:
        found = admin.list_topics(topic, timeout=TIMEOUT_SECONDS).topics[topic].partitions
        return len(found) == partitions and all(partition.leader >= 0 for partition in found.values())

    wait_until(has_leaders, TIMEOUT_SECONDS, f"topic {topic} has no leaders")


def _partitions(client: AdminClient | Consumer, topic: str, timeout: float = TIMEOUT_SECONDS) -> list[int]:
    metadata = client.list_topics(topic, timeout=timeout).topics[topic]
    if metadata.error is not None:
        raise KafkaException(metadata.error)
    return sorted(metadata.partitions)


def _offsets(admin: AdminClient, topic: str, partitions: Iterable[int], spec: OffsetSpec) -> dict[int, int]:
    request = {TopicPartition(topic, partition): spec for partition in partitions}

    def answer() -> dict[int, int]:
        futures = admin.list_offsets(request, isolation_level=IsolationLevel.READ_COMMITTED)
        try:
            return {position.partition: future.result(TIMEOUT_SECONDS).offset for position, future in futures.items()}
        except KafkaException as error:
            # A broker that has just come back may lead nothing yet.
            if error.args[0].code() not in (KafkaError._NOENT, KafkaError.LEADER_NOT_AVAILABLE):
                raise
            return {}

    return wait_until(answer, TIMEOUT_SECONDS, f"the offsets of {topic}") if request else {}


def _take(message: Message, messages: list[Message], unread: set[int]) -> None:
    error = message.error()
    if error is None:
        messages.append(message)
    elif error.code() == KafkaError._PARTITION_EOF:
        partition = message.partition()
        assert partition is not None  # an end of partition always names it
        unread.discard(partition)
    else:
        raise KafkaException(error)

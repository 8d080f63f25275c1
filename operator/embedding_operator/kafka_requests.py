"""Requests to a Kafka cluster by its AdminClient: ``KafkaException`` for errors, ``DeniedError`` for a missing ACL."""

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs forget to export these
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    OffsetSpec,
    ResourceType,
)
from confluent_kafka.admin import NewTopic as AdminNewTopic  # type: ignore[attr-defined]  # likewise

from embedding_operator.observed import Offsets, Problem, Topic
from embedding_operator.topics import NewTopic
from embedding_service.contract.broker_trouble import missing_acl
from embedding_service.contract.kafka import ClientConfig

REQUEST_SECONDS = 5.0
# REQUEST_SECONDS, more or less.
_COMMITTED_SECONDS = (0.5, 1.5, 3.0)
SPREAD_SECONDS = 0.05

_DENIED = frozenset(
    {
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
)


class DeniedError(Exception):
    """An ACL is missing."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def cluster_id(admin: AdminClient) -> str:
    """The cluster's id."""
    return str(_result(admin.describe_cluster(request_timeout=REQUEST_SECONDS)).cluster_id)


def topics(admin: AdminClient, names: Mapping[str, str]) -> dict[str, Topic]:
    """Those of the topics that are there. By name: what whoever asks does with each, since who may may look at it."""
    described = admin.describe_topics(TopicCollection(list(names)), request_timeout=REQUEST_SECONDS)
    there = {}
    for name, future in described.items():
        with _acl(names[name], f"topic '{name}'"):
            found = _unless(future, KafkaError.UNKNOWN_TOPIC_OR_PART)
        if found is not None:
            there[name] = Topic(name, str(found.topic_id), len(found.partitions))
    return there


def configs(admin: AdminClient, names: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """The configuration of topics; empty for one that this user may not ask about, or that isn't there."""
    if not names:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    asked = admin.describe_configs(resources, request_timeout=REQUEST_SECONDS)
    found = {
        resource.name: _unless(future, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART)
        for resource, future in asked.items()
    }
    return {
        name: {key: entry.value for key, entry in (entries or {}).items() if entry.value is not None}
        for name, entries in found.items()
    }


def offsets(admin: AdminClient, there: Iterable[Topic]) -> dict[str, Offsets]:
    """By topic."""
    those = tuple(there)
    for topic in those:
        _learn_leaders(admin, topic)
    asked = [_ask_offsets(admin, those, spec) for spec in (OffsetSpec.earliest(), OffsetSpec.latest())]
    begins, ends = (_answered(futures) for futures in asked)
    return {
        topic.name: Offsets(
            topic.id, *([found[topic.name, number] for number in range(topic.partitions)] for found in (begins, ends))
        )
        for topic in those
    }


def highs(admin: AdminClient, topic: Topic) -> list[int]:
    """By partition of a topic, the offset after the last record of all, those of open transactions included."""
    _learn_leaders(admin, topic)
    found = _answered(_ask_offsets(admin, (topic,), OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED))
    return [found[topic.name, number] for number in range(topic.partitions)]


def committed(client: ClientConfig, group: str, topic: Topic) -> dict[int, int]:
    """What the group has committed, by partition of the topic. ``client``: how to reach the cluster."""
    # By a consumer that never joins. An AdminClient's request to a group's coordinator takes the process down where
    # that broker says that it isn't the coordinator (librdkafka's issue 5040), and where it ends just then (5397).
    config = client | {
        "group.id": group,
        # Else it waits for the end of a worker's transaction.
        "isolation.level": "read_uncommitted",
    }
    with _acl("READ", f"consumer group '{group}'"), Consumer(config) as consumer:
        answer = _committed(consumer, [TopicPartition(topic.name, number) for number in range(topic.partitions)])
    for found in answer:
        if found.error is not None:
            raise KafkaException(found.error)
    return {found.partition: found.offset for found in answer if found.offset >= 0}


def _committed(consumer: Consumer, asked: list[TopicPartition]) -> list[TopicPartition]:
    for seconds in _COMMITTED_SECONDS:
        try:
            answer: list[TopicPartition] = consumer.committed(asked, timeout=seconds)
            return answer
        except KafkaException as raised:
            error = raised.args[0]
        if error.code() != KafkaError._TIMED_OUT:
            break
        # Who may not ask is told so here, and there nothing at all.
        message = consumer.poll(0)
        if message is not None and (told := message.error()) is not None:
            error = told
            break
    raise KafkaException(error)


def create(admin: AdminClient, wanted: Iterable[NewTopic]) -> tuple[list[str], dict[str, Problem | KafkaError]]:
    """Create topics. Returns those that were created here, and what was said of the others that aren't there."""
    asked = admin.create_topics([_admin_topic(new) for new in wanted], request_timeout=REQUEST_SECONDS)
    created: list[str] = []
    refused: dict[str, Problem | KafkaError] = {}
    for name, future in asked.items():
        try:
            with _acl("CREATE", f"topic '{name}'"):
                _result(future)
            created.append(name)
        except DeniedError as denied:
            refused[name] = denied.problem
        except KafkaException as error:
            # Somebody else was faster: it is theirs.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                refused[name] = error.args[0]
    return created, refused


def ids(admin: AdminClient, created: list[str]) -> dict[str, str]:
    """The ids of topics that were made a moment ago, of which not every broker knows yet."""
    found: dict[str, Topic] = {}
    deadline = time.monotonic() + REQUEST_SECONDS
    while created:
        found = topics(admin, dict.fromkeys(created, "DESCRIBE"))
        if len(found) == len(created) or time.monotonic() >= deadline:
            break
        time.sleep(SPREAD_SECONDS)
    return {name: topic.id for name, topic in found.items()}


def grow(admin: AdminClient, wanted: tuple[tuple[str, int], ...]) -> None:
    """Give topics more partitions, to the number named with each."""
    asked = admin.create_partitions(
        [NewPartitions(name, count) for name, count in wanted], request_timeout=REQUEST_SECONDS
    )
    for name, future in asked.items():
        with _acl("ALTER", f"topic '{name}'"):
            _result(future)


def alter(admin: AdminClient, wanted: tuple[tuple[str, Mapping[str, str]], ...]) -> None:
    """Set configuration of topics, and leave what isn't named."""
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            name,
            incremental_configs=[
                ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()
            ],
        )
        for name, config in wanted
    ]
    asked = admin.incremental_alter_configs(resources, request_timeout=REQUEST_SECONDS)
    for resource, future in asked.items():
        with _acl("ALTER_CONFIGS", f"topic '{resource.name}'"):
            _result(future)


def delete(admin: AdminClient, names: tuple[str, ...], group: str) -> None:
    """Delete topics and a consumer group; those that are gone already are no error."""
    # The brokers refuse while it has members.
    (future,) = admin.delete_consumer_groups([group], request_timeout=REQUEST_SECONDS).values()
    with _acl("DELETE", f"consumer group '{group}'"):
        _unless(future, KafkaError.GROUP_ID_NOT_FOUND)
    if names:
        for name, deleted in admin.delete_topics(list(names), request_timeout=REQUEST_SECONDS).items():
            with _acl("DELETE", f"topic '{name}'"):
                _unless(deleted, KafkaError.UNKNOWN_TOPIC_OR_PART)


def _learn_leaders(admin: AdminClient, topic: Topic) -> None:
    """Have the client know who leads each partition. Raises ``LEADER_NOT_AVAILABLE`` where nobody does."""
    # Asked for offsets of which it doesn't know that, librdkafka 2.16 goes on with what another of its threads may have
    # freed meanwhile (rd_kafka_ListOffsets), and the process ends.
    partitions = admin.list_topics(topic.name, timeout=REQUEST_SECONDS).topics[topic.name].partitions
    if any(number not in partitions or partitions[number].leader < 0 for number in range(topic.partitions)):
        raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))


def _ask_offsets(
    admin: AdminClient,
    those: Iterable[Topic],
    spec: OffsetSpec,
    isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
) -> "dict[TopicPartition, Future[Any]]":
    partitions = [TopicPartition(topic.name, number) for topic in those for number in range(topic.partitions)]
    futures: dict[TopicPartition, Future[Any]] = admin.list_offsets(
        dict.fromkeys(partitions, spec), isolation_level=isolation, request_timeout=REQUEST_SECONDS
    )
    return futures


def _answered(futures: "Mapping[TopicPartition, Future[Any]]") -> dict[tuple[str, int], int]:
    """Offsets by topic and partition."""
    return {(at.topic, at.partition): _result(future).offset for at, future in futures.items()}


def _admin_topic(new: NewTopic) -> AdminNewTopic:
    return AdminNewTopic(
        new.name,
        num_partitions=new.partitions if new.partitions is not None else -1,
        replication_factor=new.replication_factor if new.replication_factor is not None else -1,
        config=dict(new.config),
    )


@contextmanager
def _acl(operation: str, resource: str) -> Iterator[None]:
    """Tell a refusal by the ACL that is missing."""
    try:
        yield
    except KafkaException as error:
        if error.args[0].code() not in _DENIED:
            raise
        trouble = missing_acl(operation, resource)
        raise DeniedError(Problem(trouble.reason, f"Kafka: {trouble.message}")) from None


def _result(future: "Future[Any]") -> Any:
    # librdkafka ends every request by its own time limit.
    error = future.exception()
    if isinstance(error, KafkaException):
        # A new one: the future's own would hold the future, by its frames, and with it the client, until a garbage
        # collection that may come in any thread.
        raise KafkaException(*error.args)
    return future.result()


def _unless(future: "Future[Any]", *codes: int) -> Any:
    """The result, or ``None`` for errors with these codes."""
    try:
        return _result(future)
    except KafkaException as error:
        if error.args[0].code() in codes:
            return None
        raise

"""Kafka, asked and told by its AdminClient: one client for each cluster and identity, and no decision."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
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

from embedding_operator.observed import Kafka, Problem, Progress, Topic
from embedding_operator.reasons import Reason
from embedding_operator.topics import NewTopic, TopicChanges
from embedding_service.connection_check import examine
from embedding_service.contract.broker_trouble import BrokerTrouble, TroubleReason, explain, missing_acl
from embedding_service.contract.kafka import Connection, connection_config

_REQUEST_SECONDS = 5.0
# A cluster that doesn't answer is asked again after this, by one pipeline for all.
_SILENCE_SECONDS = 5.0
_IDLE_SECONDS = 600.0
_SPREAD_SECONDS = 0.05
# What hardly ever changes is asked again after this: which cluster it is, and how far a group is that had read
# everything while nothing came in.
_REMEMBERED_SECONDS = 60.0
# What brokers say while they agree on a topic that was made a moment ago, or on who leads what.
_PASSING = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_CONTROLLER,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)

_DENIED = frozenset(
    {
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked about a pipeline."""

    input: str
    output: str
    dead_letter: str
    group: str
    from_earliest: bool

    @property
    def topics(self) -> dict[str, str]:
        """All of its topics, and what its workers do with each: who may do that may look at it, too."""
        return {self.input: "READ", self.output: "WRITE", self.dead_letter: "WRITE"}


class Offsets(NamedTuple):
    """By partition of a topic: the first offset, and the one after the last that a reader sees."""

    begins: list[int]
    ends: list[int]


class BrokersError(Exception):
    """Kafka doesn't answer, or refuses."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Brokers:
    """Every Kafka cluster that pipelines name. Safe to use from every thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._clients: dict[Connection, Client] = {}

    def client(self, connection: Connection) -> "Client":
        """The client of a cluster and an identity; those that nobody used for long are closed."""
        now = self._clock()
        with self._lock:
            for known, client in list(self._clients.items()):
                if now - client.used > _IDLE_SECONDS:
                    del self._clients[known]
            client = self._clients.setdefault(connection, Client(connection, self._clock))
            client.used = now
            return client


class Client:
    """One cluster as one user. Every method raises ``BrokersError``."""

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        self.used = 0.0
        self._clock = clock
        self._connection = connection
        self._trouble = BrokerTrouble()
        self._silent: tuple[float, Problem] | None = None
        self._lock = threading.Lock()
        self._admin: AdminClient | None = None
        # When it was asked for, and the id.
        self._cluster_id: tuple[float, str] | None = None
        # By group and topic, the oldest answer first: when a group had read everything, and the ends then.
        self._caught_up: dict[tuple[str, str], tuple[float, list[int]]] = {}

    def observe(self, wanted: Wanted) -> Kafka:
        """The cluster, the topics and how far the group is."""
        cluster_id = self._answer(self._identity)
        topics = self._answer(self._topics, wanted.topics)
        there = [topics[name] for name in (wanted.input, wanted.dead_letter) if name in topics]
        offsets = self._answer(self._offsets, there) if there else {}
        progress = dead = None
        if wanted.input in offsets:
            progress = self._answer(self._progress, wanted, offsets[wanted.input])
        if wanted.dead_letter in offsets:
            dead = sum(offsets[wanted.dead_letter].ends) - sum(offsets[wanted.dead_letter].begins)
        return Kafka(cluster_id, topics, progress, dead)

    def configs(self, topics: Iterable[str]) -> dict[str, dict[str, str]]:
        """The configuration of topics; empty for one that this user may not ask about."""
        return self._answer(self._configs, tuple(topics))

    def create(self, wanted: tuple[NewTopic, ...]) -> tuple[dict[str, str], Problem | None]:
        """Create topics. Returns Kafka's ids of those that were created here, by name, and what was refused."""
        # The client refuses an empty list.
        return self._answer(self._create, wanted) if wanted else ({}, None)

    def change(self, changes: TopicChanges) -> None:
        """Grow and alter."""
        if changes.grow:
            self._answer(self._grow, changes.grow)
        if changes.alter:
            self._answer(self._alter, changes.alter)

    def members(self, group: str) -> int:
        """How many members a consumer group has; 0 for one that isn't there."""
        return self._answer(self._members, group)

    def delete(self, topics: Iterable[str], group: str) -> None:
        """Delete topics and a consumer group; those that are gone already are no error."""
        self._answer(self._delete, tuple(topics), group)

    def _answer(self, ask: Callable[..., T], *arguments: Any) -> T:
        """What ``ask`` returns. A cluster that has just been silent is not asked."""
        with self._lock:
            if self._silent is not None and self._clock() < self._silent[0]:
                raise BrokersError(self._silent[1])
        try:
            answer = self._patiently(ask, arguments)
        except KafkaException as error:
            # It may be another cluster when it answers again.
            self._cluster_id = None
            raise BrokersError(self._problem(error.args[0])) from None
        with self._lock:
            self._silent = None
        self._trouble.clear()
        return answer

    def _patiently(self, ask: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        """What ``ask`` returns, also where brokers are still agreeing on a topic that was made a moment ago."""
        deadline = self._clock() + _REQUEST_SECONDS
        while True:
            try:
                return ask(self._connected(), *arguments)
            except KafkaException as error:
                if error.args[0].code() not in _PASSING or self._clock() >= deadline:
                    raise
            time.sleep(_SPREAD_SECONDS)

    def _connected(self) -> AdminClient:
        with self._lock:
            if self._admin is None:
                options = {"log_level": 0, "error_cb": self._trouble, "reconnect.backoff.max.ms": 2000}
                self._admin = AdminClient(connection_config(self._connection) | options)
            return self._admin

    def _problem(self, error: KafkaError) -> Problem:
        admin = self._admin
        if admin is not None:
            admin.poll(0)
        told = explain(error.name(), error.str())
        silent = told is None or told.reason is TroubleReason.BROKER_UNREACHABLE
        trouble = (self._trouble.last() if silent else None) or told
        servers = ",".join(self._connection.bootstrap_servers)
        if trouble is None:
            return Problem(Reason.TOPIC_REFUSED, f"Kafka at {servers} refuses: {error.str()}")
        trouble = examine(trouble, self._connection)
        problem = Problem(trouble.reason, f"Kafka: {trouble.message}")
        if trouble.reason is not TroubleReason.ACCESS_DENIED:
            with self._lock:
                self._silent = (self._clock() + _SILENCE_SECONDS, problem)
                if trouble.reason is TroubleReason.AUTHENTICATION_FAILED:
                    # It would go on trying every two seconds, for which some brokers lock a user out.
                    self._admin = None
        return problem

    def _identity(self, admin: AdminClient) -> str:
        known = self._cluster_id
        if known is None or self._clock() - known[0] >= _REMEMBERED_SECONDS:
            found = _result(admin.describe_cluster(request_timeout=_REQUEST_SECONDS))
            self._cluster_id = known = (self._clock(), str(found.cluster_id))
        return known[1]

    def _topics(self, admin: AdminClient, names: Mapping[str, str]) -> dict[str, Topic]:
        described = admin.describe_topics(TopicCollection(list(names)), request_timeout=_REQUEST_SECONDS)
        topics = {}
        for name, future in described.items():
            with _acl(names[name], f"topic '{name}'"):
                found = _unless(future, KafkaError.UNKNOWN_TOPIC_OR_PART)
            if found is not None:
                topics[name] = Topic(name, str(found.topic_id), len(found.partitions))
        return topics

    def _configs(self, admin: AdminClient, names: tuple[str, ...]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        asked = admin.describe_configs(resources, request_timeout=_REQUEST_SECONDS)
        found = {
            resource.name: _unless(future, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART)
            for resource, future in asked.items()
        }
        return {
            name: {key: entry.value for key, entry in (entries or {}).items() if entry.value is not None}
            for name, entries in found.items()
        }

    def _progress(self, admin: AdminClient, wanted: Wanted, offsets: Offsets) -> Progress:
        begins, ends = offsets
        known = self._caught_up.get((wanted.group, wanted.input))
        if known is not None and known[1] == ends and self._clock() - known[0] < _REMEMBERED_SECONDS:
            return Progress(0, sum(ends), self._clock())
        committed = self._committed(admin, wanted)
        # Without a committed offset a worker begins where the pipeline says.
        fallback = begins if wanted.from_earliest else ends
        positions = [
            min(max(committed.get(number, fallback[number]), begins[number]), ends[number])
            for number in range(len(ends))
        ]
        if positions == ends:
            self._remember_caught_up(wanted, ends)
        return Progress(sum(ends) - sum(positions), sum(positions), self._clock())

    def _committed(self, admin: AdminClient, wanted: Wanted) -> dict[int, int]:
        """What the group has committed, by partition of the input topic."""
        # librdkafka's list_consumer_group_offsets takes the process down where a broker answers that it isn't the
        # group's coordinator (confluent-kafka-python issue 1982). This request has the same answer as an error.
        self._members(admin, wanted.group)
        asked = admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(wanted.group)], request_timeout=_REQUEST_SECONDS
        )
        (future,) = asked.values()
        with _acl("READ", f"consumer group '{wanted.group}'"):
            answer = _result(future)
        return {
            found.partition: found.offset
            for found in answer.topic_partitions
            if found.topic == wanted.input and found.offset >= 0
        }

    def _remember_caught_up(self, wanted: Wanted, ends: list[int]) -> None:
        key = (wanted.group, wanted.input)
        now = self._clock()
        with self._lock:
            self._caught_up.pop(key, None)
            self._caught_up[key] = (now, ends)
            oldest = next(iter(self._caught_up))
            if now - self._caught_up[oldest][0] >= _REMEMBERED_SECONDS:
                del self._caught_up[oldest]

    def _offsets(self, admin: AdminClient, topics: Iterable[Topic]) -> dict[str, Offsets]:
        """By topic."""
        partitions = [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]
        asked = [
            admin.list_offsets(
                dict.fromkeys(partitions, spec),
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=_REQUEST_SECONDS,
            )
            for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
        ]
        begins, ends = (
            {(at.topic, at.partition): _result(future).offset for at, future in found.items()} for found in asked
        )
        return {
            topic.name: Offsets(
                *([found[topic.name, number] for number in range(topic.partitions)] for found in (begins, ends))
            )
            for topic in topics
        }

    def _create(self, admin: AdminClient, wanted: tuple[NewTopic, ...]) -> tuple[dict[str, str], Problem | None]:
        asked = admin.create_topics([_admin_topic(new) for new in wanted], request_timeout=_REQUEST_SECONDS)
        created, problem = [], None
        for name, future in asked.items():
            try:
                with _acl("CREATE", f"topic '{name}'"):
                    _result(future)
            except BrokersError as denied:
                problem = problem or denied.problem
            except KafkaException as error:
                # Somebody else was faster: it is theirs.
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    refused = self._problem(error.args[0])
                    problem = problem or Problem(refused.reason, f"topic '{name}' can't be created: {refused.message}")
            else:
                created.append(name)
        return self._ids(admin, created), problem

    def _ids(self, admin: AdminClient, created: list[str]) -> dict[str, str]:
        """The ids of topics that were made a moment ago, of which not every broker knows yet."""
        topics: dict[str, Topic] = {}
        deadline = self._clock() + _REQUEST_SECONDS
        while created:
            topics = self._topics(admin, dict.fromkeys(created, "DESCRIBE"))
            if len(topics) == len(created) or self._clock() >= deadline:
                break
            time.sleep(_SPREAD_SECONDS)
        return {name: topic.id for name, topic in topics.items()}

    def _grow(self, admin: AdminClient, wanted: tuple[tuple[str, int], ...]) -> None:
        asked = admin.create_partitions(
            [NewPartitions(name, count) for name, count in wanted], request_timeout=_REQUEST_SECONDS
        )
        for name, future in asked.items():
            with _acl("ALTER", f"topic '{name}'"):
                _result(future)

    def _alter(self, admin: AdminClient, wanted: tuple[tuple[str, Mapping[str, str]], ...]) -> None:
        resources = [
            ConfigResource(
                ResourceType.TOPIC,
                name,
                incremental_configs=[
                    ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
                    for key, value in config.items()
                ],
            )
            for name, config in wanted
        ]
        asked = admin.incremental_alter_configs(resources, request_timeout=_REQUEST_SECONDS)
        for resource, future in asked.items():
            with _acl("ALTER_CONFIGS", f"topic '{resource.name}'"):
                _result(future)

    def _members(self, admin: AdminClient, group: str) -> int:
        (future,) = admin.describe_consumer_groups([group], request_timeout=_REQUEST_SECONDS).values()
        with _acl("READ", f"consumer group '{group}'"):
            found = _unless(future, KafkaError.GROUP_ID_NOT_FOUND)
        return 0 if found is None else len(found.members)

    def _delete(self, admin: AdminClient, topics: tuple[str, ...], group: str) -> None:
        (future,) = admin.delete_consumer_groups([group], request_timeout=_REQUEST_SECONDS).values()
        with _acl("DELETE", f"consumer group '{group}'"):
            _unless(future, KafkaError.GROUP_ID_NOT_FOUND)
        if topics:
            for name, deleted in admin.delete_topics(list(topics), request_timeout=_REQUEST_SECONDS).items():
                with _acl("DELETE", f"topic '{name}'"):
                    _unless(deleted, KafkaError.UNKNOWN_TOPIC_OR_PART)


def with_configs(kafka: Kafka, configs: Mapping[str, Mapping[str, str]]) -> Kafka:
    """The same, with the topics' configuration."""
    topics = {name: replace(topic, config=configs.get(name, {})) for name, topic in kafka.topics.items()}
    return replace(kafka, topics=topics)


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
        raise BrokersError(Problem(trouble.reason, f"Kafka: {trouble.message}")) from None


def _result(future: "Future[Any]") -> Any:
    # librdkafka ends every request by its own time limit.
    return future.result()


def _unless(future: "Future[Any]", *codes: int) -> Any:
    """The result, or ``None`` for errors with these codes."""
    try:
        return _result(future)
    except KafkaException as error:
        if error.args[0].code() in codes:
            return None
        raise

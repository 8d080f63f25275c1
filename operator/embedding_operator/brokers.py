"""Every Kafka cluster that pipelines name: one client for each cluster and identity, and no decision."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from embedding_operator import kafka_requests, lag
from embedding_operator.caught_up import CaughtUp
from embedding_operator.kafka_requests import REQUEST_SECONDS, SPREAD_SECONDS, DeniedError
from embedding_operator.observed import Kafka, Offsets, Problem, Progress, Topic
from embedding_operator.reasons import Reason
from embedding_operator.silence import Silence
from embedding_operator.topics import NewTopic, TopicChanges
from embedding_service.connection_check import examine
from embedding_service.contract.broker_trouble import BrokerTrouble, Trouble, TroubleReason, explain
from embedding_service.contract.kafka import ClientConfig, Connection, connection_config
from embedding_service.contract.patience import Patience

_IDLE_SECONDS = 600.0
# Which cluster it is hardly ever changes, and is asked again after this.
_REMEMBERED_SECONDS = 60.0
# A client goes on connecting between the questions, which may take longer than one of them.
_PATIENCE_SECONDS = 60.0
# What brokers say while they agree on a topic that was made a moment ago, or on who leads what.
_PASSING = frozenset(
    {
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_CONTROLLER,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
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


class BrokersError(Exception):
    """Kafka doesn't answer, or refuses; ``remembered`` where it wasn't asked, since it was silent a moment ago."""

    def __init__(self, problem: Problem, *, remembered: bool = False) -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.remembered = remembered


class Brokers:
    """Every Kafka cluster that pipelines name. Safe to use from every thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._clients: dict[Connection, Client] = {}

    def client(self, connection: Connection) -> "Client":
        """The client of a cluster and an identity; those that nobody used for long are closed."""
        now = self._clock()
        # Let go of without the lock: a client may take its time to end.
        idle = []
        with self._lock:
            for known, client in list(self._clients.items()):
                if now - client.used > _IDLE_SECONDS:
                    idle.append(self._clients.pop(known))
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
        self._silence = Silence(clock)
        self._patience = Patience(_PATIENCE_SECONDS)
        self._lock = threading.Lock()
        self._admin: AdminClient | None = None
        # When it was asked for, and the id.
        self._cluster_id: tuple[float, str] | None = None
        self._caught_up = CaughtUp(clock)

    def observe(self, wanted: Wanted) -> Kafka:
        """The cluster, the topics and how far the group is."""
        cluster_id = self._answer(self._identity)
        topics = self._answer(kafka_requests.topics, wanted.topics)
        there = [topics[name] for name in (wanted.input, wanted.dead_letter) if name in topics]
        offsets = self._answer(kafka_requests.offsets, there) if there else {}
        progress = dead = None
        if wanted.input in offsets:
            progress = self._answer(self._progress, wanted, topics[wanted.input], offsets[wanted.input])
        if wanted.dead_letter in offsets:
            dead = sum(offsets[wanted.dead_letter].ends) - sum(offsets[wanted.dead_letter].begins)
        return Kafka(cluster_id, topics, progress, dead)

    def configs(self, topics: Iterable[str]) -> dict[str, dict[str, str]]:
        """The configuration of topics; empty for one that this user may not ask about."""
        return self._answer(kafka_requests.configs, tuple(topics))

    def create(self, wanted: tuple[NewTopic, ...]) -> tuple[dict[str, str], Problem | None]:
        """Create topics. Returns Kafka's ids of those that were created here, by name, and what was refused."""
        # The client refuses an empty list.
        return self._answer(self._create, wanted) if wanted else ({}, None)

    def change(self, changes: TopicChanges) -> None:
        """Grow and alter."""
        if changes.grow:
            self._answer(kafka_requests.grow, changes.grow)
        if changes.alter:
            self._answer(kafka_requests.alter, changes.alter)

    def delete(self, topics: Iterable[str], group: str) -> None:
        """Delete a consumer group without members, then topics; those that are gone already are no error."""
        self._answer(kafka_requests.delete, tuple(topics), group)

    def _answer(self, ask: Callable[..., T], *arguments: Any) -> T:
        """What ``ask`` returns. A cluster that is known to be silent isn't asked."""
        known = self._silence.begin()
        if known is not None:
            raise BrokersError(known, remembered=True)
        try:
            answer = self._patiently(ask, arguments)
        except DeniedError as denied:
            self._answered()
            raise BrokersError(denied.problem) from None
        except KafkaException as error:
            raise BrokersError(self._problem(error.args[0], ask)) from None
        finally:
            self._silence.asked()
        self._answered()
        # What it has gathered while it worked explains no later error.
        self._connected().poll(0)
        self._trouble.clear()
        return answer

    def _patiently(self, ask: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        """What ``ask`` returns, also where brokers are still agreeing on a topic that was made a moment ago."""
        deadline = self._clock() + REQUEST_SECONDS
        while True:
            try:
                return ask(self._connected(), *arguments)
            except KafkaException as error:
                if error.args[0].code() not in _PASSING or self._clock() >= deadline:
                    raise
            time.sleep(SPREAD_SECONDS)

    def _connected(self) -> AdminClient:
        with self._lock:
            if self._admin is None:
                self._admin = AdminClient(self._config())
            return self._admin

    def _config(self) -> ClientConfig:
        return connection_config(self._connection) | {
            "log_level": 0,
            "error_cb": self._trouble,
            "reconnect.backoff.max.ms": 2000,
            # Its end would wait for a last push.
            "enable.metrics.push": False,
        }

    def _drop_admin(self) -> None:
        with self._lock:
            self._admin = None

    def _problem(self, error: KafkaError, ask: Callable[..., Any]) -> Problem:
        """What an error means, for this question and for the next ones."""
        # It may be another cluster when it answers again.
        self._cluster_id = None
        servers = ",".join(self._connection.bootstrap_servers)
        trouble = self._trouble_of(error)
        if trouble is None:
            self._answered()
            if error.code() in _PASSING:
                return Problem(TroubleReason.BROKER_UNREACHABLE, f"Kafka at {servers} isn't ready yet: {error.str()}")
            return Problem(Reason.TOPIC_REFUSED, f"Kafka at {servers} refuses: {error.str()}")
        problem = Problem(trouble.reason, f"Kafka: {trouble.message}")
        if trouble.reason is TroubleReason.ACCESS_DENIED:
            self._answered()
        elif trouble.reason is TroubleReason.BROKER_UNREACHABLE and ask != self._identity and self._answers():
            # One partition without a leader, or one coordinator that hangs, is nothing to other pipelines.
            self._answered()
            # Asked for a group whose coordinator was restarted, librdkafka goes on waiting for the broker that it knew
            # before (its issue 5511). What a group has committed is asked by another client.
            if ask != self._progress:
                self._drop_admin()
            message = (
                f"Kafka at {servers} answers, but not for the topics and the group of this pipeline: {error.str()}"
            )
            return Problem(trouble.reason, message)
        else:
            problem = self._silence.failed(problem)
            unreachable = trouble.reason is TroubleReason.BROKER_UNREACHABLE
            # A client that was told of no broker may never find one again (librdkafka's issue 5301). A user whom the
            # brokers don't take would be tried on, every two seconds, for which some lock it out.
            if self._patience.is_over(self._clock(), so=unreachable) or not unreachable:
                self._drop_admin()
        return problem

    def _answered(self) -> None:
        self._silence.answered()
        self._patience.renew()

    def _answers(self) -> bool:
        """Whether the cluster answers at all."""
        try:
            kafka_requests.cluster_id(self._connected())
        except KafkaException:
            return False
        return True

    def _trouble_of(self, error: KafkaError) -> Trouble | None:
        admin = self._admin
        if admin is not None:
            admin.poll(0)
        told = explain(error.name(), error.str())
        if error.code() in _PASSING:
            return told
        # Librdkafka's own errors are below zero; who got a broker's answer needs no other explanation.
        silent = error.code() < 0 and (told is None or told.reason is TroubleReason.BROKER_UNREACHABLE)
        trouble = (self._trouble.last() if silent else None) or told
        return None if trouble is None else examine(trouble, self._connection)

    def _identity(self, admin: AdminClient) -> str:
        known = self._cluster_id
        if known is None or self._clock() - known[0] >= _REMEMBERED_SECONDS:
            self._cluster_id = known = (self._clock(), kafka_requests.cluster_id(admin))
        return known[1]

    def _progress(self, admin: AdminClient, wanted: Wanted, topic: Topic, offsets: Offsets) -> Progress:
        topic_id, begins, ends = offsets
        if self._caught_up.is_so(wanted.group, topic_id, ends):
            return Progress(topic_id, 0, tuple(ends), tuple(begins), self._clock())
        committed = kafka_requests.committed(self._config(), wanted.group, topic)
        beyond = any(offset > ends[number] for number, offset in committed.items() if number < len(ends))
        # Most often what came in, and was embedded, since the ends were asked for.
        highs = kafka_requests.highs(admin, topic) if beyond else ends
        found = lag.progress(offsets, committed, highs, self._clock(), from_earliest=wanted.from_earliest)
        if found.lag == 0 and not found.skips:
            self._caught_up.remember(wanted.group, topic_id, ends)
        return found

    def _create(self, admin: AdminClient, wanted: tuple[NewTopic, ...]) -> tuple[dict[str, str], Problem | None]:
        created, refused = kafka_requests.create(admin, wanted)
        problems = [self._not_created(name, error) for name, error in refused.items()]
        return kafka_requests.ids(admin, created), next(iter(problems), None)

    def _not_created(self, name: str, error: Problem | KafkaError) -> Problem:
        if isinstance(error, Problem):
            return error
        refused = self._problem(error, self._create)
        return Problem(refused.reason, f"topic '{name}' can't be created: {refused.message}")


def with_configs(kafka: Kafka, configs: Mapping[str, Mapping[str, str]]) -> Kafka:
    """The same, with the topics' configuration."""
    topics = {name: replace(topic, config=configs.get(name, {})) for name, topic in kafka.topics.items()}
    return replace(kafka, topics=topics)

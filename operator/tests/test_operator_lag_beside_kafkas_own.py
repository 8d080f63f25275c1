"""The lag of the status beside the one that Kafka's own tool reports, on a real Kafka; and that it is what is embedded.

The cases, both numbers, and why they differ stand in docs/status.md, too.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from embedding_operator import kafka_requests
from embedding_operator.brokers import Brokers, Client, Wanted
from embedding_service.contract.fingerprint import EmbeddingContract
from embedding_service.contract.kafka import Connection
from embedding_service.encoders.protocol import LoadedModel
from embedding_service.pipeline import Pipeline
from kafka_broker import KafkaBroker
from kafka_helpers import Record, commit_offsets, create_topics, delete_topics, end_offsets, produce
from kafka_tools import kafka_tool
from operator_objects import pipeline
from operator_scene import Scene
from running_pipeline import running
from service_fixtures import Stream
from status_page import rows, section
from waiting import wait_until
from word_encoder import WordEncoder

SECONDS = 60.0
MODEL = LoadedModel(
    encoder=WordEncoder(),
    name="words",
    source="test",
    path="",
    device="cpu",
    backend="none",
    precision="float32",
    contract=EmbeddingContract({}, 2, normalize=False, prompt=None, max_length=8),
    seconds=0.0,
    parameters=1,
)


@dataclass
class Scenery:
    """One case at the broker: its topics, its group, and who writes to it."""

    stream: Stream
    start_from: str = "earliest"
    open: list[Producer] = field(default_factory=list)

    @property
    def servers(self) -> str:
        return self.stream.bootstrap_servers

    @property
    def wanted(self) -> Wanted:
        stream = self.stream
        earliest = self.start_from == "earliest"
        return Wanted(stream.input, stream.output, stream.dead_letter, stream.group, from_earliest=earliest)

    def feed(self, count: int, partition: int = 0) -> None:
        self.stream.feed([b'{"text": "some words"}'] * count, partition=partition)

    def commit(self, *offsets: int) -> None:
        commit_offsets(self.servers, self.stream.group, self.stream.input, *offsets)

    def begin(self, count: int) -> Producer:
        """Begin a transaction, and have its records written."""
        # However slow the machine is, it is still open when it is asked about.
        timeout = {"transaction.timeout.ms": 600_000}
        producer = Producer({"bootstrap.servers": self.servers, "transactional.id": self.stream.name} | timeout)
        producer.init_transactions()
        producer.begin_transaction()
        for _ in range(count):
            producer.produce(self.stream.input, b'{"text": "some words"}', partition=0)
        producer.flush()
        return producer

    def worker(self) -> AbstractContextManager[Pipeline]:
        return running(self.stream.settings(kafka={"start_from": self.start_from}), MODEL)

    def wait_read(self, worker: Pipeline) -> None:
        """Wait until the worker has embedded all there is."""
        nothing = dict.fromkeys(range(self.partitions()), 0)
        wait_until(lambda: worker.lag == nothing, SECONDS, "the worker has caught up")

    def partitions(self) -> int:
        with AdminClient({"bootstrap.servers": self.servers}) as admin:
            return kafka_requests.topics(admin, {self.stream.input: "READ"})[self.stream.input].partitions

    def grow(self) -> None:
        with AdminClient({"bootstrap.servers": self.servers}) as admin:
            kafka_requests.grow(admin, ((self.stream.input, 2),))
            wait_until(lambda: self.partitions() == 2, SECONDS, "there are two partitions")

    def delete_before(self, offset: int) -> None:
        """As retention does."""
        with AdminClient({"bootstrap.servers": self.servers}) as admin:
            for future in admin.delete_records([TopicPartition(self.stream.input, 0, offset)]).values():
                future.result(SECONDS)


def never_committed(case: Scenery) -> None:
    case.feed(5)


def partly_committed(case: Scenery) -> None:
    case.feed(5)
    case.commit(3)


def grown(case: Scenery) -> None:
    case.feed(5)
    case.commit(5)
    case.grow()
    case.feed(3, partition=1)


def retained(case: Scenery) -> None:
    case.feed(10)
    case.commit(2)
    case.delete_before(8)


def expired(case: Scenery) -> None:
    case.feed(5)
    case.commit(5)
    # As brokers do with those of a group that nobody has been in for offsets.retention.minutes.
    with AdminClient({"bootstrap.servers": case.servers}) as admin:
        kafka_requests.delete(admin, (), case.stream.group)


def made_again(case: Scenery) -> None:
    case.feed(5)
    case.commit(5)
    delete_topics(case.servers, [case.stream.input])
    create_topics(case.servers, [case.stream.input], partitions=1)
    case.feed(3)


def cut(case: Scenery) -> None:
    # One node has no second one that could lack the last records.
    case.feed(3)
    case.commit(5)


def deleted(case: Scenery) -> None:
    case.feed(5)
    case.commit(3)
    delete_topics(case.servers, [case.stream.input])


def behind_a_control_record(case: Scenery) -> None:
    case.begin(1).commit_transaction()
    case.commit(1)


def worked_behind_transactions(case: Scenery) -> None:
    case.begin(1).commit_transaction()
    case.begin(2).abort_transaction()
    with case.worker() as worker:
        case.wait_read(worker)


def before_an_open_transaction(case: Scenery) -> None:
    case.feed(2)
    case.commit(2)
    case.open.append(case.begin(3))


@dataclass(frozen=True)
class Case:
    """``ours`` and ``theirs``: the lags that are told, ``None`` for none; ``embedded`` where workers embed other than that."""

    make: Callable[[Scenery], None]
    ours: int | None
    theirs: int | None
    embedded: int | None = None
    start_from: str = "earliest"


CASES = {
    "nothing is committed yet": Case(never_committed, 5, None),
    "nothing is committed yet, `startFrom: Latest`": Case(never_committed, 0, None, start_from="latest"),
    "3 of 5 are committed": Case(partly_committed, 2, 2),
    "all is committed; a partition is added": Case(grown, 3, 0),
    "the same, `startFrom: Latest`": Case(grown, 3, 0, start_from="latest"),
    "2 of 10 are committed; retention deletes the first 8": Case(retained, 2, 8),
    "all is committed; the offsets expire": Case(expired, 5, None),
    "5 are committed; the topic is made again and has 3": Case(made_again, 3, None),
    "5 are committed; the last 2 are lost, by an unclean election": Case(cut, 3, -2),
    "the topic is deleted": Case(deleted, None, None),
    "a consumer commits a message's offset + 1; behind it lies a transaction's end": Case(
        behind_a_control_record, 1, 1, embedded=0
    ),
    "a worker has read transactions, committed and aborted": Case(worked_behind_transactions, 0, 0, embedded=1),
    "all is committed; a transaction of 3 is open": Case(before_an_open_transaction, 0, 3),
}


@dataclass(frozen=True)
class Told:
    """What is told of a case."""

    scenery: Scenery
    ours: int | None
    theirs: int | None


def by_kafkas_tool(servers: str, timeout_ms: int = 60_000) -> dict[str, int]:
    """The lag of each group, as Kafka's tool reports it."""
    said = kafka_tool(
        "kafka-consumer-groups",
        "--bootstrap-server",
        servers,
        "--describe",
        "--all-groups",
        "--timeout",
        str(timeout_ms),
    )
    found: dict[str, int] = {}
    for line in said.splitlines():
        cells = line.split()
        # GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG …
        if len(cells) > 5 and cells[2].isdigit():
            found[cells[0]] = found.get(cells[0], 0) + int(cells[5])
    return found


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaBroker]:
    with KafkaBroker(own=True) as found:
        yield found


@pytest.fixture(scope="module")
def client(broker: KafkaBroker) -> Client:
    return Brokers().client(Connection(bootstrap_servers=(broker.bootstrap_servers,)))


@pytest.fixture(scope="module")
def table(broker: KafkaBroker, client: Client) -> dict[str, Told]:
    """Each case as it is told by both."""
    servers = broker.bootstrap_servers
    sceneries = {
        name: Scenery(Stream(servers, f"case-{number}"), case.start_from)
        for number, (name, case) in enumerate(CASES.items())
    }
    streams = [scenery.stream for scenery in sceneries.values()]
    create_topics(servers, [name for stream in streams for name in (stream.input, stream.output)], partitions=1)
    for name, case in CASES.items():
        case.make(sceneries[name])
    gone = sceneries["the topic is deleted"].wanted
    wait_until(lambda: gone.input not in client.observe(gone).topics, SECONDS, "the topic is gone")
    theirs = by_kafkas_tool(servers)
    return {
        name: Told(scenery, lag(client, scenery), theirs.get(scenery.stream.group))
        for name, scenery in sceneries.items()
    }


def lag(client: Client, scenery: Scenery) -> int | None:
    progress = client.observe(scenery.wanted).progress
    return None if progress is None else progress.lag


def test_the_page_has_each_case_with_both_numbers() -> None:
    numbers = {row[0]: tuple(row[1:3]) for row in rows(section("Lag"))}
    shown = {name: (_shown(case.ours), _shown(case.theirs)) for name, case in CASES.items()}
    assert numbers == shown | {"the brokers can't be reached": ("none", "none")}


def _shown(lag: int | None) -> str:
    return "none" if lag is None else str(lag)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=CASES.keys())
def test_the_lag_beside_the_one_of_kafkas_own_tool_where(name: str, case: Case, table: dict[str, Told]) -> None:
    assert (table[name].ours, table[name].theirs) == (case.ours, case.theirs)


@pytest.mark.slow
def test_what_was_counted_is_what_a_worker_embeds_then_and_nothing_is_left(
    client: Client, table: dict[str, Told]
) -> None:
    there = {name: told.scenery for name, told in table.items() if told.ours is not None}
    # All at once: each takes a second or two to join its group.
    with ExitStack() as stack:
        started = [(scenery, stack.enter_context(scenery.worker())) for scenery in there.values()]
        for scenery, worker in started:
            scenery.wait_read(worker)
    outputs = {name: sum(end_offsets(one.servers, one.stream.output).values()) for name, one in there.items()}
    counted = {name: CASES[name].ours if CASES[name].embedded is None else CASES[name].embedded for name in there}
    assert outputs == counted
    assert {name: lag(client, scenery) for name, scenery in there.items()} == dict.fromkeys(there, 0)


@pytest.mark.slow
def test_where_the_brokers_can_not_be_reached_neither_tells_a_lag_and_ours_comes_back_with_them(
    broker: KafkaBroker, unique: str
) -> None:
    servers, topic = broker.bootstrap_servers, f"{unique}-in"
    create_topics(servers, [topic], partitions=1)
    produce(servers, [Record(topic, 0, value=b"x")] * 2)
    given = pipeline(kafka={"bootstrapServers": [servers]}, input={"topic": topic}, topics={"manage": False})
    scene = Scene(given, Brokers())

    def told() -> tuple[int | None, float | None]:
        scene.look(after=10)
        return scene.cluster.status.get("lag"), scene.exported("embedding_pipeline_lag")

    assert told() == (2, 2)
    broker.kill()
    try:
        assert told() == (None, None)
        assert by_kafkas_tool(servers, timeout_ms=5_000) == {}
    finally:
        broker.restart()
    wait_until(lambda: told() == (2, 2), SECONDS, "the lag is told again")

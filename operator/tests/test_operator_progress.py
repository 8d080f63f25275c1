"""How far a consumer group is, as the operator reads it from a real Kafka."""

import pytest
from confluent_kafka import Consumer, TopicPartition

from embedding_operator.brokers import Brokers, Client, Wanted
from embedding_service.contract.kafka import Connection
from kafka_broker import KafkaBroker
from kafka_helpers import Record, create_topics, delete_topics, produce
from manual_clock import Clock

pytestmark = pytest.mark.slow


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(kafka: KafkaBroker, clock: Clock) -> Client:
    return Brokers(clock).client(Connection(bootstrap_servers=(kafka.bootstrap_servers,)))


@pytest.fixture
def wanted(kafka: KafkaBroker, unique: str) -> Wanted:
    found = Wanted(f"{unique}-in", f"{unique}-out", f"{unique}-dead", unique, from_earliest=True)
    create_topics(kafka.bootstrap_servers, [found.input], partitions=2)
    return found


def write(kafka: KafkaBroker, topic: str, count: int) -> None:
    produce(kafka.bootstrap_servers, [Record(topic, number % 2, value=b"x") for number in range(count)])


def commit(kafka: KafkaBroker, wanted: Wanted, *offsets: int) -> None:
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": wanted.group})
    places = [TopicPartition(wanted.input, number, offset) for number, offset in enumerate(offsets)]
    consumer.commit(offsets=places, asynchronous=False)
    consumer.close()


def lag(client: Client, wanted: Wanted) -> int:
    progress = client.observe(wanted).progress
    assert progress is not None
    return progress.lag


def test_a_group_that_never_committed_has_all_before_it(kafka: KafkaBroker, client: Client, wanted: Wanted) -> None:
    write(kafka, wanted.input, 5)
    assert lag(client, wanted) == 5


def test_lag_falls_with_what_is_committed_and_rises_with_what_comes_in(
    kafka: KafkaBroker, client: Client, wanted: Wanted
) -> None:
    write(kafka, wanted.input, 4)
    commit(kafka, wanted, 1, 0)
    assert lag(client, wanted) == 3
    commit(kafka, wanted, 2, 2)
    assert lag(client, wanted) == 0
    write(kafka, wanted.input, 2)
    assert lag(client, wanted) == 2
    commit(kafka, wanted, 3, 3)
    assert lag(client, wanted) == 0


def test_a_group_that_is_set_back_by_hand_is_noticed_within_a_minute(
    kafka: KafkaBroker, client: Client, wanted: Wanted, clock: Clock
) -> None:
    write(kafka, wanted.input, 2)
    commit(kafka, wanted, 1, 1)
    assert lag(client, wanted) == 0
    commit(kafka, wanted, 0, 0)
    clock.now += 60
    assert lag(client, wanted) == 2


def test_topics_are_those_of_this_moment_and_dead_letters_are_counted(
    kafka: KafkaBroker, client: Client, wanted: Wanted
) -> None:
    found = client.observe(wanted)
    assert (set(found.topics), found.dead_letters) == ({wanted.input}, None)
    create_topics(kafka.bootstrap_servers, [wanted.dead_letter], partitions=2)
    write(kafka, wanted.dead_letter, 3)
    found = client.observe(wanted)
    assert (set(found.topics), found.dead_letters) == ({wanted.input, wanted.dead_letter}, 3)
    delete_topics(kafka.bootstrap_servers, [wanted.input])
    found = client.observe(wanted)
    assert (set(found.topics), found.progress) == ({wanted.dead_letter}, None)

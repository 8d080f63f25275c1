"""How far a consumer group is, as the operator reads it from a real Kafka."""

from collections.abc import Iterable
from contextlib import suppress

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from embedding_operator import kafka_requests
from embedding_operator.brokers import Brokers, BrokersError, Client, Wanted
from embedding_operator.observed import Offsets, Topic
from embedding_service.contract.kafka import Connection
from kafka_broker import KafkaBroker
from kafka_helpers import Record, commit_offsets, create_topics, delete_topics, produce
from manual_clock import Clock
from waiting import wait_until

pytestmark = pytest.mark.slow


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
    commit_offsets(kafka.bootstrap_servers, wanted.group, wanted.input, *offsets)


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


def test_a_topic_whose_brokers_hang_is_that_pipelines_trouble_and_no_others(
    kafka: KafkaBroker, client: Client, wanted: Wanted, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Wanted(f"{unique}-other", f"{unique}-o", f"{unique}-d", f"{unique}-g", from_earliest=True)
    create_topics(kafka.bootstrap_servers, [other.input], partitions=2)
    answers = kafka_requests.offsets

    # One node has no second one that could be lost.
    def offsets(admin: AdminClient, there: Iterable[Topic]) -> dict[str, Offsets]:
        topics = list(there)
        if any(topic.name == wanted.input for topic in topics):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return answers(admin, topics)

    monkeypatch.setattr(kafka_requests, "offsets", offsets)
    for _ in range(3):
        with pytest.raises(BrokersError, match="answers, but not for the topics and the group of this pipeline"):
            client.observe(wanted)
        assert lag(client, other) == 0


def test_a_cluster_that_hangs_is_asked_for_one_pipeline_and_remembered_for_the_others(
    wanted: Wanted, clock: Clock
) -> None:
    with KafkaBroker(own=True) as broker:
        client = Brokers(clock).client(Connection(bootstrap_servers=(broker.bootstrap_servers,)))
        client.observe(wanted)
        broker.pause()
        clock.now += 60
        for remembered in (False, True):
            with pytest.raises(BrokersError) as raised:
                client.observe(wanted)
            assert raised.value.problem.reason == "BrokerUnreachable"
            assert raised.value.remembered is remembered
        broker.resume()

        def answered() -> bool:
            clock.now += 30
            with suppress(BrokersError):
                return bool(client.observe(wanted).cluster_id)
            return False

        wait_until(answered, 60, "it is asked again, and answers")


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
    # The brokers tell each other.
    wait_until(lambda: set(client.observe(wanted).topics) == {wanted.dead_letter}, 30, "the topic is gone")
    assert client.observe(wanted).progress is None

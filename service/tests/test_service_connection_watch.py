"""Clients that have lost every broker for good: when that is believed, and what is done about it."""

import json
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from embedding_service import connection_watch, pipeline
from embedding_service.connection_watch import ConnectionWatch, Reach, reaches_brokers
from embedding_service.consumer import ConsumerLoop
from embedding_service.contract.patience import Patience
from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.contract.settings import KafkaSettings, Settings
from embedding_service.contract.stats import State
from embedding_service.delivery.at_least_once import AtLeastOnce
from embedding_service.delivery.offsets import OffsetTracker
from embedding_service.delivery.output import Target
from embedding_service.encoders.protocol import LoadedModel
from embedding_service.inbox import Inbox
from embedding_service.metrics import Metrics
from embedding_service.pipeline import Pipeline
from embedding_service.stages import Failure
from embedding_service.topics import Partitions
from kafka_broker import KafkaBroker
from manual_clock import Clock
from running_pipeline import running
from service_fixtures import STREAM_SECONDS, make_stream
from waiting import wait_until

SECONDS = 60


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        pytest.param([(0, True), (30, True), (59, True)], False, id="not yet long enough"),
        pytest.param([(0, True), (30, True), (60, True)], True, id="a minute"),
        pytest.param([(0, True), (30, False), (60, True)], False, id="not so meanwhile"),
        pytest.param([(0, False), (600, True), (630, True)], False, id="so since a moment ago"),
        pytest.param([(0, False), (600, False)], False, id="never so"),
    ],
)
def test_patience_is_over_where_something_has_been_so_without_a_break(
    looks: list[tuple[float, bool]], expected: bool
) -> None:
    patience = Patience(SECONDS)
    over = [patience.is_over(now, so=so) for now, so in looks]
    assert over[-1] is expected
    assert not any(over[:-1])


def test_patience_begins_anew_once_it_was_over() -> None:
    patience = Patience(SECONDS)
    over = [patience.is_over(now, so=True) for now in range(0, 200, 10)]
    assert [10 * number for number, was in enumerate(over) if was] == [60, 130]


def broker(nodeid: int, state: str) -> dict[str, Any]:
    return {"nodeid": nodeid, "state": state}


BOOTSTRAP = broker(-1, "UP")


@pytest.mark.parametrize(
    ("brokers", "expected"),
    [
        pytest.param({"b:1/bootstrap": BOOTSTRAP}, False, id="the address that everybody begins with"),
        pytest.param({"b:1/bootstrap": BOOTSTRAP, "GroupCoordinator": broker(-1, "UP")}, False, id="a coordinator that is nobody"),
        pytest.param({"b:1/bootstrap": BOOTSTRAP, "b:1/1": broker(1, "UP")}, True, id="a broker that it was told of"),
        pytest.param({"b:1/bootstrap": BOOTSTRAP, "b:1/1": broker(1, "DOWN")}, False, id="one that it was told of, and that is down"),
        pytest.param({"b:1/0": broker(0, "DOWN"), "b:2/1": broker(1, "UP")}, True, id="one of two"),
        pytest.param({}, False, id="none"),
    ],
)  # fmt: skip
def test_a_client_reaches_the_brokers_that_it_was_told_of(brokers: dict[str, Any], expected: bool) -> None:
    assert reaches_brokers({"brokers": brokers}) is expected


def test_a_client_that_tells_nothing_for_a_while_is_not_taken_for_lost(clock: Clock) -> None:
    reach = Reach(clock)
    assert not reach.is_lost
    reach.on_stats(json.dumps({"brokers": {}}))
    clock.now += 10
    assert reach.is_lost
    clock.now += 0.1
    assert not reach.is_lost
    reach.on_stats(json.dumps({"brokers": {}}))
    assert reach.is_lost


def test_a_producer_without_a_broker_is_lost_where_it_has_something_to_send_and_nobody_asked_for_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "_PRODUCER_STATISTICS_MS", 50)
    kafka = {"bootstrap_servers": "127.0.0.1:1", "input_topic": "in", "output_topic": "out"}
    settings = Settings.model_validate({"kafka": kafka})
    run = Pipeline(settings, cast("LoadedModel", None), Metrics())
    run._loop = ConsumerLoop(settings, OffsetTracker(), Inbox(), Metrics(), Failure())
    producer = pipeline._new_producer(settings.kafka, run._producer_reach, Partitions(1, 1))
    delivery = AtLeastOnce(lambda: producer, cast("Target", None), OffsetTracker(), lambda _: None)

    def lost_with_nothing_to_send() -> bool:
        # Statistics that nobody has taken yet count as outstanding.
        return producer.poll(0.05) >= 0 and run._producer_reach.is_lost and run._lost(delivery) is None

    wait_until(lost_with_nothing_to_send, 10, "the producer tells of no broker")
    producer.produce("out", b"x")
    assert run._lost(delivery) == "producer"
    run._loop.reach.on_stats(json.dumps({"brokers": {}}))
    assert run._lost(delivery) == "consumer"
    run.stop()
    assert run._lost(delivery) is None
    producer.purge()


class Admin:
    """A client of brokers of which each answers for its partition, or doesn't. By partition: leader, error."""

    def __init__(self, partitions: dict[int, tuple[int, int | None]] | Exception) -> None:
        self._partitions = partitions

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def list_topics(self, topic: str, timeout: float) -> Any:
        if isinstance(self._partitions, Exception):
            raise self._partitions
        found = {number: SimpleNamespace(leader=leader) for number, (leader, _) in self._partitions.items()}
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions=found)} if found else {}, timeout=timeout)

    def list_offsets(self, ends: dict[TopicPartition, object], request_timeout: float) -> dict[Any, Future[Any]]:
        assert not isinstance(self._partitions, Exception)
        # As librdkafka does, which looks for all leaders first.
        leaderless = any(self._partitions[position.partition][0] < 0 for position in ends)
        answers: dict[Any, Future[Any]] = {}
        for position in ends:
            answers[position] = Future()
            error = KafkaError._TIMED_OUT if leaderless else self._partitions[position.partition][1]
            if error is None:
                answers[position].set_result(request_timeout)
            else:
                answers[position].set_exception(KafkaException(KafkaError(error)))
        return answers


@pytest.mark.parametrize(
    ("partitions", "expected"),
    [
        pytest.param({0: (1, None), 1: (2, None)}, True, id="all leaders answer"),
        pytest.param({0: (-1, None), 1: (2, None)}, True, id="a partition without a leader"),
        pytest.param({0: (1, KafkaError._TIMED_OUT), 1: (2, None)}, True, id="a leader that hangs"),
        pytest.param({0: (1, KafkaError._TIMED_OUT), 1: (1, KafkaError._TIMED_OUT)}, False, id="all hang"),
        pytest.param({0: (-1, None)}, False, id="no leader at all"),
        pytest.param(KafkaException(KafkaError(KafkaError._TRANSPORT)), False, id="nobody is reached"),
        pytest.param({}, False, id="a topic that isn't told of"),
        pytest.param(OSError("Too many open files"), False, id="something else"),
    ],
)
def test_brokers_answer_where_any_leader_does(
    partitions: dict[int, tuple[int, int | None]] | Exception, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_watch, "AdminClient", lambda _: Admin(partitions))
    kafka = KafkaSettings(bootstrap_servers=["127.0.0.1:1"], input_topic="in", output_topic="out")
    assert ConnectionWatch(kafka, lambda: None, Failure())._answers() is expected


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_watch, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(connection_watch, "_PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(connection_watch, "_REQUEST_SECONDS", 1.0)


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_worker_whose_consumer_never_finds_its_brokers_again_ends_for_a_restart(
    private_kafka: KafkaBroker, unique: str, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = make_stream(private_kafka, unique)
    # How librdkafka comes to it can't be had on demand.
    monkeypatch.setattr(Reach, "is_lost", property(lambda _: True))
    with running(stream.settings(), model) as pipeline:
        wait_until(pipeline.failure.occurred, 60, "the worker gives the client up")
        pipeline.join(60)
        assert not pipeline.is_alive()
    error = pipeline.failure.error
    assert isinstance(error, Termination)
    assert error.reason is TerminationReason.CRASHED
    assert "the consumer has lost all brokers, which answer others" in error.message


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_broker_that_hangs_is_waited_for(
    private_kafka: KafkaBroker, unique: str, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[bool] = []
    ask = ConnectionWatch._answers

    def noted(watch: ConnectionWatch) -> bool:
        answers.append(ask(watch))
        return answers[-1]

    stream = make_stream(private_kafka, unique)
    with running(stream.settings(), model) as pipeline:
        wait_until(lambda: pipeline.state is State.RUNNING, STREAM_SECONDS, "the worker is there")
        private_kafka.pause()
        monkeypatch.setattr(ConnectionWatch, "_answers", noted)
        monkeypatch.setattr(Reach, "is_lost", property(lambda _: True))
        wait_until(lambda: len(answers) >= 2, STREAM_SECONDS, "others were tried twice")
        assert not pipeline.failure.occurred()
        monkeypatch.setattr(Reach, "is_lost", property(lambda _: False))
        private_kafka.resume()
    assert not any(answers[:2])

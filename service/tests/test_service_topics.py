"""How a worker waits for its brokers before it starts: with which client, and for what."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from embedding_service import topics
from embedding_service.contract.settings import KafkaSettings
from embedding_service.topics import TopicCheck
from kafka_helpers import create_topics
from manual_clock import Clock
from service_fixtures import Stream

SILENT, NOT_READY = KafkaError._TIMED_OUT, KafkaError.LEADER_NOT_AVAILABLE


class Stop(threading.Event):
    """Passes the time between looks, and ends them."""

    def __init__(self, clock: Clock, until: float) -> None:
        super().__init__()
        self._clock = clock
        self._until = until

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.now += timeout or 0
        if self._clock.now >= self._until:
            self.set()
        return self.is_set()


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Callable[[Callable[[float], int], float], int]:
    """How many clients a check makes of brokers that answer so, by the seconds since its begin."""

    def count(code: Callable[[float], int], seconds: float) -> int:
        begin, made = clock.now, []

        class Client:
            def __init__(self, _: object) -> None:
                made.append(self)

            def list_topics(self, _: str, timeout: float) -> None:
                error = code(clock.now - begin)
                clock.now += timeout if error == SILENT else 0
                raise KafkaException(KafkaError(error))

            def poll(self, _: float) -> None:
                pass

        monkeypatch.setattr(topics, "AdminClient", Client)
        kafka = KafkaSettings(bootstrap_servers=["127.0.0.1:1"], input_topic="in", output_topic="out")
        assert TopicCheck(kafka, None, Stop(clock, begin + seconds), clock).run() is None
        return len(made)

    return count


Clients = Callable[[Callable[[float], int], float], int]


def test_a_client_that_is_slow_to_connect_is_given_a_minute_to_it(clients: Clients) -> None:
    assert clients(lambda _: SILENT, 55) == 1


def test_a_client_that_reached_nobody_for_a_minute_is_replaced_and_so_is_the_next(clients: Clients) -> None:
    assert clients(lambda _: SILENT, 80) == 2
    assert clients(lambda _: SILENT, 160) == 3


def test_a_client_that_brokers_answer_is_kept_however_long_they_are_not_ready(clients: Clients) -> None:
    assert clients(lambda _: NOT_READY, 600) == 1


def test_an_answer_begins_the_minute_anew(clients: Clients) -> None:
    assert clients(lambda second: NOT_READY if 50 <= second < 56 else SILENT, 110) == 1


@pytest.mark.slow
def test_a_topics_limit_that_was_not_told_in_time_is_asked_for_again(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[str] = []

    class SilentAtFirst(AdminClient):
        """A broker that is late once can't be had on demand."""

        # The stubs show how it is implemented, not how it is called.
        def describe_configs(  # type: ignore[override]
            self, resources: list[Any], **options: Any
        ) -> dict[Any, Future[Any]]:
            found = super().describe_configs(resources, **options)
            if not answers:
                silent: Future[Any] = Future()
                silent.set_exception(KafkaException(KafkaError(SILENT)))
                found = dict.fromkeys(found, silent)
            answers.append("asked")
            return found

    output = f"{stream.output}-of-small-batches"
    create_topics(stream.bootstrap_servers, [output], config={"max.message.bytes": "50000"})
    monkeypatch.setattr(topics, "AdminClient", SilentAtFirst)
    kafka = stream.settings(kafka={"output_topic": output}).kafka
    found = TopicCheck(kafka, None, threading.Event()).run()
    assert found is not None
    assert found.max_batch_bytes == 50_000

"""Which client the operator asks a silent cluster with."""

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException

from embedding_operator import brokers, kafka_requests
from embedding_operator.brokers import Brokers, BrokersError, Client
from embedding_service.contract.kafka import Connection
from manual_clock import Clock

# Longer than the longest pause between questions.
PAUSE = 30
Ask = Callable[[int | None], None]


class Admin:
    """A client that was made; what it is asked is answered elsewhere."""

    made = 0

    def __init__(self, _: object) -> None:
        type(self).made += 1

    def poll(self, _: float) -> None:
        pass


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Client:
    monkeypatch.setattr(brokers, "AdminClient", Admin)
    monkeypatch.setattr(Admin, "made", 0)
    return Brokers(clock).client(Connection(("127.0.0.1:1",)))


@pytest.fixture
def ask(client: Client, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Asks once, some time after the last question; the cluster answers, or there is an error."""

    def once(code: int | None) -> None:
        def answer(*_: object) -> int:
            if code is not None:
                raise KafkaException(KafkaError(code))
            return 1

        monkeypatch.setattr(kafka_requests, "configs", answer)
        monkeypatch.setattr(kafka_requests, "cluster_id", answer)
        clock.now += PAUSE
        if code is None:
            client.configs(("topic",))
        else:
            with pytest.raises(BrokersError) as raised:
                client.configs(("topic",))
            assert not raised.value.remembered

    return once


def test_a_client_that_is_slow_to_connect_is_given_a_minute_to_it(ask: Ask) -> None:
    for _ in range(2):
        ask(KafkaError._TIMED_OUT)
    ask(None)
    assert Admin.made == 1


def test_a_client_that_reached_nobody_for_a_minute_is_replaced_and_so_is_the_next(ask: Ask) -> None:
    for made in (1, 1, 1, 2, 2, 2, 3):
        ask(KafkaError._TIMED_OUT)
        assert Admin.made == made


@pytest.mark.parametrize("code", [None, KafkaError.INVALID_CONFIG])
def test_an_answer_begins_the_minute_anew_also_a_refusal(ask: Ask, code: int | None) -> None:
    for _ in range(2):
        ask(KafkaError._TIMED_OUT)
    ask(code)
    for _ in range(2):
        ask(KafkaError._TIMED_OUT)
    ask(None)
    assert Admin.made == 1


def test_a_client_whose_user_is_refused_is_dropped_at_once(ask: Ask) -> None:
    for made in (1, 2):
        ask(KafkaError._AUTHENTICATION)
        assert Admin.made == made


def test_a_client_that_can_not_ask_for_one_group_is_dropped_at_once(
    ask: Ask, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: object) -> int:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    ask(None)
    monkeypatch.setattr(kafka_requests, "configs", silent)
    with pytest.raises(BrokersError, match="answers, but not for the topics and the group"):
        client.configs(("topic",))
    ask(None)
    assert Admin.made == 2

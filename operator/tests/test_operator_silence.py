"""When a cluster that doesn't answer is asked again."""

import pytest

from embedding_operator.observed import Problem
from embedding_operator.silence import Silence
from manual_clock import Clock

PROBLEM = Problem("BrokerUnreachable", "Kafka: nobody answers")


@pytest.fixture
def silence(clock: Clock) -> Silence:
    return Silence(clock)


def ask_in_vain(silence: Silence) -> None:
    assert silence.begin() is None
    silence.failed(PROBLEM)
    silence.asked()


def test_a_cluster_that_answers_is_asked_by_many_at_once(silence: Silence) -> None:
    assert silence.begin() is None
    assert silence.begin() is None


def test_a_silent_cluster_is_asked_again_after_5_10_20_and_then_every_30_seconds(
    silence: Silence, clock: Clock
) -> None:
    for pause in (5, 10, 20, 30, 30):
        ask_in_vain(silence)
        clock.now += pause - 0.1
        assert silence.begin() == PROBLEM
        clock.now += 0.1


def test_one_asks_a_silent_cluster_and_the_others_are_told_at_once(silence: Silence, clock: Clock) -> None:
    ask_in_vain(silence)
    clock.now += 5
    assert silence.begin() is None
    assert silence.begin() == PROBLEM
    silence.asked()
    assert silence.begin() is None, "the next one may ask, though nobody said how it went"


def test_many_that_find_out_at_once_count_as_one(silence: Silence, clock: Clock) -> None:
    for _ in range(8):
        assert silence.begin() is None
    for _ in range(8):
        silence.failed(PROBLEM)
        silence.asked()
    clock.now += 5
    assert silence.begin() is None


def test_after_an_answer_all_may_ask_and_the_next_silence_begins_anew(silence: Silence, clock: Clock) -> None:
    ask_in_vain(silence)
    clock.now += 5
    ask_in_vain(silence)
    clock.now += 10
    assert silence.begin() is None
    silence.answered()
    silence.asked()
    ask_in_vain(silence)
    clock.now += 5
    assert silence.begin() is None


def test_what_is_told_stays_while_it_is_the_same_trouble(silence: Silence, clock: Clock) -> None:
    ask_in_vain(silence)
    clock.now += 5
    assert silence.begin() is None
    assert silence.failed(Problem(PROBLEM.reason, "Kafka: the other broker doesn't answer either")) == PROBLEM
    silence.asked()
    clock.now += 10
    assert silence.begin() is None
    refused = Problem("AuthenticationFailed", "Kafka: wrong password")
    assert silence.failed(refused) == refused

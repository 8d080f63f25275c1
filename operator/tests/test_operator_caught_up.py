"""Groups that had read everything: for which topic, up to where, and for how long that is remembered."""

import pytest

from embedding_operator.caught_up import CaughtUp
from manual_clock import Clock


@pytest.fixture
def caught_up(clock: Clock) -> CaughtUp:
    found = CaughtUp(clock)
    found.remember("group", "id", [5, 5])
    return found


def test_it_is_remembered_for_a_minute(caught_up: CaughtUp, clock: Clock) -> None:
    clock.now += 59
    assert caught_up.is_so("group", "id", [5, 5])
    clock.now += 1
    assert not caught_up.is_so("group", "id", [5, 5])


OTHERS = {
    "another group": ("other", "id", [5, 5]),
    "a topic that was made again under its name": ("group", "its new id", [5, 5]),
    "records that came in": ("group", "id", [5, 6]),
    "a partition that was added": ("group", "id", [5, 5, 0]),
}


@pytest.mark.parametrize(("group", "topic_id", "ends"), OTHERS.values(), ids=OTHERS.keys())
def test_it_is_not_said_of(group: str, topic_id: str, ends: list[int], caught_up: CaughtUp) -> None:
    assert not caught_up.is_so(group, topic_id, ends)

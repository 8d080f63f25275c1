"""Which pipeline is due: each by one at a time, none twice for nothing, none forgotten."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from embedding_operator.due import DueQueue
from embedding_operator.store import Key
from manual_clock import Clock
from waiting import wait_until

A, B = ("search", "a"), ("search", "b")


@pytest.fixture
def queue(clock: Clock) -> Iterator[DueQueue]:
    queue = DueQueue(clock)
    yield queue
    queue.close()


_threads = ThreadPoolExecutor(1)


def take(queue: DueQueue) -> Key | None:
    """What is due, where something has to be."""
    asked = _threads.submit(queue.take)
    try:
        return asked.result(10)
    except TimeoutError:
        queue.close()
        raise


def test_what_is_added_is_due_after_its_delay_and_the_soonest_comes_first(queue: DueQueue, clock: Clock) -> None:
    queue.add(A, 2)
    queue.add(B, 1)
    clock.now += 2
    assert [take(queue), take(queue)] == [B, A]


def test_changes_that_come_together_lead_to_one_look(queue: DueQueue, clock: Clock) -> None:
    for _ in range(5):
        queue.add(A)
    queue.add(B, 5)
    clock.now += 5
    assert [take(queue), take(queue)] == [A, B]
    assert len(queue) == 2


def test_a_change_makes_a_look_sooner_and_never_later(queue: DueQueue, clock: Clock) -> None:
    queue.add(A, 60)
    queue.add(A, 1)
    queue.add(A, 60)
    clock.now += 1
    assert take(queue) == A


def test_a_pipeline_that_is_looked_at_is_given_to_nobody_else_and_looked_at_again_for_what_came_meanwhile(
    queue: DueQueue, clock: Clock
) -> None:
    queue.add(A, 0)
    assert take(queue) == A
    queue.add(A, 0)
    queue.add(B, 1)
    clock.now += 1
    assert take(queue) == B
    queue.done(A, 60)
    assert take(queue) == A


def test_after_a_look_the_next_one_is_after_its_delay(queue: DueQueue, clock: Clock) -> None:
    queue.add(A, 0)
    take(queue)
    queue.done(A, 10)
    queue.add(B, 9)
    clock.now += 10
    assert [take(queue), take(queue)] == [B, A]


def test_a_pipeline_that_is_gone_is_not_looked_at_until_something_comes(queue: DueQueue, clock: Clock) -> None:
    queue.add(A, 0)
    take(queue)
    queue.done(A, None)
    assert len(queue) == 0
    clock.now += 3600
    queue.add(A, 0)
    assert take(queue) == A


def test_looks_that_go_wrong_come_twice_as_late_each_time_and_at_last_each_minute(
    queue: DueQueue, clock: Clock
) -> None:
    queue.add(A, 0)
    delays = []
    for _ in range(9):
        take(queue)
        delays.append(queue.failed(A))
        clock.now += delays[-1]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_look_that_goes_well_makes_good_for_those_before(queue: DueQueue, clock: Clock) -> None:
    queue.add(A, 0)
    for _ in range(3):
        take(queue)
        clock.now += queue.failed(A)
    take(queue)
    queue.done(A, 0)
    take(queue)
    assert queue.failed(A) == 1


def test_a_change_is_looked_at_at_once_though_the_last_look_went_wrong(queue: DueQueue) -> None:
    queue.add(A, 0)
    take(queue)
    queue.failed(A)
    queue.add(A, 0)
    assert take(queue) == A


def test_the_pipelines_that_wait_or_are_looked_at_are_counted_once(queue: DueQueue) -> None:
    queue.add(A, 0)
    queue.add(B, 60)
    take(queue)
    queue.add(A, 0)
    assert len(queue) == 2


def test_a_closed_queue_lets_go_of_everyone_who_waits() -> None:
    queue = DueQueue()
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(queue.take) for _ in range(4)]
        queue.close()
        assert [one.result(10) for one in waiting] == [None] * 4


def test_what_is_added_while_everyone_waits_is_taken() -> None:
    queue = DueQueue()
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(queue.take) for _ in range(4)]
        queue.add(A, 0)
        queue.add(B, 0.01)
        wait_until(lambda: sum(one.done() for one in waiting) == 2, 10, "two of four have something to do")
        queue.close()
        assert {one.result(10) for one in waiting} == {A, B, None}


def test_many_threads_look_at_each_pipeline_one_at_a_time_and_after_its_last_change() -> None:
    queue, keys, changes = DueQueue(), [("search", str(number)) for number in range(5)], 50
    changed, seen = dict.fromkeys(keys, 0), dict.fromkeys(keys, 0)
    busy = {key: threading.Lock() for key in keys}

    def look() -> None:
        while (key := queue.take()) is not None:
            assert busy[key].acquire(blocking=False), "looked at twice at once"
            seen[key] = changed[key]
            busy[key].release()
            queue.done(key, None)

    with ThreadPoolExecutor(4) as threads:
        looking = [threads.submit(look) for _ in range(4)]
        for _ in range(changes):
            for key in keys:
                changed[key] += 1
                queue.add(key, 0)
        wait_until(lambda: seen == changed and len(queue) == 0, 10, "the last change of each was looked at")
        queue.close()
        for one in looking:
            one.result(10)


class Looks(RuleBasedStateMachine):
    """The queue beside a plain table of what is due when."""

    KEYS = st.sampled_from([("n", letter) for letter in "abc"])
    DELAYS = st.sampled_from([0, 0.2, 1, 10, 60])

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.queue = DueQueue(self.clock)
        self.due: dict[Key, float] = {}
        self.taken: list[Key] = []

    def schedule(self, key: Key, delay: float) -> None:
        self.due[key] = min(self.due.get(key, float("inf")), self.clock.now + delay)

    def next(self) -> Key | None:
        ready = [(due, key) for key, due in self.due.items() if key not in self.taken and due <= self.clock.now]
        return min(ready)[1] if ready else None

    @rule(key=KEYS, delay=DELAYS)
    def something_changes(self, key: Key, delay: float) -> None:
        self.queue.add(key, delay)
        self.schedule(key, delay)

    @rule(seconds=DELAYS)
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @precondition(lambda self: self.next() is not None)
    @rule()
    def the_soonest_is_taken(self) -> None:
        expected = self.next()
        assert expected is not None
        assert take(self.queue) == expected
        self.taken.append(expected)
        del self.due[expected]

    @precondition(lambda self: self.taken)
    @rule(delay=st.one_of(st.none(), DELAYS))
    def a_look_is_over(self, delay: float | None) -> None:
        key = self.taken.pop(0)
        self.queue.done(key, delay)
        if delay is not None:
            self.schedule(key, delay)

    @precondition(lambda self: self.taken)
    @rule()
    def a_look_goes_wrong(self) -> None:
        key = self.taken.pop(0)
        self.schedule(key, self.queue.failed(key))

    @invariant()
    def all_are_counted(self) -> None:
        assert len(self.queue) == len(self.due.keys() | set(self.taken))

    def teardown(self) -> None:
        while self.taken:
            self.a_look_is_over(None)
        self.clock.now += 3600
        while self.due:
            self.the_soonest_is_taken()
        self.queue.close()


TestLooks = Looks.TestCase
TestLooks.settings = settings(max_examples=30, stateful_step_count=30)

"""The accounting of a run: what was fed, what came back, what may be in flight, and when to give up."""

from typing import Any

import pytest

from embedding_operator.local.texts import Text
from embedding_operator.local.tracker import (
    SILENT_SECONDS,
    Bounds,
    Dead,
    Embedded,
    RecordTracker,
    Tombstone,
    bounds,
    given_up,
)
from embedding_service.contract.stats import Latency, State, Stats

MIB = 1024 * 1024


def fed(count: int, limits: Bounds | None = None) -> RecordTracker:
    tracker = RecordTracker(limits or Bounds(messages=1_000, bytes=MIB, record_bytes=0))
    for number in range(count):
        tracker.feed(Text(f"line-{number + 1}", b"x"), now=float(number))
    return tracker


def test_each_record_is_counted_by_what_came_back() -> None:
    tracker = fed(5)
    tracker.answer(0, Embedded(), 10.0)
    tracker.answer(1, Dead("InvalidJson"), 10.0)
    tracker.answer(2, Dead("InvalidJson"), 10.0)
    tracker.answer(3, Tombstone(), 10.0)
    assert (tracker.fed, tracker.embedded, dict(tracker.dead), tracker.tombstones) == (5, 1, {"InvalidJson": 2}, 1)
    assert (tracker.answered, tracker.lag) == (4, 1)


def test_a_second_answer_is_a_duplicate_and_counts_for_nothing_else() -> None:
    tracker = fed(1)
    assert tracker.answer(0, Embedded(), 1.0) == Text("line-1", b"x")
    assert tracker.answer(0, Dead("InvalidJson"), 2.0) is None
    assert (tracker.embedded, tracker.dead.total(), tracker.duplicates) == (1, 0, 1)


def test_what_is_missing_is_named_in_the_order_in_which_it_was_fed() -> None:
    tracker = fed(5)
    tracker.answer(1, Embedded(), 9.0)
    assert tracker.missing(3) == ["line-1", "line-3", "line-4"]


def test_latency_is_from_fed_to_read() -> None:
    tracker = fed(2)
    tracker.answer(1, Embedded(), 4.0)
    tracker.answer(0, Embedded(), 6.0)
    assert list(tracker.latencies) == [3.0, 6.0]
    assert tracker.seconds == 6.0


def test_nothing_fed_took_no_time() -> None:
    assert fed(0).seconds == 0.0


def test_there_is_room_until_the_messages_are_used_up_and_again_after_an_answer() -> None:
    tracker = fed(2, Bounds(messages=2, bytes=MIB, record_bytes=0))
    assert not tracker.has_room(b"")
    tracker.answer(0, Embedded(), 9.0)
    assert tracker.has_room(b"")


def test_there_is_room_until_the_bytes_are_used_up_and_again_after_an_answer() -> None:
    tracker = fed(2, Bounds(messages=1_000, bytes=330, record_bytes=100))
    assert tracker.has_room(b"x" * 28)
    assert not tracker.has_room(b"x" * 29)
    tracker.answer(0, Dead("InvalidJson"), 9.0)
    assert tracker.has_room(b"x" * 29)


def test_a_record_alone_has_room_whatever_its_size() -> None:
    assert fed(0, Bounds(messages=1, bytes=10, record_bytes=100)).has_room(b"x" * 1_000)


@pytest.mark.parametrize("dimension", [1, 384, 768, 4_096])
def test_outputs_in_flight_fit_into_one_partition_of_the_broker_in_memory(dimension: int) -> None:
    limits = bounds(dimension, in_memory=True)
    longest = len("-1.1754943508222875e-38, ") * dimension
    assert limits.record_bytes > longest * 0.85
    assert limits.bytes // limits.record_bytes * longest < 5 * MIB
    assert limits.messages < 100_000


def test_a_real_broker_bears_more_than_the_one_in_memory() -> None:
    real, memory = bounds(384, in_memory=False), bounds(384, in_memory=True)
    assert real.bytes > memory.bytes
    assert real.bytes // real.record_bytes >= real.messages


def stats(**changed: Any) -> Stats:
    idle = Stats(
        state=State.RUNNING,
        kafka_connected=True,
        messages_processed=1,
        embeddings_generated=1,
        error_count=0,
        errors_by_reason={},
        tombstones=0,
        truncated=0,
        last_processed_timestamp=None,
        messages_per_minute=0.0,
        latency_seconds=Latency(mean=None, p50=None, p99=None),
        error_rate=0.0,
        in_flight=0,
        lag={0: 0, 1: 0},
        uptime_seconds=60.0,
        model=None,
    )
    return idle.model_copy(update=changed)


GIVEN_UP: dict[str, tuple[float, Stats | None, bool]] = {
    "an idle worker after long silence": (SILENT_SECONDS, stats(), True),
    "an idle worker whose lag is unknown": (SILENT_SECONDS, stats(lag={}), True),
    "an idle worker after a short silence": (SILENT_SECONDS - 1, stats(), False),
    "a worker with something in the model": (60.0, stats(in_flight=1), False),
    "a worker with something left to read": (60.0, stats(lag={0: 0, 1: 3}), False),
    "a worker that was stopped by hand": (60.0, stats(state=State.STOPPED, lag={}), False),
    "a worker that lost its broker": (60.0, stats(kafka_connected=False), False),
    "a worker that doesn't answer": (60.0, None, False),
}


@pytest.mark.parametrize(("silent", "figures", "expected"), GIVEN_UP.values(), ids=GIVEN_UP.keys())
def test_is_given_up(silent: float, figures: Stats | None, expected: bool) -> None:
    assert given_up(silent, figures) is expected

"""Which offsets may be committed."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_service.delivery.offsets import OffsetTracker
from embedding_service.records import InputRecord


def record(offset: int, partition: int = 0, assignment: int = 1) -> InputRecord:
    return InputRecord("texts", partition, offset, None, b"12345", [], 0.0, 0.0, assignment)


def tracker(*partitions: int) -> OffsetTracker:
    offsets = OffsetTracker()
    offsets.assign(partitions or (0,))
    return offsets


@given(st.lists(st.integers(1, 5), min_size=1, max_size=60), st.randoms(use_true_random=False))
def test_the_offset_to_commit_is_the_end_of_the_contiguous_acknowledged_run(
    gaps: list[int], rng: random.Random
) -> None:
    consumed = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    offsets = tracker()
    for offset in consumed:
        offsets.track([record(offset)])
    acknowledged: set[int] = set()
    for offset in rng.sample(consumed, len(consumed)):
        offsets.done([record(offset)])
        acknowledged.add(offset)
        run = []
        for candidate in consumed:
            if candidate not in acknowledged:
                break
            run.append(candidate)
        assert offsets.to_commit() == ({0: run[-1] + 1} if run else {})


def test_what_is_committed_needs_no_commit_and_is_no_longer_in_flight() -> None:
    offsets = tracker()
    for offset in range(4):
        offsets.track([record(offset)])
    assert offsets.in_flight() == (4, 20)
    for offset in (0, 1, 3):
        offsets.done([record(offset)])
    assert offsets.in_flight() == (4, 20), "acknowledged is not committed: a crash would double it"
    offsets.committed(0, 2)
    assert offsets.in_flight() == (2, 10)
    assert offsets.to_commit() == {}
    offsets.done([record(2)])
    assert offsets.to_commit() == {0: 4}


def test_the_end_of_a_partition_behind_control_records_is_committed_once_all_before_it_is_done() -> None:
    offsets = tracker()
    offsets.track([record(0)])
    offsets.reached_end(0, 3)
    assert offsets.to_commit() == {}
    offsets.done([record(0)])
    assert offsets.to_commit() == {0: 3}


def test_the_end_of_a_partition_with_only_control_records_is_committed() -> None:
    offsets = tracker()
    offsets.reached_end(0, 5)
    assert offsets.to_commit() == {0: 5}
    offsets.committed(0, 5)
    offsets.reached_end(0, 5)
    assert offsets.to_commit() == {}


def test_the_end_of_a_topic_that_was_made_again_is_committed_though_it_lies_below_the_one_before() -> None:
    offsets = tracker()
    offsets.reached_end(0, 10)
    offsets.committed(0, 10)
    offsets.reached_end(0, 2)
    assert offsets.to_commit() == {0: 2}
    assert offsets.next_offset(0) == 2


def test_what_was_acknowledged_before_a_topic_was_made_again_does_not_stay_in_flight() -> None:
    offsets = tracker()
    for offset in (10_000, 0, 1):
        offsets.track([record(offset)])
        offsets.done([record(offset)])
    offsets.committed(0, 1)
    assert offsets.in_flight()[0] == 3
    offsets.committed(0, 2)
    assert offsets.in_flight() == (0, 0)


def test_an_end_up_to_which_all_is_committed_is_not_committed_again() -> None:
    offsets = tracker()
    offsets.track([record(0)])
    offsets.done([record(0)])
    offsets.committed(0, 1)
    offsets.reached_end(0, 1)
    assert offsets.to_commit() == {}


def test_an_empty_partition_needs_no_commit_and_has_nothing_left() -> None:
    offsets = tracker()
    offsets.reached_end(0, 0)
    assert offsets.to_commit() == {}
    assert offsets.next_offset(0) == 0


def test_partitions_are_committed_each_on_its_own() -> None:
    offsets = tracker(0, 1)
    offsets.track([record(5, 0)])
    offsets.track([record(9, 1)])
    offsets.done([record(9, 1)])
    assert offsets.to_commit() == {1: 10}


def test_an_acknowledgement_of_an_earlier_assignment_does_not_count() -> None:
    offsets = tracker()
    offsets.track([record(0)])
    offsets.revoke([0])
    offsets.assign([0])
    offsets.track([record(0, assignment=2)])
    offsets.done([record(0, assignment=1)])
    assert offsets.to_commit() == {}
    offsets.done([record(0, assignment=2)])
    assert offsets.to_commit() == {0: 1}


def test_what_is_dropped_before_the_model_is_neither_waited_for_nor_committed() -> None:
    offsets = tracker()
    for offset in range(3):
        offsets.track([record(offset)])
    offsets.forget([record(1), record(2)])
    assert not offsets.wait_settled([0], 0)
    offsets.done([record(0)])
    assert offsets.wait_settled([0], 0)
    assert offsets.to_commit() == {0: 1}
    assert offsets.in_flight() == (1, 5)


def test_a_revoked_partition_is_nobodys() -> None:
    offsets = tracker()
    offsets.track([record(0)])
    offsets.revoke([0])
    assert offsets.assignments().get(0) is None
    offsets.done([record(0)])
    assert offsets.in_flight() == (0, 0)
    offsets.reached_end(0, 9)
    offsets.committed(0, 9)
    assert offsets.to_commit() == {}


def test_what_a_revoked_partition_leaves_in_the_producer_stays_in_flight_until_it_is_acknowledged() -> None:
    offsets = tracker()
    offsets.track([record(0)])
    offsets.revoke([0])
    offsets.assign([0])
    offsets.track([record(0, assignment=2)])
    assert offsets.in_flight() == (2, 10)
    offsets.done([record(0, assignment=1)])
    assert offsets.in_flight() == (1, 5)
    assert offsets.to_commit() == {}


def test_an_offset_that_goes_back_is_an_error_and_nothing_of_the_topic_before_is_committed() -> None:
    offsets = tracker(0, 1)
    offsets.track([record(6), record(7), record(6, 1)])
    offsets.done([record(6), record(6, 1)])
    with pytest.raises(ValueError, match="went back to offset 7"):
        offsets.track([record(7)])
    assert offsets.to_commit() == {}


def test_the_next_offset_is_the_first_not_dealt_with() -> None:
    offsets = tracker()
    assert offsets.next_offset(0) is None
    offsets.track([record(7)])
    assert offsets.next_offset(0) == 7
    offsets.done([record(7)])
    assert offsets.next_offset(0) == 8


def test_what_is_acknowledged_before_the_wait_begins_ends_it() -> None:
    offsets = tracker()
    offsets.track([record(0)])
    seen = offsets.acknowledgements()
    offsets.done([record(0)])
    # Would last for an hour otherwise.
    offsets.wait_progress(seen, 3600)
    assert offsets.acknowledgements() != seen

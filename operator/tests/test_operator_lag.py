"""How far a consumer group is, by what the brokers tell of its topic."""

from typing import NamedTuple

import pytest

from embedding_operator.lag import embedded, progress
from embedding_operator.observed import Offsets, Progress


class Told(NamedTuple):
    """What brokers tell: partitions from ``begins`` to ``ends``, in all to ``highs``, and what the group committed."""

    begins: list[int]
    ends: list[int]
    committed: dict[int, int]
    highs: list[int] | None = None
    from_earliest: bool = True
    topic_id: str = "id"


def read(told: Told, at: float = 0.0) -> Progress:
    highs = told.ends if told.highs is None else told.highs
    return progress(
        Offsets(told.topic_id, told.begins, told.ends), told.committed, highs, at, from_earliest=told.from_earliest
    )


# What is told → the lag, and where workers go on.
READ: dict[str, tuple[Told, int, tuple[int, ...]]] = {
    "an empty topic": (Told([0, 0], [0, 0], {}), 0, (0, 0)),
    "a group that committed nothing": (Told([0, 2], [5, 5], {}), 8, (0, 2)),
    "a group that will begin at the end": (Told([0, 2], [5, 5], {}, from_earliest=False), 0, (5, 5)),
    "a group that began at the end, and a partition that came later": (
        Told([0, 2], [5, 5], {0: 5}, from_earliest=False),
        3,
        (5, 2),
    ),
    "a group in the middle": (Told([0, 0], [5, 5], {0: 3, 1: 5}), 2, (3, 5)),
    "a group that has read everything": (Told([0, 0], [5, 5], {0: 5, 1: 5}), 0, (5, 5)),
    "records that retention took before they were read": (Told([4], [5], {0: 1}), 1, (4,)),
    "all records taken by retention": (Told([5], [5], {0: 1}), 0, (5,)),
    "offsets beyond the end": (Told([0], [3], {0: 100}), 3, (0,)),
    "what was read since the ends were asked for": (Told([0], [3], {0: 4}, highs=[6]), 0, (3,)),
    "an open transaction that an earlier reader did not wait for": (Told([0], [3], {0: 6}, highs=[6]), 0, (3,)),
    "a topic with fewer partitions than the one before": (Told([0], [3], {0: 1, 7: 9}), 2, (1,)),
    "a beginning that passed the end between two answers": (Told([6], [5], {0: 2}), 0, (6,)),
}


@pytest.mark.parametrize(("told", "lag", "positions"), READ.values(), ids=READ.keys())
def test_the_lag_counts_what_workers_would_read_with(told: Told, lag: int, positions: tuple[int, ...]) -> None:
    found = read(told)
    assert (found.lag, found.positions) == (lag, positions)


# What was told before and after → how many records were embedded in between.
WORK: dict[str, tuple[Told, Told, int | None]] = {
    "nothing": (Told([0], [5], {0: 3}), Told([0], [9], {0: 3}), 0),
    "some": (Told([0, 0], [5, 5], {0: 3}), Told([0, 0], [9, 9], {0: 4, 1: 2}), 3),
    "the first ones": (Told([0], [5], {}), Told([0], [5], {0: 4}), 4),
    "none, where retention took them": (Told([0], [9], {0: 2}), Told([8], [9], {0: 2}), 0),
    "only those behind what retention took": (Told([0], [9], {0: 2}), Told([7], [9], {0: 9}), 2),
    "those of partitions that were added": (Told([0], [5], {0: 5}), Told([0, 2], [5, 9], {0: 5, 1: 6}), 4),
    "none, before a group begins at the end": (
        Told([0], [5], {}, from_earliest=False),
        Told([0], [99], {}, from_earliest=False),
        0,
    ),
    "unknown, when it has begun at the end": (
        Told([0], [5], {}, from_earliest=False),
        Told([0], [99], {0: 98}, from_earliest=False),
        None,
    ),
    "unknown, when it was set back": (Told([0, 0], [5, 5], {0: 5, 1: 5}), Told([0, 0], [9, 9], {0: 1, 1: 9}), None),
    "unknown, when the topic was made again, or the pipeline has another": (
        Told([0], [9], {0: 3}),
        Told([0], [99], {0: 90}, topic_id="another"),
        None,
    ),
    "unknown, with fewer partitions": (Told([0, 0], [5, 5], {}), Told([0], [5], {0: 5}), None),
}


@pytest.mark.parametrize(("before", "after", "count"), WORK.values(), ids=WORK.keys())
def test_what_was_embedded_between_two_looks_is(before: Told, after: Told, count: int | None) -> None:
    assert embedded(read(before), read(after)) == count

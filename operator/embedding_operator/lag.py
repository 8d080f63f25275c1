"""How far a consumer group is, from what brokers tell of its topic; pure.

Counted is what workers would read from now on: each offset is taken as a worker takes it.
"""

from collections.abc import Mapping, Sequence

from embedding_operator.observed import Offsets, Progress


def progress(
    offsets: Offsets, committed: Mapping[int, int], highs: Sequence[int], at: float, *, from_earliest: bool
) -> Progress:
    """How far a group is that has ``committed`` these offsets, by partition.

    ``highs`` are the offsets after the last record of all, those of open transactions included.
    """
    topic_id, begins, ends = offsets
    if not committed and not from_earliest:
        # The first worker commits the ends before it reads. Partitions that come later are read from their beginning.
        return Progress(topic_id, 0, tuple(ends), tuple(begins), at, skips=True)
    positions = tuple(
        _position(committed.get(number), *bounds) for number, bounds in enumerate(zip(begins, ends, highs, strict=True))
    )
    # The beginnings, asked for at the same time as the ends, may have moved past them.
    left = sum(max(0, end - position) for end, position in zip(ends, positions, strict=True))
    return Progress(topic_id, left, positions, tuple(begins), at)


def embedded(before: Progress, after: Progress) -> int | None:
    """How many records workers went on by; ``None`` where that can't be told, since there was a new start.

    What the brokers deleted meanwhile, and a start at the end, is nobody's work.
    """
    if after.topic_id != before.topic_id:
        return None
    if after.skips:
        return 0
    # A broker may not have heard yet of partitions that were added.
    if before.skips or len(after.positions) < len(before.positions):
        return None
    known = zip(before.positions, after.positions, strict=False)
    if any(now < then for then, now in known):
        return None
    # Partitions that were added are read from their beginning.
    starts = (*before.positions, *after.begins[len(before.positions) :])
    worked = zip(starts, after.begins, after.positions, strict=True)
    return sum(max(0, now - max(start, begin)) for start, begin, now in worked)


def _position(committed: int | None, begin: int, end: int, high: int) -> int:
    """Where a worker goes on in a partition."""
    # Deleted by retention, or lost at the end: the brokers send a worker to the beginning.
    if committed is None or not begin <= committed <= high:
        return begin
    return min(committed, end)

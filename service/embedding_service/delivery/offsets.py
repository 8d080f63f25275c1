"""Which offset of each partition may be committed. Pure; one lock, since two threads use it.

A committed offset says that everything before it has been dealt with. Outputs are acknowledged out of order, so the
offset to commit is the end of the contiguous acknowledged run, never simply the newest one acknowledged.
"""

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from embedding_service.records import InputRecord


@dataclass(slots=True, eq=False)
class _Pending:
    """``next`` is the offset to commit once this and all before it are done; ``size`` in bytes."""

    next: int
    size: int
    done: bool = False


@dataclass(slots=True)
class _Partition:
    assignment: int
    first: int | None = None
    pending: deque[_Pending] = field(default_factory=deque)
    by_offset: dict[int, _Pending] = field(default_factory=dict)
    # Acknowledged and contiguous, but not committed: still to be doubled by a crash, so still in flight.
    uncommitted: deque[_Pending] = field(default_factory=deque)
    committable: int | None = None
    committed: int | None = None
    in_flight: int = 0
    in_flight_bytes: int = 0


class OffsetTracker:
    """Offsets consumed, acknowledged and committed, by partition of one topic.

    ``in_flight`` counts messages consumed and not yet committed: what a crash could double.
    """

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._partitions: dict[int, _Partition] = {}
        # Of partitions given up before these were acknowledged: still in memory, and still to come out of the producer.
        # (partition, assignment, offset) → bytes.
        self._abandoned: dict[tuple[int, int, int], int] = {}
        self._abandonments = 0
        self._assignments = 0
        self._acknowledgements = 0

    def assign(self, partitions: Iterable[int]) -> None:
        """Start over for these partitions: acknowledgements of an earlier assignment no longer count."""
        with self._lock:
            self._assignments += 1
            for partition in partitions:
                self._partitions[partition] = _Partition(self._assignments)

    def revoke(self, partitions: Iterable[int]) -> None:
        """Forget these partitions."""
        with self._lock:
            for partition in partitions:
                state = self._partitions.pop(partition, None)
                if state is not None and state.by_offset:
                    self._abandonments += 1
                    for offset, entry in state.by_offset.items():
                        self._abandoned[partition, state.assignment, offset] = entry.size
            self._lock.notify_all()

    def abandonments(self) -> int:
        """How often a partition was given up before all of it was acknowledged."""
        with self._lock:
            return self._abandonments

    def assignments(self) -> dict[int, int]:
        """Our partitions, each with the number of its current assignment."""
        with self._lock:
            return {partition: state.assignment for partition, state in self._partitions.items()}

    def track(self, records: Iterable[InputRecord]) -> None:
        """Records have been consumed. Raises ``ValueError`` for an offset that isn't above the last one."""
        with self._lock:
            for record in records:
                self._track(self._partitions[record.partition], record)

    def _track(self, state: _Partition, record: InputRecord) -> None:
        if state.pending and record.offset < state.pending[-1].next:
            # The topic was made again. What is due are offsets of the one before, and would skip records of this one.
            self._partitions.clear()
            raise ValueError(f"partition {record.partition} went back to offset {record.offset}")
        entry = _Pending(record.offset + 1, record.size)
        if state.first is None:
            state.first = record.offset
        state.pending.append(entry)
        state.by_offset[record.offset] = entry
        state.in_flight += 1
        state.in_flight_bytes += entry.size

    def reached_end(self, partition: int, position: int) -> None:
        """All below ``position`` has been consumed; it may lie behind control records, which are no messages."""
        with self._lock:
            state = self._partitions.get(partition)
            if state is None:
                return
            if state.first is None:
                state.first = position
            if state.pending:
                state.pending[-1].next = max(state.pending[-1].next, position)
            elif position != (state.committed or 0 if state.committable is None else state.committable):
                # Below what was committed where the topic was made again: the brokers sent the consumer back.
                state.committable = position

    def done(self, records: Iterable[InputRecord]) -> None:
        """The records' outputs, dead letters or tombstones have been acknowledged."""
        with self._lock:
            for record in records:
                self._done(record)
            self._acknowledgements += 1
            self._lock.notify_all()

    def _done(self, record: InputRecord) -> None:
        # Nearly always there are none.
        if self._abandoned:
            key = (record.partition, record.assignment, record.offset)
            if self._abandoned.pop(key, None) is not None:
                return
        state = self._partitions.get(record.partition)
        if state is None or state.assignment != record.assignment or record.offset not in state.by_offset:
            return
        state.by_offset.pop(record.offset).done = True
        while state.pending and state.pending[0].done:
            entry = state.pending.popleft()
            state.committable = entry.next
            state.uncommitted.append(entry)

    def forget(self, records: Iterable[InputRecord]) -> None:
        """Records consumed and dropped before they were dealt with; nothing after them may be left."""
        with self._lock:
            for record in records:
                state = self._partitions.get(record.partition)
                if state is None or state.assignment != record.assignment:
                    continue
                entry = state.by_offset.pop(record.offset)
                state.pending.remove(entry)
                state.in_flight -= 1
                state.in_flight_bytes -= entry.size
            self._lock.notify_all()

    def to_commit(self) -> dict[int, int]:
        """The offset to commit of each partition that has moved on since its last commit."""
        with self._lock:
            return {
                partition: state.committable
                for partition, state in self._partitions.items()
                if state.committable is not None and state.committable != state.committed
            }

    def committed(self, partition: int, offset: int) -> None:
        """The broker has accepted this commit."""
        with self._lock:
            state = self._partitions.get(partition)
            if state is None:
                return
            state.committed = offset
            # With the newest all is, also what was acknowledged before the topic was made again, at higher offsets.
            while state.uncommitted and (offset == state.committable or state.uncommitted[0].next <= offset):
                entry = state.uncommitted.popleft()
                state.in_flight -= 1
                state.in_flight_bytes -= entry.size
            self._lock.notify_all()

    def next_offset(self, partition: int) -> int | None:
        """The first offset not known to be dealt with; ``None`` before anything was consumed."""
        with self._lock:
            state = self._partitions.get(partition)
            if state is None:
                return None
            return state.first if state.committable is None else state.committable

    def in_flight(self) -> tuple[int, int]:
        """Messages, and their bytes, consumed and not yet committed."""
        with self._lock:
            states = self._partitions.values()
            messages = sum(state.in_flight for state in states) + len(self._abandoned)
            return messages, sum(state.in_flight_bytes for state in states) + sum(self._abandoned.values())

    def partitions(self) -> list[int]:
        """The assigned partitions."""
        with self._lock:
            return sorted(self._partitions)

    def acknowledgements(self) -> int:
        """How often something was acknowledged."""
        with self._lock:
            return self._acknowledgements

    def wait_progress(self, seen: int, timeout: float) -> None:
        """Wait until more is acknowledged than was ``seen``, or ``timeout`` seconds have passed."""
        with self._lock:
            self._lock.wait_for(lambda: self._acknowledgements != seen, timeout)

    def wait_settled(self, partitions: Iterable[int], timeout: float) -> bool:
        """Wait until all that was consumed of these partitions is acknowledged; false after ``timeout`` seconds."""
        wanted = set(partitions)
        with self._lock:
            return self._lock.wait_for(lambda: not self._unsettled(wanted), timeout)

    def _unsettled(self, wanted: set[int]) -> bool:
        return any(state.by_offset for partition, state in self._partitions.items() if partition in wanted)

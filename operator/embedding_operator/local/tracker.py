"""What was fed, what came back, and how much may be in flight; pure: times are handed in."""

from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from embedding_operator.local.texts import Text
from embedding_service.contract.stats import State, Stats

_MIB = 1024 * 1024
# The broker in memory forgets a partition's oldest records beyond 5 MiB or 100,000. All that is in flight may land in
# one partition, and must be read before that.
_MEMORY_BYTES = 4 * _MIB
_MEMORY_MESSAGES = 50_000
_REAL_BYTES = 64 * _MIB
_REAL_MESSAGES = 5_000

# A component of a float32 vector in JSON takes at most this many characters, its comma included.
_COMPONENT_BYTES = 22
# The other fields of an output or the error headers of a dead letter, and Kafka's own framing.
_RECORD_BYTES = 2_048

# How long nothing comes back from an idle worker before the answers that lack are given up.
SILENT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be fed and not yet answered; ``record_bytes`` is what each record takes beside its value."""

    messages: int
    bytes: int
    record_bytes: int


def bounds(dimension: int, *, in_memory: bool) -> Bounds:
    """The bounds for a broker and a model with vectors of this dimension."""
    record_bytes = dimension * _COMPONENT_BYTES + _RECORD_BYTES
    if in_memory:
        return Bounds(_MEMORY_MESSAGES, _MEMORY_BYTES, record_bytes)
    return Bounds(_REAL_MESSAGES, _REAL_BYTES, record_bytes)


@dataclass(frozen=True, slots=True)
class Embedded:
    """A vector came back."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A null value came back."""


@dataclass(frozen=True, slots=True)
class Dead:
    """The record came back as a dead letter, for this reason."""

    reason: str


Answer = Embedded | Tombstone | Dead


@dataclass(frozen=True, slots=True)
class _InFlight:
    text: Text
    bytes: int
    fed_at: float


class RecordTracker:
    """Each record of a run by its number: fed once, answered once. Times are seconds of one monotonic clock."""

    def __init__(self, limits: Bounds) -> None:
        self._limits = limits
        self._in_flight: dict[int, _InFlight] = {}
        self._bytes = 0
        self.fed = 0
        self.embedded = 0
        self.tombstones = 0
        self.dead: Counter[str] = Counter()
        self.duplicates = 0
        self.latencies = array("d")
        self.first_fed_at: float | None = None
        self.last_event_at: float | None = None

    @property
    def answered(self) -> int:
        """How many records came back, as vectors, tombstones or dead letters."""
        return self.embedded + self.tombstones + self.dead.total()

    @property
    def lag(self) -> int:
        """How many records did not come back yet."""
        return len(self._in_flight)

    @property
    def seconds(self) -> float:
        """From the first record fed to the last event."""
        if self.first_fed_at is None or self.last_event_at is None:
            return 0.0
        return self.last_event_at - self.first_fed_at

    def has_room(self, value: bytes) -> bool:
        """Whether a record may be fed now. One alone always may, whatever its size."""
        if not self._in_flight:
            return True
        within_bytes = self._bytes + len(value) + self._limits.record_bytes <= self._limits.bytes
        return within_bytes and self.lag < self._limits.messages

    def feed(self, text: Text, now: float) -> int:
        """Enter a record; returns its number."""
        number = self.fed
        self.fed += 1
        entry = _InFlight(text, len(text.value) + self._limits.record_bytes, now)
        self._in_flight[number] = entry
        self._bytes += entry.bytes
        self.first_fed_at = now if self.first_fed_at is None else self.first_fed_at
        self.last_event_at = now
        return number

    def answer(self, number: int, answer: Answer, now: float) -> Text | None:
        """Enter what came back; returns what was fed, or ``None`` for a duplicate."""
        self.last_event_at = now
        entry = self._in_flight.pop(number, None)
        if entry is None:
            self.duplicates += 1
            return None
        self._bytes -= entry.bytes
        self.latencies.append(now - entry.fed_at)
        match answer:
            case Embedded():
                self.embedded += 1
            case Tombstone():
                self.tombstones += 1
            case Dead(reason):
                self.dead[reason] += 1
        return entry.text

    def missing(self, most: int) -> Iterable[str]:
        """The labels of the first records that did not come back."""
        return [entry.text.label for entry in islice(self._in_flight.values(), most)]


def given_up(silent_seconds: float, stats: Stats | None) -> bool:
    """Whether what has not come back never will: long silence, and a worker that runs and has nothing left to do."""
    return (
        silent_seconds >= SILENT_SECONDS
        and stats is not None
        and stats.state is State.RUNNING
        and stats.kafka_connected is not False
        and stats.in_flight == 0
        and all(lag <= 0 for lag in stats.lag.values())
    )

"""What the operator remembers of pipelines between two looks. Nothing of it must outlive the process."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace

from embedding_operator import claims, lag
from embedding_operator.claims import Claim
from embedding_operator.observed import Problem, Progress, Secrets
from embedding_operator.store import Key
from embedding_service.contract.stats import ModelStats

_LONGEST_PATIENCE_SECONDS = 60.0

Settled = tuple[int, str | None, int | None, bool, bool, Mapping[str, str]]


@dataclass(slots=True)
class _Known:
    """Of one pipeline; used by one look at a time."""

    uid: str = ""
    # Ids of topics created for it.
    created: set[str] = field(default_factory=set)
    # By the topic's id: when it was asked for, and the configuration.
    configs: dict[str, tuple[float, Mapping[str, str]]] = field(default_factory=dict)
    progress: Progress | None = None
    rate: float | None = None
    # When they were read, for which generation, and what they came to.
    secrets: tuple[float, int, Secrets] | None = None
    # When a pod was asked, which, and its answer.
    model: tuple[float, str, ModelStats | None] | None = None
    figures_written: float | None = None
    # Since when writes of its objects have had nothing but broken answers.
    broken: float | None = None
    # Generation, checksum of the Secrets, partitions of the input topic, whether it was stopped and what autoscales it
    # was served, and the versions of the objects by kind, when nothing had to be applied.
    settled: Settled | None = None


class Memory:
    """By pipeline. The claims are shared, and safe to use from every thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[Key, _Known] = {}
        self._claims: dict[Key, Claim] = {}
        # How many claims want a thing: most are alone, and need not be held against all others at each look.
        self._wanted: Counter[tuple[str, str, str]] = Counter()
        self._waiting: set[Key] = set()

    def forget(self, key: Key) -> None:
        """The pipeline is gone."""
        with self._lock:
            self._known.pop(key, None)
            self._replace_claim(key, None)
            self._waiting.discard(key)

    def meet(self, key: Key, uid: str) -> None:
        """This pipeline is looked at; what was known of one before it under the same name is forgotten."""
        with self._lock:
            if key in self._known and self._known[key].uid != uid:
                del self._known[key]
            self._known.setdefault(key, _Known(uid))
            if key in self._claims and self._claims[key].uid != uid:
                self._replace_claim(key, None)

    def seed(self, key: Key, held: Claim) -> None:
        """What a pipeline held when another process was the operator."""
        with self._lock:
            self._replace_claim(key, held)

    def claim(self, key: Key, wanted: Claim) -> Problem | None:
        """Grant a claim, or say who has it. What is granted is held until it changes or the pipeline goes."""
        with self._lock:
            before = self._claims.get(key)
            # What was decided here counts more than a status, which may be older.
            held = wanted.held if before is None else before == replace(wanted, held=True)
            own = replace(wanted, held=held)
            self._replace_claim(key, own)
            problem = None
            if any(self._wanted[want] > 1 for want in claims.wants(own)):
                problem = claims.conflict(own, (other for known, other in self._claims.items() if known != key))
            self._replace_claim(key, replace(own, held=problem is None))
            (self._waiting.discard if problem is None else self._waiting.add)(key)
            return problem

    def holds(self, key: Key) -> bool:
        """Whether a pipeline's claim was granted, by this process or, where that has not looked yet, by one before."""
        with self._lock:
            known = self._claims.get(key)
            return known is not None and known.held

    def waiting(self) -> set[Key]:
        """The pipelines whose claim was not granted."""
        with self._lock:
            return set(self._waiting)

    def remember_created(self, key: Key, ids: Iterable[str]) -> None:
        """These topics were created for the pipeline, here or before."""
        self._of(key).created.update(ids)

    def created(self, key: Key) -> frozenset[str]:
        """The ids of topics that were created for the pipeline, as far as this process knows."""
        return frozenset(self._of(key).created)

    def configs(self, key: Key) -> dict[str, tuple[float, Mapping[str, str]]]:
        """What is known of the configuration of topics, by their ids."""
        return self._of(key).configs

    def secrets(self, key: Key, generation: int, seconds: float) -> Secrets | None:
        """The Secrets as they were read for this generation in the last ``seconds``, where nothing was missing."""
        known = self._of(key).secrets
        if (
            known is None
            or known[1] != generation
            or known[2].problem is not None
            or self._clock() - known[0] >= seconds
        ):
            return None
        return known[2]

    def remember_secrets(self, key: Key, generation: int, found: Secrets) -> None:
        """The Secrets were read."""
        self._of(key).secrets = (self._clock(), generation, found)

    def asked_model(self, key: Key, pods: Container[str], seconds: float) -> bool:
        """Whether one of these pods has told its model, or was asked in vain in the last ``seconds``."""
        known = self._of(key).model
        if known is None or known[1] not in pods:
            return False
        return known[2] is not None or self._clock() - known[0] < seconds

    def model(self, key: Key) -> ModelStats | None:
        """The model as a pod told it."""
        known = self._of(key).model
        return None if known is None else known[2]

    def remember_model(self, key: Key, pod: str, model: ModelStats | None) -> None:
        """A pod was asked."""
        self._of(key).model = (self._clock(), pod, model)

    def forget_configs(self, key: Key) -> None:
        """Topics were changed."""
        self._of(key).configs.clear()

    def rate(self, key: Key, progress: Progress | None, seconds: float) -> float | None:
        """Records a second over at least the last ``seconds``; ``None`` where that isn't known."""
        known = self._of(key)
        before = known.progress
        done = None if progress is None or before is None else lag.embedded(before, progress)
        if progress is None or before is None or done is None:
            known.progress, known.rate = progress, None
        elif progress.at - before.at >= seconds:
            known.progress, known.rate = progress, done / (progress.at - before.at)
        return known.rate

    def broken(self, key: Key, *, now: bool) -> float:
        """Note how a write of the objects went. Returns for how many seconds all of them were broken."""
        known = self._of(key)
        if not now:
            known.broken = None
        elif known.broken is None:
            known.broken = self._clock()
        return 0.0 if known.broken is None else self._clock() - known.broken

    def patience(self, key: Key) -> float:
        """Seconds to wait before what is broken is written again: as long as it has lasted, up to a minute."""
        known = self._of(key)
        return 0.0 if known.broken is None else min(self._clock() - known.broken, _LONGEST_PATIENCE_SECONDS)

    def settled(self, key: Key) -> Settled | None:
        """The state in which the objects were last found to be right."""
        return self._of(key).settled

    def settle(self, key: Key, state: Settled) -> None:
        """Nothing had to be applied."""
        self._of(key).settled = state

    def figures_due(self, key: Key, seconds: float) -> bool:
        """Whether figures were last written at least ``seconds`` ago."""
        written = self._of(key).figures_written
        return written is None or self._clock() - written >= seconds

    def wrote_figures(self, key: Key) -> None:
        """Figures were written."""
        self._of(key).figures_written = self._clock()

    def _replace_claim(self, key: Key, new: Claim | None) -> None:
        old = self._claims.pop(key, None)
        for want in claims.wants(old) if old is not None else ():
            self._wanted[want] -= 1
            if not self._wanted[want]:
                del self._wanted[want]
        if new is not None:
            self._claims[key] = new
            self._wanted.update(claims.wants(new))

    def _of(self, key: Key) -> _Known:
        with self._lock:
            return self._known.setdefault(key, _Known())

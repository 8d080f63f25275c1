"""When a cluster that doesn't answer is asked again: by one at a time, and ever less often."""

import threading
from collections.abc import Callable

from embedding_operator.observed import Problem

_FIRST_SECONDS = 5.0
# Each question to a silent cluster holds up one of few threads for as long as a request may take.
_LONGEST_SECONDS = 30.0


class Silence:
    """What is known of one cluster's silence. Safe to use from every thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._problem: Problem | None = None
        self._seconds = 0.0
        self._until = 0.0
        self._asking = False

    def begin(self) -> Problem | None:
        """The problem, where it is known; ``None`` where the caller is to ask, and to say how it went."""
        with self._lock:
            if self._problem is not None and (self._asking or self._clock() < self._until):
                return self._problem
            self._asking = True
            return None

    def asked(self) -> None:
        """However it went, another one may ask."""
        with self._lock:
            self._asking = False

    def answered(self) -> None:
        """It answers, be it with a refusal."""
        with self._lock:
            self._problem = None
            self._seconds = self._until = 0.0

    def failed(self, problem: Problem) -> Problem:
        """It doesn't answer. Returns what is to be told."""
        with self._lock:
            # Of several brokers now this one, now that one is complained of: what is told stays, while it is true.
            if self._problem is None or self._problem.reason != problem.reason:
                self._problem = problem
            # Those that had asked before anybody knew say the same once more.
            if self._clock() >= self._until:
                self._seconds = min(max(2 * self._seconds, _FIRST_SECONDS), _LONGEST_SECONDS)
                self._until = self._clock() + self._seconds
            return self._problem

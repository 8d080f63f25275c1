"""Which pipeline is due for a look: by key, one look at a time, with a delay and a backoff."""

import heapq
import threading
import time
from collections.abc import Callable

from embedding_operator.store import Key

# Changes that come together, such as those of a rollout, lead to one look.
_GATHER_SECONDS = 0.2
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 1.0, 60.0


class DueQueue:
    """Keys by when they are due. Safe to use from every thread.

    ``take`` gives a key to one caller at a time, who says with ``done`` or ``failed`` when it is due again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._heap: list[tuple[float, Key]] = []
        self._due: dict[Key, float] = {}
        self._taken: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._closed = False

    def add(self, key: Key, delay: float = _GATHER_SECONDS) -> None:
        """Have a key looked at after ``delay`` seconds, or sooner where that was said before."""
        with self._condition:
            self._schedule(key, self._clock() + delay)

    def take(self) -> Key | None:
        """Wait for the next key that is due; ``None`` once the queue is closed."""
        with self._condition:
            while not self._closed:
                wait = self._next_wait()
                if wait is not None and wait <= 0:
                    due, key = heapq.heappop(self._heap)
                    if self._due.get(key) == due and key not in self._taken:
                        del self._due[key]
                        self._taken.add(key)
                        return key
                    continue
                self._condition.wait(wait)
            return None

    def done(self, key: Key, delay: float | None) -> None:
        """A look is over; the next is after ``delay`` seconds, or when something changes, or never (``None``)."""
        with self._condition:
            self._failures.pop(key, None)
            self._release(key, delay)

    def failed(self, key: Key) -> float:
        """A look went wrong; the next is after twice as long as the last time. Returns the seconds until then."""
        with self._condition:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            delay = min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 10))
            self._release(key, delay)
            return delay

    def close(self) -> None:
        """Let every ``take`` return."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def __len__(self) -> int:
        """How many keys wait or are looked at."""
        with self._condition:
            return len(self._due) + sum(key not in self._due for key in self._taken)

    def _release(self, key: Key, delay: float | None) -> None:
        self._taken.discard(key)
        # What was added meanwhile had to wait for this.
        meanwhile = self._due.pop(key, None)
        if meanwhile is not None:
            self._schedule(key, meanwhile)
        if delay is not None:
            self._schedule(key, self._clock() + delay)

    def _schedule(self, key: Key, due: float) -> None:
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        if key not in self._taken:
            heapq.heappush(self._heap, (due, key))
            self._condition.notify()

    def _next_wait(self) -> float | None:
        return self._heap[0][0] - self._clock() if self._heap else None

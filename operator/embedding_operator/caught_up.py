"""Groups that had read everything a moment ago: while nothing comes in, they need not be asked how far they are."""

import threading
import time
from collections.abc import Callable, Sequence

_REMEMBERED_SECONDS = 60.0


class CaughtUp:
    """By group and Kafka's id of the topic. Safe to use from every thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # The oldest answer first: when it was, and the ends then.
        self._known: dict[tuple[str, str], tuple[float, Sequence[int]]] = {}

    def is_so(self, group: str, topic_id: str, ends: Sequence[int]) -> bool:
        """Whether a group had read up to these ends a moment ago."""
        known = self._known.get((group, topic_id))
        return known is not None and known[1] == ends and self._clock() - known[0] < _REMEMBERED_SECONDS

    def remember(self, group: str, topic_id: str, ends: Sequence[int]) -> None:
        """A group has read up to these ends."""
        now = self._clock()
        with self._lock:
            self._known.pop((group, topic_id), None)
            self._known[group, topic_id] = (now, ends)
            oldest = next(iter(self._known))
            if now - self._known[oldest][0] >= _REMEMBERED_SECONDS:
                del self._known[oldest]

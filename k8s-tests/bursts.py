"""A burst of texts at an autoscaled pipeline, and how its workers come and go."""

import itertools
from collections.abc import Callable

import kafka_state
from scaling_curve import Curve, Look
from system_fixtures import REPOSITORY, Object

MOST_CHANGES = 6
# What a worker takes at once (max_in_flight): with more than that waiting, one alone isn't enough.
ONE_WORKER_HOLDS = 2048
TEXTS = 20_000
# By the lag this asks for the most workers, of whom there are three, whatever an autoscaler tolerates.
_PLENTY = 4 * ONE_WORKER_HOLDS
# A worker that may use no more than it requests is busy at 100 per cent, and there is room for three on two cores.
HALF_A_CORE: Object = {"resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": "500m"}}}
# Quicker than the default, so that a test can wait for it.
QUICK: Object = {
    "scaleUp": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]},
    "scaleDown": {"stabilizationWindowSeconds": 30, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]},
}
SIX_PARTITIONS: Object = {"create": {"partitions": 6}}
CURVES = REPOSITORY / "out" / "autoscaling"

_numbers = itertools.count(1)


def texts(count: int) -> dict[str, str]:
    """As many sentences, by ids that no other call gives."""
    return {f"{number}": f"Text number {number} of a burst." for number in itertools.islice(_numbers, count)}


class Burst:
    """Texts in an input topic, with more of them for as long as something takes; ``written`` are the ids."""

    def __init__(self, curve: Curve, bootstrap_servers: str, topic: str) -> None:
        self.written: list[str] = []
        self._curve = curve
        self._servers = bootstrap_servers
        self._topic = topic

    def until(self, condition: Callable[[Look], bool], what: str, seconds: float) -> Look:
        """Look until something is so, while plenty of texts wait, however fast the workers embed them."""

        def fed(seen: Look) -> bool:
            # Judged first: to write takes seconds, in which it may be over.
            done = condition(seen)
            if not done and seen.lag < _PLENTY:
                more = texts(TEXTS)
                kafka_state.write_texts(self._servers, self._topic, more)
                self.written += more
            return done

        return self._curve.until(fed, what, seconds)

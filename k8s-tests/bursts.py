"""A burst of texts at an autoscaled pipeline, and how its workers come and go."""

import itertools

from system_fixtures import REPOSITORY, Object

TEXTS = 20_000
MOST_CHANGES = 6
# What a worker takes at once (max_in_flight): with more than that waiting, one alone isn't enough.
ONE_WORKER_HOLDS = 2048
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

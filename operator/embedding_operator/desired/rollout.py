"""How far an update of workers with GPUs may go at a time.

Kubernetes counts a worker that has no GPU as unavailable, and its successor too. Where fewer GPUs are there than
workers, one that may be unavailable would be used up by that, and no other worker ever be replaced.
"""

from embedding_operator import names
from embedding_operator.desired.deployment import running
from embedding_operator.desired.metadata import Object


def paced(built: Object, live: Object | None, placed: int) -> Object:
    """The workers' Deployment, with all but one of those kept that have their GPUs when an update begins.

    ``live`` is the one in the cluster; ``placed`` is how many of its workers have a node now.
    """
    if live is None or built["spec"]["strategy"]["rollingUpdate"]["maxSurge"]:
        return built
    kept = _kept(built, live, placed)
    if kept is None:
        return built
    # By the number of workers now: an autoscaler may change it on the way.
    pace = {"maxSurge": 0, "maxUnavailable": max(1, running(live) - kept)}
    spec = built["spec"] | {"strategy": {"type": "RollingUpdate", "rollingUpdate": pace}}
    return built | {"metadata": built["metadata"] | {"annotations": {names.KEPT: str(kept)}}, "spec": spec}


def _kept(built: Object, live: Object, placed: int) -> int | None:
    """How many workers an update leaves running; ``None`` where none goes on or begins."""
    told = (live["metadata"].get("annotations") or {}).get(names.KEPT, "")
    if told.isdecimal() and _goes_on(live):
        return int(told)
    return None if _template(built) == _template(live) else max(0, placed - 1)


def _goes_on(live: Object) -> bool:
    """Whether workers of a former template are still to be replaced."""
    status = live.get("status", {})
    behind = status.get("observedGeneration", 0) < live["metadata"].get("generation", 0)
    there, updated = status.get("replicas", 0), status.get("updatedReplicas", 0)
    # A former worker that is evicted isn't there until Kubernetes has made another one of its template.
    return bool(behind or updated < max(there, running(live)))


def _template(deployment: Object) -> str | None:
    annotations = deployment["spec"]["template"]["metadata"].get("annotations") or {}
    found: str | None = annotations.get(names.TEMPLATE_CHECKSUM)
    return found

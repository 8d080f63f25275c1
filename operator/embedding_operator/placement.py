"""Which workers have a node, and what those wait for that no node takes; pure."""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from embedding_operator import names
from embedding_operator.desired.deployment import running
from embedding_operator.observed import Object, Problem, condition
from embedding_operator.reasons import Reason

_ADVICE = "free or add a node, run fewer workers, or change spec.worker (resources, gpu, nodeSelector, tolerations)"
# So begins each of the scheduler's reasons that is not about what a node has free.
_TURNED_AWAY = "node(s) "
# How long after its time a pod may be there that ends. One that is there for longer is on a node that is lost.
_LATE = timedelta(seconds=10)


def ends(pod: Object) -> bool:
    """Whether a pod is being deleted, or is over."""
    return "deletionTimestamp" in pod["metadata"] or _is_over(pod)


def placed(pods: Iterable[Object], now: datetime) -> int:
    """How many workers have a node, or will have that of one that is ending."""
    return sum(_makes_room(pod, now) or (_has_node(pod) and not ends(pod)) for pod in pods)


def problem(
    deployment: Object | None, pods: Sequence[Object], waiting: Iterable[Object], now: datetime
) -> Problem | None:
    """Why workers have no node. ``waiting`` are those of ``pods`` that matter and aren't ready, the newest first."""
    found = [pod for pod in waiting if _is_unschedulable(pod)]
    stuck = found[: max(0, len(found) - sum(_makes_room(pod, now) for pod in pods))]
    if not stuck:
        return None
    wanted = len(pods) if deployment is None else running(deployment)
    said = _said(stuck[0]).rstrip(". ")
    missing = next(_missing(deployment, stuck), None)
    why = said if missing is None else f"{missing} ({said})"
    return Problem(Reason.UNSCHEDULABLE, f"{len(stuck)} of {wanted} workers can't be scheduled: {why}; {_ADVICE}")


def _is_over(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _has_node(pod: Object) -> bool:
    # Of one that the scheduler hasn't come to yet nothing is said: it may get no node.
    return not _is_over(pod) and condition(pod, "PodScheduled").get("status") == "True"


def _makes_room(pod: Object, now: datetime) -> bool:
    """Whether a pod is ending, so that what it has is soon another's."""
    # Kubernetes writes the time by which it has to be gone.
    until = pod["metadata"].get("deletionTimestamp")
    return until is not None and _has_node(pod) and now < datetime.fromisoformat(until) + _LATE


def _is_unschedulable(pod: Object) -> bool:
    found = condition(pod, "PodScheduled")
    return found.get("status") == "False" and found.get("reason") == "Unschedulable"


def _said(pod: Object) -> str:
    """The scheduler's own words."""
    return str(condition(pod, "PodScheduled").get("message", ""))


def _missing(deployment: Object | None, stuck: Sequence[Object]) -> Iterator[str]:
    """How many GPUs, or other such devices, these workers lack by the scheduler's word."""
    for name, each in _devices(deployment):
        # Another resource may begin with the same name.
        lacks = re.compile(rf"Insufficient {re.escape(name)}(?![\w/-]|\.\w)")
        short = [words for pod in stuck if lacks.search(words := _said(pod))]
        # Of nodes that have a taint, or not the label, the scheduler doesn't say whether they have any.
        where = " on the nodes that take them" if any(_TURNED_AWAY in words for words in short) else ""
        if short and each == 1:
            yield f"{len(short)} {name} {'is' if len(short) == 1 else 'are'} missing{where}"
        elif short:
            # Some of them may be free, on nodes that have too few for one worker.
            yield f"up to {len(short) * each} {name} are missing{where}, {each} on one node for each worker"


def _devices(deployment: Object | None) -> Iterator[tuple[str, int]]:
    """What each worker asks for of the resources whose names have a domain, which come by the piece."""
    containers = [] if deployment is None else deployment["spec"]["template"]["spec"]["containers"]
    for container in containers:
        limits = container.get("resources", {}).get("limits") or {}
        for name, quantity in limits.items() if container["name"] == names.CONTAINER else ():
            if "/" in name and str(quantity).isdecimal():
                yield name, int(quantity)

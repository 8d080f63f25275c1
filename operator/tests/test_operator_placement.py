"""Workers that no node takes: how many of them, what they lack, and what to do."""

from typing import Any

import pytest

from embedding_operator import placement, workers
from embedding_operator.observed import Object
from embedding_operator.reasons import Reason
from operator_objects import NOW, pipeline, pod, rolled_out

GPU = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available: 2 No preemption."
SLICE = GPU.replace("nvidia.com/gpu", "nvidia.com/mig-1g.10gb")
TAINT = "0/2 nodes are available: 2 node(s) had untolerated taint {nvidia.com/gpu: present}."
TAINT_AND_NONE = GPU.replace(
    "2 Insufficient", "1 node(s) had untolerated taint {nvidia.com/gpu: present}, 1 Insufficient"
)
SHARED = GPU.replace("nvidia.com/gpu", "nvidia.com/gpu.shared")
MEMORY = "0/2 nodes are available: 2 Insufficient memory."
ADVICE = "free or add a node, run fewer workers, or change spec.worker (resources, gpu, nodeSelector, tolerations)"


def unschedulable(message: str, name: str = "w-0", **metadata: Any) -> Object:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    found = pod(name, phase="Pending", conditions=[condition])
    found["metadata"] |= metadata
    return found


def running(name: str, *, ready: bool = True, **metadata: Any) -> Object:
    found = pod(name, ready=ready)
    found["status"]["conditions"].append({"type": "PodScheduled", "status": "True"})
    found["metadata"] |= metadata
    return found


def told(pods: list[Object], replicas: int = 3, **worker: Any) -> str | None:
    """What is said of a pipeline's workers."""
    deployment = rolled_out(pipeline(replicas=replicas, worker=worker))
    template = deployment["spec"]["template"]["metadata"]["annotations"]
    mine: list[Object] = [one | {"metadata": one["metadata"] | {"annotations": template}} for one in pods]
    found = workers.problem(deployment, mine, NOW)
    assert found is None or found.reason == Reason.UNSCHEDULABLE
    return None if found is None else found.message


TWO_RUN = [running("a"), running("b")]
ONE: dict[str, Any] = {"gpu": {}}
# By when they are to be gone.
LEAVING: dict[str, Any] = {"deletionTimestamp": "2026-01-02T03:30:20Z"}
LATE: dict[str, Any] = {"deletionTimestamp": "2026-01-02T03:29:55Z"}
LOST: dict[str, Any] = {"deletionTimestamp": "2026-01-02T03:29:50Z"}

# What is the matter → the pods, spec.worker, and how the message begins.
LACKS: dict[str, tuple[list[Object], dict[str, Any], str]] = {
    "one of three lacks its GPU": (
        [*TWO_RUN, unschedulable(GPU)],
        ONE,
        f"1 of 3 workers can't be scheduled: 1 nvidia.com/gpu is missing ({GPU.rstrip('.')}); {ADVICE}",
    ),
    "two of three lack their GPUs": (
        [running("a"), unschedulable(GPU), unschedulable(GPU, "w-1")],
        ONE,
        "2 of 3 workers can't be scheduled: 2 nvidia.com/gpu are missing (0/2 nodes",
    ),
    "one that wants two GPUs may lack but one": (
        [*TWO_RUN, unschedulable(GPU)],
        {"gpu": {"count": 2}},
        (
            "1 of 3 workers can't be scheduled: up to 2 nvidia.com/gpu are missing, 2 on one node for each worker "
            "(0/2 nodes"
        ),
    ),
    "a slice of a GPU is missing": (
        [*TWO_RUN, unschedulable(SLICE)],
        {"gpu": {"resourceName": "nvidia.com/mig-1g.10gb"}},
        "1 of 3 workers can't be scheduled: 1 nvidia.com/mig-1g.10gb is missing (0/2 nodes",
    ),
    "GPUs that are asked for among the limits are missing": (
        [*TWO_RUN, unschedulable(GPU)],
        {"resources": {"limits": {"nvidia.com/gpu": "1"}}},
        "1 of 3 workers can't be scheduled: 1 nvidia.com/gpu is missing (0/2 nodes",
    ),
    "only one of two lacks a GPU": (
        [running("a"), unschedulable(GPU), unschedulable(TAINT, "w-1")],
        ONE,
        "2 of 3 workers can't be scheduled: 1 nvidia.com/gpu is missing (0/2 nodes",
    ),
    "GPUs are there, on nodes that don't take the workers": (
        [*TWO_RUN, unschedulable(TAINT)],
        ONE,
        f"1 of 3 workers can't be scheduled: {TAINT.rstrip('.')}; {ADVICE}",
    ),
    "the node with GPUs may not take the workers, and the other has none": (
        [*TWO_RUN, unschedulable(TAINT_AND_NONE)],
        ONE,
        "1 of 3 workers can't be scheduled: 1 nvidia.com/gpu is missing on the nodes that take them (0/2 nodes",
    ),
    "another resource's name begins with that of the GPUs": (
        [*TWO_RUN, unschedulable(SHARED)],
        ONE,
        f"1 of 3 workers can't be scheduled: {SHARED.rstrip('.')}; {ADVICE}",
    ),
    "memory is missing": (
        [*TWO_RUN, unschedulable(MEMORY)],
        {},
        f"1 of 3 workers can't be scheduled: {MEMORY.rstrip('.')}; {ADVICE}",
    ),
    "a GPU is on a node that is lost": (
        [running("a"), running("b", **LOST), unschedulable(GPU)],
        ONE,
        "1 of 3 workers can't be scheduled: 1 nvidia.com/gpu is missing (0/2 nodes",
    ),
    "two wait, and one of them for a GPU that is being freed": (
        [running("a", **LEAVING), unschedulable(GPU), unschedulable(GPU, "w-1")],
        ONE,
        "1 of 3 workers can't be scheduled: 1 nvidia.com/gpu is missing (0/2 nodes",
    ),
}


@pytest.mark.parametrize(("pods", "worker", "message"), LACKS.values(), ids=LACKS.keys())
def test_is_told_where(pods: list[Object], worker: dict[str, Any], message: str) -> None:
    assert (told(pods, **worker) or "").startswith(message)


# Nothing is in the way, since who waits will have a GPU: the pods.
MAKES_ROOM = {
    "a worker that is being replaced": [running("a"), running("b", **LEAVING), unschedulable(GPU)],
    "a worker that takes its time to go": [running("a"), running("b", **LATE), unschedulable(GPU)],
    "a worker that is gone, and its successor too": [running("a"), unschedulable(GPU, **LEAVING)],
}


@pytest.mark.parametrize("pods", MAKES_ROOM.values(), ids=MAKES_ROOM.keys())
def test_nothing_is_in_the_way_after(pods: list[Object]) -> None:
    assert told(pods, replicas=2, **ONE) is None


def test_one_that_was_never_placed_makes_no_room_when_it_goes() -> None:
    assert told([running("a"), unschedulable(GPU, **LEAVING), unschedulable(GPU, "w-1")], replicas=2, **ONE)


def test_pods_whose_deployment_is_gone_are_counted_by_themselves() -> None:
    found = placement.problem(None, [*TWO_RUN, unschedulable(GPU)], [unschedulable(GPU)], NOW)
    assert found is not None
    assert found.message.startswith("1 of 3 workers can't be scheduled: 0/2 nodes")


def test_a_quantity_as_the_api_server_stores_it_is_the_same() -> None:
    deployment = rolled_out(pipeline(replicas=3, worker=ONE))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["resources"]["limits"] = {"nvidia.com/gpu": "1"}
    found = placement.problem(deployment, [unschedulable(GPU)], [unschedulable(GPU)], NOW)
    assert found is not None
    assert "1 nvidia.com/gpu is missing" in found.message


def test_devices_of_a_sidecar_are_not_the_workers() -> None:
    deployment = rolled_out(pipeline(replicas=3))
    sidecar = {"name": "proxy", "resources": {"limits": {"nvidia.com/gpu": 1}}}
    deployment["spec"]["template"]["spec"]["containers"].append(sidecar)
    found = placement.problem(deployment, [unschedulable(GPU)], [unschedulable(GPU)], NOW)
    assert found is not None
    assert "missing" not in found.message


# How many workers have a node → the pods.
PLACED: dict[str, tuple[int, list[Object]]] = {
    "those that run": (2, [*TWO_RUN, unschedulable(GPU)]),
    "one that loads its model": (1, [running("a", ready=False)]),
    "one that is ending": (1, [running("a", **LEAVING)]),
    "no one on a node that is lost": (0, [running("a", **LOST)]),
    "no one that the scheduler hasn't come to yet": (0, [pod("a", phase="Pending", conditions=None)]),
    "no one that waits for a gate": (
        0,
        [pod("a", conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}])],
    ),
    "no one that was evicted": (0, [pod("a", phase="Failed")]),
}


@pytest.mark.parametrize(("count", "pods"), PLACED.values(), ids=PLACED.keys())
def test_a_node_have(count: int, pods: list[Object]) -> None:
    assert placement.placed(pods, NOW) == count

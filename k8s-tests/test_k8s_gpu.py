"""Workers with GPUs on a node that has too few of them.

The GPUs are an extended resource that is written into the node's status: the scheduling is real, the devices are not.
"""

import json
from collections.abc import Iterator

import pytest

from system_fixtures import SETTLE_SECONDS, Object, Pipeline, Pipelines
from testcluster.cluster import Cluster
from waiting import wait_until

pytestmark = pytest.mark.slow

# No other test asks for these.
GPU = "nvidia.com/mig-1g.10gb"
MISSING = f"1 of 3 workers can't be scheduled: 1 {GPU} is missing"


@pytest.fixture
def two_gpus(cluster: Cluster) -> Iterator[None]:
    """Have a node say that it has two GPUs, until the test is over."""
    nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    node = next(one["metadata"]["name"] for one in nodes if not one["spec"].get("taints"))
    change_capacity(cluster, node, {"op": "add", "value": "2"})
    wait_until(lambda: allocatable(cluster, node) == "2", SETTLE_SECONDS, "the kubelet doesn't offer the GPUs")
    yield
    change_capacity(cluster, node, {"op": "remove"})
    wait_until(lambda: allocatable(cluster, node) is None, SETTLE_SECONDS, "the kubelet still offers the GPUs")


def change_capacity(cluster: Cluster, node: str, change: Object) -> None:
    patch = json.dumps([change | {"path": f"/status/capacity/{GPU.replace('/', '~1')}"}])
    cluster.kubectl("patch", "node", node, "--subresource=status", "--type=json", "--patch", patch)


def allocatable(cluster: Cluster, node: str) -> str | None:
    found: Object = json.loads(cluster.kubectl("get", "node", node, "-o", "json").stdout)
    quantity: str | None = found["status"]["allocatable"].get(GPU)
    return quantity


def staying(pipeline: Pipeline) -> list[Object]:
    return [pod for pod in pipeline.pods() if "deletionTimestamp" not in pod["metadata"]]


def has(pod: Object, condition: str) -> bool:
    return any(one["type"] == condition and one["status"] == "True" for one in pod["status"].get("conditions", []))


def pace(pipeline: Pipeline) -> Object:
    found: Object = (pipeline.get("deployment") or {})["spec"]["strategy"]["rollingUpdate"]
    return found


def uids(pods: list[Object]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


@pytest.mark.usefixtures("two_gpus")
def test_of_three_workers_with_two_gpus_two_run_and_are_updated_and_a_pipeline_beside_them_is_not_concerned(
    pipelines: Pipelines,
) -> None:
    beside = pipelines.apply("beside")
    short = pipelines.apply(
        "short", replicas=3, input={"create": {"partitions": 3}}, worker={"gpu": {"resourceName": GPU}}
    )
    short.until(lambda: short.status.get("availableReplicas") == 2, "two workers don't run")
    told = short.wait_for_all("WorkersReady", "False", "Unschedulable", MISSING)
    assert f"1 Insufficient {GPU}" in told["WorkersReady"]["message"]
    assert (told["Ready"]["reason"], told["Ready"]["message"]) == ("Unschedulable", told["WorkersReady"]["message"])
    first = staying(short)
    assert sorted(has(pod, "PodScheduled") for pod in first) == [False, True, True]
    for pod in first:
        resources = pod["spec"]["containers"][0]["resources"]
        assert (resources["requests"][GPU], resources["limits"][GPU]) == ("1", "1")
    beside.wait_until_ready()
    ready_beside, pods_beside = beside.condition("Ready"), uids(beside.pods())

    fewest_ready = 2

    def all_are_replaced() -> bool:
        nonlocal fewest_ready
        pods = staying(short)
        ready = [pod for pod in pods if has(pod, "Ready")]
        fewest_ready = min(fewest_ready, len(ready))
        return len(pods) == 3 and not uids(first) & uids(pods) and len(ready) == 2

    short.patch({"worker": {"podAnnotations": {"example.com/update": "1"}}})
    short.until(all_are_replaced, "the update doesn't come to its end")
    # One at a time of the two that run.
    assert fewest_ready == 1
    short.wait("Ready", "False", "Unschedulable", MISSING)
    short.until(lambda: pace(short) == {"maxSurge": 0, "maxUnavailable": 1}, "something is left of the update")

    # As the message has it.
    short.patch({"replicas": 2})
    short.wait_until_ready()
    assert (beside.condition("Ready"), uids(beside.pods())) == (ready_beside, pods_beside)

"""Autoscaling on a cluster: whose number of workers it is, what caps it, and what is told where nobody knows their load.

No node takes the workers: an autoscaler counts those that the Deployment asks for.
"""

import json
from pathlib import Path

import pytest

from kafka_state import grow
from system_fixtures import Object, Pipeline, Pipelines
from watched_values import watched

pytestmark = pytest.mark.slow

NOWHERE = {"nodeSelector": {"example.com/no-node": "has-this"}}
CPU = {"metric": "CPU", "maxReplicas": 20}
AUTOSCALER = "horizontalpodautoscaler"
# One that a user makes, of the pipeline itself.
OWN: Object = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "own"},
    "spec": {
        "scaleTargetRef": {"apiVersion": "embeddings.dev/v1alpha1", "kind": "EmbeddingPipeline", "name": "own"},
        "minReplicas": 5,
        "maxReplicas": 6,
    },
}


def blind(pipeline: Pipeline) -> str:
    """Why an autoscaler doesn't know the load of workers that don't run, on this cluster."""
    served = pipeline.system.cluster.kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1", check=False)
    return "MetricNotServed" if served.returncode == 0 else "MetricsServerMissing"


def bounds(pipeline: Pipeline) -> tuple[int, int] | None:
    found = pipeline.get(AUTOSCALER)
    return None if found is None else (found["spec"]["minReplicas"], found["spec"]["maxReplicas"])


def replicas(pipeline: Pipeline, kind: str) -> int:
    found = pipeline.get(kind)
    assert found is not None
    return int(found["spec"]["replicas"])


def switch_off(pipeline: Pipeline) -> None:
    """Returns once the operator has done all that follows from it."""
    pipeline.patch({"autoscaling": None})
    pipeline.until(lambda: bounds(pipeline) is None, "the autoscaler is still there")
    pipeline.wait("WorkersReady", "False", "Unschedulable")
    assert "ScalingActive" not in pipeline.conditions()


def reasons(autoscaler: Object | None) -> set[str]:
    """Why the parts of an autoscaler are as they are."""
    return {one["reason"] for one in (autoscaler or {}).get("status", {}).get("conditions", ())}


def uids(pipeline: Pipeline) -> set[str]:
    """Of the worker pods that aren't ending."""
    return {pod["metadata"]["uid"] for pod in pipeline.pods() if "deletionTimestamp" not in pod["metadata"]}


def test_the_number_of_workers_is_handed_on_without_passing_through_a_smaller_one(
    pipelines: Pipelines, tmp_path: Path
) -> None:
    pipeline = pipelines.apply("handed-on", worker=NOWHERE, input={"create": {"partitions": 6}})
    pipeline.wait("WorkersReady", "False", "Unschedulable")
    with watched(pipeline, "deployment", "{.spec.replicas}", tmp_path) as numbers:
        pipeline.kubectl("scale", f"embp/{pipeline.name}", "--replicas=3")
        pipeline.until(lambda: len(uids(pipeline)) == 3, "kubectl scale changes nothing")
        three = uids(pipeline)

        pipeline.patch({"autoscaling": CPU})
        pipeline.wait("ScalingActive", "False", blind(pipeline))
        assert bounds(pipeline) == (1, 6)
        switch_off(pipeline)
        assert (numbers(), replicas(pipeline, "embp")) == (["1", "3"], 3)

        # One that is blind goes as far as its bounds, and another number than the pipeline's stays afterwards.
        pipeline.patch({"autoscaling": CPU | {"minReplicas": 4}})
        pipeline.until(lambda: numbers()[-1] == "4", "the autoscaler doesn't keep to its bounds")
        switch_off(pipeline)
        assert (numbers(), replicas(pipeline, "embp")) == (["1", "3", "4"], 4)
        # All that while no worker was replaced.
        pipeline.until(lambda: three < uids(pipeline), "a worker was replaced")


def test_an_autoscaler_of_a_users_own_scales_the_pipeline_itself(pipelines: Pipelines, tmp_path: Path) -> None:
    pipeline = pipelines.apply("own", replicas=3, worker=NOWHERE, input={"create": {"partitions": 6}})
    pipeline.wait("WorkersReady", "False", "Unschedulable")
    with watched(pipeline, "deployment", "{.spec.replicas}", tmp_path) as numbers:
        pipeline.kubectl("apply", "--filename=-", input=json.dumps(OWN))
        pipeline.until(lambda: numbers()[-1] == "5", "the user's own autoscaler changes nothing")
        assert replicas(pipeline, "embp") == 5
        # It has found the pods: their selector is in the status.
        pipeline.until(
            lambda: "FailedGetResourceMetric" in reasons(pipeline.get(AUTOSCALER, "own")),
            "it doesn't ask for their load",
        )
        pipeline.patch({"paused": True})
        pipeline.wait("WorkersReady", "False", "Paused")
        pipeline.until(lambda: numbers()[-1] == "0", "a pause stops no worker")
        pipeline.patch({"paused": False})
        pipeline.until(lambda: numbers()[-1] == "5", "the workers don't come back")
        assert (numbers(), replicas(pipeline, "embp")) == (["3", "5", "0", "5"], 5)


def test_an_autoscaled_pipeline_is_paused_keeps_to_its_partitions_and_takes_its_autoscaler_with_it(
    pipelines: Pipelines,
) -> None:
    pipeline = pipelines.apply(
        "capped", worker=NOWHERE, input={"create": {"partitions": 6}}, autoscaling=CPU | {"minReplicas": 8}
    )
    pipeline.wait("ScalingActive", "False", blind(pipeline), "maxReplicas is 20 and counts as 6")
    assert (bounds(pipeline), replicas(pipeline, "deployment")) == ((6, 6), 6)

    pipeline.patch({"paused": True})
    pipeline.wait("ScalingActive", "False", "Paused")
    assert replicas(pipeline, "deployment") == 0
    pipeline.patch({"paused": False})
    pipeline.wait("ScalingActive", "False", blind(pipeline), "maxReplicas is 20 and counts as 6")
    assert replicas(pipeline, "deployment") == 6

    grow(pipeline.system.kafka.bootstrap_servers, f"{pipeline.namespace}.{pipeline.name}.in", 12)
    pipeline.wait("ScalingActive", "False", blind(pipeline), "maxReplicas is 20 and counts as 12")
    pipeline.until(lambda: (bounds(pipeline), replicas(pipeline, "deployment")) == ((8, 12), 8), "it isn't followed")

    pipeline.delete()
    pipeline.until(lambda: bounds(pipeline) is None, "the autoscaler is still there")

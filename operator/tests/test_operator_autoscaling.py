"""Autoscaling: the object that Kubernetes goes by, whose number of workers it is, and how it changes hands."""

from typing import Any

import pytest
from kubernetes.dynamic.exceptions import DynamicApiError

from embedding_operator import names, scaling
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.compare import differs
from embedding_operator.observed import Object, Observed, Problem
from embedding_operator.providers import AUTOSCALER, SCALED_OBJECT
from embedding_operator.reasons import Reason
from embedding_service.contract.broker_trouble import TroubleReason
from operator_objects import autoscaler, desired, kafka, observed, pipeline, planned, rolled_out, stored, topic
from operator_scene import KEY, Scene, answer

CPU = {"metric": "CPU", "maxReplicas": 3}
CONFLICT = Problem(Reason.CONFLICT, "another's")
UNREACHABLE = Problem(TroubleReason.BROKER_UNREACHABLE, "no broker answers")
LACKS_METRIC = ("ScalingActive", "False", "FailedGetContainerResourceMetric", "no metrics returned")


def built(partitions: int | None = None, **autoscaling: Any) -> Any:
    found = pipeline(autoscaling=CPU | autoscaling)
    return desired(found, partitions=partitions)["HorizontalPodAutoscaler"]["spec"]


def bounds(partitions: int | None, **autoscaling: Any) -> tuple[int, int]:
    spec = built(partitions, **autoscaling)
    return spec["minReplicas"], spec["maxReplicas"]


def test_without_autoscaling_there_is_no_autoscaler() -> None:
    assert "HorizontalPodAutoscaler" not in desired(pipeline())


def test_it_scales_the_workers_deployment() -> None:
    target = built()["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "articles-embedding-worker"}
    assert target["name"] == desired(pipeline())["Deployment"]["metadata"]["name"]


@pytest.mark.parametrize(("given", "utilisation"), [({}, 80), ({"targetCPUUtilization": 300}, 300)])
def test_it_goes_by_the_cpu_of_the_workers_own_container(given: dict[str, int], utilisation: int) -> None:
    (metric,) = built(**given)["metrics"]
    target = {"type": "Utilization", "averageUtilization": utilisation}
    cpu = {"name": "cpu", "container": "worker", "target": target}
    assert metric == {"type": "ContainerResource", "containerResource": cpu}
    (container,) = desired(pipeline())["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "worker"


# Partitions of the input topic, and what is asked for → the fewest and the most workers.
BOUNDS: dict[str, tuple[int | None, dict[str, int], tuple[int, int]]] = {
    "as asked for where nobody has told how many partitions there are": (None, {"maxReplicas": 20}, (1, 20)),
    "as asked for where there are more partitions": (12, {"minReplicas": 2, "maxReplicas": 10}, (2, 10)),
    "as asked for where there are as many partitions": (10, {"minReplicas": 2, "maxReplicas": 10}, (2, 10)),
    "at most as many as there are partitions": (6, {"maxReplicas": 20}, (1, 6)),
    "at least no more than there are partitions either": (6, {"minReplicas": 8, "maxReplicas": 20}, (6, 6)),
    "one where there is one partition": (1, {"maxReplicas": 20}, (1, 1)),
}


@pytest.mark.parametrize(("partitions", "asked", "expected"), BOUNDS.values(), ids=BOUNDS.keys())
def test_workers_are(partitions: int | None, asked: dict[str, int], expected: tuple[int, int]) -> None:
    assert bounds(partitions, **asked) == expected


UP = {
    "stabilizationWindowSeconds": 30,
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 60}],
}
DOWN = {
    "stabilizationWindowSeconds": 300,
    "selectPolicy": "Max",
    "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
}
FIVE = [{"type": "Pods", "value": 5, "periodSeconds": 15}]

# spec.autoscaling.behavior → what the autoscaler has.
BEHAVIORS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {"scaleUp": UP, "scaleDown": DOWN}),
    "an empty direction": ({"scaleUp": {}}, {"scaleUp": UP, "scaleDown": DOWN}),
    "one direction": ({"scaleUp": {"policies": FIVE}}, {"scaleUp": UP | {"policies": FIVE}, "scaleDown": DOWN}),
    "a single field": (
        {"scaleDown": {"stabilizationWindowSeconds": 0}},
        {"scaleUp": UP, "scaleDown": DOWN | {"stabilizationWindowSeconds": 0}},
    ),
    "no change in a direction": (
        {"scaleDown": {"selectPolicy": "Disabled"}},
        {"scaleUp": UP, "scaleDown": DOWN | {"selectPolicy": "Disabled"}},
    ),
}


@pytest.mark.parametrize(("given", "expected"), BEHAVIORS.values(), ids=BEHAVIORS.keys())
def test_it_changes_the_number_fast_up_and_slowly_down_where_the_pipeline_says(
    given: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert built(behavior=given)["behavior"] == expected


EDITS: dict[str, dict[str, Any]] = {
    "another target": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "other"}},
    "another most": {"maxReplicas": 30},
    "another least": {"minReplicas": 2},
    "another metric beside it": {"metrics": built()["metrics"] * 2},
    "another window": {"behavior": {"scaleUp": UP, "scaleDown": DOWN | {"stabilizationWindowSeconds": 0}}},
    "another policy beside ours": {"behavior": {"scaleUp": UP | {"policies": FIVE + FIVE}, "scaleDown": DOWN}},
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_what_somebody_edits_of_it_is_found(edit: dict[str, Any]) -> None:
    wanted = desired(pipeline(autoscaling=CPU))["HorizontalPodAutoscaler"]
    live = stored(wanted)
    live["spec"] |= edit
    assert differs(wanted, live)


def with_workers(count: int | None, *, spec: dict[str, Any] | None = None, **others: Any) -> Observed:
    """Of an autoscaled pipeline, at which so many workers run; ``None``: its Deployment is yet to be made."""
    sections: dict[str, Any] = {"replicas": 1, "autoscaling": CPU | {"minReplicas": 2}}
    of = pipeline(**(sections | (spec or {})))
    objects = dict(observed(of).objects)
    if count is None:
        del objects["Deployment"]
    else:
        objects["Deployment"] = rolled_out(of, count)
    return observed(of, objects=objects, **others)


NO_INPUT = kafka(topic("out"), topic("out-deadletter"))
PAUSED = {"spec": {"paused": True}}

# Workers that run, and what else is found → those that there are to be.
NUMBERS: dict[str, tuple[int, dict[str, Any], int]] = {
    "an autoscaler's number is left alone": (3, {}, 3),
    "a number below the least is left to the autoscaler too": (1, {}, 1),
    "a number above the most is left to the autoscaler too": (9, {}, 9),
    "of no workers the fewest are made, which an autoscaler doesn't do": (0, {}, 2),
    "a pause stops them": (3, PAUSED, 0),
    "a conflict stops them": (3, {"conflict": CONFLICT}, 0),
    "they go on where the brokers don't answer": (3, {"kafka": UNREACHABLE}, 3),
    "they go on where the input topic is missing": (3, {"kafka": NO_INPUT}, 3),
    "none is started where the brokers don't answer": (0, {"kafka": UNREACHABLE}, 0),
}


@pytest.mark.parametrize(("count", "found", "expected"), NUMBERS.values(), ids=NUMBERS.keys())
def test_of_workers_that_run(count: int, found: dict[str, Any], expected: int) -> None:
    plan = planned(with_workers(count, **found))
    assert (count if plan.scale is None else plan.scale) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [({}, 2), (PAUSED, 0), ({"kafka": UNREACHABLE}, 0), ({"kafka": kafka(topic("in", 1))}, 0)],
    ids=["the fewest", "none in a pause", "none without brokers", "none without topics"],
)
def test_a_new_deployment_starts_with(found: dict[str, Any], expected: int) -> None:
    (deployment,) = [one for one in planned(with_workers(None, **found)).apply if one["kind"] == "Deployment"]
    assert deployment["spec"]["replicas"] == expected


def test_a_new_deployment_starts_with_no_more_than_there_are_partitions() -> None:
    one_partition = kafka(topic("in", 1), topic("out"), topic("out-deadletter"))
    (deployment,) = [
        one for one in planned(with_workers(None, kafka=one_partition)).apply if one["kind"] == "Deployment"
    ]
    # One is Kubernetes' own default.
    assert "replicas" not in deployment["spec"]


def test_the_autoscaler_is_made_after_the_deployment_that_it_scales() -> None:
    plan = planned(observed(pipeline(autoscaling=CPU), objects={}))
    assert [one["kind"] for one in plan.apply][-2:] == ["Deployment", "HorizontalPodAutoscaler"]


def test_switching_it_on_makes_the_autoscaler_and_leaves_the_workers_as_they_are() -> None:
    before = observed(pipeline(replicas=3))
    plan = planned(observed(pipeline(replicas=3, autoscaling=CPU), objects=before.objects))
    assert [one["kind"] for one in plan.apply] == ["HorizontalPodAutoscaler"]
    assert plan.scale is None


def test_where_all_is_as_it_should_be_nothing_is_to_be_done() -> None:
    plan = planned(with_workers(3))
    assert (plan.apply, plan.scale, plan.delete) == ((), None, ())


def test_the_cap_follows_the_partitions() -> None:
    grown = kafka(topic("in", 12), topic("out"), topic("out-deadletter"))
    spec = {"autoscaling": CPU | {"maxReplicas": 20}}
    assert planned(with_workers(3, spec=spec)).apply == ()
    (applied,) = planned(with_workers(3, spec=spec, kafka=grown)).apply
    assert applied["spec"]["maxReplicas"] == 12


def test_the_cap_stays_while_the_brokers_do_not_answer() -> None:
    told = {"topics": [{"name": "in", "role": "Input", "partitions": 3}]}
    spec = {"autoscaling": CPU | {"maxReplicas": 20}, "status": told}
    assert planned(with_workers(3, spec=spec, kafka=UNREACHABLE)).apply == ()


def most_of(scene: Scene, kind: str) -> int:
    """What the autoscaler has after a look, by Kubernetes' word or KEDA's."""
    scene.look()
    spec = scene.store.owned(KEY)[0][kind]["spec"]
    found: int = spec["maxReplicas"] if kind == AUTOSCALER else spec["maxReplicaCount"]
    return found


@pytest.mark.parametrize(
    ("metric", "kind"), [("CPU", AUTOSCALER), ("Lag", SCALED_OBJECT)], ids=["by Kubernetes", "by KEDA"]
)
def test_the_cap_stays_while_the_topic_is_gone(metric: str, kind: str) -> None:
    def of(generation: int, most: int) -> EmbeddingPipeline:
        autoscaling = {"metric": metric, "maxReplicas": most}
        return pipeline(metadata={"generation": generation}, topics={"manage": False}, autoscaling=autoscaling)

    scene = Scene(of(1, 20), lag_provider="keda")
    scene.cluster.served = True
    assert most_of(scene, kind) == 3
    scene.brokers.names.remove("in")
    # The first look writes a status without the topic.
    assert [most_of(scene, kind) for _ in range(3)] == [3, 3, 3]
    scene.edit(of(2, 2))
    assert most_of(scene, kind) == 2
    scene.edit(of(3, 20))
    scene.brokers.names.append("in")
    scene.brokers.partitions = 12
    assert most_of(scene, kind) == 12


def switched_off(replicas: int, count: int, before: int, **spec: Any) -> tuple[int | None, Observed]:
    """What ``spec.replicas`` becomes where autoscaling was just switched off, and what was found.

    ``before`` is what ``spec.replicas`` was until then, and ``count`` workers run.
    """
    was, now = pipeline(replicas=before, autoscaling=CPU), pipeline(replicas=replicas, **spec)
    objects = dict(observed(now).objects) | {"Deployment": rolled_out(now, count), AUTOSCALER: autoscaler(was)}
    return scaling.kept_replicas(now, objects), observed(now, objects=objects)


# spec.replicas, workers that run, spec.replicas before → what spec.replicas becomes.
KEPT: dict[str, tuple[int, int, int, int | None]] = {
    "as many as run, where nobody names a number": (1, 3, 1, 3),
    "fewer, where the autoscaler had come down": (5, 2, 5, 2),
    "what it was, where as many run": (3, 3, 3, None),
    "the number that was named in the same edit": (2, 5, 1, None),
    "none, where that was named in the same edit": (0, 5, 1, None),
    "what it was, where no worker runs": (4, 0, 4, None),
}


@pytest.mark.parametrize(("replicas", "count", "before", "expected"), KEPT.values(), ids=KEPT.keys())
def test_switched_off_the_pipeline_goes_on_with(replicas: int, count: int, before: int, expected: int | None) -> None:
    assert switched_off(replicas, count, before)[0] == expected


def test_while_it_is_on_replicas_are_the_pipelines_own_affair() -> None:
    found = with_workers(3)
    assert scaling.kept_replicas(found.pipeline, found.objects) is None


def test_without_an_autoscaler_replicas_are_the_pipelines_own_affair() -> None:
    found = observed(pipeline(replicas=1), objects={"Deployment": rolled_out(pipeline(), 3)})
    assert scaling.kept_replicas(found.pipeline, found.objects) is None


def test_switched_off_the_autoscaler_goes() -> None:
    _, found = switched_off(3, 3, 1)
    plan = planned(found)
    assert ([kind for kind, _ in plan.delete], plan.scale, plan.apply) == ([AUTOSCALER], None, ())


def running(scene: Scene, of: Any, count: int) -> None:
    """Have the Deployment say that so many workers are asked for."""
    live = rolled_out(of, count)
    version = str(scene.cluster.next_version())
    scene.store.put("Deployment", live | {"metadata": live["metadata"] | {"resourceVersion": version}})


def kinds(scene: Scene) -> set[str]:
    objects: dict[str, Object] = scene.store.owned(KEY)[0]
    return set(objects)


def test_switched_on_and_off_the_operator_never_changes_the_number_of_workers() -> None:
    on = pipeline(autoscaling=CPU)
    scene = Scene(on)
    scene.look()
    assert AUTOSCALER in kinds(scene)
    # As the autoscaler did meanwhile.
    running(scene, on, 3)
    scene.look()

    scene.edit(pipeline())
    # The number is taken over first: an operator that ends here finds the autoscaler, and the number as its own.
    assert scene.look() == 0
    assert (scene.cluster.replicas, scene.cluster.deleted) == (3, [])
    scene.look()
    assert scene.cluster.deleted == [AUTOSCALER]
    assert AUTOSCALER not in kinds(scene)
    scene.look()
    assert (scene.cluster.scaled, scene.cluster.deleted) == ([], [AUTOSCALER])


def test_partitions_that_somebody_adds_are_followed_at_the_next_look() -> None:
    scene = Scene(pipeline(autoscaling=CPU | {"maxReplicas": 20}))

    def most() -> int:
        scene.look()
        found: int = scene.store.owned(KEY)[0][AUTOSCALER]["spec"]["maxReplicas"]
        return found

    # Nothing had to be done at the second one.
    assert (most(), most()) == (3, 3)
    scene.brokers.partitions = 12
    assert most() == 12


def test_a_number_that_is_named_while_it_is_switched_off_is_heeded() -> None:
    on = pipeline(autoscaling=CPU)
    scene = Scene(on)
    scene.look()
    running(scene, on, 3)
    scene.edit(pipeline(replicas=2))
    scene.look()
    assert (scene.cluster.replicas, scene.cluster.scaled, scene.cluster.deleted) == (None, [2], [AUTOSCALER])


def switched_off_and_denied(denied: Exception) -> Scene:
    """A pipeline of three workers whose autoscaling was switched off, by an API server that lets nobody keep that."""
    on = pipeline(autoscaling=CPU)
    scene = Scene(on)
    scene.look()
    running(scene, on, 3)
    scene.edit(pipeline())
    scene.cluster.denied = denied
    return scene


def test_a_policy_that_denies_the_number_is_told_and_the_pipeline_goes_on_as_it_is_written() -> None:
    scene = switched_off_and_denied(answer(403, "the policy says no"))
    scene.look()
    reason, message = scene.told()
    assert (reason, "the policy says no" in message) == ("Rejected", True)
    assert (scene.cluster.scaled, scene.cluster.deleted) == ([1], [AUTOSCALER])
    scene.look()
    assert scene.told()[0] != "Rejected"


def test_a_webhook_that_is_down_for_a_moment_does_not_cost_the_number() -> None:
    scene = switched_off_and_denied(answer(500, "no webhook"))
    with pytest.raises(DynamicApiError):
        scene.look()
    scene.cluster.denied = None
    scene.look(after=1)
    scene.look()
    assert (scene.cluster.replicas, scene.cluster.scaled, scene.cluster.deleted) == (3, [], [AUTOSCALER])


def test_a_webhook_that_stays_down_is_told_of_by_the_status() -> None:
    scene = switched_off_and_denied(answer(500, "no webhook"))
    with pytest.raises(DynamicApiError):
        scene.look()
    scene.look(after=10)
    assert scene.told()[0] == "WriteFailed"


def scaling_active(scene: Scene) -> str:
    return scene.told("ScalingActive")[0]


def test_a_missing_provider_of_metrics_is_told_and_asked_for_no_more_than_necessary() -> None:
    of = pipeline(autoscaling=CPU)
    scene = Scene(of)
    scene.look()
    running(scene, of, 1)
    assert scene.cluster.asked == 0
    blind = autoscaler(of, LACKS_METRIC)
    scene.store.put(AUTOSCALER, blind | {"metadata": blind["metadata"] | {"resourceVersion": "100"}})
    for _ in range(3):
        scene.look()
    assert scaling_active(scene) == Reason.METRICS_SERVER_MISSING
    assert scene.cluster.asked == 1

    sees = autoscaler(of, ("ScalingActive", "True", "ValidMetricFound", "ok"))
    scene.store.put(AUTOSCALER, sees | {"metadata": sees["metadata"] | {"resourceVersion": "101"}})
    scene.look()
    assert scaling_active(scene) == Reason.METRIC_SERVED
    assert scene.cluster.asked == 1


def test_the_number_that_is_ignored_meanwhile_is_noted_at_the_autoscaler() -> None:
    metadata = desired(pipeline(replicas=4, autoscaling=CPU))["HorizontalPodAutoscaler"]["metadata"]
    assert metadata["annotations"][names.REPLICAS] == "4"
    assert names.APPLIED in metadata["annotations"]

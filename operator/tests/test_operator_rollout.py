"""Updates of workers with GPUs: no more than one at a time, also where some have no GPU and count as unavailable."""

from typing import Any

import pytest

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.desired.state import desired_state
from embedding_operator.observed import Object
from embedding_operator.plan import decide
from operator_objects import SETTINGS, observed, pipeline, pod, rolled_out
from operator_scene import KEY, Scene


def workers(note: str = "old", replicas: int = 3, **others: Any) -> EmbeddingPipeline:
    return pipeline(replicas=replicas, worker={"gpu": {}, "podAnnotations": {"note": note}}, **others)


def deployment(wanted: EmbeddingPipeline, live: Object | None, placed: int) -> Object:
    built = desired_state(wanted, SETTINGS, None, live=live, placed=placed)
    return next(one for one in built if one["kind"] == "Deployment")


def pace(built: Object) -> tuple[int, str | None]:
    """How many may be unavailable, and how many are said to be kept."""
    unavailable: int = built["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"]
    return unavailable, built["metadata"]["annotations"].get(names.KEPT)


def stored(built: Object, replicas: int, **status: int) -> Object:
    """A Deployment as it is in the cluster, of which so many replicas are asked for."""
    counts = {"replicas": replicas, "updatedReplicas": replicas, "availableReplicas": replicas}
    return {
        **built,
        "metadata": built["metadata"] | {"uid": "u", "resourceVersion": "2", "generation": 2},
        "spec": built["spec"] | {"replicas": replicas},
        "status": {"observedGeneration": 2} | counts | status,
    }


# An update begins → how many are wanted, how many of them have a GPU, and how many may be unavailable.
BEGINS = {
    "all have a GPU": (3, 3, 1),
    "one has no GPU": (3, 2, 2),
    "only one has a GPU": (3, 1, 3),
    "none has a GPU": (3, 0, 3),
    "the only one has a GPU": (1, 1, 1),
    "the only one has no GPU": (1, 0, 1),
    "one of another time is still ending": (3, 4, 1),
    "none is wanted": (0, 0, 1),
}


@pytest.mark.parametrize(("replicas", "placed", "unavailable"), BEGINS.values(), ids=BEGINS.keys())
def test_an_update_keeps_all_but_one_of_those_with_a_gpu_where(replicas: int, placed: int, unavailable: int) -> None:
    live = rolled_out(workers(replicas=replicas))
    built = deployment(workers("new", replicas), live, placed)
    assert pace(built) == (unavailable, str(max(0, placed - 1)))
    assert built["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


def underway(replicas: int = 3, kept: str = "1", **status: int) -> Object:
    """The Deployment in the midst of an update."""
    built = deployment(workers("new"), rolled_out(workers()), int(kept) + 1)
    return stored(built, replicas, **({"updatedReplicas": min(1, replicas - 1)} | status))


def test_it_goes_on_so_while_workers_wait_for_the_gpus_of_those_that_went() -> None:
    live = underway()
    for placed in (2, 1, 0):
        assert deployment(workers("new"), live, placed)["metadata"]["annotations"] == live["metadata"]["annotations"]
        assert not decide(
            observed(workers("new"), objects={"Deployment": live}), (deployment(workers("new"), live, 0),)
        ).apply


@pytest.mark.parametrize(("replicas", "unavailable"), [(2, 1), (4, 3), (1, 1)])
def test_it_keeps_as_many_where_the_number_of_workers_changes_meanwhile(replicas: int, unavailable: int) -> None:
    assert pace(deployment(workers("new"), underway(replicas), 2)) == (unavailable, "1")


def test_it_keeps_as_many_where_the_template_changes_again_meanwhile() -> None:
    assert pace(deployment(workers("newer"), underway(), 1)) == (2, "1")


def test_it_keeps_as_many_before_kubernetes_has_noticed_it() -> None:
    noticed = underway(updatedReplicas=3)
    noticed["status"]["observedGeneration"] = 1
    assert pace(deployment(workers("new"), noticed, 1)) == (2, "1")


def test_it_goes_on_where_the_one_that_is_kept_is_evicted() -> None:
    live = underway(updatedReplicas=2)
    # Kubernetes is about to make another one of the former template.
    live["status"]["replicas"] = 2
    assert pace(deployment(workers("new"), live, 2)) == (2, "1")


def test_nothing_is_left_of_it_once_all_are_of_the_new_template() -> None:
    live = underway(updatedReplicas=3)
    built = deployment(workers("new"), live, 2)
    assert pace(built) == (1, None)
    # An apply takes away what it leaves out.
    assert decide(observed(workers("new"), objects={"Deployment": live}), (built,)).apply == (built,)


def test_the_next_update_starts_from_what_has_a_gpu_then() -> None:
    assert pace(deployment(workers("newer"), underway(updatedReplicas=3), 3)) == (1, "2")


@pytest.mark.parametrize("hand_written", ["", "all", "-1"])
def test_what_somebody_else_writes_there_is_not_heeded(hand_written: str) -> None:
    live = underway()
    live["metadata"]["annotations"] = {names.KEPT: hand_written}
    assert pace(deployment(workers("new"), live, 2)) == (1, None)


def test_at_rest_and_at_the_creation_it_is_one_at_a_time() -> None:
    assert pace(deployment(workers(), None, 0)) == (1, None)
    assert pace(deployment(workers(), rolled_out(workers()), 2)) == (1, None)


def test_without_gpus_nothing_is_different() -> None:
    before, after = (pipeline(replicas=3, worker={"podAnnotations": {"note": note}}) for note in ("old", "new"))
    built = deployment(after, rolled_out(before), 2)
    assert built == deployment(after, None, 0)
    assert built["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_a_pipeline_that_comes_to_have_gpus_is_updated_like_one_that_has_them() -> None:
    live = rolled_out(pipeline(replicas=3))
    assert pace(deployment(workers(), live, 3)) == (1, "2")


def test_devices_among_the_limits_are_held_by_their_workers_like_gpus() -> None:
    limits = {"limits": {"nvidia.com/gpu": 1}}
    before, after = (
        pipeline(replicas=3, worker={"resources": limits, "podAnnotations": {"note": note}}) for note in ("old", "new")
    )
    assert pace(deployment(after, rolled_out(before), 2)) == (2, "1")


def put_pod(scene: Scene, name: str, scheduled: str | None) -> None:
    found = pod(name, conditions=[] if scheduled is None else [{"type": "PodScheduled", "status": scheduled}])
    found["metadata"] |= {
        "labels": {"app.kubernetes.io/instance": KEY[1]},
        "namespace": KEY[0],
        "resourceVersion": str(scene.cluster.next_version()),
    }
    scene.store.put("Pod", found)


@pytest.mark.parametrize("said", ["False", None], ids=["has none", "may get none"])
def test_the_operator_counts_those_that_have_a_gpu_when_an_update_begins_and_one(said: str | None) -> None:
    scene = Scene(workers())
    scene.look()
    for name, scheduled in (("a", "True"), ("b", "True"), ("c", said)):
        put_pod(scene, name, scheduled)
    scene.edit(workers("new", metadata={"generation": 2}))
    scene.look()
    assert pace(scene.store.owned(KEY)[0]["Deployment"]) == (2, "1")

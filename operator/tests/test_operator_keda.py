"""Autoscaling by the lag: what KEDA or an adapter is asked for, who owns the number, and what is told where they lack."""

from typing import Any

import pytest

from embedding_operator import scaling
from embedding_operator.compare import differs
from embedding_operator.observed import Object, Observed, Problem
from embedding_operator.providers import AUTOSCALER, KEDA_KINDS, SCALED_OBJECT, TRIGGER_AUTHENTICATION
from embedding_operator.reasons import Reason
from embedding_operator.settings import LagProvider
from operator_objects import desired, observed, pipeline, planned, rolled_out, scaled_object, stored
from operator_scene import KEY, Scene

LAG = {"metric": "Lag", "maxReplicas": 3}
NIGHTLY = LAG | {"minReplicas": 0}
PAUSED = "autoscaling.keda.sh/paused"
CA = {"enabled": True, "caSecret": {"name": "authority"}}
CLIENT = {"enabled": True, "clientCertificateSecret": {"name": "client"}}
SASL = {"mechanism": "SCRAM-SHA-512", "credentialsSecret": {"name": "login"}}
READY = ("Ready", "True", "ScaledObjectReady", "ScaledObject is defined correctly and is ready for scaling")


def with_kafka(**kafka: Any) -> Any:
    return pipeline(autoscaling=LAG, kafka={"bootstrapServers": ["a:9092", "b:9092"]} | kafka)


def by_keda(found: Any, *, stopped: bool = False) -> dict[str, Object]:
    return desired(found, partitions=6, lag_provider="keda", stopped=stopped)


def trigger(found: Any) -> Object:
    (only,) = by_keda(found)[SCALED_OBJECT]["spec"]["triggers"]
    return dict(only)


@pytest.mark.parametrize(
    ("metric", "provider", "expected"),
    [
        ("CPU", "none", {AUTOSCALER}),
        ("CPU", "keda", {AUTOSCALER}),
        ("Lag", "external", {AUTOSCALER}),
        ("Lag", "keda", {SCALED_OBJECT}),
        ("Lag", "none", set()),
    ],
)
def test_the_platform_chooses_who_scales_by_lag(metric: str, provider: LagProvider, expected: set[str]) -> None:
    built = desired(pipeline(autoscaling={"metric": metric, "maxReplicas": 3}), lag_provider=provider)
    assert built.keys() & {AUTOSCALER, *KEDA_KINDS} == expected


def test_keda_is_told_the_group_the_topic_and_how_many_records_may_wait_for_each_worker() -> None:
    found = trigger(pipeline(autoscaling=LAG | {"targetLagPerReplica": 500}))
    assert found["type"] == "kafka"
    expected = {"bootstrapServers": "kafka:9092", "consumerGroup": "search.articles", "topic": "in"}
    assert expected.items() <= found["metadata"].items()
    assert found["metadata"]["lagThreshold"] == "500"
    assert {type(value) for value in found["metadata"].values()} == {str}


@pytest.mark.parametrize(("start", "policy"), [("Earliest", "earliest"), ("Latest", "latest")])
def test_what_waits_before_the_first_commit_depends_on_where_the_group_starts(start: str, policy: str) -> None:
    found = pipeline(autoscaling=LAG, input={"topic": "in", "startFrom": start})
    assert trigger(found)["metadata"]["offsetResetPolicy"] == policy


# spec.kafka → tls and sasl of the trigger, and which keys of which Secrets are its parameters.
LOGINS: dict[str, tuple[dict[str, Any], tuple[str, str], dict[str, tuple[str, str]]]] = {
    "nothing": ({}, ("disable", "none"), {}),
    "TLS with an authority that every machine knows": ({"tls": {"enabled": True}}, ("enable", "none"), {}),
    "TLS with an authority": ({"tls": CA}, ("enable", "none"), {"ca": ("authority", "ca.crt")}),
    "a client's certificate": (
        {"tls": CLIENT},
        ("enable", "none"),
        {"cert": ("client", "tls.crt"), "key": ("client", "tls.key")},
    ),
    "a password over TLS": (
        {"tls": CA, "sasl": SASL},
        ("enable", "scram_sha512"),
        {"username": ("login", "username"), "password": ("login", "password"), "ca": ("authority", "ca.crt")},
    ),
    "a password under other names": (
        {
            "sasl": {
                "mechanism": "PLAIN",
                "credentialsSecret": {"name": "login", "usernameKey": "user", "passwordKey": "pass"},
            }
        },
        ("disable", "plaintext"),
        {"username": ("login", "user"), "password": ("login", "pass")},
    ),
}


@pytest.mark.parametrize(("given", "words", "keys"), LOGINS.values(), ids=LOGINS.keys())
def test_keda_logs_in_as_the_workers_do_with(
    given: dict[str, Any], words: tuple[str, str], keys: dict[str, tuple[str, str]]
) -> None:
    built = by_keda(with_kafka(**given))
    found = trigger(with_kafka(**given))
    assert (found["metadata"]["tls"], found["metadata"]["sasl"]) == words
    assert found["metadata"]["bootstrapServers"] == "a:9092,b:9092"
    if not keys:
        assert TRIGGER_AUTHENTICATION not in built
        assert "authenticationRef" not in found
        return
    login = built[TRIGGER_AUTHENTICATION]
    told = {one["parameter"]: (one["name"], one["key"]) for one in login["spec"]["secretTargetRef"]}
    assert told == keys
    assert found["authenticationRef"]["name"] == login["metadata"]["name"]


def test_the_last_worker_goes_after_as_long_a_time_as_the_others() -> None:
    spec = by_keda(pipeline(autoscaling=NIGHTLY))[SCALED_OBJECT]["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 3)
    assert (spec["cooldownPeriod"], spec["initialCooldownPeriod"]) == (300, 300)
    quick = NIGHTLY | {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 20}}}
    spec = by_keda(pipeline(autoscaling=quick))[SCALED_OBJECT]["spec"]
    assert (spec["cooldownPeriod"], spec["initialCooldownPeriod"]) == (20, 20)
    rules = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert rules["scaleDown"]["stabilizationWindowSeconds"] == 20
    assert rules["scaleUp"]["stabilizationWindowSeconds"] == 30


def test_in_a_pause_keda_is_told_to_start_no_worker() -> None:
    assert PAUSED not in by_keda(pipeline(autoscaling=LAG))[SCALED_OBJECT]["metadata"]["annotations"]
    annotations = by_keda(pipeline(autoscaling=LAG), stopped=True)[SCALED_OBJECT]["metadata"]["annotations"]
    assert annotations[PAUSED] == "true"


def test_an_adapter_is_asked_for_the_pipelines_own_lag() -> None:
    built = desired(pipeline(autoscaling=LAG | {"targetLagPerReplica": 500}), lag_provider="external")[AUTOSCALER]
    (metric,) = built["spec"]["metrics"]
    labels = {"matchLabels": {"namespace": "search", "name": "articles"}}
    assert metric["external"]["metric"] == {"name": "embedding_pipeline_lag", "selector": labels}
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "500"}
    # As the API server stores it.
    live = stored(
        desired(pipeline(autoscaling=LAG | {"targetLagPerReplica": 2000}), lag_provider="external")[AUTOSCALER]
    )
    live["spec"]["metrics"][0]["external"]["target"]["averageValue"] = "2k"
    again = desired(pipeline(autoscaling=LAG | {"targetLagPerReplica": 2000}), lag_provider="external")[AUTOSCALER]
    assert not differs(again, live)


# Who tells the lag, whether it is there, and the workers → those that there are to be.
FIRST: dict[str, tuple[LagProvider, int]] = {
    "none, where KEDA starts the first one": ("keda", 0),
    "one, where an adapter tells the lag": ("external", 1),
    "one, where nobody does": ("none", 1),
}


@pytest.mark.parametrize(("provider", "expected"), FIRST.values(), ids=FIRST.keys())
def test_with_no_worker_at_least_a_new_pipeline_begins_with(provider: LagProvider, expected: int) -> None:
    plan = planned(observed(pipeline(autoscaling=NIGHTLY), objects={}, lag_provider=provider))
    (deployment,) = [one for one in plan.apply if one["kind"] == "Deployment"]
    # One is Kubernetes' own default.
    assert deployment["spec"].get("replicas", 1) == expected


def with_keda(of: Any, count: int, *told: tuple[str, str, str, str], **others: Any) -> Observed:
    objects = dict(observed(of, lag_provider="keda").objects)
    objects |= {"Deployment": rolled_out(of, count), SCALED_OBJECT: scaled_object(of, *told)}
    return observed(of, **({"objects": objects, "lag_provider": "keda"} | others))


@pytest.mark.parametrize(("least", "count"), [(0, 0), (0, 2), (1, 3)])
def test_kedas_number_is_left_alone(least: int, count: int) -> None:
    plan = planned(with_keda(pipeline(autoscaling=LAG | {"minReplicas": least}), count, READY))
    assert (plan.apply, plan.scale, plan.delete) == ((), None, ())


def test_a_pause_takes_the_workers_and_tells_keda() -> None:
    running = with_keda(pipeline(autoscaling=LAG), 2, READY)
    of = pipeline(autoscaling=LAG, paused=True)
    plan = planned(observed(of, objects=running.objects, lag_provider="keda"))
    assert plan.scale == 0
    assert SCALED_OBJECT in [one["kind"] for one in plan.apply]


def test_in_a_conflict_keda_is_told_to_start_no_worker_either() -> None:
    conflict = Problem(Reason.CONFLICT, "another's")
    plan = planned(with_keda(pipeline(autoscaling=LAG), 2, READY, conflict=conflict))
    (applied,) = plan.apply
    assert applied["metadata"]["annotations"][PAUSED] == "true"


def test_from_cpu_to_lag_and_back_nothing_but_the_objects_changes() -> None:
    cpu, lag = pipeline(autoscaling={"metric": "CPU", "maxReplicas": 3}), pipeline(autoscaling=LAG)
    before = dict(observed(cpu).objects) | {"Deployment": rolled_out(cpu, 3)}
    plan = planned(observed(lag, objects=before, lag_provider="keda"))
    assert ([kind for kind, _ in plan.delete], plan.scale) == ([AUTOSCALER], None)
    assert [one["kind"] for one in plan.apply] == [SCALED_OBJECT]

    back = planned(observed(cpu, objects=with_keda(lag, 3, READY).objects, lag_provider="keda"))
    assert ([kind for kind, _ in back.delete], back.scale) == ([SCALED_OBJECT], None)
    assert [one["kind"] for one in back.apply] == [AUTOSCALER]


def test_what_keda_still_holds_is_deleted_once() -> None:
    lag = with_keda(pipeline(autoscaling=LAG), 1, READY)
    found = observed(pipeline(), objects=lag.objects, lag_provider="keda")
    assert [kind for kind, _ in planned(found).delete] == [SCALED_OBJECT]
    found.objects[SCALED_OBJECT]["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert planned(found).delete == ()


def test_switched_off_the_pipeline_goes_on_with_kedas_number() -> None:
    on, off = pipeline(autoscaling=LAG), pipeline()
    assert scaling.kept_replicas(off, with_keda(on, 3, READY).objects) == 3
    assert scaling.kept_replicas(off, with_keda(on, 0, READY).objects) is None


def scaling_active(scene: Scene) -> str:
    return scene.told("ScalingActive")[0]


def put(scene: Scene, kind: str, found: Object) -> None:
    version = str(scene.cluster.next_version())
    scene.store.put(kind, found | {"metadata": found["metadata"] | {"resourceVersion": version}})


def test_keda_may_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedding_operator.observe._SERVED_SECONDS", 0.0)
    of = pipeline(autoscaling=LAG)
    scene = Scene(of, lag_provider="keda")
    scene.look()
    assert SCALED_OBJECT not in scene.cluster.applied
    assert scaling_active(scene) == Reason.KEDA_MISSING

    scene.cluster.served = True
    scene.look()
    assert scene.cluster.applied.count(SCALED_OBJECT) == 1
    assert scaling_active(scene) == Reason.PROGRESSING
    asked = scene.cluster.asked
    put(scene, SCALED_OBJECT, scaled_object(of, READY))
    scene.look()
    assert scene.cluster.applied.count(SCALED_OBJECT) == 1
    assert scene.cluster.asked == asked


def test_the_autoscaler_that_keda_makes_is_told_from_ours() -> None:
    of = pipeline(autoscaling=LAG)
    scene = Scene(of, lag_provider="keda")
    ours = stored(desired(of, lag_provider="external")[AUTOSCALER], resourceVersion="100")
    kedas = stored(ours, name="articles-embedding-keda", uid="kedas", resourceVersion="101")
    scene.store.put(AUTOSCALER, kedas)
    assert AUTOSCALER not in scene.store.owned(KEY)[0]
    scene.store.put(AUTOSCALER, ours)
    assert scene.store.owned(KEY)[0].keys() >= {AUTOSCALER, "KEDAAutoscaler"}
    scene.store.drop(AUTOSCALER, kedas)
    assert "KEDAAutoscaler" not in scene.store.owned(KEY)[0]


def test_before_the_topics_of_a_deleted_pipeline_go_keda_is_told_or_it_would_start_a_worker_again() -> None:
    on = pipeline(autoscaling=LAG, topics={"deletionPolicy": "Delete"})
    scene = Scene(on, lag_provider="keda")
    put(scene, "Deployment", rolled_out(on, 2))
    put(scene, SCALED_OBJECT, scaled_object(on, READY))
    deleted = {"deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": ["embeddings.dev/kafka"]}
    scene.edit(pipeline(metadata=deleted, autoscaling=LAG, topics={"deletionPolicy": "Delete"}))
    scene.look()
    assert (scene.cluster.deleted, scene.cluster.scaled) == ([SCALED_OBJECT], [0])

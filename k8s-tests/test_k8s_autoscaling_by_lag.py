"""Autoscaling by the lag, with the real KEDA and with what stands in for an adapter; from where each is missing."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import kafka_state
from bursts import CURVES, HALF_A_CORE, MOST_CHANGES, ONE_WORKER_HOLDS, QUICK, SIX_PARTITIONS, Burst, texts
from external_metrics import adapter, exported
from flowing_texts import assert_all_embedded
from kafka_users import (
    CA,
    CREDENTIALS,
    Names,
    certificates,
    login,
    make_user,
    needed_acls,
    put_secret,
    sasl_over_tls,
)
from keda import keda
from scaling_curve import Curve, Look
from system_fixtures import Object, Pipeline, Pipelines, System
from testcluster.tools import path
from watched_values import watched

pytestmark = [pytest.mark.slow, pytest.mark.autoscalers, pytest.mark.timeout(900, func_only=True)]

LAG: Object = {"metric": "Lag", "maxReplicas": 3, "targetLagPerReplica": ONE_WORKER_HOLDS, "behavior": QUICK}
NOWHERE: Object = {"nodeSelector": {"example.com/no-node": "has-this"}}
# Longer than an autoscaler with the policies of QUICK needs to change the number.
HOLD_SECONDS = 20.0
MINUTE = 60.0
NIGHTLY = LAG | {"minReplicas": 0}


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    """KEDA's programs, before a test's time begins: they take minutes where Go has built none of their packages."""
    for name in ("keda-operator", "keda-adapter"):
        path(name)


@pytest.fixture
def by_keda(system: System) -> Iterator[System]:
    """An operator that is told that the platform has KEDA."""
    system.upgrade("--set", "autoscaling.lagProvider=keda")
    yield system
    system.upgrade()


def log_in(pipelines: Pipelines, name: str) -> Object:
    """A user of the secured Kafka with the rights of a pipeline, whose ``spec.kafka`` is returned."""
    system = pipelines.system
    make_user(system, name, needed_acls(Names.of(pipelines.namespace, name)))
    put_secret(pipelines, CA, {"ca.crt": certificates(system).ca_pem})
    put_secret(pipelines, CREDENTIALS, login(name))
    return sasl_over_tls(system)


def replicas(pipeline: Pipeline) -> int:
    found = pipeline.get("deployment")
    assert found is not None
    return int(found["spec"]["replicas"])


def test_with_keda_a_pipeline_sleeps_until_a_record_comes_and_drains_a_burst_over_sasl_and_tls(
    by_keda: System, pipelines: Pipelines, tmp_path: Path
) -> None:
    servers, prefix = by_keda.kafka.bootstrap_servers, f"{pipelines.namespace}.nightly"
    pipeline = pipelines.apply(
        "nightly", kafka=log_in(pipelines, "nightly"), worker=HALF_A_CORE, input=SIX_PARTITIONS, autoscaling=NIGHTLY
    )
    pipeline.wait("ScalingActive", "False", "KEDAMissing", "install KEDA")
    pipeline.wait("WorkersReady", "False", "KEDAMissing")
    operator = by_keda.operator_pod()["metadata"]["uid"]

    with (
        keda(by_keda.cluster, tmp_path),
        watched(pipeline, "deployment", "{.spec.replicas}", tmp_path) as numbers,
    ):
        pipeline.wait("ScalingActive", "True", "MetricServed")
        pipeline.wait("WorkersReady", "True", "ScaledToZero")
        pipeline.wait("Ready", "True")
        assert by_keda.operator_pod()["metadata"]["uid"] == operator

        curve = Curve(pipeline, numbers)
        lone = texts(1)
        kafka_state.write_texts(servers, f"{prefix}.in", lone)
        curve.until(lambda seen: seen.outputs == 1, "a lone record wakes nobody", 180)
        curve.until(lambda seen: seen.replicas == 0, "the worker stays", 180)
        assert numbers() == ["0", "1", "0"]

        burst = Burst(curve, servers, f"{prefix}.in")
        burst.until(lambda seen: seen.replicas == 3, "the burst doesn't bring the most workers", 240)
        curve.until(lambda seen: seen.lag == 0, "the backlog isn't drained", 480)
        curve.until(lambda seen: seen.replicas == 0, "the workers that aren't needed any more stay", 240)
        changes = len(numbers()) - 3

        hold_in_a_pause(pipeline, servers, f"{prefix}.in")

    curve.save(CURVES / "keda.png")
    assert changes <= MOST_CHANGES, curve.summary()
    assert max(curve.lags_at_falls()) <= ONE_WORKER_HOLDS, curve.summary()
    assert_all_embedded(servers, f"{prefix}.out", [*lone, *burst.written])


def hold_in_a_pause(pipeline: Pipeline, servers: str, topic: str) -> None:
    """Nobody wakes a pipeline that is paused, and afterwards KEDA does."""
    pipeline.patch({"paused": True})
    pipeline.wait("ScalingActive", "False", "Paused")
    pipeline.until(lambda: keda_says(pipeline, "Paused") == "True", "KEDA doesn't heed the pause")
    kafka_state.write_texts(servers, topic, texts(1))
    pipeline.wait("CaughtUp", "False", "Behind")
    assert replicas(pipeline) == 0
    pipeline.patch({"paused": False})
    pipeline.until(lambda: replicas(pipeline) == 1, "KEDA doesn't go on after the pause")
    pipeline.wait("CaughtUp", "True")


def keda_says(pipeline: Pipeline, kind: str) -> str:
    """The status of a condition of the ScaledObject."""
    told = (pipeline.get("scaledobject") or {}).get("status", {}).get("conditions", [])
    return next((one["status"] for one in told if one["type"] == kind), "")


def test_from_cpu_to_keda_and_back_no_worker_goes(by_keda: System, pipelines: Pipelines, tmp_path: Path) -> None:
    slow: Object = {"metric": "CPU", "maxReplicas": 6}
    with keda(by_keda.cluster, tmp_path):
        # No node takes the workers: an autoscaler counts those that the Deployment asks for.
        pipeline = pipelines.apply("handed-on", replicas=3, input=SIX_PARTITIONS, worker=NOWHERE)
        pipeline.wait("WorkersReady", "False", "Unschedulable")
        with watched(pipeline, "deployment", "{.spec.replicas}", tmp_path) as numbers:
            pipeline.patch({"autoscaling": slow})
            pipeline.until(lambda: pipeline.get("horizontalpodautoscaler"), "no autoscaler by the CPU")
            pipeline.patch({"autoscaling": slow | {"metric": "Lag"}})
            pipeline.wait("ScalingActive", "True", "MetricServed", "follows their lag")
            assert pipeline.get("horizontalpodautoscaler") is None
            pipeline.patch({"autoscaling": slow})
            pipeline.until(lambda: pipeline.get("horizontalpodautoscaler"), "no autoscaler by the CPU")
            pipeline.until(lambda: pipeline.get("scaledobject") is None, "the ScaledObject is still there")
            pipeline.patch({"autoscaling": slow | {"metric": "Lag"}})
            pipeline.wait("ScalingActive", "True", "MetricServed", "follows their lag")
            pipeline.patch({"autoscaling": None})
            pipeline.until(lambda: pipeline.get("scaledobject") is None, "the ScaledObject is still there")
            assert replicas(pipeline) == 3
            assert json.loads(pipeline.kubectl("get", "embp", pipeline.name, "-o", "json"))["spec"]["replicas"] == 3
            assert numbers() == ["3"]


@pytest.fixture
def by_adapter(system: System) -> Iterator[System]:
    """An operator that is told that the platform has an adapter."""
    system.upgrade("--set", "autoscaling.lagProvider=external")
    yield system
    system.upgrade()


def test_with_an_adapter_a_burst_is_drained_and_nothing_changes_while_nobody_knows_the_lag(
    by_adapter: System, pipelines: Pipelines, tmp_path: Path
) -> None:
    servers, prefix = by_adapter.kafka.bootstrap_servers, f"{pipelines.namespace}.served"
    pipeline = pipelines.apply("served", worker=HALF_A_CORE, input=SIX_PARTITIONS, autoscaling=LAG | {"minReplicas": 1})
    pipeline.wait_until_ready()
    pipeline.wait("ScalingActive", "False", "MetricNotServed", "nobody in this cluster serves external metrics")

    with (
        adapter(by_adapter.cluster, exported(by_adapter)) as served,
        watched(pipeline, "deployment", "{.spec.replicas}", tmp_path) as numbers,
    ):
        pipeline.wait("ScalingActive", "True", "MetricServed")
        curve = Curve(pipeline, numbers)
        burst = Burst(curve, servers, f"{prefix}.in")
        burst.until(lambda seen: seen.replicas == 2, "the burst brings no worker", 240)

        served.withdrawn = True
        pipeline.wait("ScalingActive", "False", "MetricNotServed", "FailedGetExternalMetric")
        # By the lag there would be another.
        outputs = curve.look().outputs
        burst.until(for_so_long(2, HOLD_SECONDS), "the number isn't kept", 2 * HOLD_SECONDS)
        assert curve.look().outputs > outputs, curve.summary()
        served.withdrawn = False
        burst.until(lambda seen: seen.replicas == 3, "it doesn't go on when the metric is back", 120)
        pipeline.wait("ScalingActive", "True", "MetricServed")

        # Nobody exports the lag any more; by the lag there would soon be one.
        by_adapter.scale_operator(0)
        curve.until(lambda seen: seen.lag == 0, "the backlog isn't drained", 480)
        curve.until(for_so_long(3, MINUTE), "the number isn't kept", 2 * MINUTE)
        by_adapter.scale_operator(1)

        curve.until(lambda seen: seen.replicas == 1, "the workers that aren't needed any more stay", 240)
        assert numbers() == ["1", "2", "3", "2", "1"]

    curve.save(CURVES / "external.png")
    assert max(curve.lags_at_falls()) <= ONE_WORKER_HOLDS, curve.summary()
    assert_all_embedded(servers, f"{prefix}.out", burst.written)


def for_so_long(workers: int, seconds: float) -> Callable[[Look], bool]:
    """Whether there have been as many workers as these for so long, since the first look."""
    first: list[float] = []

    def kept(seen: Look) -> bool:
        assert seen.replicas == workers, seen
        first.append(seen.at)
        return seen.at > first[0] + seconds

    return kept


def test_from_cpu_to_an_adapter_and_back_no_worker_goes_but_in_a_pause(
    by_adapter: System, pipelines: Pipelines, tmp_path: Path
) -> None:
    cpu: Object = {"metric": "CPU", "maxReplicas": 6}
    with adapter(by_adapter.cluster, exported(by_adapter)):
        pipeline = pipelines.apply("handed-on", replicas=3, input=SIX_PARTITIONS, worker=NOWHERE)
        pipeline.wait("WorkersReady", "False", "Unschedulable")
        with watched(pipeline, "deployment", "{.spec.replicas}", tmp_path) as numbers:
            for _ in range(2):
                pipeline.patch({"autoscaling": cpu})
                pipeline.wait("ScalingActive", "False", words="CPU")
                pipeline.patch({"autoscaling": {"metric": "Lag"}})
                pipeline.wait("ScalingActive", "True", "MetricServed", "follows their lag")
            assert numbers() == ["3"]

            pipeline.patch({"paused": True})
            pipeline.wait("ScalingActive", "False", "Paused")
            pipeline.until(lambda: numbers()[-1] == "0", "the pause stops no worker")
            servers, prefix = by_adapter.kafka.bootstrap_servers, f"{pipelines.namespace}.handed-on"
            kafka_state.write_texts(servers, f"{prefix}.in", texts(2 * ONE_WORKER_HOLDS))
            pipeline.wait("CaughtUp", "False", "Behind")
            pipeline.patch({"paused": False})
            pipeline.until(lambda: numbers()[-1] == "2", "the autoscaler doesn't go on after the pause")
            assert numbers() == ["3", "0", "1", "2"]

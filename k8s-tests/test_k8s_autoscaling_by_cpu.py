"""Autoscaling by the workers' CPU, with the real metrics-server: from where it is missing to a burst that is drained."""

from pathlib import Path

import pytest

from bursts import CURVES, HALF_A_CORE, MOST_CHANGES, ONE_WORKER_HOLDS, QUICK, SIX_PARTITIONS, Burst
from flowing_texts import assert_all_embedded
from hosted_api import is_served
from metrics_server import metrics_server
from scaling_curve import Curve
from system_fixtures import Pipelines, System
from testcluster.tools import path
from watched_values import watched

pytestmark = [pytest.mark.slow, pytest.mark.autoscalers, pytest.mark.timeout(900, func_only=True)]

# Far from both an idle worker and a busy one, also where the machine has other things to do.
CPU = {"metric": "CPU", "minReplicas": 1, "maxReplicas": 3, "targetCPUUtilization": 25, "behavior": QUICK}


@pytest.fixture(autouse=True)
def built() -> None:
    """metrics-server, before the test's time begins: it takes minutes where Go has built none of its packages."""
    path("metrics-server")


def test_a_burst_is_drained_by_more_workers_which_go_again_once_metrics_server_is_there(
    system: System, pipelines: Pipelines, tmp_path: Path
) -> None:
    cluster, servers = system.cluster, system.kafka.bootstrap_servers
    pipeline = pipelines.apply("burst", worker=HALF_A_CORE, input=SIX_PARTITIONS, autoscaling=CPU)
    pipeline.wait_until_ready()
    operator = system.operator_pod()["metadata"]["uid"]
    if not is_served(cluster, "metrics.k8s.io/v1beta1"):
        pipeline.wait("ScalingActive", "False", "MetricsServerMissing", "install metrics-server")

    with (
        metrics_server(cluster, tmp_path),
        watched(pipeline, "deployment", "{.spec.replicas}", tmp_path) as numbers,
    ):
        pipeline.wait("ScalingActive", "True", "MetricServed")
        assert system.operator_pod()["metadata"]["uid"] == operator

        curve = Curve(pipeline, numbers)
        # Loading the model is work, too.
        curve.until(lambda seen: seen.replicas == 1, "more than the fewest workers though nothing is to be done", 180)
        before = len(numbers())
        burst = Burst(curve, servers, f"{pipelines.namespace}.burst.in")
        burst.until(lambda seen: seen.replicas == 3, "the burst doesn't bring the most workers", 240)
        curve.until(lambda seen: seen.lag == 0, "the backlog isn't drained", 480)
        curve.until(lambda seen: seen.replicas == 1, "the workers that aren't needed any more stay", 240)
        changes = len(numbers()) - before

    curve.save(CURVES / "cpu.png")
    assert changes <= MOST_CHANGES, curve.summary()
    assert max(curve.lags_at_falls()) <= ONE_WORKER_HOLDS, curve.summary()
    assert_all_embedded(servers, f"{pipelines.namespace}.burst.out", burst.written)

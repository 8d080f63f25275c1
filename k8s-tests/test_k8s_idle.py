"""Pipelines at rest, as different as can be: the operator watches them, asks the brokers, and writes nothing."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from kubernetes.config import new_client_from_config

from audit_requests import WRITES, AuditLog, Request, Right, operators_log
from cluster_fixtures import restricted_namespace
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.cluster import Cluster
from embedding_operator.credentials import gather, wanted
from embedding_operator.desired.state import desired_state
from embedding_operator.settings import OperatorSettings, parse_settings
from kafka_listeners import SASL
from system_fixtures import (
    OPERATOR,
    REPOSITORY,
    RESYNC_SECONDS,
    SYSTEM_NAMESPACE,
    Pipeline,
    Pipelines,
    System,
    pipelines_in,
)
from various_pipelines import RUNNING, SPECS
from waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.audit, pytest.mark.timeout(900, func_only=True)]

EXAMPLES = ("quickstart", "every-field", "gpu")
REST_SECONDS = 120
# Longer than any interval at which the operator looks.
QUIET_SECONDS = 2 * RESYNC_SECONDS
SETTLE_SECONDS = 240

SECRETS = {"workers": {"token": "a-token-of-these-tests"}, "user": {"username": "nobody", "password": "wrong"}}


def example(name: str, namespace: str) -> dict[str, Any]:
    """An example, stopped, with topics that no other test has."""
    found: dict[str, Any] = yaml.safe_load((REPOSITORY / "examples" / f"{name}.yaml").read_text(encoding="utf-8"))
    found["metadata"]["namespace"] = namespace
    found["spec"]["paused"] = True
    for section in ("input", "output"):
        found["spec"][section]["topic"] = f"{namespace}.{found['spec'][section]['topic']}"
    return found


@pytest.fixture(scope="module")
def resting(system: System) -> Iterator[Pipelines]:
    """More than twenty pipelines, a few of which run, once nothing is written any more."""
    name = f"at-rest-{uuid.uuid4().hex[:8]}"
    with restricted_namespace(system.cluster, name), pipelines_in(system, name) as pipelines:
        for secret, data in SECRETS.items():
            literals = [f"--from-literal={key}={value}" for key, value in data.items()]
            system.cluster.kubectl("create", "secret", "generic", secret, "--namespace", name, *literals)
        running = apply_all(pipelines)
        for pipeline in running:
            pipeline.wait_until_ready(SETTLE_SECONDS)
        wait_for_quiet(operators_log(system), name)
        yield pipelines


def apply_all(pipelines: Pipelines) -> list[Pipeline]:
    """Apply the pipelines; returns those that run."""
    system, namespace = pipelines.system, pipelines.namespace
    made = {name: pipelines.apply(name, **spec) for name, spec in SPECS.items()}
    sasl = {"mechanism": "SCRAM-SHA-512", "credentialsSecret": {"name": "user"}}
    pipelines.apply("refused", kafka={"bootstrapServers": [system.kafka.address(SASL)], "sasl": sasl})
    pipelines.apply("second", output={"topic": f"{namespace}.plain.out"})
    examples = [example(name, namespace) for name in EXAMPLES]
    system.cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(examples))
    return [made[name] for name in RUNNING]


def writes(log: AuditLog, namespace: str, start: int = 0) -> list[Request]:
    found = log.requests(start)
    return [one for one in found if one.right.verb in WRITES and one.namespace in ("", namespace, SYSTEM_NAMESPACE)]


def resyncs(log: AuditLog, namespace: str, start: int = 0) -> int:
    """How often two of the pipelines were looked at: each resync reads the Secrets that they name."""
    reads = (Right("get", "", "secrets"), namespace, "workers")
    return sum((one.right, one.namespace, one.name) == reads for one in log.requests(start))


def wait_for_quiet(log: AuditLog, namespace: str) -> None:
    start, since = log.end(), time.monotonic()

    def quiet() -> bool:
        nonlocal start, since
        end = log.end()
        if writes(log, namespace, start):
            since = time.monotonic()
        start = end
        return time.monotonic() - since > QUIET_SECONDS

    wait_until(quiet, SETTLE_SECONDS, "the operator goes on writing", interval=1)


def operator_settings(system: System) -> OperatorSettings:
    found = system.cluster.kubectl("get", OPERATOR, "--namespace", SYSTEM_NAMESPACE, "--output", "json").stdout
    (container,) = json.loads(found)["spec"]["template"]["spec"]["containers"]
    return parse_settings({one["name"]: one.get("value", "") for one in container["env"]})


def stored(pipelines: Pipelines) -> list[EmbeddingPipeline]:
    command = ("get", "embp", "--namespace", pipelines.namespace, "--output", "json")
    found = json.loads(pipelines.system.cluster.kubectl(*command).stdout)
    return [EmbeddingPipeline.model_validate(one) for one in found["items"]]


def test_api_server_finds_nothing_to_change_in_what_is_built_of_each_example_and_variation(resting: Pipelines) -> None:
    settings = operator_settings(resting.system)
    api = Cluster(new_client_from_config(str(resting.system.cluster.kubeconfig)))
    pipelines = stored(resting)
    assert {*SPECS, *EXAMPLES} < {pipeline.metadata.name for pipeline in pipelines}
    for pipeline in pipelines:
        data = {one.name: SECRETS.get(one.name) for one in wanted(pipeline)}
        objects = desired_state(pipeline, settings, gather(pipeline, data).checksum)
        kinds = ["ConfigMap", "Service", "PodDisruptionBudget", "Deployment"]
        # By lag there is none, where the chart names no provider of it.
        by_cpu = pipeline.spec.autoscaling is not None and pipeline.spec.autoscaling.metric == "CPU"
        assert [built["kind"] for built in objects] == kinds + (["HorizontalPodAutoscaler"] if by_cpu else [])
        for built in objects:
            name = built["metadata"]["name"]
            applied_by_the_operator = api.get(built["kind"], resting.namespace, name)
            # No dry run: a version that stays is the API server's word that nothing was to be stored.
            applied_again = api.apply(built)
            assert applied_again == applied_by_the_operator, f"{built['kind']} {name}"


def test_twenty_pipelines_at_rest_are_looked_at_and_nothing_is_written(resting: Pipelines) -> None:
    assert len(stored(resting)) >= 20
    log = operators_log(resting.system)
    start, end = log.end(), time.monotonic() + REST_SECONDS

    def rested() -> bool:
        assert writes(log, resting.namespace, start) == []
        return time.monotonic() > end

    wait_until(rested, 2 * REST_SECONDS, "two minutes", interval=5)

    # It was no sleep.
    assert resyncs(log, resting.namespace, start) > REST_SECONDS / RESYNC_SECONDS / 2


def test_an_operator_that_starts_anew_writes_nothing_of_what_rests(resting: Pipelines) -> None:
    resting.system.scale_operator(0)
    resting.system.scale_operator(1)
    log = operators_log(resting.system)
    # Past the first looks, and the second ones after which rates are known.
    wait_until(lambda: resyncs(log, resting.namespace) > 5, SETTLE_SECONDS, "no resync", interval=1)
    assert writes(log, resting.namespace) == []

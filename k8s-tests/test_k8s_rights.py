"""What pods and the operator may do on the cluster, and that they need all of it."""

import itertools
import json
from contextlib import suppress
from functools import partial

import pytest

from audit_requests import AuditLog, Right, granted, operators_log
from kafka_state import wait_until_gone
from system_fixtures import SYSTEM_NAMESPACE, Pipeline, Pipelines, System
from waiting import wait_until

pytestmark = pytest.mark.slow

ROLE = f"{SYSTEM_NAMESPACE}:embedding-embedding-service-operator"
# A machine that never answers: an address that is reserved for documentation (RFC 5737).
SILENT = "192.0.2.1"
LOOK_INTO = """
import os, pathlib
print(os.getuid(), pathlib.Path("/var/run/secrets/kubernetes.io").exists(), os.access("/", os.W_OK))
"""


def exec_python(system: System, namespace: str, target: str) -> list[str]:
    command = ("exec", "--namespace", namespace, target, "--", "python", "-c", LOOK_INTO)
    return system.cluster.kubectl(*command).stdout.split()


def refuses_root(system: System, namespace: str) -> str:
    """What the API server says of a pod that isn't restricted in anything."""
    command = ("run", "root", "--image=busybox", "--dry-run=server", "--namespace", namespace)
    return system.cluster.kubectl(*command, check=False).stderr


def operators_rights(system: System) -> set[Right]:
    role = json.loads(system.cluster.kubectl("get", "clusterrole", ROLE, "--output", "json").stdout)
    return granted(role["rules"])


def secret(pipelines: Pipelines, name: str) -> None:
    command = ("create", "secret", "generic", name, "--from-literal=token=a-token-of-these-tests")
    pipelines.system.cluster.kubectl(*command, "--namespace", pipelines.namespace)


def scale_there_and_back(pipeline: Pipeline) -> None:
    """By hand and by an autoscaler. No node has a GPU: nothing is started."""
    pipeline.patch({"replicas": 1, "worker": {"gpu": {}}})
    pipeline.wait("WorkersReady", "False", "Unschedulable")
    pipeline.patch({"autoscaling": {"metric": "CPU", "maxReplicas": 1}})
    pipeline.until(partial(pipeline.get, "horizontalpodautoscaler"), "no autoscaler")
    pipeline.patch({"replicas": 0, "autoscaling": None})
    pipeline.wait("WorkersReady", "False", "ScaledToZero")


def delete_under_a_look(pipelines: Pipelines, log: AuditLog) -> None:
    """The operator finds no pipeline any more where it wants to write its status, and asks whether there is one."""
    start, ports = log.end(), itertools.count(9092)
    asks = Right("get", "embeddings.dev", "embeddingpipelines")

    def asked() -> bool:
        # Each time another broker: one that is known to be silent holds up no look. On a busy machine a deletion may
        # come after the look.
        silent = {"bootstrapServers": [f"{SILENT}:{next(ports)}"]}
        pipelines.apply("short-lived", kafka=silent, replicas=0).delete()
        with suppress(TimeoutError):
            return wait_until(lambda: any(asks in one.needed for one in log.requests(start)), 20, "not asked")
        return False

    wait_until(asked, 180, "the operator doesn't ask")


def test_workers_run_where_restricted_is_enforced_and_have_no_token(pipelines: Pipelines) -> None:
    system, namespace = pipelines.system, pipelines.namespace
    for enforced in (SYSTEM_NAMESPACE, namespace):
        assert 'violates PodSecurity "restricted' in refuses_root(system, enforced)
    pipeline = pipelines.apply("tokenless")
    pipeline.wait_until_ready()

    assert exec_python(system, namespace, f"deployment/{pipeline.worker}") == ["65532", "False", "False"]
    (pod,) = pipeline.pods()
    assert not any("serviceAccountToken" in json.dumps(volume) for volume in pod["spec"]["volumes"])
    # What was looked for is there where a pod has one.
    operator = "deployment/embedding-embedding-service-operator"
    assert exec_python(system, SYSTEM_NAMESPACE, operator) == ["65532", "True", "False"]


@pytest.mark.audit
def test_operator_uses_each_right_that_it_has_and_asks_for_no_other(pipelines: Pipelines) -> None:
    audit = operators_log(pipelines.system)
    start = audit.end()
    secret(pipelines, "workers")
    pipeline = pipelines.apply(
        "everything", replicas=0, topics={"deletionPolicy": "Delete"}, http={"tokenSecret": {"name": "workers"}}
    )
    pipeline.wait("WorkersReady", "False", "ScaledToZero")
    scale_there_and_back(pipeline)
    for kind in ("configmap", "service", "poddisruptionbudget", "deployment"):
        pipeline.kubectl("delete", kind, pipeline.worker)
        pipeline.until(partial(pipeline.get, kind), f"no new {kind}")
    pipeline.delete()
    delete_under_a_look(pipelines, audit)

    # Lists and watches are as old as the operator's pod.
    used = {right for request in audit.requests() for right in request.needed}
    rights = operators_rights(pipelines.system)
    assert rights - used == set()
    assert {right for right in used if right not in rights} == set()
    # In the namespace of an earlier test, which ends, nothing can be made any more.
    here = [request for request in audit.requests(start) if request.namespace in ("", pipelines.namespace)]
    assert [request for request in here if request.denied] == []
    wait_until_gone(pipelines.system.kafka.bootstrap_servers, f"{pipelines.namespace}.everything.out")

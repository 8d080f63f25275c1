"""Why worker pods aren't ready: each state of a pod, as Kubernetes writes it, with its reason and what to do."""

from datetime import timedelta
from typing import Any

import pytest

from embedding_operator import workers
from embedding_operator.observed import Object
from embedding_operator.reasons import Reason
from embedding_service.contract.reasons import TerminationReason
from operator_objects import NOW, container, pipeline, pod, rolled_out


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason} | ({"message": message} if message else {})}}


def ago(**others: int) -> str:
    """A time before now, as Kubernetes writes it."""
    return (NOW - timedelta(**others)).strftime("%Y-%m-%dT%H:%M:%SZ")


def ended(message: str = "", code: int = 1, **others: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": "Error"} | others}


def backing_off(message: str = "", code: int = 1, **others: Any) -> dict[str, Any]:
    """A container that ended and waits to be started again."""
    return waiting("CrashLoopBackOff", "back-off 10s") | {"lastState": ended(message, code, **others)}


def unscheduled(message: str) -> Object:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"phase": "Pending", "conditions": [condition]}


def unready(**since: int) -> Object:
    return {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": ago(**since)}]}


ADVICE = "free or add a node, run fewer workers, or change spec.worker (resources, gpu, nodeSelector, tolerations)"
CHECK = "check spec.worker.image and spec.worker.imagePullSecrets"
PARTS = "check spec.worker (image, env, runtimeClassName) and the Secrets that the pipeline names"
LOG = "read its log with kubectl logs --previous"
FILE = "/etc/embedding-service/config.yaml"

# What the pod's status says → the reason and the message.
STATES: dict[str, tuple[Object, str, str]] = {
    "no node has the memory": (
        unscheduled("0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are available."),
        Reason.UNSCHEDULABLE,
        (
            "1 of 1 workers can't be scheduled: 0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are "
            f"available; {ADVICE}"
        ),
    ),
    "the image isn't there": (
        container(**waiting("ErrImagePull", "registry.example/worker:1: not found")),
        Reason.IMAGE_PULL_FAILED,
        f"the image 'registry.example/worker:1' can't be pulled: registry.example/worker:1: not found; {CHECK}",
    ),
    "the image still isn't there": (
        container(**waiting("ImagePullBackOff", "Back-off pulling image")),
        Reason.IMAGE_PULL_FAILED,
        f"the image 'registry.example/worker:1' can't be pulled: Back-off pulling image; {CHECK}",
    ),
    "the image has no name that can be": (
        container(**waiting("InvalidImageName")),
        Reason.IMAGE_PULL_FAILED,
        f"the image 'registry.example/worker:1' can't be pulled: InvalidImageName; {CHECK}",
    ),
    "the image may only come from the node": (
        container(**waiting("ErrImageNeverPull", "not present with pull policy of Never")),
        Reason.IMAGE_PULL_FAILED,
        f"the image 'registry.example/worker:1' can't be pulled: not present with pull policy of Never; {CHECK}",
    ),
    "a Secret of its environment is missing": (
        container(**waiting("CreateContainerConfigError", "secret 'extra' not found")),
        Reason.CONTAINER_CONFIG_ERROR,
        f"the container can't be started: secret 'extra' not found; {PARTS}",
    ),
    "its image has no such program, while it is started": (
        container(**waiting("RunContainerError", "exec: run: not found")),
        Reason.CONTAINER_CONFIG_ERROR,
        f"the container can't be started: exec: run: not found; {PARTS}",
    ),
    "its image has no such program, while it waits": (
        container(**backing_off("exec: run: not found", 128, reason="StartError")),
        Reason.CONTAINER_CONFIG_ERROR,
        f"the container can't be started: exec: run: not found; {PARTS}",
    ),
    "the node killed it for its memory": (
        container(**backing_off(code=137, reason="OOMKilled"), restartCount=2),
        TerminationReason.OUT_OF_MEMORY,
        "a worker was killed for its memory; raise spec.worker.resources.limits.memory, or use a smaller model",
    ),
    "the worker says why it ended": (
        container(**backing_off("DeliveryFailed: topic 'out': INVALID_RECORD: refused")),
        TerminationReason.DELIVERY_FAILED,
        "topic 'out': INVALID_RECORD: refused",
    ),
    "the worker has just ended and says why": (
        container(state=ended("AccessDenied: missing ACL: expected WRITE on topic 'out'")),
        TerminationReason.ACCESS_DENIED,
        "missing ACL: expected WRITE on topic 'out'",
    ),
    "the worker was started again after it said why it ended": (
        container(state={"running": {}}, lastState=ended("TopicMissing: topic 'out': gone", finishedAt=ago(minutes=9))),
        TerminationReason.TOPIC_MISSING,
        "topic 'out': gone",
    ),
    "the worker was started again before it was noticed that it ended": (
        unready(seconds=58)
        | container(
            state={"running": {"startedAt": ago(seconds=60)}},
            lastState=ended("TopicMissing: topic 'out': gone", finishedAt=ago(seconds=60)),
        ),
        TerminationReason.TOPIC_MISSING,
        "topic 'out': gone",
    ),
    "it crashed long ago and still waits to be started again": (
        container(**backing_off("Crashed: why", finishedAt=ago(hours=1))),
        TerminationReason.CRASHED,
        "why",
    ),
    "it ended without a word": (
        container(**backing_off(code=139), restartCount=4),
        Reason.CRASH_LOOP,
        f"a worker ended with exit code 139; {LOG}",
    ),
    "it ended with somebody else's words": (
        container(**backing_off("Segmentation fault: core dumped"), restartCount=1),
        Reason.CRASH_LOOP,
        f"a worker ended with exit code 1; {LOG}",
    ),
}


@pytest.mark.parametrize(("status", "reason", "message"), STATES.values(), ids=STATES.keys())
def test_told_is_that(status: Object, reason: str, message: str) -> None:
    found = workers.problem(rolled_out(pipeline()), [pod(**status)], NOW)
    assert found is not None
    assert (found.reason, found.message) == (reason, message)


# What a worker writes to its termination log → what the status says.
WORDS = {
    "a key by the field of the resource, and no file": (
        f"ModelNotFound: {FILE}: model.name: 'x/y' can't be had",
        "spec.model.name: 'x/y' can't be had",
    ),
    "a variable by the Secret that it comes from": (
        "ConfigurationInvalid: EMBEDDING_HTTP__TOKEN: ********: expected a token",
        "spec.http.tokenSecret: ********: expected a token",
    ),
    "a longer key as a whole": (
        "ConfigurationInvalid: kafka.tls_ca_file: '/ca.crt': expected a readable file in PEM",
        "spec.kafka.tls.caSecret: '/ca.crt': expected a readable file in PEM",
    ),
    "a key in the midst of a sentence": (
        "OutOfMemory: expected a smaller model.max_length: no memory",
        "expected a smaller spec.model.maxLength: no memory",
    ),
    "no field a second time": (
        "ModelMismatch: kafka.output_topic: 'o': holds others; expected another spec.model.name or a new topic",
        "spec.output.topic: 'o': holds others; expected another spec.model.name or a new topic",
    ),
    "what only looks like a key as it is": (
        "Crashed: OSError: mymodel.names: not model_name",
        "OSError: mymodel.names: not model_name",
    ),
}


@pytest.mark.parametrize(("log", "message"), WORDS.values(), ids=WORDS.keys())
def test_a_worker_is_repeated_with(log: str, message: str) -> None:
    found = workers.problem(rolled_out(pipeline()), [pod(**container(**backing_off(log)))], NOW)
    assert found is not None
    assert found.message == message


# Nothing is wrong → the pod's status.
FINE: dict[str, Object] = {
    "its image is pulled": container(**waiting("ContainerCreating")),
    "nothing is known of it yet": {"phase": "Pending", "conditions": []},
    "no conditions are known of it yet": {"phase": "Pending", "conditions": None},
    "it loads the model": container(state={"running": {}}),
    "it was asked to end, and started again": container(
        state={"running": {}}, lastState=ended(code=0, finishedAt=ago(minutes=1))
    ),
    "it crashed days ago and is unready for a moment": container(
        state={"running": {}}, lastState=ended("Crashed: days ago", finishedAt=ago(days=3))
    ),
    "it crashed ten minutes ago": container(
        state={"running": {}}, lastState=ended(code=139, finishedAt=ago(minutes=10))
    ),
    "it was ready after it crashed, and no longer is": unready(seconds=1)
    | container(
        state={"running": {"startedAt": ago(seconds=60)}},
        lastState=ended("AccessDenied: missing ACL: expected WRITE on topic 'out'", finishedAt=ago(seconds=60)),
    ),
    "it crashed and nobody knows when": container(state={"running": {}}, lastState=ended(code=137, finishedAt=None)),
    "it could not be started days ago": container(
        state={"running": {}}, lastState=ended("exec: run: not found", 128, reason="StartError", finishedAt=ago(days=3))
    ),
    "a sidecar crashes": {"containerStatuses": [{"name": "proxy"} | backing_off()]},
    "it waits for a gate": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]},
    "it was evicted": {"phase": "Failed"} | container(**backing_off("Crashed: by eviction")),
    "it is done": {"phase": "Succeeded"} | container(state=ended(code=0)),
}


@pytest.mark.parametrize("status", FINE.values(), ids=FINE.keys())
def test_nothing_is_wrong_where(status: Object) -> None:
    assert workers.problem(rolled_out(pipeline()), [pod(**status)], NOW) is None


def test_nothing_is_wrong_with_a_worker_that_is_ready_though_it_crashed_before() -> None:
    crashed = container(lastState=ended("Crashed: once", finishedAt=ago(minutes=1)))
    assert workers.problem(rolled_out(pipeline()), [pod(ready=True, **crashed)], NOW) is None


def test_nothing_is_wrong_with_a_worker_that_is_being_deleted() -> None:
    leaving = pod(**container(**backing_off("Crashed: on the way out")))
    leaving["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert workers.problem(rolled_out(pipeline()), [leaving], NOW) is None


OLD = pod("old", created="2026-01-01T00:00:00Z", **container(**backing_off("Crashed: the old one")))
NEW = pod("new", created="2026-01-02T00:00:00Z", **container(**backing_off("Crashed: the new one")))
PENDING = pod("pending", created="2026-01-03T00:00:00Z", **unscheduled("no room"))


@pytest.mark.parametrize("pods", [[OLD, NEW], [NEW, OLD], [NEW, PENDING], [PENDING, NEW, OLD]])
def test_the_newest_workers_trouble_comes_first_and_why_one_ended_before_why_another_waits(pods: list[Object]) -> None:
    found = workers.problem(rolled_out(pipeline()), pods, NOW)
    assert found is not None
    assert found.message == "the new one"


def test_a_new_worker_that_fails_is_told_of_though_the_others_are_ready() -> None:
    found = workers.problem(rolled_out(pipeline()), [pod("old", ready=True), NEW], NOW)
    assert found is not None
    assert found.reason == TerminationReason.CRASHED


def test_a_worker_of_a_former_template_is_not_blamed_for_what_is_mended_already() -> None:
    former, current = rolled_out(pipeline(worker={"image": "registry.example/typo"})), rolled_out(pipeline())
    failing = pod(**container(**waiting("ErrImagePull")))
    failing["metadata"]["annotations"] = former["spec"]["template"]["metadata"]["annotations"]

    assert workers.problem(former, [failing], NOW) is not None
    assert workers.problem(current, [failing], NOW) is None


def refused(updated: int = 0, **condition: str) -> Object:
    found = rolled_out(pipeline())
    found["status"]["updatedReplicas"] = updated
    found["status"]["conditions"] = [{"type": "ReplicaFailure", "status": "True"} | condition]
    return found


def test_pods_that_the_api_server_refuses_are_told_of() -> None:
    found = workers.problem(refused(reason="FailedCreate", message='pods "w" is forbidden: exceeded quota'), [], NOW)
    assert found is not None
    assert (found.reason, found.message) == (
        Reason.PODS_FORBIDDEN,
        'pods can\'t be created: pods "w" is forbidden: exceeded quota; change spec.worker, or what the namespace allows',
    )


def test_pods_that_were_refused_once_are_not() -> None:
    assert workers.problem(refused(status="False"), [], NOW) is None


def test_pods_of_a_former_template_that_were_refused_are_not_told_of() -> None:
    assert workers.problem(refused(updated=1, reason="FailedCreate"), [], NOW) is None


def test_no_deployment_and_no_pods_are_no_trouble() -> None:
    assert workers.problem(None, [], NOW) is None


def test_a_worker_is_ready_when_kubernetes_says_so_and_it_stays() -> None:
    assert workers.is_ready(pod(ready=True))
    assert not workers.is_ready(pod(ready=False))
    assert not workers.is_ready(pod(conditions=[]))
    leaving = pod(ready=True)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert not workers.is_ready(leaving)

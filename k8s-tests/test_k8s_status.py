"""A pipeline's status says why it isn't ready, and what to do; doing just that makes it ready."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kafka_helpers import Record, create_topics, produce, read_all
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
from system_fixtures import SETTLE_SECONDS, Object, Pipeline, Pipelines, System
from waiting import wait_until
from watched_values import watched

pytestmark = pytest.mark.slow

NOWHERE = "registry.invalid/no/worker:1"
REASON = '{.status.conditions[?(@.type=="Ready")].reason}'


def patched(spec: Object) -> Callable[[Pipeline], None]:
    return lambda pipeline: pipeline.patch(spec)


def nothing(_pipelines: Pipelines, _name: str) -> None:
    pass


@dataclass(frozen=True)
class Fault:
    """What is wrong with a pipeline, what its status then says, and what mends it."""

    name: str
    condition: str
    reason: str
    words: tuple[str, ...]
    mend: Callable[[Pipeline], None]
    spec: Callable[[System], Object]
    prepare: Callable[[Pipelines, str], None] = nothing
    status: str = "False"


def spec(**sections: Any) -> Callable[[System], Object]:
    return lambda _system: sections


def make_topics(pipeline: Pipeline) -> None:
    names = Names.of(pipeline.namespace, pipeline.name)
    create_topics(pipeline.system.kafka.bootstrap_servers, [names.input, names.output, names.dead_letter])


def log_in_wrongly(pipelines: Pipelines, name: str) -> None:
    names = Names.of(pipelines.namespace, name)
    make_user(pipelines.system, name, needed_acls(names))
    put_secret(pipelines, CA, {"ca.crt": certificates(pipelines.system).ca_pem})
    put_secret(pipelines, CREDENTIALS, login(name, "wrong"))


def log_in_rightly(pipeline: Pipeline) -> None:
    put_secret(Pipelines(pipeline.system, pipeline.namespace), CREDENTIALS, login(pipeline.name))


def give_token(pipeline: Pipeline) -> None:
    put_secret(Pipelines(pipeline.system, pipeline.namespace), "http-token", {"token": "open-sesame"})


def webhook_name(namespace: str, name: str) -> str:
    return f"{namespace}-{name}"


def have_a_dead_webhook(pipelines: Pipelines, name: str) -> None:
    """Have Deployments of this one pipeline admitted by a service that isn't there."""
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}
    webhook = {
        "name": "deployments.example.com",
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": pipelines.namespace}},
        "objectSelector": {"matchLabels": {"app.kubernetes.io/instance": name}},
        "rules": [rule],
        "clientConfig": {"service": {"namespace": pipelines.namespace, "name": "nobody"}},
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": webhook_name(pipelines.namespace, name)},
        "webhooks": [webhook],
    }
    pipelines.system.cluster.kubectl("apply", "-f", "-", input=json.dumps(configuration))
    wait_until(partial(is_called, pipelines, name), SETTLE_SECONDS, "the API server doesn't call the webhook")


def is_called(pipelines: Pipelines, name: str) -> bool:
    """Whether the API server asks the webhook about a Deployment of this pipeline."""
    labels = {"app.kubernetes.io/instance": name}
    container = {"name": "none", "image": NOWHERE}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "none", "namespace": pipelines.namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    command = ("create", "--dry-run=server", "--filename=-")
    tried = pipelines.system.cluster.kubectl(*command, input=json.dumps(deployment), check=False)
    return "failed calling webhook" in tried.stderr


def remove_the_webhook(pipeline: Pipeline) -> None:
    kind, name = "validatingwebhookconfiguration", webhook_name(pipeline.namespace, pipeline.name)
    pipeline.system.cluster.kubectl("delete", kind, name)


FAULTS = [
    # What the workers say, or would.
    Fault(
        "crash-loop",
        "WorkersReady",
        "CrashLoop",
        ("a worker ended with exit code 1", "read its log with kubectl logs --previous"),
        patched({"worker": {"env": None}}),
        # With this no Python starts.
        spec(worker={"env": [{"name": "PYTHONHOME", "value": "/nowhere"}]}),
    ),
    Fault(
        "no-such-directory",
        "ModelReady",
        "ModelNotFound",
        ("spec.model.name: '/models/none'",),
        patched({"model": {"name": None, "changePolicy": "AllowMixed"}}),
        spec(model={"name": "/models/none"}),
    ),
    Fault(
        "no-such-model",
        "ModelReady",
        "ModelNotFound",
        ("spec.model.name: 'nobody/no-such-model'",),
        patched({"model": {"name": None, "changePolicy": "AllowMixed"}}),
        spec(model={"name": "nobody/no-such-model"}, worker={"env": [{"name": "HF_HUB_OFFLINE", "value": "1"}]}),
    ),
    # What the operator sees by itself.
    Fault(
        "broker-unreachable",
        "TopicsReady",
        "BrokerUnreachable",
        ("Connection refused", "expected a broker that runs and can be reached there"),
        lambda pipeline: pipeline.patch({"kafka": {"bootstrapServers": [pipeline.system.bootstrap_servers]}}),
        lambda system: {"kafka": {"bootstrapServers": [f"{system.cluster.host_address}:1"]}},
        status="Unknown",
    ),
    Fault(
        "wrong-credentials",
        "TopicsReady",
        "AuthenticationFailed",
        ("the broker doesn't accept this SASL user name or its password",),
        log_in_rightly,
        lambda system: {"kafka": sasl_over_tls(system)},
        prepare=log_in_wrongly,
        status="Unknown",
    ),
    Fault(
        "secret-missing",
        "WorkersReady",
        "SecretMissing",
        ("spec.http.tokenSecret: there is no Secret 'http-token' in namespace", "create it"),
        give_token,
        spec(http={"tokenSecret": {"name": "http-token"}}),
    ),
    Fault(
        "topic-missing",
        "TopicsReady",
        "TopicMissing",
        ("topic-missing.in'", "topic-missing.out'", "create them, or set spec.topics.manage to true"),
        make_topics,
        spec(topics={"manage": False}),
    ),
    Fault(
        "too-few-partitions",
        "TopicsReady",
        "TooFewPartitions",
        ("has 1 partitions for 2 workers", "set spec.replicas to 1 or less, or give the topic more partitions"),
        patched({"replicas": 1}),
        spec(replicas=2, input={"create": {"partitions": 1}}),
    ),
    # What Kubernetes says of the pods.
    Fault(
        "no-node-with-a-gpu",
        "WorkersReady",
        "Unschedulable",
        ("1 of 1 workers can't be scheduled: 1 nvidia.com/gpu is missing", "Insufficient", "free or add a node"),
        patched({"worker": {"gpu": None}}),
        spec(worker={"gpu": {}}),
    ),
    Fault(
        "no-such-image",
        "WorkersReady",
        "ImagePullFailed",
        (f"the image '{NOWHERE}' can't be pulled", "check spec.worker.image and spec.worker.imagePullSecrets"),
        patched({"worker": {"image": None}}),
        spec(worker={"image": NOWHERE}),
    ),
    Fault(
        "no-such-variable",
        "WorkersReady",
        "ContainerConfigError",
        ("the container can't be started", 'secret "elsewhere" not found'),
        patched({"worker": {"env": None}}),
        spec(worker={"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "elsewhere", "key": "x"}}}]}),
    ),
    Fault(
        "no-such-priority",
        "WorkersReady",
        "PodsForbidden",
        ("pods can't be created", "no PriorityClass with name none-of-these was found"),
        patched({"worker": {"priorityClassName": None}}),
        spec(worker={"priorityClassName": "none-of-these"}),
    ),
    Fault(
        "no-source-of-a-value",
        "WorkersReady",
        "Rejected",
        ("the API server refuses an object of this pipeline", "valueFrom"),
        patched({"worker": {"env": None}}),
        spec(worker={"env": [{"name": "X", "valueFrom": {}}]}),
    ),
    Fault(
        "dead-webhook",
        "WorkersReady",
        "WriteFailed",
        ("the API server can't write an object of this pipeline", 'failed calling webhook "deployments.example.com"'),
        remove_the_webhook,
        spec(),
        prepare=have_a_dead_webhook,
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_status_names_the_fault_and_what_to_do_and_mending_just_that_makes_the_pipeline_ready(
    pipelines: Pipelines, fault: Fault
) -> None:
    fault.prepare(pipelines, fault.name)
    pipeline = pipelines.apply(fault.name, **fault.spec(pipelines.system))

    # Of one moment: what Kubernetes says of an image, for instance, changes from one attempt to the next.
    conditions = pipeline.wait_for_all(fault.condition, fault.status, fault.reason)
    told, ready = conditions[fault.condition], conditions["Ready"]
    for words in fault.words:
        assert words in told["message"]
    # What kubectl get -o wide shows.
    assert (ready["status"], ready["reason"], ready["message"]) == ("False", fault.reason, told["message"])

    fault.mend(pipeline)
    pipeline.wait_until_ready()
    pipeline.wait(fault.condition, "True")


def described_events(pipeline: Pipeline) -> list[tuple[str, str]]:
    """Type and reason of each event that ``kubectl describe`` shows, without the news of topics that were made."""
    rows = pipeline.kubectl("describe", "embp", pipeline.name).partition("\nEvents:")[2].splitlines()[3:]
    return [(row.split()[0], row.split()[1]) for row in rows if "TopicCreated" not in row]


def test_kubectl_describe_shows_an_event_for_each_transition_of_ready_and_for_nothing_else(
    pipelines: Pipelines, tmp_path: Path
) -> None:
    pipeline = pipelines.apply("told", http={"tokenSecret": {"name": "http-token"}})
    pipeline.wait("Ready", "False", "SecretMissing")
    with watched(pipeline, "embp", REASON, tmp_path) as reasons:
        give_token(pipeline)
        pipeline.wait_until_ready()

        # Lag comes and goes; that is no transition of Ready.
        names, servers = Names.of(pipeline.namespace, pipeline.name), pipeline.system.kafka.bootstrap_servers
        produce(servers, [Record(names.input, value=b'{"text": "one"}')])
        read_all(servers, names.output, count=1, timeout=180)
        pipeline.kubectl("annotate", "embp", pipeline.name, "team=search")
        pipeline.patch({"paused": True})
        pipeline.wait("Ready", "False", "Paused")
        wait_until(lambda: reasons()[-1] == "Paused", SETTLE_SECONDS, "the watch doesn't show the pause")
        told = reasons()

    assert (told[0], told[-2:]) == ("SecretMissing", ["Ready", "Paused"])
    expected = sorted(("Warning" if reason == "SecretMissing" else "Normal", reason) for reason in told)
    pipeline.until(lambda: len(described_events(pipeline)) >= len(told), "not every transition has its event")
    assert sorted(described_events(pipeline)) == expected

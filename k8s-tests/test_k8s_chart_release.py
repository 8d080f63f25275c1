"""The life of a release on a cluster: `helm test`, an upgrade to a changed chart, and what an uninstall leaves."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from audit_requests import operators_log
from changed_chart import changed_chart, explains_the_new_field, upgrade_to
from cluster_fixtures import restricted_namespace
from flowing_texts import Feeder, Watch, assert_all_embedded
from image_fixtures import LABELS, WORKER
from kafka_helpers import Record, delete_topics, produce, read_all, topic_names
from kafka_state import wait_until_gone
from system_fixtures import (
    CHART,
    RELEASE,
    SETTLE_SECONDS,
    SYSTEM_NAMESPACE,
    Object,
    Pipeline,
    Pipelines,
    System,
    pipelines_in,
)
from testcluster.cluster import Cluster
from testcluster.images import BuiltImage, build_image
from waiting import wait_until

pytestmark = pytest.mark.slow

RESOURCE = "embeddingpipelines.embeddings.dev"
TESTED = f"{RELEASE}-embedding-service-test"


@pytest.fixture
def restored(system: System) -> Iterator[System]:
    """The system, installed as before after the test, whatever that did to it."""
    yield system
    system.upgrade()


@pytest.fixture
def running(restored: System, namespace: str) -> Iterator[Pipeline]:
    """A pipeline that has embedded a text."""
    with pipelines_in(restored, namespace) as pipelines:
        pipeline = pipelines.apply("kept")
        pipeline.wait_until_ready()
        embeds(pipeline, "first")
        yield pipeline
        restored.upgrade()


@pytest.fixture
def other_worker_image(cluster: Cluster, worker_image: BuiltImage) -> str:
    """The workers' image once more, as the one of another version; its name for pods."""
    tag = worker_image.reference.replace(":test", ":changed")
    return cluster.load_image(build_image("worker", tag, LABELS | WORKER | {"VERSION": "0.9.0"}).reference)


def feed(pipeline: Pipeline, identity: str) -> None:
    value = json.dumps({"id": identity, "text": "a text"}).encode()
    produce(pipeline.system.kafka.bootstrap_servers, [Record(f"{pipeline.namespace}.{pipeline.name}.in", value=value)])


def embedded(pipeline: Pipeline) -> dict[str, float]:
    """When the embedding of each text came out, in seconds of the epoch."""
    topic = f"{pipeline.namespace}.{pipeline.name}.out"
    messages = read_all(pipeline.system.kafka.bootstrap_servers, topic)
    return {json.loads(message.value() or b"")["id"]: message.timestamp()[1] / 1000 for message in messages}


def embeds(pipeline: Pipeline, identity: str) -> None:
    """Wait until a text that is written now has come out as a vector."""
    feed(pipeline, identity)
    pipeline.until(lambda: identity in embedded(pipeline), f"{identity} is not embedded")


def worker_pods(pipeline: Pipeline) -> list[str]:
    return sorted(pod["metadata"]["uid"] for pod in pipeline.pods())


def helm_test(system: System) -> "tuple[int, str]":
    arguments = ("test", RELEASE, "--namespace", SYSTEM_NAMESPACE, "--timeout", "5m", "--logs")
    done = system.cluster.helm(*arguments, check=False)
    return done.returncode, done.stdout + done.stderr


def test_helm_test_embeds_a_text_and_leaves_the_input_topic_alone(restored: System) -> None:
    restored.upgrade("--set", f"test.kafka.bootstrapServers={{{restored.bootstrap_servers}}}")
    status, told = helm_test(restored)
    assert status == 0, told
    assert '"embedding_dimension":384' in told
    remaining = restored.cluster.kubectl("get", "embp", "--namespace", SYSTEM_NAMESPACE, "--output", "name").stdout
    assert remaining == ""
    servers = restored.kafka.bootstrap_servers

    def left() -> list[str]:
        return [name for name in topic_names(servers) if name.startswith(TESTED)]

    # The broker hears of a deletion a moment after its controller.
    with suppress(TimeoutError):
        wait_until(lambda: len(left()) == 1, 30, "topics are still there")
    found = left()
    delete_topics(servers, found)
    assert found == [f"{TESTED}-texts"]


def test_helm_test_without_a_kafka_says_what_to_set(system: System) -> None:
    status, told = helm_test(system)
    assert status == 1
    assert "test.kafka.bootstrapServers is not set, so there is no Kafka to test with; run: helm upgrade" in told


def test_api_server_takes_the_pipeline_of_helm_test_with_every_value(system: System, namespace: str) -> None:
    values = ("--values", str(CHART / "ci" / "every-value-values.yaml"), "--set", f"watchNamespaces={{{namespace}}}")
    rendered = system.cluster.helm("template", "es", str(CHART), "--kube-version", "1.34.2", *values).stdout
    documents = [one for one in yaml.safe_load_all(rendered) if one and one["kind"] == "EmbeddingPipeline"]
    created = system.cluster.kubectl(
        *("create", "--dry-run=server", "--validate=strict", "--filename=-"), input=yaml.safe_dump_all(documents)
    )
    assert (created.stdout.count("\n"), created.stderr) == (1, "")


def away(pod: Object) -> tuple[float, float]:
    """From when on the pod was there, and when the operator in it was ready, in seconds of the epoch."""
    ready = next(one for one in pod["status"]["conditions"] if one["type"] == "Ready")
    made, began = pod["metadata"]["creationTimestamp"], ready["lastTransitionTime"]
    return datetime.fromisoformat(made).timestamp(), datetime.fromisoformat(began).timestamp()


def test_an_upgrade_to_a_changed_chart_and_values_keeps_workers_embedding_while_the_operator_is_replaced(
    running: Pipeline, tmp_path: Path
) -> None:
    before, system = worker_pods(running), running.system
    assert not explains_the_new_field(system)
    servers, topic = system.kafka.bootstrap_servers, f"{running.namespace}.{running.name}"
    with Feeder(servers, f"{topic}.in") as feeder:
        upgrade_to(system, changed_chart(tmp_path), "operator.resyncSeconds=7", "operator.logLevel=DEBUG")
    # The API server takes a moment to tell kubectl.
    wait_until(lambda: explains_the_new_field(system), SETTLE_SECONDS, "the resource definition lacks the new field")
    pod = system.operator_pod()
    given = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
    assert given["EMBEDDING_OPERATOR_RESYNC_SECONDS"] == "7"
    wait_until(lambda: '"DEBUG"' in system.operator_log(), SETTLE_SECONDS, "the operator logs nothing of DEBUG")

    assert_all_embedded(servers, f"{topic}.out", feeder.written)
    # Before the new operator was ready, and after the former one had ended.
    start, end = away(pod)
    assert any(start <= at < end for identity, at in embedded(running).items() if identity in feeder.written)
    running.wait_until_ready()
    assert worker_pods(running) == before


def test_an_upgrade_to_another_worker_image_replaces_workers_one_at_a_time_while_texts_flow(
    pipelines: Pipelines, restored: System, other_worker_image: str, tmp_path: Path
) -> None:
    servers, topic = restored.kafka.bootstrap_servers, f"{pipelines.namespace}.upgraded"
    pipeline = pipelines.apply("upgraded", replicas=2, input={"create": {"partitions": 2}})
    pipeline.wait_until_ready()
    embeds(pipeline, "before")
    watch = Watch(pipeline)
    with Feeder(servers, f"{topic}.in") as feeder:
        former = watch.until_all_embed(2)
        (before,) = {watch.sets[name] for name in former}
        watch.fewest_ready = watch.most = 2

        upgrade_to(restored, changed_chart(tmp_path), f"worker.image={other_worker_image}")

        latter = watch.until_all_embed(2, before)
        # Never fewer than asked for, and never more than one beside them.
        assert (watch.fewest_ready, watch.most) == (2, 3)
        assert not {*former} & {*latter}
        assert len({*watch.sets.values()}) == 2
    assert {image(pod) for pod in pipeline.pods() if pod["metadata"]["name"] in latter} == {other_worker_image}
    wait_until(lambda: explains_the_new_field(restored), SETTLE_SECONDS, "the resource definition lacks the new field")
    pipeline.wait_until_ready()
    embeds(pipeline, "after")
    assert_all_embedded(servers, f"{topic}.out", ["before", *feeder.written, "after"])


def image(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def takes_over_only_where_it_is_told_to(system: System, namespace: str) -> None:
    """A release of another name finds the resource definition of the one before it."""
    install = ("install", "other", str(CHART), "--namespace", namespace, "--dry-run=server")
    refused = system.cluster.helm(*install, check=False)
    assert refused.returncode == 1
    assert f'CustomResourceDefinition "{RESOURCE}" in namespace "" exists and cannot be imported' in refused.stderr
    assert "NOTES" in system.cluster.helm(*install, "--take-ownership").stdout


def test_an_uninstall_leaves_pipelines_at_work_for_the_next_release_to_take_over(running: Pipeline) -> None:
    before, system = worker_pods(running), running.system
    leaving = Pipelines(system, running.namespace).apply("leaving", replicas=0, topics={"deletionPolicy": "Delete"})
    # Only what its status names is known to be its own afterwards.
    leaving.wait("TopicsReady", "True")
    told = system.cluster.helm("uninstall", RELEASE, "--namespace", SYSTEM_NAMESPACE, "--wait").stdout
    assert f"[CustomResourceDefinition] {RESOURCE}" in told
    of_the_release = ("--all-namespaces", f"--selector=app.kubernetes.io/instance={RELEASE}", "--output=name")
    kinds = "deployment,service,serviceaccount,role,rolebinding,clusterrole,clusterrolebinding"
    assert system.cluster.kubectl("get", kinds, *of_the_release).stdout == ""
    embeds(running, "without an operator")
    for kind in ("embp", "deployment", "configmap", "service", "poddisruptionbudget"):
        assert running.get(kind) is not None
    takes_over_only_where_it_is_told_to(system, running.namespace)
    # Its topics are to go with it, and nobody is there to delete them.
    leaving.delete(wait=False)
    assert leaving.get() is not None

    system.upgrade()

    running.wait_until_ready()
    embeds(running, "with the next operator")
    assert worker_pods(running) == before
    leaving.until(lambda: leaving.get() is None, "it isn't deleted")
    wait_until_gone(system.kafka.bootstrap_servers, f"{leaving.namespace}.leaving.out")


@pytest.mark.audit
def test_an_operator_of_listed_namespaces_runs_the_pipelines_there_and_asks_for_nothing_elsewhere(
    restored: System, namespace: str
) -> None:
    with (
        restricted_namespace(restored.cluster, f"{namespace[:55]}-other") as other,
        pipelines_in(restored, other) as elsewhere,
        pipelines_in(restored, namespace) as here,
    ):
        restored.upgrade("--set", f"watchNamespaces={{{namespace}}}")
        of_the_release = ("--selector", f"app.kubernetes.io/instance={RELEASE}", "--output=name")
        assert "-operator" not in restored.cluster.kubectl("get", "clusterrole", *of_the_release).stdout
        left_alone = elsewhere.apply("one", replicas=0)
        looked_after = here.apply("one", replicas=0)
        looked_after.until(lambda: looked_after.get("service"), "no Service")
        looked_after.kubectl("delete", "service", looked_after.worker)
        looked_after.until(lambda: looked_after.get("service"), "the Service isn't repaired")
        requests = operators_log(restored).requests()
        assert {one.namespace for one in requests} == {namespace}
        assert not any(one.denied for one in requests)
        assert (left_alone.status, left_alone.get("deployment")) == ({}, None)

        restored.upgrade()
        left_alone.wait("WorkersReady", "False", "ScaledToZero")

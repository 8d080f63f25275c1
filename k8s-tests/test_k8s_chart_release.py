"""The life of a release on a cluster: `helm test`, an upgrade to a changed chart, and what an uninstall leaves."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kafka_helpers import Record, delete_topics, produce, read_all, topic_names
from system_fixtures import CHART, RELEASE, SYSTEM_NAMESPACE, Pipeline, Pipelines, System

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
    pipelines = Pipelines(restored, namespace)
    pipeline = pipelines.apply("kept")
    pipeline.wait_until_ready()
    embeds(pipeline, "first")
    yield pipeline
    restored.upgrade()
    pipeline.delete()
    servers = restored.kafka.bootstrap_servers
    delete_topics(servers, [name for name in topic_names(servers) if name.startswith(f"{namespace}.")])


def embeds(pipeline: Pipeline, identity: str) -> None:
    """Wait until a text that is written now has come out as a vector."""
    servers, prefix = pipeline.system.kafka.bootstrap_servers, f"{pipeline.namespace}.{pipeline.name}"
    produce(servers, [Record(f"{prefix}.in", value=json.dumps({"id": identity, "text": "a text"}).encode())])

    def came_out() -> bool:
        return any(
            json.loads(message.value() or b"{}")["id"] == identity for message in read_all(servers, f"{prefix}.out")
        )

    pipeline.until(came_out, f"{identity} is not embedded")


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
    left = [name for name in topic_names(servers) if name.startswith(TESTED)]
    delete_topics(servers, left)
    assert left == [f"{TESTED}-texts"]


def test_helm_test_without_a_kafka_says_what_to_set(system: System) -> None:
    status, told = helm_test(system)
    assert status == 1
    assert "test.kafka.bootstrapServers is not set, so there is no Kafka to test with; run: helm upgrade" in told


def test_an_upgrade_to_a_changed_chart_brings_its_resource_definition_and_keeps_workers_running(
    running: Pipeline, tmp_path: Path
) -> None:
    changed = shutil.copytree(CHART, tmp_path / "chart")
    metadata = yaml.safe_load((changed / "Chart.yaml").read_text(encoding="utf-8"))
    metadata["version"] = metadata["appVersion"] = "0.9.0"
    (changed / "Chart.yaml").write_text(yaml.safe_dump(metadata), encoding="utf-8")
    definition = yaml.safe_load((changed / "files" / "crd.yaml").read_text(encoding="utf-8"))
    definition["spec"]["names"]["categories"].append("of-the-changed-chart")
    (changed / "files" / "crd.yaml").write_text(yaml.safe_dump(definition), encoding="utf-8")
    before, system = worker_pods(running), running.system

    system.cluster.helm(
        *("upgrade", RELEASE, str(changed), "--namespace", SYSTEM_NAMESPACE),
        *("--values", str(system.values), "--wait", "--timeout", "3m"),
    )

    categories = system.cluster.kubectl("get", "crd", RESOURCE, "--output", "jsonpath={.spec.names.categories}").stdout
    assert "of-the-changed-chart" in categories
    running.wait_until_ready()
    embeds(running, "after the upgrade")
    assert worker_pods(running) == before


def test_an_uninstall_leaves_pipelines_at_work_for_the_next_release_to_take_over(running: Pipeline) -> None:
    before, system = worker_pods(running), running.system
    told = system.cluster.helm("uninstall", RELEASE, "--namespace", SYSTEM_NAMESPACE, "--wait").stdout
    assert f"[CustomResourceDefinition] {RESOURCE}" in told
    embeds(running, "without an operator")
    for kind in ("embp", "deployment", "configmap", "service"):
        assert running.get(kind) is not None

    system.upgrade()

    running.wait_until_ready()
    embeds(running, "with the next operator")
    assert worker_pods(running) == before

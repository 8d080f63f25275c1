"""The end of a pipeline, and an operator that is away: what goes, what stays, and what is caught up with."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest
from kubernetes.config import new_client_from_config
from kubernetes.dynamic.exceptions import ConflictError

import kafka_access
import kafka_state
from embedding_operator.cluster import Cluster
from kafka_helpers import delete_topics
from kafka_listeners import SASL
from system_fixtures import Object, Pipeline, Pipelines, System

pytestmark = pytest.mark.slow

NOWHERE = {"nodeSelector": {"example.com/no-node": "has-this"}}
OBJECTS = "deployment,replicaset,pod,configmap,service,poddisruptionbudget"
DELETE = {"deletionPolicy": "Delete"}
FINALIZED = {"metadata": {"finalizers": ["embeddings.dev/kafka"]}}


def belongings(pipeline: Pipeline) -> list[str]:
    """The names of all objects of a pipeline that are there."""
    selector = f"--selector=app.kubernetes.io/instance={pipeline.name}"
    return pipeline.kubectl("get", OBJECTS, selector, "-o", "name").split()


def running_pods(pipeline: Pipeline) -> list[str]:
    return [pod["metadata"]["uid"] for pod in pipeline.pods() if "deletionTimestamp" not in pod["metadata"]]


def events(pipeline: Pipeline, reason: str) -> list[Object]:
    found = pipeline.kubectl("get", "events", f"--field-selector=reason={reason}", "-o", "json")
    return [one for one in json.loads(found)["items"] if one["involvedObject"]["name"] == pipeline.name]


def unscheduled(pipelines: Pipelines, name: str, **sections: Object) -> Pipeline:
    """Make a pipeline whose workers no node takes; returns once all that belongs to it is there."""
    pipeline = pipelines.apply(name, worker=NOWHERE, **sections)
    pipeline.wait("Ready", "False", "Unschedulable")
    return pipeline


@contextmanager
def operator_away(system: System) -> Iterator[None]:
    system.scale_operator(0)
    try:
        yield
    finally:
        system.scale_operator(1)


def test_while_the_operator_is_away_a_pipeline_embeds_and_it_stays_the_one_that_runs_afterwards(
    system: System, pipelines: Pipelines
) -> None:
    servers, topic = system.kafka.bootstrap_servers, f"{pipelines.namespace}.embedding"
    waiting = unscheduled(pipelines, "older")
    embedding = pipelines.apply("embedding")
    embedding.wait_until_ready()
    # Edited onto the topic of one that runs: an operator that begins anew must not see the older one first.
    waiting.patch({"output": {"topic": f"{topic}.out"}})
    waiting.wait("Ready", "False", "Conflict")
    worker = running_pods(embedding)

    with operator_away(system):
        kafka_state.write_texts(servers, f"{topic}.in", {"alone": "a text"})
        assert kafka_state.embedded(servers, f"{topic}.out", ["alone"]) == ["alone"]
        for looked_at in (waiting, embedding):
            looked_at.kubectl("delete", "service", looked_at.worker)

    for looked_at in (waiting, embedding):
        looked_at.until(partial(looked_at.get, "service"), "no new Service")
    embedding.wait("Ready", "True")
    assert running_pods(embedding) == worker
    assert waiting.wait("Ready", "False", "Conflict")
    assert not waiting.pods()


def test_what_was_changed_while_the_operator_was_away_is_caught_up_with_and_what_was_deleted_went_at_once(
    system: System, pipelines: Pipelines
) -> None:
    servers, prefix = system.kafka.bootstrap_servers, pipelines.namespace
    edited, gone = unscheduled(pipelines, "edited"), unscheduled(pipelines, "gone")
    cleaned = unscheduled(pipelines, "cleaned", topics=DELETE)

    with operator_away(system):
        edited.patch({"worker": {"podAnnotations": {"example.com/edited": "yes"}}})
        edited.kubectl("delete", "configmap", edited.worker)
        gone.kubectl("delete", "embp", gone.name, "--timeout=60s")
        gone.until(lambda: not belongings(gone), "its objects are still there")
        assert kafka_state.topic(servers, f"{prefix}.gone.out") is not None
        cleaned.delete(wait=False)
        made = pipelines.apply("made", worker=NOWHERE)

    made.wait("Ready", "False", "Unschedulable")
    # Beside the one before, which stays until this is ready.
    edited.until(
        lambda: any("example.com/edited" in pod["metadata"]["annotations"] for pod in edited.pods()),
        "no pod is of the edited template",
    )
    assert edited.get("configmap") is not None
    cleaned.until(lambda: cleaned.get() is None, "it isn't deleted")
    kafka_state.wait_until_gone(servers, f"{prefix}.cleaned.out")


def test_with_deletion_policy_delete_the_group_and_the_created_outputs_go_and_the_input_stays(
    system: System, pipelines: Pipelines
) -> None:
    servers, prefix = system.kafka.bootstrap_servers, f"{pipelines.namespace}.whole"
    pipeline = pipelines.apply("whole", topics=DELETE)
    pipeline.wait_until_ready()
    kafka_state.write_texts(servers, f"{prefix}.in", {"one": "a text"})
    assert kafka_state.embedded(servers, f"{prefix}.out", ["one"]) == ["one"]
    assert kafka_state.has_group(servers, prefix)

    pipeline.delete()
    kafka_state.wait_until_gone(servers, f"{prefix}.out")
    kafka_state.wait_until_gone(servers, f"{prefix}.out-deadletter")
    assert not kafka_state.has_group(servers, prefix)
    # It was created for the pipeline too; but what others write is theirs.
    assert kafka_state.topic(servers, f"{prefix}.in") is not None
    pipeline.until(lambda: not belongings(pipeline), "its objects are still there")


def test_without_the_credentials_a_deletion_lets_go_and_says_what_stays(system: System, pipelines: Pipelines) -> None:
    servers, prefix = system.kafka.bootstrap_servers, f"{pipelines.namespace}.locked"
    user = f"{pipelines.namespace}-user"
    acls = [kafka_access.Acl("ALL", "TOPIC", f"{prefix}{suffix}") for suffix in (".in", ".out", ".out-deadletter")]
    acls += [
        kafka_access.Acl("ALL", "GROUP", prefix),
        kafka_access.Acl("ALL", "CLUSTER", kafka_access.CLUSTER),
    ]
    kafka_access.set_password(servers, user, "a password")
    kafka_access.allow(servers, user, acls)
    system.cluster.kubectl(
        *("create", "secret", "generic", "login", "--namespace", pipelines.namespace),
        *(f"--from-literal=username={user}", "--from-literal=password=a password"),
    )
    sasl = {"mechanism": "SCRAM-SHA-512", "credentialsSecret": {"name": "login"}}
    kafka = {"bootstrapServers": [system.kafka.address(SASL)], "sasl": sasl}
    pipeline = unscheduled(pipelines, "locked", kafka=kafka, topics=DELETE)
    pipeline.kubectl("delete", "secret", "login")
    pipeline.wait("Ready", "False", "SecretMissing")

    pipeline.delete()
    (told,) = events(pipeline, "KafkaNotCleanedUp")
    assert told["type"] == "Warning"
    assert "topics and group stay at the brokers" in told["message"]
    assert "there is no Secret 'login'" in told["message"]
    assert kafka_state.topic(servers, f"{prefix}.out") is not None
    kafka_access.disallow(servers, user, acls)


def test_without_the_policy_there_is_no_finalizer_and_with_it_there_is_until_it_is_taken_back(
    pipelines: Pipelines,
) -> None:
    pipeline = unscheduled(pipelines, "undecided")

    def finalizers() -> list[str]:
        found = pipeline.get()
        assert found is not None
        return list(found["metadata"].get("finalizers", []))

    assert finalizers() == []
    pipeline.patch({"topics": {"deletionPolicy": "Delete"}})
    pipeline.until(lambda: finalizers() == ["embeddings.dev/kafka"], "no finalizer")
    pipeline.patch({"topics": {"deletionPolicy": "Retain"}})
    pipeline.until(lambda: finalizers() == [], "the finalizer stays")


def test_a_namespace_with_a_pipeline_whose_topics_go_with_it_can_be_deleted(
    system: System, pipelines: Pipelines
) -> None:
    servers, namespace = system.kafka.bootstrap_servers, f"{pipelines.namespace[-58:]}-ends".strip("-")
    system.cluster.kubectl("create", "namespace", namespace)
    ending = Pipelines(system, namespace)
    unscheduled(ending, "ending", topics=DELETE)
    system.cluster.kubectl("delete", "namespace", namespace, "--timeout=180s")
    kafka_state.wait_until_gone(servers, f"{namespace}.ending.out")
    assert kafka_state.topic(servers, f"{namespace}.ending.in") is not None
    delete_topics(servers, [f"{namespace}.ending.in"])


def test_who_takes_the_policy_back_during_the_deletion_keeps_the_topics(system: System, pipelines: Pipelines) -> None:
    pipeline = unscheduled(pipelines, "regretted", topics=DELETE)
    # Somebody is still reading, so that the deletion waits.
    group = f"{pipelines.namespace}.regretted"
    topic = f"{pipelines.namespace}.regretted.out"
    with kafka_state.member(system.kafka.bootstrap_servers, group, topic):
        pipeline.delete(wait=False)
        pipeline.until(lambda: (pipeline.get() or {})["metadata"].get("deletionTimestamp"), "the deletion isn't seen")
        pipeline.patch({"topics": {"deletionPolicy": "Retain"}})
        pipeline.until(lambda: pipeline.get() is None, "the pipeline stays")
    assert kafka_state.topic(system.kafka.bootstrap_servers, topic) is not None


def test_a_pipeline_that_can_not_be_read_says_so_and_can_be_deleted(pipelines: Pipelines) -> None:
    # The API server takes this for a whole number, and no pod would.
    odd = {"tolerations": [{"key": "odd", "operator": "Exists", "tolerationSeconds": 250000000.5}]}
    pipeline = pipelines.apply("unreadable", worker=odd)
    pipeline.kubectl("patch", "embp", "unreadable", "--type=merge", "--patch", json.dumps(FINALIZED))
    assert "spec.worker.tolerations" in pipeline.wait("Ready", "False", "Invalid")["message"]
    pipeline.kubectl("delete", "embp", "unreadable", "--timeout=180s")


def test_a_status_is_never_written_to_another_pipeline_of_the_same_name(system: System, pipelines: Pipelines) -> None:
    before = unscheduled(pipelines, "twice").get()
    assert before is not None
    pipelines.apply("twice").delete()
    unscheduled(pipelines, "twice")
    api = Cluster(new_client_from_config(str(system.cluster.kubeconfig)))
    with pytest.raises(ConflictError):
        api.write_status(before, before["status"])

"""Two pipelines that want one output topic or one consumer group of one Kafka cluster: one has it, the other waits."""

from typing import Any

import pytest

import kafka_state
from system_fixtures import Pipeline, Pipelines, System

pytestmark = pytest.mark.slow

# The same brokers as those of the tests' other pipelines, by another address.
BY_SERVICE = ["kafka.kafka.svc:9092"]
NOWHERE = {"nodeSelector": {"example.com/no-node": "has-this"}}


def wait_until_refused(pipeline: Pipeline, what: str, owner: Pipeline) -> None:
    """Wait until a pipeline says that another one has what it wants, and runs no workers."""
    # It may have been refused before, because of another one.
    belongs = f"belongs to pipeline {owner.namespace}/{owner.name}"
    told = pipeline.wait_for_all("Ready", "False", "Conflict", words=belongs)
    assert what in told["Ready"]["message"]
    assert told["WorkersReady"]["reason"] == "Conflict"
    pipeline.until(lambda: not pipeline.pods(), "its workers still run")


def pods(pipeline: Pipeline) -> dict[str, int]:
    """The pods of a pipeline, each with how often it was restarted."""
    return {
        pod["metadata"]["uid"]: sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))
        for pod in pipeline.pods()
    }


def applied(pipelines: Pipelines, name: str, output: str, **sections: Any) -> Pipeline:
    return pipelines.apply(name, output={"topic": output}, **sections)


def test_the_pipeline_that_runs_keeps_its_topic_and_group_and_the_others_wait_until_it_is_deleted(
    system: System, pipelines: Pipelines
) -> None:
    servers, prefix = system.kafka.bootstrap_servers, pipelines.namespace
    vectors, source = f"{prefix}.vectors", f"{prefix}.later.in"
    # Older, with a topic of its own so far; no node takes its workers.
    older = applied(pipelines, "older", f"{prefix}.older.out", worker=NOWHERE)
    older.wait("Ready", "False", "Unschedulable")
    running = applied(pipelines, "running", vectors)
    running.wait_until_ready()
    before = pods(running)

    later = applied(pipelines, "later", vectors, kafka={"bootstrapServers": BY_SERVICE})
    grouped = applied(
        pipelines, "grouped", f"{prefix}.grouped.out", input={"consumerGroup": f"{prefix}.running"}, worker=NOWHERE
    )
    wait_until_refused(later, f"output topic '{vectors}'", running)
    wait_until_refused(grouped, f"consumer group '{prefix}.running'", running)
    # Nor is anything made at the brokers for who may not run.
    assert kafka_state.topic(servers, source) is None
    assert kafka_state.topic(servers, f"{prefix}.grouped.out") is None
    # The older one doesn't get by an edit what a running one has.
    older.patch({"output": {"topic": vectors}})
    wait_until_refused(older, f"output topic '{vectors}'", running)
    kafka_state.write_texts(servers, f"{prefix}.running.in", {"kept": "a text"})
    assert kafka_state.embedded(servers, vectors, ["kept"]) == ["kept"]
    assert running.condition("Ready")["status"] == "True"
    assert pods(running) == before

    # Its topics stay; of those who want the output topic the older one gets it, and the group is free too.
    running.delete()
    older.wait("Ready", "False", "Unschedulable")
    grouped.wait("Ready", "False", "Unschedulable")
    wait_until_refused(later, f"output topic '{vectors}'", older)
    older.delete()
    later.wait_until_ready()
    kafka_state.write_texts(servers, source, {"taken over": "another text"})
    assert kafka_state.embedded(servers, vectors, ["kept", "taken over"]) == ["kept", "taken over"]


def test_a_pipeline_edited_away_from_anothers_topic_starts(pipelines: Pipelines) -> None:
    prefix = pipelines.namespace
    first = applied(pipelines, "first", f"{prefix}.vectors", worker=NOWHERE)
    first.wait("Ready", "False", "Unschedulable")
    second = applied(pipelines, "second", f"{prefix}.vectors", worker=NOWHERE)
    wait_until_refused(second, "output topic", first)
    second.patch({"output": {"topic": f"{prefix}.other-vectors"}})
    second.wait("Ready", "False", "Unschedulable")
    # And the other way round: who is edited away gives up what it had.
    third = applied(pipelines, "third", f"{prefix}.vectors", worker=NOWHERE)
    wait_until_refused(third, "output topic", first)
    first.patch({"output": {"topic": f"{prefix}.third-vectors"}})
    third.wait("Ready", "False", "Unschedulable")
    first.wait("Ready", "False", "Unschedulable")

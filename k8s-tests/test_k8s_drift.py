"""Drift: what others delete or change of a pipeline's objects and topics comes back, and nothing else is touched.

The workers of most of these pipelines never run: their objects and topics are looked after all the same.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

import kafka_state
from kafka_helpers import alter_topic, create_topics, delete_topics
from system_fixtures import RESYNC_SECONDS, Object, Pipeline, Pipelines, System
from waiting import wait_until

pytestmark = pytest.mark.slow

NOWHERE = {"nodeSelector": {"example.com/no-node": "has-this"}}
KINDS = ("configmap", "service", "poddisruptionbudget", "horizontalpodautoscaler", "deployment")
# The promise for objects. One resync may be missed by the time that a look takes.
REPAIR_SECONDS = 10
RESYNC_LIMIT = 2 * RESYNC_SECONDS + 10


def content(found: Object) -> Object:
    """What the operator asks for of an object, without what Kubernetes adds to it as time goes by."""
    kept = {key: value for key, value in found.items() if key in ("spec", "data")}
    labels = found["metadata"]["labels"]
    return {**kept, "labels": labels, "owner": found["metadata"].get("ownerReferences")}


def present(pipeline: Pipeline, kind: str) -> Object:
    found = pipeline.get(kind)
    assert found is not None, f"no {kind}"
    return found


def edit(pipeline: Pipeline, kind: str, patch: Any, form: str = "merge") -> None:
    pipeline.kubectl("patch", kind, pipeline.worker, f"--type={form}", "--patch", json.dumps(patch))


def wait_until_right(pipeline: Pipeline, kind: str, right: Object, what: str) -> None:
    """Wait until an object is as it was, for as long as the promise allows."""
    pipeline.until(lambda: content(present(pipeline, kind)) == right, what, REPAIR_SECONDS)


def unscheduled(pipelines: Pipelines, name: str, **sections: Any) -> Pipeline:
    """Make a pipeline whose workers no node takes; returns once all that belongs to it is there."""
    pipeline = pipelines.apply(name, worker=NOWHERE, **sections)
    pipeline.wait("Ready", "False", "Unschedulable")
    return pipeline


def test_an_object_that_somebody_deletes_is_made_again(pipelines: Pipelines) -> None:
    pipeline = unscheduled(pipelines, "deleted", autoscaling={"metric": "CPU", "maxReplicas": 3})
    for kind in KINDS:
        before = present(pipeline, kind)
        # Kubernetes takes the pods with the Deployment.
        pipeline.kubectl("delete", kind, pipeline.worker)
        pipeline.until(partial(pipeline.get, kind), f"no {kind} again", REPAIR_SECONDS)
        after = present(pipeline, kind)
        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        if kind == "service":
            # Given by the API server.
            for found in (before, after):
                del found["spec"]["clusterIP"], found["spec"]["clusterIPs"]
        assert content(after) == content(before)
    pipeline.until(lambda: len(pipeline.pods()) == 1, "no pod again")


EDITS: list[tuple[str, str, Any]] = [
    ("configmap", "merge", {"data": {"config.yaml": "kafka: {}\n"}}),
    ("configmap", "merge", {"data": None}),
    ("configmap", "merge", {"metadata": {"labels": {"app.kubernetes.io/instance": "another"}}}),
    ("configmap", "merge", {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}}),
    ("configmap", "merge", {"metadata": {"ownerReferences": None}}),
    ("service", "merge", {"spec": {"selector": {"app.kubernetes.io/instance": "another"}}}),
    ("service", "json", [{"op": "replace", "path": "/spec/ports/0/targetPort", "value": 1}]),
    ("poddisruptionbudget", "merge", {"spec": {"maxUnavailable": "50%"}}),
    ("deployment", "merge", {"spec": {"replicas": 2}}),
    ("deployment", "merge", {"spec": {"strategy": {"type": "Recreate", "rollingUpdate": None}}}),
    ("deployment", "json", [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "x"}]),
    ("deployment", "json", [{"op": "remove", "path": "/spec/template/spec/containers/0/livenessProbe"}]),
    (
        "deployment",
        "json",
        [{"op": "replace", "path": "/spec/template/spec/automountServiceAccountToken", "value": True}],
    ),
    (
        "deployment",
        "json",
        [{"op": "replace", "path": "/spec/template/spec/containers/0/resources/requests/memory", "value": "1Gi"}],
    ),
]


def test_an_object_that_somebody_edits_is_put_right(pipelines: Pipelines) -> None:
    pipeline = unscheduled(pipelines, "edited")
    for kind, form, patch in EDITS:
        right = content(present(pipeline, kind))
        edit(pipeline, kind, patch, form)
        wait_until_right(pipeline, kind, right, f"{kind} isn't put right after {json.dumps(patch)}")
    # One that no node takes isn't given up for another before that one is ready.
    pipeline.until(lambda: len(pipeline.pods()) <= 2, "pods of the templates above are still there")


def test_what_others_add_to_an_object_stays_through_a_repair(pipelines: Pipelines) -> None:
    pipeline = unscheduled(pipelines, "added")
    added = {
        "configmap": {"metadata": {"annotations": {"example.com/by": "someone"}}},
        "service": {"metadata": {"annotations": {"example.com/by": "someone"}, "labels": {"team": "search"}}},
        "deployment": {
            "metadata": {"annotations": {"example.com/by": "someone"}},
            # As an injector of sidecars marks a template.
            "spec": {"template": {"metadata": {"labels": {"sidecar.example.com/inject": "true"}}}},
        },
    }
    for kind, patch in added.items():
        edit(pipeline, kind, patch)
    faults = {
        "configmap": {"data": {"config.yaml": "kafka: {}\n"}},
        "service": {"spec": {"selector": {"app.kubernetes.io/instance": "another"}}},
        "deployment": {"spec": {"template": {"spec": {"automountServiceAccountToken": True}}}},
    }
    for kind, patch in faults.items():
        right = content(present(pipeline, kind))
        edit(pipeline, kind, patch)
        wait_until_right(pipeline, kind, right, f"{kind} isn't put right")
        assert present(pipeline, kind)["metadata"]["annotations"]["example.com/by"] == "someone"
    assert present(pipeline, "service")["metadata"]["labels"]["team"] == "search"
    labels = present(pipeline, "deployment")["spec"]["template"]["metadata"]["labels"]
    assert labels["sidecar.example.com/inject"] == "true"
    # Nor does a change of the pipeline itself take it away.
    pipeline.patch({"worker": {"podAnnotations": {"example.com/ours": "1"}}})
    pipeline.until(
        lambda: "example.com/ours" in present(pipeline, "deployment")["spec"]["template"]["metadata"]["annotations"],
        "the change isn't there",
    )
    found = present(pipeline, "deployment")
    assert found["metadata"]["annotations"]["example.com/by"] == "someone"
    assert found["spec"]["template"]["metadata"]["labels"]["sidecar.example.com/inject"] == "true"


def test_a_running_pipeline_goes_on_after_its_deployment_and_its_output_topic_were_deleted(
    system: System, pipelines: Pipelines
) -> None:
    servers = system.kafka.bootstrap_servers
    pipeline = pipelines.apply("running")
    source, target = f"{pipeline.namespace}.running.in", f"{pipeline.namespace}.running.out"
    pipeline.wait_until_ready()
    kafka_state.write_texts(servers, source, {"before": "a text"})
    assert kafka_state.embedded(servers, target, ["before"]) == ["before"]

    before = kafka_state.topic(servers, target)
    assert before is not None
    delete_topics(servers, [target])
    pipeline.until(lambda: kafka_state.topic(servers, target) not in (None, before), "no topic again", RESYNC_LIMIT)
    kafka_state.write_texts(servers, source, {"after": "another text"})
    assert kafka_state.embedded(servers, target, ["after"]) == ["after"]
    pipeline.wait_until_ready()

    (old,) = (pod["metadata"]["uid"] for pod in pipeline.pods() if "deletionTimestamp" not in pod["metadata"])
    pipeline.kubectl("delete", "deployment", pipeline.worker)
    pipeline.until(
        lambda: bool(pods := pipeline.pods()) and old not in {pod["metadata"]["uid"] for pod in pods},
        "no other pod",
    )
    pipeline.wait("Ready", "True")
    kafka_state.write_texts(servers, source, {"later": "a third text"})
    assert kafka_state.embedded(servers, target, ["after", "later"]) == ["after", "later"]


def test_the_configuration_of_a_topic_that_the_pipeline_created_is_put_right(
    system: System, pipelines: Pipelines
) -> None:
    servers = system.kafka.bootstrap_servers
    wanted = {"retention.ms": "86400000", "cleanup.policy": "compact,delete"}
    pipeline = unscheduled(pipelines, "configured", output={"create": {"config": wanted}})
    target = f"{pipeline.namespace}.configured.out"
    disturb(servers, target, {"retention.ms": "1000", "cleanup.policy": "delete"})

    def right() -> bool:
        found = kafka_state.config(servers, target)
        return {key: found[key] for key in wanted} == wanted

    pipeline.until(right, "the configuration isn't put right", RESYNC_LIMIT)
    assert kafka_state.config(servers, target)["segment.ms"] == OTHERS["segment.ms"]
    # And it grows, where the pipeline asks for more.
    pipeline.patch({"output": {"create": {"partitions": 5}}})
    pipeline.until(lambda: _partitions(servers, target) == 5, "the topic doesn't grow", RESYNC_LIMIT)


# What the pipeline says nothing of is left to whoever set it.
OTHERS = {"segment.ms": "600000"}


def disturb(servers: str, name: str, changes: Mapping[str, str]) -> None:
    """Change a topic's configuration, and wait until the broker says so: its controller is first to know."""
    alter_topic(servers, name, {**changes, **OTHERS})
    wait_until(
        lambda: kafka_state.config(servers, name)["segment.ms"] == OTHERS["segment.ms"],
        kafka_state.TIMEOUT_SECONDS,
        "the broker doesn't know of the change",
    )


def _partitions(servers: str, name: str) -> int | None:
    found = kafka_state.topic(servers, name)
    return None if found is None else found.partitions


def test_a_topic_that_the_pipeline_did_not_create_is_neither_altered_nor_deleted(
    system: System, pipelines: Pipelines
) -> None:
    servers, prefix = system.kafka.bootstrap_servers, f"{pipelines.namespace}.foreign"
    theirs = {"retention.ms": "123456789"}
    create_topics(servers, [f"{prefix}.in", f"{prefix}.out"], partitions=3, config=theirs)
    foreign = {name: kafka_state.topic(servers, name) for name in (f"{prefix}.in", f"{prefix}.out")}
    template = {"partitions": 6, "config": {"retention.ms": "86400000"}}
    pipeline = unscheduled(
        pipelines,
        "foreign",
        input={"create": template},
        output={"create": template},
        deadLetter={"topic": f"{prefix}.dead", "create": template},
        topics={"deletionPolicy": "Delete"},
    )
    told = {entry["name"]: (entry["created"], entry["partitions"]) for entry in pipeline.status["topics"]}
    assert told == {f"{prefix}.in": (False, 3), f"{prefix}.out": (False, 3), f"{prefix}.dead": (True, 6)}

    # Its own topic put right is the sign that the others were looked at, too.
    disturb(servers, f"{prefix}.dead", {"retention.ms": "1000"})
    pipeline.until(
        lambda: kafka_state.config(servers, f"{prefix}.dead")["retention.ms"] == "86400000",
        "its own topic isn't put right",
        RESYNC_LIMIT,
    )
    for name, before in foreign.items():
        assert kafka_state.topic(servers, name) == before
        assert kafka_state.config(servers, name)["retention.ms"] == "123456789"

    pipeline.delete()
    kafka_state.wait_until_gone(servers, f"{prefix}.dead")
    for name, before in foreign.items():
        assert kafka_state.topic(servers, name) == before


def test_a_topic_that_somebody_made_in_the_place_of_the_pipelines_is_somebody_elses(
    system: System, pipelines: Pipelines
) -> None:
    servers, target = system.kafka.bootstrap_servers, f"{pipelines.namespace}.replaced.out"
    pipeline = unscheduled(
        pipelines,
        "replaced",
        output={"create": {"config": {"retention.ms": "86400000"}}},
        topics={"deletionPolicy": "Delete"},
    )
    # So that nobody else makes it between the two.
    pipeline.patch({"topics": {"manage": False}})
    pipeline.until(lambda: pipeline.status["observedGeneration"] == 2, "the change isn't seen")
    delete_topics(servers, [target])
    pipeline.wait("Ready", "False", "TopicMissing")
    create_topics(servers, [target], partitions=2, config={"retention.ms": "123456789"})
    pipeline.patch({"topics": {"manage": True}})

    pipeline.until(lambda: _created(pipeline, target, generation=3) == [False], "it is called ours")
    assert kafka_state.config(servers, target)["retention.ms"] == "123456789"
    pipeline.delete()
    assert _partitions(servers, target) == 2


def _created(pipeline: Pipeline, topic: str, generation: int) -> list[bool]:
    """Whether a topic is called the pipeline's own, by a look at this generation; empty where it isn't told."""
    status = pipeline.status
    found = status["topics"] if status["observedGeneration"] == generation else []
    return [entry["created"] for entry in found if entry["name"] == topic]

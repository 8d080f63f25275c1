"""Changes of a running pipeline: which of them replace its workers, how, and that no text is lost meanwhile."""

import json

import pytest

import kafka_state
from flowing_texts import Feeder, Watch, assert_all_embedded
from kafka_helpers import read_all
from system_fixtures import RESYNC_SECONDS, Object, Pipeline, Pipelines, System
from testcluster.errors import CommandFailed

pytestmark = pytest.mark.slow

TWO_PARTITIONS = {"create": {"partitions": 2}}


def test_texts_flow_on_while_workers_are_added_replaced_one_at_a_time_evicted_and_drained(
    system: System, pipelines: Pipelines
) -> None:
    servers, prefix = system.kafka.bootstrap_servers, f"{pipelines.namespace}.flowing"
    pipeline = pipelines.apply("flowing", input=TWO_PARTITIONS)
    pipeline.wait_until_ready()
    watch = Watch(pipeline)
    with Feeder(servers, f"{prefix}.in") as feeder:
        (first,) = watch.until_all_embed(1)

        # As autoscalers and people do it.
        pipeline.kubectl("scale", "embp", pipeline.name, "--replicas=2")
        added = watch.until_all_embed(2)
        assert first in added
        (before,) = {watch.sets[name] for name in added}

        watch.fewest_ready = watch.most = 2
        pipeline.patch({"worker": {"resources": {"requests": {"memory": "601Mi"}}}})
        replaced = watch.until_all_embed(2, before)
        # Never fewer than asked for, and never more than one beside them.
        assert (watch.fewest_ready, watch.most) == (2, 3)
        assert not {*added} & {*replaced}
        (after,) = {watch.sets[name] for name in replaced}
        assert {*watch.sets.values()} == {before, after}

        # As a node's drain does it: all at once, and again where that is refused.
        watch.fewest_ready = 2
        one, other = replaced
        evict(pipeline, one)
        with pytest.raises(CommandFailed, match="disruption budget"):
            evict(pipeline, other)
        pipeline.until(lambda: watch.look() and evicted(pipeline, other), "the second worker can't be evicted", 120)
        moved = watch.until_all_embed(2)
        assert not {*replaced} & {*moved}
        assert watch.fewest_ready == 1

        pipeline.patch({"replicas": 1})
        (kept,) = watch.until_all_embed(1, before)
        assert kept in moved
        pipeline.wait("Ready", "True")
    assert_all_embedded(servers, f"{prefix}.out", feeder.written)
    assert pipeline.wait("CaughtUp", "True")


def evict(pipeline: Pipeline, pod: str) -> None:
    """Raises ``CommandFailed`` where a budget doesn't allow it."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
    path = f"/api/v1/namespaces/{pipeline.namespace}/pods/{pod}/eviction"
    pipeline.kubectl("create", "--raw", path, "-f", "-", input=json.dumps(eviction))


def evicted(pipeline: Pipeline, pod: str) -> bool:
    try:
        evict(pipeline, pod)
    except CommandFailed:
        return False
    return True


def apply_secret(pipelines: Pipelines, token: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "http"}, "stringData": {"token": token}}
    pipelines.system.cluster.kubectl("apply", "--namespace", pipelines.namespace, "-f", "-", input=json.dumps(secret))


def until_the_template_follows_the_secret(pipeline: Pipeline, before: str) -> None:
    pipeline.until(
        lambda: checksum(pipeline) != before,
        "the Deployment's template doesn't follow the Secret within the resync",
        RESYNC_SECONDS + LOOK_SECONDS,
    )


def test_a_secret_that_was_changed_right_after_it_was_read_is_followed_within_the_resync(pipelines: Pipelines) -> None:
    apply_secret(pipelines, "the-first-token")
    # Stopped, so that nothing but the resync has it looked at.
    pipeline = pipelines.apply("stopped", replicas=0, http={"tokenSecret": {"name": "http"}})
    pipeline.until(lambda: pipeline.get("deployment") is not None, "no Deployment")
    for token in ("the-second-token", "the-third-token"):
        before = checksum(pipeline)
        apply_secret(pipelines, token)
        until_the_template_follows_the_secret(pipeline, before)


def test_a_changed_secret_replaces_the_workers_who_then_know_the_new_token(pipelines: Pipelines) -> None:
    apply_secret(pipelines, "the-first-token")
    pipeline = pipelines.apply("guarded", http={"tokenSecret": {"name": "http"}})
    pipeline.wait_until_ready()
    (old,) = pipeline.pods()
    assert answer(pipeline, old, "the-first-token") == 200

    apply_secret(pipelines, "the-second-token")
    until_the_template_follows_the_secret(pipeline, old["metadata"]["annotations"][CHECKSUM])
    new = until_replaced(pipeline, old)
    pipeline.wait("Ready", "True")
    assert answer(pipeline, new, "the-first-token") == 401
    assert answer(pipeline, new, "the-second-token") == 200


CHECKSUM = "embeddings.dev/secrets-checksum"
# What a look at the Secret, the brokers and the Deployment may take; less than a second resync would.
LOOK_SECONDS = 8
ASK = """
import sys, urllib.error, urllib.request
request = urllib.request.Request("http://localhost:5000/stats", headers={"Authorization": "Bearer " + sys.argv[1]})
try:
    print(urllib.request.urlopen(request).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""


def checksum(pipeline: Pipeline) -> str:
    deployment = pipeline.get("deployment")
    assert deployment is not None
    return str(deployment["spec"]["template"]["metadata"]["annotations"][CHECKSUM])


def until_replaced(pipeline: Pipeline, old: Object) -> Object:
    """Wait until a pod has ended, whose work goes on until then, and another is the only one; returns that one."""

    def only() -> Object | None:
        pods = pipeline.pods()
        return pods[0] if len(pods) == 1 and pods[0]["metadata"]["uid"] != old["metadata"]["uid"] else None

    found = pipeline.until(only, "its worker isn't replaced")
    assert found is not None
    return found


def answer(pipeline: Pipeline, pod: Object, token: str) -> int:
    """Ask a worker with a token; the API server's proxy would keep it to itself."""
    return int(pipeline.kubectl("exec", pod["metadata"]["name"], "--", "python", "-c", ASK, token))


def test_another_model_contract_needs_another_output_topic_or_the_leave_to_mix(
    system: System, pipelines: Pipelines
) -> None:
    servers, prefix = system.kafka.bootstrap_servers, f"{pipelines.namespace}.mixing"
    pipeline = pipelines.apply("mixing")
    pipeline.wait_until_ready()
    kafka_state.write_texts(servers, f"{prefix}.in", {"one": "a text"})
    kafka_state.embedded(servers, f"{prefix}.out", ["one"])
    (first_worker,) = pipeline.pods()

    with pytest.raises(CommandFailed) as refused:
        pipeline.patch({"model": {"maxLength": 64}})
    assert "AllowMixed" in str(refused.value)
    assert "spec.output.topic" in str(refused.value)

    pipeline.patch({"model": {"maxLength": 64, "changePolicy": "AllowMixed"}})
    second_worker = until_replaced(pipeline, first_worker)
    pipeline.wait("Ready", "True")
    kafka_state.write_texts(servers, f"{prefix}.in", {"two": "a text"})
    assert kafka_state.embedded(servers, f"{prefix}.out", ["one", "two"]) == ["one", "two"]
    first, second = (contract for _, contract in sorted(contracts(servers, f"{prefix}.out").items()))
    assert first != second

    strict = {"maxLength": 32, "changePolicy": "RequireNewOutputTopic"}
    pipeline.patch({"model": strict, "output": {"topic": f"{prefix}.out-32"}})
    until_replaced(pipeline, second_worker)
    pipeline.wait("Ready", "True")
    kafka_state.write_texts(servers, f"{prefix}.in", {"three": "a text"})
    assert kafka_state.embedded(servers, f"{prefix}.out-32", ["three"]) == ["three"]
    assert contracts(servers, f"{prefix}.out-32")["three"] not in (first, second)
    assert contracts(servers, f"{prefix}.out").keys() == {"one", "two"}


def contracts(servers: str, topic: str) -> dict[str, object]:
    """The contracts of the vectors in a topic, by the ids of their texts."""
    return {
        json.loads(message.value() or b"")["id"]: dict(message.headers() or ())["embedding-contract"]
        for message in read_all(servers, topic)
    }

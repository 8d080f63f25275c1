"""Changes of a running pipeline: which of them replace its workers, how, and that no text is lost meanwhile."""

import itertools
import json
import threading
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Self

import pytest
from confluent_kafka import KafkaError, Message, Producer
from prometheus_client.parser import text_string_to_metric_families

import kafka_state
from kafka_helpers import read_all
from system_fixtures import RESYNC_SECONDS, Object, Pipeline, Pipelines, System
from testcluster.errors import CommandFailed
from waiting import wait_until

pytestmark = pytest.mark.slow

# A trickle that lasts: what is tested is the change, not the speed.
_PAUSE_SECONDS = 0.2
TWO_PARTITIONS = {"create": {"partitions": 2}}


class Feeder:
    """Writes texts without end, until the block ends; ``written`` are the ids of those that the brokers have."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.written: list[str] = []
        self._topic = topic
        self._producer = Producer({"bootstrap.servers": bootstrap_servers, "enable.idempotence": True, "log_level": 0})
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="feeder")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        assert self._producer.flush(30) == 0

    def _feed(self) -> None:
        for number in itertools.count():
            record = json.dumps({"id": str(number), "text": f"text number {number}"})
            self._producer.produce(self._topic, record.encode(), on_delivery=self._delivered)
            self._producer.poll(0)
            if self._end.wait(_PAUSE_SECONDS):
                return

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        assert error is None
        self.written.append(json.loads(message.value() or b"")["id"])


class Watch:
    """The worker pods of a pipeline as they come and go, and how many texts each of them embedded."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        # Of every pod ever seen: the ReplicaSet it belongs to, and its texts.
        self.sets: dict[str, str] = {}
        self.embedded: Counter[str] = Counter()
        self.fewest_ready = 1000
        self.most = 0

    def look(self) -> list[str]:
        """Look once; returns the names of the pods that stay."""
        found = [pod for pod in self.pipeline.pods() if "deletionTimestamp" not in pod["metadata"]]
        names = [pod["metadata"]["name"] for pod in found]
        ready = [pod["metadata"]["name"] for pod in found if _is_ready(pod)]
        self.sets |= {pod["metadata"]["name"]: pod["metadata"]["ownerReferences"][0]["name"] for pod in found}
        self.fewest_ready, self.most = min(self.fewest_ready, len(ready)), max(self.most, len(names))
        for name in ready:
            self.embedded[name] = max(self.embedded[name], self._embedded_by(name))
        return names

    def until_all_embed(self, count: int, replica_set: str | None = None, seconds: float = 240) -> list[str]:
        """Look until there are as many pods, all of one other ReplicaSet than this, and each has embedded texts."""

        def done() -> list[str] | None:
            names = self.look()
            sets = {self.sets[name] for name in names}
            settled = len(names) == count and len(sets) == 1 and replica_set not in sets
            return names if settled and all(self.embedded[name] for name in names) else None

        return wait_until(done, seconds, f"not {count} pods that embed; {self.sets} {self.embedded}", interval=1) or []

    def _embedded_by(self, pod: str) -> int:
        path = f"/api/v1/namespaces/{self.pipeline.namespace}/pods/{pod}:5000/proxy/metrics"
        try:
            families = text_string_to_metric_families(self.pipeline.kubectl("get", "--raw", path))
        except CommandFailed:
            # It has just gone.
            return 0
        return int(next(one.samples[0].value for one in families if one.name == "embedding_messages_embedded"))


def _is_ready(pod: Object) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def test_texts_flow_on_while_workers_are_added_replaced_one_at_a_time_and_drained(
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

        pipeline.patch({"replicas": 1})
        (kept,) = watch.until_all_embed(1, before)
        assert kept in replaced
        pipeline.wait("Ready", "True")
    _assert_all_embedded(servers, f"{prefix}.out", feeder.written)
    assert pipeline.wait("CaughtUp", "True")


def _assert_all_embedded(servers: str, topic: str, written: list[str]) -> None:
    def lost() -> set[str]:
        return {*written} - {json.loads(message.value() or b"")["id"] for message in read_all(servers, topic)}

    # Which ones are missing says more than that time is up.
    with suppress(TimeoutError):
        wait_until(lambda: not lost(), 120, "texts that were written don't come out", interval=1)
    assert lost() == set()


def test_a_changed_secret_replaces_the_workers_who_then_know_the_new_token(
    system: System, pipelines: Pipelines
) -> None:
    def apply_secret(token: str) -> None:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "http"}, "stringData": {"token": token}}
        system.cluster.kubectl("apply", "--namespace", pipelines.namespace, "-f", "-", input=json.dumps(secret))

    apply_secret("the-first-token")
    pipeline = pipelines.apply("guarded", http={"tokenSecret": {"name": "http"}})
    pipeline.wait_until_ready()
    (old,) = pipeline.pods()
    assert answer(pipeline, old, "the-first-token") == 200

    apply_secret("the-second-token")
    pipeline.until(
        lambda: checksum(pipeline) != old["metadata"]["annotations"][CHECKSUM],
        "the Deployment doesn't follow the Secret",
        2 * RESYNC_SECONDS + 10,
    )
    pipeline.until(lambda: [pod["metadata"]["name"] for pod in pipeline.pods()] != [old["metadata"]["name"]], "no roll")
    pipeline.wait("Ready", "True")
    (new,) = (pod for pod in pipeline.pods() if "deletionTimestamp" not in pod["metadata"])
    assert new["metadata"]["name"] != old["metadata"]["name"]
    assert answer(pipeline, new, "the-first-token") == 401
    assert answer(pipeline, new, "the-second-token") == 200


CHECKSUM = "embeddings.dev/secrets-checksum"
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

    with pytest.raises(CommandFailed) as refused:
        pipeline.patch({"model": {"maxLength": 64}})
    assert "AllowMixed" in str(refused.value)
    assert "spec.output.topic" in str(refused.value)

    pipeline.patch({"model": {"maxLength": 64, "changePolicy": "AllowMixed"}})
    pipeline.wait("Ready", "True")
    kafka_state.write_texts(servers, f"{prefix}.in", {"two": "a text"})
    assert kafka_state.embedded(servers, f"{prefix}.out", ["one", "two"], 120) == ["one", "two"]
    first, second = (contract for _, contract in sorted(contracts(servers, f"{prefix}.out").items()))
    assert first != second

    strict = {"maxLength": 32, "changePolicy": "RequireNewOutputTopic"}
    pipeline.patch({"model": strict, "output": {"topic": f"{prefix}.out-32"}})
    pipeline.wait("Ready", "True")
    kafka_state.write_texts(servers, f"{prefix}.in", {"three": "a text"})
    assert kafka_state.embedded(servers, f"{prefix}.out-32", ["three"], 120) == ["three"]
    assert contracts(servers, f"{prefix}.out-32")["three"] not in (first, second)
    assert contracts(servers, f"{prefix}.out").keys() == {"one", "two"}


def contracts(servers: str, topic: str) -> dict[str, object]:
    """The contracts of the vectors in a topic, by the ids of their texts."""
    return {
        json.loads(message.value() or b"")["id"]: dict(message.headers() or ())["embedding-contract"]
        for message in read_all(servers, topic)
    }

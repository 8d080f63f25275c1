"""Texts that flow into a pipeline while something changes, and its workers as they come and go meanwhile."""

import itertools
import json
import threading
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaError, Message, Producer
from prometheus_client.parser import text_string_to_metric_families

from kafka_helpers import read_all
from system_fixtures import Object, Pipeline
from testcluster.errors import CommandFailed
from waiting import wait_until

# A trickle that lasts: what is tested is the change, not the speed.
_PAUSE_SECONDS = 0.2


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


def assert_all_embedded(servers: str, topic: str, written: list[str]) -> None:
    """Wait until each of these texts has come out at least once."""

    def lost() -> set[str]:
        return {*written} - {json.loads(message.value() or b"")["id"] for message in read_all(servers, topic)}

    # Which ones are missing says more than that time is up.
    with suppress(TimeoutError):
        wait_until(lambda: not lost(), 120, "texts that were written don't come out", interval=1)
    assert lost() == set()

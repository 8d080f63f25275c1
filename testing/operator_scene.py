"""A pipeline that the operator looks at: an API server and brokers in memory, and seconds that pass when told."""

import json
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

from kubernetes.dynamic.exceptions import DynamicApiError, api_exception

from embedding_operator.api import EmbeddingPipeline
from embedding_operator.observed import Kafka, Object
from embedding_operator.reconcile import Reconciler
from embedding_operator.store import Store
from embedding_operator.topics import NewTopic
from manual_clock import Clock
from operator_objects import SETTINGS, kafka, topic

KEY = ("search", "articles")


def answer(status: int, message: str = "no") -> DynamicApiError:
    """What the client raises for an answer of the API server."""
    body = json.dumps({"kind": "Status", "message": message})
    raised: DynamicApiError = api_exception(SimpleNamespace(status=status, reason="R", body=body, headers={}))
    return raised


class FakeCluster:
    """An API server that takes everything, but for applied objects while there is a ``failure``."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.applied: list[str] = []
        self.scaled: list[int] = []
        self.status: Object = {}
        self._version = 1

    def apply(self, built: Object) -> Object:
        """As ``Cluster`` does."""
        if self.failure is not None:
            raise self.failure
        self.applied.append(built["kind"])
        spec = {"spec": {"replicas": 1} | built["spec"]} if built["kind"] == "Deployment" else {}
        return self._stored(built | spec, f"uid-{built['kind']}")

    def scale(self, _namespace: str, _name: str, replicas: int) -> None:
        """As ``Cluster`` does."""
        self.scaled.append(replicas)

    def write_status(self, stored: Object, status: Mapping[str, Any]) -> Object:
        """As ``Cluster`` does."""
        self.status = dict(status)
        return self._stored(stored, stored["metadata"]["uid"]) | {"status": self.status}

    def create_event(self, namespace: str, event: Object) -> None:
        """Take it."""

    def next_version(self) -> int:
        """Of whatever is written next."""
        self._version += 1
        return self._version

    def _stored(self, found: Object, uid: str) -> Object:
        return found | {"metadata": found["metadata"] | {"uid": uid, "resourceVersion": str(self.next_version())}}


class FakeBrokers:
    """Brokers that have the topics of ``names``, and make others."""

    def __init__(self) -> None:
        self.names = ["in", "out", "out-deadletter"]

    def client(self, _: object) -> "FakeBrokers":
        """Be the client of all clusters."""
        return self

    def observe(self, _: object) -> Kafka:
        """As a client does."""
        return kafka(*(topic(name) for name in self.names))

    def configs(self, names: Iterable[str]) -> Mapping[str, Mapping[str, str]]:
        """As a client does."""
        return {name: {} for name in names}

    def create(self, new: Iterable[NewTopic]) -> tuple[dict[str, str], None]:
        """As a client does."""
        made = {one.name: f"id-{one.name}" for one in new}
        self.names += made
        return made, None

    def change(self, _: object) -> None:
        """Nothing is to be changed."""


class Scene:
    """A pipeline that is looked at."""

    def __init__(self, given: EmbeddingPipeline) -> None:
        self.cluster, self.brokers, self.store, self.clock = FakeCluster(), FakeBrokers(), Store(), Clock()
        self.edit(given)
        cluster, brokers = cast("Any", self.cluster), cast("Any", self.brokers)
        self.reconciler = Reconciler(cluster, brokers, self.store, SETTINGS, lambda _: None, self.clock)

    def edit(self, given: EmbeddingPipeline) -> None:
        """Somebody writes the pipeline; its status stays."""
        written = given.model_dump(by_alias=True, exclude_none=True)
        metadata = written["metadata"] | {"resourceVersion": str(self.cluster.next_version())}
        status = {"status": self.cluster.status} if self.cluster.status else {}
        self.store.put_pipeline(written | status | {"metadata": metadata})

    def look(self, failure: Exception | None = None, after: float = 0.0) -> float | None:
        """Look after so many seconds; returns the seconds until the next look."""
        self.clock.now += after
        self.cluster.failure = failure
        return self.reconciler.reconcile(KEY)

    def told(self, kind: str = "WorkersReady") -> tuple[str, str]:
        """Reason and message of a condition."""
        (found,) = [one for one in self.cluster.status["conditions"] if one["type"] == kind]
        return found["reason"], found["message"]

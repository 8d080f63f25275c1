"""A pipeline that the operator looks at: an API server and brokers in memory, and seconds that pass when told."""

import json
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

from kubernetes.dynamic.exceptions import DynamicApiError, api_exception
from prometheus_client import CollectorRegistry

from embedding_operator.api import EmbeddingPipeline
from embedding_operator.brokers import Brokers, BrokersError
from embedding_operator.metrics import PipelineFigures
from embedding_operator.observed import Kafka, Object, Problem
from embedding_operator.reconcile import Reconciler
from embedding_operator.settings import LagProvider
from embedding_operator.store import Key, Store
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
    """An API server that takes everything, but for applied objects while there is a ``failure``.

    And for the pipeline's number of replicas, while that is ``denied``.
    """

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.denied: Exception | None = None
        self.applied: list[str] = []
        self.scaled: list[int] = []
        self.deleted: list[str] = []
        # Of the pipeline, where it was set.
        self.replicas: int | None = None
        # Whether what autoscalers go by is served, and how often that was asked for.
        self.served, self.asked = False, 0
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

    def delete(self, _found: Object, kind: str) -> None:
        """As ``Cluster`` does."""
        self.deleted.append(kind)

    def serves(self, _group_version: str) -> bool:
        """As ``Cluster`` does."""
        self.asked += 1
        return self.served

    def set_replicas(self, stored: Object, replicas: int) -> Object:
        """As ``Cluster`` does."""
        if self.denied is not None:
            raise self.denied
        self.replicas = replicas
        written = self._stored(stored, stored["metadata"]["uid"])
        return written | {"spec": stored["spec"] | {"replicas": replicas}}

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
    """Brokers that have the topics of ``names``, of so many partitions each, and make others."""

    def __init__(self) -> None:
        self.names = ["in", "out", "out-deadletter"]
        self.partitions = 3
        self.lag: int | None = 0
        self.problem: Problem | None = None

    def client(self, _: object) -> "FakeBrokers":
        """Be the client of all clusters."""
        return self

    def observe(self, _: object) -> Kafka:
        """As a client does."""
        if self.problem is not None:
            raise BrokersError(self.problem)
        return kafka(*(topic(name, self.partitions) for name in self.names), lag=self.lag)

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
    """A pipeline that is looked at; ``brokers`` are real ones in place of those in memory."""

    def __init__(
        self, given: EmbeddingPipeline, brokers: Brokers | None = None, lag_provider: LagProvider = "none"
    ) -> None:
        self.cluster, self.brokers, self.store, self.clock = FakeCluster(), FakeBrokers(), Store(), Clock()
        self.edit(given)
        self.figures = PipelineFigures(self.clock)
        cluster, asked = cast("Any", self.cluster), cast("Any", brokers or self.brokers)
        settings = SETTINGS.model_copy(update={"lag_provider": lag_provider})
        self.reconciler = Reconciler(cluster, asked, self.store, settings, lambda _: None, self.figures, self.clock)

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

    def exported(self, metric: str, key: Key = KEY) -> float | None:
        """What Prometheus would be told of a pipeline now."""
        registry = CollectorRegistry()
        registry.register(self.figures)
        return registry.get_sample_value(metric, {"namespace": key[0], "name": key[1]})

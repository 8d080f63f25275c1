"""Writes that fail: what the status says of them, from when on, and that they are made again."""

import json
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from kubernetes.dynamic.exceptions import ConflictError, DynamicApiError, api_exception
from urllib3.exceptions import HTTPError, ProtocolError

from embedding_operator.observed import Kafka, Object
from embedding_operator.reconcile import Reconciler
from embedding_operator.store import Store
from operator_objects import SETTINGS, kafka, pipeline

KEY = ("search", "articles")
WEBHOOK = 'Internal error occurred: failed calling webhook "pods.example.com": connection refused'
TOLD = (
    f"the API server can't write an object of this pipeline: {WEBHOOK}; mend what this names, such as an admission "
    "webhook that doesn't answer; it is tried again by itself"
)


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
        self.status: Object = {}
        self._version = 1

    def apply(self, built: Object) -> Object:
        if self.failure is not None:
            raise self.failure
        self.applied.append(built["kind"])
        return self._stored(built, f"uid-{built['kind']}")

    def write_status(self, stored: Object, status: Mapping[str, Any]) -> Object:
        self.status = dict(status)
        return self._stored(stored, stored["metadata"]["uid"]) | {"status": self.status}

    def create_event(self, namespace: str, event: Object) -> None:
        """Take it."""

    def _stored(self, found: Object, uid: str) -> Object:
        self._version += 1
        return found | {"metadata": found["metadata"] | {"uid": uid, "resourceVersion": str(self._version)}}


class FakeBrokers:
    """Brokers that have all topics."""

    def client(self, _: object) -> "FakeBrokers":
        return self

    def observe(self, _: object) -> Kafka:
        return kafka()

    def configs(self, names: Iterable[str]) -> Mapping[str, Mapping[str, str]]:
        return {name: {} for name in names}


class Scene:
    """A pipeline that is looked at, and seconds that pass when told."""

    def __init__(self) -> None:
        self.cluster, self.now = FakeCluster(), 0.0
        store = Store()
        given = pipeline().model_dump(by_alias=True, exclude_none=True)
        store.put_pipeline(given | {"metadata": given["metadata"] | {"resourceVersion": "1"}})
        brokers = cast("Any", FakeBrokers())
        cluster = cast("Any", self.cluster)
        self.reconciler = Reconciler(cluster, brokers, store, SETTINGS, lambda _: None, lambda: self.now)

    def look(self, failure: Exception | None, after: float = 0.0) -> float | None:
        """Look after so many seconds; returns the seconds until the next look."""
        self.now += after
        self.cluster.failure = failure
        return self.reconciler.reconcile(KEY)

    def retried(self, failure: Exception, after: float = 0.0) -> bool:
        """Whether a look ends in a retry and leaves the status as it was."""
        before = self.cluster.status
        with pytest.raises((DynamicApiError, HTTPError)):
            self.look(failure, after)
        return self.cluster.status == before

    def told(self, kind: str = "WorkersReady") -> tuple[str, str]:
        """Reason and message of a condition."""
        (found,) = [one for one in self.cluster.status["conditions"] if one["type"] == kind]
        return found["reason"], found["message"]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_dead_webhook_is_told_of_by_the_status_once_it_lasts(scene: Scene) -> None:
    assert scene.retried(answer(500, WEBHOOK))
    assert scene.retried(answer(500, WEBHOOK), after=9)
    assert scene.cluster.status == {}
    scene.look(answer(500, WEBHOOK), after=1)
    assert scene.told() == scene.told("Ready") == ("WriteFailed", TOLD)


def test_a_write_that_failed_is_made_again_at_the_next_look_and_the_status_follows(scene: Scene) -> None:
    assert scene.retried(answer(500))
    assert scene.look(answer(500), after=10) == 10
    assert scene.look(answer(500), after=10) == 10
    assert scene.told()[0] == "WriteFailed"
    scene.look(None, after=10)
    assert scene.cluster.applied == ["ConfigMap", "Service", "PodDisruptionBudget", "Deployment"]
    assert scene.told()[0] == "Progressing"


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_every_broken_answer_that_lasts_is_told(scene: Scene, status: int) -> None:
    assert scene.retried(answer(status))
    scene.look(answer(status), after=10)
    assert scene.told()[0] == "WriteFailed"


@pytest.mark.parametrize("status", [400, 403, 422])
def test_what_is_refused_for_good_is_told_at_once(scene: Scene, status: int) -> None:
    scene.look(answer(status, "exceeded quota"))
    reason, message = scene.told()
    assert reason == "Rejected"
    assert message.startswith("the API server refuses an object of this pipeline: exceeded quota; ")


# What passes by itself.
PASSING = {
    "a conflict": answer(409),
    "too many requests": answer(429),
    "a lost connection": ProtocolError("connection aborted"),
}


@pytest.mark.parametrize("failure", PASSING.values(), ids=PASSING.keys())
def test_the_status_stays_as_it_is_however_long_it_lasts_with(scene: Scene, failure: Exception) -> None:
    assert scene.retried(failure)
    assert scene.retried(failure, after=3600)


@pytest.mark.parametrize("failure", PASSING.values(), ids=PASSING.keys())
def test_what_was_told_of_a_dead_webhook_does_not_come_and_go_with(scene: Scene, failure: Exception) -> None:
    assert scene.retried(answer(500, WEBHOOK))
    scene.look(answer(500, WEBHOOK), after=10)
    assert scene.retried(failure, after=10)
    assert scene.retried(answer(500, WEBHOOK), after=10)
    scene.look(answer(500, WEBHOOK), after=10)
    assert scene.told() == ("WriteFailed", TOLD)


def test_an_api_server_that_restarts_is_not_told_of(scene: Scene) -> None:
    assert scene.retried(answer(500))
    assert scene.retried(ProtocolError("connection refused"), after=5)
    assert scene.retried(ProtocolError("connection refused"), after=30)
    # It is about to be ready.
    assert scene.retried(answer(503), after=1)
    scene.look(None, after=1)
    assert scene.told()[0] == "Progressing"


def test_an_object_that_somebody_else_has_just_changed_is_left_to_the_next_look(scene: Scene) -> None:
    with pytest.raises(ConflictError):
        scene.look(answer(409))

"""Secrets that variables of ``spec.worker.env`` are read from: which are read, and when a change rolls the workers."""

from collections.abc import Mapping
from typing import Any, cast

import pytest

from embedding_operator.api import EmbeddingPipeline
from embedding_operator.brokers import Brokers
from embedding_operator.cluster import Cluster
from embedding_operator.credentials import gather, secret_names
from embedding_operator.memory import Memory
from embedding_operator.observe import Observer
from embedding_operator.observed import Object, Observed, Secrets
from embedding_operator.store import Store
from manual_clock import Clock
from operator_objects import SETTINGS, desired, observed, pipeline, planned, stored

KEY = ("search", "articles")
DATA: dict[str, Mapping[str, str] | None] = {"proxy": {"password": "a secret", "user": "me"}}
BROKERS = {
    "bootstrapServers": ["kafka:9093"],
    "sasl": {"mechanism": "PLAIN", "credentialsSecret": {"name": "user"}},
}


def from_secret(name: str = "proxy", key: str = "password", **others: Any) -> Object:
    return {"secretKeyRef": {"name": name, "key": key} | others}


def with_env(*sources: Object, **spec: Any) -> EmbeddingPipeline:
    """A pipeline with a variable for each source of a value."""
    env = [{"name": f"V{number}", "valueFrom": source} for number, source in enumerate(sources)]
    return pipeline(worker={"env": env}, **spec)


def running_with(wanted: EmbeddingPipeline, before: Secrets, now: Secrets) -> Observed:
    """Workers run with the Secrets as they were before."""
    objects = {kind: stored(one) for kind, one in desired(wanted, before.checksum).items()}
    objects["Deployment"]["spec"]["replicas"] = 1
    return observed(wanted, objects=objects, secrets=now)


def rolls(wanted: EmbeddingPipeline, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the workers are rolled after Secrets have changed."""
    plan = planned(running_with(wanted, gather(wanted, before), gather(wanted, now)))
    assert plan.scale is None
    return [built["kind"] for built in plan.apply] == ["Deployment"]


class FakeCluster:
    """Secrets by their names, and which were asked for."""

    def __init__(self, secrets: Mapping[str, Mapping[str, str] | None]) -> None:
        self.secrets = secrets
        self.asked: list[tuple[str, str]] = []

    def secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        self.asked.append((namespace, name))
        return self.secrets.get(name)


def read(cluster: FakeCluster, wanted: EmbeddingPipeline) -> Secrets:
    """The Secrets of a pipeline as the operator reads them."""
    store = Store()
    observer = Observer(cast("Cluster", cluster), cast("Brokers", None), store, Memory(), SETTINGS)
    return observer.secrets(KEY, wanted)


def test_what_was_read_of_a_secret_is_never_older_than_a_resync() -> None:
    cluster, clock = FakeCluster(DATA), Clock()
    observer = Observer(cast("Cluster", cluster), cast("Brokers", None), Store(), Memory(clock), SETTINGS)
    read_at: float | None = None
    for _ in range(20):
        before = len(cluster.asked)
        observer.secrets(KEY, with_env(from_secret()))
        read_at = clock.now if len(cluster.asked) > before else read_at
        assert read_at is not None
        # What has changed since then is seen at the next look.
        clock.now += SETTINGS.look_seconds(1)
        assert clock.now - read_at <= SETTINGS.resync_seconds
    assert len(cluster.asked) < 20


def test_a_changed_value_rolls_the_workers() -> None:
    assert rolls(with_env(from_secret()), DATA, {"proxy": {"password": "another"}})


def test_the_same_value_and_other_keys_leave_the_workers_alone() -> None:
    assert not rolls(with_env(from_secret()), DATA, DATA)
    assert not rolls(with_env(from_secret()), DATA, {"proxy": {"password": "a secret", "user": "somebody else"}})


def test_a_secret_is_read_in_the_pipelines_own_namespace_once_for_all_of_its_keys() -> None:
    cluster = FakeCluster(DATA)
    found = read(cluster, with_env(from_secret(), from_secret(key="user")))
    assert cluster.asked == [("search", "proxy")]
    assert found.checksum == gather(with_env(from_secret(), from_secret(key="user")), DATA).checksum is not None


def test_what_a_variable_alone_is_read_from_is_nowhere_but_in_the_checksum() -> None:
    both = with_env(from_secret(), kafka=BROKERS)
    user = {"username": "embedder", "password": "another secret"}
    found = gather(both, DATA | {"user": user})
    assert found.data == {"user": user}


MISSING: dict[str, Mapping[str, Any]] = {"the Secret": {}, "its key": {"proxy": {"another": "value"}}}


@pytest.mark.parametrize("now", MISSING.values(), ids=MISSING.keys())
def test_workers_go_on_without_a_roll_when_this_goes_missing(now: Mapping[str, Any]) -> None:
    wanted = with_env(from_secret())
    assert gather(wanted, DATA).checksum is not None
    assert not rolls(wanted, DATA, now)
    # The kubelet says it of pods that need it; until then nothing is wrong.
    assert gather(wanted, now).problem is None


@pytest.mark.parametrize("now", MISSING.values(), ids=MISSING.keys())
def test_new_workers_are_still_made_for_the_kubelet_to_say_of_them_that_this_is_missing(now: Mapping[str, Any]) -> None:
    wanted = with_env(from_secret())
    plan = planned(observed(wanted, objects={}, secrets=gather(wanted, now)))
    assert "Deployment" in [built["kind"] for built in plan.apply]


def test_a_missing_secret_does_not_keep_the_operator_from_the_brokers() -> None:
    found = gather(
        with_env(from_secret(), kafka=BROKERS), {"user": {"username": "embedder", "password": "another secret"}}
    )
    assert (found.problem, found.data["user"]["username"]) == (None, "embedder")


def test_another_secret_that_changes_rolls_the_workers_though_an_optional_one_was_never_there() -> None:
    wanted = with_env(from_secret(), from_secret("extra", optional=True))
    assert rolls(wanted, DATA, {"proxy": {"password": "another"}})
    assert not rolls(wanted, DATA, DATA)


def test_an_optional_secret_that_comes_or_changes_rolls_the_workers() -> None:
    wanted = with_env(from_secret(optional=True))
    assert rolls(wanted, {}, DATA)
    assert rolls(wanted, DATA, {"proxy": {"password": "another"}})


def test_an_empty_value_is_a_value() -> None:
    wanted = with_env(from_secret())
    assert rolls(wanted, DATA, {"proxy": {"password": ""}})


# What the API server refuses or reads elsewhere, or what would lead to another object → no Secret is read for it.
OTHERS: dict[str, Object] = {
    "a ConfigMap": {"configMapKeyRef": {"name": "settings", "key": "k"}},
    "a field of the pod": {"fieldRef": {"fieldPath": "metadata.name"}},
    "nothing": {},
    "a reference that is none": {"secretKeyRef": "proxy"},
    "no name": {"secretKeyRef": {"key": "k"}},
    "no key": {"secretKeyRef": {"name": "proxy"}},
    "a name that is none": {"secretKeyRef": {"name": 7, "key": "k"}},
    "a name in another namespace": from_secret("../../other/secrets/proxy"),
    "a name with a query": from_secret("proxy?watch=true"),
}


@pytest.mark.parametrize("source", OTHERS.values(), ids=OTHERS.keys())
def test_no_secret_is_read_for_a_variable_from(source: Object) -> None:
    assert secret_names(with_env(source)) == frozenset()
    assert gather(with_env(source), {}) == Secrets()

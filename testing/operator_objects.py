"""Pipelines, and what is found of them: what tests of the operator's decisions are made of."""

import copy
from datetime import UTC, datetime
from functools import cache
from typing import Any

from embedding_operator import scaling
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.desired.state import desired_state
from embedding_operator.observed import Kafka, Object, Observed, Progress, Secrets, Topic
from embedding_operator.plan import Plan, decide, secrets_checksum
from embedding_operator.settings import LagProvider, OperatorSettings

SETTINGS = OperatorSettings(worker_image="registry.example/embedding-worker:1")
NOW = datetime(2026, 1, 2, 3, 30, tzinfo=UTC)
CLUSTER = "5L6g3nShT-eMCtK--X86sw"
_SECTIONS = {"kafka": {"bootstrapServers": ["kafka:9092"]}, "input": {"topic": "in"}, "output": {"topic": "out"}}


def pipeline(
    name: str = "articles", *, metadata: Object | None = None, status: Object | None = None, **spec: Any
) -> EmbeddingPipeline:
    """A pipeline from topic ``in`` to topic ``out``; ``spec`` by the manifest's own names."""
    given = {"name": name, "namespace": "search", "uid": f"uid-{name}", "generation": 1}
    return EmbeddingPipeline.model_validate(
        {
            "apiVersion": "embeddings.dev/v1alpha1",
            "kind": "EmbeddingPipeline",
            "metadata": given | {"creationTimestamp": "2026-01-02T03:04:05Z"} | (metadata or {}),
            "spec": _SECTIONS | spec,
        }
        | ({} if status is None else {"status": status})
    )


def desired(
    found: EmbeddingPipeline,
    secrets: str | None = None,
    partitions: int | None = None,
    lag_provider: LagProvider = "none",
    *,
    stopped: bool = False,
) -> dict[str, Object]:
    """What a pipeline should have, by kind."""
    document = found.model_dump_json(by_alias=True, exclude_none=True, exclude={"status"})
    return copy.deepcopy(_built(document, secrets, partitions, lag_provider, stopped=stopped))


@cache
def _built(
    document: str, secrets: str | None, partitions: int | None, lag_provider: LagProvider, *, stopped: bool
) -> dict[str, Object]:
    # Some milliseconds, for hundreds of tests that ask for the same.
    found = EmbeddingPipeline.model_validate_json(document)
    settings = SETTINGS.model_copy(update={"lag_provider": lag_provider})
    return {built["kind"]: built for built in desired_state(found, settings, secrets, partitions, stopped=stopped)}


def stored(built: Object, **metadata: Any) -> Object:
    """An object as the API server keeps it, but for its defaults."""
    found = copy.deepcopy(built)
    found["metadata"] |= {"uid": f"uid-{built['kind']}", "resourceVersion": "1", "generation": 1} | metadata
    return found


def rolled_out(found: EmbeddingPipeline, replicas: int | None = None) -> Object:
    """The workers' Deployment with all of its workers ready."""
    count = found.spec.replicas if replicas is None else replicas
    live = stored(desired(found)["Deployment"])
    live["spec"]["replicas"] = count
    counts = {"replicas": count, "updatedReplicas": count, "availableReplicas": count}
    return live | {"status": {"observedGeneration": 1} | counts}


def autoscaler(found: EmbeddingPipeline, *told: tuple[str, str, str, str]) -> Object:
    """The autoscaler of a pipeline, of which Kubernetes says this: type, status, reason and message."""
    conditions = [dict(zip(("type", "status", "reason", "message"), one, strict=True)) for one in told]
    built = desired(found, partitions=3, lag_provider="external")["HorizontalPodAutoscaler"]
    return stored(built) | {"status": {"conditions": conditions}}


def scaled_object(found: EmbeddingPipeline, *told: tuple[str, str, str, str]) -> Object:
    """KEDA's ScaledObject of a pipeline, of which KEDA says this."""
    conditions = [dict(zip(("type", "status", "reason", "message"), one, strict=True)) for one in told]
    return stored(desired(found, partitions=3, lag_provider="keda")["ScaledObject"]) | {
        "status": {"conditions": conditions}
    }


def pod(name: str = "w-1", *, ready: bool = False, created: str = "2026-01-02T03:04:05Z", **status: Any) -> Object:
    """A worker's pod, of the template of ``pipeline()``."""
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    annotations = {"annotations": dict(_annotations())}
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": created} | annotations,
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions} | status,
    }


@cache
def _annotations() -> Object:
    found: Object = desired(pipeline())["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    return found


def container(**status: Any) -> Object:
    """The part of a pod's status that is about the worker's container."""
    return {"containerStatuses": [{"name": "worker", "image": "registry.example/worker:1"} | status]}


def topic(name: str, partitions: int = 3, **config: str) -> Topic:
    """A topic as the brokers have it; ``config`` with ``_`` for dots."""
    return Topic(name, f"id-{name}", partitions, {key.replace("_", "."): value for key, value in config.items()})


def kafka(*topics: Topic, lag: int | None = 0, dead_letters: int | None = 0) -> Kafka:
    """What the brokers say, by default of a pipeline that has all of its topics and has caught up."""
    found = topics or (topic("in"), topic("out"), topic("out-deadletter"))
    progress = None if lag is None else Progress("id-in", lag, (100,), (0,), 0.0)
    return Kafka(CLUSTER, {one.name: one for one in found}, progress, dead_letters)


def observed(found: EmbeddingPipeline | None = None, **others: Any) -> Observed:
    """What is found of a pipeline at which all is well, but for ``others``."""
    of = pipeline() if found is None else found
    # The topics of `kafka()` have three partitions.
    built = desired(of, partitions=3, lag_provider=others.get("lag_provider", "none"), stopped=of.spec.paused)
    objects = {kind: stored(one) for kind, one in built.items()} | {"Deployment": rolled_out(of)}
    pods = tuple(pod(f"w-{number}", ready=True) for number in range(of.spec.replicas))
    well: dict[str, Any] = {"objects": objects, "pods": pods, "secrets": Secrets(), "kafka": kafka(), "now": NOW}
    return Observed(pipeline=of, **(well | others))


def planned(found: Observed) -> Plan:
    """What is to be done about it."""
    partitions, by = scaling.cap(found), found.lag_provider
    built = desired(found.pipeline, secrets_checksum(found), partitions, by, stopped=found.stopped)
    return decide(found, tuple(built.values()))

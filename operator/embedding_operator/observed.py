"""What was found of a pipeline: in the cluster, in its Secrets and at its brokers. Types, and how objects are read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from embedding_operator.api import EmbeddingPipeline
from embedding_operator.settings import LagProvider
from embedding_service.contract.stats import ModelStats

# A Kubernetes object as JSON.
Object = dict[str, Any]


def condition(found: Object | None, kind: str) -> Object:
    """The condition of this type that an object has; empty where it has none, or isn't there."""
    told = (found or {}).get("status", {}).get("conditions") or []
    return next((one for one in told if one["type"] == kind), {})


@dataclass(frozen=True, slots=True)
class Problem:
    """What is in the way: a reason of ``reasons``, and a sentence that says what to do."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Secrets:
    """The Secrets that a pipeline names: a checksum of what the workers read of them, or what is missing."""

    # By the name of the Secret: its data, decoded. Those of ``spec.worker.env`` alone are only in the checksum.
    data: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    checksum: str | None = None
    problem: Problem | None = None
    # Whether all that is needed for ``spec.worker.env`` is there.
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the brokers have it; ``config`` by Kafka's names, for all that has a value."""

    name: str
    id: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


class Offsets(NamedTuple):
    """By partition of a topic: the first offset, and the one after the last that a reader of what is committed sees.

    ``topic_id`` is Kafka's: another one where a topic was made again under its name.
    """

    topic_id: str
    begins: list[int]
    ends: list[int]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a consumer group is in a topic, in offsets; ``at`` in seconds of a monotonic clock."""

    topic_id: str
    lag: int
    # By partition: where workers go on, and the first offset that there is.
    positions: tuple[int, ...]
    begins: tuple[int, ...]
    at: float
    # Whether no worker has begun yet, and the first one will skip what is there by then.
    skips: bool = False


@dataclass(frozen=True, slots=True)
class Kafka:
    """What the brokers say. A topic that they don't have is not among ``topics``."""

    cluster_id: str
    topics: Mapping[str, Topic]
    progress: Progress | None = None
    dead_letters: int | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that a decision about a pipeline rests on."""

    pipeline: EmbeddingPipeline
    # By kind.
    objects: Mapping[str, Object]
    pods: tuple[Object, ...]
    secrets: Secrets
    # What keeps the operator from the brokers, where it is not what they say.
    kafka: Kafka | Problem
    # When that was.
    now: datetime
    # Kafka's ids of the topics that the operator created for this pipeline.
    created: frozenset[str] = frozenset()
    # That another pipeline has the output topic or the group.
    conflict: Problem | None = None
    # What the API server refused, or couldn't write, at the last look.
    rejected: Problem | None = None
    # What the brokers refused at the last look: a topic that can't be made or changed.
    topic_problem: Problem | None = None
    model: ModelStats | None = None
    # What the platform has for the lag.
    lag_provider: LagProvider = "none"
    # Whether the cluster serves what an autoscaler goes by; asked for only where that lacks it.
    provider_served: bool = True
    # Records a second since the look before.
    rate: float | None = None

    @property
    def progress(self) -> Progress | None:
        """How far the workers are; ``None`` where nobody says, or where it would be another pipeline's."""
        return self.kafka.progress if isinstance(self.kafka, Kafka) and self.conflict is None else None

    @property
    def stopped(self) -> bool:
        """Whether no worker is to run at all."""
        return self.pipeline.spec.paused or self.conflict is not None

    @property
    def status(self) -> Mapping[str, Any]:
        """The status as it was last written."""
        return self.pipeline.status or {}

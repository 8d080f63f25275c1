"""What was found of a pipeline: in the cluster, in its Secrets and at its brokers. Types only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from embedding_operator.api import EmbeddingPipeline
from embedding_service.contract.stats import ModelStats

# A Kubernetes object as JSON.
Object = dict[str, Any]


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


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a consumer group is, in records; ``at`` in seconds of a monotonic clock."""

    lag: int
    committed: int
    at: float


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
    # Records a second since the look before.
    rate: float | None = None

    @property
    def status(self) -> Mapping[str, Any]:
        """The status as it was last written."""
        return self.pipeline.status or {}

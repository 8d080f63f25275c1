"""Which of several pipelines may write to a topic or read in a consumer group of one Kafka cluster; pure.

The one that already runs stays; else the older one; else the one with the smaller uid.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.observed import Problem
from embedding_operator.reasons import Reason


@dataclass(frozen=True, slots=True)
class Claim:
    """What a pipeline needs for itself alone, at the Kafka cluster with this id."""

    uid: str
    pipeline: str
    created: str
    cluster_id: str
    group: str
    output: str
    # Whether it was granted before: its workers run with it.
    held: bool


def claim(pipeline: EmbeddingPipeline, cluster_id: str) -> Claim:
    """What a pipeline claims, and by its status whether it has it."""
    metadata, status = pipeline.metadata, pipeline.status or {}
    outputs = [entry["name"] for entry in status.get("topics", ()) if entry["role"] == "Output"]
    group, output = names.consumer_group(pipeline), pipeline.spec.output.topic
    held = status.get("kafkaClusterId") == cluster_id and status.get("consumerGroup") == group and outputs == [output]
    name = f"{metadata.namespace}/{metadata.name}"
    return Claim(metadata.uid, name, metadata.creation_timestamp, cluster_id, group, output, held)


def wants(claim: Claim) -> tuple[tuple[str, str, str], ...]:
    """What nobody else may have: claims without one of these in common don't touch each other."""
    return ((claim.cluster_id, "output", claim.output), (claim.cluster_id, "group", claim.group))


def conflict(own: Claim, others: Iterable[Claim]) -> Problem | None:
    """Why a pipeline must stand back, where it must: the first of those that come before it has what they all want."""
    known = list(others)
    before = [other for other in known if _overlap(own, other) and _rank(other) < _rank(own)]
    # One that waits itself for a third takes nothing yet.
    before = [other for other in before if other.held or not any(one.held and _overlap(other, one) for one in known)]
    if not before:
        return None
    owner = min(before, key=_rank)
    if owner.output == own.output:
        what, field = f"output topic '{own.output}'", "spec.output.topic"
    else:
        what, field = f"consumer group '{own.group}'", "spec.input.consumerGroup"
    message = f"{what} of this Kafka cluster belongs to pipeline {owner.pipeline}; name another in {field}"
    return Problem(Reason.CONFLICT, f"{message}, or delete that pipeline")


def _overlap(own: Claim, other: Claim) -> bool:
    same = other.output == own.output or other.group == own.group
    return other.uid != own.uid and other.cluster_id == own.cluster_id and same


def _rank(claim: Claim) -> tuple[bool, str, str]:
    # RFC 3339 in UTC sorts as text.
    return (not claim.held, claim.created, claim.uid)

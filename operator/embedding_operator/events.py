"""Events of a pipeline: what ``kubectl describe`` shows happened. Only of transitions."""

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from kubernetes.dynamic.exceptions import DynamicApiError
from urllib3.exceptions import HTTPError

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.cluster import Cluster
from embedding_operator.conditions import FALSE, Condition

logger = logging.getLogger(__name__)

_LONGEST = 1024  # characters of a message that the API server takes


def transitions(
    cluster: Cluster, pipeline: EmbeddingPipeline, before: Mapping[str, Any], found: tuple[Condition, ...]
) -> None:
    """Tell that a pipeline became ready, or why it isn't any more."""
    ready = found[0]
    old = next((told for told in before.get("conditions", ()) if told["type"] == ready.type), None)
    if old is None or (old["status"], old["reason"]) != (ready.status, ready.reason):
        kind = "Warning" if ready.status == FALSE and ready.reason not in _HARMLESS else "Normal"
        post(cluster, pipeline, kind, ready.reason, ready.message)


# What belongs to a start, an update or a wish.
_HARMLESS = frozenset({"Progressing", "CreatingTopics", "Paused", "ScaledToZero"})


def created_topics(cluster: Cluster, pipeline: EmbeddingPipeline, topics: Iterable[str]) -> None:
    """Tell that topics were made; in one event, since many pipelines may begin at once."""
    post(cluster, pipeline, "Normal", "TopicCreated", f"created in Kafka: {', '.join(topics)}")


def post(cluster: Cluster, pipeline: EmbeddingPipeline, kind: str, reason: str, message: str) -> None:
    """Post an event, ``Normal`` or ``Warning``. Where it can't be posted, that is logged: an event is only news."""
    metadata = pipeline.metadata
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{metadata.name}.", "namespace": metadata.namespace},
        "involvedObject": {
            "apiVersion": pipeline.api_version,
            "kind": pipeline.kind,
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
        },
        "type": kind,
        "reason": str(reason),
        "message": message[:_LONGEST],
        "source": {"component": names.FIELD_MANAGER},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    logger.info("%s/%s: %s: %s", metadata.namespace, metadata.name, reason, message)
    try:
        cluster.create_event(metadata.namespace, event)
    except (DynamicApiError, HTTPError) as error:
        logger.warning("%s/%s: the event can't be posted: %s", metadata.namespace, metadata.name, error)

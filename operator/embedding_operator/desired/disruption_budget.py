"""The PodDisruptionBudget: nodes are drained one worker at a time."""

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.desired.metadata import Object, metadata


def disruption_budget(pipeline: EmbeddingPipeline) -> Object:
    """The Kubernetes object."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(pipeline),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": names.match_labels(pipeline)},
            # A worker that can't run must not keep its node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }

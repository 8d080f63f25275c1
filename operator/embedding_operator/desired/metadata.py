"""What is the same in every object of a pipeline."""

from typing import Any

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline

# A Kubernetes object as JSON.
Object = dict[str, Any]


def metadata(pipeline: EmbeddingPipeline) -> Object:
    """Name, namespace, labels, and the owner with which the object goes away."""
    return {
        "name": names.worker(pipeline),
        "namespace": pipeline.metadata.namespace,
        "labels": names.labels(pipeline),
        "ownerReferences": [
            {
                "apiVersion": pipeline.api_version,
                "kind": pipeline.kind,
                "name": pipeline.metadata.name,
                "uid": pipeline.metadata.uid,
                "controller": True,
            }
        ],
    }

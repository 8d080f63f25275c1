"""The Service through which the workers' HTTP is reached."""

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.desired.metadata import Object, metadata
from embedding_operator.desired.pod import HTTP_PORT


def service(pipeline: EmbeddingPipeline) -> Object:
    """The Kubernetes object; it answers with the workers that are ready."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(pipeline),
        "spec": {
            "type": "ClusterIP",
            "selector": names.match_labels(pipeline),
            "ports": [{"name": HTTP_PORT, "port": 5000, "targetPort": HTTP_PORT, "protocol": "TCP"}],
        },
    }

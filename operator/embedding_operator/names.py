"""Every name, label and annotation that is derived from a pipeline; pure, and in this one place."""

from embedding_operator.api import EmbeddingPipeline
from embedding_service.contract import topics

# A pipeline's name has at most 45 characters, so that each object's name stays a DNS label of at most 63.
_WORKER_SUFFIX = "-embedding-worker"

# The key of the ConfigMap's data, and the name of the file that a worker reads.
CONFIG_FILE = "config.yaml"


def consumer_group(pipeline: EmbeddingPipeline) -> str:
    """The Kafka consumer group: the one asked for, else ``<namespace>.<name>``."""
    return pipeline.spec.input.consumer_group or f"{pipeline.metadata.namespace}.{pipeline.metadata.name}"


def dead_letter_topic(pipeline: EmbeddingPipeline) -> str:
    """The dead-letter topic: the one asked for, else ``<output topic>-deadletter``."""
    return pipeline.spec.dead_letter.topic or topics.dead_letter_topic(pipeline.spec.output.topic)


def config_map(pipeline: EmbeddingPipeline) -> str:
    """The name of the workers' ConfigMap."""
    return pipeline.metadata.name + _WORKER_SUFFIX


def labels(pipeline: EmbeddingPipeline) -> dict[str, str]:
    """The labels of every object that belongs to a pipeline."""
    return {
        "app.kubernetes.io/name": "embedding-worker",
        "app.kubernetes.io/instance": pipeline.metadata.name,
        "app.kubernetes.io/managed-by": "embedding-operator",
    }

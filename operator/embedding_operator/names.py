"""Every name, label and annotation that is derived from a pipeline; pure, and in this one place."""

from collections.abc import Mapping

from embedding_operator.api import EmbeddingPipeline
from embedding_service.contract import topics

# A pipeline's name has at most 45 characters, so that each object's name stays a DNS label of at most 63.
_WORKER_SUFFIX = "-embedding-worker"
_KEDA_SUFFIX = "-embedding-keda"

FIELD_MANAGER = "embedding-operator"
# Owns nothing but the number of replicas, which is set once and then left to whoever scales.
REPLICAS_FIELD_MANAGER = "embedding-operator-replicas"
FINALIZER = "embeddings.dev/kafka"

# The key of the ConfigMap's data, and the name of the file that a worker reads.
CONFIG_FILE = "config.yaml"
CONFIG_DIRECTORY = "/etc/embedding-service"
CA_DIRECTORY = "/etc/embedding-service-kafka/ca"
CA_FILE = f"{CA_DIRECTORY}/ca.crt"
CLIENT_CERTIFICATE_DIRECTORY = "/etc/embedding-service-kafka/client"
CACHE_DIRECTORY = "/var/cache/embedding-service"

# Of a worker pod: the container that is ours, beside what others may inject.
CONTAINER = "worker"

CONFIG_CHECKSUM = "embeddings.dev/config-checksum"
SECRETS_CHECKSUM = "embeddings.dev/secrets-checksum"
# By which a pod of the current template is told from one of a template before it.
TEMPLATE_CHECKSUM = "embeddings.dev/template-checksum"
# Of an autoscaler: spec.replicas as it was while it was ignored, so that a change of it is noticed afterwards.
REPLICAS = "embeddings.dev/replicas"
# Of a Deployment whose workers have GPUs, while an update goes on: how many of them it leaves running.
KEPT = "embeddings.dev/workers-kept"
# What an object was last applied from: tells a change of ours that takes a field away.
APPLIED = "embeddings.dev/applied"

_NAME = "app.kubernetes.io/name"
_INSTANCE = "app.kubernetes.io/instance"
_MANAGED_BY = "app.kubernetes.io/managed-by"
_WORKER = "embedding-worker"
_OPERATOR = "embedding-operator"

# Chooses every object that belongs to some pipeline, on the API server's side.
OWNED_SELECTOR = f"{_MANAGED_BY}={_OPERATOR},{_NAME}={_WORKER}"


def consumer_group(pipeline: EmbeddingPipeline) -> str:
    """The Kafka consumer group: the one asked for, else ``<namespace>.<name>``."""
    return pipeline.spec.input.consumer_group or f"{pipeline.metadata.namespace}.{pipeline.metadata.name}"


def dead_letter_topic(pipeline: EmbeddingPipeline) -> str:
    """The dead-letter topic: the one asked for, else ``<output topic>-deadletter``."""
    return pipeline.spec.dead_letter.topic or topics.dead_letter_topic(pipeline.spec.output.topic)


def worker(pipeline: EmbeddingPipeline) -> str:
    """The name of each object that belongs to a pipeline, of whatever kind."""
    return pipeline.metadata.name + _WORKER_SUFFIX


def owner(name: str) -> str | None:
    """The name of the pipeline that an object of this name belongs to."""
    for suffix in (_WORKER_SUFFIX, _KEDA_SUFFIX):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return None


def keda_autoscaler(pipeline: EmbeddingPipeline) -> str:
    """The name of the HorizontalPodAutoscaler that KEDA makes: not that of ours, which may not have gone yet."""
    return pipeline.metadata.name + _KEDA_SUFFIX


def is_kedas(name: str) -> bool:
    """Whether an object of this name is what KEDA makes of an object of ours."""
    return name.endswith(_KEDA_SUFFIX)


def labels(pipeline: EmbeddingPipeline) -> dict[str, str]:
    """The labels of every object that belongs to a pipeline."""
    return match_labels(pipeline) | {_MANAGED_BY: _OPERATOR}


def match_labels(pipeline: EmbeddingPipeline) -> dict[str, str]:
    """What the pods of a pipeline are found by; it never changes for a Deployment."""
    return {_NAME: _WORKER, _INSTANCE: pipeline.metadata.name}


def selector(pipeline: EmbeddingPipeline) -> str:
    """The same as a label selector."""
    return ",".join(f"{key}={value}" for key, value in sorted(match_labels(pipeline).items()))


def owner_of_pod(labels: Mapping[str, str]) -> str | None:
    """The name of the pipeline that a pod with these labels belongs to."""
    return labels.get(_INSTANCE)

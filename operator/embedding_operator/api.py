"""The EmbeddingPipeline as typed models, from the stored object.

The API server, or ``manifest`` in its place, has already applied defaults and the schema. The models repeat both, and
a test holds them equal to the CRD file, which alone carries the descriptions. Nothing is decided or derived here.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Section(BaseModel):
    # Strict, since the API server turns no "5" into 5; a field that is unknown here would silently do nothing.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=to_camel)


def _whole(value: object) -> object:
    # JSON knows only numbers: 256.0 is stored as such and is an integer to the API server.
    return int(value) if isinstance(value, float) and value.is_integer() else value


HostPort = Annotated[
    str, Field(max_length=261, pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?):[0-9]{1,5}$")
]
TopicName = Annotated[str, Field(max_length=249, pattern=r"^[a-zA-Z0-9._-]*[a-zA-Z0-9_-][a-zA-Z0-9._-]*$")]
ModelName = Annotated[
    str,
    Field(
        max_length=1024,
        pattern=r"^(/.+|[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?)$",
    ),
]
ShortText = Annotated[str, Field(min_length=1, max_length=255)]


class KafkaCluster(_Section):
    """The Kafka cluster."""

    bootstrap_servers: Annotated[tuple[HostPort, ...], Field(strict=False, min_length=1, max_length=32)]


class Input(_Section):
    """Where the texts come from, and what their records look like."""

    topic: TopicName
    consumer_group: ShortText | None = None
    start_from: Literal["Earliest", "Latest"] = "Earliest"
    text_field: ShortText = "text"
    id_field: ShortText = "id"


class Output(_Section):
    """Where the vectors go, and what their records hold."""

    topic: TopicName
    include_text: bool = True


class DeadLetter(_Section):
    """Where records go that can't be embedded."""

    topic: TopicName | None = None


class Model(_Section):
    """The sentence-transformers model; ``max_length`` is in tokens."""

    name: ModelName = "sentence-transformers/all-MiniLM-L6-v2"
    revision: ShortText | None = None
    max_length: Annotated[int, Field(ge=1, le=131072), BeforeValidator(_whole)] | None = None
    device: Literal["Auto", "CPU", "CUDA"] = "Auto"
    prompt: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    normalize: bool = True


class Spec(_Section):
    """What the pipeline reads, how it embeds, and where it writes."""

    kafka: KafkaCluster
    input: Input
    output: Output
    dead_letter: DeadLetter = DeadLetter()
    model: Model = Model()


class Metadata(_Section):
    """What is used of Kubernetes' own metadata."""

    model_config = ConfigDict(extra="ignore")

    name: str
    # What the API server fills in for a manifest that names none.
    namespace: str = "default"


class EmbeddingPipeline(_Section):
    """The resource. ``model_validate`` takes the stored object and raises pydantic's ``ValidationError``."""

    api_version: Literal["embeddings.dev/v1alpha1"]
    kind: Literal["EmbeddingPipeline"]
    metadata: Metadata
    spec: Spec

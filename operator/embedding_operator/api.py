"""The EmbeddingPipeline as typed models, from the stored object.

The API server, or ``manifest`` in its place, has already applied defaults and the schema. The models repeat both, and
a test holds them equal to the CRD file, which alone carries the descriptions. Nothing is decided or derived here.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from embedding_operator.api_autoscaling import Autoscaling
from embedding_operator.api_section import SecretKey, SecretName, Section, ShortText, whole
from embedding_operator.api_worker import Quantity, WorkerPods

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


class CaSecret(Section):
    """Where the certificates of the brokers' authorities are."""

    name: SecretName
    key: SecretKey = "ca.crt"


class ClientCertificateSecret(Section):
    """A Secret of type kubernetes.io/tls."""

    name: SecretName


class Tls(Section):
    """Encrypted connections to the brokers."""

    enabled: bool = False
    ca_secret: CaSecret | None = None
    client_certificate_secret: ClientCertificateSecret | None = None


class CredentialsSecret(Section):
    """Where user name and password are."""

    name: SecretName
    username_key: SecretKey = "username"
    password_key: SecretKey = "password"  # noqa: S105 - the name of a key, not a password


class Sasl(Section):
    """How to log in to the brokers."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
    credentials_secret: CredentialsSecret


class KafkaCluster(Section):
    """The Kafka cluster, and how to reach it."""

    bootstrap_servers: Annotated[tuple[HostPort, ...], Field(strict=False, min_length=1, max_length=32)]
    tls: Tls = Tls()
    sasl: Sasl | None = None


class TopicTemplate(Section):
    """What a topic looks like where the operator creates it."""

    partitions: Annotated[int, Field(ge=1, le=10000), BeforeValidator(whole)] | None = None
    replication_factor: Annotated[int, Field(ge=1, le=100), BeforeValidator(whole)] | None = None
    config: Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=64)] | None = None


class Input(Section):
    """Where the texts come from, and what their records look like."""

    topic: TopicName
    consumer_group: ShortText | None = None
    start_from: Literal["Earliest", "Latest"] = "Earliest"
    text_field: ShortText = "text"
    id_field: ShortText = "id"
    create: TopicTemplate | None = None


class Output(Section):
    """Where the vectors go, and what their records hold."""

    topic: TopicName
    encoding: Literal["JSON", "Base64", "Binary"] = "JSON"
    include_text: bool = True
    create: TopicTemplate | None = None


class DeadLetter(Section):
    """Where records go that can't be embedded."""

    topic: TopicName | None = None
    create: TopicTemplate | None = None


class Topics(Section):
    """Who makes the topics, and what becomes of them."""

    manage: bool = True
    deletion_policy: Literal["Retain", "Delete"] = "Retain"


class TokenSecret(Section):
    """Where a token is."""

    name: SecretName
    key: SecretKey = "token"


class PersistentVolumeClaim(Section):
    """A volume that outlives the workers."""

    claim_name: SecretName


class ModelCache(Section):
    """Where the workers keep downloaded models."""

    size_limit: Quantity | None = None
    persistent_volume_claim: PersistentVolumeClaim | None = None


class Model(Section):
    """The sentence-transformers model; ``max_length`` is in tokens."""

    name: ModelName = "sentence-transformers/all-MiniLM-L6-v2"
    revision: ShortText | None = None
    max_length: Annotated[int, Field(ge=1, le=131072), BeforeValidator(whole)] | None = None
    on_overflow: Literal["Truncate", "Reject"] = "Truncate"
    device: Literal["Auto", "CPU", "CUDA"] = "Auto"
    precision: Literal["Auto", "Float32", "Float16", "BFloat16"] = "Auto"
    prompt: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    normalize: bool = True
    change_policy: Literal["RequireNewOutputTopic", "AllowMixed"] = "RequireNewOutputTopic"
    token_secret: TokenSecret | None = None
    cache: ModelCache = ModelCache()


class Http(Section):
    """The workers' HTTP interface."""

    token_secret: TokenSecret | None = None


class Spec(Section):
    """What the pipeline reads, how it embeds, and where it writes."""

    replicas: Annotated[int, Field(ge=0, le=1000), BeforeValidator(whole)] = 1
    autoscaling: Autoscaling | None = None
    paused: bool = False
    kafka: KafkaCluster
    input: Input
    output: Output
    dead_letter: DeadLetter = DeadLetter()
    topics: Topics = Topics()
    model: Model = Model()
    worker: WorkerPods = WorkerPods()
    http: Http = Http()


class Metadata(Section):
    """What is used of Kubernetes' own metadata."""

    model_config = ConfigDict(extra="ignore")

    name: str
    # What the API server fills in for a manifest that names none.
    namespace: str = "default"
    # What only a stored object has.
    uid: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None
    finalizers: Annotated[tuple[str, ...], Field(strict=False)] = ()


class EmbeddingPipeline(Section):
    """The resource. ``model_validate`` takes the stored object and raises pydantic's ``ValidationError``."""

    api_version: Literal["embeddings.dev/v1alpha1"]
    kind: Literal["EmbeddingPipeline"]
    metadata: Metadata
    spec: Spec
    # The operator's own, as it last wrote it.
    status: dict[str, Any] | None = None

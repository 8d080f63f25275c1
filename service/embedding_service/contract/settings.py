"""The worker's configuration: ``config.yaml`` and environment, checked, as one frozen model.

The ``config.yaml`` of the original service, which this one grew from, is valid as it stands; ``flask`` is the accepted
old name of ``http``. Each key can be set by environment as ``EMBEDDING_<SECTION>__<KEY>``, which wins over the file.
Secrets are meant for the environment.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from embedding_service.contract.outputs import Encoding
from embedding_service.contract.problems import SettingsError, problems_of, rule
from embedding_service.contract.topics import dead_letter_topic

ENVIRONMENT_PREFIX = "EMBEDDING_"
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
# Stands for a secret in settings that are built for a worker which gets it by environment; `to_yaml` leaves it out.
FROM_ENVIRONMENT = SecretStr("from the environment")
_SECRETS = {"kafka": {"sasl_username", "sasl_password"}, "http": {"token"}}
SECRET_KEYS = frozenset(f"{section}.{key}" for section, keys in _SECRETS.items() for key in keys)

_HOST_PORT = re.compile(r"^(\[[0-9A-Fa-f:.]+\]|[^:\s/]+):\d{1,5}$")


def _split_servers(value: object) -> object:
    servers = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(servers, (list, tuple)) or not servers:
        raise ValueError("a list of host:port")
    if not all(isinstance(server, str) and _HOST_PORT.match(server) for server in servers):
        raise ValueError("host:port, or a list of them")
    return servers


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _off(value: object) -> object:
    # YAML 1.1 reads a bare `off` as false.
    return "off" if value is False else value


def _one_line(value: SecretStr) -> SecretStr:
    if value.get_secret_value() != value.get_secret_value().strip("\r\n"):
        raise ValueError("no line break at its end (`echo` writes one, `echo -n` and `printf` don't)")
    return value


Secret = Annotated[SecretStr, Field(min_length=1), AfterValidator(_one_line)]
File = Annotated[str, Field(min_length=1)]

TopicName = Annotated[
    str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$", description="a topic name: 1 to 249 of a-z A-Z 0-9 . _ -")
]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


class KafkaSettings(_Section):
    """Brokers, topics and the consumer group."""

    bootstrap_servers: Annotated[tuple[str, ...], BeforeValidator(_split_servers)] = ("localhost:9092",)
    input_topic: TopicName = "text-messages"
    output_topic: TopicName = "embeddings"
    dead_letter_topic: TopicName = Field(default_factory=lambda data: dead_letter_topic(data["output_topic"]))
    create_dead_letter_topic: bool = Field(
        default=True,
        description="make the dead-letter topic at start where it is missing; false where another makes topics",
    )
    consumer_group: str = Field(default="embedding-service", min_length=1, max_length=255)
    start_from: Literal["earliest", "latest"] = "earliest"
    tls: bool = False
    tls_ca_file: File | None = Field(default=None, description="PEM; unset: the system's own CAs")
    tls_certificate_file: File | None = Field(default=None, description="PEM, the client's, for mutual TLS")
    tls_key_file: File | None = Field(default=None, description="PEM, the certificate's private key, not encrypted")
    sasl_mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None, BeforeValidator(_upper)] = None
    sasl_username: Secret | None = None
    sasl_password: Secret | None = None

    @model_validator(mode="after")
    def _tls_is_whole(self) -> "KafkaSettings":
        for key in ("tls_ca_file", "tls_certificate_file", "tls_key_file"):
            if getattr(self, key) is not None and not self.tls:
                raise rule(key, getattr(self, key), "kafka.tls: true with it")
        if self.tls_certificate_file is not None and self.tls_key_file is None:
            raise rule("tls_certificate_file", self.tls_certificate_file, "kafka.tls_key_file set too")
        if self.tls_key_file is not None and self.tls_certificate_file is None:
            raise rule("tls_key_file", self.tls_key_file, "kafka.tls_certificate_file set too")
        return self

    @model_validator(mode="after")
    def _sasl_is_whole(self) -> "KafkaSettings":
        named = {"sasl_username": self.sasl_username, "sasl_password": self.sasl_password}
        if self.sasl_mechanism is None and any(value is not None for value in named.values()):
            raise rule("sasl_mechanism", None, "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, since a user is given")
        for key, value in named.items():
            if self.sasl_mechanism is not None and value is None:
                variable = f"{ENVIRONMENT_PREFIX}KAFKA__{key.upper()}"
                raise rule("sasl_mechanism", self.sasl_mechanism, f"kafka.{key} set too ({variable})")
        return self

    @model_validator(mode="after")
    def _topics_differ(self) -> "KafkaSettings":
        if self.output_topic == self.input_topic:
            raise rule("output_topic", self.output_topic, "a topic other than input_topic")
        if self.dead_letter_topic in (self.input_topic, self.output_topic):
            raise rule("dead_letter_topic", self.dead_letter_topic, "a topic other than input_topic and output_topic")
        return self


class InputSettings(_Section):
    """Which fields of an input record hold the text and its id."""

    text_field: str = Field(default="text", min_length=1)
    id_field: str = Field(default="id", min_length=1)


class OutputSettings(_Section):
    """What an output record holds, and how it says it."""

    encoding: Encoding = "json"
    include_text: bool = Field(default=True, description="false: original_text is null")


class ModelSettings(_Section):
    """The sentence-transformers model; lengths are in tokens."""

    name: str = Field(default=DEFAULT_MODEL, min_length=1)
    revision: str | None = Field(default=None, min_length=1)
    max_length: int | None = Field(default=None, ge=1, description="unset: the model's own")
    on_overflow: Literal["truncate", "reject"] = Field(
        default="truncate", description="whether a longer text is cut or goes to the dead-letter topic"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto", description="auto: the fastest whose vectors are those of float32"
    )
    prompt: str | None = None
    normalize: bool = True
    change_policy: Literal["require_new_output_topic", "allow_mixed"] = Field(
        default="require_new_output_topic",
        description="whether vectors may be written to a topic that holds another model's",
    )


class EngineSettings(_Section):
    """Bounds of the embedding loop."""

    max_in_flight: int = Field(default=2048, ge=1, description="messages consumed and not yet committed")
    max_in_flight_bytes: int = Field(default=64 * 1024 * 1024, ge=1, description="bytes of the same")
    max_batch_tokens: int | None = Field(
        default=None, ge=1, description="padded tokens of a batch of the model; unset: what suits the device"
    )
    window_seconds: float = Field(
        default=5.0, gt=0, le=60, description="work in the model at a time; a drain takes about as long"
    )


class HttpSettings(_Section):
    """The HTTP server, and who may control and query the worker through it."""

    token: Secret | None = None
    host: str = Field(default="0.0.0.0", min_length=1)  # noqa: S104 - the original service's default: a pod is reached from outside
    port: int = Field(default=5000, ge=1, le=65535)
    debug: bool = Field(default=False, description="tracebacks in error responses")
    control: Annotated[Literal["open", "token", "off"], BeforeValidator(_off)] = Field(
        default_factory=lambda data: "token" if data.get("token") else "open"
    )

    @model_validator(mode="after")
    def _token_where_needed(self) -> "HttpSettings":
        if self.control == "token" and self.token is None:
            raise rule("control", self.control, "open or off, or http.token set too (EMBEDDING_HTTP__TOKEN)")
        return self


class LoggingSettings(_Section):
    """Logs, to standard error and where a file is named to that too."""

    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = "INFO"
    format: Literal["console", "json"] = "console"
    file: str | None = Field(default=None, min_length=1)


class Settings(BaseModel):
    """Everything that a worker is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    input: InputSettings = Field(default_factory=InputSettings)
    output: OutputSettings = Field(default_factory=OutputSettings)
    model: ModelSettings = Field(default_factory=ModelSettings)
    engine: EngineSettings = Field(default_factory=EngineSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    logging: LoggingSettings = Field(default_factory=LoggingSettings)

    def redacted(self) -> dict[str, Any]:
        """As JSON types, with every secret shown as asterisks."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """As ``config.yaml``, without secrets and without what is unset."""
        document = self.model_dump(mode="json", exclude_none=True, exclude=_SECRETS)
        # ASCII: PyYAML doesn't read back some line separators as it writes them.
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=False)


def parse_settings(text: str, environ: Mapping[str, str], source: str = "config.yaml") -> Settings:
    """Settings from the text of a YAML file and the environment.

    ``source`` names the file in errors. Raises ``SettingsError`` with one line for each thing that is wrong.
    """
    document, http_name = _document(text, source)
    _merge_environment(document, environ, source)
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        found = problems_of(error, Settings, SECRET_KEYS)
        raise SettingsError([f"{place(key, environ, source, http_name)}: {text}" for key, text in found]) from None


def place(key: str, environ: Mapping[str, str], source: str, http_name: str = "http") -> str:
    """Where a setting (or a section) came from: its variable, or the file and the key."""
    for variable in environ:
        named = _key(variable)
        if named is not None and key in (named[0], ".".join(named)):
            return variable
    section, dot, rest = key.partition(".")
    return f"{source}: {http_name if section == 'http' else section}{dot}{rest}"


def _document(text: str, source: str) -> tuple[dict[str, Any], str]:
    """The YAML document with ``flask`` renamed to ``http``, and the name that the file used."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError([f"{source}: not valid YAML: {' '.join(str(error).split())}"]) from None
    if document is None:
        document = {}
    if not isinstance(document, dict):
        raise SettingsError([f"{source}: {type(document).__name__}: expected a mapping of sections ({_sections()})"])
    # A section whose keys are all commented out is null in YAML, and means the defaults.
    document = {section: values for section, values in document.items() if values is not None}
    if "flask" not in document:
        return document, "http"
    if "http" in document:
        raise SettingsError([f"{source}: flask: is the old name of http, and http is there too: expected one of them"])
    return {("http" if section == "flask" else section): values for section, values in document.items()}, "flask"


def _merge_environment(document: dict[str, Any], environ: Mapping[str, str], source: str) -> None:
    """Put the environment's values into the document."""
    for variable, value in environ.items():
        named = _key(variable)
        if named is None:
            continue
        section, key = named
        values = document.setdefault(section, {})
        if not isinstance(values, dict):
            raise SettingsError([f"{source}: {section}: {values!r}: expected a mapping"])
        values[key] = value


def _key(variable: str) -> tuple[str, str] | None:
    """Section and key that a variable of the environment sets; ``None`` for another's variable."""
    section, separator, key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
    return (section, key) if variable.startswith(ENVIRONMENT_PREFIX) and separator else None


def _sections() -> str:
    return ", ".join(Settings.model_fields)

"""The worker's configuration: ``config.yaml`` and environment, checked, as one frozen model.

The ``config.yaml`` of the original service, which this one grew from, is valid as it stands; ``flask`` is the accepted
old name of ``http``. Each key can be set by environment as ``EMBEDDING_<SECTION>__<KEY>``, which wins over the file.
Secrets come by environment only.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

from embedding_service.contract.problems import Problem, SettingsError, problems_of, rule
from embedding_service.contract.topics import dead_letter_topic

ENVIRONMENT_PREFIX = "EMBEDDING_"
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SECRET_KEYS = frozenset({"http.token"})

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
    """What an output record holds."""

    include_text: bool = Field(default=True, description="false: original_text is null")


class ModelSettings(_Section):
    """The sentence-transformers model; lengths are in tokens."""

    name: str = Field(default=DEFAULT_MODEL, min_length=1)
    revision: str | None = Field(default=None, min_length=1)
    max_length: int | None = Field(default=None, ge=1, description="unset: the model's own")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    prompt: str | None = None
    normalize: bool = True


class EngineSettings(_Section):
    """Bounds of the embedding loop."""

    max_in_flight: int = Field(default=2048, ge=1, description="messages consumed and not yet committed")
    max_in_flight_bytes: int = Field(default=64 * 1024 * 1024, ge=1, description="bytes of the same")
    max_batch_tokens: int = Field(default=1024, ge=1, description="padded tokens of a batch of the model")
    window_seconds: float = Field(
        default=5.0, gt=0, le=60, description="work in the model at a time; a drain takes about as long"
    )


class HttpSettings(_Section):
    """The HTTP server, and who may control and query the worker through it."""

    token: SecretStr | None = Field(default=None, min_length=1)
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
        document = self.model_dump(mode="json", exclude_none=True, exclude={"http": {"token"}})
        # ASCII: PyYAML doesn't read back some line separators as it writes them.
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=False)


def parse_settings(text: str, environ: Mapping[str, str], source: str = "config.yaml") -> Settings:
    """Settings from the text of a YAML file and the environment.

    ``source`` names the file in errors. Raises ``SettingsError`` with one line for each thing that is wrong.
    """
    document, http_name = _document(text, source)
    origins = _merge_environment(document, environ, source)
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        found = problems_of(error, Settings, SECRET_KEYS)
        raise SettingsError([_locate(problem, origins, source, http_name) for problem in found]) from None


def place(key: str, environ: Mapping[str, str], source: str) -> str:
    """Where a setting came from: its variable, or the file and the key."""
    variable = ENVIRONMENT_PREFIX + key.upper().replace(".", "__")
    return variable if variable in environ else f"{source}: {key}"


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


def _merge_environment(document: dict[str, Any], environ: Mapping[str, str], source: str) -> dict[str, str]:
    """Put the environment's values into the document; return which key came from which variable."""
    origins = {}
    for variable, value in environ.items():
        section, separator, key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        if not variable.startswith(ENVIRONMENT_PREFIX) or not separator:
            continue
        values = document.setdefault(section, {})
        if not isinstance(values, dict):
            raise SettingsError([f"{source}: {section}: {values!r}: expected a mapping"])
        values[key] = value
        origins[f"{section}.{key}"] = variable
        origins.setdefault(section, variable)
    return origins


def _locate(problem: Problem, origins: Mapping[str, str], source: str, http_name: str) -> str:
    if problem.key in origins:
        return f"{origins[problem.key]}: {problem.text}"
    section, dot, key = problem.key.partition(".")
    shown = http_name + dot + key if section == "http" else problem.key
    return f"{source}: {shown}: {problem.text}"


def _sections() -> str:
    return ", ".join(Settings.model_fields)

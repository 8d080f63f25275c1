"""The shape of ``GET /stats``: written by the worker, read by the operator and by local mode."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class State(StrEnum):
    """Where a worker stands."""

    LOADING = "loading"
    CONNECTING = "connecting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class ModelStats(_Shape):
    """The loaded model; ``source`` says where its weights came from (hub, cache, directory or package).

    ``backend`` (openvino or pytorch) and ``precision`` are what computes it; workers of an older version don't say.
    """

    name: str
    source: str
    path: str
    dimension: int
    max_length: int
    device: str
    backend: str | None = None
    precision: str | None = None
    contract: str


class Latency(_Shape):
    """Seconds from consumed to delivered, over the most recent messages; null before the first."""

    mean: float | None
    p50: float | None
    p99: float | None


class Stats(_Shape):
    """Statistics since the process started.

    ``messages_processed`` = ``embeddings_generated`` + ``error_count`` + ``tombstones``, each counted when the broker
    has acknowledged the output; ``error_count`` are dead letters. Timestamps are seconds since the epoch.
    ``kafka_connected`` is null while the loop doesn't run.
    """

    state: State
    kafka_connected: bool | None
    messages_processed: int
    embeddings_generated: int
    error_count: int
    errors_by_reason: dict[str, int]
    tombstones: int
    truncated: int
    last_processed_timestamp: float | None
    messages_per_minute: float
    latency_seconds: Latency
    error_rate: float
    in_flight: int
    lag: dict[int, int]
    uptime_seconds: float
    model: ModelStats | None

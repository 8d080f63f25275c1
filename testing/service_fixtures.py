"""Fixtures for tests of the worker: its topics, the real model, a loop in this process, a worker in its own."""

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from confluent_kafka import Message

from embedding_service.contract.settings import ModelSettings, Settings
from embedding_service.contract.stats import State
from embedding_service.encoders.protocol import Computation, LoadedModel, Tokenized
from embedding_service.metrics import Metrics
from embedding_service.pipeline import Pipeline
from kafka_broker import KafkaBroker
from kafka_helpers import Record, create_topics, end_offsets, group_lag, produce, read_all
from kafka_source import cache_directory
from waiting import wait_until
from worker_process import WorkerProcess

# Tests reach no hub and no cache of one, whatever the machine has; those of the hub's own path bring a hub. What a
# worker makes of a model is kept from run to run, as Kafka is.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = str(cache_directory(os.environ) / "models")
# What is expected of the processor isn't computed by a GPU, where there is one.
os.environ["CUDA_VISIBLE_DEVICES"] = ""

# A member whose group has to wait for the end of another one's session, which is 45 s, needs most of it.
STREAM_SECONDS = 240.0
PARTITIONS = 3
_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Stream:
    """The topics and the group of one test."""

    bootstrap_servers: str
    name: str

    @property
    def input(self) -> str:
        """The input topic."""
        return f"{self.name}-in"

    @property
    def output(self) -> str:
        """The output topic."""
        return f"{self.name}-out"

    @property
    def dead_letter(self) -> str:
        """The dead-letter topic, as derived by the settings."""
        return f"{self.output}-deadletter"

    @property
    def group(self) -> str:
        """The consumer group."""
        return f"{self.name}-group"

    @property
    def kafka(self) -> dict[str, Any]:
        """The section ``kafka`` of ``config.yaml``."""
        return {
            "bootstrap_servers": self.bootstrap_servers,
            "input_topic": self.input,
            "output_topic": self.output,
            "consumer_group": self.group,
        }

    def settings(self, **sections: dict[str, Any]) -> Settings:
        """Settings of a worker on this stream; ``kafka`` adds to its own section."""
        return Settings.model_validate({**sections, "kafka": {**self.kafka, **sections.get("kafka", {})}})

    def feed(self, values: Iterable[bytes | None], **record: Any) -> list[Message]:
        """Produce values to the input topic."""
        return produce(self.bootstrap_servers, [Record(self.input, value=value, **record) for value in values])

    def feed_texts(self, texts: Iterable[str], prefix: str = "t") -> list[Message]:
        """Produce texts as JSON with ids ``<prefix>-<n>``, partitioned by these."""
        records = (
            Record(self.input, key=f"{prefix}-{number}".encode(), value=text_value(f"{prefix}-{number}", text))
            for number, text in enumerate(texts)
        )
        return produce(self.bootstrap_servers, records)

    def outputs(self, count: int | None = None, timeout: float = STREAM_SECONDS) -> list[Message]:
        """The output topic; with ``count``, once it has so many."""
        return read_all(self.bootstrap_servers, self.output, count=count, timeout=timeout)

    def dead_letters(self, count: int | None = None) -> list[Message]:
        """The dead-letter topic; with ``count``, once it has so many."""
        return read_all(self.bootstrap_servers, self.dead_letter, count=count, timeout=STREAM_SECONDS)

    def output_count(self) -> int:
        """Records written to the output topic so far."""
        return sum(end_offsets(self.bootstrap_servers, self.output).values())

    def wait_caught_up(self, timeout: float = STREAM_SECONDS) -> None:
        """Wait until everything in the input topic is dealt with and committed."""
        wait_until(lambda: group_lag(self.bootstrap_servers, self.group, self.input) == 0, timeout, "group lag is 0")


class Backlog:
    """Texts that go on coming, faster than workers embed them, until the block ends; ``keys`` are of all of them."""

    def __init__(self, stream: Stream, texts: Sequence[str]) -> None:
        """Feed these ``texts`` time and again."""
        self.keys: set[bytes] = set()
        self._stream = stream
        self._texts = texts
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, name="backlog")

    def __enter__(self) -> Self:
        self._feed()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _keep_up(self) -> None:
        while not self._end.wait(_LOOK_SECONDS):
            if self._stream.output_count() + len(self._texts) > len(self.keys):
                self._feed()

    def _feed(self) -> None:
        sent = self._stream.feed_texts(self._texts, prefix=f"t{len(self.keys)}")
        self.keys.update(key for message in sent if (key := message.key()) is not None)


class Gate:
    """The real model behind a gate: a batch waits until it is opened. A model as slow as a test needs it."""

    def __init__(self, model: LoadedModel) -> None:
        """Put ``model`` behind the gate."""
        self._encoder = model.encoder
        self.dimension = model.encoder.dimension
        self.max_length = model.encoder.max_length
        self.tokenize = model.encoder.tokenize
        self.open = threading.Event()
        self.entered = threading.Event()

    def submit(self, batch: Sequence[Tokenized]) -> Computation:
        """See ``Encoder``."""
        self.entered.set()
        assert self.open.wait(STREAM_SECONDS)
        return self._encoder.submit(batch)


def text_value(identity: str, text: str) -> bytes:
    """An input record's value."""
    return json.dumps({"id": identity, "text": text}, ensure_ascii=False).encode()


def make_stream(kafka: KafkaBroker, unique: str) -> Stream:
    """Create input and output topic."""
    stream = Stream(kafka.bootstrap_servers, unique)
    create_topics(kafka.bootstrap_servers, [stream.input, stream.output], partitions=PARTITIONS)
    return stream


@pytest.fixture
def stream(kafka: KafkaBroker, unique: str) -> Stream:
    """Topics of this test on the shared broker."""
    return make_stream(kafka, unique)


@pytest.fixture(scope="session")
def secured_kafka() -> Iterator[KafkaBroker]:
    """Start a Kafka with TLS, SASL and ACLs that all tests share; use ``unique`` in names, of users too."""
    with KafkaBroker(secured=True) as broker:
        yield broker


@pytest.fixture(scope="session")
def model() -> LoadedModel:
    """The real default model, with its own maximum length."""
    from embedding_service.encoders import loading

    return loading.load(ModelSettings())


@pytest.fixture
def start_pipeline(stream: Stream, model: LoadedModel) -> Iterator[Callable[..., Pipeline]]:
    """Start loops in this process; what still runs at the end is stopped."""
    started: list[Pipeline] = []

    def start(settings: Settings | None = None, *, with_model: LoadedModel = model) -> Pipeline:
        pipeline = Pipeline(settings or stream.settings(), with_model, Metrics())
        started.append(pipeline)
        pipeline.start()
        wait_until(
            lambda: pipeline.state is State.RUNNING or pipeline.failure.occurred(), STREAM_SECONDS, "the loop runs"
        )
        return pipeline

    yield start
    for pipeline in started:
        pipeline.stop()
        pipeline.join()


@pytest.fixture
def worker(stream: Stream, tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Start workers as processes; what still runs at the end is killed."""
    made: list[WorkerProcess] = []

    def make(name: str = "worker", environ: dict[str, str] | None = None, **sections: dict[str, Any]) -> WorkerProcess:
        config = {**sections, "kafka": {**stream.kafka, **sections.get("kafka", {})}}
        process = WorkerProcess(tmp_path / name, config, environ=environ)
        made.append(process)
        return process.start()

    yield make
    for process in made:
        process.__exit__(None, None, None)

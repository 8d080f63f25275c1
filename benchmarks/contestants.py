"""What the benchmark of the engine compares. Each runs the same texts, and says how long that took."""

import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from sentence_transformers import SentenceTransformer

from embedding_service.batching import pack
from embedding_service.contract.kafka import consumer_config, producer_config
from embedding_service.contract.outputs import Encoding
from embedding_service.contract.settings import Settings
from embedding_service.contract.stats import State
from embedding_service.encoders.protocol import Computation, Encoder, LoadedModel, Matrix, Tokenized
from embedding_service.metrics import Metrics
from embedding_service.pipeline import Pipeline
from embedding_service.records import Outcome
from embedding_service.turns import share
from kafka_helpers import Record, create_topics, delete_topics, produce
from running_pipeline import running
from waiting import wait_until

PARTITIONS = 4
TIMEOUT_SECONDS = 600.0
GROUP_SECONDS = 60.0
FIRST_MESSAGES = 10
# Threads of the loop, by name, and those of the Kafka clients.
STAGES = ("consumer", "tokenizer", "model", "delivery", "librdkafka")
# Batches that the stand-in takes before the first of them is through.
QUEUE = 4
# Numbers as long as a model's are, since writing them takes its time.
_VECTORS = np.random.default_rng(0).normal(scale=0.05, size=(4096, 384)).astype(np.float32)


@dataclass(frozen=True)
class Stream:
    """A topic full of texts."""

    bootstrap_servers: str
    topic: str
    messages: int


@dataclass(frozen=True)
class Flow:
    """Kafka to Kafka: seconds from the first message consumed to the last acknowledged, CPU seconds of each part."""

    seconds: float
    cpu_seconds: dict[str, float]


class TimedEncoder:
    """An encoder, and the CPU seconds that the calling thread spent in it."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.dimension, self.max_length = encoder.dimension, encoder.max_length
        self.tokenizing = self.computing = 0.0

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """See ``Encoder``."""
        started = time.thread_time()
        tokenized = self._encoder.tokenize(texts)
        self.tokenizing += time.thread_time() - started
        return tokenized

    def submit(self, batch: Sequence[Tokenized]) -> Computation:
        """See ``Encoder``."""
        started = time.thread_time()
        computation = self._encoder.submit(batch)
        self.computing += time.thread_time() - started
        return _TimedComputation(computation, self)


class _TimedComputation:
    """A part of the model may run where its result is asked for."""

    def __init__(self, computation: Computation, encoder: TimedEncoder) -> None:
        self.done = computation.done
        self._computation = computation
        self._encoder = encoder

    def result(self) -> Matrix:
        """See ``Computation``."""
        started = time.thread_time()
        vectors = self._computation.result()
        self._encoder.computing += time.thread_time() - started
        return vectors


class _Waited:
    """A batch that is computed at a time."""

    def __init__(self, ready: float, texts: int) -> None:
        self._ready = ready
        self._vectors = _VECTORS[:texts]

    def done(self) -> bool:
        """See ``Computation``."""
        return time.monotonic() >= self._ready

    def result(self) -> Matrix:
        """See ``Computation``."""
        time.sleep(max(0.0, self._ready - time.monotonic()))
        return self._vectors


class WaitingEncoder:
    """Stands in for a GPU: takes some batches, computes one after the other, and needs no processor.

    ``seconds`` is what a batch of so many of the texts takes, in the mean; each by its tokens, padding included.
    """

    dimension = 384
    max_length = 256

    def __init__(self, seconds: float, batch: int, texts: Sequence[str]) -> None:
        self._lengths = [text.length for text in self.tokenize(texts)]
        self.batch_tokens = batch * sum(self._lengths) // len(texts)
        self._seconds = seconds / self.batch_tokens
        self._ready = 0.0
        self._running: deque[_Waited] = deque()

    def alone(self, batch_cost: int) -> float:
        """Seconds for all texts, sorted at once, with nothing around it."""
        batches = pack(self._lengths, self.batch_tokens, batch_cost)
        return self._seconds * sum(_padded([self._lengths[index] for index in batch]) for batch in batches)

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """A token is four characters: a tokenizer would need the processor."""
        lengths = [min(self.max_length, 1 + len(text) // 4) for text in texts]
        return [Tokenized(text, None, length, truncated=False) for text, length in zip(texts, lengths, strict=True)]

    def submit(self, batch: Sequence[Tokenized]) -> Computation:
        """See ``Encoder``."""
        if len(self._running) == QUEUE:
            self._running.popleft().result()
        taken = self._seconds * _padded([text.length for text in batch])
        self._ready = max(self._ready, time.monotonic()) + taken
        self._running.append(_Waited(self._ready, len(batch)))
        return self._running[-1]


def _padded(lengths: Sequence[int]) -> int:
    return max(lengths) * len(lengths)


class _Counting(Metrics):
    """Tells when so many messages have been delivered."""

    def __init__(self, wanted: int) -> None:
        super().__init__()
        self._left = wanted
        self.done = threading.Event()

    def delivered(self, outcomes: Sequence[Outcome]) -> None:
        super().delivered(outcomes)
        self._left -= len(outcomes)
        if self._left == 0:
            self.done.set()


def ceiling(model: LoadedModel, texts: Sequence[str]) -> tuple[float, float]:
    """Seconds of the encoder alone: all texts tokenised at once; sorted all at once and computed, nothing around it."""
    started = time.monotonic()
    encoder = model.encoder
    tokenized = encoder.tokenize(texts)
    then = time.monotonic()
    lengths = [text.length for text in tokenized]
    batches = pack(lengths, model.batch_tokens, model.batch_cost)
    for computation in [encoder.submit([tokenized[index] for index in batch]) for batch in batches]:
        computation.result()
    return then - started, time.monotonic() - then


@contextmanager
def topics(servers: str, *more: str) -> Iterator[str]:
    """Make a topic on a real Kafka, and others of its name and an ending; yields its name."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    made = [name, *(name + ending for ending in more)]
    create_topics(servers, made, partitions=PARTITIONS)
    yield name
    delete_topics(servers, made)


def output_topics(servers: str) -> AbstractContextManager[str]:
    """Topics for the worker to write to; gives the name of the first."""
    return topics(servers, "-deadletter")


def worker(
    stream: Stream, output: str, model: LoadedModel, metrics: Metrics, *, encoding: Encoding = "json", **engine: int
) -> AbstractContextManager[Pipeline]:
    """Run the worker's loop on the stream, as a group of its own."""
    return running(_settings(stream, output, {"engine": engine, "output": {"encoding": encoding}}), model, metrics)


def through_worker(
    stream: Stream, output: str, model: LoadedModel, *, encoding: Encoding = "json", **engine: int
) -> Flow:
    """All of the stream through the worker's loop, in this process with the model that is loaded."""
    encoder = TimedEncoder(model.encoder)
    metrics = _Counting(stream.messages)
    # Behind the turns that it takes with queries, as in the worker.
    backlog, _ = share(encoder)
    with worker(stream, output, replace(model, encoder=backlog), metrics, encoding=encoding, **engine) as pipeline:
        _until(pipeline, lambda: pipeline.in_flight, "the first is consumed", interval=0.001)
        started, before = time.monotonic(), _cpu_seconds()
        encoder.tokenizing = encoder.computing = 0.0
        if not metrics.done.wait(TIMEOUT_SECONDS):
            raise RuntimeError(f"not all came out: {pipeline.failure.error}")
        seconds, after = time.monotonic() - started, _cpu_seconds()
    spent = {name: after[name] - before.get(name, 0.0) for name in after}
    spent["tokenizer"] -= encoder.tokenizing
    spent["model"] -= encoder.computing
    return Flow(seconds, {name: spent[name] for name in STAGES})


def flow(stream: Stream, model: LoadedModel, **engine: int) -> Flow:
    """The same as JSON, to topics of its own."""
    with output_topics(stream.bootstrap_servers) as output:
        return through_worker(stream, output, model, encoding="json", **engine)


def filled(servers: str, topic: str, texts: Sequence[str]) -> Stream:
    """Make a topic with these texts, in turns on its partitions."""
    create_topics(servers, [topic], partitions=PARTITIONS)
    values = (json.dumps({"id": str(number), "text": text}).encode() for number, text in enumerate(texts))
    produce(servers, (Record(topic, number % PARTITIONS, value=value) for number, value in enumerate(values)))
    return Stream(servers, topic, len(texts))


def _until(pipeline: Pipeline, condition: Callable[[], object], what: str, *, interval: float = 0.05) -> None:
    wait_until(lambda: condition() or pipeline.failure.occurred(), GROUP_SECONDS, what, interval=interval)
    if pipeline.failure.occurred():
        raise RuntimeError(f"{what}: {pipeline.failure.error}")


def _cpu_seconds() -> dict[str, float]:
    """CPU seconds so far, by name of the thread; all of librdkafka's together."""
    named = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    found: dict[str, float] = {}
    for task in Path("/proc/self/task").iterdir():
        try:
            command, schedule = (task / "comm").read_text(), (task / "schedstat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            # It has ended meanwhile.
            continue
        name = "librdkafka" if command.startswith("rdk:") else named.get(task.name, "others")
        nanoseconds = int(schedule.split()[0])
        found[name] = found.get(name, 0.0) + nanoseconds / 1e9
    return found


def bare_loop(stream: Stream) -> float:
    """CPU seconds of the least that can be done: consume, parse, write, produce, with the worker's own clients.

    As of the worker's loop, from the first message on: what it takes to connect and to join a group isn't in it.
    """
    with topics(stream.bootstrap_servers) as topic:
        kafka = _settings(stream, topic, {}).kafka
        consumer, producer = Consumer(consumer_config(kafka)), Producer(producer_config(kafka))
        consumer.subscribe([stream.topic])
        first = consumer.poll(GROUP_SECONDS)
        assert first is not None
        started = time.process_time()
        messages, left = [first], stream.messages
        while left:
            for message in messages:
                if message.error() is not None:
                    continue
                document = orjson.loads(message.value() or b"")
                # Each its own, as the worker's are: the same one again would be compressed to nothing.
                document["embedding"] = _VECTORS[left % len(_VECTORS)]
                value = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
                producer.produce(topic, value, key=message.key())
                left -= 1
            producer.poll(0)
            messages = consumer.consume(512, 1.0) if left else []
        producer.flush()
        spent = time.process_time() - started
        consumer.close()
    return spent


def naive_loop(stream: Stream, model: SentenceTransformer) -> float:
    """Seconds of the little service's loop: poll one, encode it, write it."""
    with topics(stream.bootstrap_servers) as topic:
        consumer, producer = _clients(stream)
        first = consumer.poll(GROUP_SECONDS)
        started = time.monotonic()
        for number in range(stream.messages):
            message = first if number == 0 else consumer.poll(1.0)
            assert message is not None
            document = json.loads(message.value() or b"")
            vector = model.encode([document["text"]], show_progress_bar=False)[0]
            output = document | {"embedding": vector.tolist(), "embedding_dimension": len(vector)}
            producer.produce(topic, json.dumps(output).encode(), key=message.key())
            producer.poll(0)
        producer.flush()
        spent = time.monotonic() - started
        consumer.close()
    return spent


def encode_in_batches(model: SentenceTransformer, texts: Sequence[str]) -> float:
    """Seconds of sentence-transformers' own ``encode`` in batches of 32, without Kafka."""
    started = time.monotonic()
    model.encode(list(texts), batch_size=32, show_progress_bar=False)
    return time.monotonic() - started


def latencies(stream: Stream, model: LoadedModel, texts: Sequence[str], per_second: float) -> list[float]:
    """Seconds from ``produce`` to the output being read, of texts that are sent one by one.

    The first ones, in which the clients get to know topics and brokers, aren't among them.
    """
    with (
        topics(stream.bootstrap_servers) as topic,
        output_topics(stream.bootstrap_servers) as output,
        worker(
            replace(stream, topic=topic), output, replace(model, encoder=share(model.encoder)[0]), Metrics()
        ) as pipeline,
    ):
        reader = Consumer(_config(stream) | {"group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"})
        reader.assign([TopicPartition(output, partition, 0) for partition in range(PARTITIONS)])
        producer = Producer(_config(stream) | {"linger.ms": 0})
        _until(pipeline, lambda: pipeline.state is State.RUNNING, "the worker is there")
        found = _sent_and_read(producer, reader, topic, texts, per_second)
        reader.close()
    return found


def encoded_singly(model: LoadedModel, texts: Sequence[str], per_second: float) -> list[float]:
    """Seconds that tokenizer and model take for each text alone, by the same clock as ``latencies``."""
    found: list[float] = []
    started = time.monotonic()
    for number, text in enumerate(texts):
        # The caches of a processor that slept in between are cold.
        time.sleep(max(0.0, started + number / per_second - time.monotonic()))
        before = time.monotonic()
        model.encoder.submit(model.encoder.tokenize([text])).result()
        found.append(time.monotonic() - before)
    return found[FIRST_MESSAGES:]


def _sent_and_read(
    producer: Producer, reader: Consumer, topic: str, texts: Sequence[str], per_second: float
) -> list[float]:
    sent: list[float] = []
    found: dict[int, float] = {}
    started = time.monotonic()
    while len(found) < len(texts):
        if len(sent) < len(texts) and time.monotonic() >= started + len(sent) / per_second:
            sent.append(time.monotonic())
            producer.produce(topic, orjson.dumps({"id": len(sent) - 1, "text": texts[len(sent) - 1]}))
        producer.poll(0)
        message = reader.poll(0.001)
        if message is not None and message.error() is None:
            number = orjson.loads(message.value() or b"")["id"]
            found[number] = time.monotonic() - sent[number]
    return [seconds for number, seconds in found.items() if number >= FIRST_MESSAGES]


def _settings(stream: Stream, output: str, others: Mapping[str, Any]) -> Settings:
    kafka = {
        "bootstrap_servers": stream.bootstrap_servers,
        "input_topic": stream.topic,
        "output_topic": output,
        "consumer_group": output,
    }
    return Settings.model_validate({"kafka": kafka, **others})


def _config(stream: Stream) -> dict[str, str | int]:
    return {"bootstrap.servers": stream.bootstrap_servers, "log_level": 0}


def _clients(stream: Stream) -> tuple[Consumer, Producer]:
    consumer = Consumer(
        _config(stream) | {"group.id": f"bench-{uuid.uuid4().hex[:8]}", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([stream.topic])
    return consumer, Producer(_config(stream))

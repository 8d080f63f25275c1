"""Queries and documents: the same vectors from ``/v1/embeddings`` and on the output topic, while the backlog flows."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from openai import OpenAI

from embedding_service.contract.settings import DEFAULT_MODEL
from embedding_service.encoders.protocol import LoadedModel
from kafka_broker import KafkaBroker
from real_texts import long_tailed
from service_fixtures import STREAM_SECONDS, Backlog, Stream, make_stream
from waiting import wait_until
from worker_process import WorkerProcess

pytestmark = pytest.mark.slow

TEXTS = ["", "one word", "Ünïcode ✓ and 漢字", "many words " * 400, *long_tailed(60)]


def client(process: WorkerProcess) -> OpenAI:
    return OpenAI(base_url=f"http://127.0.0.1:{process.port}/v1", api_key="unused", timeout=STREAM_SECONDS)


def ask(process: WorkerProcess, texts: list[str]) -> tuple[NDArray[np.float32], int]:
    with client(process) as openai:
        found = openai.embeddings.create(model=DEFAULT_MODEL, input=texts)
    return np.array([one.embedding for one in found.data], dtype=np.float32), found.usage.prompt_tokens


def cosines(some: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(some, axis=1) * np.linalg.norm(others, axis=1)
    found: NDArray[np.float32] = (some * others).sum(axis=1) / lengths
    return found


def test_a_query_gets_the_vector_that_its_text_has_on_the_output_topic(
    stream: Stream, worker: Callable[..., WorkerProcess], model: LoadedModel
) -> None:
    process = worker().wait_ready()
    stream.feed_texts(TEXTS)
    by_id = {one["id"]: one["embedding"] for one in (json.loads(m.value() or b"") for m in stream.outputs(len(TEXTS)))}
    on_topic = np.array([by_id[f"t-{number}"] for number in range(len(TEXTS))], dtype=np.float32)

    together, tokens = ask(process, TEXTS)
    assert cosines(together, on_topic).min() >= 0.9999
    assert tokens == sum(text.length for text in model.encoder.tokenize(TEXTS))
    for number in range(8):
        alone, _ = ask(process, [TEXTS[number]])
        assert cosines(alone, on_topic[[number]]).min() >= 0.9999

    process.request("/stop", method="POST")
    stopped, _ = ask(process, TEXTS[:3])
    assert cosines(stopped, on_topic[:3]).min() >= 0.9999


def test_queries_are_answered_while_a_backlog_flows_and_it_flows_on(
    stream: Stream, worker: Callable[..., WorkerProcess]
) -> None:
    process = worker().wait_ready()
    with Backlog(stream, long_tailed(400)):
        wait_until(lambda: stream.output_count() > 0, STREAM_SECONDS, "the backlog flows")
        for _ in range(3):
            before = stream.output_count()
            assert ask(process, ["a query"])[0].shape == (1, 384)
            wait_until(lambda before=before: stream.output_count() > before, STREAM_SECONDS, "it flows on")  # type: ignore[misc]
    stream.wait_caught_up()
    assert process.terminate() == 0


def test_queries_are_answered_while_the_brokers_are_away(
    private_kafka: KafkaBroker, unique: str, tmp_path: Path
) -> None:
    stream = make_stream(private_kafka, unique)
    private_kafka.kill()
    with WorkerProcess(tmp_path, {"kafka": stream.kafka}) as process:
        wait_until(lambda: process.stats().get("model"), STREAM_SECONDS, "the model is loaded")
        assert process.request("/readyz")[0] == 503
        assert ask(process, ["a query"])[0].shape == (1, 384)

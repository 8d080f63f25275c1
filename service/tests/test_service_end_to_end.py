"""Workers as processes on a real Kafka: all texts, their own vectors, in order, whatever happens to the workers."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Message
from sentence_transformers import SentenceTransformer

from embedding_service.contract.settings import DEFAULT_MODEL
from embedding_service.encoders.protocol import LoadedModel
from kafka_helpers import end_offsets, group_lag
from real_texts import long_tailed, short
from service_fixtures import PARTITIONS, Backlog, Stream
from waiting import wait_until
from worker_process import WorkerProcess

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MESSAGES = 5_000
DEADLINE_SECONDS = 600.0
MAX_LENGTH = 128
UNUSUAL = (
    "",
    " ",
    "\n\n",
    "\x00",
    "naïve café, Ελληνικά, русский, עברית, العربية, हिन्दी, 日本語, 한국어",
    "👩‍👩‍👧‍👦 emoji joined by U+200D",
    "e\u0301 is not é until it is normalised",
    "a" * 5_000,
    "word " * 5_000,
    '{"text": "JSON in a text"}',
)


def values(messages: Iterable[Message]) -> list[dict[str, Any]]:
    return [json.loads(message.value() or b"") for message in messages]


def by_partition(messages: Iterable[Message]) -> dict[int | None, list[bytes | None]]:
    keys = defaultdict(list)
    for message in messages:
        keys[message.partition()].append(message.key())
    return dict(keys)


def test_five_thousand_texts_become_the_models_own_vectors_in_order_across_a_restart(
    stream: Stream, worker: Callable[..., WorkerProcess], model: LoadedModel
) -> None:
    texts = (*long_tailed(MESSAGES - len(UNUSUAL)), *UNUSUAL)
    assert len(texts) == MESSAGES
    sent = stream.feed_texts(texts)
    first = worker("first", model={"max_length": MAX_LENGTH})
    wait_for_outputs(stream, 1)
    assert first.terminate() == 0
    done = stream.output_count()
    assert done < MESSAGES, "the restart must be in the middle"
    worker("second", model={"max_length": MAX_LENGTH})
    outputs = stream.outputs(MESSAGES, DEADLINE_SECONDS)
    stream.wait_caught_up(DEADLINE_SECONDS)

    assert stream.output_count() == MESSAGES, "a drained worker doubles nothing"
    assert by_partition(outputs) == by_partition(sent)
    assert {dict(message.headers() or [])["embedding-contract"] for message in outputs} == {first_contract(outputs)}
    vectors = {document["id"]: document["embedding"] for document in values(outputs)}
    ours = np.array([vectors[f"t-{number}"] for number in range(MESSAGES)], dtype=np.float32)
    reference = SentenceTransformer(model.path, device="cpu")
    reference.max_seq_length = MAX_LENGTH
    theirs = reference.encode(list(texts), batch_size=32, show_progress_bar=False)
    cosines = (ours * theirs).sum(axis=1) / (np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1))
    assert cosines.min() >= 0.9999
    document = values(outputs[:1])[0]
    assert (document["model_name"], document["embedding_dimension"]) == (DEFAULT_MODEL, 384)
    assert group_lag(stream.bootstrap_servers, stream.group, stream.input) == 0


def first_contract(outputs: list[Message]) -> Any:
    return dict(outputs[0].headers() or [])["embedding-contract"]


def test_five_sigkills_lose_nothing_and_double_at_most_what_was_in_flight(
    stream: Stream, worker: Callable[..., WorkerProcess], announce: Callable[[str], None]
) -> None:
    max_in_flight, kills = 400, 5
    rng = random.Random(20_26)
    ends = [dict.fromkeys(range(PARTITIONS), 0)]
    points, seen = [], []
    with Backlog(stream, short(1_000)) as backlog:
        for number in range(kills):
            points.append(sum(ends[-1].values()) + rng.randint(50, 450))
            process = worker(f"worker-{number}", engine={"max_in_flight": max_in_flight})
            wait_for_outputs(stream, points[-1])
            process.kill()
            ends.append(end_offsets(stream.bootstrap_servers, stream.output))
            seen.append(sum(ends[-1].values()))
            assert len({message.key() for message in stream.outputs()}) < len(backlog.keys), "killed in mid-stream"
    worker("last", engine={"max_in_flight": max_in_flight})
    stream.wait_caught_up(DEADLINE_SECONDS)

    outputs = stream.outputs()
    counts = Counter(message.key() for message in outputs)
    assert set(counts) == backlog.keys, "nothing is lost"
    doubled = doubled_by_kill(outputs, ends)
    announce(f"killed at {seen} outputs (drawn: from {points} on); doubled by each kill: {doubled}")
    assert all(count <= max_in_flight for count in doubled)


def wait_for_outputs(stream: Stream, count: int) -> None:
    wait_until(lambda: stream.output_count() >= count, DEADLINE_SECONDS, f"{count} outputs")


def doubled_by_kill(outputs: list[Message], ends: list[dict[int, int]]) -> list[int]:
    """Outputs written after each kill, and before the next, whose key had been written before."""
    runs: list[list[bytes | None]] = [[] for _ in ends]
    for message in outputs:
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        runs[sum(offset >= end[partition] for end in ends) - 1].append(message.key())
    before: set[bytes | None] = set()
    doubled = []
    for run in runs:
        doubled.append(sum(key in before for key in run))
        before.update(run)
    return doubled[1:]


def test_a_worker_that_joins_and_another_that_leaves_lose_nothing(
    stream: Stream, worker: Callable[..., WorkerProcess]
) -> None:
    first, second = worker("first").wait_ready(), worker("second").wait_ready()
    # Loaded and out of the group.
    assert second.request("/stop", method="POST")[0] == 200
    with Backlog(stream, long_tailed(1_000)) as backlog:
        wait_for_outputs(stream, 1)
        assert second.request("/start", method="POST")[0] == 200
        wait_until(lambda: second.stats()["embeddings_generated"] > 0, DEADLINE_SECONDS, "the second one works")
        assert stream.output_count() < len(backlog.keys), "joined in mid-stream"
        assert first.terminate() == 0
        assert stream.output_count() < len(backlog.keys), "left in mid-stream"
    stream.wait_caught_up(DEADLINE_SECONDS)

    counts = Counter(message.key() for message in stream.outputs())
    assert set(counts) == backlog.keys, "nothing is lost"
    assert max(counts.values()) == 1, "each partition was drained before it changed hands"

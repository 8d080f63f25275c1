"""The embedding loop against its bounds, on this machine's processor. Run by ``make bench``.

Real texts with a long tail, a real Kafka, everything in turns within one run: the encoder alone on all texts sorted at
once (the ceiling), Kafka to Kafka through the worker's loop with the very same encoder, the little service's loop that
encodes one message at a time, and sentence-transformers' ``encode`` in batches of 32. Then the loop with an encoder
that waits and computes nothing, the processor's time outside of the model beside a bare loop's, and the latency of
single messages. Prints medians and spreads; writes every round to ``out/benchmarks/engine.json``.
"""

import argparse
import gc
import json
import os
import random
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "testing")]

import contestants as run  # noqa: E402 - needs the path above
import numpy as np  # noqa: E402 - as above
from contestants import Flow, Stream, WaitingEncoder  # noqa: E402 - as above
from quiet import undisturbed  # noqa: E402 - as above
from sentence_transformers import SentenceTransformer  # noqa: E402 - as above

from embedding_service.contract.settings import ModelSettings  # noqa: E402 - as above
from embedding_service.encoders import loading  # noqa: E402 - as above
from embedding_service.encoders.protocol import LoadedModel  # noqa: E402 - as above
from kafka_broker import KafkaBroker  # noqa: E402 - as above
from kafka_helpers import Record, create_topics, produce  # noqa: E402 - as above
from machine import machine  # noqa: E402 - as above
from real_texts import long_tailed  # noqa: E402 - as above

NAIVE_MESSAGES = 400
WAITS = {"20 ms a batch of 64": 0.02, "5 ms a batch of 64": 0.005}
WAITING_TEXTS = 64
WAITING_MESSAGES = 20_000
LATENCY_PER_SECOND = 10
LATENCY_MESSAGES = 300
OUTPUT = ROOT / "out" / "benchmarks" / "engine.json"

Row = dict[str, Any]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=4_000)
    options = parser.parse_args()
    texts = list(long_tailed(options.messages))
    # They come in the order of modules; each contestant's first ones shall be like the rest.
    random.Random(0).shuffle(texts)
    model = loading.load(ModelSettings(device="cpu"))
    # As the worker does.
    gc.freeze()
    with KafkaBroker(own=True) as kafka:
        servers = kafka.bootstrap_servers
        stream = _filled(servers, "texts", texts)
        short = _filled(servers, "short", ["a text"] * WAITING_MESSAGES)
        rows: dict[str, Any] = {
            "throughput": _throughput(stream, model, texts, options.rounds),
            "overlap": [_overlap(short, model, name, seconds) for name, seconds in WAITS.items()],
            "latency": _latency(stream, model, texts),
        }
    rows["environment"] = machine("torch", "transformers", "tokenizers", "sentence-transformers", "confluent-kafka") | {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "load": os.getloadavg()[0],
        "messages": len(texts),
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(f"every round: {OUTPUT.relative_to(ROOT)}")


def _filled(servers: str, topic: str, texts: list[str]) -> Stream:
    create_topics(servers, [topic], partitions=run.PARTITIONS)
    values = (json.dumps({"id": str(number), "text": text}).encode() for number, text in enumerate(texts))
    produce(servers, (Record(topic, number % run.PARTITIONS, value=value) for number, value in enumerate(values)))
    return Stream(servers, topic, len(texts))


def _flow(stream: Stream, model: LoadedModel) -> Flow:
    with run.output_topics(stream.bootstrap_servers) as output:
        return run.through_worker(stream, output, model)


def _throughput(stream: Stream, model: LoadedModel, texts: list[str], rounds: int) -> Row:
    """Messages a second of each contestant, by round, and the loop's processor time outside of the model."""
    theirs = SentenceTransformer(model.path, device="cpu", local_files_only=True)
    flows: dict[int, Flow] = {}

    def loop() -> float:
        # A disturbed one is replaced by its repetition.
        flow = flows[len(rates["Kafka to Kafka"])] = _flow(stream, model)
        return flow.seconds

    contestants: dict[str, tuple[int, Callable[[], float]]] = {
        "the encoder alone": (len(texts), lambda: sum(run.ceiling(model, texts))),
        "Kafka to Kafka": (len(texts), loop),
        "encode in batches of 32": (len(texts), lambda: run.encode_in_batches(theirs, texts)),
        "poll one, encode one": (NAIVE_MESSAGES, lambda: run.naive_loop(stream, theirs, NAIVE_MESSAGES)),
    }
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, (messages, work) in contestants.items():
            seconds, others = undisturbed(work)
            rates[name].append(messages / seconds)
            print(f"round {number + 1}: {name}: {rates[name][-1]:,.1f} msgs/s (others {others:.1%})", flush=True)
    return _report_throughput(rates) | _report_processor(stream, list(flows.values()))


def _report_throughput(rates: dict[str, list[float]]) -> Row:
    ours = rates["Kafka to Kafka"]
    ratios = {
        name: [our / one for our, one in zip(ours, rates[name], strict=True)]
        for name in rates
        if name != "Kafka to Kafka"
    }
    for name, found in rates.items():
        print(f"{name}: median {statistics.median(found):,.1f} msgs/s ({min(found):,.1f}-{max(found):,.1f})")
    for name, found in ratios.items():
        print(f"Kafka to Kafka / {name}: median {statistics.median(found):.3f} ({min(found):.3f}-{max(found):.3f})")
    return {"messages_per_second": rates, "ratios": ratios}


def _report_processor(stream: Stream, flows: list[Flow]) -> Row:
    """Microseconds of the processor for each message, outside of tokenizer and model."""
    bare = [1e6 * run.bare_loop(stream) / stream.messages for _ in flows]
    stages = {
        name: statistics.median(1e6 * flow.cpu_seconds[name] / stream.messages for flow in flows)
        for name in flows[0].cpu_seconds
    }
    ours = sum(stages.values())
    parts = ", ".join(f"{name} {microseconds:.0f}" for name, microseconds in stages.items())
    print(f"outside of the model: {ours:.0f} µs a message ({parts}); a bare loop: {statistics.median(bare):.0f} µs")
    return {"microseconds": stages, "bare_microseconds": bare}


def _overlap(stream: Stream, model: LoadedModel, name: str, seconds: float) -> Row:
    """The loop's rate, where the model takes none of the processor's time, against that model's own."""
    budget = model.batch_tokens
    waiting = replace(model, encoder=WaitingEncoder(seconds, WAITING_TEXTS, budget))
    own = WAITING_TEXTS / seconds
    rates = [stream.messages / undisturbed(lambda: _flow(stream, waiting).seconds)[0] for _ in range(3)]
    ratio = statistics.median(rates) / own
    print(f"an encoder that waits {name}: {statistics.median(rates):,.0f} msgs/s, {ratio:.3f} of its own rate")
    return {"encoder": name, "own": own, "messages_per_second": rates}


def _latency(stream: Stream, model: LoadedModel, texts: list[str]) -> Row:
    """From produce to readable output, where the loop is idle between two messages."""
    seconds, _ = undisturbed(lambda: run.latencies(stream, model, texts[:LATENCY_MESSAGES], LATENCY_PER_SECOND))
    p50, p99 = (1e3 * float(value) for value in np.percentile(seconds, [50, 99]))
    print(f"{LATENCY_PER_SECOND} messages a second: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    return {"per_second": LATENCY_PER_SECOND, "p50_ms": p50, "p99_ms": p99}


if __name__ == "__main__":
    main()

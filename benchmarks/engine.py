"""The embedding loop against its bounds, on this machine's processor. Run by ``make bench``.

Real texts with a long tail, a real Kafka, everything in turns within one run: the encoder alone on all texts sorted at
once (the ceiling), Kafka to Kafka through the worker's loop with the very same encoder, the little service's loop that
encodes one message at a time, sentence-transformers' ``encode`` in batches of 32, and two libraries that embed. Then
the loop with an encoder that waits as a GPU does and computes nothing, the processor's time outside of the model beside
a bare loop's, and the latency of single messages. Prints medians and spreads; writes every round to
``out/benchmarks/engine.json``.
"""

import argparse
import json
import os
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "testing")]

import contestants as run  # noqa: E402 - needs the path above
import numpy as np  # noqa: E402 - as above
import peers  # noqa: E402 - as above
from accuracy import Truth  # noqa: E402 - as above
from contestants import Flow, Stream, WaitingEncoder  # noqa: E402 - as above
from quiet import undisturbed  # noqa: E402 - as above
from sentence_transformers import SentenceTransformer  # noqa: E402 - as above

from embedding_service.contract.settings import ModelSettings  # noqa: E402 - as above
from embedding_service.encoders import loading  # noqa: E402 - as above
from embedding_service.encoders.choice import Wanted  # noqa: E402 - as above
from embedding_service.encoders.protocol import LoadedModel  # noqa: E402 - as above
from embedding_service.encoders.pytorch import PyTorchEncoder  # noqa: E402 - as above
from embedding_service.worker import settle_interpreter  # noqa: E402 - as above
from kafka_broker import KafkaBroker  # noqa: E402 - as above
from kafka_helpers import Record, create_topics, produce  # noqa: E402 - as above
from machine import machine  # noqa: E402 - as above
from real_texts import long_tailed  # noqa: E402 - as above

# What is exact everywhere, and the fastest that this machine has.
PRECISIONS: tuple[Wanted, ...] = ("float32", "auto")
LOOP = "Kafka to Kafka"
PEER_TEXTS = 1_000
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
    parser.add_argument("--without-peers", action="store_true", help="leave out infinity_emb and fastembed")
    options = parser.parse_args()
    texts = list(long_tailed(options.messages))
    # They come in the order of modules; each contestant's first ones shall be like the rest.
    random.Random(0).shuffle(texts)
    models: dict[str, LoadedModel] = {
        precision: loading.load(ModelSettings(device="cpu", precision=precision)) for precision in PRECISIONS
    }
    # As the worker does.
    settle_interpreter()
    theirs = SentenceTransformer(models["float32"].path, device="cpu", local_files_only=True)
    with KafkaBroker(own=True) as kafka, ExitStack() as stack:
        servers = kafka.bootstrap_servers
        stream = _filled(servers, "texts", texts)
        many = (texts * (WAITING_MESSAGES // len(texts) + 1))[:WAITING_MESSAGES]
        repeated = _filled(servers, "many", many)
        found = [] if options.without_peers else list(_peers(stack, models["float32"], theirs, texts))
        rows: dict[str, Any] = {
            "accuracy": _accuracy(models, theirs, texts),
            "throughput": _throughput(stream, models, theirs, found, texts, options.rounds),
            "overlap": [_overlap(repeated, models["float32"], name, seconds, many) for name, seconds in WAITS.items()],
            "latency": _latency(stream, models["auto"], texts),
            "peers": {peer.name: peer.settings for peer in found},
        }
    packages = ("torch", "openvino", "transformers", "tokenizers", "sentence-transformers", "confluent-kafka")
    rows["environment"] = machine(*packages) | {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "load": os.getloadavg()[0],
        "messages": len(texts),
        "precisions": {name: f"{model.backend} {model.precision}" for name, model in models.items()},
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(f"every round: {OUTPUT.relative_to(ROOT)}")


def _peers(
    stack: ExitStack, model: LoadedModel, theirs: SentenceTransformer, texts: Sequence[str]
) -> Iterator[peers.Peer]:
    few = texts[:PEER_TEXTS]
    reference = theirs.encode(few, batch_size=32, show_progress_bar=False)
    for name in peers.SETTINGS:
        peer = peers.best(name, Path(model.path), few, reference)
        stack.callback(peer.close)
        print(f"{name}: {peer.settings}")
        yield peer


def _accuracy(models: Mapping[str, LoadedModel], theirs: SentenceTransformer, texts: Sequence[str]) -> Row:
    """Each precision against float32 of PyTorch."""
    encoder = PyTorchEncoder(theirs, prompt=None, normalize=True)
    truth = Truth(replace(models["float32"], encoder=encoder, backend="pytorch"), texts)
    found = {f"{model.backend} {model.precision}": truth.compare(model) for model in models.values()}
    for name, row in found.items():
        print(
            f"{name}: cosine {row['cosine_mean']:.6f} in the mean, {row['cosine_min']:.6f} at least; the same nearest "
            f"{row['top1']:.1%}, of the nearest ten {row['top10']:.1%}",
            flush=True,
        )
    return found


def _filled(servers: str, topic: str, texts: list[str]) -> Stream:
    create_topics(servers, [topic], partitions=run.PARTITIONS)
    values = (json.dumps({"id": str(number), "text": text}).encode() for number, text in enumerate(texts))
    produce(servers, (Record(topic, number % run.PARTITIONS, value=value) for number, value in enumerate(values)))
    return Stream(servers, topic, len(texts))


def _flow(stream: Stream, model: LoadedModel, **engine: int) -> Flow:
    with run.output_topics(stream.bootstrap_servers) as output:
        return run.through_worker(stream, output, model, encoding="json", **engine)


def _throughput(
    stream: Stream,
    models: Mapping[str, LoadedModel],
    theirs: SentenceTransformer,
    found: Sequence[peers.Peer],
    texts: list[str],
    rounds: int,
) -> Row:
    """Messages a second of each contestant, by round, and the loop's processor time outside of the model."""
    flows: dict[int, Flow] = {}

    def loop() -> float:
        # A disturbed one is replaced by its repetition.
        flow = flows[len(rates[LOOP])] = _flow(stream, models["float32"])
        return flow.seconds

    contestants: dict[str, Callable[[], float]] = {
        "the encoder alone": lambda: sum(run.ceiling(models["float32"], texts)),
        LOOP: loop,
        "the encoder alone, auto": lambda: sum(run.ceiling(models["auto"], texts)),
        f"{LOOP}, auto": lambda: _flow(stream, models["auto"]).seconds,
        "encode in batches of 32": lambda: run.encode_in_batches(theirs, texts),
        "poll one, encode one": lambda: run.naive_loop(stream, theirs),
    } | {peer.name: partial(peer.seconds, texts) for peer in found}
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    others: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, work in contestants.items():
            seconds, share = undisturbed(work)
            rates[name].append(len(texts) / seconds)
            others[name].append(share)
            print(f"round {number + 1}: {name}: {rates[name][-1]:,.1f} msgs/s (others {share:.1%})", flush=True)
    return {"others": others} | _report_throughput(rates) | _report_processor(stream, list(flows.values()))


def _report_throughput(rates: dict[str, list[float]]) -> Row:
    for name, found in rates.items():
        print(f"{name}: median {statistics.median(found):,.1f} msgs/s ({min(found):,.1f}-{max(found):,.1f})")
    pairs = [(LOOP, name) for name in rates if LOOP not in name and "auto" not in name]
    pairs.append((f"{LOOP}, auto", "the encoder alone, auto"))
    ratios = {f"{a} / {b}": [one / other for one, other in zip(rates[a], rates[b], strict=True)] for a, b in pairs}
    for name, found in ratios.items():
        print(f"{name}: median {statistics.median(found):.3f} ({min(found):.3f}-{max(found):.3f})")
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


def _overlap(stream: Stream, model: LoadedModel, name: str, seconds: float, texts: Sequence[str]) -> Row:
    """The loop's rate, where the model takes none of the processor's time, against that model's own."""
    encoder = WaitingEncoder(seconds, WAITING_TEXTS, texts)
    waiting = replace(model, encoder=encoder)
    own = len(texts) / encoder.alone(model.batch_cost)
    flows: list[Flow] = []

    def loop() -> float:
        flows.append(_flow(stream, waiting, max_batch_tokens=encoder.batch_tokens))
        return flows[-1].seconds

    rates = [stream.messages / undisturbed(loop)[0] for _ in range(3)]
    ratio = statistics.median(rates) / own
    print(f"an encoder that waits {name}: {statistics.median(rates):,.0f} msgs/s, {ratio:.3f} of its own rate")
    return {"encoder": name, "own": own, "messages_per_second": rates} | _report_processor(stream, flows)


def _latency(stream: Stream, model: LoadedModel, texts: list[str]) -> Row:
    """From produce to readable output, where the loop is idle between two messages, and what of it is the encoder's."""
    few = texts[:LATENCY_MESSAGES]
    work = {
        "Kafka to Kafka": lambda: run.latencies(stream, model, few, LATENCY_PER_SECOND),
        "the encoder alone": lambda: run.encoded_singly(model, few, LATENCY_PER_SECOND),
    }
    found: dict[str, Any] = {"per_second": LATENCY_PER_SECOND}
    for name, measure in work.items():
        seconds, _ = undisturbed(measure)
        p50, p99 = (1e3 * float(value) for value in np.percentile(seconds, [50, 99]))
        print(f"{LATENCY_PER_SECOND} messages a second, {name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        found[name] = {"p50_ms": p50, "p99_ms": p99}
    return found


if __name__ == "__main__":
    main()

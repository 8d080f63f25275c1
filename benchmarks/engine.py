"""The embedding loop against its bounds, on this machine's processor. Run by ``make bench``.

Real texts with a long tail, a real Kafka, everything in turns within one run: the encoder alone on all texts sorted at
once (the ceiling), Kafka to Kafka through the worker's loop with the very same encoder, the little service's loop that
encodes one message at a time, sentence-transformers' ``encode`` in batches of 32, and two libraries that embed. Then
the loop with an encoder that waits as a GPU does and computes nothing, the processor's time outside of the model beside
a bare loop's, and the latency of single messages. Prints medians and spreads; writes every round to
``out/benchmarks/engine.json``, and a picture beside it.
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
import engine_plot  # noqa: E402 - as above
import numpy as np  # noqa: E402 - as above
import peers  # noqa: E402 - as above
from contestants import Flow, Stream, WaitingEncoder  # noqa: E402 - as above
from quiet import spread, undisturbed  # noqa: E402 - as above
from sentence_transformers import SentenceTransformer  # noqa: E402 - as above

from accuracy import Truth  # noqa: E402 - as above
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

# What is exact everywhere, and the fastest that this machine has, which may be the same.
PRECISIONS: tuple[Wanted, ...] = ("float32", "auto")
LOOP = "Kafka to Kafka"
ENCODER = "the encoder alone"
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
    models = _models()
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
            "overlap": [
                _overlap(repeated, models["float32"], name, seconds, many, options.rounds)
                for name, seconds in WAITS.items()
            ],
            "latency": _latency(stream, models["auto"], texts, options.rounds),
            "peers": {peer.name: peer.settings for peer in found},
        }
    packages = ("torch", "openvino", "transformers", "tokenizers", "sentence-transformers", "confluent-kafka")
    rows["environment"] = machine(*packages) | {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "load": os.getloadavg()[0],
        "messages": len(texts),
        "tokens": _tokens(models["float32"], texts),
        "precisions": {name: f"{model.backend} {model.precision}" for name, model in models.items()},
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    engine_plot.save(rows, OUTPUT.with_suffix(".png"))
    print(f"every round: {OUTPUT.relative_to(ROOT)}, and as a picture: {OUTPUT.with_suffix('.png').relative_to(ROOT)}")


def _models() -> dict[str, LoadedModel]:
    """By precision; what ``auto`` chose is the other one itself where it is no other."""
    exact, fastest = (loading.load(ModelSettings(device="cpu", precision=precision)) for precision in PRECISIONS)
    same = (fastest.backend, fastest.precision) == (exact.backend, exact.precision)
    return {"float32": exact, "auto": exact if same else fastest}


def _tokens(model: LoadedModel, texts: Sequence[str]) -> int:
    return sum(text.length for text in model.encoder.tokenize(texts))


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
    """Each precision that can be had here, by name or by ``auto``, against float32 of PyTorch."""
    encoder = PyTorchEncoder(theirs, prompt=None, normalize=True)
    truth = Truth(replace(models["float32"], encoder=encoder, backend="pytorch"), texts)
    offered = {f"{model.backend} {model.precision}": model for model in models.values()}
    if all(model.precision != "bfloat16" for model in offered.values()):
        # Nobody would want it here, and everybody may ask for it.
        slow = loading.load(ModelSettings(device="cpu", precision="bfloat16"))
        offered[f"{slow.backend} {slow.precision}"] = slow
    found = {name: truth.compare(model) for name, model in offered.items()}
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
        ENCODER: lambda: sum(run.ceiling(models["float32"], texts)),
        LOOP: loop,
        **_contestants_of_auto(stream, models, texts),
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
    tokens = _tokens(models["float32"], texts) / len(texts)
    return {"others": others} | _report_throughput(rates, tokens) | _report_processor(stream, list(flows.values()))


def _contestants_of_auto(
    stream: Stream, models: Mapping[str, LoadedModel], texts: list[str]
) -> dict[str, Callable[[], float]]:
    if models["auto"] is models["float32"]:
        return {}
    return {
        f"{ENCODER}, auto": lambda: sum(run.ceiling(models["auto"], texts)),
        f"{LOOP}, auto": lambda: _flow(stream, models["auto"]).seconds,
    }


def _report_throughput(rates: dict[str, list[float]], tokens: float) -> Row:
    for name, found in rates.items():
        print(f"{name}: median {spread(found, 1)} msgs/s, {tokens * statistics.median(found):,.0f} tokens/s")
    others = [name for name in rates if LOOP not in name and ENCODER not in name]
    pairs = [(name, other) for name in rates if LOOP in name for other in [name.replace(LOOP, ENCODER), *others]]
    ratios = {f"{a} / {b}": [one / other for one, other in zip(rates[a], rates[b], strict=True)] for a, b in pairs}
    for name, found in ratios.items():
        print(f"{name}: median {spread(found, 3)}")
    per_second = {name: [tokens * rate for rate in found] for name, found in rates.items()}
    return {"messages_per_second": rates, "tokens_per_second": per_second, "ratios": ratios}


def _report_processor(stream: Stream, flows: Sequence[Flow]) -> Row:
    """Microseconds of the processor for each message, outside of tokenizer and model."""
    bare = [1e6 * undisturbed(lambda: run.bare_loop(stream))[0] / stream.messages for _ in flows]
    rounds = [{name: 1e6 * spent / stream.messages for name, spent in flow.cpu_seconds.items()} for flow in flows]
    stages = {name: statistics.median(one[name] for one in rounds) for name in run.STAGES}
    ours = [sum(one.values()) for one in rounds]
    ratios = [one / other for one, other in zip(ours, bare, strict=True)]
    parts = ", ".join(f"{name} {microseconds:.0f}" for name, microseconds in stages.items())
    print(
        f"outside of the model: {spread(ours, 1)} µs a message ({parts}); a bare loop: {spread(bare, 1)} µs; "
        f"{spread(ratios, 2)} times that (the aim is at most 2)"
    )
    return {
        "microseconds": stages,
        "microseconds_by_round": ours,
        "bare_microseconds": bare,
        "microseconds_ratios": ratios,
    }


def _overlap(stream: Stream, model: LoadedModel, name: str, seconds: float, texts: Sequence[str], rounds: int) -> Row:
    """The loop's rate, where the model takes none of the processor's time, against that model's own."""
    encoder = WaitingEncoder(seconds, WAITING_TEXTS, texts)
    waiting = replace(model, encoder=encoder)
    own = len(texts) / encoder.alone(model.batch_cost)
    flows, others = zip(
        *(undisturbed(lambda: _flow(stream, waiting, max_batch_tokens=encoder.batch_tokens)) for _ in range(rounds)),
        strict=True,
    )
    rates = [stream.messages / flow.seconds for flow in flows]
    ratios = [rate / own for rate in rates]
    print(
        f"an encoder that waits {name}: {statistics.median(rates):,.0f} msgs/s, {statistics.median(ratios):.3f} of its "
        f"own rate ({min(ratios):.3f}-{max(ratios):.3f}; others {max(others):.1%} at most)"
    )
    return {"encoder": name, "own": own, "messages_per_second": rates, "ratios": ratios, "others": others} | (
        _report_processor(stream, flows)
    )


def _latency(stream: Stream, model: LoadedModel, texts: list[str], rounds: int) -> Row:
    """From produce to readable output, where the loop is idle between two messages, and what of it is the encoder's."""
    few = texts[:LATENCY_MESSAGES]
    work = {
        LOOP: lambda: run.latencies(stream, model, few, LATENCY_PER_SECOND),
        ENCODER: lambda: run.encoded_singly(model, few, LATENCY_PER_SECOND),
    }
    percentiles: dict[str, list[list[float]]] = {name: [] for name in work}
    others: list[float] = []
    for _ in range(rounds):
        for name, measure in work.items():
            seconds, share = undisturbed(measure)
            others.append(share)
            percentiles[name].append([1e3 * float(value) for value in np.percentile(seconds, [50, 99])])
    found: dict[str, Any] = {"per_second": LATENCY_PER_SECOND, "others": others}
    for name, measured in percentiles.items():
        p50, p99 = ([round_[index] for round_ in measured] for index in (0, 1))
        print(f"{LATENCY_PER_SECOND} messages a second, {name}: p50 {spread(p50, 1)} ms, p99 {spread(p99, 1)} ms")
        found[name] = {"p50_ms": p50, "p99_ms": p99}
    return found


if __name__ == "__main__":
    main()

"""The embedding loop against its bounds, on this machine's processor. Run by ``make bench``.

Real texts with a long tail, a real Kafka, everything in turns within one run: the encoder alone on all texts sorted at
once (the ceiling), Kafka to Kafka through the worker's loop with the very same encoder, the little service's loop that
encodes one message at a time, sentence-transformers' ``encode`` in batches of 32, and two libraries that embed. Then
the latency of single messages. Prints medians and spreads; writes every round to ``out/benchmarks/engine.json``, and a
picture beside it.
"""

import argparse
import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "testing")]

import contestants as run  # noqa: E402 - needs the path above
import numpy as np  # noqa: E402 - as above
import peers  # noqa: E402 - as above
import plots  # noqa: E402 - as above
import torch  # noqa: E402 - as above
from contestants import Stream  # noqa: E402 - as above
from quiet import spread, undisturbed  # noqa: E402 - as above
from sentence_transformers import SentenceTransformer  # noqa: E402 - as above
from throughput import ENCODER, LOOP, Throughput  # noqa: E402 - as above

from accuracy import Truth  # noqa: E402 - as above
from embedding_service.contract.settings import ModelSettings  # noqa: E402 - as above
from embedding_service.encoders import loading  # noqa: E402 - as above
from embedding_service.encoders.choice import Wanted  # noqa: E402 - as above
from embedding_service.encoders.protocol import LoadedModel  # noqa: E402 - as above
from embedding_service.encoders.pytorch import OfIds, PyTorchEncoder  # noqa: E402 - as above
from embedding_service.worker import settle_interpreter  # noqa: E402 - as above
from kafka_broker import KafkaBroker  # noqa: E402 - as above
from machine import machine  # noqa: E402 - as above
from real_texts import long_tailed  # noqa: E402 - as above

# What is exact everywhere, and the fastest that this machine has.
PRECISIONS: tuple[Wanted, ...] = ("float32", "auto")
PEER_TEXTS = 1_000
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
        stream = run.filled(servers, "texts", texts)
        found = [] if options.without_peers else list(_peers(stack, models["float32"], theirs, texts))
        rows: Row = {"environment": _environment(models, texts), "peers": {peer.name: peer.settings for peer in found}}
        parts: dict[str, Callable[[], Any]] = {
            "accuracy": lambda: _accuracy(models, theirs, texts),
            "throughput": lambda: Throughput(stream, models, theirs, found, texts).run(options.rounds),
            "latency": lambda: _latency(stream, models.get("auto", models["float32"]), texts, options.rounds),
        }
        OUTPUT.parent.mkdir(parents=True, exist_ok=True)
        for name, measure in parts.items():
            rows[name] = measure()
            # The next part takes long, and may fail.
            OUTPUT.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    plots.rates(rows["throughput"]["messages_per_second"], OUTPUT.with_suffix(".png"))
    print(f"every round: {OUTPUT.relative_to(ROOT)}, and as a picture: {OUTPUT.with_suffix('.png').relative_to(ROOT)}")


def _environment(models: Mapping[str, LoadedModel], texts: Sequence[str]) -> Row:
    packages = ("torch", "openvino", "transformers", "tokenizers", "sentence-transformers", "confluent-kafka")
    return machine(*packages) | {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "load": os.getloadavg()[0],
        "messages": len(texts),
        "tokens": sum(text.length for text in models["float32"].encoder.tokenize(texts)),
        "precisions": {name: f"{model.backend} {model.precision}" for name, model in models.items()},
    }


def _models() -> dict[str, LoadedModel]:
    """By precision; without ``auto`` where that is float32, too."""
    exact, fastest = (loading.load(ModelSettings(device="cpu", precision=precision)) for precision in PRECISIONS)
    same = (fastest.backend, fastest.precision) == (exact.backend, exact.precision)
    return {"float32": exact} if same else {"float32": exact, "auto": fastest}


def _peers(
    stack: ExitStack, model: LoadedModel, theirs: SentenceTransformer, texts: Sequence[str]
) -> Iterator[peers.Peer]:
    few = texts[:PEER_TEXTS]
    reference = theirs.encode(few, batch_size=32, show_progress_bar=False)
    for name in peers.SETTINGS:
        try:
            peer = peers.best(name, Path(model.path), few, reference)
        except peers.PeerMissingError as error:
            print(f"left out: {error}")
            continue
        stack.callback(peer.close)
        print(f"{name}: {peer.settings}")
        yield peer


def _accuracy(models: Mapping[str, LoadedModel], theirs: SentenceTransformer, texts: Sequence[str]) -> Row:
    """Each precision that can be had here, by name or by ``auto``, against float32 of PyTorch."""
    encoder = PyTorchEncoder(theirs, prompt=None, normalize=True)
    reference = replace(models["float32"], encoder=encoder, backend="pytorch")
    truth = Truth(reference, texts)
    offered = list(models.values())
    if all(model.precision != "bfloat16" for model in offered):
        # Nobody would want it here, and everybody may ask for it.
        offered.append(loading.load(ModelSettings(device="cpu", precision="bfloat16")))
    # What models get that OpenVINO can't represent.
    assert isinstance(encoder.forward, OfIds)
    half = encoder.in_precision(encoder.forward, torch.bfloat16)
    offered.append(replace(reference, encoder=half, precision="bfloat16"))
    found = {f"{model.backend} {model.precision}": truth.compare(model) for model in offered}
    for name, row in found.items():
        print(
            f"{name}: cosine {row['cosine_mean']:.6f} in the mean, {row['cosine_min']:.6f} at least; the same nearest "
            f"{row['top1']:.1%}, of the nearest ten {row['top10']:.1%}",
            flush=True,
        )
    return found


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
        print(
            f"{LATENCY_PER_SECOND} messages a second, {name}: p50 {spread(p50, 1)} ms, p99 {spread(p99, 1)} ms "
            f"(others {max(others):.1%} at most)"
        )
        found[name] = {"p50_ms": p50, "p99_ms": p99}
    return found


if __name__ == "__main__":
    main()

"""Kafka to Kafka on this machine's GPU, against the worker's own encoder alone on the same texts.

In turns within one run, for each precision: all texts tokenised at once; sorted, and through the model with nothing
around it (the ceiling); and the worker's loop on librdkafka's mock broker, which is Kafka's protocol in this process.
Needs a GPU, and fails without one. Not part of ``make bench``. Writes all of it to ``out/benchmarks/gpu_stream.json``.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "testing"), str(ROOT / "operator"), str(ROOT / "service")]

import contestants as run  # noqa: E402 - needs the path above
from contestants import Stream  # noqa: E402 - as above

from embedding_operator.local.broker import in_memory  # noqa: E402 - as above
from embedding_service.contract.settings import DEFAULT_MODEL, ModelSettings  # noqa: E402 - as above
from embedding_service.encoders import loading  # noqa: E402 - as above
from embedding_service.encoders.choice import Wanted  # noqa: E402 - as above
from embedding_service.encoders.protocol import LoadedModel  # noqa: E402 - as above
from embedding_service.worker import settle_interpreter  # noqa: E402 - as above
from kafka_helpers import Record, produce  # noqa: E402 - as above
from machine import machine  # noqa: E402 - as above
from real_texts import long_tailed  # noqa: E402 - as above

ROUNDS = 5
TEXTS = 8_000
# The mock broker keeps 5 MiB of a partition.
MESSAGES = 24_000
IN_FLIGHT = (2_048, 8_192)
PRECISIONS: tuple[Wanted, ...] = ("float32", "auto")
OUTPUT = ROOT / "out" / "benchmarks" / "gpu_stream.json"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="a directory with the model (default: %(default)s)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs an NVIDIA GPU, and PyTorch sees none on this machine")
    found = long_tailed(TEXTS)
    texts = [found[number % TEXTS] for number in range(MESSAGES)]
    outputs = [f"out-{number}" for number in range(len(PRECISIONS) * len(IN_FLIGHT) * (ROUNDS + 1))]
    names = iter(outputs)
    rows: dict[str, Any] = {}
    with in_memory(["texts", *outputs, *(f"{name}-deadletter" for name in outputs)]) as servers:
        values = (json.dumps({"id": str(number), "text": text}).encode() for number, text in enumerate(texts))
        produce(servers, (Record("texts", number % run.PARTITIONS, value=value) for number, value in enumerate(values)))
        for precision in PRECISIONS:
            model = loading.load(ModelSettings(name=options.model, device="cuda", precision=precision))
            # As the worker does.
            settle_interpreter()
            print(f"{precision}: {model.backend} {model.precision}")
            rows[model.precision] = _measure(model, Stream(servers, "texts", MESSAGES), texts, names)
    rows["environment"] = machine("torch", "transformers", "confluent-kafka") | {
        "gpu": torch.cuda.get_device_name(),
        "messages": MESSAGES,
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(f"written to {OUTPUT.relative_to(ROOT)}")


def _measure(model: LoadedModel, stream: Stream, texts: list[str], names: Iterator[str]) -> dict[str, Any]:
    ceilings: list[float] = []
    tokenizers: list[float] = []
    flows: dict[int, list[float]] = {in_flight: [] for in_flight in IN_FLIGHT}
    for number in range(ROUNDS + 1):
        tokenizing, computing = run.ceiling(model, texts)
        ceilings.append(MESSAGES / computing)
        tokenizers.append(MESSAGES / tokenizing)
        for in_flight, rates in flows.items():
            flow = run.through_worker(stream, next(names), model, max_in_flight=in_flight)
            rates.append(MESSAGES / flow.seconds)
            parts = ", ".join(f"{name} {1e6 * seconds / MESSAGES:.0f}" for name, seconds in flow.cpu_seconds.items())
            print(
                f"round {number}: the model {ceilings[-1]:,.0f} msgs/s, the tokenizer {tokenizers[-1]:,.0f}; "
                f"Kafka to Kafka with {in_flight} in flight {rates[-1]:,.0f}; µs a message besides the model: {parts}",
                flush=True,
            )
    ratios = {}
    for in_flight, rates in flows.items():
        # The first round warms up.
        found = [rate / ceiling for rate, ceiling in zip(rates[1:], ceilings[1:], strict=True)]
        ratios[in_flight] = found
        print(f"{in_flight} in flight: median {statistics.median(found):.3f} ({min(found):.3f}-{max(found):.3f})")
    return {"model": ceilings, "tokenizer": tokenizers, "messages_per_second": flows, "ratios": ratios}


if __name__ == "__main__":
    main()

"""Kafka to Kafka on this machine's GPU, against the worker's own encoder alone on the same texts, by size of the model.

In turns within one run, for each size: all texts tokenised at once; sorted, and through the model with nothing around
it (the ceiling); and the worker's loop on librdkafka's mock broker, which is Kafka's protocol in this process. Models
are BERTs with the default model's tokenizer and random weights, which don't change the speed. Needs a GPU, and fails
without one. Not part of ``make bench``. Writes all of it to ``out/benchmarks/gpu_stream.json``.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import BertConfig, BertModel

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "testing"), str(ROOT / "operator"), str(ROOT / "service")]

import contestants as run  # noqa: E402 - needs the path above
from contestants import Stream  # noqa: E402 - as above

from embedding_operator.local.broker import in_memory  # noqa: E402 - as above
from embedding_service.contract.outputs import Encoding  # noqa: E402 - as above
from embedding_service.contract.settings import DEFAULT_MODEL, ModelSettings  # noqa: E402 - as above
from embedding_service.encoders import loading  # noqa: E402 - as above
from embedding_service.encoders.protocol import LoadedModel  # noqa: E402 - as above
from embedding_service.encoders.weights import find_weights  # noqa: E402 - as above
from embedding_service.worker import settle_interpreter  # noqa: E402 - as above
from kafka_helpers import Record, produce  # noqa: E402 - as above
from machine import machine  # noqa: E402 - as above
from real_texts import long_tailed  # noqa: E402 - as above

TEXTS = 8_000
# The mock broker keeps 5 MiB of a partition.
MESSAGES = 24_000
OUTPUT = ROOT / "out" / "benchmarks" / "gpu_stream.json"


@dataclass(frozen=True)
class Size:
    """Of a BERT."""

    layers: int
    hidden: int
    heads: int

    def __str__(self) -> str:
        return f"{self.layers} layers of {self.hidden}"


# As all-MiniLM-L6-v2, bge-small, bge-base and bge-large.
SIZES = (Size(6, 384, 12), Size(12, 384, 12), Size(12, 768, 12), Size(24, 1024, 16))


class Way(NamedTuple):
    """How the loop is run."""

    max_in_flight: int
    encoding: Encoding

    def __str__(self) -> str:
        return f"{self.encoding}, {self.max_in_flight} in flight"


WAYS = (Way(2_048, "json"), Way(8_192, "json"), Way(8_192, "binary"))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="whose tokenizer is used (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="after one that warms up (default: %(default)s)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs an NVIDIA GPU, and PyTorch sees none on this machine")
    found = long_tailed(TEXTS)
    texts = [found[number % TEXTS] for number in range(MESSAGES)]
    outputs = [f"out-{number}" for number in range(len(SIZES) * len(WAYS) * (options.rounds + 1))]
    names = iter(outputs)
    rows: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        in_memory(["texts", *outputs, *(f"{name}-deadletter" for name in outputs)]) as servers,
    ):
        values = (json.dumps({"id": str(number), "text": text}).encode() for number, text in enumerate(texts))
        produce(servers, (Record("texts", number % run.PARTITIONS, value=value) for number, value in enumerate(values)))
        tokenizer = find_weights(ModelSettings(name=options.model)).path
        for size in SIZES:
            path = _made(size, tokenizer, Path(folder) / f"{size.layers}-{size.hidden}")
            model = loading.load(ModelSettings(name=str(path), device="cuda", precision="float16"))
            # As the worker does.
            settle_interpreter()
            print(f"{size}: {model.backend} {model.precision}")
            rows[str(size)] = _measure(model, Stream(servers, "texts", MESSAGES), texts, names, options.rounds)
    rows["environment"] = machine("torch", "transformers", "confluent-kafka") | {
        "gpu": torch.cuda.get_device_name(),
        "messages": MESSAGES,
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(f"written to {OUTPUT.relative_to(ROOT)}")


def _made(size: Size, tokenizer: Path, path: Path) -> Path:
    """A model of that size, with all but the transformer as it is at ``tokenizer``."""
    shutil.copytree(tokenizer, path, ignore=shutil.ignore_patterns("*.safetensors", "*.py", "onnx", "openvino"))
    config = BertConfig.from_pretrained(
        path,
        num_hidden_layers=size.layers,
        hidden_size=size.hidden,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.hidden,
    )
    torch.manual_seed(1)
    model = BertModel(config).half()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    model.save_pretrained(path)
    pooling = path / "1_Pooling" / "config.json"
    described = json.loads(pooling.read_text(encoding="utf-8")) | {"word_embedding_dimension": size.hidden}
    pooling.write_text(json.dumps(described), encoding="utf-8")
    return path


def _measure(model: LoadedModel, stream: Stream, texts: list[str], names: Iterator[str], rounds: int) -> dict[str, Any]:
    ceilings: list[float] = []
    tokenizers: list[float] = []
    flows: dict[Way, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds + 1):
        tokenizing, computing = run.ceiling(model, texts)
        ceilings.append(MESSAGES / computing)
        tokenizers.append(MESSAGES / tokenizing)
        print(f"round {number}: the model {ceilings[-1]:,.0f} msgs/s, the tokenizer {tokenizers[-1]:,.0f}", flush=True)
        for way, rates in flows.items():
            flow = run.through_worker(
                stream, next(names), model, encoding=way.encoding, max_in_flight=way.max_in_flight
            )
            rates.append(MESSAGES / flow.seconds)
            parts = ", ".join(f"{name} {1e6 * seconds / MESSAGES:.0f}" for name, seconds in flow.cpu_seconds.items())
            print(
                f"  {way}: {rates[-1]:,.0f} msgs/s, {rates[-1] / ceilings[-1]:.3f}; "
                f"µs a message besides the model: {parts}",
                flush=True,
            )
    # The first round warms up.
    ratios = {
        str(way): [rate / ceiling for rate, ceiling in zip(rates[1:], ceilings[1:], strict=True)]
        for way, rates in flows.items()
    }
    print(f"the model {_spread(ceilings[1:], ',.0f')}, the tokenizer {_spread(tokenizers[1:], ',.0f')} msgs/s")
    for way, rates in flows.items():
        part = _spread(ratios[str(way)], ".3f")
        print(f"{way}: {_spread(rates[1:], ',.0f')} msgs/s, {part} of the model", flush=True)
    flows_by_name = {str(way): rates for way, rates in flows.items()}
    return {"model": ceilings, "tokenizer": tokenizers, "messages_per_second": flows_by_name, "ratios": ratios}


def _spread(found: list[float], style: str) -> str:
    return f"{statistics.median(found):{style}} ({min(found):{style}}-{max(found):{style}})"


if __name__ == "__main__":
    main()

"""The model on this machine's GPU: how fast and how exact. ``gpu_stream.py`` tells how near to it the worker is.

Prints, for each precision and size of batches, messages and tokens a second of the model alone (texts sorted by length,
batches by padded tokens) with the spread of the rounds, its cosine to float32 on the CPU, and how often nearest
neighbours agree. Needs a GPU, and fails without one. Not part of ``make bench``. Writes all of it to
``out/benchmarks/gpu.json``.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "testing"), str(ROOT / "operator"), str(ROOT / "service")]

from accuracy import agreement  # noqa: E402 - needs the path above
from embedding_service.batching import pack  # noqa: E402 - as above
from embedding_service.contract.settings import ModelSettings  # noqa: E402 - as above
from embedding_service.encoders.protocol import Matrix  # noqa: E402 - as above
from embedding_service.encoders.weights import find_weights  # noqa: E402 - as above
from real_texts import long_tailed  # noqa: E402 - as above

ROUNDS = 5
TEXTS = 8_000
COMPARED = 3_000
BUDGETS = (1_024, 4_096, 16_384, 65_536)
OUTPUT = ROOT / "out" / "benchmarks" / "gpu.json"

Ids = list[list[int]]


@dataclass(frozen=True)
class Precision:
    """A type of numbers, and for float32 whether the GPU's matrix units may round to TF32."""

    name: str
    dtype: torch.dtype
    matmul: str = "highest"


PRECISIONS = (
    Precision("float32", torch.float32),
    Precision("tf32", torch.float32, "high"),
    Precision("float16", torch.float16),
    Precision("bfloat16", torch.bfloat16),
)


class RawModel:
    """The model's modules with nothing around them: token ids in, vectors out."""

    def __init__(self, path: str, device: str, dtype: torch.dtype) -> None:
        options = {"dtype": dtype, "attn_implementation": "sdpa", "use_safetensors": True}
        self._model = SentenceTransformer(path, device=device, local_files_only=True, model_kwargs=options).eval()
        self._device = device
        self.max_length = int(self._model.max_seq_length or 256)
        self.padding = int(self._model.tokenizer.pad_token_id)

    def tokenize(self, texts: list[str]) -> Ids:
        """Ids of each text, cut as the model cuts them."""
        encoded = self._model.tokenizer(texts, truncation=True, max_length=self.max_length, padding=False)
        ids: Ids = encoded["input_ids"]
        return ids

    @torch.inference_mode()
    def encode(self, ids: Ids, batches: list[list[int]]) -> Matrix:
        """Vectors of length 1, float32, in the order of ``ids``."""
        done = [self._forward([ids[index] for index in batch]) for batch in batches]
        vectors = torch.cat(done).float().cpu().numpy()
        ordered = np.empty_like(vectors)
        ordered[np.concatenate([np.array(batch) for batch in batches])] = vectors
        return ordered

    def _forward(self, rows: Ids) -> torch.Tensor:
        longest = max(map(len, rows))
        padded = np.full((len(rows), longest), self.padding, dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        for number, row in enumerate(rows):
            padded[number, : len(row)] = row
            mask[number, : len(row)] = 1
        features: dict[str, Any] = {"input_ids": self._there(padded), "attention_mask": self._there(mask)}
        first, *rest = self._model
        features = first(features)
        # A mean of many small numbers, and the length of a vector, lose more in half precision than the model does.
        features["token_embeddings"] = features["token_embeddings"].float()
        for module in rest:
            features = module(features)
        return torch.nn.functional.normalize(features["sentence_embedding"], dim=1)

    def _there(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self._device == "cpu" else tensor.pin_memory().to(self._device, non_blocking=True)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a directory with the model (default: the default model)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs an NVIDIA GPU, and PyTorch sees none on this machine")
    path = str(find_weights(ModelSettings(name=options.model) if options.model else ModelSettings()).path)
    texts = list(long_tailed(TEXTS))
    reference = RawModel(path, "cpu", torch.float32)
    ids = reference.tokenize(texts)
    tokens = sum(map(len, ids))
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {len(texts)} texts, {tokens} tokens", flush=True)
    truth = _Truth(reference, ids)
    rows = [row for precision in PRECISIONS for row in _measure(path, precision, ids, truth)]
    tokenizing = _rates(partial(reference.tokenize, texts), len(texts), tokens)
    print(f"tokenizer alone: {tokenizing['messages_per_second']:,.0f} msgs/s", flush=True)
    rows += [{"tokenizer": tokenizing}]
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps({"environment": _environment(texts, tokens), "rows": rows}, indent=2))
    print(f"written to {OUTPUT.relative_to(ROOT)}")


class _Truth:
    """What float32 on the CPU says: of texts, and of one sequence of each length."""

    def __init__(self, model: RawModel, ids: Ids) -> None:
        self.ids = ids[:COMPARED]
        longest = max(ids, key=len)
        self.lengths = [[*longest[: length - 1], longest[-1]] for length in range(3, len(longest) + 1)]
        self.vectors = model.encode(self.ids, pack([len(row) for row in self.ids], 4_096, 4_096))
        self.of_lengths = model.encode(self.lengths, [[number] for number in range(len(self.lengths))])

    def compare(self, model: RawModel, budget: int) -> dict[str, float]:
        """See ``agreement``."""
        vectors = model.encode(self.ids, pack([len(row) for row in self.ids], budget, budget))
        by_length = model.encode(self.lengths, [[number] for number in range(len(self.lengths))])
        return agreement((self.vectors, self.of_lengths), (vectors, by_length))


def _measure(path: str, precision: Precision, ids: Ids, truth: _Truth) -> Iterator[dict[str, Any]]:
    torch.set_float32_matmul_precision(precision.matmul)
    model = RawModel(path, "cuda", precision.dtype)
    for budget in BUDGETS:
        batches = pack([len(row) for row in ids], budget, budget)
        rates = _rates(partial(model.encode, ids, batches), len(ids), sum(map(len, ids)))
        row = {"precision": precision.name, "budget": budget, **rates} | truth.compare(model, budget)
        print(_line(row), flush=True)
        yield row
    torch.set_float32_matmul_precision("highest")


def _rates(work: Callable[[], object], messages: int, tokens: int) -> dict[str, float]:
    """Median, least and most messages a second over the rounds, after one that doesn't count."""
    seconds = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    rates = [messages / taken for taken in seconds[1:]]
    median = statistics.median(rates)
    return {
        "messages_per_second": median,
        "least": min(rates),
        "most": max(rates),
        "tokens_per_second": median * tokens / messages,
    }


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['precision']:9} {row['budget']:6d}  "
        f"{row['messages_per_second']:9,.0f} msgs/s ({row['least']:,.0f}-{row['most']:,.0f}) "
        f"{row['tokens_per_second'] / 1e6:6.2f} Mtok/s  cosine {row['cosine_mean']:.6f} / {row['cosine_min']:.6f}  "
        f"top1 {row['top1']:.3f} top10 {row['top10']:.3f}"
    )


def _environment(texts: list[str], tokens: int) -> dict[str, Any]:
    packages = ("torch", "transformers", "sentence-transformers")
    return {
        "device": torch.cuda.get_device_name(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "texts": len(texts),
        "tokens": tokens,
        "rounds": ROUNDS,
    }


if __name__ == "__main__":
    main()

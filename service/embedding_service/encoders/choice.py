"""Which backend computes a model, and in which precision. Pure: a table says what happens where."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from embedding_service.contract.fingerprint import FULL_COSINE, FULL_PRECISION

Backend = Literal["openvino", "pytorch"]
Precision = Literal["float32", "float16", "bfloat16"]
Wanted = Literal["auto", "float32", "float16", "bfloat16"]

# Below that a vector isn't this model's any more, whoever asked for it.
LEAST_COSINE = 0.999
# Of each, the units with which bfloat16 is faster than float32. PyTorch gains from AMX alone.
_BFLOAT16_UNITS: dict[Backend, frozenset[str]] = {
    "openvino": frozenset({"amx_bf16", "avx512_bf16"}),
    "pytorch": frozenset({"amx_bf16"}),
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to compute the model."""

    backend: Backend
    precision: Precision

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


# What every other one is measured against.
REFERENCE = Candidate("pytorch", "float32")


def candidates(wanted: Wanted, device: str, cpu_flags: Collection[str], *, openvino: bool) -> list[Candidate]:
    """What may be used, the fastest first; none where there is no such precision on the device.

    ``openvino`` is whether it can represent the model.
    """
    if device == "cuda":
        # Bfloat16 was up to a fifth faster, and forty times further from float32 (docs/performance.md).
        gpu: tuple[Precision, ...] = ("float16", "bfloat16", "float32") if wanted == "auto" else (wanted,)
        return [Candidate("pytorch", precision) for precision in gpu]
    if wanted == "float16":
        return []
    backends: tuple[Backend, ...] = ("openvino", "pytorch") if openvino else ("pytorch",)
    exact = [Candidate(backend, "float32") for backend in backends]
    if wanted == "float32":
        return exact
    if wanted == "bfloat16":
        return [Candidate(backend, wanted) for backend in backends]
    fast = [
        Candidate(backend, "bfloat16") for backend in backends if not _BFLOAT16_UNITS[backend].isdisjoint(cpu_flags)
    ]
    return fast + exact


def precision_class(candidate: Candidate, cosine: float, wanted: Wanted) -> str | None:
    """The class that the contract names, given the least cosine to the reference; ``None``: not to be used."""
    if cosine >= FULL_COSINE:
        return FULL_PRECISION
    asked_for = wanted == candidate.precision != "float32"
    return candidate.precision if asked_for and cosine >= LEAST_COSINE else None

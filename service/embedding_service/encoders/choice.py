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
# Without these units bfloat16 is slower than float32, or hardly faster.
_BFLOAT16_UNITS = "amx_bf16"


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
        gpu: tuple[Precision, ...] = ("float16", "bfloat16", "float32") if wanted == "auto" else (wanted,)
        return [Candidate("pytorch", precision) for precision in gpu]
    if wanted == "float16":
        return []
    if wanted == "auto":
        cpu: tuple[Precision, ...] = ("bfloat16", "float32") if _BFLOAT16_UNITS in cpu_flags else ("float32",)
    else:
        cpu = (wanted,)
    backends: tuple[Backend, ...] = ("openvino", "pytorch") if openvino else ("pytorch",)
    return [Candidate(backend, precision) for precision in cpu for backend in backends]


def precision_class(candidate: Candidate, cosine: float, wanted: Wanted) -> str | None:
    """The class that the contract names, given the least cosine to the reference; ``None``: not to be used."""
    if cosine >= FULL_COSINE:
        return FULL_PRECISION
    asked_for = wanted == candidate.precision != "float32"
    return candidate.precision if asked_for and cosine >= LEAST_COSINE else None

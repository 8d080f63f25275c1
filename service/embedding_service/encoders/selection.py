"""The backend and the precision that a model is computed with, chosen on the machine that computes it."""

import logging
import platform
from dataclasses import dataclass
from importlib.metadata import version

import torch

from embedding_service import __version__
from embedding_service.contract.fingerprint import FULL_PRECISION, EmbeddingContract
from embedding_service.encoders import processors, trial
from embedding_service.encoders.cache import Cache
from embedding_service.encoders.choice import (
    LEAST_COSINE,
    REFERENCE,
    Candidate,
    Wanted,
    candidates,
    precision_class,
)
from embedding_service.encoders.errors import one_line
from embedding_service.encoders.protocol import Encoder, Matrix, NotRepresentedError
from embedding_service.encoders.pytorch import OfIds, PyTorchEncoder

logger = logging.getLogger(__name__)

# Raised with what is made here, or how it is tried: what was kept before is made anew.
_MADE = 3
_LIBRARIES = ("openvino", "sentence-transformers", "torch", "transformers")


class PrecisionRefusedError(Exception):
    """The model can't be computed as it was asked for; says why, and what is expected."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides how exact a computation is, and how fast; ``name`` is the processor's or the GPU's."""

    device: str
    name: str
    cpu_flags: frozenset[str]
    threads: int

    @classmethod
    def this(cls, device: str, threads: int) -> "Machine":
        """The one that this process runs on."""
        name = torch.cuda.get_device_name() if device == "cuda" else platform.machine()
        return cls(device, name, processors.cpu_flags(), threads)


@dataclass(frozen=True, slots=True)
class Selected:
    """An encoder that is ready, what it is, and the class of its vectors."""

    encoder: Encoder
    candidate: Candidate
    precision_class: str


class Selection:
    """Of one model on one machine."""

    def __init__(self, reference: PyTorchEncoder, contract: EmbeddingContract, machine: Machine, cache: Cache) -> None:
        self._reference = reference
        self._by_ids = reference.forward if isinstance(reference.forward, OfIds) else None
        self._contract = contract
        self._machine = machine
        self._cache = cache
        self._versions = {name: version(name) for name in _LIBRARIES} | {"made_by": f"{__version__}.{_MADE}"}
        self._truth: Matrix | None = None

    def run(self, wanted: Wanted) -> Selected:
        """The first of the candidates whose vectors are the reference's. Raises ``PrecisionRefusedError``."""
        machine = self._machine
        found = candidates(wanted, machine.device, machine.cpu_flags, openvino=self._by_ids is not None)
        if not found:
            raise PrecisionRefusedError("a CPU doesn't compute in it; expected auto, float32 or bfloat16, or a GPU")
        why_not = "there is no other way to compute it"
        for candidate in found:
            if candidate == REFERENCE:
                why_texts = self._reference.why_texts
                logger.info("the model is computed by %s%s", candidate, f"; {why_texts}" if why_texts else "")
                return Selected(self._reference, candidate, FULL_PRECISION)
            try:
                encoder = self._made(candidate)
                cosine = self._cosine(candidate, encoder)
            except NotRepresentedError as error:
                why_not = str(error)
                logger.info("%s isn't used for this model: %s", candidate, error)
                continue
            except Exception as error:  # noqa: BLE001 - a conversion may raise anything; another way may do
                why_not = one_line(error)
                logger.warning("%s isn't used for this model: %s", candidate, why_not)
                continue
            found_class = precision_class(candidate, cosine, wanted)
            if found_class is not None:
                logger.info("the model is computed by %s, at a cosine to float32 of %.6f or more", candidate, cosine)
                return Selected(encoder, candidate, found_class)
            why_not = f"its vectors have a cosine of only {cosine:.6f} to those of float32"
            logger.warning("%s isn't used for this model: %s", candidate, why_not)
        raise PrecisionRefusedError(
            f"{why_not}; expected auto or float32, or a model that keeps at least {LEAST_COSINE} in it"
        )

    def _made(self, candidate: Candidate) -> Encoder:
        if self._by_ids is None:
            raise NotRepresentedError(self._reference.why_texts)
        if candidate.backend == "pytorch":
            return self._reference.in_precision(self._by_ids, getattr(torch, candidate.precision))
        # Not where a GPU computes.
        from embedding_service.encoders.openvino import OpenVinoEncoder
        from embedding_service.encoders.openvino_graph import Graph

        graph = Graph.of(self._by_ids, self._cache, {"files": self._contract.files}, self._versions)
        return OpenVinoEncoder(graph, candidate.precision, self._machine.threads, self._reference, self._by_ids)

    def _cosine(self, candidate: Candidate, encoder: Encoder) -> float:
        """Found out once for a machine of this kind."""
        key = {
            "contract": self._contract.fingerprint(),
            "candidate": str(candidate),
            "device": [self._machine.device, self._machine.name],
            "cpu": sorted(self._machine.cpu_flags),
        }
        known = self._cache.recall(key | self._versions)
        if isinstance(known, float):
            return known
        if self._truth is None:
            self._truth = trial.vectors(self._reference)
        cosine = trial.cosine(encoder, self._truth)
        self._cache.remember(key | self._versions, cosine)
        return cosine

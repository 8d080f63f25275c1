"""What the rest of the worker knows of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from embedding_service.contract.fingerprint import EmbeddingContract

Matrix = NDArray[np.float32]
Ids = NDArray[np.int32]

_CPU_BATCH_TOKENS = 1_024
_GPU_BATCH_TOKENS = 65_536
_CPU_BATCH_COST = 32
# Divided by a model's parameters: a launch takes as long as some tokens do, the fewer the larger the model.
_GPU_BATCH_COST = 400_000_000_000
_GPU_MOST_BATCH_COST = 16_384


class EncoderOutOfMemory(Exception):  # noqa: N818 - a condition that the caller handles with a smaller batch
    """A batch did not fit into memory; a smaller one may."""


class NotRepresentedError(Exception):
    """A backend can't compute this model; says why."""


class Tokenized(NamedTuple):
    """A text as the model takes it.

    ``text`` is as much of it as decides its vector, ``ids`` its tokens with special ones and prompt, cut at the model's
    maximum; ``None`` where the model has no tokenizer of the usual kind, and ``length``, in tokens, is an estimate.
    """

    text: str
    ids: Ids | None
    length: int
    truncated: bool


class Computation(Protocol):
    """A batch on its way through the model."""

    def done(self) -> bool:
        """Whether ``result`` wouldn't wait."""
        ...

    def result(self) -> Matrix:
        """Vectors of shape (len(batch), dimension).

        Raises ``EncoderOutOfMemory`` where the batch was too large for the device, and whatever the model raises
        where it can't take a text.
        """
        ...


@dataclass(frozen=True, slots=True)
class Computed:
    """A batch that is through."""

    vectors: Matrix

    def done(self) -> bool:
        """See ``Computation``."""
        return True

    def result(self) -> Matrix:
        """See ``Computation``."""
        return self.vectors


class Encoder(Protocol):
    """Texts to vectors. One thread at a time tokenises, and one at a time, maybe another, submits."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def max_length(self) -> int:
        """Tokens, special ones and prompt included, after which a text is cut."""
        ...

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """Each text in tokens. Raises whatever the tokenizer raises where it can't take a text."""
        ...

    def submit(self, batch: Sequence[Tokenized]) -> Computation:
        """Give one batch to the model: computes it, or lets the device do so and returns before it has.

        Waits where the device has enough to do. Raises as ``Computation.result`` does, where the fault shows by then.
        """
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An encoder that is ready, and what to say of it.

    ``seconds`` is how long loading took; ``parameters`` how many of them each token goes through.
    """

    encoder: Encoder
    name: str
    source: str
    path: str
    device: str
    backend: str
    precision: str
    contract: EmbeddingContract
    seconds: float
    parameters: int

    @property
    def batch_tokens(self) -> int:
        """Padded tokens of a batch that keep the device busy and no text waiting; measured, see docs/performance.md."""
        return _CPU_BATCH_TOKENS if self.device == "cpu" else _GPU_BATCH_TOKENS

    @property
    def batch_cost(self) -> int:
        """What a batch costs by itself, in tokens: as measured."""
        if self.device == "cpu":
            return _CPU_BATCH_COST
        return min(_GPU_MOST_BATCH_COST, _GPU_BATCH_COST // max(1, self.parameters))

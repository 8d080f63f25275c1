"""What the rest of the worker knows of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedding_service.contract.fingerprint import EmbeddingContract

Matrix = NDArray[np.float32]


class EncoderOutOfMemory(Exception):  # noqa: N818 - a condition that the caller handles with a smaller batch
    """A batch did not fit into memory; a smaller one may."""


class Encoder(Protocol):
    """Texts to vectors. Used by one thread at a time."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    @property
    def max_length(self) -> int:
        """Tokens, special ones and prompt included, after which a text is cut."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text before it is cut, special ones and prompt included.

        Of a very long text at least so many as show that it will be cut.
        """
        ...

    def encode(self, texts: Sequence[str]) -> Matrix:
        """Vectors of shape (len(texts), dimension), computed as one batch.

        Raises ``EncoderOutOfMemory`` where the batch was too large for the device, and whatever the model raises
        where it can't take a text.
        """
        ...


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An encoder that is ready, and what to say of it. ``seconds`` is how long loading took."""

    encoder: Encoder
    name: str
    source: str
    path: str
    device: str
    contract: EmbeddingContract
    seconds: float

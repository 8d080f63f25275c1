"""A model for tests whose vectors can be told by hand."""

import threading
from collections.abc import Callable, Sequence

import numpy as np

from embedding_service.encoders.protocol import Computation, Computed, Matrix, Tokenized

_SECONDS = 30.0


class WordEncoder:
    """A token is a word; a vector is (words, first letter). Faults are made on demand: no model makes them so."""

    dimension = 2
    max_length = 8

    def __init__(self, fault: Callable[[Sequence[str]], None] = lambda _texts: None) -> None:
        """``fault`` may raise at the texts of a batch."""
        self._fault = fault
        self.batches: list[list[str]] = []

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """See ``Encoder``."""
        counts = [len(text.split()) for text in texts]
        return [
            Tokenized(text, None, min(count, self.max_length), truncated=count > self.max_length)
            for text, count in zip(texts, counts, strict=True)
        ]

    def submit(self, batch: Sequence[Tokenized]) -> Computation:
        """See ``Encoder``."""
        return Computed(self.encode(batch))

    def encode(self, batch: Sequence[Tokenized]) -> Matrix:
        """Compute the batch at once."""
        texts = [text.text for text in batch]
        self._fault(texts)
        self.batches.append(list(texts))
        return np.array([[len(text.split()), ord(text[:1] or " ")] for text in texts], dtype=np.float32)


class GatedWordEncoder(WordEncoder):
    """A batch waits until it is let through."""

    def __init__(self, fault: Callable[[Sequence[str]], None] = lambda _texts: None) -> None:
        """See ``WordEncoder``."""
        super().__init__(fault)
        self.entered = threading.Event()
        self.open = threading.Event()

    def encode(self, batch: Sequence[Tokenized]) -> Matrix:
        """See ``WordEncoder``."""
        self.entered.set()
        assert self.open.wait(_SECONDS)
        return super().encode(batch)

"""How near a precision's vectors are to float32 of PyTorch: over real texts, and over every length."""

from collections.abc import Sequence

import numpy as np

from embedding_service.batching import pack
from embedding_service.encoders.protocol import LoadedModel, Matrix, Tokenized

TEXTS = 3_000
SHORTEST = 3
NEIGHBOURS = 10


class Truth:
    """What the reference says of texts, and of one sequence of each length, or of ``every`` so many."""

    def __init__(self, reference: LoadedModel, texts: Sequence[str], *, every: int = 1) -> None:
        self._texts = reference.encoder.tokenize(texts[:TEXTS])
        longest = max(self._texts, key=lambda text: text.length)
        assert longest.ids is not None
        self._lengths = [
            longest._replace(ids=np.append(longest.ids[: length - 1], longest.ids[-1]), length=length)
            for length in range(SHORTEST, longest.length + 1, every)
        ]
        self._expected = self._vectors_of(reference)

    def compare(self, model: LoadedModel) -> dict[str, float]:
        """See ``agreement``."""
        return agreement(self._expected, self._vectors_of(model))

    def _vectors_of(self, model: LoadedModel) -> tuple[Matrix, Matrix]:
        # What comes alone may be computed otherwise than what comes beside others.
        alone = [model.encoder.submit([text]).result() for text in self._lengths]
        return _vectors(model, self._texts), np.concatenate([_vectors(model, self._lengths), *alone])


def agreement(expected: tuple[Matrix, Matrix], found: tuple[Matrix, Matrix]) -> dict[str, float]:
    """Cosines, and how often the nearest and the nearest ten are the same; of texts, and of one of each length."""
    cosines, by_length = (np.einsum("ij,ij->i", *pair) for pair in zip(expected, found, strict=True))
    theirs, ours = _neighbours(expected[0]), _neighbours(found[0])
    shared = [len(set(a) & set(b)) / NEIGHBOURS for a, b in zip(ours, theirs, strict=True)]
    return {
        "cosine_mean": float(cosines.mean()),
        "cosine_min": float(min(cosines.min(), by_length.min())),
        "top1": float((ours[:, 0] == theirs[:, 0]).mean()),
        "top10": float(np.mean(shared)),
    }


def _vectors(model: LoadedModel, texts: Sequence[Tokenized]) -> Matrix:
    """Of length 1, in the order of the texts."""
    batches = pack([text.length for text in texts], model.batch_tokens, model.batch_cost)
    running = [(batch, model.encoder.submit([texts[index] for index in batch])) for batch in batches]
    vectors = np.empty((len(texts), model.encoder.dimension), dtype=np.float32)
    for batch, computation in running:
        vectors[batch] = computation.result()
    return vectors


def _neighbours(vectors: Matrix) -> np.ndarray:
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -1)
    return np.argsort(-similar, axis=1)[:, :NEIGHBOURS]

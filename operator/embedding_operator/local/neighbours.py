"""Which texts' vectors are nearest to which; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

# A vector of 384 dimensions takes 1.5 KiB.
MOST_VECTORS = 20_000
_NEAREST = 3
_SAMPLES = 3


class Neighbour(NamedTuple):
    """A row of the matrix, and its cosine similarity."""

    row: int
    cosine: float


def nearest(vectors: Matrix, wanted: Matrix, count: int) -> list[list[Neighbour]]:
    """For each row of ``wanted``, the ``count`` rows of ``vectors`` of highest cosine similarity, best first.

    Shapes: ``vectors`` (n, d), ``wanted`` (m, d). A vector of zeros has cosine 0 to everything.
    """
    cosines = _unit(wanted) @ _unit(vectors).T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    return [
        [Neighbour(int(row), float(similarities[row])) for row in rows]
        for rows, similarities in zip(order, cosines, strict=True)
    ]


def _unit(vectors: Matrix) -> Matrix:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Example:
    """A text, and those nearest to it with their cosine similarities."""

    text: str
    neighbours: tuple[tuple[float, str], ...]


class Vectors:
    """The vectors of the first texts and of all queries, to show that they mean something."""

    def __init__(self) -> None:
        self._queries: dict[int, tuple[str, Sequence[float]]] = {}
        self._texts: dict[int, tuple[str, NDArray[np.float32]]] = {}
        self.cut = False

    def add_query(self, number: int, query: str, vector: Sequence[float]) -> None:
        """Keep a query's vector; ``number`` is its place among all that was fed."""
        self._queries[number] = (query, vector)

    def wants_text(self) -> bool:
        """Whether there is room for one more text; notes that texts were left out where there is none."""
        self.cut = self.cut or len(self._texts) >= MOST_VECTORS
        return not self.cut

    def add_text(self, number: int, text: str, vector: Sequence[float]) -> None:
        """Keep a text's vector; ``number`` is its place among all that was fed."""
        self._texts[number] = (text, np.asarray(vector, dtype=np.float32))

    def examples(self) -> list[Example]:
        """The three nearest texts of each query, or of three texts evenly spread where there is no query."""
        if not self._texts:
            return []
        numbers = sorted(self._texts)
        texts = [self._texts[number][0] for number in numbers]
        matrix = np.stack([self._texts[number][1] for number in numbers])
        if self._queries:
            asked = [self._queries[number] for number in sorted(self._queries)]
            found = nearest(matrix, np.array([vector for _, vector in asked], dtype=np.float32), _NEAREST)
            return [_example(query, near, texts) for (query, _), near in zip(asked, found, strict=True)]
        rows = spread(len(numbers), _SAMPLES)
        # One more, since each text is its own nearest.
        found = nearest(matrix, matrix[rows], _NEAREST + 1)
        return [
            _example(texts[row], [neighbour for neighbour in near if neighbour.row != row][:_NEAREST], texts)
            for row, near in zip(rows, found, strict=True)
        ]


def _example(text: str, near: Sequence[Neighbour], texts: Sequence[str]) -> Example:
    return Example(text, tuple((neighbour.cosine, texts[neighbour.row]) for neighbour in near))


def spread(length: int, count: int) -> list[int]:
    """At most ``count`` places evenly spread over a sequence of ``length``."""
    count = min(length, count)
    return [(2 * number + 1) * length // (2 * count) for number in range(count)]

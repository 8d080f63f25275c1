"""Which texts go through the model together. Pure.

A batch costs what its longest text costs, times its size: padding is computed like text. So texts of like length go
together, and a batch is bounded in padded tokens, not in texts.
"""

from collections.abc import Sequence

import numpy as np

# What a text costs besides its length: special tokens, Kafka, JSON.
BASE_TOKENS = 8


def pack(lengths: Sequence[int], max_batch_tokens: int, batch_cost: int) -> list[list[int]]:
    """Indices of ``lengths`` (tokens), in batches of at most ``max_batch_tokens`` padded tokens.

    Every index stands in exactly one batch; a text longer than the budget stands alone. Longest first, so that the
    largest allocation comes first. A batch also ends before its padding costs more than ``batch_cost``, what another
    batch costs by itself, in tokens.
    """
    found = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-found, kind="stable")
    ordered = np.maximum(found[order], 1)
    sums = np.cumsum(ordered)
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        longest = int(ordered[start])
        end = start + max(1, max_batch_tokens // longest)
        tokens = sums[start:end] - (sums[start] - longest)
        padded = longest * np.arange(1, len(tokens) + 1)
        size = int(np.searchsorted(padded - tokens, batch_cost, side="right"))
        batches.append(order[start : start + size].tolist())
        start += size
    return batches


def window_count(costs: Sequence[int], max_cost: float) -> int:
    """How many of the first ``costs`` add up to at most ``max_cost``; at least one where there is one."""
    if not costs:
        return 0
    within = int(np.searchsorted(np.cumsum(costs), max_cost, side="right"))
    return max(1, within)


class Pace:
    """Cost a second, learnt from the windows that have gone through; bounds the next one in seconds."""

    # Tokens a second of a very slow CPU, until the first window is through: one too large would delay a drain.
    _START = 200.0
    _KEPT = 0.7

    def __init__(self, window_seconds: float) -> None:
        self._window_seconds = window_seconds
        self._cost = self._seconds = 0.0

    @property
    def max_cost(self) -> float:
        """Tokens that fit into the window's seconds."""
        rate = self._cost / self._seconds if self._seconds > 0 and self._cost > 0 else self._START
        return rate * self._window_seconds

    def learn(self, cost: float, seconds: float) -> None:
        """Take in that ``cost`` tokens took ``seconds``.

        Of windows that a device computes together, the first takes the time of all: a mean of rates would be endless.
        """
        self._cost = self._KEPT * self._cost + cost
        self._seconds = self._KEPT * self._seconds + seconds

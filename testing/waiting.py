"""Waiting for a condition, with a deadline: what tests and benchmarks do in place of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], timeout: float, message: str, *, interval: float = 0.05) -> T:
    """Call ``condition`` every ``interval`` seconds until its result is true, and return that result.

    Raises ``TimeoutError`` with ``message`` and the last result once ``timeout`` seconds have passed. What the
    condition raises ends the wait.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{message}: not within {timeout:g} s; last seen: {value!r}")
        time.sleep(interval)
    return value

"""Lines that say what is going on, with the seconds since the start."""

import time
from collections.abc import Callable

Say = Callable[[str], None]


def timed(say: Say) -> Say:
    """Put the seconds since now before each line."""
    start = time.monotonic()
    return lambda line: say(f"{time.monotonic() - start:5.1f}s  {line}")


def to_stdout(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)

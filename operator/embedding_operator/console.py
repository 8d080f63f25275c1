"""Standard output and standard error: whoever reads them may leave before the program ends."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO


class StandardOutputError(Exception):
    """Standard output can't be written; the message says why."""


def show(text: str) -> None:
    """Print to standard output. Raises ``StandardOutputError``, but not where the reader left, such as ``head``."""
    try:
        print(text, flush=True)
    except OSError as error:
        _discard(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise StandardOutputError(f"standard output: {error.strerror}") from None


def say(line: str, write: Callable[[str], None] | None = None) -> None:
    """Print to standard error, with ``write`` in place of the usual way. Where that fails there is nobody to tell."""
    try:
        if write is None:
            print(line, file=sys.stderr)
        else:
            write(line)
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Let what is in the stream's buffer, and all that follows, go nowhere: Python writes it once more as it ends."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())

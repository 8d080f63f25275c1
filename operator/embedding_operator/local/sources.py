"""Where lines come from: files and standard input, read without ever waiting."""

import os
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from embedding_operator.local.errors import LocalError
from embedding_operator.local.stop import Stop

STANDARD_INPUT = "-"
_CHUNK_BYTES = 64 * 1024


def open_input(name: str, stack: ExitStack) -> BinaryIO:
    """Open a file, or standard input for ``-``. Raises ``LocalError``."""
    if name == STANDARD_INPUT:
        return sys.stdin.buffer
    try:
        return stack.enter_context(Path(name).open("rb"))
    except OSError as error:
        raise LocalError(f"--input {name}: {error.strerror}") from None


def lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Each line without its end; ``None`` while nothing more has arrived, so that a slow pipe holds nothing up."""
    number = file.fileno()
    begun: list[bytes] = []
    while True:
        if not select.select([number], [], [], 0)[0]:
            yield None
            continue
        chunk = os.read(number, _CHUNK_BYTES)
        if not chunk:
            break
        first, *others = chunk.split(b"\n")
        begun.append(first)
        if others:
            yield b"".join(begun)
            yield from others[:-1]
            begun = others[-1:]
    rest = b"".join(begun)
    if rest:
        yield rest


def count_lines(file: BinaryIO, limit: int | None, stop: Stop) -> int | None:
    """How many lines of a regular file aren't blank, at most ``limit``; ``None`` where that can't be known beforehand.

    Raises ``Interrupted``.
    """
    number = file.fileno()
    if not stat.S_ISREG(os.fstat(number).st_mode):
        return None
    begin = os.lseek(number, 0, os.SEEK_CUR)
    counted, blank = 0, True
    while (limit is None or counted < limit) and (chunk := os.read(number, _CHUNK_BYTES)):
        stop.check()
        first, *others = chunk.split(b"\n")
        blank = blank and not first.strip()
        for line in others:
            counted += not blank
            blank = not line.strip()
    counted += not blank
    os.lseek(number, begin, os.SEEK_SET)
    return counted if limit is None else min(counted, limit)

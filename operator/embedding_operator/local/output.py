"""Where the outputs go: a file of JSON Lines."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedding_operator.local.errors import LocalError


class Output:
    """The file of ``--output``; each method raises ``LocalError`` where it can't be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0
        with self._failing():
            path.parent.mkdir(parents=True, exist_ok=True)
            # A record is larger than a buffer would be, and what none holds back can't fail at the end.
            self._file = path.open("wb", buffering=0)

    def write(self, record: bytes) -> None:
        """Append a record as a line."""
        rest = memoryview(record + b"\n")
        with self._failing():
            while rest:
                rest = rest[self._file.write(rest) :]
        self.written += 1

    def close(self) -> None:
        """Close the file. A second time does nothing."""
        # Some file systems tell only now that there was no room.
        with self._failing():
            self._file.close()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LocalError(f"--output {self.path}: {error.strerror}") from None

"""Lines → records to feed; pure. Nothing here opens a file."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath

from embedding_operator.api import Input

SOURCE = "local"
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class Text:
    """One record to feed: its value, and a label by which a person finds it again."""

    label: str
    value: bytes
    query: str | None = None


# None: nothing has arrived yet, ask again later. Only what comes through a pipe says so.
Arriving = Iterator[Text | None]


def is_json_lines(name: str, first_line: bytes) -> bool:
    """Whether an input is JSON Lines: by its name's suffix, or because its first line that isn't blank is an object."""
    if PurePath(name).suffix.lower() in _JSON_SUFFIXES:
        return True
    try:
        return isinstance(json.loads(first_line), dict)
    except ValueError:
        return False


def record(fields: Input, identity: str, text: str, timestamp: float) -> bytes:
    """An input record as this pipeline reads it; ``timestamp`` in seconds since the epoch."""
    document = {fields.id_field: identity, fields.text_field: text, "timestamp": timestamp, "source": SOURCE}
    # Bytes that are no UTF-8 reach the worker as they are: what becomes of them is its decision.
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")


class LineTexts:
    """The records of a file of lines: JSON Lines unchanged, or one text a line. Blank lines are left out."""

    def __init__(self, lines: Iterable[bytes | None], name: str, fields: Input, clock: Callable[[], float]) -> None:
        self._lines = lines
        self._name = name
        self._fields = fields
        self._clock = clock
        self.blank = 0

    def __iter__(self) -> Arriving:
        json_lines: bool | None = None
        number = 0
        for line in self._lines:
            if line is None:
                yield None
                continue
            number += 1
            if not line.strip():
                self.blank += 1
                continue
            if json_lines is None:
                json_lines = is_json_lines(self._name, line)
            label = f"line-{number}"
            yield Text(label, line if json_lines else self._record(label, line))

    def _record(self, label: str, line: bytes) -> bytes:
        text = line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
        return record(self._fields, label, text, self._clock())


def query_texts(queries: Iterable[str], fields: Input, clock: Callable[[], float]) -> Iterator[Text]:
    """The records of the queries, which are embedded like any other text."""
    for number, query in enumerate(queries, 1):
        label = f"query-{number}"
        yield Text(label, record(fields, label, query, clock()), query=query)


def limited(texts: Iterable[Text | None], limit: int | None) -> Arriving:
    """At most ``limit`` texts; nothing is asked for beyond them."""
    arriving = iter(texts)
    for _ in itertools.count() if limit is None else range(limit):
        for text in arriving:
            yield text
            if text is not None:
                break
        else:
            return

"""What a run feeds: the queries, then the lines of an input or the docstrings of this machine."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice

from embedding_operator.api import Input
from embedding_operator.local import sources
from embedding_operator.local.docstrings import Docstring, docstrings
from embedding_operator.local.stop import Stop
from embedding_operator.local.texts import Arriving, LineTexts, Text, limited, query_texts, record

DEFAULT_DOCSTRINGS = 2_000
DEFAULT_QUERIES = (
    "how do I sort a list by a key",
    "wait for several coroutines to finish",
    "read a date and time from a string",
)


@dataclass(frozen=True, slots=True)
class Corpus:
    """The texts, how many they are where that is known, and the lines that they come from, if any."""

    texts: Arriving
    total: int | None
    lines: LineTexts | None = None

    @property
    def blank(self) -> int:
        """How many lines were left out so far, since they were blank."""
        return 0 if self.lines is None else self.lines.blank


def from_lines(
    name: str, limit: int | None, queries: Sequence[str], fields: Input, stack: ExitStack, stop: Stop
) -> Corpus:
    """The lines of a file, or of standard input for ``-``. Raises ``LocalError`` or ``Interrupted``."""
    file = sources.open_input(name, stack)
    counted = sources.count_lines(file, limit, stop)
    lines = LineTexts(sources.lines(file), name, fields, time.time)
    texts = _with_queries(queries, limited(lines, limit), fields)
    return Corpus(texts, None if counted is None else counted + len(queries), lines)


def from_docstrings(limit: int | None, queries: Sequence[str], fields: Input, stop: Stop) -> Corpus:
    """Docstrings, with questions about them where none is asked. Raises ``Interrupted``."""
    found: list[Docstring] = []
    for docstring in islice(docstrings(), DEFAULT_DOCSTRINGS if limit is None else limit):
        stop.check()
        found.append(docstring)
    asked = queries or (DEFAULT_QUERIES if found else ())
    return Corpus(_with_queries(asked, _records(found, fields), fields), len(found) + len(asked))


def _with_queries(queries: Sequence[str], texts: Arriving, fields: Input) -> Arriving:
    # First, so that their vectors are kept however many texts there are.
    return chain(query_texts(queries, fields, time.time), texts)


def _records(found: Sequence[Docstring], fields: Input) -> Iterator[Text]:
    for name, text in found:
        yield Text(name, record(fields, name, text, time.time()))

"""Real texts for tests and benchmarks: what the standard library and the installed packages say of themselves."""

import functools
import itertools

from embedding_operator.local.docstrings import docstrings


@functools.cache
def long_tailed(count: int) -> tuple[str, ...]:
    """Docstrings as they are: a few words to several pages."""
    return tuple(itertools.islice((docstring.text for docstring in docstrings()), count))


@functools.cache
def short(count: int) -> tuple[str, ...]:
    """First lines of docstrings, each once."""
    lines: dict[str, None] = {}
    for docstring in docstrings():
        lines[docstring.text.partition("\n")[0]] = None
        # Reading what is left of the packages would take minutes.
        if len(lines) == count:
            break
    return tuple(lines)

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
    lines = dict.fromkeys(docstring.text.partition("\n")[0] for docstring in docstrings())
    return tuple(itertools.islice(lines, count))

"""One encoder for two users: the backlog, and the queries of people who wait."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from embedding_service.encoders.protocol import Computation, Encoder, Tokenized


class Turn:
    """Taken by one at a time. Where both wait, they alternate: neither is starved, however busy the other is."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = False
        self._last_interactive = False
        self._waiting = {False: 0, True: 0}

    @contextmanager
    def take(self, *, interactive: bool) -> Iterator[None]:
        """Wait for the turn, and hold it."""
        with self._changed:
            self._waiting[interactive] += 1
            self._changed.wait_for(lambda: self._is_next(interactive=interactive))
            self._waiting[interactive] -= 1
            self._taken, self._last_interactive = True, interactive
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()

    def _is_next(self, *, interactive: bool) -> bool:
        return not self._taken and (interactive != self._last_interactive or not self._waiting[not interactive])


class Share:
    """The encoder as one of its users has it: an ``Encoder`` that waits for its turn.

    A turn lasts for a batch's ``submit``, so that a device that computes by itself is given the next one meanwhile.
    """

    def __init__(self, encoder: Encoder, tokenizer: Turn, model: Turn, *, interactive: bool) -> None:
        self._encoder = encoder
        self._tokenizer = tokenizer
        self._model = model
        self._interactive = interactive

    @property
    def dimension(self) -> int:
        """See ``Encoder``."""
        return self._encoder.dimension

    @property
    def max_length(self) -> int:
        """See ``Encoder``."""
        return self._encoder.max_length

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """See ``Encoder``."""
        with self._tokenizer.take(interactive=self._interactive):
            return self._encoder.tokenize(texts)

    def submit(self, batch: Sequence[Tokenized]) -> Computation:
        """See ``Encoder``."""
        with self._model.take(interactive=self._interactive):
            return self._encoder.submit(batch)


def share(encoder: Encoder) -> tuple[Share, Share]:
    """The encoder for the backlog, and for queries."""
    tokenizer, model = Turn(), Turn()
    return (
        Share(encoder, tokenizer, model, interactive=False),
        Share(encoder, tokenizer, model, interactive=True),
    )

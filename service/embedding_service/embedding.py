"""Messages through the model: tokenise, pack, encode, and what to do when that fails.

Knows nothing of Kafka. A batch that fails is halved until the message at fault stands alone; memory that runs out
halves the token budget and tries again.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from embedding_service.batching import pack
from embedding_service.contract.headers import Stage
from embedding_service.contract.reasons import DeadLetterReason, Termination, TerminationReason
from embedding_service.encoders.protocol import Computation, Encoder, EncoderOutOfMemory, Matrix, Tokenized
from embedding_service.records import (
    Embedded,
    InputRecord,
    Outcome,
    Parsed,
    Rejection,
    TextMessage,
    Tombstone,
    Vector,
    all_finite,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What went through the model at once; ``tokens`` without padding, ``padded_tokens`` with it."""

    messages: int
    tokens: int
    padded_tokens: int


class TokenizedMessage(NamedTuple):
    """A text to embed, in tokens."""

    message: TextMessage
    text: Tokenized

    @property
    def record(self) -> InputRecord:
        """The record that the text came in."""
        return self.message.record


Prepared = TokenizedMessage | Tombstone | Rejection


class Preparation:
    """Tokenises. Used by one thread. ``rejects_long``: texts that would be cut don't go to the model."""

    def __init__(self, encoder: Encoder, *, rejects_long: bool = False) -> None:
        self._encoder = encoder
        self._rejects_long = rejects_long

    def prepare(self, items: Sequence[Parsed]) -> list[Prepared]:
        """The same items in their order, texts as tokens; those that can't be embedded as rejections."""
        tokenized = iter(self._tokenize([item for item in items if isinstance(item, TextMessage)]))
        return [next(tokenized) if isinstance(item, TextMessage) else item for item in items]

    def _tokenize(self, messages: Sequence[TextMessage]) -> list[TokenizedMessage | Rejection]:
        if not messages:
            return []
        try:
            texts = self._encoder.tokenize([message.text for message in messages])
        except Exception as error:  # noqa: BLE001 - a tokenizer may raise anything at a text; the text is isolated
            if len(messages) == 1:
                _check_works(lambda: self._encoder.tokenize(["warm-up"]), "tokenizer", error)
                return [_failed(messages[0], error)]
            half = len(messages) // 2
            return self._tokenize(messages[:half]) + self._tokenize(messages[half:])
        return [self._judged(message, text) for message, text in zip(messages, texts, strict=True)]

    def _judged(self, message: TextMessage, text: Tokenized) -> TokenizedMessage | Rejection:
        if not (text.truncated and self._rejects_long):
            return TokenizedMessage(message, text)
        # How many more is not known: of a book only the beginning is tokenised.
        told = (
            f"the text has more than {self._encoder.max_length} tokens, special ones and prompt included; expected a "
            "text within that maximum, or spec.model.onOverflow: Truncate (model.on_overflow: truncate)"
        )
        return Rejection(message.record, Stage.EMBED, DeadLetterReason.TEXT_TOO_LONG, told)


@dataclass(slots=True, eq=False)
class Window:
    """Messages that the model has begun with, at ``started`` (monotonic).

    ``computed`` are batches, by index of ``texts``, with their vectors; ``failed`` what failed alone; ``waiting`` how
    many texts are in neither.
    """

    items: Sequence[Prepared]
    texts: list[TokenizedMessage]
    started: float
    waiting: int
    computed: list[tuple[list[int], Matrix]] = field(default_factory=list)
    failed: dict[int, Rejection] = field(default_factory=dict)

    def ordered(self) -> list[Outcome]:
        """What became of each message, once all is known.

        Not made batch by batch: between two batches the model has the processor's caches. The model's thread took 16 µs
        a message so, and takes 12.
        """
        outcomes: dict[int, Outcome] = dict(self.failed)
        for batch, vectors in self.computed:
            for index, vector, is_finite in zip(batch, vectors, all_finite(vectors), strict=True):
                outcomes[index] = _outcome(self.texts[index], vector, is_finite=bool(is_finite))
        embedded = (outcomes[index] for index in range(len(self.texts)))
        return [next(embedded) if isinstance(item, TokenizedMessage) else item for item in self.items]


_Batch = tuple[Window, list[int]]


class Embedder:
    """Embeds windows with one encoder, one behind the other without a gap. Used by one thread."""

    def __init__(
        self,
        encoder: Encoder,
        max_batch_tokens: int,
        batch_cost: int,
        on_batch: Callable[[BatchReport], None],
        on_window: Callable[[Window], None],
    ) -> None:
        self._encoder = encoder
        self._max_batch_tokens = max_batch_tokens
        self._batch_cost = batch_cost
        self._on_batch = on_batch
        self._on_window = on_window
        self._windows: deque[Window] = deque()
        # The next one last: what a failure puts back comes first.
        self._todo: list[_Batch] = []
        self._running: deque[tuple[_Batch, Computation]] = deque()
        # Made now: later another thread tokenises.
        self._harmless = encoder.tokenize(["warm-up"])

    @property
    def max_batch_tokens(self) -> int:
        """Padded tokens of a batch; shrinks when memory runs out."""
        return self._max_batch_tokens

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in the model."""
        return not self._windows

    def start(self, items: Sequence[Prepared]) -> None:
        """Give a window to the model, behind those that it still works at. Raises as ``advance`` does."""
        texts = [item for item in items if isinstance(item, TokenizedMessage)]
        window = Window(items, texts, time.monotonic(), len(texts))
        self._windows.append(window)
        batches = pack([one.text.length for one in texts], self._max_batch_tokens, self._batch_cost)
        self._todo.extend((window, batch) for batch in reversed(batches))
        self._submit()

    def advance(self) -> None:
        """Wait for one batch. Raises ``Termination(OUT_OF_MEMORY)`` where one text alone is too much."""
        if self._running:
            self._settle()
            self._submit()

    def _submit(self) -> None:
        while self._todo:
            window, batch = self._todo.pop()
            try:
                computation = self._encoder.submit([window.texts[index].text for index in batch])
            except Exception as error:  # noqa: BLE001 - as in _settle
                self._put_back(window, batch, error)
                continue
            self._running.append(((window, batch), computation))
            while self._running and self._running[0][1].done():
                self._settle()
        self._hand_on()

    def _hand_on(self) -> None:
        """What is whole; in the order of the messages, whichever window is through first."""
        while self._windows and not self._windows[0].waiting:
            self._on_window(self._windows.popleft())

    def _settle(self) -> None:
        """Wait for the oldest batch, and take what became of it."""
        (window, batch), computation = self._running.popleft()
        try:
            vectors = computation.result()
        except Exception as error:  # noqa: BLE001 - a model may raise anything at a text; the text is isolated
            self._put_back(window, batch, error)
            return
        window.computed.append((batch, vectors))
        window.waiting -= len(batch)
        lengths = [window.texts[index].text.length for index in batch]
        self._on_batch(BatchReport(len(batch), sum(lengths), max(lengths) * len(batch)))
        self._hand_on()

    def _put_back(self, window: Window, batch: list[int], error: Exception) -> None:
        """What failed together comes next, in parts; what failed alone is settled."""
        if isinstance(error, EncoderOutOfMemory):
            lengths = [window.texts[index].text.length for index in batch]
            self._todo.extend((window, part) for part in self._smaller(batch, lengths, error))
        elif len(batch) > 1:
            half = len(batch) // 2
            self._todo.extend([(window, batch[half:]), (window, batch[:half])])
        else:
            _check_works(lambda: self._encoder.submit(self._harmless).result(), "model", error)
            window.failed[batch[0]] = _failed(window.texts[batch[0]].message, error)
            window.waiting -= 1

    def _smaller(self, batch: list[int], lengths: list[int], error: EncoderOutOfMemory) -> list[list[int]]:
        """The batch repacked under half of its own tokens, or under the budget where that has shrunk meanwhile."""
        if len(batch) == 1:
            raise Termination(
                TerminationReason.OUT_OF_MEMORY,
                f"a single text of {lengths[0]} tokens doesn't fit into memory; expected more memory, a smaller "
                f"model or a smaller model.max_length: {error}",
            ) from error
        tokens = max(lengths) * len(batch)
        if tokens <= self._max_batch_tokens:
            self._max_batch_tokens = max(1, tokens // 2)
            logger.warning("out of memory: batches of at most %d tokens from now on: %s", self._max_batch_tokens, error)
        packed = pack(lengths, self._max_batch_tokens, self._batch_cost)
        return [[batch[position] for position in part] for part in packed[::-1]]


def _outcome(embedded: TokenizedMessage, vector: Vector, *, is_finite: bool) -> Outcome:
    if is_finite:
        return Embedded(embedded.message, vector, embedded.text.truncated)
    return Rejection(
        embedded.record, Stage.EMBED, DeadLetterReason.VECTOR_NOT_FINITE, "the model's vector isn't finite"
    )


def _failed(message: TextMessage, error: Exception) -> Rejection:
    """What becomes of a text that fails alone."""
    cause = f"{type(error).__name__}: {error}"[:1000]
    return Rejection(message.record, Stage.EMBED, DeadLetterReason.ENCODING_FAILED, cause)


def _check_works(attempt: Callable[[], object], what: str, error: Exception) -> None:
    """Tell a text that can't be taken from a model that can't take any (a lost GPU, for instance)."""
    try:
        attempt()
    except Exception:  # noqa: BLE001 - whatever it is, the model is at fault and not the text
        raise Termination(
            TerminationReason.CRASHED, f"the {what} fails at every text: {type(error).__name__}: {error}"
        ) from error

"""Messages through the model: tokenise, pack, encode, and what to do when that fails.

Knows nothing of Kafka. A batch that fails is halved until the message at fault stands alone; memory that runs out
halves the token budget and tries again.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from embedding_service.batching import pack
from embedding_service.contract.headers import Stage
from embedding_service.contract.reasons import DeadLetterReason, Termination, TerminationReason
from embedding_service.encoders.protocol import Encoder, EncoderOutOfMemory, Tokenized
from embedding_service.records import (
    Embedded,
    InputRecord,
    Outcome,
    Parsed,
    Rejection,
    TextMessage,
    Tombstone,
    Vector,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What went through the model at once; ``tokens`` without padding, ``padded_tokens`` with it."""

    messages: int
    tokens: int
    padded_tokens: int


@dataclass(frozen=True, slots=True)
class TokenizedMessage:
    """A text to embed, in tokens."""

    message: TextMessage
    text: Tokenized

    @property
    def record(self) -> InputRecord:
        """The record that the text came in."""
        return self.message.record


Prepared = TokenizedMessage | Tombstone | Rejection


class Preparation:
    """Tokenises. Used by one thread."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def prepare(self, items: Sequence[Parsed]) -> list[Prepared]:
        """The same items in their order, texts as tokens; those that the tokenizer can't take as rejections."""
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
        return [TokenizedMessage(message, text) for message, text in zip(messages, texts, strict=True)]


class Embedder:
    """Embeds windows with one encoder. Used by one thread."""

    def __init__(self, encoder: Encoder, max_batch_tokens: int, on_batch: Callable[[BatchReport], None]) -> None:
        self._encoder = encoder
        self._max_batch_tokens = max_batch_tokens
        self._on_batch = on_batch
        # Made now: later another thread tokenises.
        self._harmless = encoder.tokenize(["warm-up"])

    @property
    def max_batch_tokens(self) -> int:
        """Padded tokens of a batch; shrinks when memory runs out."""
        return self._max_batch_tokens

    def embed(self, window: Sequence[Prepared]) -> list[Outcome]:
        """Outcomes in the window's order. Raises ``Termination(OUT_OF_MEMORY)`` where one text alone is too much."""
        embedded = iter(self._embed([item for item in window if isinstance(item, TokenizedMessage)]))
        return [next(embedded) if isinstance(item, TokenizedMessage) else item for item in window]

    def _embed(self, messages: list[TokenizedMessage]) -> list[Outcome]:
        lengths = [one.text.length for one in messages]
        outcomes: dict[int, Outcome] = {}
        # Last in, first out: what a failure puts back comes next.
        batches = pack(lengths, self._max_batch_tokens)[::-1]
        while batches:
            batch = batches.pop()
            try:
                vectors = self._encoder.encode([messages[index].text for index in batch])
            except EncoderOutOfMemory as error:
                batches.extend(self._smaller(batch, lengths, error))
                continue
            except Exception as error:  # noqa: BLE001 - a model may raise anything at a text; the text is isolated
                if len(batch) > 1:
                    batches.extend((batch[len(batch) // 2 :], batch[: len(batch) // 2]))
                else:
                    _check_works(lambda: self._encoder.encode(self._harmless), "model", error)
                    outcomes[batch[0]] = _failed(messages[batch[0]].message, error)
                continue
            finite = np.isfinite(np.abs(vectors).max(axis=1))
            for index, vector, is_finite in zip(batch, vectors, finite, strict=True):
                outcomes[index] = _outcome(messages[index], vector, is_finite=bool(is_finite))
            longest = max(lengths[index] for index in batch)
            self._on_batch(BatchReport(len(batch), sum(lengths[index] for index in batch), longest * len(batch)))
        return [outcomes[index] for index in range(len(messages))]

    def _smaller(self, batch: list[int], lengths: list[int], error: EncoderOutOfMemory) -> list[list[int]]:
        """The batch repacked under half of its own tokens, or under the budget where that has shrunk meanwhile."""
        if len(batch) == 1:
            raise Termination(
                TerminationReason.OUT_OF_MEMORY,
                f"a single text of {lengths[batch[0]]} tokens doesn't fit into memory; expected more memory, a smaller "
                f"model or a smaller model.max_length: {error}",
            ) from error
        tokens = max(lengths[index] for index in batch) * len(batch)
        if tokens <= self._max_batch_tokens:
            self._max_batch_tokens = max(1, tokens // 2)
            logger.warning("out of memory: batches of at most %d tokens from now on: %s", self._max_batch_tokens, error)
        packed = pack([lengths[index] for index in batch], self._max_batch_tokens)
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

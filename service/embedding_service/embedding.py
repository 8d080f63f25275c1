"""A window of messages through the model: measure, pack, encode, and what to do when that fails.

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
from embedding_service.records import Embedded, Outcome, Parsed, Rejection, TextMessage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What went through the model at once; ``tokens`` without padding, ``padded_tokens`` with it."""

    messages: int
    tokens: int
    padded_tokens: int


class Embedder:
    """Embeds windows with one encoder. Used by one thread."""

    def __init__(self, encoder: Encoder, max_batch_tokens: int, on_batch: Callable[[BatchReport], None]) -> None:
        self._encoder = encoder
        self._max_batch_tokens = max_batch_tokens
        self._on_batch = on_batch

    @property
    def max_batch_tokens(self) -> int:
        """Padded tokens of a batch; shrinks when memory runs out."""
        return self._max_batch_tokens

    def embed(self, window: Sequence[Parsed]) -> list[Outcome]:
        """Outcomes in the window's order. Raises ``Termination(OUT_OF_MEMORY)`` where one text alone is too much."""
        outcomes: list[Outcome | None] = [None if isinstance(item, TextMessage) else item for item in window]
        texts = {index: item for index, item in enumerate(window) if isinstance(item, TextMessage)}
        if texts:
            places = list(texts)
            messages = list(texts.values())
            for place, outcome in zip(places, self._embed_texts(messages), strict=True):
                outcomes[place] = outcome
        return [outcome for outcome in outcomes if outcome is not None]

    def _embed_texts(self, messages: list[TextMessage]) -> list[Outcome]:
        try:
            tokenized = self._encoder.tokenize([message.text for message in messages])
        except Exception as error:  # noqa: BLE001 - a tokenizer may raise anything at a text; the text is isolated
            if len(messages) == 1:
                return [self._failed(messages[0], error)]
            half = len(messages) // 2
            return self._embed_texts(messages[:half]) + self._embed_texts(messages[half:])
        return self._embed_tokenized(messages, tokenized)

    def _embed_tokenized(self, messages: list[TextMessage], texts: list[Tokenized]) -> list[Outcome]:
        lengths = [text.length for text in texts]
        outcomes: dict[int, Outcome] = {}
        # Last in, first out: what a failure puts back comes next.
        batches = pack(lengths, self._max_batch_tokens)[::-1]
        while batches:
            batch = batches.pop()
            try:
                vectors = self._encoder.encode([texts[index] for index in batch])
            except EncoderOutOfMemory as error:
                batches.extend(self._smaller(batch, lengths, error))
                continue
            except Exception as error:  # noqa: BLE001 - a model may raise anything at a text; the text is isolated
                if len(batch) > 1:
                    batches.extend((batch[len(batch) // 2 :], batch[: len(batch) // 2]))
                else:
                    outcomes[batch[0]] = self._failed(messages[batch[0]], error)
                continue
            for index, vector in zip(batch, vectors, strict=True):
                outcomes[index] = _outcome(messages[index], vector, truncated=texts[index].truncated)
            longest = max(lengths[index] for index in batch)
            self._on_batch(BatchReport(len(batch), sum(lengths[index] for index in batch), longest * len(batch)))
        return [outcomes[index] for index in range(len(messages))]

    def _failed(self, message: TextMessage, error: Exception) -> Rejection:
        """What becomes of a text that fails alone, where the model can take another."""
        self._check_encoder(error)
        cause = f"{type(error).__name__}: {error}"[:1000]
        return Rejection(message.record, Stage.EMBED, DeadLetterReason.ENCODING_FAILED, cause)

    def _check_encoder(self, error: Exception) -> None:
        """Tell a text that the model can't take from a model that can't take any (a lost GPU, for instance)."""
        try:
            self._encoder.encode(self._encoder.tokenize(["warm-up"]))
        except Exception:  # noqa: BLE001 - whatever it is, the model is at fault and not the text
            raise Termination(
                TerminationReason.CRASHED, f"the model fails at every text: {type(error).__name__}: {error}"
            ) from error

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


def _outcome(message: TextMessage, vector: np.ndarray, *, truncated: bool) -> Outcome:
    if not np.isfinite(vector).all():
        return Rejection(
            message.record, Stage.EMBED, DeadLetterReason.VECTOR_NOT_FINITE, "the model's vector isn't finite"
        )
    return Embedded(message, vector, truncated)

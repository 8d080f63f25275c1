"""The thread that embeds queries: texts of all who wait share batches, and whatever goes wrong becomes an answer.

One thread, since PyTorch keeps a team of threads for each thread that calls it. It ends with the process.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

from embedding_service.batching import pack
from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.encoders.protocol import Encoder, EncoderOutOfMemory, Matrix, Tokenized
from embedding_service.queries import MAX_TEXTS, Answer, Refusal
from embedding_service.records import Vector, all_finite
from embedding_service.stages import Failure

logger = logging.getLogger(__name__)

# A round is about a batch of texts of that length: who comes while many wait, waits for little more than that.
_USUAL_TOKENS = 64
_RETRY_SECONDS = 1


class _Request:
    """Texts of one request, of which the first ``taken`` are done or in the model."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.taken = 0
        self.future: Future[Answer] = Future()
        # A client that goes away cancels what it waits for; the answer is computed all the same.
        self.future.set_running_or_notify_cancel()
        self._found: dict[int, Vector] = {}
        self._tokens = 0

    def give(self, index: int, text: Tokenized, vector: Vector) -> None:
        """Take a vector in, and answer where it is the last."""
        self._found[index] = vector
        self._tokens += text.length
        if len(self._found) == len(self.texts) and not self.future.done():
            vectors = [self._found[number] for number in range(len(self.texts))]
            self.future.set_result(Answer(vectors, self._tokens))

    def fail(self, refusal: Refusal) -> None:
        """Answer so, unless answered: the first of several texts counts."""
        if not self.future.done():
            self.future.set_exception(refusal)


_Slot = tuple[_Request, int]


class QueryStage(threading.Thread):
    """Answers queries with one encoder, in rounds of a few texts, one of each request in turn.

    ``failure`` is told of a model that fails at every text.
    """

    def __init__(
        self, encoder: Encoder, max_batch_tokens: int, batch_cost: int, failure: Failure, *, rejects_long: bool = False
    ) -> None:
        super().__init__(name="queries", daemon=True)
        self._encoder = encoder
        self._max_batch_tokens = max_batch_tokens
        self._batch_cost = batch_cost
        self._round_texts = max(1, max_batch_tokens // _USUAL_TOKENS)
        self._rejects_long = rejects_long
        self._failure = failure
        self._began: float | None = None
        self._harmless = encoder.tokenize(["warm-up"])
        self._changed = threading.Condition()
        self._requests: deque[_Request] = deque()
        self._waiting = 0
        self._closed = False

    def ask(self, texts: Sequence[str]) -> Future[Answer]:
        """Vectors of texts, or a ``Refusal``, which is raised at once where too many wait already."""
        request = _Request(texts)
        with self._changed:
            if self._closed:
                raise _closing()
            if self._waiting + len(texts) > MAX_TEXTS:
                raise overload(f"{self._waiting} texts wait already, of at most {MAX_TEXTS}")
            self._waiting += len(texts)
            self._requests.append(request)
            self._changed.notify_all()
        return request.future

    def busy_seconds(self) -> float:
        """For how long it has been at one batch."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def close(self) -> None:
        """End after what is in the model; who waits is told to ask elsewhere."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def run(self) -> None:
        """Until closed."""
        while chosen := self._take():
            try:
                self._embed(chosen)
            except Exception:  # whatever it is, those who wait must be told, and the next ones served
                logger.exception("queries failed")
                for request, _ in chosen:
                    request.fail(Refusal.of_server(500, "this worker has failed; its log says why", "internal_error"))
        with self._changed:
            for request in self._requests:
                request.fail(_closing())

    def _take(self) -> list[_Slot]:
        """Wait for texts, and take some; none once closed."""
        chosen: list[_Slot] = []
        with self._changed:
            while not chosen and not self._closed:
                self._changed.wait_for(lambda: self._requests or self._closed)
                while self._requests and not self._closed and len(chosen) < self._round_texts:
                    chosen.extend(self._next())
        return chosen

    def _next(self) -> list[_Slot]:
        """One text of the request whose turn it is; none of one that has failed."""
        request = self._requests.popleft()
        if request.future.done():
            self._waiting -= len(request.texts) - request.taken
            return []
        slot = (request, request.taken)
        request.taken += 1
        self._waiting -= 1
        if request.taken < len(request.texts):
            self._requests.append(request)
        return [slot]

    def _embed(self, slots: list[_Slot]) -> None:
        found = [(slot, text) for slot, text in self._tokenize(slots) if not self._too_long(slot, text)]
        for batch in pack([text.length for _, text in found], self._max_batch_tokens, self._batch_cost):
            self._submit([found[index] for index in batch])

    def _tokenize(self, slots: list[_Slot]) -> list[tuple[_Slot, Tokenized]]:
        try:
            texts = self._encoder.tokenize([request.texts[index] for request, index in slots])
        except Exception as error:  # noqa: BLE001 - a tokenizer may raise anything at a text; the text is isolated
            if len(slots) == 1:
                self._blame(slots[0], _Failed.by(error))
                return []
            return [pair for slot in slots for pair in self._tokenize([slot])]
        return list(zip(slots, texts, strict=True))

    def _too_long(self, slot: _Slot, text: Tokenized) -> bool:
        if not (text.truncated and self._rejects_long):
            return False
        request, index = slot
        why = (
            f"the text has more than {self._encoder.max_length} tokens, special ones and prompt included, and this "
            "pipeline rejects such texts (model.on_overflow: reject); expected a shorter one"
        )
        request.fail(_bad_text(request, index, why, "text_too_long"))
        return True

    def _submit(self, batch: list[tuple[_Slot, Tokenized]]) -> None:
        """One batch through the model; in halves where that fails, be it for a text or for memory."""
        self._began = time.monotonic()
        try:
            vectors = self._encoder.submit([text for _, text in batch]).result()
        except Exception as error:  # noqa: BLE001 - as in _tokenize
            failed = _Failed.by(error)
        else:
            self._give(batch, vectors)
            return
        finally:
            self._began = None
        # Not within the handler: as long as the error is at hand, so is the memory of what has failed.
        if len(batch) == 1:
            self._blame(batch[0][0], failed)
            return
        if failed.for_memory:
            self._shrink(max(text.length for _, text in batch) * len(batch), failed)
        half = len(batch) // 2
        self._submit(batch[:half])
        self._submit(batch[half:])

    def _shrink(self, tokens: int, failed: "_Failed") -> None:
        self._max_batch_tokens = min(self._max_batch_tokens, max(1, tokens // 2))
        logger.warning("out of memory: queries in batches of %d tokens at most: %s", self._max_batch_tokens, failed)

    def _give(self, batch: list[tuple[_Slot, Tokenized]], vectors: Matrix) -> None:
        finite = all_finite(vectors)
        for ((request, index), text), vector, is_finite in zip(batch, vectors, finite, strict=True):
            if is_finite:
                request.give(index, text, vector)
            else:
                request.fail(_bad_text(request, index, "the model's vector of it isn't finite", "vector_not_finite"))

    def _blame(self, slot: _Slot, failed: "_Failed") -> None:
        """Tell a text that can't be taken from a model that can't take any."""
        request, index = slot
        if failed.for_memory:
            logger.warning("a query of one text doesn't fit into memory: %s", failed)
            request.fail(Refusal.of_server(503, "the text doesn't fit into this worker's memory", "out_of_memory"))
            return
        try:
            self._encoder.submit(self._harmless).result()
            self._encoder.tokenize(["warm-up"])
        except EncoderOutOfMemory:
            # Others have it for the moment.
            request.fail(Refusal.of_server(503, "this worker's memory is used up", "out_of_memory"))
        except Exception as error:
            logger.exception("the model fails at every text")
            told = f"the model fails at every text: {_Failed.by(error)}"
            self._failure.set(Termination(TerminationReason.CRASHED, told))
            request.fail(Refusal.of_server(500, "the model fails at every text", "model_failed"))
        else:
            request.fail(_bad_text(request, index, f"the model can't take it: {failed}", "encoding_failed"))


class _Failed(NamedTuple):
    """What is kept of an error."""

    told: str
    for_memory: bool

    @classmethod
    def by(cls, error: Exception) -> "_Failed":
        return cls(f"{type(error).__name__}: {error}"[:500], isinstance(error, EncoderOutOfMemory))

    def __str__(self) -> str:
        return self.told


def overload(why: str) -> Refusal:
    """More than can be answered soon."""
    return Refusal(
        429, f"{why}; try again later", code="overloaded", kind="rate_limit_error", retry_seconds=_RETRY_SECONDS
    )


def _closing() -> Refusal:
    return Refusal.of_server(503, "this worker is ending", "shutting_down", _RETRY_SECONDS)


def _bad_text(request: _Request, index: int, why: str, code: str) -> Refusal:
    param = "input" if len(request.texts) == 1 else f"input[{index}]"
    return Refusal(400, f"{param}: {why}", param=param, code=code)

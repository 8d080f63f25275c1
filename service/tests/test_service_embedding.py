"""A window through the model, and what happens when the model fails."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from embedding_service.contract.headers import Stage
from embedding_service.contract.reasons import DeadLetterReason, Termination, TerminationReason
from embedding_service.embedding import BatchReport, Embedder, Preparation, Window
from embedding_service.encoders.protocol import Computation, Encoder, EncoderOutOfMemory, Matrix, Tokenized
from embedding_service.records import Embedded, InputRecord, Outcome, Parsed, Rejection, TextMessage, Tombstone, parse
from word_encoder import WordEncoder


def message(text: str, offset: int = 0) -> Parsed:
    return parse(InputRecord("t", 0, offset, None, b'{"text": "%s"}' % text.encode(), [], 0.0))


def embed(
    encoder: Encoder,
    budget: int,
    window: Sequence[Parsed],
    on_batch: Callable[[BatchReport], None] = lambda _report: None,
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    embedder = Embedder(encoder, budget, 100, on_batch, lambda window: outcomes.extend(window.ordered()))
    embedder.start(Preparation(encoder).prepare(window))
    while not embedder.is_idle:
        embedder.advance()
    assert embedder.is_idle
    return outcomes


def fail_at(word: str, error: Exception) -> Callable[[Sequence[str]], None]:
    def fault(texts: Sequence[str]) -> None:
        if any(word in text for text in texts):
            raise error

    return fault


def test_outcomes_keep_the_order_of_the_window_whatever_its_lengths() -> None:
    window = [message("b b b"), Tombstone(InputRecord("t", 0, 1, None, None, [], 0.0)), message("a"), message("c c")]
    outcomes = embed(WordEncoder(), 3, window)
    assert [type(outcome) for outcome in outcomes] == [Embedded, Tombstone, Embedded, Embedded]
    assert [outcome.vector.tolist() for outcome in outcomes if isinstance(outcome, Embedded)] == [
        [3, ord("b")],
        [1, ord("a")],
        [2, ord("c")],
    ]


def test_texts_of_as_many_tokens_go_together_however_long_their_words_are() -> None:
    encoder = WordEncoder()
    embed(encoder, 6, [message(text) for text in ("a" * 50, "b b b", "c", "d d d")])
    assert encoder.batches == [["b b b", "d d d"], ["a" * 50, "c"]]


def test_an_empty_window_and_one_without_texts_need_no_model() -> None:
    encoder = WordEncoder()
    rejection = message('", "id": true, "x": "')
    assert embed(encoder, 3, []) == []
    assert embed(encoder, 3, [rejection]) == [rejection]
    assert isinstance(rejection, Rejection)
    assert encoder.batches == []


def test_a_text_longer_than_the_models_length_is_marked_truncated() -> None:
    outcomes = embed(WordEncoder(), 100, [message("a " * 8), message("a " * 9)])
    assert [outcome.truncated for outcome in outcomes if isinstance(outcome, Embedded)] == [False, True]


def test_a_text_that_is_too_long_is_rejected_where_asked_for_and_takes_none_of_the_models_time() -> None:
    encoder = WordEncoder()
    outcomes: list[Outcome] = []
    embedder = Embedder(encoder, 100, 100, lambda _report: None, lambda window: outcomes.extend(window.ordered()))
    preparation = Preparation(encoder, rejects_long=True)
    embedder.start(preparation.prepare([message("a"), message("b " * 9), message("c " * 8)]))
    while not embedder.is_idle:
        embedder.advance()
    assert [type(outcome) for outcome in outcomes] == [Embedded, Rejection, Embedded]
    assert isinstance(outcomes[1], Rejection)
    assert (outcomes[1].reason, outcomes[1].stage) == (DeadLetterReason.TEXT_TOO_LONG, Stage.EMBED)
    assert "more than 8 tokens" in outcomes[1].message
    assert not any("b" in text for batch in encoder.batches for text in batch)


def test_the_text_that_the_model_cannot_take_is_dead_lettered_and_the_rest_go_on() -> None:
    encoder = WordEncoder(fail_at("poison", ValueError("no")))
    window = [message(text, index) for index, text in enumerate(["a", "b", "poison", "c", "d"])]
    outcomes = embed(encoder, 100, window)
    assert [type(outcome) for outcome in outcomes] == [Embedded, Embedded, Rejection, Embedded, Embedded]
    assert isinstance(outcomes[2], Rejection)
    assert outcomes[2].reason is DeadLetterReason.ENCODING_FAILED
    assert outcomes[2].message == "ValueError: no"


def test_the_text_that_the_tokenizer_cannot_take_is_dead_lettered_and_the_rest_go_on() -> None:
    class Allergic(WordEncoder):
        def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
            fail_at("poison", TypeError("TextEncodeInput"))(texts)
            return super().tokenize(texts)

    window = [message(text, index) for index, text in enumerate(["a", "b", "poison", "c"])]
    outcomes = embed(Allergic(), 100, window)
    assert [type(outcome) for outcome in outcomes] == [Embedded, Embedded, Rejection, Embedded]


def test_a_model_that_fails_at_every_text_ends_the_process_instead_of_dead_lettering_the_topic() -> None:
    encoder = WordEncoder(fail_at("", RuntimeError("CUDA error: device-side assert")))
    with pytest.raises(Termination) as raised:
        embed(encoder, 100, [message("a"), message("b")])
    assert raised.value.reason is TerminationReason.CRASHED


def test_memory_that_runs_out_halves_the_budget_for_good() -> None:
    def fault(texts: Sequence[str]) -> None:
        if len(texts) > 2:
            raise EncoderOutOfMemory("out of memory")

    encoder = WordEncoder(fault)
    outcomes: list[Outcome] = []
    embedder = Embedder(encoder, 16, 100, lambda _report: None, lambda window: outcomes.extend(window.ordered()))
    embedder.start(Preparation(encoder).prepare([message(word) for word in "abcdefgh"]))
    while not embedder.is_idle:
        embedder.advance()
    assert [outcome.message.text for outcome in outcomes if isinstance(outcome, Embedded)] == list("abcdefgh")
    assert embedder.max_batch_tokens == 2
    assert max(len(batch) for batch in encoder.batches) == 2


def test_a_single_text_that_does_not_fit_into_memory_ends_the_process() -> None:
    encoder = WordEncoder(fail_at("big", EncoderOutOfMemory("out of memory")))
    with pytest.raises(Termination) as raised:
        embed(encoder, 16, [message("a"), message("big")])
    assert raised.value.reason is TerminationReason.OUT_OF_MEMORY


def test_a_vector_that_is_not_finite_is_dead_lettered() -> None:
    class Broken(WordEncoder):
        def encode(self, batch: Sequence[Tokenized]) -> Matrix:
            vectors = super().encode(batch)
            vectors[[index for index, text in enumerate(batch) if text.text == "nan"]] = np.nan
            return vectors

    outcomes = embed(Broken(), 16, [message("a"), message("nan")])
    assert isinstance(outcomes[0], Embedded)
    assert isinstance(outcomes[1], Rejection)
    assert outcomes[1].reason is DeadLetterReason.VECTOR_NOT_FINITE


def test_a_report_counts_tokens_with_and_without_padding() -> None:
    reports: list[BatchReport] = []
    embed(WordEncoder(), 9, [message("a a a"), message("a"), message("a a")], reports.append)
    assert reports == [BatchReport(messages=3, tokens=6, padded_tokens=9)]


def test_texts_are_what_the_messages_hold() -> None:
    assert isinstance(message("x"), TextMessage)


class OtherDevice(WordEncoder):
    """Computes beside the thread that submits, two batches at a time, and takes no more than four."""

    def __init__(self, fault: Callable[[Sequence[str]], None] = lambda _texts: None) -> None:
        super().__init__(fault)
        self.let = threading.Event()
        self._room = threading.Semaphore(4)
        self._pool = ThreadPoolExecutor(2)

    def submit(self, batch: Sequence[Tokenized]) -> Computation:
        self._room.acquire()
        future = self._pool.submit(self._compute, batch)
        future.add_done_callback(lambda _future: self._room.release())
        return future

    def _compute(self, batch: Sequence[Tokenized]) -> Matrix:
        assert self.let.wait(10)
        return self.encode(batch)


def texts_of(windows: list[Window]) -> list[list[str]]:
    return [[one.message.text for one in window.ordered() if isinstance(one, Embedded)] for window in windows]


def test_the_next_window_begins_while_the_device_is_busy_with_the_last_and_ends_behind_it() -> None:
    encoder, through = OtherDevice(), list[Window]()
    embedder, preparation = Embedder(encoder, 2, 100, lambda _report: None, through.append), Preparation(encoder)
    embedder.start(preparation.prepare([message("a"), message("b b"), message("c")]))
    embedder.start(preparation.prepare([Tombstone(InputRecord("t", 0, 1, None, None, [], 0.0))]))
    embedder.start(preparation.prepare([message("d")]))
    assert through == []
    assert not embedder.is_idle
    encoder.let.set()
    while not embedder.is_idle:
        embedder.advance()
    assert texts_of(through) == [["a", "b b", "c"], [], ["d"]]
    assert embedder.is_idle


def test_batches_that_fail_on_the_device_are_taken_apart_in_their_own_window() -> None:
    def fault(texts: Sequence[str]) -> None:
        if len(texts) > 2:
            raise EncoderOutOfMemory("out of memory")
        fail_at("poison", ValueError("no"))(texts)

    encoder, through = OtherDevice(fault), list[Window]()
    encoder.let.set()
    embedder, preparation = Embedder(encoder, 4, 100, lambda _report: None, through.append), Preparation(encoder)
    for texts in (["a", "b", "poison", "c"], ["d", "e", "f", "poison", "g"], ["h"]):
        embedder.start(preparation.prepare([message(text) for text in texts]))
    while not embedder.is_idle:
        embedder.advance()
    assert texts_of(through) == [["a", "b", "c"], ["d", "e", "f", "g"], ["h"]]
    assert [sum(isinstance(one, Rejection) for one in window.ordered()) for window in through] == [1, 1, 0]
    assert embedder.max_batch_tokens == 2

"""Queries through one encoder: who shares a batch, what one bad text costs the others, and when it is too much."""

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import numpy as np
import pytest

from embedding_service.encoders.protocol import EncoderOutOfMemory, Matrix, Tokenized
from embedding_service.queries import MAX_TEXTS, Answer, Refusal
from embedding_service.query_stage import QueryStage
from embedding_service.stages import Failure
from embedding_service.turns import Share, share
from waiting import wait_until
from word_encoder import GatedWordEncoder, WordEncoder

SECONDS = 30.0
# Sixteen texts a round.
BUDGET = 1024
BATCH_COST = 20


@pytest.fixture
def start() -> Iterator[Callable[..., QueryStage]]:
    stages: list[QueryStage] = []

    def make(
        encoder: WordEncoder | Share, budget: int = BUDGET, rejects_long: bool = False, failure: Failure | None = None
    ) -> QueryStage:
        stages.append(QueryStage(encoder, budget, BATCH_COST, failure or Failure(), rejects_long=rejects_long))
        stages[-1].start()
        return stages[-1]

    yield make
    for stage in stages:
        stage.close()
        stage.join(SECONDS)
        assert not stage.is_alive()


def vectors(future: Future[Answer]) -> list[list[float]]:
    return [vector.tolist() for vector in future.result(SECONDS).vectors]


def refused(future: Future[Answer]) -> Refusal:
    error = future.exception(SECONDS)
    assert isinstance(error, Refusal)
    return error


def fail_at(word: str, error: Exception) -> Callable[[Sequence[str]], None]:
    def fault(texts: Sequence[str]) -> None:
        if any(word in text for text in texts):
            raise error

    return fault


def test_vectors_come_in_the_order_of_the_texts_with_the_number_of_tokens(start: Callable[..., QueryStage]) -> None:
    found = start(WordEncoder(), budget=4).ask(["b b b", "a", "c c"])
    assert vectors(found) == [[3, ord("b")], [1, ord("a")], [2, ord("c")]]
    assert found.result().tokens == 6


def test_those_who_wait_share_a_batch_and_many_texts_do_not_hold_up_a_few(start: Callable[..., QueryStage]) -> None:
    encoder = GatedWordEncoder()
    stage = start(encoder)
    first = stage.ask(["first"])
    assert encoder.entered.wait(SECONDS)
    many = stage.ask([f"m{number}" for number in range(40)])
    few = [stage.ask(["a"]), stage.ask(["b"])]
    encoder.open.set()

    assert len(vectors(many)) == 40
    assert [vectors(one) for one in few] == [[[1, ord("a")]], [[1, ord("b")]]]
    assert vectors(first) == [[1, ord("f")]]
    assert encoder.batches[0] == ["first"]
    assert {"m0", "a", "b"} <= set(encoder.batches[1])
    assert [len(batch) for batch in encoder.batches] == [1, 16, 16, 10]


def test_a_query_goes_before_a_backlog_that_was_there_first(start: Callable[..., QueryStage]) -> None:
    encoder = GatedWordEncoder()
    backlog, interactive = share(encoder)
    batches = [backlog.tokenize([f"backlog {number}"]) for number in range(3)]
    flowing = threading.Thread(target=lambda: [backlog.submit(batch) for batch in batches])
    flowing.start()
    assert encoder.entered.wait(SECONDS)
    query = start(interactive).ask(["query"])
    wait_until(lambda: interactive._model._waiting[True], SECONDS, "the query waits for its turn")
    encoder.open.set()

    assert vectors(query) == [[1, ord("q")]]
    flowing.join(SECONDS)
    assert encoder.batches == [["backlog 0"], ["query"], ["backlog 1"], ["backlog 2"]]


def test_a_bad_text_is_named_and_costs_the_others_nothing(start: Callable[..., QueryStage]) -> None:
    encoder = GatedWordEncoder(fail_at("poison", ValueError("no")))
    stage = start(encoder)
    first = stage.ask(["first"])
    assert encoder.entered.wait(SECONDS)
    bad, alone, good = stage.ask(["fine", "poison"]), stage.ask(["poison"]), stage.ask(["good"])
    encoder.open.set()

    assert vectors(good) == [[1, ord("g")]]
    assert (refused(bad).status, refused(bad).code, refused(bad).param) == (400, "encoding_failed", "input[1]")
    assert refused(bad).message == "input[1]: the model can't take it: ValueError: no"
    assert refused(alone).param == "input"
    assert vectors(first)
    assert vectors(stage.ask(["next"])) == [[1, ord("n")]]


def test_a_text_that_the_tokenizer_cannot_take_is_a_bad_text(start: Callable[..., QueryStage]) -> None:
    class Allergic(WordEncoder):
        def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
            if "poison" in texts:
                raise ValueError("no")
            return super().tokenize(texts)

    found = refused(start(Allergic()).ask(["fine", "poison", "good"]))
    assert (found.status, found.param) == (400, "input[1]")


def test_a_text_that_is_too_long_is_cut_or_refused_as_those_of_the_topic(start: Callable[..., QueryStage]) -> None:
    texts = ["a " * 8, "b " * 9]
    assert vectors(start(WordEncoder()).ask(texts)) == [[8, ord("a")], [9, ord("b")]]
    found = refused(start(WordEncoder(), rejects_long=True).ask(texts))
    assert (found.status, found.code, found.param) == (400, "text_too_long", "input[1]")
    assert found.message.startswith("input[1]: the text has more than 8 tokens, special ones and prompt included")


def test_a_vector_that_is_not_finite_is_not_given_out(start: Callable[..., QueryStage]) -> None:
    class Broken(WordEncoder):
        def encode(self, batch: Sequence[Tokenized]) -> Matrix:
            found = super().encode(batch)
            found[[index for index, text in enumerate(batch) if text.text == "nan"]] = np.nan
            return found

    found = refused(start(Broken()).ask(["fine", "nan"]))
    assert (found.status, found.code, found.param) == (400, "vector_not_finite", "input[1]")


def test_memory_that_runs_out_makes_smaller_batches(start: Callable[..., QueryStage]) -> None:
    tried: list[int] = []

    def fault(texts: Sequence[str]) -> None:
        tried.append(len(texts))
        if len(texts) > 2:
            raise EncoderOutOfMemory("out of memory")

    encoder = WordEncoder(fault)
    stage = start(encoder)
    assert len(vectors(stage.ask(["a"] * 7))) == 7
    assert max(len(batch) for batch in encoder.batches) == 2
    # Learnt: the next ones don't fail first.
    tried.clear()
    assert len(vectors(stage.ask(["a"] * 7))) == 7
    assert max(tried) <= 2


def test_the_memory_of_a_batch_that_did_not_fit_is_free_when_its_halves_are_tried(
    start: Callable[..., QueryStage],
) -> None:
    class Activations:
        pass

    held: list[weakref.ref[Activations]] = []

    def fault(texts: Sequence[str]) -> None:
        activations = Activations()
        assert all(one() is None for one in held)
        held.append(weakref.ref(activations))
        if len(texts) > 1:
            try:
                raise MemoryError
            except MemoryError as error:
                raise EncoderOutOfMemory("out of memory") from error

    assert len(vectors(start(WordEncoder(fault)).ask(["a"] * 4))) == 4
    assert len(held) == 7


def test_one_text_that_does_not_fit_into_memory_is_the_workers_fault(start: Callable[..., QueryStage]) -> None:
    found = refused(start(WordEncoder(fail_at("big", EncoderOutOfMemory("out of memory")))).ask(["big"]))
    assert (found.status, found.code, found.kind) == (503, "out_of_memory", "server_error")


def test_a_model_that_fails_at_every_text_is_the_workers_fault_and_told(
    start: Callable[..., QueryStage],
) -> None:
    broken = threading.Event()
    broken.set()

    def fault(_texts: Sequence[str]) -> None:
        if broken.is_set():
            raise RuntimeError("CUDA error: device-side assert")

    failure = Failure()
    stage = start(WordEncoder(fault), failure=failure)
    found = refused(stage.ask(["a", "b"]))
    assert (found.status, found.code, found.kind) == (500, "model_failed", "server_error")
    assert str(failure.error) == "Crashed: the model fails at every text: RuntimeError: CUDA error: device-side assert"
    # Whoever asks before the worker has ended is answered all the same.
    broken.clear()
    assert vectors(stage.ask(["a"])) == [[1, ord("a")]]


def test_a_text_that_fails_while_memory_is_short_for_any_ends_nothing(start: Callable[..., QueryStage]) -> None:
    def fault(texts: Sequence[str]) -> None:
        if texts == ["bad"]:
            raise ValueError("this text")
        if texts == ["warm-up"]:
            raise EncoderOutOfMemory("out of memory")

    failure = Failure()
    found = refused(start(WordEncoder(fault), failure=failure).ask(["bad"]))
    assert (found.status, found.code) == (503, "out_of_memory")
    assert failure.error is None


def test_more_texts_than_may_wait_are_refused_at_once_and_taken_later(start: Callable[..., QueryStage]) -> None:
    encoder = GatedWordEncoder()
    stage = start(encoder)
    first = stage.ask(["first"])
    assert encoder.entered.wait(SECONDS)
    many = stage.ask(["a"] * (MAX_TEXTS - 1))
    with pytest.raises(Refusal) as caught:
        stage.ask(["b", "c"])
    assert (caught.value.status, caught.value.code, caught.value.kind) == (429, "overloaded", "rate_limit_error")
    assert caught.value.retry_seconds == 1
    last = stage.ask(["one more"])
    encoder.open.set()

    assert len(vectors(many)) == MAX_TEXTS - 1
    assert vectors(first)
    assert vectors(last)
    assert len(vectors(stage.ask(["a"] * MAX_TEXTS))) == MAX_TEXTS


def test_texts_of_a_request_that_has_failed_make_room(start: Callable[..., QueryStage]) -> None:
    stage = start(WordEncoder(fail_at("poison", ValueError("no"))))
    assert refused(stage.ask(["poison"] + ["a"] * (MAX_TEXTS - 1))).status == 400
    # One text, since the rest of that request may still be counted; it is dropped before this one's turn.
    assert vectors(stage.ask(["b"]))
    assert len(vectors(stage.ask(["a"] * MAX_TEXTS))) == MAX_TEXTS


def test_who_waits_at_the_end_is_told_so(start: Callable[..., QueryStage]) -> None:
    encoder = GatedWordEncoder()
    stage = start(encoder)
    first = stage.ask(["first"])
    assert encoder.entered.wait(SECONDS)
    second = stage.ask(["second"])
    stage.close()
    encoder.open.set()

    assert vectors(first) == [[1, ord("f")]]
    assert (refused(second).status, refused(second).code) == (503, "shutting_down")
    with pytest.raises(Refusal, match="this worker is ending"):
        stage.ask(["third"])

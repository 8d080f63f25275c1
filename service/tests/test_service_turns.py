"""Who gets the encoder next: people who wait before the backlog, and neither for ever."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import pytest

from embedding_service.encoders.protocol import Computation, Computed, Tokenized
from embedding_service.turns import Turn, share
from waiting import wait_until
from word_encoder import WordEncoder

T = TypeVar("T")

SECONDS = 30.0


class Trace:
    """Turns in the order in which they were had. Each lasts until the others that are to come wait for theirs."""

    def __init__(self) -> None:
        self.turn = Turn()
        self.had: list[str] = []
        self._left = {False: 0, True: 0}

    def run(self, *, backlog: int, queries: int) -> list[str]:
        self._left = {False: backlog, True: queries}
        with ThreadPoolExecutor(2) as pool:
            with self.turn.take(interactive=False):
                running = [pool.submit(self._user, interactive) for interactive in (False, True)]
                self._others_wait()
            for one in running:
                one.result(SECONDS)
        return self.had

    def _user(self, interactive: bool) -> None:
        while self._left[interactive]:
            with self.turn.take(interactive=interactive):
                self.had.append("query" if interactive else "backlog")
                self._left[interactive] -= 1
                self._others_wait(but=interactive)

    def _others_wait(self, but: bool | None = None) -> None:
        for user, left in self._left.items():
            if left and user is not but:
                wait_until(partial(self.turn._waiting.get, user), SECONDS, "the other waits", interval=0.001)


@pytest.mark.parametrize(
    ("backlog", "queries", "order"),
    [
        pytest.param(3, 1, "query backlog backlog backlog", id="a query goes before the backlog's next batch"),
        pytest.param(3, 2, "query backlog query backlog backlog", id="after a query it is the backlog's turn"),
        pytest.param(2, 5, "query backlog query backlog query query query", id="many queries leave the backlog half of the turns"),
        pytest.param(3, 0, "backlog backlog backlog", id="without queries the backlog waits for nobody"),
        pytest.param(0, 3, "query query query", id="without a backlog queries wait for nobody"),
    ],
)  # fmt: skip
def test_turns_alternate_where_both_wait(backlog: int, queries: int, order: str) -> None:
    assert Trace().run(backlog=backlog, queries=queries) == order.split()


def test_a_turn_that_ends_with_an_error_is_over() -> None:
    turn = Turn()
    with pytest.raises(ValueError, match="no"), turn.take(interactive=True):
        raise ValueError("no")
    with turn.take(interactive=False):
        pass


class Alone(WordEncoder):
    """Fails where two are in it at once."""

    def __init__(self) -> None:
        super().__init__()
        self._tokenizing = threading.Lock()
        self._submitting = threading.Lock()

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        return alone(self._tokenizing, lambda: super(Alone, self).tokenize(texts))

    def submit(self, batch: Sequence[Tokenized]) -> Computation:
        return alone(self._submitting, lambda: Computed(self.encode(batch)))


def alone(lock: threading.Lock, work: Callable[[], T]) -> T:
    assert lock.acquire(blocking=False), "two at once"
    try:
        return work()
    finally:
        lock.release()


def test_one_thread_at_a_time_is_in_the_tokenizer_and_one_in_the_model() -> None:
    users = share(Alone())
    assert {(user.dimension, user.max_length) for user in users} == {(2, 8)}

    def work(number: int) -> float:
        user = users[number % 2]
        return float(user.submit(user.tokenize(["a b"])).result()[0, 0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(400))) == [2.0] * 400

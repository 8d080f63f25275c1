"""What the operator remembers of pipelines between two looks, and who is granted what."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_operator.claims import Claim
from embedding_operator.memory import Memory
from embedding_operator.observed import Problem, Progress, Secrets
from embedding_operator.reasons import Reason
from embedding_operator.store import Key
from embedding_service.contract.stats import ModelStats
from manual_clock import Clock

KEY, OTHER = ("search", "a"), ("search", "b")
MODEL = ModelStats(
    name="m", source="hub", path="/m", dimension=384, max_length=256, device="cpu", contract="0123456789abcdef"
)


@pytest.fixture
def memory(clock: Clock) -> Memory:
    return Memory(clock)


def claim(
    name: str, output: str = "out", group: str | None = None, created: str = "2026", *, held: bool = False
) -> Claim:
    return Claim(f"uid-{name}", f"search/{name}", created, "cluster", group or f"search.{name}", output, held)


def test_who_comes_first_has_it_and_keeps_it_though_the_other_is_older(memory: Memory) -> None:
    assert memory.claim(KEY, claim("a", created="2026")) is None
    assert memory.claim(OTHER, claim("b", created="2025")) is not None
    assert memory.claim(KEY, claim("a", created="2026")) is None
    assert (memory.holds(KEY), memory.holds(OTHER), memory.waiting()) == (True, False, {OTHER})


def test_after_one_is_gone_the_other_has_it(memory: Memory) -> None:
    memory.claim(KEY, claim("a"))
    memory.claim(OTHER, claim("b"))
    memory.forget(KEY)
    assert memory.claim(OTHER, claim("b")) is None
    assert (memory.holds(OTHER), memory.waiting()) == (True, set())


def test_after_one_asks_for_something_else_the_other_has_it(memory: Memory) -> None:
    memory.claim(KEY, claim("a"))
    memory.claim(OTHER, claim("b"))
    assert memory.claim(KEY, claim("a", output="new")) is None
    assert memory.claim(OTHER, claim("b")) is None


def test_a_running_pipeline_that_is_edited_onto_anothers_topic_stands_back(memory: Memory) -> None:
    memory.claim(KEY, claim("a", output="x", created="2025"))
    memory.claim(OTHER, claim("b", output="y", created="2026"))
    assert memory.claim(KEY, claim("a", output="y", created="2025")) is not None
    assert memory.claim(OTHER, claim("b", output="y", created="2026")) is None


def test_one_that_comes_back_to_what_another_took_meanwhile_stands_back_though_its_status_still_names_it(
    memory: Memory,
) -> None:
    memory.claim(KEY, claim("a", output="x", created="2025"))
    memory.claim(KEY, claim("a", output="y", created="2025"))
    assert memory.claim(OTHER, claim("b", output="x", created="2026")) is None
    assert memory.claim(KEY, claim("a", output="x", created="2025", held=True)) is not None
    assert memory.claim(OTHER, claim("b", output="x", created="2026")) is None


def test_what_a_process_before_granted_stays_whoever_is_looked_at_first(memory: Memory) -> None:
    memory.seed(KEY, claim("a", created="2026", held=True))
    assert memory.holds(KEY)
    assert memory.claim(OTHER, claim("b", created="2025")) is not None
    assert memory.claim(KEY, claim("a", created="2026", held=True)) is None


def test_nothing_is_held_by_a_pipeline_that_nobody_looked_at(memory: Memory) -> None:
    assert not memory.holds(KEY)
    memory.seed(KEY, claim("a"))
    assert not memory.holds(KEY)


def test_one_made_again_under_the_same_name_inherits_nothing(memory: Memory) -> None:
    memory.meet(KEY, "uid-a")
    memory.claim(KEY, claim("a"))
    memory.remember_created(KEY, ["topic"])
    memory.meet(KEY, "uid-new")
    assert not memory.holds(KEY)
    assert memory.created(KEY) == frozenset()


def test_a_pipeline_that_is_met_again_keeps_what_is_known_of_it(memory: Memory) -> None:
    memory.meet(KEY, "uid-a")
    memory.claim(KEY, claim("a"))
    memory.remember_created(KEY, ["topic"])
    memory.meet(KEY, "uid-a")
    assert memory.holds(KEY)
    assert memory.created(KEY) == {"topic"}


def test_of_many_that_ask_at_once_one_has_it(memory: Memory) -> None:
    count = 8
    together = Barrier(count)

    def ask(number: int) -> Problem | None:
        together.wait()
        return memory.claim(("search", str(number)), claim(str(number)))

    with ThreadPoolExecutor(count) as threads:
        answers = list(threads.map(ask, range(count)))
    assert answers.count(None) == 1
    assert len(memory.waiting()) == count - 1


# What three pipelines ask for, one after the other: which of them, topic and group, or that it is deleted.
EDITS = st.lists(
    st.tuples(st.integers(0, 2), st.one_of(st.none(), st.tuples(st.sampled_from("xyz"), st.sampled_from("gh")))),
    max_size=12,
)
CREATED = ("2026", "2025", "2025")


@given(edits=EDITS)
def test_no_two_have_the_same_and_none_waits_for_what_nobody_has(
    edits: list[tuple[int, tuple[str, str] | None]],
) -> None:
    memory = Memory()
    asked: dict[Key, Claim] = {}

    def look(key: Key) -> None:
        memory.claim(key, asked[key])
        granted = [asked[one] for one in asked if memory.holds(one)]
        assert len({one.output for one in granted}) == len({one.group for one in granted}) == len(granted)

    for number, wanted in edits:
        key = ("search", str(number))
        if wanted is None:
            asked.pop(key, None)
            memory.forget(key)
        else:
            asked[key] = claim(str(number), *wanted, created=CREATED[number])
            look(key)
    for _ in asked:
        for key in asked:
            look(key)
    granted = [asked[key] for key in asked if memory.holds(key)]
    for key in memory.waiting():
        assert any(one.output == asked[key].output or one.group == asked[key].group for one in granted)


def test_topics_that_were_created_are_remembered(memory: Memory) -> None:
    memory.remember_created(KEY, ["a"])
    memory.remember_created(KEY, ["b"])
    assert memory.created(KEY) == {"a", "b"}
    assert memory.created(OTHER) == frozenset()
    memory.forget(KEY)
    assert memory.created(KEY) == frozenset()


FOUND = Secrets({"s": {"k": "v"}}, "c0ffee")


def test_secrets_are_read_again_at_the_resync_and_not_before(memory: Memory, clock: Clock) -> None:
    assert memory.secrets(KEY, 1, 60) is None
    memory.remember_secrets(KEY, 1, FOUND)
    clock.now += 59.9
    assert memory.secrets(KEY, 1, 60) == FOUND
    clock.now += 0.1
    assert memory.secrets(KEY, 1, 60) is None


def test_secrets_are_read_again_when_the_pipeline_may_name_others(memory: Memory) -> None:
    memory.remember_secrets(KEY, 1, FOUND)
    assert memory.secrets(KEY, 2, 60) is None


def test_a_secret_that_is_missing_is_looked_for_each_time(memory: Memory) -> None:
    memory.remember_secrets(KEY, 1, Secrets(problem=Problem(Reason.SECRET_MISSING, "no Secret")))
    assert memory.secrets(KEY, 1, 60) is None


def test_a_worker_that_told_its_model_is_not_asked_again(memory: Memory, clock: Clock) -> None:
    assert not memory.asked_model(KEY, ["pod"], 60)
    memory.remember_model(KEY, "pod", MODEL)
    clock.now += 3600
    assert memory.asked_model(KEY, ["another", "pod"], 60)
    assert memory.model(KEY) == MODEL


def test_a_worker_that_can_not_be_reached_is_asked_again_at_the_resync(memory: Memory, clock: Clock) -> None:
    memory.remember_model(KEY, "pod", None)
    clock.now += 59.9
    assert memory.asked_model(KEY, ["pod"], 60)
    assert memory.model(KEY) is None
    clock.now += 0.1
    assert not memory.asked_model(KEY, ["pod"], 60)


def test_after_the_worker_that_told_its_model_is_gone_another_is_asked(memory: Memory) -> None:
    memory.remember_model(KEY, "pod", MODEL)
    assert not memory.asked_model(KEY, ["another"], 60)


def test_the_configuration_of_topics_is_forgotten_when_they_were_changed(memory: Memory) -> None:
    memory.configs(KEY)["id"] = (0.0, {"a": "b"})
    assert memory.configs(KEY)
    memory.forget_configs(KEY)
    assert not memory.configs(KEY)


def read_up_to(offset: int, at: float) -> Progress:
    return Progress("id", 0, (offset,), (0,), at)


def rates(memory: Memory, *seen: tuple[int, float] | None) -> list[float | None]:
    """The rate after each look, at which so many records were committed at that second; ``None``: brokers were away."""
    looks = [None if one is None else read_up_to(*one) for one in seen]
    return [memory.rate(KEY, look, 10) for look in looks]


# Looks: committed and seconds → what is known of the rate after each.
RATES: dict[str, tuple[list[tuple[int, float] | None], list[float | None]]] = {
    "one look tells no rate": ([(100, 0)], [None]),
    "two looks tell one": ([(100, 0), (300, 10)], [None, 20.0]),
    "looks that come together tell nothing new": (
        [(100, 0), (300, 10), (1000, 10.2), (500, 20)],
        [None, 20.0, 20.0, 20.0],
    ),
    "nothing committed is a rate of none": ([(100, 0), (100, 10)], [None, 0.0]),
    "offsets that were set back begin anew": ([(100, 0), (300, 10), (0, 20), (50, 30)], [None, 20.0, None, 5.0]),
    "what happened while brokers were away is no rate": (
        [(100, 0), (300, 10), None, (900, 100), (1000, 110)],
        [None, 20.0, None, None, 10.0],
    ),
}


@pytest.mark.parametrize(("looks", "expected"), RATES.values(), ids=RATES.keys())
def test_of_the_rate(looks: list[tuple[int, float] | None], expected: list[float | None], memory: Memory) -> None:
    assert rates(memory, *looks) == expected


def test_figures_are_due_at_once_and_then_after_a_while(memory: Memory, clock: Clock) -> None:
    assert memory.figures_due(KEY, 10)
    memory.wrote_figures(KEY)
    clock.now += 9.9
    assert not memory.figures_due(KEY, 10)
    clock.now += 0.1
    assert memory.figures_due(KEY, 10)


def test_a_clock_of_ones_own_is_not_needed() -> None:
    assert Memory().figures_due(KEY, 10)


def test_the_state_in_which_nothing_had_to_be_done_is_remembered(memory: Memory) -> None:
    assert memory.settled(KEY) is None
    memory.settle(KEY, (1, "c0ffee", 3, False, True, {"Deployment": "7"}))
    assert memory.settled(KEY) == (1, "c0ffee", 3, False, True, {"Deployment": "7"})
    assert memory.settled(OTHER) is None


REMEMBERED: dict[str, Callable[[Memory], object]] = {
    "secrets": lambda memory: memory.secrets(KEY, 1, 60),
    "the model": lambda memory: memory.model(KEY),
    "created topics": lambda memory: memory.created(KEY),
    "configurations": lambda memory: memory.configs(KEY),
    "the rate": lambda memory: memory.rate(KEY, read_up_to(2, 20), 10),
    "when figures were written": lambda memory: not memory.figures_due(KEY, 10),
    "the claim": lambda memory: memory.holds(KEY),
    "that nothing had to be done": lambda memory: memory.settled(KEY),
}


@pytest.mark.parametrize("ask", REMEMBERED.values(), ids=REMEMBERED.keys())
def test_of_a_pipeline_that_is_gone_nothing_is_remembered_not(ask: Callable[[Memory], object], memory: Memory) -> None:
    memory.remember_secrets(KEY, 1, FOUND)
    memory.remember_model(KEY, "pod", MODEL)
    memory.remember_created(KEY, ["a"])
    memory.configs(KEY)["id"] = (0.0, {})
    memory.rate(KEY, read_up_to(1, 0), 10)
    memory.wrote_figures(KEY)
    memory.settle(KEY, (1, None, None, False, True, {}))
    memory.claim(KEY, replace(claim("a"), held=True))
    memory.forget(KEY)
    assert not ask(memory)

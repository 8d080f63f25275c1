"""Packing by padded tokens, and windows bounded in seconds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_service.batching import Pace, pack, window_count
from embedding_service.contract.fingerprint import EmbeddingContract
from embedding_service.encoders.protocol import LoadedModel
from word_encoder import WordEncoder

LENGTHS = st.lists(st.integers(0, 600), max_size=300)


@given(LENGTHS, st.integers(1, 5000), st.integers(0, 5000))
def test_every_text_stands_in_exactly_one_batch(lengths: list[int], budget: int, cost: int) -> None:
    assert sorted(index for batch in pack(lengths, budget, cost) for index in batch) == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 5000), st.integers(0, 5000))
def test_a_batch_stays_within_the_budget_unless_a_text_alone_exceeds_it(
    lengths: list[int], budget: int, cost: int
) -> None:
    for batch in pack(lengths, budget, cost):
        assert len(batch) == 1 or max(lengths[index] for index in batch) * len(batch) <= max(budget, len(batch))


@given(LENGTHS, st.integers(1, 5000), st.integers(0, 5000))
def test_texts_of_like_length_go_together_longest_first(lengths: list[int], budget: int, cost: int) -> None:
    flat = [lengths[index] for batch in pack(lengths, budget, cost) for index in batch]
    assert flat == sorted(lengths, reverse=True)


def test_short_texts_share_a_batch_and_a_long_one_does_not_pad_them() -> None:
    assert pack([5, 500, 5, 5], 512, 32) == [[1], [0, 2, 3]]


def test_padding_that_costs_more_than_another_batch_is_not_made() -> None:
    lengths = [100, 90, 10, 10]
    assert pack(lengths, 1024, batch_cost=32) == [[0, 1], [2, 3]]
    assert pack(lengths, 1024, batch_cost=1024) == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("device", "parameters", "cost"),
    [
        pytest.param("cpu", 85_000_000, 32, id="a CPU, which hardly waits for a launch"),
        pytest.param("cuda", 10_700_000, 16_384, id="six layers of 384"),
        pytest.param("cuda", 85_600_000, 4_672, id="twelve layers of 768"),
        pytest.param("cuda", 303_000_000, 1_320, id="twenty-four layers of 1024"),
        pytest.param("cuda", 0, 16_384, id="vectors that are only looked up"),
    ],
)
def test_the_larger_the_model_the_less_is_padded_to_save_a_launch(device: str, parameters: int, cost: int) -> None:
    contract = EmbeddingContract({}, 4, normalize=False, prompt=None, max_length=8)
    model = LoadedModel(WordEncoder(), "m", "test", "", device, "pytorch", "float16", contract, 0.0, parameters)
    assert model.batch_cost == cost


def padded(lengths: list[int]) -> int:
    return sum(max(lengths[index] for index in batch) * len(batch) for batch in pack(lengths, 1024, 32))


# Bytes are drawn at once, a thousand numbers one by one.
@given(st.binary(min_size=1000, max_size=1000), st.integers(200, 512))
def test_one_long_text_among_a_thousand_short_ones_costs_no_more_than_apart(drawn: bytes, long: int) -> None:
    short = [3 + byte % 38 for byte in drawn]
    assert padded([*short, long]) <= 1.02 * (padded(short) + padded([long]))


@given(LENGTHS, st.integers(1, 5000), st.integers(0, 5000))
def test_no_batch_is_padded_by_more_than_another_batch_would_cost(lengths: list[int], budget: int, cost: int) -> None:
    for batch in pack(lengths, budget, cost):
        sizes = [max(1, lengths[index]) for index in batch]
        assert max(sizes) * len(sizes) - sum(sizes) <= cost


@pytest.mark.parametrize(
    ("costs", "budget", "count"),
    [
        pytest.param([], 10, 0, id="nothing of nothing"),
        pytest.param([100], 10, 1, id="one too expensive goes alone"),
        pytest.param([4, 4, 4], 8, 2, id="as many as fit"),
        pytest.param([4, 4, 4], 100, 3, id="all where all fit"),
        pytest.param([0, 0, 100], 10, 2, id="tombstones cost nothing"),
    ],
)
def test_a_window_takes(costs: list[int], budget: float, count: int) -> None:
    assert window_count(costs, budget) == count


def test_the_first_window_is_small_and_its_measure_replaces_the_guess() -> None:
    pace = Pace(5.0)
    assert pace.max_cost == 1_000
    pace.learn(1_000, 10)
    assert pace.max_cost == pytest.approx(500)


def test_windows_that_end_together_do_not_look_endlessly_fast() -> None:
    pace = Pace(5.0)
    for _ in range(20):
        pace.learn(1_000, 2.0)
        pace.learn(1_000, 1e-6)
    assert pace.max_cost == pytest.approx(5_000, rel=0.3)


def test_the_pace_follows_what_windows_really_took() -> None:
    pace = Pace(5.0)
    for _ in range(50):
        pace.learn(1000, 0.1)
    assert pace.max_cost == pytest.approx(50_000, rel=0.01)
    for _ in range(50):
        pace.learn(1000, 10)
    assert pace.max_cost == pytest.approx(500, rel=0.01)

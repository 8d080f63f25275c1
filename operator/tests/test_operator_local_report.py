"""The report, the lines on the way, and the neighbours."""

import math

import numpy as np
import pytest

from embedding_operator.local.neighbours import MOST_VECTORS, Example, Matrix, Neighbour, Vectors, nearest, spread
from embedding_operator.local.report import Outcome, mismatch, progress_line, report, serving, snippet
from embedding_operator.local.texts import Text
from embedding_operator.local.tracker import Bounds, Dead, Embedded, RecordTracker
from embedding_service.contract.settings import Settings
from embedding_service.contract.stats import ModelStats

MODEL = ModelStats(
    name="organisation/model",
    source="cache",
    path="/models/model",
    dimension=1024,
    max_length=256,
    device="cpu",
    contract="v1:abc",
)


def tracker(count: int, embedded: int, *dead: str) -> RecordTracker:
    """So many fed in the first second, and answered one a second after that."""
    entered = RecordTracker(Bounds(messages=10_000, bytes=10_000, record_bytes=0))
    for number in range(count):
        entered.feed(Text(f"line-{number + 1}", b""), now=0.0)
    for number in range(embedded):
        entered.answer(number, Embedded(), now=number + 1.0)
    for number, reason in enumerate(dead, embedded):
        entered.answer(number, Dead(reason), now=number + 1.0)
    return entered


def outcome(entered: RecordTracker, **changed: object) -> Outcome:
    fields: dict[str, object] = {
        "pipeline": "default/articles",
        "broker": "in memory",
        "model": MODEL,
        "tracker": entered,
    }
    return Outcome(**{**fields, **changed})  # type: ignore[arg-type] # the table of changes is untyped


def test_the_report_says_what_was_used_and_what_came_of_it() -> None:
    shown = report(outcome(tracker(4, 2, "InvalidJson", "TextMissing"), blank=1, written=(2, "out/vectors.jsonl")))
    assert shown.splitlines() == [
        "Pipeline    default/articles",
        "Broker      in memory",
        "Model       organisation/model, 1,024 dimensions, at most 256 tokens, on cpu",
        "Weights     cache, /models/model",
        "Contract    v1:abc",
        "In          4 (1 blank line left out)",
        "Out         2",
        "Dead        2 (InvalidJson 1, TextMissing 1)",
        "Tombstones  0",
        "Duplicates  0",
        "Rate        1.0 messages/s over 4.0 s",
        "Latency     p50 2.50 s, p99 3.97 s, from fed to read, waiting in line included",
        "Written     2 embeddings to out/vectors.jsonl",
    ]


def test_a_run_without_an_answer_has_a_report_too() -> None:
    shown = report(outcome(tracker(0, 0)))
    assert "Rate        0.0 messages/s over 0.0 s" in shown
    assert "Latency     none was measured" in shown
    assert "neighbours" not in shown


def test_neighbours_stand_under_their_text_best_first() -> None:
    example = Example("how do\n I sort?", ((0.71, "list.sort: Sort the list."), (0.5, "sorted: Return a new list.")))
    assert report(outcome(tracker(1, 1), examples=[example])).splitlines()[-5:] == [
        "Nearest neighbours, by cosine similarity:",
        "",
        "  how do I sort?",
        "    0.71  list.sort: Sort the list.",
        "    0.50  sorted: Return a new list.",
    ]


def test_the_report_says_where_only_the_first_texts_were_compared() -> None:
    shown = report(outcome(tracker(1, 1), examples=[Example("a", ())], vectors_cut=True))
    assert "by cosine similarity, among the first 20,000 texts:" in shown


def test_what_did_not_come_back_is_counted_and_named() -> None:
    assert mismatch(tracker(9, 1, "InvalidJson")) == (
        "in 9 ≠ out 1 + dead 1 + tombstones 0: 7 records did not come back: line-3, line-4, line-5, line-6, line-7, …"
    )


def test_one_that_did_not_come_back_is_named_alone() -> None:
    assert mismatch(tracker(2, 1)).endswith(": 1 record did not come back: line-2")


PROGRESS = {
    "with a total, the time left": (tracker(4, 2), 10, "2 of 10 answered, 1/s, lag 2, 8 s left"),
    "without a total, none": (tracker(4, 2), None, "2 answered, 1/s, lag 2"),
    "before the first answer, none": (tracker(4, 0), 10, "0 of 10 answered, 0/s, lag 4"),
}


@pytest.mark.parametrize(("entered", "total", "line"), PROGRESS.values(), ids=PROGRESS.keys())
def test_progress_shows(entered: RecordTracker, total: int | None, line: str) -> None:
    assert progress_line(entered, total) == line


SNIPPETS = {
    "a short text as it is": ("a b", "a b"),
    "white space as one space": ("a\n\n  b\tc", "a b c"),
    "the beginning of a long text": ("word " * 40, "word " * 18 + "…"),
    "the beginning of a long word": ("x" * 200, "x" * 94 + " …"),
    "nothing of an empty text": ("", ""),
}


@pytest.mark.parametrize(("text", "shown"), SNIPPETS.values(), ids=SNIPPETS.keys())
def test_a_snippet_is(text: str, shown: str) -> None:
    assert snippet(text) == shown


def test_serving_names_the_url_the_broker_and_commands_to_try() -> None:
    settings = Settings.model_validate({"kafka": {"bootstrap_servers": "127.0.0.1:1234"}, "http": {"port": 5001}})
    shown = serving(settings)
    assert "curl http://localhost:5001/health" in shown
    assert 'kafka-cli write text-messages "Hello" --bootstrap-servers 127.0.0.1:1234' in shown
    assert "kafka-cli read embeddings --bootstrap-servers 127.0.0.1:1234" in shown


def matrix(*rows: tuple[float, ...]) -> Matrix:
    return np.array(rows, dtype=np.float32)


def test_the_nearest_are_those_of_the_highest_cosine_whatever_their_length() -> None:
    vectors = matrix((0, 1), (5, 5), (3, 0), (-1, 0))
    (found,) = nearest(vectors, matrix((2, 0)), 3)
    assert [neighbour.row for neighbour in found] == [2, 1, 0]
    assert [neighbour.cosine for neighbour in found] == pytest.approx([1, math.sqrt(0.5), 0])


def test_a_vector_of_zeros_is_near_to_nothing() -> None:
    assert nearest(matrix((0, 0)), matrix((1, 0)), 1) == [[Neighbour(0, 0.0)]]


def test_there_are_no_more_neighbours_than_vectors() -> None:
    assert len(nearest(matrix((1, 0)), matrix((1, 0)), 3)[0]) == 1


def test_a_query_is_shown_with_the_texts_nearest_to_it() -> None:
    vectors = Vectors()
    vectors.add_text(3, "east", [2.0, 0.0])
    vectors.add_text(2, "north", [0.0, 2.0])
    vectors.add_query(0, "eastward?", [1.0, 0.0])
    assert vectors.examples() == [Example("eastward?", ((1.0, "east"), (0.0, "north")))]


def test_without_a_query_texts_are_shown_with_others_and_never_with_themselves() -> None:
    vectors = Vectors()
    for number in range(7):
        vectors.add_text(number, f"text {number}", [math.cos(number), math.sin(number)])
    examples = vectors.examples()
    assert [example.text for example in examples] == ["text 1", "text 3", "text 5"]
    assert all(example.text not in [text for _, text in example.neighbours] for example in examples)
    assert [text for _, text in examples[0].neighbours][:2] == ["text 0", "text 2"]


def test_equal_texts_are_each_others_neighbours() -> None:
    vectors = Vectors()
    vectors.add_text(0, "same", [1.0])
    vectors.add_text(1, "same", [1.0])
    assert vectors.examples()[0] == Example("same", ((1.0, "same"),))


def test_without_a_text_nothing_is_shown() -> None:
    vectors = Vectors()
    vectors.add_query(0, "anyone?", [1.0])
    assert vectors.examples() == []


def test_vectors_are_kept_of_the_first_texts_alone_and_it_is_noted() -> None:
    vectors = Vectors()
    for number in range(MOST_VECTORS):
        assert vectors.wants_text()
        vectors.add_text(number, "", [1.0])
    assert not vectors.cut
    assert not vectors.wants_text()
    assert vectors.cut


@pytest.mark.parametrize(
    ("length", "count", "places"),
    [(0, 3, []), (1, 3, [0]), (3, 3, [0, 1, 2]), (9, 3, [1, 4, 7]), (100, 3, [16, 50, 83])],
)
def test_spread(length: int, count: int, places: list[int]) -> None:
    assert spread(length, count) == places

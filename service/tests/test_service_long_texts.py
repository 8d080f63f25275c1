"""Texts longer than the model takes, through a real topic: cut and marked, or rejected."""

from collections.abc import Callable

import pytest
from confluent_kafka import Message

from embedding_service.messages import headers_of
from embedding_service.pipeline import Pipeline
from service_fixtures import Stream

pytestmark = pytest.mark.slow

TEXTS = ("short", "word " * 300, "long " * 100_000, "word " * 254)
LONG = {b"t-1", b"t-2"}


def headers(message: Message) -> dict[str, bytes | None]:
    return dict(headers_of(message) or [])


def test_a_long_text_is_cut_marked_and_counted(stream: Stream, start_pipeline: Callable[..., Pipeline]) -> None:
    pipeline = start_pipeline()
    stream.feed_texts(TEXTS)
    outputs = stream.outputs(len(TEXTS))
    assert {message.key() for message in outputs if "embedding-overflow" in headers(message)} == LONG
    assert {headers(message).get("embedding-overflow") for message in outputs} == {None, b"truncated"}
    stream.wait_caught_up()
    assert pipeline.metrics.counts().truncated == 2
    assert pipeline.metrics.registry.get_sample_value("embedding_messages_truncated_total") == 2


def test_a_long_text_is_rejected_where_the_pipeline_says_so(
    stream: Stream, start_pipeline: Callable[..., Pipeline]
) -> None:
    pipeline = start_pipeline(stream.settings(model={"on_overflow": "reject"}))
    sent = {message.key(): message for message in stream.feed_texts(TEXTS)}
    letters = stream.dead_letters(2)
    assert {message.key() for message in letters} == LONG
    for letter in letters:
        assert letter.value() == sent[letter.key()].value()
        assert headers(letter)["__connect.errors.exception.class.name"] == b"TextTooLong"
        assert headers(letter)["__connect.errors.stage"] == b"TRANSFORMATION"
        assert b"more than 256 tokens" in (headers(letter)["__connect.errors.exception.message"] or b"")
    assert {message.key() for message in stream.outputs(2)} == {b"t-0", b"t-3"}
    stream.wait_caught_up()
    counts = pipeline.metrics.counts()
    assert (counts.embedded, counts.truncated, counts.dead_by_reason) == (2, 0, {"TextTooLong": 2})

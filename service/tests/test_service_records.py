"""Input bytes to messages, vectors to output bytes."""

import json

import numpy as np
import pytest

from embedding_service.contract.headers import Stage
from embedding_service.contract.reasons import DeadLetterReason
from embedding_service.records import (
    Embedded,
    InputRecord,
    Rejection,
    TextMessage,
    Tombstone,
    output_key,
    output_value,
    parse,
)


def record(value: bytes | None, key: bytes | None = None) -> InputRecord:
    return InputRecord("texts", 3, 42, key, value, [("trace", b"1")], 1699123456.5)


FIELDS = [
    "id",
    "original_text",
    "embedding",
    "model_name",
    "timestamp",
    "embedding_dimension",
    "processing_timestamp",
    "input_timestamp",
    "input_source",
]


@pytest.mark.parametrize(
    ("value", "reason", "says"),
    [
        pytest.param(b"hello", DeadLetterReason.INVALID_JSON, "", id="not JSON"),
        pytest.param(b"", DeadLetterReason.INVALID_JSON, "", id="empty bytes are not a tombstone"),
        pytest.param(b'{"text": "a"', DeadLetterReason.INVALID_JSON, "", id="JSON that breaks off"),
        pytest.param(b'{"text": NaN}', DeadLetterReason.INVALID_JSON, "", id="NaN is not JSON"),
        pytest.param(b'{"text": "\\ud800"}', DeadLetterReason.INVALID_JSON, "surrogate", id="half a surrogate pair"),
        pytest.param(b'{"text": "\xff"}', DeadLetterReason.INVALID_UTF8, "byte 10", id="invalid UTF-8"),
        pytest.param(b'["a"]', DeadLetterReason.NOT_AN_OBJECT, "an array", id="an array"),
        pytest.param(b'"a"', DeadLetterReason.NOT_AN_OBJECT, "a string", id="a string"),
        pytest.param(b"null", DeadLetterReason.NOT_AN_OBJECT, "null", id="JSON's null is not a tombstone"),
        pytest.param(b"{}", DeadLetterReason.TEXT_MISSING, "text: missing", id="no text"),
        pytest.param(b'{"text": null}', DeadLetterReason.TEXT_MISSING, "text: missing", id="a null text"),
        pytest.param(b'{"text": 5}', DeadLetterReason.TEXT_NOT_A_STRING, "a number", id="a text that is a number"),
        pytest.param(b'{"text": ["a"]}', DeadLetterReason.TEXT_NOT_A_STRING, "an array", id="a text that is an array"),
        pytest.param(b'{"text": "a", "id": true}', DeadLetterReason.INVALID_ID, "a boolean", id="an id that is a boolean"),
        pytest.param(b'{"text": "a", "id": {}}', DeadLetterReason.INVALID_ID, "an object", id="an id that is an object"),
        pytest.param(b'{"text": "a", "id": 1.5}', DeadLetterReason.INVALID_ID, "a number", id="an id that is a fraction"),
    ],
)  # fmt: skip
def test_what_cannot_be_embedded_is_rejected_with_a_reason(value: bytes, reason: DeadLetterReason, says: str) -> None:
    parsed = parse(record(value))
    assert isinstance(parsed, Rejection)
    assert (parsed.reason, parsed.stage, parsed.record) == (reason, Stage.PARSE, record(value))
    assert says in parsed.message


@pytest.mark.parametrize(
    ("value", "identity", "text", "timestamp", "source"),
    [
        pytest.param(b'{"id": "a", "text": "x", "timestamp": 1.5, "source": "s"}', "a", "x", 1.5, "s", id="all fields"),
        pytest.param(b'{"text": "x"}', "texts-3-42", "x", None, None, id="only the text"),
        pytest.param(b'{"id": null, "text": "x"}', "texts-3-42", "x", None, None, id="a null id is a missing one"),
        pytest.param(b'{"id": 7, "text": "x"}', 7, "x", None, None, id="an id that is a number"),
        pytest.param(b'{"text": ""}', "texts-3-42", "", None, None, id="an empty text"),
        pytest.param('{"text": "héllo 🌍"}'.encode(), "texts-3-42", "héllo 🌍", None, None, id="unicode"),
        pytest.param(b'{"text": "x", "more": [1]}', "texts-3-42", "x", None, None, id="unknown fields do no harm"),
    ],
)
def test_only_the_text_is_necessary(
    value: bytes, identity: str | int, text: str, timestamp: float | None, source: str | None
) -> None:
    assert parse(record(value)) == TextMessage(record(value), identity, text, timestamp, source)


def test_a_null_value_is_a_tombstone() -> None:
    assert parse(record(None, b"k")) == Tombstone(record(None, b"k"))


def test_a_null_value_without_a_key_deletes_nothing_and_is_rejected() -> None:
    parsed = parse(record(None))
    assert isinstance(parsed, Rejection)
    assert parsed.reason is DeadLetterReason.TOMBSTONE_WITHOUT_KEY


def test_headers_count_as_bytes() -> None:
    assert InputRecord("t", 0, 0, b"kk", b"vvv", [("name", b"12345"), ("n", None)], 0.0).size == 2 + 3 + 9 + 1


def test_text_and_id_can_have_other_names() -> None:
    parsed = parse(record(b'{"doc": "a", "body": "b", "id": "no", "text": "no"}'), "body", "doc")
    assert isinstance(parsed, TextMessage)
    assert (parsed.id, parsed.text) == ("a", "b")


def embedded(value: bytes, key: bytes | None = None) -> Embedded:
    message = parse(record(value, key))
    assert isinstance(message, TextMessage)
    return Embedded(message, np.array([0.5, -1.25, 1e-7], dtype=np.float32), truncated=False)


def test_an_output_has_exactly_the_original_nine_fields() -> None:
    value = output_value(
        embedded(b'{"id": "a", "text": "x", "timestamp": 9, "source": "s"}'), "m", 12.5, include_text=True
    )
    document = json.loads(value)
    assert list(document) == FIELDS
    assert document["embedding"] == [0.5, -1.25, pytest.approx(1e-7)]
    assert {field: document[field] for field in FIELDS if field != "embedding"} == {
        "id": "a",
        "original_text": "x",
        "model_name": "m",
        "timestamp": 9,
        "embedding_dimension": 3,
        "processing_timestamp": 12.5,
        "input_timestamp": 9,
        "input_source": "s",
    }


def test_a_missing_timestamp_is_kafkas_and_the_inputs_own_is_then_null() -> None:
    document = json.loads(output_value(embedded(b'{"text": "x"}'), "m", 12.5, include_text=True))
    assert (document["timestamp"], document["input_timestamp"], document["input_source"]) == (1699123456.5, None, None)


def test_the_text_can_be_left_out() -> None:
    document = json.loads(output_value(embedded(b'{"text": "x"}'), "m", 12.5, include_text=False))
    assert list(document) == FIELDS
    assert document["original_text"] is None


@pytest.mark.parametrize(
    ("value", "key", "expected"),
    [
        pytest.param(b'{"id": "a", "text": "x"}', b"k", b"k", id="the input's key"),
        pytest.param(b'{"id": "a", "text": "x"}', b"", b"", id="an empty key is a key"),
        pytest.param(b'{"id": "a", "text": "x"}', None, b"a", id="the id where there is no key"),
        pytest.param(b'{"id": 7, "text": "x"}', None, b"7", id="an id that is a number"),
        pytest.param(b'{"text": "x"}', None, b"texts-3-42", id="the derived id"),
    ],
)
def test_the_output_key_is(value: bytes, key: bytes | None, expected: bytes) -> None:
    assert output_key(embedded(value, key).message) == expected

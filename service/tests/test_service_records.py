"""Input bytes to messages, vectors to output bytes."""

import json
from typing import Any

import numpy as np
import pytest

from embedding_service.contract.headers import Headers, Stage
from embedding_service.contract.outputs import Encoding, as_json, vector
from embedding_service.contract.reasons import DeadLetterReason
from embedding_service.records import (
    Embedded,
    InputRecord,
    Rejection,
    TextMessage,
    Tombstone,
    all_finite,
    encode,
    output_fields,
    output_key,
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


def as_written(outcome: Embedded, encoding: Encoding = "json", *, include_text: bool = True) -> dict[str, Any]:
    """What a reader gets."""
    value, headers = encode(output_fields(outcome, "m", 12.5, include_text=include_text), encoding)
    document: dict[str, Any] = json.loads(as_json(value, [*headers, ("embedding-encoding", encoding.encode())]))
    return document


BINARY: Headers = [("embedding-encoding", b"binary"), ("embedding-field-embedding_dimension", b"1")]
INPUTS = {
    "all fields": b'{"id": "a", "text": "x", "timestamp": 9, "source": {"of": ["any", 1, null, "a\\n"]}}',
    "only the text": '{"text": "héllo 🌍"}'.encode(),
    "an id that is a number": b'{"id": 7, "text": "", "source": false}',
    "an id that looks like a number": b'{"id": "7", "text": "x", "timestamp": "2026-01-01", "source": ""}',
}


@pytest.mark.parametrize("encoding", ["base64", "binary"])
@pytest.mark.parametrize("value", INPUTS.values(), ids=INPUTS.keys())
@pytest.mark.parametrize("include_text", [True, False], ids=["with the text", "without it"])
def test_every_encoding_says_the_same(value: bytes, encoding: Encoding, include_text: bool) -> None:
    plain = as_written(embedded(value), include_text=include_text)
    other = as_written(embedded(value), encoding, include_text=include_text)
    assert list(other) == FIELDS
    assert vector(other) == [0.5, -1.25, float(np.float32(1e-7))]
    assert {**other, "embedding": None} == {**plain, "embedding": None}


def test_base64_is_of_little_endian_float32() -> None:
    value, headers = encode({"embedding": np.array([1.0, -2.0], dtype=">f4")}, "base64")
    assert (json.loads(value), headers) == ({"embedding": "AACAPwAAAMA="}, ())


def test_binary_is_little_endian_float32_and_headers_of_json_without_what_is_null() -> None:
    fields = {"id": "7", "original_text": None, "embedding": np.array([1.0, -2.0], dtype=">f4"), "input_source": 7}
    value, headers = encode(fields, "binary")
    assert value == bytes.fromhex("0000803f 000000c0")
    assert headers == [("embedding-field-id", b'"7"'), ("embedding-field-input_source", b"7")]


@pytest.mark.parametrize(
    ("value", "headers"),
    [
        pytest.param(b"abc", BINARY, id="no whole number of floats"),
        pytest.param(b"abcd" * 2, BINARY, id="more floats than it says"),
        pytest.param(b'{"text": 12}', BINARY[:1], id="the header of another record"),
        pytest.param(b"abcd", [*BINARY, ("embedding-field-id", b"x")], id="a field that is no JSON"),
        pytest.param(b"abcd", [*BINARY, ("embedding-field-id", None)], id="a field that is null"),
        pytest.param(b"\0\0\xc0\x7f", BINARY, id="a vector that is not finite"),
        pytest.param(b"abcd", [("embedding-encoding", b"other"), *BINARY[1:]], id="an encoding that is unknown"),
        pytest.param(b"abcd", BINARY[1:], id="no encoding"),
    ],
)  # fmt: skip
def test_what_only_looks_like_an_output_stays_as_it_is(value: bytes, headers: Headers) -> None:
    assert as_json(value, headers) == value


def test_an_output_has_exactly_the_original_nine_fields() -> None:
    document = as_written(embedded(b'{"id": "a", "text": "x", "timestamp": 9, "source": "s"}'))
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
    document = as_written(embedded(b'{"text": "x"}'))
    assert (document["timestamp"], document["input_timestamp"], document["input_source"]) == (1699123456.5, None, None)


def test_the_text_can_be_left_out() -> None:
    document = as_written(embedded(b'{"text": "x"}'), include_text=False)
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


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("rows", "finite"),
    [
        pytest.param([[1.0, -2.0], [0.0, 3.0]], [True, True], id="numbers are"),
        pytest.param([[1.0, np.nan], [0.0, 3.0]], [False, True], id="one with a NaN is not"),
        pytest.param([[1.0, 2.0], [np.inf, -np.inf]], [True, False], id="infinities that cancel out are not"),
        pytest.param([[3e38, 3e38], [3e38, 0.0]], [True, True], id="numbers whose sum is too large are"),
        pytest.param([[3e38, 3e38], [np.nan, 0.0]], [True, False], id="a NaN is told from such a sum"),
    ],
)
def test_vectors_are_told_to_be_finite(rows: list[list[float]], finite: list[bool]) -> None:
    assert all_finite(np.array(rows, dtype=np.float32)).tolist() == finite

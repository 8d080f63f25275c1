"""Outcomes to the records that say them."""

from typing import Any

import numpy as np
import pytest

from embedding_service.contract.headers import Stage
from embedding_service.contract.outputs import Encoding
from embedding_service.contract.reasons import DeadLetterReason
from embedding_service.delivery.output import (
    OutputRecord,
    Target,
    dead_letter,
    smaller_dead_letter,
    to_record,
    too_large,
)
from embedding_service.records import Embedded, InputRecord, Rejection, TextMessage, Tombstone

SOURCE = InputRecord("texts", 2, 42, b"k", b'{"text": "a"}', [("trace", b"1"), ("embedding-contract", b"old")], 1.0)


def target(*, same_partitions: bool = True, encoding: Encoding = "json") -> Target:
    return Target("vectors", "vectors-deadletter", "m", "v1:abc", encoding, True, same_partitions)


def embedded(*, truncated: bool = False) -> Embedded:
    return Embedded(TextMessage(SOURCE, "a", "a", None, None), np.zeros(3, dtype=np.float32), truncated)


@pytest.mark.parametrize(
    ("same", "partition"),
    [
        pytest.param(True, 2, id="the same partition where the topics have as many"),
        pytest.param(False, None, id="else the partitioner's choice"),
    ],
)
def test_the_output_goes_to(same: bool, partition: int | None) -> None:
    assert to_record(embedded(), target(same_partitions=same), 1.0)[1].partition == partition
    assert to_record(Tombstone(SOURCE), target(same_partitions=same), 1.0)[1].partition == partition


def test_the_inputs_headers_pass_through_and_ours_replace_older_ones_of_the_same_name() -> None:
    _, record = to_record(embedded(), target(), 1.0)
    assert record.headers == [("trace", b"1"), ("embedding-contract", b"v1:abc"), ("embedding-encoding", b"json")]


def test_headers_of_a_binary_output_that_is_an_input_are_not_taken_for_the_new_outputs_own() -> None:
    chained = SOURCE._replace(
        headers=[("embedding-encoding", b"binary"), ("embedding-field-input_source", b'"old"'), ("trace", b"1")]
    )
    outcome = Embedded(TextMessage(chained, "a", "a", None, None), np.zeros(3, dtype=np.float32), truncated=False)
    _, record = to_record(outcome, target(), 1.0)
    assert record.headers == [("trace", b"1"), ("embedding-contract", b"v1:abc"), ("embedding-encoding", b"json")]


def test_a_binary_output_is_the_vectors_bytes_and_headers_for_the_rest() -> None:
    _, record = to_record(embedded(), target(encoding="binary"), 12.5)
    assert record.value == bytes(12)
    assert record.headers == [
        ("trace", b"1"),
        ("embedding-contract", b"v1:abc"),
        ("embedding-encoding", b"binary"),
        ("embedding-field-id", b'"a"'),
        ("embedding-field-original_text", b'"a"'),
        ("embedding-field-model_name", b'"m"'),
        ("embedding-field-timestamp", b"1.0"),
        ("embedding-field-embedding_dimension", b"3"),
        ("embedding-field-processing_timestamp", b"12.5"),
    ]


def test_the_size_of_an_output_counts_its_headers() -> None:
    assert OutputRecord("t", b"kk", b"vvv", [("name", b"12345"), ("n", None)], None).size == 2 + 3 + 9 + 1


def test_a_cut_text_is_marked() -> None:
    headers = dict(to_record(embedded(truncated=True), target(), 1.0)[1].headers)
    assert headers["embedding-overflow"] == b"truncated"


def test_a_tombstone_passes_under_the_same_key() -> None:
    _, record = to_record(Tombstone(SOURCE), target(), 1.0)
    assert (record.topic, record.key, record.value) == ("vectors", b"k", None)
    assert record.headers == SOURCE.headers


def test_a_dead_letter_is_the_original_and_connects_error_headers() -> None:
    rejection = Rejection(SOURCE, Stage.PARSE, DeadLetterReason.TEXT_MISSING, "text: missing")
    record = dead_letter(rejection, target())
    assert (record.topic, record.key, record.value) == ("vectors-deadletter", SOURCE.key, SOURCE.value)
    assert record.headers == [
        *SOURCE.headers,
        ("__connect.errors.topic", b"texts"),
        ("__connect.errors.partition", b"2"),
        ("__connect.errors.offset", b"42"),
        ("__connect.errors.stage", b"VALUE_CONVERTER"),
        ("__connect.errors.exception.class.name", b"TextMissing"),
        ("__connect.errors.exception.message", b"text: missing"),
    ]


def test_a_dead_letter_too_large_for_its_topic_loses_its_value_then_all_but_the_error_headers() -> None:
    rejection = Rejection(SOURCE, Stage.PARSE, DeadLetterReason.TEXT_MISSING, "text: missing")
    whole = dead_letter(rejection, target())
    smaller = smaller_dead_letter(whole)
    assert smaller is not None
    assert (smaller.key, smaller.value, smaller.headers) == (whole.key, None, whole.headers)
    smallest = smaller_dead_letter(smaller)
    assert smallest is not None
    assert (smallest.key, smallest.value) == (None, None)
    assert smallest.headers == whole.headers[len(SOURCE.headers) :]
    assert smaller_dead_letter(smallest) is None


def test_an_output_that_its_topic_refuses_becomes_a_dead_letter_of_the_original() -> None:
    rejection = too_large(embedded(), 2_000_000)
    assert (rejection.record, rejection.reason) == (SOURCE, DeadLetterReason.OUTPUT_TOO_LARGE)
    assert "2000000 bytes" in rejection.message


@pytest.mark.parametrize("encoding", ["json", "base64", "binary"])
def test_an_output_that_cannot_be_written_as_json_becomes_a_dead_letter(encoding: Encoding) -> None:
    nested: list[Any] = []
    for _ in range(300):
        nested = [nested]
    unwritable = Embedded(TextMessage(SOURCE, "a", "a", nested, None), np.zeros(3, dtype=np.float32), truncated=False)
    outcome, record = to_record(unwritable, target(encoding=encoding), 1.0)
    assert isinstance(outcome, Rejection)
    assert outcome.reason is DeadLetterReason.OUTPUT_INVALID
    assert (record.topic, record.value) == ("vectors-deadletter", SOURCE.value)

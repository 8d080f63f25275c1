"""Outcomes to the records that say them: outputs, tombstones, dead letters. Pure."""

from dataclasses import dataclass
from typing import NamedTuple

import orjson

from embedding_service.contract.headers import ERROR_PREFIX, Headers, Stage, dead_letter_headers, output_headers
from embedding_service.contract.outputs import Encoding
from embedding_service.contract.reasons import DeadLetterReason
from embedding_service.records import (
    Embedded,
    InputRecord,
    Outcome,
    Rejection,
    Tombstone,
    encode,
    output_fields,
    output_key,
    record_size,
)


class OutputRecord(NamedTuple):
    """A record to produce; ``partition`` ``None`` leaves it to the partitioner."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int | None

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        return record_size(self.key, self.value, self.headers)

    @property
    def batch_bytes(self) -> int:
        """Bytes, at most, of a batch of this record alone: Kafka's format adds 61, and the lengths of all parts."""
        return self.size + 100 + 10 * len(self.headers)


@dataclass(frozen=True, slots=True)
class Target:
    """Where outputs go and what they say.

    ``same_partitions``: input and output topic have as many partitions. ``max_batch_bytes``: what both topics took when
    they were asked; ``None`` where they couldn't be.
    """

    output_topic: str
    dead_letter_topic: str
    model_name: str
    contract: str
    encoding: Encoding
    include_text: bool
    same_partitions: bool
    max_batch_bytes: int | None = None


def to_record(outcome: Outcome, target: Target, now: float) -> tuple[Outcome, OutputRecord]:
    """The record to produce for an outcome, and the outcome: another one where its output can't be written.

    ``now`` in seconds since the epoch.
    """
    if not isinstance(outcome, Rejection):
        try:
            return outcome, _output(outcome, target, now)
        except orjson.JSONEncodeError as error:
            # A passed-through field that was read but can't be written: nested too deep.
            outcome = Rejection(outcome.record, Stage.PRODUCE, DeadLetterReason.OUTPUT_INVALID, str(error))
    return outcome, dead_letter(outcome, target)


def _output(outcome: Embedded | Tombstone, target: Target, now: float) -> OutputRecord:
    source = outcome.record
    partition = source.partition if target.same_partitions else None
    if isinstance(outcome, Tombstone):
        return OutputRecord(target.output_topic, source.key, None, source.headers, partition)
    fields = output_fields(outcome, target.model_name, now, include_text=target.include_text)
    value, more = encode(fields, target.encoding)
    headers = output_headers(source.headers, target.contract, target.encoding, more, truncated=outcome.truncated)
    return OutputRecord(target.output_topic, output_key(outcome.message), value, headers, partition)


def dead_letter(rejection: Rejection, target: Target) -> OutputRecord:
    """The original key, value and headers, and what was wrong."""
    source = rejection.record
    headers = dead_letter_headers(
        source.headers,
        topic=source.topic,
        partition=source.partition,
        offset=source.offset,
        stage=rejection.stage,
        error=rejection.reason,
        message=rejection.message,
    )
    return OutputRecord(target.dead_letter_topic, source.key, source.value, headers, None)


def smaller_dead_letter(record: OutputRecord) -> OutputRecord | None:
    """A dead letter that its topic can't take, made smaller: without its value, then the error headers alone.

    These say where the original lies. ``None`` where nothing is left to leave out.
    """
    if record.value is not None:
        return record._replace(value=None)
    errors = [header for header in record.headers if header[0].startswith(ERROR_PREFIX)]
    smaller = record._replace(key=None, headers=errors)
    return smaller if smaller != record else None


def too_large(outcome: Outcome, size: int) -> Rejection:
    """What becomes of an outcome whose output the topic refuses; ``size`` is the output's, in bytes."""
    record: InputRecord = outcome.record
    return Rejection(
        record,
        Stage.PRODUCE,
        DeadLetterReason.OUTPUT_TOO_LARGE,
        f"the output of {size} bytes is over the output topic's max.message.bytes",
    )

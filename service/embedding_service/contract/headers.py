"""Kafka record headers: the names, and which headers an output or a dead letter carries.

The dead-letter names are those of Kafka Connect's ``errors.deadletterqueue.context.headers.enable``, so that tools
made for Connect read ours.
"""

from collections.abc import Sequence
from enum import StrEnum

Headers = Sequence[tuple[str, bytes | None]]

CONTRACT = "embedding-contract"
OVERFLOW = "embedding-overflow"
OVERFLOW_TRUNCATED = b"truncated"
ENCODING = "embedding-encoding"
# Before the name of a field of the output, whose value is JSON.
FIELD_PREFIX = "embedding-field-"

ERROR_PREFIX = "__connect.errors."
ERROR_TOPIC = ERROR_PREFIX + "topic"
ERROR_PARTITION = ERROR_PREFIX + "partition"
ERROR_OFFSET = ERROR_PREFIX + "offset"
ERROR_STAGE = ERROR_PREFIX + "stage"
ERROR_CLASS = ERROR_PREFIX + "exception.class.name"
ERROR_MESSAGE = ERROR_PREFIX + "exception.message"


class Stage(StrEnum):
    """Where a record failed, in Kafka Connect's words."""

    HEADERS = "HEADER_CONVERTER"
    PARSE = "VALUE_CONVERTER"
    EMBED = "TRANSFORMATION"
    PRODUCE = "KAFKA_PRODUCE"


def output_headers(
    source: Headers, contract: str, encoding: str, fields: Headers, *, truncated: bool
) -> list[tuple[str, bytes | None]]:
    """Headers of an output record: the input's, in order, then ours in place of any of the same name.

    ``fields`` are those that say what the value doesn't. The input may itself be an output.
    """
    passed = [header for header in source if not _is_ours(header[0])]
    passed += [(CONTRACT, contract.encode()), (ENCODING, encoding.encode()), *fields]
    if truncated:
        passed.append((OVERFLOW, OVERFLOW_TRUNCATED))
    return passed


def dead_letter_headers(
    source: Headers, *, topic: str, partition: int, offset: int, stage: Stage, error: str, message: str
) -> list[tuple[str, bytes | None]]:
    """Headers of a dead letter: the input's unchanged, then the Connect error context."""
    return [
        *source,
        (ERROR_TOPIC, topic.encode()),
        (ERROR_PARTITION, str(partition).encode()),
        (ERROR_OFFSET, str(offset).encode()),
        (ERROR_STAGE, stage.encode()),
        (ERROR_CLASS, error.encode()),
        (ERROR_MESSAGE, message.encode()),
    ]


def _is_ours(name: str) -> bool:
    return name in (CONTRACT, OVERFLOW, ENCODING) or name.startswith(FIELD_PREFIX)

"""Input bytes to messages, and vectors to output bytes. Pure: no client, no clock.

What can't be embedded becomes a ``Rejection``, never an exception: one bad record must not stop the stream.
"""

import math
from base64 import b64encode
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from embedding_service.contract.headers import FIELD_PREFIX, Headers, Stage
from embedding_service.contract.outputs import Encoding
from embedding_service.contract.reasons import DeadLetterReason

Vector = NDArray[np.float32]


# Tuples, here and where else one is made for each message: a frozen dataclass takes several times as long.
class InputRecord(NamedTuple):
    """A consumed record.

    ``timestamp`` is Kafka's, in seconds since the epoch; ``received`` is this process' monotonic clock in seconds;
    ``assignment`` tells assignments of the same partition apart.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: float
    received: float = 0.0
    assignment: int = 0

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        return record_size(self.key, self.value, self.headers)


class TextMessage(NamedTuple):
    """A text to embed. ``timestamp`` and ``source`` are the input's, as they were, or ``None``."""

    record: InputRecord
    id: str | int
    text: str
    timestamp: Any
    source: Any


class Tombstone(NamedTuple):
    """A null value: deletes its key in a compacted topic, so it passes through."""

    record: InputRecord


class Rejection(NamedTuple):
    """A record that can't be embedded, and what was wrong with it."""

    record: InputRecord
    stage: Stage
    reason: DeadLetterReason
    message: str


class Embedded(NamedTuple):
    """A text and its vector, shape (dimension,)."""

    message: TextMessage
    vector: Vector
    truncated: bool

    @property
    def record(self) -> InputRecord:
        """The record that the text came in."""
        return self.message.record


Parsed = TextMessage | Tombstone | Rejection
Outcome = Embedded | Tombstone | Rejection


def parse(record: InputRecord, text_field: str = "text", id_field: str = "id") -> Parsed:
    """What a record holds. Only the text is necessary; unknown fields do no harm."""
    if record.value is None:
        if record.key is None:
            # It deletes nothing, and a compacted topic refuses it.
            return _reject(record, DeadLetterReason.TOMBSTONE_WITHOUT_KEY, "a null value without a key")
        return Tombstone(record)
    try:
        document = orjson.loads(record.value)
    except orjson.JSONDecodeError as error:
        return _reject(record, *_undecodable(record.value, error))
    if not isinstance(document, dict):
        return _reject(record, DeadLetterReason.NOT_AN_OBJECT, f"the value is {_kind(document)}, not a JSON object")
    text = document.get(text_field)
    if text is None:
        return _reject(record, DeadLetterReason.TEXT_MISSING, f"{text_field}: missing; expected a string")
    if not isinstance(text, str):
        return _reject(record, DeadLetterReason.TEXT_NOT_A_STRING, f"{text_field}: {_kind(text)}; expected a string")
    identity = document.get(id_field)
    if identity is None:
        identity = f"{record.topic}-{record.partition}-{record.offset}"
    elif isinstance(identity, bool) or not isinstance(identity, (str, int)):
        return _reject(
            record,
            DeadLetterReason.INVALID_ID,
            f"{id_field}: {_kind(identity)}; expected a string or a whole number of at most 64 bits",
        )
    return TextMessage(record, identity, text, document.get("timestamp"), document.get("source"))


def output_key(message: TextMessage) -> bytes:
    """The input's key, or the id where there is none."""
    return message.record.key if message.record.key is not None else str(message.id).encode()


def output_fields(
    embedded: Embedded, model_name: str, processing_timestamp: float, *, include_text: bool
) -> dict[str, Any]:
    """The original service's nine fields; ``processing_timestamp`` in seconds since the epoch."""
    message = embedded.message
    return {
        "id": message.id,
        "original_text": message.text if include_text else None,
        "embedding": embedded.vector,
        "model_name": model_name,
        "timestamp": message.record.timestamp if message.timestamp is None else message.timestamp,
        "embedding_dimension": len(embedded.vector),
        "processing_timestamp": processing_timestamp,
        "input_timestamp": message.timestamp,
        "input_source": message.source,
    }


def encode(fields: dict[str, Any], encoding: Encoding) -> tuple[bytes, Headers]:
    """An output's value, and headers with what that doesn't say. Raises ``orjson.JSONEncodeError``."""
    if encoding == "json":
        return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY), ()
    vector = fields["embedding"]
    if encoding == "base64":
        return orjson.dumps({**fields, "embedding": as_base64(vector)}), ()
    headers = [
        (FIELD_PREFIX + name, orjson.dumps(value))
        for name, value in fields.items()
        if name != "embedding" and value is not None
    ]
    return _little_endian(vector), headers


def as_base64(vector: Vector) -> str:
    """Its bytes as little-endian float32, in Base64."""
    return b64encode(_little_endian(vector)).decode()


def all_finite(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Of vectors, shape (texts, dimension), which are finite; shape (texts,)."""
    # Nearly always all are, and one sum tells: each call on an array gives the interpreter's lock away, and the thread
    # that keeps the model busy would wait for it.
    with np.errstate(invalid="ignore", over="ignore"):
        total = vectors.sum()
    if math.isfinite(total):
        return np.ones(len(vectors), dtype=np.bool_)
    finite: NDArray[np.bool_] = np.isfinite(np.abs(vectors).max(axis=1))
    return finite


def _little_endian(vector: Vector) -> bytes:
    return vector.astype("<f4", copy=False).tobytes()


def record_size(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Bytes of key, value and headers."""
    size = len(key or b"") + len(value or b"")
    # No generator: most records have no headers, and one takes longer than all the rest.
    for name, found in headers:
        size += len(name) + len(found or b"")
    return size


def _reject(record: InputRecord, reason: DeadLetterReason, message: str) -> Rejection:
    return Rejection(record, Stage.PARSE, reason, message)


def _undecodable(value: bytes, error: orjson.JSONDecodeError) -> tuple[DeadLetterReason, str]:
    try:
        value.decode()
    except UnicodeDecodeError as undecodable:
        return DeadLetterReason.INVALID_UTF8, f"byte {undecodable.start} is not UTF-8: {undecodable.reason}"
    return DeadLetterReason.INVALID_JSON, str(error)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")

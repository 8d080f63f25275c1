"""Reading an output record, whichever its encoding: what the command lines show of it."""

import json
import struct
from base64 import b64decode
from typing import Any, Literal

from embedding_service.contract.headers import ENCODING, FIELD_PREFIX, Headers

Encoding = Literal["json", "base64", "binary"]

FIELDS = (
    "id",
    "original_text",
    "embedding",
    "model_name",
    "timestamp",
    "embedding_dimension",
    "processing_timestamp",
    "input_timestamp",
    "input_source",
)


def as_json(value: bytes, headers: Headers) -> bytes:
    """The value of an output as JSON: itself, or in the binary encoding the object that value and headers make up.

    What isn't an output, or was made by somebody else, stays as it is.
    """
    if dict(headers).get(ENCODING) != b"binary":
        return value
    try:
        found: dict[str, Any] = {name: json.loads(text) for name, text in _fields(headers)}
        found["embedding"] = _floats(value)
        if found.get("embedding_dimension") != len(found["embedding"]):
            return value
        document = {name: found.get(name) for name in FIELDS}
        return json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError, struct.error):
        return value


def vector(document: dict[str, Any]) -> list[float]:
    """The vector of an output that is read from JSON."""
    embedding = document["embedding"]
    return _floats(b64decode(embedding)) if isinstance(embedding, str) else embedding


def _fields(headers: Headers) -> list[tuple[str, bytes]]:
    return [(name.removeprefix(FIELD_PREFIX), text or b"") for name, text in headers if name.startswith(FIELD_PREFIX)]


def _floats(value: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(value) // 4}f", value))

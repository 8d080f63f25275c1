"""``POST /v1/embeddings`` in OpenAI's shape: bytes to a query or a refusal, vectors to bytes. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from embedding_service.records import Vector, as_base64

# OpenAI's own bound; its clients cut longer lists into requests of that many.
MAX_TEXTS = 2048
# As many texts of a KiB: more than most models take of one.
MAX_BODY_BYTES = 2 * 1024 * 1024

_FIELDS = frozenset({"input", "model", "encoding_format", "dimensions", "user"})
_SHOWN_CHARACTERS = 200


class Refusal(Exception):  # noqa: N818 - an answer, not a fault of this program
    """An answer that isn't vectors: an HTTP status, and what OpenAI's error body says."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str = "invalid_request_error",
        retry_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.kind = kind
        self.retry_seconds = retry_seconds

    @classmethod
    def of_server(cls, status: int, message: str, code: str, retry_seconds: int | None = None) -> "Refusal":
        """For what is no fault of the request."""
        return cls(status, message, code=code, kind="server_error", retry_seconds=retry_seconds)

    def body(self) -> bytes:
        """OpenAI's error body."""
        return orjson.dumps(
            {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}
        )


@dataclass(frozen=True, slots=True)
class Query:
    """Texts to embed, and how their vectors are to be written."""

    texts: list[str]
    as_base64: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A vector for each text, and how many tokens these had, without padding."""

    vectors: Sequence[Vector]
    tokens: int


def parse(body: bytes, model: str) -> Query:
    """What is asked for. Raises ``Refusal``; ``model`` is the only one that is here."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"the body isn't JSON in UTF-8: {error}", code="invalid_json") from None
    if not isinstance(document, dict):
        raise Refusal(400, f"the body is {_type(document)}; expected an object with model and input")
    for name in sorted(document.keys() - _FIELDS):
        raise _invalid(name[:_SHOWN_CHARACTERS], "no such field", f"only {', '.join(sorted(_FIELDS))}")
    _check_model(document, model)
    if document.get("dimensions") is not None:
        raise _invalid(
            "dimensions",
            "the vectors are those of the output topic, and a shorter one can't be compared with them",
            "a request without it",
        )
    if not isinstance(document.get("user"), str | None):
        raise _invalid("user", _type(document["user"]), "a string")
    return Query(_texts(document), as_base64=_is_base64(document))


def answer(query: Query, found: Answer, model: str) -> bytes:
    """OpenAI's body."""
    vectors = [as_base64(vector) for vector in found.vectors] if query.as_base64 else found.vectors
    return orjson.dumps(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
            ],
            "model": model,
            "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _check_model(document: Mapping[str, Any], model: str) -> None:
    asked = document.get("model")
    if not isinstance(asked, str):
        raise _invalid("model", _type(asked) if "model" in document else "missing", f"'{model}'")
    if asked != model:
        raise Refusal(
            404,
            f"The model `{asked[:_SHOWN_CHARACTERS]}` does not exist here; expected `{model}`",
            param="model",
            code="model_not_found",
        )


def _is_base64(document: Mapping[str, Any]) -> bool:
    encoding = document.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        shown = repr(encoding[:_SHOWN_CHARACTERS]) if isinstance(encoding, str) else _type(encoding)
        raise _invalid("encoding_format", shown, "float or base64")
    return encoding == "base64"


def _texts(document: Mapping[str, Any]) -> list[str]:
    found = document.get("input")
    if isinstance(found, str):
        return [found]
    expected = f"a string, or a list of 1 to {MAX_TEXTS} strings"
    if not isinstance(found, list):
        raise _invalid("input", _type(found) if "input" in document else "missing", expected)
    if not found:
        raise _invalid("input", "an empty list", expected)
    if isinstance(found[0], int | list) and not isinstance(found[0], bool):
        raise _invalid("input", "token ids; those of OpenAI's models mean nothing to this one", "texts as strings")
    if len(found) > MAX_TEXTS:
        raise _invalid("input", f"a list of {len(found)}", expected)
    for index, text in enumerate(found):
        if not isinstance(text, str):
            raise _invalid(f"input[{index}]", _type(text), "a string")
    return found


def _invalid(param: str, what: str, expected: str) -> Refusal:
    return Refusal(400, f"{param}: {what}; expected {expected}", param=param)


def _type(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")

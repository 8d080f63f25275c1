"""OpenAI's requests and answers, without a server or a model."""

import base64
import json
from typing import Any

import numpy as np
import pytest

from embedding_service.queries import MAX_TEXTS, Answer, Query, Refusal, answer, parse

MODEL = "acme/model"


def refusal(body: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse(body, MODEL)
    assert json.loads(caught.value.body())["error"].keys() == {"message", "type", "param", "code"}
    return caught.value


def request(**fields: Any) -> bytes:
    return json.dumps({"model": MODEL, "input": "a"} | fields).encode()


@pytest.mark.parametrize(
    ("fields", "query"),
    [
        pytest.param({}, Query(["a"], as_base64=False), id="one text"),
        pytest.param({"input": ["a", "b"]}, Query(["a", "b"], as_base64=False), id="several texts"),
        pytest.param({"input": ""}, Query([""], as_base64=False), id="an empty text, which a topic may hold too"),
        pytest.param({"input": ["ü"] * MAX_TEXTS}, Query(["ü"] * MAX_TEXTS, as_base64=False), id="as many as may be"),
        pytest.param({"encoding_format": "float"}, Query(["a"], as_base64=False), id="float"),
        pytest.param({"encoding_format": "base64"}, Query(["a"], as_base64=True), id="base64"),
        pytest.param({"user": "alice"}, Query(["a"], as_base64=False), id="a user, who is of no account"),
        pytest.param({"user": None, "encoding_format": None, "dimensions": None}, Query(["a"], as_base64=False), id="nulls mean the defaults"),
    ],
)  # fmt: skip
def test_what_openai_takes_is_taken(fields: dict[str, Any], query: Query) -> None:
    assert parse(request(**fields), MODEL) == query


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"input": None}, "input", "input: null; expected a string, or a list of 1 to 2048 strings"),
        ({"input": 7}, "input", "input: a number; expected a string, or a list of 1 to 2048 strings"),
        ({"input": {"text": "a"}}, "input", "input: an object; expected a string, or a list of 1 to 2048 strings"),
        ({"input": []}, "input", "input: an empty list; expected a string, or a list of 1 to 2048 strings"),
        ({"input": ["a"] * 2049}, "input", "input: a list of 2049; expected a string, or a list of 1 to 2048 strings"),
        ({"input": ["a", None]}, "input[1]", "input[1]: null; expected a string"),
        ({"input": ["a", 7]}, "input[1]", "input[1]: a number; expected a string"),
        ({"input": [True]}, "input[0]", "input[0]: a boolean; expected a string"),
        ({"input": [1, 2] * 2000}, "input", "input: token ids; those of OpenAI's models mean nothing to this one; expected texts as strings"),
        ({"input": [[1, 2]]}, "input", "input: token ids; those of OpenAI's models mean nothing to this one; expected texts as strings"),
        ({"model": None}, "model", "model: null; expected 'acme/model'"),
        ({"model": 7}, "model", "model: a number; expected 'acme/model'"),
        ({"encoding_format": "int8"}, "encoding_format", "encoding_format: 'int8'; expected float or base64"),
        ({"encoding_format": ["float"]}, "encoding_format", "encoding_format: a list; expected float or base64"),
        ({"dimensions": 64}, "dimensions", "dimensions: the vectors are those of the output topic, and a shorter one can't be compared with them; expected a request without it"),
        ({"user": 7}, "user", "user: a number; expected a string"),
        ({"prompt": "query: "}, "prompt", "prompt: no such field; expected only dimensions, encoding_format, input, model, user"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str, says: str) -> None:
    found = refusal(request(**fields))
    assert (found.status, found.kind, found.param, found.message) == (400, "invalid_request_error", param, says)


def test_another_model_is_not_found_as_openai_says_it() -> None:
    found = refusal(request(model="text-embedding-3-small"))
    assert (found.status, found.code) == (404, "model_not_found")
    assert found.message == "The model `text-embedding-3-small` does not exist here; expected `acme/model`"


@pytest.mark.parametrize("name", ["model", "input"])
def test_a_field_that_is_missing_is_named(name: str) -> None:
    document = {"model": MODEL, "input": "a"}
    del document[name]
    assert refusal(json.dumps(document).encode()).message.startswith(f"{name}: missing; expected ")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"input": "\\ud800"}', b'{"input": NaN}', b"[" * 5000, b'{"input": "\x00"}'],
    ids=["empty", "cut off", "not UTF-8", "half a character", "NaN", "deep", "a control character"],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    found = refusal(body)
    assert (found.status, found.code) == (400, "invalid_json")


@pytest.mark.parametrize("body", [b"[]", b"null", b'"a"', b"7"])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    assert refusal(body).message.endswith("; expected an object with model and input")


def test_a_long_name_is_not_repeated_at_length() -> None:
    for fields in ({"model": "m" * 10_000}, {"x" * 10_000: 1}, {"encoding_format": "f" * 10_000}):
        assert len(refusal(request(**fields)).body()) < 1000


def test_base64_and_floats_are_the_same_vectors() -> None:
    vectors = np.array([[0.1, -2.5e-8, 1.0], [3.0, 0.0, -1.0]], dtype=np.float32)
    found = Answer(list(vectors), tokens=9)
    floats = json.loads(answer(Query(["a", "b"], as_base64=False), found, MODEL))
    encoded = json.loads(answer(Query(["a", "b"], as_base64=True), found, MODEL))

    assert [np.array(one["embedding"], dtype=np.float32).tolist() for one in floats["data"]] == vectors.tolist()
    decoded = [np.frombuffer(base64.b64decode(one["embedding"]), dtype="<f4") for one in encoded["data"]]
    assert [vector.tolist() for vector in decoded] == vectors.tolist()
    for document in (floats, encoded):
        assert (document["object"], document["model"]) == ("list", MODEL)
        assert [(one["object"], one["index"]) for one in document["data"]] == [("embedding", 0), ("embedding", 1)]
        assert document["usage"] == {"prompt_tokens": 9, "total_tokens": 9}

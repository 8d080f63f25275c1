"""Outputs in each encoding, through a real topic, read by the very readers of the documentation."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Message

from embedding_service.contract.outputs import Encoding, as_json
from embedding_service.contract.outputs import vector as vector_of
from embedding_service.kafka_cli import main
from embedding_service.messages import headers_of
from embedding_service.pipeline import Pipeline
from kafka_helpers import create_topics, read_all
from service_fixtures import Stream

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "reading.md"
READERS = dict(re.findall(r"^## (\w+)\n.*?^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL))
ENCODINGS: tuple[Encoding, ...] = ("json", "base64", "binary")
SOURCE = '{"id": 7, "text": "h\u00e9llo \\n 🌍", "timestamp": "noon", "source": {"of": [1, null]}}'.encode()


class ReadEnoughError(Exception):
    """Ends a reader, which would go on for ever."""


def read_by_the_docs(encoding: Encoding, stream: Stream, topic: str, count: int) -> dict[Any, Any]:
    """Id and vector as a reader of the page prints them."""
    (code,) = (code for heading, code in READERS.items() if heading.lower() == encoding)
    for example, real in (
        ("localhost:9092", stream.bootstrap_servers),
        ("embeddings", topic),
        ("reader", f"{topic}-reader"),
    ):
        assert code.count(f'"{example}"') == 1
        code = code.replace(f'"{example}"', f'"{real}"')
    found: dict[Any, Any] = {}

    def take(identity: Any, vector: Any) -> None:
        found[identity] = vector
        if len(found) == count:
            raise ReadEnoughError

    names: dict[str, Any] = {"print": take}
    try:
        with pytest.raises(ReadEnoughError):
            exec(code, names)
    finally:
        names["consumer"].close()
    return found


def test_the_page_has_a_reader_of_ten_lines_for_each_encoding() -> None:
    assert {heading.lower() for heading in READERS} == set(ENCODINGS)
    lines = {heading: len([line for line in code.splitlines() if line]) for heading, code in READERS.items()}
    assert lines == dict.fromkeys(READERS, 10)


def test_the_readers_of_the_page_get_the_same_vectors_from_each_encoding(
    stream: Stream, start_pipeline: Callable[..., Pipeline]
) -> None:
    stream.feed([None], key=b"deleted")
    stream.feed_texts(["a text", "another, of more words"])
    stream.feed([SOURCE, b"no JSON"], key=b"k", headers=[("trace", b"1")])
    found = {}
    for encoding in ENCODINGS:
        topic = f"{stream.output}-{encoding}"
        create_topics(stream.bootstrap_servers, [topic])
        start_pipeline(
            stream.settings(
                kafka={"output_topic": topic, "consumer_group": topic, "dead_letter_topic": stream.dead_letter},
                output={"encoding": encoding},
            )
        )
        found[encoding] = read_by_the_docs(encoding, stream, topic, 3)
    assert set(found["json"]) == {"t-0", "t-1", 7}
    for encoding in ENCODINGS:
        assert {type(vector[0]) for vector in found[encoding].values()} == {np.float32}
        for identity, vector in found["json"].items():
            # Texts that go through the model together differ from run to run, and with them the last digits.
            assert np.allclose(found[encoding][identity], vector, atol=1e-6)
    letters = stream.dead_letters(len(ENCODINGS))
    assert [(letter.key(), letter.value()) for letter in letters] == [(b"k", b"no JSON")] * len(ENCODINGS)


def headers(message: Message) -> dict[str, bytes | None]:
    return dict(headers_of(message) or [])


def test_the_encoding_can_be_changed_and_each_record_of_the_topic_says_its_own(
    stream: Stream, start_pipeline: Callable[..., Pipeline], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for number, encoding in enumerate(ENCODINGS, start=1):
        pipeline = start_pipeline(stream.settings(output={"encoding": encoding}))
        stream.feed([SOURCE], key=encoding.encode(), headers=[("trace", b"1"), ("embedding-encoding", b"wrong")])
        stream.outputs(number)
        stream.wait_caught_up()
        pipeline.stop()
        pipeline.join()
        assert not pipeline.failure.occurred()
    outputs = {(message.key() or b"").decode(): message for message in stream.outputs()}
    documents = {}
    for key, message in outputs.items():
        names = [name for name, _ in headers_of(message) or []]
        assert len(set(names)) == len(names)
        assert headers(message)["embedding-encoding"] == key.encode()
        assert headers(message)["trace"] == b"1"
        documents[key] = _document(message)
    (plain, *others) = (documents[encoding] for encoding in ENCODINGS)
    assert plain["original_text"] == "h\u00e9llo \n 🌍"
    for other in others:
        assert np.allclose(vector_of(other), vector_of(plain), atol=1e-6)
        assert _comparable(other) == _comparable(plain)

    assert main(["read", stream.output, "--max-messages", "3", "--bootstrap-servers", stream.bootstrap_servers]) == 0
    shown = [_loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert sorted(shown, key=str) == sorted(documents.values(), key=str)


def test_a_roundtrip_finds_its_embedding_among_binary_outputs(
    stream: Stream, start_pipeline: Callable[..., Pipeline], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    start_pipeline(stream.settings(output={"encoding": "binary"}))
    assert (
        main(["roundtrip", stream.input, stream.output, "a text", "--bootstrap-servers", stream.bootstrap_servers]) == 0
    )
    assert _loads(capfdbinary.readouterr().out)["embedding_dimension"] == 384


def _document(message: Message) -> dict[str, Any]:
    return _loads(as_json(message.value() or b"", headers_of(message) or []))


def _loads(text: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text)
    return document


def _comparable(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "embedding": None, "processing_timestamp": None}


def test_a_text_in_a_header_that_makes_the_output_too_large_is_dead_lettered(
    stream: Stream, start_pipeline: Callable[..., Pipeline]
) -> None:
    topic = f"{stream.output}-small"
    create_topics(stream.bootstrap_servers, [topic], config={"max.message.bytes": "5000"})
    start_pipeline(
        stream.settings(
            kafka={"output_topic": topic, "dead_letter_topic": stream.dead_letter}, output={"encoding": "binary"}
        )
    )
    text = "".join(map(chr, range(0x4E00, 0x5600)))
    stream.feed_texts([text, "short"])
    (letter,) = stream.dead_letters(1)
    found = headers(letter)
    assert found["__connect.errors.exception.class.name"] == b"OutputTooLarge"
    said = re.match(rb"the output of (\d+) bytes", found["__connect.errors.exception.message"] or b"")
    assert said
    assert int(said[1]) > 5000 + len(text)
    assert len(read_all(stream.bootstrap_servers, topic, count=1)) == 1

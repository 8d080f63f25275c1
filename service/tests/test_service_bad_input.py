"""What isn't a clean record: embedded, passed through or dead-lettered, and the stream goes on."""

import base64
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from confluent_kafka import Message
from kafka import KafkaProducer

from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.encoders.protocol import Computed, LoadedModel, Tokenized
from embedding_service.pipeline import Pipeline
from kafka_helpers import Record, alter_topic, create_topics, produce, read_all
from service_fixtures import STREAM_SECONDS, Stream
from waiting import wait_until

pytestmark = pytest.mark.slow

GOOD = json.dumps({"id": "good", "text": "a clean record"}).encode()
BROKER_MAX = 1_048_588
# The broker's limit is on what is sent, compressed.
INCOMPRESSIBLE = base64.b64encode(random.Random(1).randbytes(785_800)).decode()

# value → what becomes of it: the reason of a dead letter, or None where it is embedded.
CASES = {
    "not JSON": (b"hello", "InvalidJson"),
    "JSON that is no object": (b'["a"]', "NotAnObject"),
    "no text": (b'{"id": "1"}', "TextMissing"),
    "a text that is a number": (b'{"text": 5}', "TextNotAString"),
    "an empty text": (b'{"text": ""}', None),
    "invalid UTF-8": (b'{"text": "\xc3\x28"}', "InvalidUtf8"),
    "a text of 1 MB": (json.dumps({"text": "lorem ipsum " * 83_333}).encode(), None),
    "unknown fields": (b'{"text": "a", "lang": "en", "tags": [1, {}]}', None),
    "an id that is a number": (b'{"id": 7, "text": "a"}', None),
    "an id that is an object": (b'{"id": {}, "text": "a"}', "InvalidId"),
    "no timestamp and no source": (b'{"id": "n", "text": "a"}', None),
    "a field nested too deep to be written": (
        b'{"text": "a", "source": %s1%s}' % (b"[" * 300, b"]" * 300),
        "OutputInvalid",
    ),
    "an output over the topic's limit": (json.dumps({"text": INCOMPRESSIBLE}).encode(), "OutputTooLarge"),
}


def headers(message: Message) -> dict[str, str]:
    pairs = cast("list[tuple[str, bytes]]", message.headers() or [])
    return {name: value.decode() for name, value in pairs}


def test_each_bad_record_is_told_apart_and_the_counters_add_up(
    stream: Stream, start_pipeline: Callable[..., Pipeline]
) -> None:
    pipeline = start_pipeline()
    sent = {}
    for number, (name, (value, _)) in enumerate(CASES.items()):
        record = Record(stream.input, key=str(number).encode(), value=value, headers=[("trace", name.encode())])
        sent[name] = produce(stream.bootstrap_servers, [record])[0]
    stream.feed([None], key=b"deleted", headers=[("trace", b"a tombstone")])
    stream.feed([GOOD])

    embedded = [name for name, (_, reason) in CASES.items() if reason is None]
    dead = {name: reason for name, (_, reason) in CASES.items() if reason is not None}
    outputs = {headers(message).get("trace", "good"): message for message in stream.outputs(len(embedded) + 2)}
    letters = {headers(message)["trace"]: message for message in stream.dead_letters(len(dead))}

    assert set(outputs) == {*embedded, "a tombstone", "good"}
    assert (outputs["a tombstone"].key(), outputs["a tombstone"].value()) == (b"deleted", None)
    assert json.loads(outputs["an id that is a number"].value() or b"")["id"] == 7
    assert set(letters) == set(dead)
    for name, reason in dead.items():
        letter, source = letters[name], sent[name]
        assert (letter.key(), letter.value()) == (source.key(), CASES[name][0]), "the original, unchanged"
        context = headers(letter)
        assert context["__connect.errors.exception.class.name"] == reason
        assert context["__connect.errors.topic"] == stream.input
        assert context["__connect.errors.partition"] == str(source.partition())
        assert context["__connect.errors.offset"] == str(source.offset())
        assert context["__connect.errors.stage"]
        assert context["__connect.errors.exception.message"]

    stream.wait_caught_up()
    counts = pipeline.metrics.counts()
    assert counts.dead_by_reason == dict.fromkeys(dead.values(), 1)
    assert (counts.embedded, counts.tombstones) == (len(embedded) + 1, 1)
    consumed = pipeline.metrics.registry.get_sample_value("embedding_messages_consumed_total")
    assert counts.embedded + counts.tombstones + len(dead) == len(CASES) + 2 == consumed


def test_a_dead_letter_that_its_topic_cannot_take_keeps_its_headers(
    stream: Stream, start_pipeline: Callable[..., Pipeline]
) -> None:
    create_topics(stream.bootstrap_servers, [stream.dead_letter], config={"max.message.bytes": "10000"})
    start_pipeline()
    stream.feed([random.Random(3).randbytes(100_000), GOOD], key=b"k")
    (letter,) = stream.dead_letters(1)
    assert (letter.key(), letter.value()) == (b"k", None)
    assert headers(letter)["__connect.errors.exception.class.name"] == "InvalidUtf8"
    assert len(stream.outputs(1)) == 1


def test_a_dead_letter_whose_headers_are_too_large_says_at_least_what_was_wrong(
    stream: Stream, start_pipeline: Callable[..., Pipeline]
) -> None:
    create_topics(stream.bootstrap_servers, [stream.dead_letter])
    start_pipeline()
    large = random.Random(4).randbytes(BROKER_MAX - 300)
    stream.feed([b"not JSON"], headers=[("large", large)])
    stream.feed([GOOD])
    (letter,) = stream.dead_letters(1)
    assert (letter.key(), letter.value()) == (None, None)
    assert headers(letter)["__connect.errors.exception.class.name"] == "InvalidJson"
    assert len(stream.outputs(1)) == 1


def test_a_topic_with_a_small_limit_refuses_no_record_because_of_the_batch_it_is_in(
    stream: Stream, start_pipeline: Callable[..., Pipeline]
) -> None:
    output, letters = f"{stream.output}-small", f"{stream.output}-small-letters"
    create_topics(stream.bootstrap_servers, [output, letters], config={"max.message.bytes": "50000"})
    stream.feed_texts([f"text {number}" for number in range(300)])
    stream.feed([b"%d" % number + random.Random(number).randbytes(1_000) for number in range(100)])
    start_pipeline(stream.settings(kafka={"output_topic": output, "dead_letter_topic": letters}))
    assert len({message.key() for message in read_all(stream.bootstrap_servers, output, count=300)}) == 300
    assert all(message.value() for message in read_all(stream.bootstrap_servers, letters, count=100))


def test_a_limit_that_is_lowered_while_a_worker_runs_costs_a_restart_and_dead_letters_nothing(
    stream: Stream, start_pipeline: Callable[..., Pipeline]
) -> None:
    running = start_pipeline()
    alter_topic(stream.bootstrap_servers, stream.output, {"max.message.bytes": "20000"})
    stream.feed_texts([f"text {number}" for number in range(300)])
    wait_until(running.failure.occurred, STREAM_SECONDS, "the batches are taken")
    error = running.failure.error
    assert isinstance(error, Termination)
    assert error.reason is TerminationReason.DELIVERY_FAILED
    assert "its max.message.bytes was lowered while this worker ran" in error.message
    start_pipeline()
    stream.wait_caught_up()
    assert {message.key() for message in stream.outputs()} == {f"t-{number}".encode() for number in range(300)}
    assert stream.dead_letters() == []


def test_a_null_value_without_a_key_does_not_stop_the_stream_into_a_compacted_topic(
    stream: Stream, start_pipeline: Callable[..., Pipeline]
) -> None:
    output = f"{stream.output}-compacted"
    create_topics(stream.bootstrap_servers, [output], config={"cleanup.policy": "compact"})
    start_pipeline(stream.settings(kafka={"output_topic": output, "dead_letter_topic": stream.dead_letter}))
    stream.feed([None])
    stream.feed([GOOD])
    assert headers(stream.dead_letters(1)[0])["__connect.errors.exception.class.name"] == "TombstoneWithoutKey"
    assert len(read_all(stream.bootstrap_servers, output, count=1)) == 1


def test_a_header_name_that_is_not_utf8_does_not_stop_the_stream(
    stream: Stream, start_pipeline: Callable[..., Pipeline]
) -> None:
    class Raw(str):
        """confluent-kafka writes no such name; kafka-python asks the string for its bytes."""

        __slots__ = ()

        def encode(self, *_arguments: object) -> bytes:
            return b"\xff\xfe"

    start_pipeline()
    producer = KafkaProducer(bootstrap_servers=[stream.bootstrap_servers])
    producer.send(stream.input, value=GOOD, headers=[(Raw("name"), b"value")])
    producer.flush()
    producer.close()
    stream.feed([GOOD])
    letter = stream.dead_letters(1)[0]
    assert headers(letter)["__connect.errors.exception.class.name"] == "InvalidHeaders"
    assert letter.value() == GOOD
    assert len(stream.outputs(1)) == 1


def test_the_largest_record_that_the_broker_takes_fits_into_the_dead_letter_topic_that_the_worker_makes(
    stream: Stream, start_pipeline: Callable[..., Pipeline]
) -> None:
    start_pipeline()
    largest = random.Random(2).randbytes(BROKER_MAX - 200)
    stream.feed([largest])
    assert stream.dead_letters(1)[0].value() == largest


def test_a_text_that_breaks_the_model_is_dead_lettered_alone(
    stream: Stream, start_pipeline: Callable[..., Pipeline], model: LoadedModel
) -> None:
    class Allergic:
        """The real model, but for one word: no text is known that breaks it by itself."""

        dimension, max_length = model.encoder.dimension, model.encoder.max_length
        tokenize = staticmethod(model.encoder.tokenize)

        def submit(self, batch: Sequence[Tokenized]) -> Computed:
            if any("poison" in text.text for text in batch):
                raise ValueError("index out of range in self")
            vectors = model.encoder.submit(batch).result()
            vectors[[index for index, text in enumerate(batch) if "infinite" in text.text]] = np.inf
            return Computed(vectors)

    pipeline = start_pipeline(with_model=replace(model, encoder=Allergic()))
    stream.feed_texts(["a", "poison", "b", "infinite", "c"])
    assert {json.loads(m.value() or b"")["original_text"] for m in stream.outputs(3)} == {"a", "b", "c"}
    reasons = {headers(message)["__connect.errors.exception.class.name"] for message in stream.dead_letters(2)}
    assert reasons == {"EncodingFailed", "VectorNotFinite"}
    wait_until(lambda: pipeline.in_flight == 0, 30, "all is committed")
    assert not pipeline.failure.occurred()

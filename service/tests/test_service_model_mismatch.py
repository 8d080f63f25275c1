"""The guard against vectors of two models in one topic: the output topic's last records decide."""

from collections.abc import Callable

import pytest
from confluent_kafka import Producer

from embedding_service.contract.headers import CONTRACT
from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.contract.stats import State
from embedding_service.encoders.protocol import LoadedModel
from embedding_service.pipeline import Pipeline
from kafka_helpers import Record, produce
from service_fixtures import Stream
from worker_process import WorkerProcess

pytestmark = pytest.mark.slow

StartPipeline = Callable[..., Pipeline]
OTHER = "v1:0123456789abcdef0123456789abcdef"


def vector(stream: Stream, contract: str, partition: int = 0) -> Record:
    return Record(stream.output, partition, b"k", b"{}", [(CONTRACT, contract.encode())])


def tombstone(stream: Stream) -> Record:
    return Record(stream.output, 0, b"k", None, [(CONTRACT, b"v1:of-the-input")])


def foreign(stream: Stream) -> Record:
    return Record(stream.output, 0, b"k", b"somebody else's")


def refusal(pipeline: Pipeline) -> Termination:
    error = pipeline.failure.error
    assert isinstance(error, Termination)
    assert error.reason is TerminationReason.MODEL_MISMATCH
    return error


def test_vectors_of_the_same_model_are_gone_on_with(stream: Stream, start_pipeline: StartPipeline) -> None:
    stream.feed_texts(["a"])
    first = start_pipeline()
    stream.wait_caught_up()
    first.stop()
    first.join()
    assert start_pipeline().state is State.RUNNING


def test_vectors_of_another_model_end_the_worker_before_its_first_output(
    stream: Stream, start_pipeline: StartPipeline, model: LoadedModel
) -> None:
    produce(stream.bootstrap_servers, [vector(stream, OTHER)])
    stream.feed_texts(["a"])
    own = model.contract.fingerprint()
    assert refusal(start_pipeline()).message == (
        f"kafka.output_topic: '{stream.output}': holds vectors of another model ({OTHER}; this worker's are {own}); "
        "expected a new output topic for another model, or spec.model.changePolicy: AllowMixed "
        "(model.change_policy: allow_mixed)"
    )
    assert stream.output_count() == 1


def test_allow_mixed_lets_them_be(stream: Stream, start_pipeline: StartPipeline) -> None:
    produce(stream.bootstrap_servers, [vector(stream, OTHER)])
    pipeline = start_pipeline(stream.settings(model={"change_policy": "allow_mixed"}))
    assert pipeline.state is State.RUNNING


def test_one_partition_of_another_model_is_enough(
    stream: Stream, start_pipeline: StartPipeline, model: LoadedModel
) -> None:
    own = model.contract.fingerprint()
    produce(stream.bootstrap_servers, [vector(stream, own, 0), vector(stream, OTHER, 1), vector(stream, own, 2)])
    assert OTHER in refusal(start_pipeline()).message


def test_only_the_last_vector_of_a_partition_counts(
    stream: Stream, start_pipeline: StartPipeline, model: LoadedModel
) -> None:
    produce(stream.bootstrap_servers, [vector(stream, OTHER), vector(stream, model.contract.fingerprint())])
    assert start_pipeline().state is State.RUNNING


def test_tombstones_and_other_producers_records_say_nothing(stream: Stream, start_pipeline: StartPipeline) -> None:
    # A tombstone has its input's headers, and the input may be another pipeline's output.
    produce(stream.bootstrap_servers, [*[foreign(stream)] * 20, *[tombstone(stream)] * 20])
    assert start_pipeline().state is State.RUNNING


def test_what_lies_behind_them_is_found(stream: Stream, start_pipeline: StartPipeline) -> None:
    produce(stream.bootstrap_servers, [vector(stream, OTHER), *[foreign(stream)] * 20, *[tombstone(stream)] * 20])
    assert OTHER in refusal(start_pipeline()).message


def test_what_lies_behind_control_records_is_found(stream: Stream, start_pipeline: StartPipeline) -> None:
    producer = Producer({"bootstrap.servers": stream.bootstrap_servers, "transactional.id": stream.name})
    producer.init_transactions()
    for number in range(10):
        producer.begin_transaction()
        producer.produce(stream.output, b"{}", headers=[(CONTRACT, OTHER.encode())], partition=0)
        producer.flush()
        if number == 0:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    assert OTHER in refusal(start_pipeline()).message


def test_a_header_that_is_no_text_ends_nothing_but_this_worker(stream: Stream, start_pipeline: StartPipeline) -> None:
    produce(stream.bootstrap_servers, [Record(stream.output, 0, b"k", b"{}", [(CONTRACT, b"\xff")])])
    assert "\ufffd" in refusal(start_pipeline()).message


def test_a_worker_whose_model_setting_changed_says_why_it_ends(
    stream: Stream, worker: Callable[..., WorkerProcess], start_pipeline: StartPipeline
) -> None:
    stream.feed_texts(["a"])
    start_pipeline()
    stream.wait_caught_up()
    changed = worker(model={"max_length": 8})
    assert changed.wait() == 1
    assert changed.termination_log.startswith(
        f"ModelMismatch: {changed.config}: kafka.output_topic: '{stream.output}': holds"
    )

"""The loop on a real Kafka: offsets, backpressure, order, brokers that hang, transactions."""

import itertools
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from kafka.partitioner import murmur2

from embedding_service.contract.stats import State
from embedding_service.encoders.protocol import LoadedModel
from embedding_service.first_offsets import commit_end
from embedding_service.pipeline import Pipeline
from kafka_broker import KafkaBroker
from kafka_helpers import committed_offsets, create_topics, end_offsets, group_lag, read_all
from running_pipeline import running
from service_fixtures import PARTITIONS, STREAM_SECONDS, Gate, Stream, make_stream, text_value
from waiting import wait_until
from word_encoder import WordEncoder

pytestmark = pytest.mark.slow

StartPipeline = Callable[..., Pipeline]


def paused(pipeline: Pipeline) -> bool:
    return pipeline.metrics.registry.get_sample_value("embedding_consumer_paused") == 1


def lost(pipeline: Pipeline) -> float | None:
    """How often the group gave the partitions away, since nothing was heard of this member."""
    return pipeline.metrics.registry.get_sample_value("embedding_rebalances_total", {"event": "lost"})


def ids(messages: list[Any]) -> list[str]:
    return [json.loads(message.value())["id"] for message in messages]


def test_the_outputs_of_a_partition_keep_its_order_and_its_number(
    stream: Stream, start_pipeline: StartPipeline
) -> None:
    texts = ["word " * (1 + number * 37 % 90) for number in range(300)]
    texts[150] = "word " * 8_000
    sent = stream.feed_texts(texts)
    start_pipeline()
    received = stream.outputs(300)
    for partition in range(PARTITIONS):
        assert [m.key() for m in received if m.partition() == partition] == [
            m.key() for m in sent if m.partition() == partition
        ]


def test_with_another_number_of_partitions_the_key_decides_as_in_java(
    stream: Stream, start_pipeline: StartPipeline
) -> None:
    output = f"{stream.output}-of-5"
    create_topics(stream.bootstrap_servers, [output], partitions=5)
    start_pipeline(stream.settings(kafka={"output_topic": output}))
    stream.feed_texts([f"text {number}" for number in range(30)])
    received = {message.key(): message.partition() for message in read_all(stream.bootstrap_servers, output, count=30)}
    # The expected numbers are kafka-python's, which has Java's partitioner too.
    assert received == {key: (murmur2(key) & 0x7FFFFFFF) % 5 for key in received}


def test_no_more_than_max_in_flight_is_in_flight_and_the_rest_waits(
    stream: Stream, start_pipeline: StartPipeline, model: LoadedModel
) -> None:
    gate = Gate(model)
    stream.feed_texts([f"text {number}" for number in range(500)])
    pipeline = start_pipeline(stream.settings(engine={"max_in_flight": 10}), with_model=replace(model, encoder=gate))
    assert gate.entered.wait(STREAM_SECONDS)
    # Long enough without room that fetching is paused: nothing is admitted, the group is kept.
    wait_until(lambda: paused(pipeline), STREAM_SECONDS, "fetching is paused")
    assert pipeline.in_flight == 10
    gate.open.set()
    assert len({message.key() for message in stream.outputs(500)}) == 500
    stream.wait_caught_up()
    assert stream.output_count() == 500


def test_partitions_paused_for_lack_of_room_go_on_after_a_rebalance(
    stream: Stream, start_pipeline: StartPipeline, model: LoadedModel
) -> None:
    gate = Gate(model)
    other = start_pipeline()
    pipeline = start_pipeline(stream.settings(engine={"max_in_flight": 5}), with_model=replace(model, encoder=gate))
    # A member is first given none of the partitions that another has to hand over.
    wait_until(lambda: pipeline.lag, STREAM_SECONDS, "it has partitions")
    stream.feed_texts([f"text {number}" for number in range(300)])
    wait_until(lambda: paused(pipeline), STREAM_SECONDS, "fetching is paused")
    # It leaves while the first one is paused, and its partitions come to that one.
    other.stop()
    other.join()
    gate.open.set()
    stream.wait_caught_up()
    assert len({message.key() for message in stream.outputs()}) == 300


def test_a_record_of_a_quiet_partition_does_not_wait_behind_all_of_anothers_backlog(
    stream: Stream, start_pipeline: StartPipeline, model: LoadedModel
) -> None:
    backlog, through, most_ahead = 30_000, 3_000, 15_000
    taken = itertools.count(1)

    def feed_quiet(texts: Sequence[str]) -> None:
        if through in [next(taken) for _ in texts]:
            stream.feed([text_value("quiet", "hush")], partition=1)

    stream.feed((text_value(str(number), "word " * 60) for number in range(backlog)), partition=0)
    encoder = WordEncoder(feed_quiet)
    start_pipeline(stream.settings(engine={"max_in_flight": 500}), with_model=replace(model, encoder=encoder))
    outputs = stream.outputs(backlog + 1)
    (quiet,) = (message.timestamp()[1] for message in outputs if message.partition() == 1)
    ahead = sum(message.timestamp()[1] < quiet for message in outputs)
    assert ahead <= through + most_ahead


def test_a_quiet_partitions_record_comes_while_a_slow_model_works_at_anothers_backlog(
    stream: Stream, start_pipeline: StartPipeline, model: LoadedModel
) -> None:
    backlog, slow = 12_000, 6_000
    taken = itertools.count(1)
    pipelines: list[Pipeline] = []

    def work(texts: Sequence[str]) -> None:
        last = [next(taken) for _ in texts][-1]
        if last == len(texts):
            stream.feed([text_value("quiet", "hush")], partition=1)
        if last < slow:
            # Without room for so long, the partitions that something waits of are paused.
            wait_until(lambda: paused(pipelines[0]), STREAM_SECONDS, "fetching is paused")

    stream.feed((text_value(str(number), "word " * 60) for number in range(backlog)), partition=0)
    settings = stream.settings(engine={"max_in_flight": 1_000})
    pipelines.append(start_pipeline(settings, with_model=replace(model, encoder=WordEncoder(work))))
    outputs = stream.outputs(backlog + 1)
    (quiet,) = (message.timestamp()[1] for message in outputs if message.partition() == 1)
    assert sum(message.timestamp()[1] < quiet for message in outputs) <= slow


def test_large_texts_and_a_broker_that_is_gone_do_not_keep_a_worker_from_stopping(
    private_kafka: KafkaBroker, unique: str, model: LoadedModel
) -> None:
    stream = make_stream(private_kafka, unique)
    gate = Gate(model)
    stream.feed([text_value(str(number), "x " * 15_000) for number in range(2_100)])
    settings = stream.settings(engine={"window_seconds": 0.5}, model={"max_length": 8})
    with running(settings, replace(model, encoder=gate)) as pipeline:
        assert gate.entered.wait(STREAM_SECONDS)
        private_kafka.kill()
        gate.open.set()
        pipeline.stop()
        pipeline.join(STREAM_SECONDS)
        assert not pipeline.is_alive()


def test_bytes_in_flight_are_bounded_too(stream: Stream, start_pipeline: StartPipeline, model: LoadedModel) -> None:
    gate = Gate(model)
    stream.feed([text_value(str(number), "x " * 50_000) for number in range(20)])
    pipeline = start_pipeline(
        stream.settings(engine={"max_in_flight_bytes": 250_000}), with_model=replace(model, encoder=gate)
    )
    wait_until(lambda: paused(pipeline), STREAM_SECONDS, "fetching is paused")
    assert pipeline.in_flight == 3
    gate.open.set()
    assert len(stream.outputs(20)) == 20


def test_what_is_in_the_model_at_a_stop_is_finished_and_what_is_not_is_left(
    stream: Stream, start_pipeline: StartPipeline, model: LoadedModel
) -> None:
    gate = Gate(model)
    stream.feed_texts([f"text {number}" for number in range(100)])
    settings = stream.settings(engine={"max_in_flight": 20})
    pipeline = start_pipeline(settings, with_model=replace(model, encoder=gate))
    assert gate.entered.wait(STREAM_SECONDS)
    pipeline.stop()
    assert pipeline.state is State.DRAINING
    gate.open.set()
    pipeline.join()
    assert not pipeline.failure.occurred()
    done = stream.output_count()
    assert 0 < done <= 20
    assert group_lag(stream.bootstrap_servers, stream.group, stream.input) == 100 - done
    start_pipeline(settings)
    stream.wait_caught_up()
    assert sorted(ids(stream.outputs())) == sorted(f"t-{number}" for number in range(100)), "each once"


def test_a_broker_that_hangs_in_mid_stream_loses_nothing_and_doubles_at_most_what_was_in_flight(
    private_kafka: KafkaBroker, unique: str, model: LoadedModel
) -> None:
    stream = make_stream(private_kafka, unique)
    gate = Gate(model)
    with running(stream.settings(engine={"max_in_flight": 100}), replace(model, encoder=gate)) as pipeline:
        stream.feed_texts([f"text {number}" for number in range(300)])
        assert gate.entered.wait(STREAM_SECONDS)
        private_kafka.pause()
        gate.open.set()
        # Longer than the session: the group gives the partitions away and back.
        wait_until(lambda: lost(pipeline) == 1 and not pipeline.connected, STREAM_SECONDS, "the broker is missed")
        private_kafka.resume()
        stream.wait_caught_up()
        outputs = ids(stream.outputs())
    assert lost(pipeline) == 1
    assert set(outputs) == {f"t-{number}" for number in range(300)}
    assert len(outputs) - 300 <= 100


def test_a_stop_while_the_broker_hangs_ends(private_kafka: KafkaBroker, unique: str, model: LoadedModel) -> None:
    stream = make_stream(private_kafka, unique)
    settings = stream.settings(engine={"window_seconds": 0.5})
    with running(settings, model) as pipeline:
        stream.feed_texts(["word " * 20] * 1_000)
        wait_until(lambda: pipeline.metrics.counts().embedded > 0, STREAM_SECONDS, "outputs are acknowledged")
        # Acknowledged and not committed: the drain wants a commit that nobody answers.
        private_kafka.pause()
        pipeline.stop()
        pipeline.join(STREAM_SECONDS)
        assert not pipeline.is_alive()
    private_kafka.resume()
    with running(settings, model):
        stream.wait_caught_up()
    assert set(ids(stream.outputs())) == {f"t-{number}" for number in range(1_000)}


def test_a_stop_while_the_broker_is_gone_ends_and_the_work_is_redone(
    private_kafka: KafkaBroker, unique: str, model: LoadedModel
) -> None:
    stream = make_stream(private_kafka, unique)
    gate = Gate(model)
    settings = stream.settings(engine={"window_seconds": 0.5})
    with running(settings, replace(model, encoder=gate)):
        stream.feed_texts(["a", "b", "c"])
        assert gate.entered.wait(STREAM_SECONDS)
        private_kafka.kill()
        gate.open.set()
    private_kafka.restart()
    with running(settings, model):
        stream.wait_caught_up()
    assert set(ids(stream.outputs())) == {"t-0", "t-1", "t-2"}


def test_transactions_of_producers_are_honoured_and_a_caught_up_group_reads_lag_0(
    stream: Stream, start_pipeline: StartPipeline
) -> None:
    producer = Producer({"bootstrap.servers": stream.bootstrap_servers, "transactional.id": stream.name})
    producer.init_transactions()
    for name, commit in (("first", True), ("aborted", False), ("last", True), ("aborted too", False)):
        producer.begin_transaction()
        producer.produce(stream.input, text_value(name, name), partition=0)
        producer.flush()
        if commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    pipeline = start_pipeline()
    assert ids(stream.outputs(2)) == ["first", "last"]
    # Four records and four control records.
    assert end_offsets(stream.bootstrap_servers, stream.input)[0] == 8
    stream.wait_caught_up()
    assert committed_offsets(stream.bootstrap_servers, stream.group, stream.input)[0] == 8
    wait_until(lambda: pipeline.lag == {0: 0, 1: 0, 2: 0}, STREAM_SECONDS, "the worker's own lag is 0")


def test_start_from_latest_skips_what_was_there_once_and_never_again(
    stream: Stream, start_pipeline: StartPipeline
) -> None:
    stream.feed_texts(["old"] * 5, prefix="old")
    settings = stream.settings(kafka={"start_from": "latest"})
    first = start_pipeline(settings)
    stream.feed_texts(["new"] * 5, prefix="new")
    assert len(stream.outputs(5)) == 5
    stream.wait_caught_up()
    first.stop()
    first.join()
    stream.feed_texts(["meanwhile"] * 5, prefix="meanwhile")
    start_pipeline(settings)
    stream.wait_caught_up()
    assert {identity.split("-")[0] for identity in ids(stream.outputs())} == {"new", "meanwhile"}


def test_a_broker_that_hangs_does_not_hold_up_the_first_commit(private_kafka: KafkaBroker, unique: str) -> None:
    stream = make_stream(private_kafka, unique)
    stream.feed_texts(["old"] * 5)
    kafka = stream.settings().kafka
    with AdminClient({"bootstrap.servers": stream.bootstrap_servers, "log_level": 0}) as admin:
        # Connected, and then nothing answers any more.
        admin.list_topics(timeout=STREAM_SECONDS)
        private_kafka.pause()
        with pytest.raises(KafkaException, match=r"_TIMED_OUT|_TRANSPORT|_WAIT_COORD"):
            commit_end(admin, kafka, PARTITIONS, 1.0)
        private_kafka.resume()

        def committed() -> dict[int, int]:
            with suppress(KafkaException):
                commit_end(admin, kafka, PARTITIONS, 5.0)
            return committed_offsets(stream.bootstrap_servers, stream.group, stream.input)

        ends = end_offsets(stream.bootstrap_servers, stream.input)
        assert wait_until(committed, STREAM_SECONDS, "the ends are committed") == ends


def test_start_and_stop_while_the_broker_hangs_end_with_start_from_latest_too(
    private_kafka: KafkaBroker, unique: str, model: LoadedModel
) -> None:
    stream = make_stream(private_kafka, unique)
    private_kafka.pause()
    with running(stream.settings(kafka={"start_from": "latest"}), model) as pipeline:
        pipeline.stop()
        pipeline.join(STREAM_SECONDS)
        assert not pipeline.is_alive()
        assert not pipeline.failure.occurred()
    private_kafka.resume()


def test_a_member_without_partitions_is_running_too(stream: Stream, start_pipeline: StartPipeline) -> None:
    pipelines = [start_pipeline() for _ in range(PARTITIONS + 1)]
    assert all(pipeline.state is State.RUNNING for pipeline in pipelines)
    stream.feed_texts(["a"] * 10)
    assert len(stream.outputs(10)) == 10


def test_lag_counts_what_is_not_dealt_with(stream: Stream, start_pipeline: StartPipeline, model: LoadedModel) -> None:
    gate = Gate(model)
    stream.feed_texts([f"text {number}" for number in range(100)])
    settings = stream.settings(engine={"max_in_flight": 10})
    pipeline = start_pipeline(settings, with_model=replace(model, encoder=gate))
    wait_until(lambda: sum(pipeline.lag.values()) > 0, STREAM_SECONDS, "lag is seen")
    seen = pipeline.lag
    ends = end_offsets(stream.bootstrap_servers, stream.input)
    assert all(lag == ends[partition] for partition, lag in seen.items()), "nothing is dealt with yet"
    gate.open.set()
    wait_until(lambda: pipeline.lag == {0: 0, 1: 0, 2: 0}, STREAM_SECONDS, "all is dealt with")

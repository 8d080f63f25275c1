"""The loop of a run: with stand-ins for what never happens on demand, and with the broker in memory."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from embedding_operator.local import broker
from embedding_operator.local.clients import KafkaClients, Reply, kafka_clients
from embedding_operator.local.errors import Interrupted, LocalError
from embedding_operator.local.exchange import Collector, Ending, Feeder, exchange
from embedding_operator.local.output import Output
from embedding_operator.local.progress import progress, say
from embedding_operator.local.stop import Stop
from embedding_operator.local.texts import Text
from embedding_operator.local.tracker import Dead, Embedded, RecordTracker, Tombstone, bounds
from embedding_operator.local.worker import Worker
from embedding_service.contract.kafka import producer_config
from embedding_service.contract.settings import KafkaSettings
from embedding_service.contract.stats import Latency, State, Stats
from waiting import wait_until

DIMENSION = 384
VECTOR = [0.5] * DIMENSION


def output(number: int) -> bytes:
    return json.dumps({"id": f"id-{number}", "original_text": f"text {number}", "embedding": VECTOR}).encode()


class ScriptedClients(KafkaClients):
    """Answers each record as the script says, by its label; what the script doesn't name is embedded."""

    def __init__(self, script: dict[str, Sequence[Reply]] | None = None) -> None:
        self._script = script or {}
        self._replies: list[Reply] = []
        self.most_in_flight = 0

    def feed(self, number: int, text: Text) -> bool:
        self._replies += self._script.get(text.label, [Reply(number, Embedded(), output(number))])
        self.most_in_flight = max(self.most_in_flight, len(self._replies))
        return True

    def receive(self) -> list[Reply]:
        replies, self._replies = self._replies, []
        return replies


class ScriptedWorker(Worker):
    """A worker that is idle, or has ended."""

    def __init__(self, failure: str | None = None) -> None:
        self._failure = failure

    def check(self) -> None:
        if self._failure is not None:
            raise LocalError(self._failure)

    def stats(self) -> Stats:
        return Stats(
            state=State.RUNNING,
            kafka_connected=True,
            messages_processed=0,
            embeddings_generated=0,
            error_count=0,
            errors_by_reason={},
            tombstones=0,
            truncated=0,
            last_processed_timestamp=None,
            messages_per_minute=0.0,
            latency_seconds=Latency(mean=None, p50=None, p99=None),
            error_rate=0.0,
            in_flight=0,
            lag={},
            uptime_seconds=1.0,
            model=None,
        )


def run(
    texts: Iterator[Text | None],
    clients: KafkaClients,
    worker: Worker | None = None,
    output: Output | None = None,
    stop: Stop | None = None,
) -> tuple[Ending, Collector]:
    collector = Collector(RecordTracker(bounds(DIMENSION, in_memory=True)), output)
    with progress(None) as shown:
        feeder = Feeder(texts, collector.tracker, clients)
        ending = exchange(feeder, collector, clients, worker or ScriptedWorker(), shown, stop or Stop())
    return ending, collector


def numbered(count: int) -> Iterator[Text]:
    return (Text(f"line-{number}", b"{}") for number in range(count))


def test_a_run_is_complete_when_each_record_was_answered_in_some_way() -> None:
    clients = ScriptedClients(
        {"line-1": [Reply(1, Dead("InvalidJson"), b"{}")], "line-2": [Reply(2, Tombstone(), b"")]}
    )
    ending, collector = run(numbered(4), clients)
    assert ending is Ending.COMPLETE
    tracker = collector.tracker
    assert (tracker.embedded, dict(tracker.dead), tracker.tombstones) == (2, {"InvalidJson": 1}, 1)


def test_embeddings_of_texts_are_written_once_each_and_those_of_queries_are_not(tmp_path: Path) -> None:
    texts = iter([Text("query-1", b"{}", query="how?"), Text("line-1", b"{}"), Text("line-2", b"{}")])
    twice = [Reply(1, Embedded(), output(1)), Reply(1, Embedded(), output(1))]
    with closing(Output(tmp_path / "vectors.jsonl")) as file:
        _, collector = run(texts, ScriptedClients({"line-1": twice}), output=file)
    assert [json.loads(line)["id"] for line in file.path.read_bytes().splitlines()] == ["id-1", "id-2"]
    assert (file.written, collector.tracker.duplicates) == (2, 1)
    assert [example.text for example in collector.vectors.examples()] == ["how?"]


def test_a_text_whose_output_repeats_no_text_is_shown_by_its_label() -> None:
    bare = json.dumps({"id": "id-0", "original_text": None, "embedding": VECTOR}).encode()
    _, collector = run(numbered(1), ScriptedClients({"line-0": [Reply(0, Embedded(), bare)]}))
    assert [example.text for example in collector.vectors.examples()] == ["id-0: line-0"]


def test_no_more_is_in_flight_than_one_partition_in_memory_keeps() -> None:
    clients = ScriptedClients()
    ending, collector = run(numbered(2_000), clients)
    assert ending is Ending.COMPLETE
    assert collector.tracker.embedded == 2_000
    assert clients.most_in_flight * len(output(1_000)) < 5 * 1024 * 1024


def test_records_that_an_idle_worker_never_answers_end_the_run_as_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedding_operator.local.tracker.SILENT_SECONDS", 0.0)
    monkeypatch.setattr("embedding_operator.local.exchange._STATS_SECONDS", 0.0)
    ending, collector = run(numbered(5), ScriptedClients({"line-2": [], "line-4": []}))
    assert ending is Ending.INCOMPLETE
    assert collector.tracker.missing(5) == ["line-2", "line-4"]


def test_a_worker_that_ended_ends_the_run_with_its_reason() -> None:
    with pytest.raises(LocalError, match="out of memory"):
        run(numbered(3), ScriptedClients({"line-1": []}), ScriptedWorker("the worker ended: out of memory"))


def test_a_request_to_end_ends_the_run_even_where_the_input_is_silent() -> None:
    stop = Stop()

    def silent() -> Iterator[None]:
        yield None
        stop.requested = True
        while True:
            yield None

    ending, _ = run(silent(), ScriptedClients(), stop=stop)
    assert ending is Ending.INTERRUPTED


def test_what_comes_back_is_read_while_the_input_is_silent(tmp_path: Path) -> None:
    stop = Stop()

    class Watched(Output):
        def write(self, record: bytes) -> None:
            super().write(record)
            stop.requested = True

    def slow() -> Iterator[Text | None]:
        yield Text("line-1", b"{}")
        while True:
            yield None

    with closing(Watched(tmp_path / "vectors.jsonl")) as watched:
        ending, _ = run(slow(), ScriptedClients(), output=watched, stop=stop)
    assert ending is Ending.INTERRUPTED
    assert watched.path.read_bytes() == output(0) + b"\n"


def test_a_request_to_end_cuts_a_wait_short() -> None:
    stop = Stop()
    stop.requested = True
    with pytest.raises(Interrupted):
        stop.tick()


def test_an_output_file_that_is_full_ends_the_run() -> None:
    full = Output(Path("/dev/full"))
    with pytest.raises(LocalError, match=r"^--output /dev/full: No space left on device$"):
        run(numbered(1), ScriptedClients(), output=full)
    assert full.written == 0
    # This must not fail once more.
    full.close()


def test_a_terminal_sees_a_bar_with_the_lag(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("embedding_operator.local.progress._is_screen", lambda: True)
    tracker = RecordTracker(bounds(DIMENSION, in_memory=True))
    for text in numbered(3):
        tracker.feed(text, 0.0)
    tracker.answer(0, Embedded(), 1.0)
    with progress(3) as shown:
        shown.show(tracker)
        say("a line above the bar")
    bar = capsys.readouterr().err
    assert "1/3" in bar
    assert "lag=2" in bar
    assert "a line above the bar\n" in bar


def settings(servers: str) -> KafkaSettings:
    return KafkaSettings.model_validate({"bootstrap_servers": servers})


def echo(servers: str, size: int, done: threading.Event) -> None:
    """In place of a worker: for each input record an output of this size, with its headers."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "echo", "auto.offset.reset": "earliest"})
    consumer.subscribe(["text-messages"])
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 5})
    value = json.dumps({"id": "x", "original_text": "x", "embedding": [0.5], "padding": "x" * size}).encode()
    while not done.is_set():
        for message in consumer.consume(500, 0.1):
            headers = message.headers()
            assert message.error() is None
            assert headers is not None
            producer.produce("embeddings", value=value, headers=headers)
        producer.poll(0)
    producer.flush(10)
    consumer.close()


@pytest.mark.slow
def test_a_run_loses_nothing_though_the_broker_in_memory_keeps_little(monkeypatch: pytest.MonkeyPatch) -> None:
    # The echo has to join its group first, and the worker that stands beside it is idle all the time.
    monkeypatch.setattr("embedding_operator.local.tracker.SILENT_SECONDS", 600.0)
    kafka, done = KafkaSettings(), threading.Event()
    with broker.in_memory(broker.topics_of(kafka)) as servers:
        thread = threading.Thread(target=echo, args=(servers, DIMENSION * 22, done))
        thread.start()
        try:
            with kafka_clients(settings(servers), Stop()) as clients:
                ending, collector = run(numbered(4_000), clients)
        finally:
            done.set()
            thread.join()
    # 33 MB through four partitions of 5 MiB.
    assert ending is Ending.COMPLETE
    assert (collector.tracker.embedded, collector.tracker.duplicates) == (4_000, 0)


@pytest.mark.slow
def test_a_record_that_the_client_refuses_is_named_and_was_not_fed() -> None:
    kafka = KafkaSettings()
    collector = Collector(RecordTracker(bounds(DIMENSION, in_memory=True)), None)
    texts = iter([Text("line-1", b"{}"), Text("line-2", b"x" * 17_000_000)])
    with broker.in_memory(broker.topics_of(kafka)) as servers, kafka_clients(settings(servers), Stop()) as clients:
        feeder = Feeder(texts, collector.tracker, clients)
        feeder.fill()
        # The second is larger than what may be in flight, and alone only after this.
        collector.take(Reply(0, Embedded(), output(0)))
        with pytest.raises(LocalError, match=r"^line-2: this record of 17,000,000 bytes can't be sent: .*too large$"):
            feeder.fill()
    assert (collector.tracker.fed, collector.tracker.lag) == (1, 0)


@pytest.mark.slow
def test_a_full_queue_of_the_client_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def small_queue(kafka: KafkaSettings) -> dict[str, object]:
        return producer_config(kafka) | {"queue.buffering.max.messages": 1}

    monkeypatch.setattr("embedding_operator.local.clients.producer_config", small_queue)
    kafka = KafkaSettings()
    tracker = RecordTracker(bounds(DIMENSION, in_memory=True))
    with broker.in_memory(broker.topics_of(kafka)) as servers, kafka_clients(settings(servers), Stop()) as clients:
        feeder = Feeder(numbered(3), tracker, clients)
        feeder.fill()
        assert (tracker.fed, feeder.done) == (1, False)

        def all_fed() -> bool:
            clients.receive()
            feeder.fill()
            return feeder.done

        wait_until(all_fed, 30, "waiting for room")
    assert tracker.fed == 3


@pytest.mark.slow
def test_outputs_that_the_broker_forgot_before_they_were_read_are_an_error() -> None:
    kafka = KafkaSettings()
    with broker.in_memory(broker.topics_of(kafka)) as servers, kafka_clients(settings(servers), Stop()) as clients:
        reader = clients._consumer
        reader.pause(reader.assignment())
        producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})
        for _ in range(8):
            producer.produce("embeddings", value=b"x" * 900_000, partition=0)
            assert producer.flush(30) == 0
        reader.resume(reader.assignment())
        with pytest.raises(LocalError, match="the outputs can't be read"):
            wait_until(clients.receive, 30, "waiting for the error")

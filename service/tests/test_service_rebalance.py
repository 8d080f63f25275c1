"""Rebalances: what is consumed while members come and go comes out, once."""

import itertools
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, TopicPartition

from embedding_service import consumer
from embedding_service.consumer import ConsumerLoop
from embedding_service.contract.settings import Settings
from embedding_service.delivery.offsets import OffsetTracker
from embedding_service.inbox import Inbox
from embedding_service.metrics import Metrics
from embedding_service.pipeline import Pipeline
from embedding_service.records import Tombstone
from embedding_service.stages import Failure
from service_fixtures import Stream, text_value

Partitions = list[TopicPartition]
TOPIC = "input"
SETTINGS = Settings.model_validate(
    {"kafka": {"bootstrap_servers": "127.0.0.1:1", "input_topic": TOPIC, "output_topic": "output"}}
)


class RebalancingConsumer:
    """Stands in for confluent-kafka's: a rebalance in the midst of one ``consume`` can't be had on demand.

    ``polls`` has what each call of ``poll`` returns; ``consume`` calls ``within`` and returns ``rest``, once. The first
    commits are answered by ``refusals``; all others are accepted.
    """

    def __init__(self, polls: Sequence[Message], rest: Sequence[Message]) -> None:
        self._polls = iter(polls)
        self._rest = list(rest)
        self._answers: list[tuple[KafkaError | None, Partitions]] = []
        self.refusals: Iterator[KafkaError] = iter(())
        self.committed: dict[int, int] = {}
        self.exhausted = threading.Event()
        self.within: Callable[[RebalancingConsumer], None] = lambda _: None

    def __call__(self, config: dict[str, Any], **_: Any) -> "RebalancingConsumer":
        self._on_commit = config["on_commit"]
        return self

    def subscribe(self, _topics: list[str], **callbacks: Callable[[Any, Partitions], None]) -> None:
        self.assign, self.revoke = callbacks["on_assign"], callbacks["on_revoke"]
        self.assign(self, positions(0, 1))

    def poll(self, _timeout: float) -> Message | None:
        while self._answers:
            self._on_commit(*self._answers.pop(0))
        message = next(self._polls, None)
        if message is None:
            self.exhausted.set()
        return message

    def consume(self, _number: int, timeout: float) -> list[Message]:
        assert timeout == 0, "a lone message would wait for others"
        self.within(self)
        rest, self._rest, self.within = self._rest, [], lambda _: None
        return rest

    def commit(self, offsets: Partitions, **_: Any) -> None:
        error = next(self.refusals, None)
        self._answers.append((error, offsets))
        if error is None:
            self.committed.update({position.partition: position.offset for position in offsets})

    def close(self) -> None: ...


def positions(*partitions: int) -> Partitions:
    return [TopicPartition(TOPIC, partition) for partition in partitions]


def message(partition: int, offset: int) -> Message:
    return Message(
        topic=TOPIC,
        partition=partition,
        offset=offset,
        value=text_value("id", "text"),
        timestamp=(1, 1_000),
        headers=[],
    )


def consumed(stub: RebalancingConsumer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Partition and offset of what the loop has passed on before ``stub`` had no more."""
    monkeypatch.setattr(consumer, "Consumer", stub)
    inbox, failure, stop = Inbox(), Failure(), threading.Event()
    loop = ConsumerLoop(SETTINGS, OffsetTracker(), inbox, Metrics(), failure)
    running = threading.Thread(target=loop.run, args=[stop])
    running.start()
    assert stub.exhausted.wait(10)
    passed_on = [item.parsed for item in inbox.take_unprepared(100, 0)]
    failure.set(RuntimeError("ends the loop without a drain"))
    running.join()
    return [(item.record.partition, item.record.offset) for item in passed_on]


def test_a_rebalance_within_a_call_that_returns_records_drops_those_of_revoked_partitions_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub = RebalancingConsumer(polls=[message(1, 7)], rest=[message(0, 4), message(1, 8)])
    stub.within = lambda stub: stub.revoke(stub, positions(0))
    assert consumed(stub, monkeypatch) == [(1, 7), (1, 8)]


def test_a_record_held_when_its_partition_goes_and_comes_back_is_consumed_again_and_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away_and_back(stub: RebalancingConsumer) -> None:
        stub.revoke(stub, positions(0))
        stub.assign(stub, positions(0))

    # The new assignment begins at the committed offset.
    stub = RebalancingConsumer(polls=[message(0, 4)], rest=[message(0, 3), message(0, 4)])
    stub.within = away_and_back
    assert consumed(stub, monkeypatch) == [(0, 3), (0, 4)]


def test_a_last_commit_that_is_refused_while_others_join_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = RebalancingConsumer(polls=[message(1, 7)], rest=[])
    # More than one: a regular commit may be under way when the loop is stopped.
    stub.refusals = iter([KafkaError(KafkaError.REBALANCE_IN_PROGRESS), KafkaError(KafkaError.ILLEGAL_GENERATION)])
    stop_with_one_to_commit(stub, monkeypatch)
    assert stub.committed == {1: 8}


def test_a_last_commit_that_is_refused_since_the_topic_is_gone_keeps_no_stop_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub = RebalancingConsumer(polls=[message(1, 7)], rest=[])
    stub.refusals = itertools.repeat(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
    stop_with_one_to_commit(stub, monkeypatch)
    assert stub.committed == {}


def stop_with_one_to_commit(stub: RebalancingConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop a loop while its one message is in the model, with an hour for the drain; returns once it has ended."""
    monkeypatch.setattr(consumer, "Consumer", stub)
    offsets, inbox, stop = OffsetTracker(), Inbox(), threading.Event()
    loop = ConsumerLoop(SETTINGS, offsets, inbox, Metrics(), Failure())
    monkeypatch.setattr(loop, "_drain_seconds", 3600)
    running = threading.Thread(target=loop.run, args=[stop], daemon=True)
    running.start()
    waiting = inbox.take_unprepared(1, 10)
    records = [item.parsed.record for item in waiting]
    inbox.prepare(waiting, [Tombstone(record) for record in records])
    inbox.take(1, len, 0)
    stop.set()
    offsets.done(records)
    running.join(30)
    assert not running.is_alive()


@pytest.mark.slow
def test_workers_that_come_and_go_while_texts_flow_lose_none_and_double_none(
    stream: Stream, start_pipeline: Callable[..., Pipeline]
) -> None:
    members = [start_pipeline()]
    sent = 0
    for _ in range(4):
        for _ in range(2):
            members.append(start_pipeline())
            sent += len(stream.feed_texts(["some words"] * 100, prefix=f"from-{sent}"))
        for _ in range(2):
            leaving = members.pop(0)
            leaving.stop()
            sent += len(stream.feed_texts(["some words"] * 100, prefix=f"from-{sent}"))
            leaving.join()
            assert not leaving.failure.occurred()
    stream.wait_caught_up()
    times = Counter(json.loads(output.value() or b"")["id"] for output in stream.outputs())
    assert len(times) == sent
    assert set(times.values()) == {1}

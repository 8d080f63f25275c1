"""The consumer: admits records into the loop, and answers rebalances.

All calls on the consumer are made by the one thread in ``run``: confluent-kafka serialises them, so a commit from
another thread would wait for a poll. Records are admitted while there is room for messages in flight; without room the
polling goes on, since rebalances and the poll interval don't wait.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from embedding_service.client_logs import ClientErrors, client_logger
from embedding_service.commits import Commits
from embedding_service.connection_watch import Reach
from embedding_service.contract.headers import Headers, Stage
from embedding_service.contract.kafka import consumer_config
from embedding_service.contract.reasons import DeadLetterReason
from embedding_service.contract.settings import Settings
from embedding_service.delivery.errors import ACCESS_DENIED, reading_denied
from embedding_service.delivery.offsets import OffsetTracker
from embedding_service.inbox import Inbox
from embedding_service.messages import headers_of
from embedding_service.metrics import Metrics
from embedding_service.records import InputRecord, Parsed, Rejection, parse
from embedding_service.stages import Failure, Heartbeat

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.1
# With nothing in flight, or no room: a record that comes in, or room, ends the wait, and a rebalance is answered within
# it. Each wait costs the processor about 0.2 ms; shorter ones were half of what an idle worker used.
_IDLE_POLL_SECONDS = 0.5
_COMMITTING_SECONDS = 0.02
_LEAVE_SECONDS = 2.0
_MAX_POLL_MESSAGES = 512
# Pausing throws away what librdkafka has prefetched, so a short lack of room must not cause it.
_PAUSE_AFTER_SECONDS = 1.0


class ConsumerLoop:
    """Consumes one topic as a member of the group until told to stop, then drains."""

    def __init__(
        self, settings: Settings, offsets: OffsetTracker, inbox: Inbox, metrics: Metrics, failure: Failure
    ) -> None:
        self._settings = settings
        self._offsets = offsets
        self._inbox = inbox
        self._metrics = metrics
        self._failure = failure
        # Polled, and waiting for room.
        self._held: deque[Message] = deque()
        self._full_since: float | None = None
        self._paused: set[int] = set()
        # What is in the model takes about a window; as long again for what lies behind it, and for a slow broker.
        self._drain_seconds = 2 * settings.engine.window_seconds + 10
        self._deadline: float | None = None
        self._errors = ClientErrors("consumer", logger)
        self.assigned = threading.Event()
        self.reach = Reach()
        self.heartbeat = Heartbeat()
        self.lag: dict[int, int] = {}
        self._commits = Commits(settings.kafka, offsets, metrics, failure)
        self._consumer = Consumer(
            {
                **consumer_config(settings.kafka),
                "stats_cb": self._on_stats,
                "error_cb": self._on_error,
                "on_commit": self._commits.on_commit,
            },
            logger=client_logger(),
        )

    def run(self, stop: threading.Event) -> None:
        """Consume until ``stop`` is set or a stage has failed; then finish, commit and leave the group."""
        try:
            self._consumer.subscribe(
                [self._settings.kafka.input_topic],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )
            while not stop.is_set() and not self._failure.occurred():
                self.heartbeat.beat()
                self._step()
            self._deadline = time.monotonic() + self._drain_seconds
            if not self._failure.occurred():
                self._drain(self._offsets.partitions())
        except BaseException as error:
            # The other stages look at it, and end.
            self._failure.set(error)
            raise
        finally:
            self._close()
            self._metrics.in_flight.set(0)

    def _step(self) -> None:
        self._commits.regular(self._consumer, is_full=len(self._held) > 0)
        self._admit()
        if self._held:
            self._wait_for_room()
            return
        self._full_since = None
        self._resume()
        self._poll()
        self._admit()

    def _poll(self) -> None:
        # consume() waits to fill its number: the first message is waited for, the rest taken as they lie there.
        in_flight, _ = self._offsets.in_flight()
        first = self._consumer.poll(_POLL_SECONDS if in_flight else _IDLE_POLL_SECONDS)
        if first is None:
            return
        # Held before the next call, within which a rebalance may drop what is held of some partitions, and only that.
        self._held.append(first)
        rest = self._consumer.consume(_MAX_POLL_MESSAGES - 1, 0)
        self._held.extend(rest)

    def _wait_for_room(self) -> None:
        now = time.monotonic()
        self._full_since = self._full_since or now
        if now - self._full_since > _PAUSE_AFTER_SECONDS:
            self._pause()
        # A commit makes room, and its answer comes by polling.
        # Seen first: what is acknowledged between the look at what is due and the wait must end the wait.
        seen = self._offsets.acknowledgements()
        self._offsets.wait_progress(seen, _COMMITTING_SECONDS if self._commits.under_way else _IDLE_POLL_SECONDS)
        message = self._consumer.poll(0)
        if message is not None:
            self._held.append(message)

    def _pause(self) -> None:
        """Pause the partitions that something waits of, and no others: what was read ahead of a quiet one is kept."""
        waiting = {message.partition() for message in self._held} - self._paused
        fetching = [position for position in self._consumer.assignment() if position.partition in waiting]
        if fetching:
            self._consumer.pause(fetching)
            self._paused.update(position.partition for position in fetching)
        self._metrics.paused.set(1)

    def _resume(self, partitions: Collection[int] | None = None) -> None:
        """Resume the paused ones of these partitions, or all."""
        paused = self._paused if partitions is None else self._paused.intersection(partitions)
        if paused:
            topic = self._settings.kafka.input_topic
            self._consumer.resume([TopicPartition(topic, partition) for partition in paused])
            self._paused -= paused
        self._metrics.paused.set(len(self._paused) > 0)

    def _admit(self) -> None:
        """Pass held messages on while there is room for them in flight."""
        engine = self._settings.engine
        messages, size = self._offsets.in_flight()
        assignments = self._offsets.assignments()
        admitted: list[Parsed] = []
        while self._held and messages < engine.max_in_flight and size < engine.max_in_flight_bytes:
            message = self._held.popleft()
            error = message.error()
            if error is not None:
                # The end of a partition is told behind the records before it.
                self._pass_on(admitted)
                self._event(message, error)
                continue
            headers = headers_of(message)
            record = self._record(message, headers or [], assignments)
            if record is None:
                continue
            admitted.append(_unreadable(record) if headers is None else self._parse(record))
            messages += 1
            size += record.size
        self._metrics.in_flight.set(messages)
        self._pass_on(admitted)

    def _pass_on(self, admitted: list[Parsed]) -> None:
        if admitted:
            self._offsets.track(item.record for item in admitted)
            self._inbox.put(admitted)
            admitted.clear()

    def _parse(self, record: InputRecord) -> Parsed:
        return parse(record, self._settings.input.text_field, self._settings.input.id_field)

    def _record(self, message: Message, headers: Headers, assignments: Mapping[int, int]) -> InputRecord | None:
        """The record; ``None`` for a partition that is no longer ours."""
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is None or partition is None or offset is None or partition not in assignments:
            return None
        timestamp = message.timestamp()[1] / 1000
        # By position: for each message, and names take twice as long.
        return InputRecord(
            topic,
            partition,
            offset,
            message.key(),
            message.value(),
            headers,
            timestamp,
            time.monotonic(),
            assignments[partition],
        )

    def _event(self, message: Message, error: KafkaError) -> None:
        partition, offset = message.partition(), message.offset()
        if error.code() == KafkaError._PARTITION_EOF:
            if partition is not None and offset is not None:
                self._offsets.reached_end(partition, offset)
        elif error.fatal():
            raise KafkaException(error)
        elif error.code() in ACCESS_DENIED:
            kafka = self._settings.kafka
            raise reading_denied(error, kafka.input_topic, kafka.consumer_group)
        else:
            logger.warning("consumer: %s: %s", error.name(), error.str())

    def _close(self) -> None:
        """Await the last commit, then leave the group; neither longer than the deadline."""
        deadline = self._deadline or time.monotonic() + self._drain_seconds
        while self._commits.under_way and time.monotonic() < deadline:
            self.heartbeat.beat()
            if not self._failure.occurred():
                # The coordinator refuses one while others join or leave; without another the work would be done again.
                self._commits.regular(self._consumer, is_full=True)
            elif not self._commits.waiting:
                break
            # Serves on_commit. What it may return besides is somebody else's from now on.
            self._consumer.poll(_POLL_SECONDS)
        closing = threading.Thread(target=self._consumer.close, name="consumer-close", daemon=True)
        closing.start()
        closing.join(max(_LEAVE_SECONDS, deadline - time.monotonic()))
        if closing.is_alive():
            logger.warning("left the group without the broker's answer: its session has to expire")

    def _drain(self, partitions: Collection[int]) -> None:
        """Drop what isn't in the model yet, finish what is, commit it."""
        self._drop(partitions)
        # Leaving the group revokes what is left: one deadline for both.
        deadline = self._deadline or time.monotonic() + self._drain_seconds
        while not self._offsets.wait_settled(partitions, _POLL_SECONDS):
            self.heartbeat.beat()
            if self._failure.occurred() or time.monotonic() > deadline:
                logger.warning("gave up waiting for what is in flight of partitions %s: it will be redone", partitions)
                break
        # Goes to the coordinator before the request to join or to leave, which ends this owner's right to commit.
        self._commits.last(self._consumer, partitions)

    def _drop(self, partitions: Collection[int]) -> None:
        self._offsets.forget(self._inbox.drop(partitions))
        kept = [message for message in self._held if message.partition() not in partitions]
        self._held.clear()
        self._held.extend(kept)

    def _on_assign(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [position.partition for position in partitions]
        logger.info("partitions assigned: %s", numbers)
        # The call that gave a partition away may have returned records of it: they are not this assignment's.
        self._drop(numbers)
        self._offsets.assign(numbers)
        self._metrics.rebalances.labels("assigned").inc()
        self.assigned.set()

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [position.partition for position in partitions]
        logger.info("partitions revoked: %s", numbers)
        self._drain(numbers)
        self._forget(numbers)
        self._metrics.rebalances.labels("revoked").inc()

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        numbers = [position.partition for position in partitions]
        logger.warning("partitions lost, another member may have them: %s", numbers)
        self._drop(numbers)
        self._forget(numbers)
        self._metrics.rebalances.labels("lost").inc()

    def _forget(self, partitions: Collection[int]) -> None:
        # librdkafka would remember the pause until the partition comes back.
        self._resume(partitions)
        self._offsets.revoke(partitions)
        self.lag = {partition: lag for partition, lag in self.lag.items() if partition not in partitions}
        self._show_lag()

    def _on_stats(self, text: str) -> None:
        """Statistics of librdkafka, every two seconds."""
        stats = self.reach.on_stats(text)
        if stats.get("cgrp", {}).get("join_state") == "steady":
            # A member that was given no partition gets no call of on_assign.
            self.assigned.set()
        topics = stats["topics"].get(self._settings.kafka.input_topic, {"partitions": {}})
        up = {broker["nodeid"] for broker in stats["brokers"].values() if broker["state"] == "UP"} - {-1}
        # Of a leader that is away, the client knows the end as it was.
        known = {name: partition for name, partition in topics["partitions"].items() if partition["leader"] in up}
        self._measure_lag({int(name): partition["ls_offset"] for name, partition in known.items()})

    def _measure_lag(self, ends: dict[int, int]) -> None:
        lag = {}
        for partition in self._offsets.partitions():
            position, end = self._offsets.next_offset(partition), ends.get(partition, -1)
            if position is not None and end >= 0:
                lag[partition] = max(0, end - position)
        self.lag = lag
        self._show_lag()

    def _show_lag(self) -> None:
        self._metrics.lag.clear()
        for partition, lag in self.lag.items():
            self._metrics.lag.labels(str(partition)).set(lag)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.reach.connected = False
        self._errors(error)


def _unreadable(record: InputRecord) -> Rejection:
    return Rejection(record, Stage.HEADERS, DeadLetterReason.INVALID_HEADERS, "a header's name is not UTF-8")

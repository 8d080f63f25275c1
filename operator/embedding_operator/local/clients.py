"""The Kafka clients of a run: one that feeds, one that reads back what this run fed."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from embedding_operator.local.broker import topics_of
from embedding_operator.local.errors import LocalError
from embedding_operator.local.progress import say
from embedding_operator.local.stop import Stop
from embedding_operator.local.texts import Text
from embedding_operator.local.tracker import Answer, Dead, Embedded, Tombstone
from embedding_service.contract.headers import ERROR_CLASS, Headers
from embedding_service.contract.kafka import common_config, producer_config
from embedding_service.contract.outputs import as_json
from embedding_service.contract.settings import KafkaSettings

# Headers pass through the worker, so that a run knows its own records in topics that others write to as well.
RUN_HEADER = "embedding-local-run"
NUMBER_HEADER = "embedding-local-seq"

_POLL_SECONDS = 0.05
_MOST_AT_ONCE = 1_000
_REQUEST_SECONDS = 1.0
_PREPARE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for a record of this run; ``value`` is the output's as JSON, where there is one."""

    number: int
    answer: Answer
    value: bytes


class KafkaClients:
    """Feeds records to the input topic and reads what comes back. For one thread."""

    def __init__(self, kafka: KafkaSettings, stop: Stop) -> None:
        self._kafka = kafka
        self._run = uuid.uuid4().hex
        self._trouble: str | None = None
        self._failure: LocalError | None = None
        clients = common_config(kafka) | {"log_level": 0, "error_cb": self._on_error}
        self._producer = Producer(producer_config(kafka) | clients)
        self._consumer = Consumer(
            clients
            | {
                # Needed by the client, never joined: partitions are assigned by hand and nothing is committed.
                "group.id": f"embedding-local-{self._run}",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                # What the broker has forgotten before it was read is an error, and no reason to skip it.
                "auto.offset.reset": "error",
            }
        )
        self._consumer.assign(self._ends(stop))

    def feed(self, number: int, text: Text) -> bool:
        """Send a record, unless the client's queue is full: returns whether it was taken.

        Raises ``LocalError`` for a record that can't be sent; a refusal by the broker is raised by a later ``receive``,
        which also makes room in the queue.
        """

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._failure = LocalError(f"{text.label}: the broker refused this record: {error.str()}")

        try:
            self._producer.produce(
                self._kafka.input_topic,
                value=text.value,
                headers=[(RUN_HEADER, self._run.encode()), (NUMBER_HEADER, str(number).encode())],
                on_delivery=delivered,
            )
        except BufferError:
            return False
        except KafkaException as error:
            size = f"{len(text.value):,} bytes"
            raise LocalError(f"{text.label}: this record of {size} can't be sent: {error.args[0].str()}") from None
        return True

    def receive(self) -> list[Reply]:
        """What has come back; waits a moment where nothing has. Raises ``LocalError``."""
        self._producer.poll(0)
        if self._failure is not None:
            raise self._failure
        first = self._consumer.poll(_POLL_SECONDS)
        if first is None:
            return []
        replies = [self._reply(message) for message in [first, *self._consumer.consume(_MOST_AT_ONCE, 0)]]
        return [reply for reply in replies if reply is not None]

    def close(self) -> None:
        """Drop what is not sent yet, and leave."""
        self._producer.purge()
        self._producer.poll(0)
        self._consumer.close()

    def _reply(self, message: Message) -> Reply | None:
        error = message.error()
        if error is not None:
            raise LocalError(f"the outputs can't be read: {error.str()}")
        found = dict(cast("Headers", message.headers() or []))
        number = found.get(NUMBER_HEADER)
        if found.get(RUN_HEADER) != self._run.encode() or number is None:
            return None
        return Reply(int(number), self._answer(message, found), as_json(message.value() or b"", list(found.items())))

    def _answer(self, message: Message, found: dict[str, bytes | None]) -> Answer:
        if message.topic() == self._kafka.dead_letter_topic:
            return Dead((found.get(ERROR_CLASS) or b"unknown").decode())
        return Tombstone() if message.value() is None else Embedded()

    def _ends(self, stop: Stop) -> list[TopicPartition]:
        """Where output and dead-letter topic end now: what comes after that may be this run's."""
        _, *topics = topics_of(self._kafka)
        deadline = time.monotonic() + _PREPARE_SECONDS
        while True:
            stop.check()
            # A topic that was made a moment ago may not be known to every broker.
            try:
                return [self._end(topic, number) for topic in topics for number in self._partitions(topic)]
            except KafkaException as error:
                if time.monotonic() >= deadline:
                    servers = ",".join(self._kafka.bootstrap_servers)
                    raise LocalError(f"the topics at {servers} can't be read: {error.args[0].str()}") from None
            stop.tick()

    def _partitions(self, topic: str) -> list[int]:
        metadata = self._consumer.list_topics(topic, timeout=_REQUEST_SECONDS).topics[topic]
        if metadata.error is not None:
            raise KafkaException(metadata.error)
        return list(metadata.partitions)

    def _end(self, topic: str, number: int) -> TopicPartition:
        offsets = self._consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=_REQUEST_SECONDS)
        if offsets is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return TopicPartition(topic, number, offsets[1])

    def _on_error(self, error: KafkaError) -> None:
        # The client repeats itself while a broker is away.
        if error.str() != self._trouble:
            self._trouble = error.str()
            say(f"Kafka: {error.str()}")


@contextmanager
def kafka_clients(kafka: KafkaSettings, stop: Stop) -> Iterator[KafkaClients]:
    """Open the clients for the length of a ``with`` block. Raises ``LocalError`` or ``Interrupted``."""
    opened = KafkaClients(kafka, stop)
    try:
        yield opened
    finally:
        opened.close()

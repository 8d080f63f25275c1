"""The broker of a run: one in memory, or a real one with its topics made."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs forget to export these
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from embedding_operator.local.errors import LocalError
from embedding_operator.local.stop import Stop
from embedding_service.contract.settings import KafkaSettings
from embedding_service.contract.topics import dead_letter_max_bytes

_REQUEST_SECONDS = 1.0
_REACH_SECONDS = 10.0

T = TypeVar("T")


def topics_of(kafka: KafkaSettings) -> tuple[str, str, str]:
    """Input, output and dead-letter topic."""
    return kafka.input_topic, kafka.output_topic, kafka.dead_letter_topic


@contextmanager
def in_memory(topics: Sequence[str]) -> Iterator[str]:
    """Run librdkafka's mock cluster with these topics, of four partitions each; yields its bootstrap servers.

    It listens on loopback, keeps 5 MiB of each partition, knows no transactions that could be relied on, and is gone
    at the end.
    """
    # The cluster lives in this client, and as long as it: the topics are made by asking for them.
    mock = Producer({"test.mock.num.brokers": 1, "allow.auto.create.topics": True, "log_level": 0})
    brokers = [mock.list_topics(topic, timeout=_REACH_SECONDS).brokers for topic in topics][-1]
    yield ",".join(f"{broker.host}:{broker.port}" for broker in brokers.values())
    del mock


def prepare(servers: str, kafka: KafkaSettings, stop: Stop) -> list[str]:
    """Make the topics that a real broker lacks, with as many partitions as it gives by default; returns their names.

    Raises ``LocalError`` where the broker can't be reached or refuses, ``Interrupted`` where the run shall end.
    """
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    existing = _existing(admin, servers, stop)
    missing = [topic for topic in topics_of(kafka) if topic not in existing]
    try:
        for topic in missing:
            # The last: by then the input topic is there to be asked.
            config = _dead_letter_config(admin, kafka.input_topic, stop) if topic == kafka.dead_letter_topic else {}
            wanted = [NewTopic(topic, config=config)]
            _result(admin.create_topics(wanted, request_timeout=_REACH_SECONDS)[topic], stop)
    except KafkaException as error:
        raise LocalError(f"the broker at {servers} did not make the topic '{topic}': {error.args[0].str()}") from None
    return missing


def _existing(admin: AdminClient, servers: str, stop: Stop) -> set[str]:
    deadline = time.monotonic() + _REACH_SECONDS
    while True:
        stop.check()
        # Short, since nothing else happens while the client waits.
        try:
            return set(admin.list_topics(timeout=_REQUEST_SECONDS).topics)
        except KafkaException as error:
            if time.monotonic() >= deadline:
                raise LocalError(
                    f"no Kafka broker can be reached at {servers} ({error.args[0].str()}); start it, name another with "
                    "--bootstrap-servers, or leave that out for a broker in memory"
                ) from None


def _dead_letter_config(admin: AdminClient, input_topic: str, stop: Stop) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, input_topic)
    config = _result(admin.describe_configs([resource], request_timeout=_REACH_SECONDS)[resource], stop)
    return {"max.message.bytes": str(dead_letter_max_bytes(int(config["max.message.bytes"].value)))}


def _result(future: Future[T], stop: Stop) -> T:
    """What the broker answers. Raises ``KafkaException`` once the request's own time is up, or ``Interrupted``."""
    while True:
        stop.check()
        try:
            return future.result(Stop.TICK_SECONDS)
        except TimeoutError:
            continue

"""What the brokers have of a pipeline: topics, their configuration, consumer groups; and a hand that changes them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs forget to export these
    AdminClient,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from kafka_helpers import produce, read_all
from waiting import wait_until

TIMEOUT_SECONDS = 30.0


class TopicState(NamedTuple):
    """A topic: Kafka's id of it, which a topic of the same name made later doesn't have, and its partitions."""

    id: str
    partitions: int


def topic(bootstrap_servers: str, name: str) -> TopicState | None:
    """The topic as it is; ``None`` where there is none."""
    with _admin(bootstrap_servers) as admin:
        (future,) = admin.describe_topics(TopicCollection([name])).values()
        try:
            found = future.result(TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            return None
    return TopicState(str(found.topic_id), len(found.partitions))


def wait_until_gone(bootstrap_servers: str, name: str) -> None:
    """Wait until a topic that was deleted is unknown to the broker, too: its controller is first to know."""
    wait_until(lambda: topic(bootstrap_servers, name) is None, TIMEOUT_SECONDS, f"topic {name} is still there")


def config(bootstrap_servers: str, name: str) -> dict[str, Any]:
    """A topic's configuration."""
    with _admin(bootstrap_servers) as admin:
        (future,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)]).values()
        return {key: entry.value for key, entry in future.result(TIMEOUT_SECONDS).items()}


def grow(bootstrap_servers: str, name: str, partitions: int) -> None:
    """Give a topic more partitions, as somebody with Kafka's tools does."""
    with _admin(bootstrap_servers) as admin:
        for future in admin.create_partitions([NewPartitions(name, partitions)]).values():
            future.result(TIMEOUT_SECONDS)


def has_group(bootstrap_servers: str, group: str) -> bool:
    """Whether the brokers know a consumer group."""
    with _admin(bootstrap_servers) as admin:
        return group in {found.group_id for found in admin.list_consumer_groups().result(TIMEOUT_SECONDS).valid}


@contextmanager
def member(bootstrap_servers: str, group: str, name: str) -> Iterator[None]:
    """Have a member in a consumer group that reads a topic."""
    with Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group, "enable.auto.commit": False}) as consumer:
        consumer.subscribe([name])

        def joined() -> bool:
            consumer.poll(0.1)
            return bool(consumer.assignment())

        wait_until(joined, TIMEOUT_SECONDS, f"no partition of {name} in {TIMEOUT_SECONDS:g} s")
        yield


def write_texts(bootstrap_servers: str, name: str, texts: Mapping[str, str]) -> None:
    """Write texts by their ids to an input topic."""
    records = [(name, None, None, json.dumps({"id": key, "text": text}).encode(), ()) for key, text in texts.items()]
    produce(bootstrap_servers, records)


def embedded(bootstrap_servers: str, name: str, ids: Iterable[str], seconds: float = 180) -> list[str]:
    """Read an output topic until at least as many records are in it as there are ``ids``; returns theirs, sorted."""
    messages = read_all(bootstrap_servers, name, count=len(list(ids)), timeout=seconds)
    return sorted(json.loads(message.value() or b"")["id"] for message in messages)


def _admin(bootstrap_servers: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})

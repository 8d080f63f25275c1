"""Clients that have lost every broker for good, while the brokers answer others.

librdkafka forgets all brokers when one of them tells of none, as a lone broker does while it is fenced or shuts down,
and may then have nobody left to ask (librdkafka's issue 5301, in 2.10 to 2.16 at least). Only new clients help.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import orjson
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # its stubs forget to export these

from embedding_service.contract.kafka import common_config
from embedding_service.contract.patience import Patience
from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.contract.settings import KafkaSettings
from embedding_service.stages import Failure

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 10.0
# Clients try again every 10 seconds at the latest.
_PATIENCE_SECONDS = 60.0
_REQUEST_SECONDS = 5.0
# Of statistics, which come every five seconds at the latest as long as their client is polled.
_FRESH_SECONDS = 10.0


def reaches_brokers(stats: dict[str, Any]) -> bool:
    """Whether a client is connected to any broker, by its statistics (librdkafka's STATISTICS.md)."""
    return any(broker["state"] == "UP" for broker in stats["brokers"].values() if broker["nodeid"] >= 0)


class Reach:
    """Whether a client is connected to any broker, as far as it was told. Safe to use from every thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told = clock()
        self.connected = True

    def on_stats(self, text: str) -> dict[str, Any]:
        """Take note of the client's statistics, and return them."""
        stats: dict[str, Any] = orjson.loads(text)
        self.connected = reaches_brokers(stats)
        self._told = self._clock()
        return stats

    @property
    def is_lost(self) -> bool:
        """Whether it has no broker now. What was told before isn't believed: while nobody polls, nothing is told."""
        return not self.connected and self._clock() - self._told <= _FRESH_SECONDS


class ConnectionWatch(threading.Thread):
    """Ends the loop where only new clients help. ``lost`` names a client that needs a broker and has none."""

    def __init__(self, kafka: KafkaSettings, lost: Callable[[], str | None], failure: Failure) -> None:
        super().__init__(name="connections", daemon=True)
        self._kafka = kafka
        self._lost = lost
        self._failure = failure
        self._closing = threading.Event()

    def run(self) -> None:
        """Until closed."""
        patience = Patience(_PATIENCE_SECONDS)
        while not self._closing.wait(_LOOK_SECONDS):
            lost = self._lost()
            # Told where others are answered, only: brokers that are gone for everybody are waited for.
            if patience.is_over(time.monotonic(), so=lost is not None and self._answers()):
                message = f"the {lost} has lost all brokers, which answer others; expected to find them after a restart"
                self._failure.set(Termination(TerminationReason.CRASHED, message))
                return

    def close(self) -> None:
        """Stop looking."""
        self._closing.set()

    def _answers(self) -> bool:
        """Whether any leader of the input topic answers: more than the address that everybody begins with."""
        try:
            with AdminClient(common_config(self._kafka) | {"log_level": 0}) as admin:
                topic = self._kafka.input_topic
                partitions = admin.list_topics(topic, timeout=_REQUEST_SECONDS).topics[topic].partitions
                # A single partition without a leader would hold up the answers of all others.
                led = [number for number, partition in partitions.items() if partition.leader >= 0]
                ends = {TopicPartition(topic, number): OffsetSpec.latest() for number in led}
                if not ends:
                    return False
                answers = admin.list_offsets(ends, request_timeout=_REQUEST_SECONDS).values()
                return any(answer.exception() is None for answer in answers)
        except KafkaException:
            return False
        except Exception:
            # The watch goes on, whatever it is: too few file descriptors, say.
            logger.exception("whether the brokers answer can't be found out")
            return False

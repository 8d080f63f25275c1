"""The guard against vectors of two models in one topic: whose the last records of the output topic are.

Such vectors can't be compared, and nobody sees it in the numbers. The API server's rule sees one edit of a pipeline;
this sees what is in the topic, whoever wrote it.
"""

import logging
import threading
import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from embedding_service.contract.headers import CONTRACT
from embedding_service.contract.kafka import common_config
from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.contract.settings import KafkaSettings
from embedding_service.delivery.errors import ACCESS_DENIED, reading_denied
from embedding_service.first_offsets import end_offsets
from embedding_service.messages import headers_of

logger = logging.getLogger(__name__)

# How many of a partition's last offsets are looked at: a few, and more where these are all tombstones, control
# records, or another producer's.
_WINDOWS = (8, 256)
_POLL_SECONDS = 0.2
_READ_SECONDS = 30.0


class ContractCheck:
    """Compares the worker's contract with the output topic's last records, before the first of its own."""

    def __init__(self, kafka: KafkaSettings, contract: str, stop: threading.Event) -> None:
        self._kafka = kafka
        self._contract = contract
        self._stop = stop

    def run(self, admin: AdminClient, partitions: int, timeout: float) -> None:
        """Return where nothing of another contract is found, or when stopped.

        Raises ``Termination``, or ``KafkaException`` where the topic can't be read in time.
        """
        ends = end_offsets(admin, self._kafka.output_topic, range(partitions), timeout)
        unknown = {number: end for number, end in ends.items() if end > 0}
        for window in _WINDOWS:
            found = self._last_contracts(unknown, window) if unknown else {}
            others = sorted({contract for contract in found.values() if contract != self._contract})
            if others:
                raise self._mismatch(others)
            unknown = {number: end for number, end in unknown.items() if number not in found and end > window}
        if unknown and not self._stop.is_set():
            logger.info("no vector among the last %d records of partitions %s of the output topic", window, [*unknown])

    def _last_contracts(self, ends: Mapping[int, int], window: int) -> dict[int, str]:
        topic = self._kafka.output_topic
        unread = set(ends)
        found: dict[int, str] = {}
        deadline = time.monotonic() + _READ_SECONDS
        with Consumer(self._config()) as consumer:
            consumer.assign([TopicPartition(topic, number, max(0, end - window)) for number, end in ends.items()])
            while unread and not self._stop.is_set():
                if time.monotonic() > deadline:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
                for message in consumer.consume(100, _POLL_SECONDS):
                    number, offset, contract = self._read(message)
                    if contract is not None:
                        found[number] = contract
                    # Other workers go on writing: what they write now is theirs to answer for.
                    if offset >= ends[number] - 1:
                        unread.discard(number)
        return found

    def _read(self, message: Message) -> tuple[int, int, str | None]:
        """Partition, offset and contract; the end of a partition has none."""
        number, offset, error = message.partition(), message.offset(), message.error()
        if error is not None and error.code() in ACCESS_DENIED:
            raise reading_denied(error, self._kafka.output_topic, self._kafka.consumer_group)
        if number is None or offset is None or (error is not None and error.code() != KafkaError._PARTITION_EOF):
            raise KafkaException(error)
        return number, offset, None if error is not None else _contract(message)

    def _config(self) -> dict[str, object]:
        return common_config(self._kafka) | {
            # The client insists on a group; with assigned partitions and no commits the broker never hears of it.
            "group.id": self._kafka.consumer_group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            # What retention has taken meanwhile is left out.
            "auto.offset.reset": "earliest",
            "queued.max.messages.kbytes": 16 * 1024,
            # How long the broker holds back its answer on a partition that has no more.
            "fetch.wait.max.ms": 10,
            # What goes wrong is raised.
            "log_level": 0,
        }

    def _mismatch(self, others: list[str]) -> Termination:
        return Termination(
            TerminationReason.MODEL_MISMATCH,
            f"kafka.output_topic: '{self._kafka.output_topic}': holds vectors of another model ({', '.join(others)}; "
            f"this worker's are {self._contract}); expected a new output topic for another model, or "
            "spec.model.changePolicy: AllowMixed (model.change_policy: allow_mixed)",
        )


def _contract(message: Message) -> str | None:
    """The contract of a vector. A tombstone has the headers of its input, which may be another pipeline's output."""
    if message.value() is None:
        return None
    named = [value for name, value in headers_of(message) or [] if name == CONTRACT and value is not None]
    return named[-1].decode(errors="replace") if named else None

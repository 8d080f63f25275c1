"""What must be there before the loop can start: the brokers, the topics, and the group's first offsets."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs forget to export these
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from embedding_service.access import check_access
from embedding_service.connection_check import examine
from embedding_service.contract.broker_trouble import BrokerTrouble, TroubleReason, explain
from embedding_service.contract.kafka import DEFAULT_BATCH_BYTES, common_config
from embedding_service.contract.patience import Patience
from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.contract.settings import KafkaSettings
from embedding_service.contract.topics import dead_letter_max_bytes
from embedding_service.delivery.errors import ACCESS_DENIED, access_denied
from embedding_service.files import connection
from embedding_service.first_offsets import commit_end
from embedding_service.logs import Reminder
from embedding_service.output_contracts import ContractCheck

logger = logging.getLogger(__name__)

_REQUEST_SECONDS = 5.0
_RETRY_SECONDS = 1.0
# A topic that was made a moment ago may not be known to every broker.
_MISSING_SECONDS = 5.0
# A client goes on connecting between the looks, which may take longer than one of them; it may also have lost every
# broker for good, see ``connection_watch``.
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Partitions:
    """How many partitions the topics have."""

    input: int
    output: int
    # Bytes of a batch that neither the output nor the dead-letter topic refuses: brokers measure batches, not records.
    # None where they can't be asked.
    max_batch_bytes: int | None = None


class TopicCheck:
    """Waits for the brokers and looks at the topics, until done or stopped.

    ``contract``: the only one that the output topic's last vectors may have; ``None`` lets any be there.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        contract: str | None,
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kafka = kafka
        self._contract = contract
        self._stop = stop
        self._clock = clock
        self._patience = Patience(_PATIENCE_SECONDS)
        self._trouble = BrokerTrouble()
        self._admin = self._new_client()
        self._reminder = Reminder(logger)

    def run(self) -> Partitions | None:
        """Partition counts once everything is there; ``None`` where stopped before.

        Raises ``Termination`` for what waiting doesn't cure: a topic that is missing, a user, a certificate or an ACL
        that the brokers don't take, vectors of another model. An unreachable broker is waited for.
        """
        first_missing: float | None = None
        while not self._stop.is_set():
            try:
                return self._look()
            except Termination as missing:
                first_missing = first_missing or self._clock()
                if (
                    missing.reason is not TerminationReason.TOPIC_MISSING
                    or self._clock() - first_missing > _MISSING_SECONDS
                ):
                    raise
            except KafkaException as error:
                self._judge(error.args[0])
            self._stop.wait(_RETRY_SECONDS)
        return None

    def _new_client(self) -> AdminClient:
        # What goes wrong is told here, once and in better words.
        return AdminClient(common_config(self._kafka) | {"error_cb": self._trouble, "log_level": 0})

    def _judge(self, error: KafkaError) -> None:
        """Return where it may be waited out. Raises ``Termination``."""
        trouble = explain(error.name(), error.str())
        if trouble is not None and trouble.reason is TroubleReason.BROKER_UNREACHABLE:
            # Calls that failed for the connection run out of time, and the cause is told here.
            self._admin.poll(0)
            trouble = examine(self._trouble.last() or trouble, connection(self._kafka))
        if trouble is not None and trouble.reason is not TroubleReason.BROKER_UNREACHABLE:
            raise Termination(TerminationReason(trouble.reason.value), trouble.message)
        servers = ",".join(self._kafka.bootstrap_servers)
        what = f"not ready: {error.str()}" if trouble is None else f"can't be reached: {trouble.message}"
        self._reminder.tell(f"kafka.bootstrap_servers: '{servers}': {what}; still trying")
        if self._patience.is_over(self._clock(), so=trouble is not None):
            self._admin = self._new_client()

    def _look(self) -> Partitions:
        inputs = self._partitions("input_topic", self._kafka.input_topic, "READ")
        outputs = self._partitions("output_topic", self._kafka.output_topic, "WRITE")
        try:
            self._partitions("dead_letter_topic", self._kafka.dead_letter_topic, "WRITE")
        except Termination as missing:
            if missing.reason is not TerminationReason.TOPIC_MISSING or not self._kafka.create_dead_letter_topic:
                raise
            self._create_dead_letter_topic(inputs)
        limit: int | None = None
        if self._administered():
            check_access(self._admin, self._kafka, reads_output=self._contract is not None, timeout=_REQUEST_SECONDS)
            limit = self._max_batch_bytes()
        if self._contract is not None:
            ContractCheck(self._kafka, self._contract, self._stop).run(self._admin, outputs, _REQUEST_SECONDS)
        if self._kafka.start_from == "latest":
            commit_end(self._admin, self._kafka, inputs, _REQUEST_SECONDS)
        return Partitions(inputs, outputs, limit)

    def _administered(self) -> bool:
        """Whether the cluster answers questions about itself; librdkafka's in memory has no controller."""
        metadata = self._admin.list_topics(self._kafka.output_topic, timeout=_REQUEST_SECONDS)
        return metadata.controller_id in metadata.brokers

    def _max_batch_bytes(self) -> int | None:
        """The smallest limit of the topics that are written to, and of a batch."""
        try:
            limits = [
                self._max_message_bytes(topic) for topic in (self._kafka.output_topic, self._kafka.dead_letter_topic)
            ]
        except KafkaException as error:
            trouble = explain(error.args[0].name(), error.args[0].str())
            if trouble is not None and trouble.reason is not TroubleReason.ACCESS_DENIED:
                # It passes, and batches larger than the topic takes would be refused whole for as long as this runs.
                raise
            logger.warning(
                "max.message.bytes of the output topics can't be read, expected the default: %s", error.args[0].str()
            )
            return None
        return min(DEFAULT_BATCH_BYTES, *limits)

    def _max_message_bytes(self, topic: str) -> int:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        config = self._admin.describe_configs([resource], request_timeout=_REQUEST_SECONDS)[resource].result()
        return int(config["max.message.bytes"].value)

    def _partitions(self, key: str, topic: str, operation: str) -> int:
        metadata = self._admin.list_topics(topic, timeout=_REQUEST_SECONDS).topics[topic]
        error = metadata.error
        if error is None:
            return len(metadata.partitions)
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise Termination(
                TerminationReason.TOPIC_MISSING,
                f"kafka.{key}: '{topic}': no such topic at {','.join(self._kafka.bootstrap_servers)}; expected an "
                f"existing one (make it with: kafka-cli create-topic {topic})",
            )
        if error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise access_denied(operation, f"topic '{topic}'")
        raise KafkaException(error)

    def _create_dead_letter_topic(self, partitions: int) -> None:
        topic = self._kafka.dead_letter_topic
        largest = dead_letter_max_bytes(self._input_max_bytes())
        wanted = NewTopic(topic, num_partitions=partitions, config={"max.message.bytes": str(largest)})
        try:
            self._admin.create_topics([wanted], request_timeout=_REQUEST_SECONDS)[topic].result()
        except KafkaException as error:
            refusal = error.args[0]
            # Another worker was faster.
            if refusal.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return
            if refusal.code() in ACCESS_DENIED:
                raise access_denied("CREATE", f"topic '{topic}'") from None
            # Positive codes are the broker's own.
            if refusal.code() > 0 and not refusal.retriable():
                raise Termination(
                    TerminationReason.TOPIC_MISSING,
                    f"kafka.dead_letter_topic: '{topic}': can't be made: {refusal.str()}; "
                    "expected a name that the brokers take",
                ) from None
            raise
        logger.info("dead-letter topic '%s' created with %d partitions", topic, partitions)

    def _input_max_bytes(self) -> int:
        topic = self._kafka.input_topic
        try:
            return self._max_message_bytes(topic)
        except KafkaException as error:
            if error.args[0].code() not in ACCESS_DENIED:
                raise
            raise access_denied("DESCRIBE_CONFIGS", f"topic '{topic}'") from None

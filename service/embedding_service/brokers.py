"""The brokers as a command sees them: what it asks of them, and what they have against it in one line.

For short visits: calls end after a while, and nothing is retried for good. The worker's own clients don't belong here.
"""

from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from embedding_service.connection_check import examine
from embedding_service.contract.broker_trouble import BrokerTrouble, TroubleReason
from embedding_service.contract.kafka import ClientConfig, common_config, producer_config
from embedding_service.contract.settings import KafkaSettings
from embedding_service.files import connection

BROKER_TIMEOUT_SECONDS = 10.0

_UNREACHABLE = (
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
)


class Brokers:
    """The brokers of a Kafka cluster. Every method raises ``KafkaException``, which ``explain`` explains.

    ``reader`` is the configuration of a consumer that leaves no trace.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._addresses = ",".join(kafka.bootstrap_servers)
        self._trouble = BrokerTrouble()
        # What goes wrong is told in one line; librdkafka would add its own.
        told: ClientConfig = {"log_level": 0, "error_cb": self._trouble}
        in_time: ClientConfig = {"message.timeout.ms": int(BROKER_TIMEOUT_SECONDS * 1000)}
        self._writer: ClientConfig = producer_config(kafka) | told | in_time
        self._admin: ClientConfig = common_config(kafka) | told
        self.reader: ClientConfig = self._admin | {
            # The client insists on a group; with assigned partitions and no commits, none comes to be.
            "group.id": "kafka-cli",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }

    def create_topic(self, topic: NewTopic) -> None:
        """Make a topic."""
        with AdminClient(self._admin) as admin:
            (future,) = admin.create_topics([topic], request_timeout=BROKER_TIMEOUT_SECONDS).values()
            try:
                future.result()
            except KafkaException:
                # Clients tell their troubles only in a poll.
                admin.poll(0)
                raise

    def partitions(self, client: Producer | Consumer, topic: str) -> list[int]:
        """The numbers of a topic's partitions."""
        try:
            metadata = client.list_topics(topic, timeout=BROKER_TIMEOUT_SECONDS).topics[topic]
        except KafkaException:
            client.poll(0)
            raise
        if metadata.error is not None:
            raise KafkaException(metadata.error)
        return list(metadata.partitions)

    def ends(self, consumer: Consumer, topic: str) -> list[TopicPartition]:
        """The offset behind the last record of each partition."""
        positions = []
        for partition in self.partitions(consumer, topic):
            beginning = TopicPartition(topic, partition)
            _, end = consumer.get_watermark_offsets(beginning, timeout=BROKER_TIMEOUT_SECONDS)
            positions.append(TopicPartition(topic, partition, end))
        return positions

    @staticmethod
    def messages(consumer: Consumer, timeout: float) -> Iterator[Message]:
        """Records as they come, until there was none for ``timeout`` seconds."""
        while (message := consumer.poll(timeout)) is not None:
            error = message.error()
            if error is not None:
                raise KafkaException(error)
            yield message

    def deliver(self, topic: str, key: str | None, value: bytes) -> Message:
        """Write a record, and return it once the broker has it."""
        reports: list[tuple[KafkaError | None, Message]] = []
        with Producer(self._writer) as producer:
            # A missing topic is told at once; to produce to it would take the whole timeout.
            self.partitions(producer, topic)
            producer.produce(topic, value, key, on_delivery=lambda error, message: reports.append((error, message)))
            producer.flush()
        error, message = reports[0]
        if error is not None:
            raise KafkaException(error)
        return message

    def explain(self, error: KafkaError, topic: str) -> str:
        """What went wrong with a topic, in one line."""
        code, trouble = error.code(), self._trouble.last()
        if trouble is not None and trouble.reason is not TroubleReason.BROKER_UNREACHABLE:
            return examine(trouble, connection(self._kafka)).message
        if code in _UNREACHABLE:
            return f"no broker answers at {self._addresses} ({error.str()})"
        if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return f"no topic {topic} at {self._addresses}; `kafka-cli create-topic {topic}` makes it"
        if code == KafkaError.TOPIC_ALREADY_EXISTS:
            return f"topic {topic} exists already at {self._addresses}; with --if-not-exists that is no error"
        return f"topic {topic} at {self._addresses}: {error.str()}"

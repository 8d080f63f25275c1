"""Whether this user may do what the worker does, asked before the first record: the dead letter may come in a month."""

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs forget to export these
    AclOperation,
    AdminClient,
)

from embedding_service.contract.settings import KafkaSettings
from embedding_service.delivery.errors import access_denied


def check_access(admin: AdminClient, kafka: KafkaSettings, *, reads_output: bool, timeout: float) -> None:
    """Return where the topics' ACLs are all there. The group's is asked for by joining it.

    Raises ``Termination`` naming the one that is missing, or ``KafkaException``.
    """
    needed = [
        (kafka.input_topic, AclOperation.READ),
        (kafka.output_topic, AclOperation.WRITE),
        (kafka.dead_letter_topic, AclOperation.WRITE),
    ]
    if reads_output:
        needed.append((kafka.output_topic, AclOperation.READ))
    topics = TopicCollection(list(dict(needed)))
    answers = admin.describe_topics(topics, include_authorized_operations=True, request_timeout=timeout)
    for topic, operation in needed:
        try:
            allowed = answers[topic].result().authorized_operations
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise
            raise access_denied(operation.name, f"topic '{topic}'") from None
        # Brokers that aren't Apache's may not say.
        if allowed and operation not in allowed:
            raise access_denied(operation.name, f"topic '{topic}'")

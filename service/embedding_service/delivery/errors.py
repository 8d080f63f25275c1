"""Errors of Kafka, by what is to be done about them."""

from confluent_kafka import KafkaError

from embedding_service.contract.broker_trouble import missing_acl
from embedding_service.contract.reasons import Termination, TerminationReason

ACCESS_DENIED = frozenset(
    {
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
)
TOPIC_MISSING = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION})


def access_denied(operation: str, resource: str) -> Termination:
    """An ACL is missing: the operation and the resource, such as ``READ`` and ``topic 'texts'``."""
    return Termination(TerminationReason.ACCESS_DENIED, missing_acl(operation, resource).message)


def reading_denied(error: KafkaError, topic: str, group: str) -> Termination:
    """What a consumer is refused, by its error."""
    is_group = error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED
    return access_denied("READ", f"consumer group '{group}'" if is_group else f"topic '{topic}'")

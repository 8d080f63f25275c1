"""What keeps a client from its brokers, in one sentence that says what to do.

librdkafka tells the cause to the client's error callback, and the call itself merely runs out of time. So a client is
given a ``BrokerTrouble`` as its ``error_cb``, and what it holds says why a call failed.
"""

import re
import threading
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class TroubleReason(StrEnum):
    """Why a client doesn't get what it wants of its brokers."""

    BROKER_UNREACHABLE = "BrokerUnreachable"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    TLS_FAILED = "TlsFailed"
    ACCESS_DENIED = "AccessDenied"


@dataclass(frozen=True, slots=True)
class Trouble:
    """A reason, and a sentence that says what to do."""

    reason: TroubleReason
    message: str


class ClientError(Protocol):
    """What is needed of ``confluent_kafka.KafkaError``."""

    def name(self) -> str:
        """The code's name, such as ``_SSL``."""
        ...

    def str(self) -> str:
        """What librdkafka says."""
        ...


class BrokerTrouble:
    """Remembers what a client's error callback was told last. Safe to use from every thread.

    ``Consumer({..., "error_cb": trouble})``; an ``AdminClient`` calls it from its ``poll`` only. ``clear`` it after a
    call that succeeded.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: Trouble | None = None

    def __call__(self, error: ClientError) -> None:
        """The error callback."""
        trouble = explain(error.name(), error.str())
        if trouble is None:
            return
        with self._lock:
            # That all brokers are down is told after the cause, and says less.
            if self._last is None or error.name() != _ALL_DOWN:
                self._last = trouble

    def last(self) -> Trouble | None:
        """What is wrong, as far as known."""
        with self._lock:
            return self._last

    def clear(self) -> None:
        """All is well again."""
        with self._lock:
            self._last = None


def explain(name: str, text: str) -> Trouble | None:
    """What an error means, by the name of its code and its text; ``None`` where it is about something else."""
    if name in _RESOURCES:
        return missing_acl("use", _RESOURCES[name])
    reason = _REASONS.get(name)
    if reason is None:
        return None
    for pattern, told, message in _TEXTS:
        if re.search(pattern, text):
            return Trouble(told, message)
    return Trouble(reason, _MESSAGES[reason])


def missing_acl(operation: str, resource: str) -> Trouble:
    """The brokers' refusal, told with the ACL that is missing."""
    return Trouble(TroubleReason.ACCESS_DENIED, f"missing ACL: allow this user to {operation} {resource}")


_ALL_DOWN = "_ALL_BROKERS_DOWN"
_RESOURCES = {
    "TOPIC_AUTHORIZATION_FAILED": "the topic",
    "GROUP_AUTHORIZATION_FAILED": "the consumer group",
    "CLUSTER_AUTHORIZATION_FAILED": "the cluster",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": "the transactional id",
}
_REASONS = {
    _ALL_DOWN: TroubleReason.BROKER_UNREACHABLE,
    "_TRANSPORT": TroubleReason.BROKER_UNREACHABLE,
    "_RESOLVE": TroubleReason.BROKER_UNREACHABLE,
    "_TIMED_OUT": TroubleReason.BROKER_UNREACHABLE,
    "_SSL": TroubleReason.TLS_FAILED,
    "_AUTHENTICATION": TroubleReason.AUTHENTICATION_FAILED,
    "SASL_AUTHENTICATION_FAILED": TroubleReason.AUTHENTICATION_FAILED,
    "UNSUPPORTED_SASL_MECHANISM": TroubleReason.AUTHENTICATION_FAILED,
}
_MESSAGES = {
    TroubleReason.BROKER_UNREACHABLE: "no broker answers; check the bootstrap servers, and that they can be reached",
    TroubleReason.TLS_FAILED: "the TLS handshake with the broker failed; check CA, certificate and address",
    TroubleReason.AUTHENTICATION_FAILED: "the broker refuses the user name or the password",
}
_TEXTS: tuple[tuple[str, TroubleReason, str], ...] = ()

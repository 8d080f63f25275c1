"""What keeps a client from its brokers, in one sentence that says what to do.

librdkafka tells the cause to the client's error callback, and the call itself merely runs out of time. So a client is
given a ``BrokerTrouble`` as its ``error_cb``, and what that holds says why a call failed.
"""

import re
import threading
from dataclasses import dataclass, replace
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
    """A reason, and a sentence that says what to do.

    ``unclear``: librdkafka tells several causes in the same words; ``connection_check.examine`` knows more.
    """

    reason: TroubleReason
    message: str
    unclear: bool = False


class ClientError(Protocol):
    """What is needed of ``confluent_kafka.KafkaError``."""

    def name(self) -> str:
        """The code's name, such as ``_SSL``."""
        ...

    def str(self) -> str:
        """What librdkafka says."""
        ...


class BrokerTrouble:
    """Remembers what a client's error callback was told. Safe to use from every thread.

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
        return Trouble(
            TroubleReason.ACCESS_DENIED,
            f"missing ACL: expected the right to do this with {_RESOURCES[name]} ({_LIST})",
        )
    if name not in _MEANINGS and name != _INVALID:
        return None
    where = _WHERE.match(text)
    at = f"{where[1]}: " if where else ""
    for pattern, meaning in _UNUSABLE if name == _INVALID else _TEXTS:
        if found := re.search(pattern, text):
            return replace(meaning, message=at + meaning.message.format(*found.groups()))
    return replace(_MEANINGS[name], message=at + _MEANINGS[name].message) if name in _MEANINGS else None


def missing_acl(operation: str, resource: str) -> Trouble:
    """The brokers' refusal, told by the ACL that is missing, such as ``READ`` and ``topic 'texts'``."""
    return Trouble(
        TroubleReason.ACCESS_DENIED,
        f"missing ACL: expected {operation} on {resource} to be allowed to this user ({_LIST})",
    )


_LIST = "docs/security.md lists all"
_ALL_DOWN = "_ALL_BROKERS_DOWN"
_INVALID = "_INVALID_ARG"
_RESOURCES = {
    "TOPIC_AUTHORIZATION_FAILED": "the topic",
    "GROUP_AUTHORIZATION_FAILED": "the consumer group",
    "CLUSTER_AUTHORIZATION_FAILED": "the cluster",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": "the transactional id",
}
# A broker's address, as librdkafka begins what it says of one: sasl_ssl://host:port/bootstrap: …, or of one for its
# task: GroupCoordinator: host:port: …
_WHERE = re.compile(r"(?:GroupCoordinator: )?(?:\w+://)?([^\s/]+:\d+)(?:/\w+)?: ")

_NO_ANSWER = Trouble(
    TroubleReason.BROKER_UNREACHABLE,
    "no broker answers; expected brokers that run and can be reached at the bootstrap servers",
    unclear=True,
)
_HANDSHAKE = Trouble(
    TroubleReason.TLS_FAILED, "the TLS handshake failed; expected a TLS listener of Kafka", unclear=True
)
_REFUSED = Trouble(
    TroubleReason.AUTHENTICATION_FAILED,
    "the broker refuses this user; expected a SASL user name and password that it knows",
)
# By the code's name, where the text says nothing more.
_MEANINGS = {
    _ALL_DOWN: _NO_ANSWER,
    "_TRANSPORT": _NO_ANSWER,
    "_TIMED_OUT": _NO_ANSWER,
    "_RESOLVE": _NO_ANSWER,
    "_SSL": _HANDSHAKE,
    "_AUTHENTICATION": _REFUSED,
    "SASL_AUTHENTICATION_FAILED": _REFUSED,
}
# What a client can't be made of.
_UNUSABLE = (
    (r"values mismatch", Trouble(TroubleReason.TLS_FAILED, "the client's key isn't that of its certificate")),
    (r"ssl\.ca\.", Trouble(TroubleReason.TLS_FAILED, "the given CA can't be read; expected certificates in PEM")),
    (
        r"ssl\.certificate\.",
        Trouble(TroubleReason.TLS_FAILED, "the client's certificate can't be read; expected it and its chain in PEM"),
    ),
    (
        r"ssl\.key\.",
        Trouble(TroubleReason.TLS_FAILED, "the client's key can't be read; expected a key in PEM, not encrypted"),
    ),
)
# By librdkafka's, OpenSSL's or the broker's words; the first that fits counts.
_TEXTS = (
    (
        r"certificate verify failed",
        Trouble(TroubleReason.TLS_FAILED, "the broker's certificate can't be verified", unclear=True),
    ),
    (
        r"PLAINTEXT broker listener|wrong version number|closed by peer .*in state SSL_HANDSHAKE",
        Trouble(TroubleReason.TLS_FAILED, "the broker speaks no TLS there; expected the address of a TLS listener"),
    ),
    (
        r"alert (?:\w+ certificate|certificate \w+|unknown ca)|client SSL authentication might be required",
        Trouble(
            TroubleReason.TLS_FAILED,
            "the broker doesn't accept the client's certificate, or was given none; expected one by its CA",
        ),
    ),
    (r"SSL routines", _HANDSHAKE),
    (
        r"Request not valid in current SASL state",
        Trouble(
            TroubleReason.AUTHENTICATION_FAILED,
            "the broker takes no SASL there; expected the address of a SASL listener, or no SASL",
        ),
    ),
    (
        r"SASL (\S+) mechanism handshake failed: Broker: Unsupported SASL mechanism: .*mechanisms: (\S*)",
        Trouble(TroubleReason.AUTHENTICATION_FAILED, "the broker doesn't offer {0}; expected a SASL mechanism of {1}"),
    ),
    (
        r"invalid credentials|Invalid username or password",
        Trouble(TroubleReason.AUTHENTICATION_FAILED, "the broker doesn't accept this SASL user name or its password"),
    ),
    (
        r"Failed to resolve '[^']*': (.*) \(after",
        Trouble(
            TroubleReason.BROKER_UNREACHABLE,
            "{0}; expected names known here, in the bootstrap servers and the brokers' advertised.listeners",
        ),
    ),
    (
        r"Connect to \S+ failed: (.*) \(after",
        Trouble(
            TroubleReason.BROKER_UNREACHABLE,
            "{0}; expected a broker that runs and can be reached there",
        ),
    ),
)

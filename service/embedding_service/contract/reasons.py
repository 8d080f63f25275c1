"""Why things end: the reasons of dead letters and of a worker that can't run.

A worker writes ``<Reason>: <message>`` to its termination log; the operator repeats both in the pipeline's status.
"""

from enum import StrEnum


class DeadLetterReason(StrEnum):
    """What was wrong with a record; the value of ``__connect.errors.exception.class.name`` and of metric labels."""

    INVALID_HEADERS = "InvalidHeaders"
    TOMBSTONE_WITHOUT_KEY = "TombstoneWithoutKey"
    INVALID_UTF8 = "InvalidUtf8"
    INVALID_JSON = "InvalidJson"
    NOT_AN_OBJECT = "NotAnObject"
    TEXT_MISSING = "TextMissing"
    TEXT_NOT_A_STRING = "TextNotAString"
    INVALID_ID = "InvalidId"
    TEXT_TOO_LONG = "TextTooLong"
    ENCODING_FAILED = "EncodingFailed"
    VECTOR_NOT_FINITE = "VectorNotFinite"
    OUTPUT_INVALID = "OutputInvalid"
    OUTPUT_TOO_LARGE = "OutputTooLarge"


class TerminationReason(StrEnum):
    """Why a worker process ended with an error."""

    CONFIGURATION_INVALID = "ConfigurationInvalid"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    DEVICE_UNAVAILABLE = "DeviceUnavailable"
    TOPIC_MISSING = "TopicMissing"
    ACCESS_DENIED = "AccessDenied"
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    TLS_FAILED = "TlsFailed"
    MODEL_MISMATCH = "ModelMismatch"
    OUT_OF_MEMORY = "OutOfMemory"
    DELIVERY_FAILED = "DeliveryFailed"
    PORT_IN_USE = "PortInUse"
    CRASHED = "Crashed"


class Termination(Exception):  # noqa: N818 - an end with a reason; not every one is an error of this program
    """The worker can't go on, for a reason that is not a record's."""

    def __init__(self, reason: TerminationReason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


def parse_termination(log: str) -> tuple[TerminationReason, str] | None:
    """Read a termination log as the worker wrote it; ``None`` where it is somebody else's text."""
    reason, separator, message = log.strip().partition(": ")
    known = {known.value: known for known in TerminationReason}
    return (known[reason], message) if separator and reason in known else None

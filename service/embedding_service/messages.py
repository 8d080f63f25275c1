"""Consumed messages, as confluent-kafka gives them."""

import time
from typing import cast

from confluent_kafka import Message

from embedding_service.contract.headers import Headers


def headers_of(message: Message) -> Headers | None:
    """The record's headers; ``None`` where a name is not UTF-8. Only the first call on a message tells."""
    try:
        headers = message.headers()
        # confluent-kafka leaves the decoding error pending, and the next call into C raises it: here, not elsewhere.
        time.monotonic()
    except (SystemError, UnicodeDecodeError):
        return None
    return cast("Headers", headers or [])

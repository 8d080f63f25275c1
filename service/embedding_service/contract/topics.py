"""What operator and worker must agree on about topics, since either may make them."""

# Room for the error headers beside the input's largest record.
_ERROR_HEADERS_BYTES = 64 * 1024


def dead_letter_topic(output_topic: str) -> str:
    """The name of the dead-letter topic where none is given."""
    return f"{output_topic}-deadletter"


def dead_letter_max_bytes(input_max_bytes: int) -> int:
    """``max.message.bytes`` of the dead-letter topic, from the input topic's."""
    return input_max_bytes + _ERROR_HEADERS_BYTES

"""What the loop's Kafka clients say of themselves, in the worker's log."""

import logging

from confluent_kafka import KafkaError

from embedding_service.contract.broker_trouble import explain
from embedding_service.logs import Reminder

# While brokers are gone, librdkafka writes twenty lines a second of it; ``ClientErrors`` is told the same.
_TOLD_ALREADY = ("FAIL [", "ERROR [")


def client_logger() -> logging.Logger:
    """Where a client of the loop logs."""
    logger = logging.getLogger("librdkafka")
    # Adding it again changes nothing.
    logger.addFilter(_is_news)
    return logger


class ClientErrors:
    """The error callback of a client of the loop, which goes on trying whatever it is told."""

    def __init__(self, client: str, logger: logging.Logger) -> None:
        self._client = client
        self._reminder = Reminder(logger)

    def __call__(self, error: KafkaError) -> None:
        """Log it, in words that say what to do where there are any."""
        trouble = explain(error.name(), error.str())
        said = trouble.message if trouble is not None else f"{error.name()}: {error.str()}"
        self._reminder.tell(f"{self._client}: {said}")


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_TOLD_ALREADY)

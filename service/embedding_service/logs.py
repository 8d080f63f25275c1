"""Logs: the standard library's logging, as lines for people or JSON for machines."""

import logging
import sys
import time

from pythonjsonlogger.json import JsonFormatter

from embedding_service.contract.settings import LoggingSettings

_CONSOLE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_JSON = "%(asctime)s %(levelname)s %(name)s %(threadName)s %(message)s"
# These tell at INFO what only their own developers want to know.
_CHATTY = ("httpx", "httpcore", "sentence_transformers", "transformers", "huggingface_hub", "urllib3", "filelock")

_REMINDER_SECONDS = 15.0


def configure_logs(settings: LoggingSettings) -> None:
    """Log to standard error, and to a file where one is named. Replaces what was configured before."""
    if settings.format == "json":
        formatter: logging.Formatter = JsonFormatter(
            _JSON, rename_fields={"asctime": "time", "levelname": "level", "name": "logger", "threadName": "thread"}
        )
    else:
        formatter = logging.Formatter(_CONSOLE)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if settings.file is not None:
        handlers.append(logging.FileHandler(settings.file, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=settings.level, handlers=handlers, force=True)
    logging.captureWarnings(capture=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


class Reminder:
    """Warnings about what lasts: each is told when it is new, and again every so often."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._told: dict[str, float] = {}

    def tell(self, message: str) -> None:
        """Log it, unless it was told a moment ago."""
        now = time.monotonic()
        self._told = {told: when for told, when in self._told.items() if now - when < _REMINDER_SECONDS}
        if message not in self._told:
            self._told[message] = now
            self._logger.warning("%s", message)

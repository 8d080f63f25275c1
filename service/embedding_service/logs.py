"""Logs: the standard library's logging, as lines for people or JSON for machines."""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from embedding_service.contract.settings import LoggingSettings

_CONSOLE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_JSON = "%(asctime)s %(levelname)s %(name)s %(threadName)s %(message)s"
# These tell at INFO what only their own developers want to know.
_CHATTY = ("httpx", "httpcore", "sentence_transformers", "transformers", "huggingface_hub", "urllib3", "filelock")


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

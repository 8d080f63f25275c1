"""Logs, to standard error, as lines for people or JSON for machines."""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from embedding_operator.settings import OperatorSettings

_CONSOLE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_JSON = "%(asctime)s %(levelname)s %(name)s %(threadName)s %(message)s"
# They tell at INFO what only their own developers want to know.
_CHATTY = ("aiohttp", "kopf", "kubernetes", "urllib3")


def configure_logs(settings: OperatorSettings) -> None:
    """Replace what was configured before."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.log_format == "json":
        names = {"asctime": "time", "levelname": "level", "name": "logger", "threadName": "thread"}
        handler.setFormatter(JsonFormatter(_JSON, rename_fields=names))
    else:
        handler.setFormatter(logging.Formatter(_CONSOLE))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    # Writes a stack trace each time that a connection ends; ``watches`` says it in a line.
    logging.getLogger("kubernetes.informer").setLevel(logging.CRITICAL)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(settings.log_level)))

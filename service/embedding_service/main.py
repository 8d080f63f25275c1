"""The command line of the worker: ``embedding-service run --config FILE``."""

import argparse
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from embedding_service.contract.problems import SettingsError
from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.contract.settings import Settings, parse_settings, place
from embedding_service.files import unusable
from embedding_service.logs import configure_logs
from embedding_service.web import HttpServer
from embedding_service.worker import Worker

logger = logging.getLogger(__name__)

# Where Kubernetes reads why a container ended; exists only there.
_TERMINATION_LOG = Path("/dev/termination-log")
_EXIT_FAILED = 1
_EXIT_USAGE = 2
_TICK_SECONDS = 0.1


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with 0, 1 for a worker that failed, or 2 for a configuration that can't be used."""
    options = _parser().parse_args(arguments)
    sys.exit(run(options.config, options.termination_log))


def run(config: Path, termination_log: Path) -> int:
    """Run a worker until it is told to stop. Returns the exit code."""
    try:
        settings = _settings(config)
        try:
            configure_logs(settings.logging)
        except OSError as error:
            file = f"{place('logging.file', os.environ, str(config))}: '{settings.logging.file}'"
            raise SettingsError([f"{file}: {error.strerror}; expected a file that can be written"]) from None
        # Told now, and not after the model's download.
        if problems := unusable(settings.kafka):
            raise SettingsError([f"{place(key, os.environ, str(config))}: {text}" for key, text in problems])
        return _serve(settings)
    except (SettingsError, Termination) as error:
        return _failed(error, config, termination_log)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="embedding-service", description="Texts from Kafka, embeddings to Kafka.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("run", help="run a worker until SIGTERM or SIGINT")
    command.add_argument(
        "--config", type=Path, default=Path("config.yaml"), help="the configuration file (default: %(default)s)"
    )
    command.add_argument(
        "--termination-log",
        type=Path,
        default=_TERMINATION_LOG,
        help="existing file that is told why the worker ended with an error (default: %(default)s)",
    )
    return parser


def _settings(config: Path) -> Settings:
    try:
        text = config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError([f"--config: '{config}': {reason}; expected a readable YAML file"]) from None
    return parse_settings(text, os.environ, str(config))


def _failed(error: SettingsError | Termination, config: Path, termination_log: Path) -> int:
    if isinstance(error, SettingsError):
        reason, message, code = TerminationReason.CONFIGURATION_INVALID, str(error), _EXIT_USAGE
    else:
        reason, message, code = error.reason, error.message, _EXIT_FAILED
        # A fault of a setting is told with the place to mend it.
        if setting := re.match(r"[a-z]+\.[a-z_]+(?=: )", message):
            message = place(setting[0], os.environ, str(config)) + message[setting.end() :]
    for line in message.splitlines():
        sys.stderr.write(f"{reason}: {line}\n")
    if termination_log.exists():
        termination_log.write_text(f"{reason}: {message}", encoding="utf-8")
    return code


class _StopSignal:
    """SIGTERM or SIGINT. The handler only sets a flag: it may run in the middle of anything."""

    def __init__(self) -> None:
        self.received = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self.received = True


def _serve(settings: Settings) -> int:
    stop = _StopSignal()
    worker = Worker(settings)
    server = HttpServer(worker)
    server.start()
    if settings.http.control == "open":
        logger.warning("http.control is open: whoever reaches port %d can stop this worker", settings.http.port)
    if settings.kafka.sasl_mechanism == "PLAIN" and not settings.kafka.tls:
        logger.warning("kafka.sasl_mechanism is PLAIN without kafka.tls: who sees the network sees the password")
    failure: list[BaseException] = []

    def load() -> None:
        try:
            worker.load()
        except BaseException as error:  # noqa: BLE001 - handed to the main thread, which ends the process with it
            failure.append(error)

    loading = threading.Thread(target=load, name="loader", daemon=True)
    loading.start()
    while loading.is_alive() and not stop.received:
        loading.join(_TICK_SECONDS)
    if loading.is_alive():
        # A download can't be interrupted, and nothing has been consumed yet.
        logging.shutdown()
        os._exit(0)
    while not stop.received and not failure and worker.failure is None:
        time.sleep(_TICK_SECONDS)
    logger.info("stopping")
    worker.close()
    server.stop()
    _raise(failure[0] if failure else worker.failure)
    logger.info("stopped")
    return 0


def _raise(error: BaseException | None) -> None:
    """Raise what ended the worker, with a reason in any case."""
    if error is None:
        return
    if isinstance(error, Termination):
        raise error
    logger.error("the worker failed", exc_info=error)
    raise Termination(TerminationReason.CRASHED, f"{type(error).__name__}: {error}")

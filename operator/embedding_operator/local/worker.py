"""The worker: a process of its own, told what to do by the ConfigMap's ``config.yaml`` and its environment."""

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from embedding_operator import names
from embedding_operator.local.errors import LocalError
from embedding_service.contract.reasons import parse_termination
from embedding_service.contract.settings import ENVIRONMENT_PREFIX
from embedding_service.contract.stats import Stats

HOST = "127.0.0.1"
_HTTP_SECONDS = 2.0
# A drain takes as long as the batches in the model, and then the worker's last requests to the broker.
_DRAIN_SECONDS = 20.0
_LAST_LINES = 10
_OK = 200

# A run that is killed leaves no worker behind: Linux then sends it SIGTERM. Set in the new process, which becomes the
# worker, since code between fork and exec isn't safe beside threads.
_DIE_WITH_PARENT = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGTERM)\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
)


class Worker:
    """A running worker. Nothing here waits for longer than one request to it."""

    def __init__(self, config: str, environment: Mapping[str, str], port: int, directory: Path, *, verbose: bool):
        self._port = port
        self._config = directory / names.CONFIG_FILE
        self._config.write_text(config, encoding="utf-8")
        self._termination_log = directory / "termination-log"
        self._termination_log.touch()
        self._log = directory / "worker.log"
        command = ["-m", "embedding_service", "run", "--config", str(self._config)]
        command += ["--termination-log", str(self._termination_log)]
        if sys.platform == "linux":
            command = ["-c", _DIE_WITH_PARENT, *command]
        # What the person's shell sets for another worker must not change this one.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(ENVIRONMENT_PREFIX)}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                env={**inherited, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=None if verbose else log,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise ``LocalError`` with the reason where the worker has ended."""
        code = self._process.poll()
        if code is None:
            return
        ended = parse_termination(self._termination_log.read_text(encoding="utf-8"))
        if ended is not None:
            reason, message = ended
            raise LocalError(f"the worker ended: {reason}: {message.replace(f'{self._config}: ', '')}")
        last = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        raise LocalError("\n".join([f"the worker ended with exit code {code}; its last lines:", *last]))

    def ready(self) -> bool:
        """Whether the model is loaded and partitions are assigned."""
        return self._get("/readyz") is not None

    def stats(self) -> Stats | None:
        """The worker's figures; ``None`` where it doesn't answer."""
        body = self._get("/stats")
        return None if body is None else Stats.model_validate_json(body)

    def stop(self) -> None:
        """Let the worker drain, and kill it where that takes too long."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_DRAIN_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def _get(self, path: str) -> bytes | None:
        # Not urllib: no proxy of the environment stands between this process and its own worker.
        connection = http.client.HTTPConnection(HOST, self._port, timeout=_HTTP_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return body if response.status == _OK else None


@contextmanager
def running(
    config: str, environment: Mapping[str, str], port: int, directory: Path, *, verbose: bool
) -> Iterator[Worker]:
    """Run a worker for the length of a ``with`` block, and drain it at the end."""
    worker = Worker(config, environment, port, directory, verbose=verbose)
    try:
        yield worker
    finally:
        worker.stop()


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.create_server((HOST, 0)) as server:
        return int(server.getsockname()[1])


def require_free(port: int) -> None:
    """Raise ``LocalError`` where something listens on a port."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise LocalError(
            f"port {port} can't be used ({reason}); stop what listens there, or name another with --port"
        ) from None

"""A program of this machine beside the cluster, which ends with the test run however that ends."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from kafka_node import Guard

STOP_SECONDS = 30
LOG_TAIL_LINES = 40


class HostProcess:
    """Runs while the block does."""

    def __init__(self, log: Path, *command: str | Path, environment: Mapping[str, str] | None = None) -> None:
        self._log = log
        self._pid_file = log.with_suffix(".pid")
        self._command = [str(word) for word in command]
        self._environment = os.environ | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, or start it again."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )
        self._pid_file.write_text(str(self._process.pid))
        self._guard = Guard('kill -KILL "$(cat "$1")"', str(self._pid_file))

    def stop(self) -> None:
        """End it."""
        if self._process is None or self._guard is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        # The guard then ends nothing: the number may be another process's.
        self._pid_file.unlink()
        self._guard.release()
        self._process = self._guard = None

    def check(self) -> None:
        """Raise ``RuntimeError`` with its last words where it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
            raise RuntimeError(f"{self._command[0]} ended with {self._process.returncode}; {self._log} ends:\n{tail}")

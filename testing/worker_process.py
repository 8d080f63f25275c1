"""A worker as a process of its own, as a pod or a laptop runs it: for tests and benchmarks."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from kafka_node import free_port
from waiting import wait_until

READY_SECONDS = 180.0
STOP_SECONDS = 60.0


class WorkerProcess:
    """``embedding-service run`` with the given sections over a loopback port; output goes to files in ``directory``."""

    def __init__(self, directory: Path, config: Mapping[str, Any], *, environ: Mapping[str, str] | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.config = directory / "config.yaml"
        self.config.write_text(
            yaml.safe_dump({**config, "http": {"host": "127.0.0.1", "port": self.port, **config.get("http", {})}}),
            encoding="utf-8",
        )
        self._termination_log = directory / "termination-log"
        self._stderr = directory / "stderr"
        self._environ = {**os.environ, "HF_HUB_OFFLINE": "1", **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start the process; ``wait_ready`` waits for it."""
        self._termination_log.write_text("", encoding="utf-8")
        with self._stderr.open("ab") as stderr:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "embedding_service",
                    "run",
                    "--config",
                    str(self.config),
                    "--termination-log",
                    str(self._termination_log),
                ],
                env=self._environ,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
        return self

    @property
    def pid(self) -> int:
        """The process."""
        return self._running().pid

    @property
    def stderr(self) -> str:
        """What it has logged so far, of every start."""
        return self._stderr.read_text(encoding="utf-8")

    @property
    def termination_log(self) -> str:
        """Why it ended, in its own words; empty where it ended well."""
        return self._termination_log.read_text(encoding="utf-8")

    def request(self, path: str, *, method: str = "GET", token: str | None = None) -> tuple[int, Any]:
        """Status and body (parsed where it is JSON); status 0 where nobody listens."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=STOP_SECONDS) as response:
                return response.status, _body(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _body(error.read())
        except OSError:
            return 0, None

    def stats(self) -> dict[str, Any]:
        """``GET /stats``."""
        body: dict[str, Any] = self.request("/stats")[1] or {}
        return body

    def wait_ready(self) -> Self:
        """Wait until ``/readyz`` says so; fails early where the process has ended."""

        def ready() -> bool:
            if self._running().poll() is not None:
                raise AssertionError(f"the worker has ended with {self._running().returncode}:\n{self.stderr}")
            return self.request("/readyz")[0] == 200

        wait_until(ready, READY_SECONDS, "the worker is ready")
        return self

    def wait(self) -> int:
        """Wait until it ends by itself; return its exit code."""
        return self._running().wait(READY_SECONDS)

    def terminate(self) -> int:
        """SIGTERM; return the exit code after the drain."""
        self._running().send_signal(signal.SIGTERM)
        return self._running().wait(STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL."""
        self._running().kill()
        self._running().wait(STOP_SECONDS)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("not started")
        return self._process


def _body(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content.decode()

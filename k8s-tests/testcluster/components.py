"""The cluster's processes: each with a log, all in the cluster's cgroup, and none ends unnoticed while it starts."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from testcluster import cgroups
from testcluster.errors import ClusterUnavailable
from waiting import wait_until

LOG_TAIL_LINES = 25
READY_TIMEOUT_SECONDS = 90
# $0 is a file of the cgroup; the process puts itself there, so that its children are there too.
_ENTER = 'echo $$ >"$0" && exec "$@"'


class Components:
    """What was started here. They outlive this object; ``cleanup`` finds them by their cgroup."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._cgroup = cgroups.make()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str | Path) -> None:
        """Start a component, with its output in ``<name>.log``."""
        words = [str(word) for word in command]
        with (self._logs / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                ["sh", "-c", _ENTER, str(self._cgroup), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )

    def stop(self, name: str) -> None:
        """End a component in good order."""
        process = self._processes.pop(name)
        process.terminate()
        process.wait(timeout=READY_TIMEOUT_SECONDS)

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until ``condition`` holds.

        Raises ``ClusterUnavailable`` where it does not come to that, or a component ends meanwhile.
        """

        def holds() -> bool:
            self._check()
            return condition()

        try:
            wait_until(holds, READY_TIMEOUT_SECONDS, what)
        except TimeoutError as error:
            raise ClusterUnavailable(f"{error}; the components' logs are in {self._logs}") from None

    def _check(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise ClusterUnavailable(
                    f"{name} ended with {process.returncode} while the cluster started; "
                    f"{self._logs / name}.log ends:\n{self._tail(name)}"
                )

    def _tail(self, name: str) -> str:
        text = (self._logs / f"{name}.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])

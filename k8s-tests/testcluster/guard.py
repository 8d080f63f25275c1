"""A small process that removes a cluster once the test run that owns it lets go of it, or is gone."""

import os
import subprocess
import sys
from pathlib import Path

from testcluster import cache

_PYTHONPATH = ":".join(str(Path(__file__).parents[2] / name) for name in ("k8s-tests", "testing"))


def command(*arguments: str) -> list[str]:
    """Return the command line of ``python -m testcluster``."""
    return [sys.executable, "-m", "testcluster", *arguments]


def environment() -> dict[str, str]:
    """Return the environment in which ``python -m testcluster`` finds what it imports."""
    return os.environ | {"PYTHONPATH": _PYTHONPATH}


class Guard:
    """Runs ``python -m testcluster`` with ``arguments`` when its standard input closes.

    The kernel closes it however the test run ends, so no cluster is left behind, not even by SIGKILL.
    """

    def __init__(self, *arguments: str) -> None:
        self._log = cache.directory() / "guard.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        # Not a pipe: if the test run is gone, nobody reads, and the first word would be the last.
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", 'cat >/dev/null; exec "$@"', "guard", *command(*arguments)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment(),
                # Ctrl-C at the terminal is for the test run, which then lets go.
                start_new_session=True,
            )

    def release(self) -> tuple[int, str]:
        """Remove the cluster now; return the exit code and what was said."""
        self._process.communicate()
        return self._process.returncode, self._log.read_text()

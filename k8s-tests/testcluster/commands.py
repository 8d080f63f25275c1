"""Commands of this machine, run to their end, whose failure is told with their own words."""

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from testcluster.errors import CommandFailed

SHOWN = 3000  # characters of a failed command's output


def run(
    *command: str | Path,
    stdin: str | bytes | None = None,
    check: bool = True,
    environment: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it wrote.

    Raises ``CommandFailed`` where it can't be run, lasts too long, or (with ``check``) ends with an error.
    """
    words = [str(word) for word in command]
    data = stdin.encode() if isinstance(stdin, str) else stdin or b""
    try:
        done = subprocess.run(words, input=data, capture_output=True, check=False, env=environment, timeout=timeout)
    except FileNotFoundError:
        raise CommandFailed(f"{words[0]}: no such command") from None
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{shown(words)}: not done after {timeout:g} s") from None
    output, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if check and done.returncode != 0:
        raise CommandFailed(f"{shown(words)} ended with {done.returncode}:\n{(output + errors)[-SHOWN:].strip()}")
    return subprocess.CompletedProcess(words, done.returncode, output, errors)


def shown(words: Sequence[str]) -> str:
    """Return a command as one would type it, shortened."""
    line = shlex.join(words)
    return line if len(line) <= 200 else f"{line[:200]}…"

"""The machine that a benchmark ran on."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def machine(*packages: str) -> dict[str, str | int | None]:
    """What figures depend on: the code, the machine, and the versions of ``packages``."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return {
        "revision": _revision(),
        "system": platform.platform(),
        "processor": names[0].partition(": ")[2] if names else platform.processor(),
        "cores": os.cpu_count(),
        **{name: version(name) for name in packages},
    }


def _revision() -> str | None:
    """The commit of this checkout, and whether it is changed; ``None`` where it is none."""
    command = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12")
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None

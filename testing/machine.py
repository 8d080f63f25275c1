"""The machine that a benchmark ran on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def machine(*packages: str) -> dict[str, str | int | None]:
    """What figures depend on: the machine, and the versions of ``packages``."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return {
        "system": platform.platform(),
        "processor": names[0].partition(": ")[2] if names else platform.processor(),
        "cores": os.cpu_count(),
        **{name: version(name) for name in packages},
    }

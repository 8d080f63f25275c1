"""A running cluster, as tests use it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from testcluster.commands import run
from testcluster.tools import path

TIMEOUT_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Cluster:
    """``kind``: which one it is, in words. ``host_address``: where its pods reach servers of this machine."""

    kind: str
    kubeconfig: Path
    host_address: str
    # JSON lines of what service accounts asked of the API server, where it can be had.
    audit_log: Path | None
    # Makes an image that was built here known to the cluster; returns the name by which pods refer to it.
    load_image: Callable[[str], str]

    @property
    def commands(self) -> str:
        """The directories of ``kubectl`` and ``helm``, as they stand in PATH before a distribution's older ones."""
        return ":".join(str(path(name).parent) for name in ("kubectl", "helm"))

    @property
    def environment(self) -> dict[str, str]:
        """The environment for commands that work on the cluster."""
        return os.environ | {"KUBECONFIG": str(self.kubeconfig), "PATH": f"{self.commands}:{os.environ['PATH']}"}

    def kubectl(
        self,
        *arguments: str,
        input: str | None = None,  # noqa: A002 - as subprocess has it
        check: bool = True,
        timeout: float = TIMEOUT_SECONDS,
    ) -> CompletedProcess[str]:
        """Run ``kubectl``; raises ``CommandFailed`` with its words where it fails and ``check`` is set."""
        command = path("kubectl")
        return run(command, *arguments, stdin=input, check=check, environment=self.environment, timeout=timeout)

    def helm(self, *arguments: str, check: bool = True, timeout: float = TIMEOUT_SECONDS) -> CompletedProcess[str]:
        """Run ``helm``; raises ``CommandFailed`` with its words where it fails and ``check`` is set."""
        return run(path("helm"), *arguments, check=check, environment=self.environment, timeout=timeout)

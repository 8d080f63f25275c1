"""Which cluster the tests use on this machine."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from testcluster.commands import run
from testcluster.errors import ClusterUnavailable, CommandFailed

CURRENT_VARIABLE = "E2E_USE_CURRENT_CLUSTER"
ENGINES = ("docker", "podman")


class Kind(Enum):
    """Where the cluster comes from, in the order of preference."""

    CURRENT = "the current cluster"
    KIND = "kind, in a container"
    ONE_NODE = "one node of the real components on this machine"


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides. ``engine`` returns the container engine that runs; a function, for it takes long to find out."""

    use_current: str | None
    kubeconfig: str | None
    linux: bool
    root: bool
    engine: Callable[[], str | None]


def choose(machine: Machine) -> Kind:
    """Decide which cluster the tests use.

    Raises ``ClusterUnavailable`` saying what to do where there is nothing to choose from.
    """
    if machine.use_current not in (None, "", "0", "1"):
        raise ClusterUnavailable(f"{CURRENT_VARIABLE}={machine.use_current}: expected 1 (use it) or 0 (don't)")
    if machine.use_current == "1":
        if not machine.kubeconfig:
            raise ClusterUnavailable(f"{CURRENT_VARIABLE}=1 needs KUBECONFIG, the file of a cluster tests may write to")
        return Kind.CURRENT
    if machine.engine() is not None:
        return Kind.KIND
    if machine.linux and machine.root:
        return Kind.ONE_NODE
    raise ClusterUnavailable(
        "these tests need a Kubernetes cluster, and this machine has none: start Docker or Podman; or run them as root "
        f"on Linux, where they make a cluster themselves; or set {CURRENT_VARIABLE}=1 and KUBECONFIG to one that tests "
        "may write to"
    )


def this_machine(environ: Mapping[str, str]) -> Machine:
    """Look at what is here."""
    return Machine(
        use_current=environ.get(CURRENT_VARIABLE),
        kubeconfig=environ.get("KUBECONFIG"),
        linux=sys.platform == "linux",
        root=os.geteuid() == 0,
        engine=engine,
    )


def engine() -> str | None:
    """Return the container engine that runs here: ``docker`` or ``podman``."""
    return next((name for name in ENGINES if shutil.which(name) and _answers(name)), None)


def _answers(name: str) -> bool:
    try:
        # The client alone is often installed; `info` fails where no engine answers it.
        return run(name, "info", check=False, timeout=30).returncode == 0
    except CommandFailed:
        return False

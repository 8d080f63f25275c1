"""The cluster of a test run: the one that ``make cluster-up`` left running, or one of the run's own."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from testcluster import containerd_images, current, kind, locks, one_node
from testcluster.addresses import NODE_ADDRESS
from testcluster.choice import Kind, choose, this_machine
from testcluster.cluster import Cluster
from testcluster.errors import ClusterUnavailable
from testcluster.guard import Guard, command, environment
from testcluster.progress import Say
from testcluster.state import SHARED, State


@contextmanager
def cluster(say: Say) -> Iterator[Cluster]:
    """Give a cluster for as long as the block lasts.

    Raises ``ClusterUnavailable`` or ``CommandFailed`` where there is none, saying why.
    """
    chosen = choose(this_machine(os.environ))
    given = shared(chosen)
    if given is not None:
        say(f"Kubernetes: {given.kind}, at {given.kubeconfig}")
        yield given
        return
    with locks.owning() if chosen is Kind.ONE_NODE else _nobody():
        name = f"tests-{uuid.uuid4().hex[:8]}"
        # First the guard: this process may be killed while the cluster starts.
        guard = Guard("down", name)
        try:
            _start(name, say)
            own = _own(chosen, name)
            say(f"Kubernetes: {own.kind}, at {own.kubeconfig}")
            yield own
        finally:
            code, words = guard.release()
            if code != 0:
                say(f"the cluster could not be removed:\n{words}")


def shared(chosen: Kind) -> Cluster | None:
    """Return the cluster that was there before this run, if there is one."""
    if chosen is Kind.CURRENT:
        return current.cluster()
    if chosen is Kind.KIND:
        return kind.cluster(kind.SHARED) if kind.exists(kind.SHARED) else None
    running = one_node.running()
    return _one_node(running) if running is not None and running.owner == SHARED else None


def _own(chosen: Kind, name: str) -> Cluster:
    if chosen is Kind.KIND:
        return kind.cluster(name)
    running = one_node.running()
    if running is None or running.owner != name:
        raise ClusterUnavailable("the cluster of this run was removed by another")
    return _one_node(running)


def _one_node(running: State) -> Cluster:
    layout = running.layout
    return Cluster(
        kind=f"{Kind.ONE_NODE.value} (of {running.owner})",
        kubeconfig=layout.kubeconfig,
        host_address=NODE_ADDRESS,
        audit_log=layout.audit_log,
        load_image=containerd_images.load,
    )


def _start(name: str, say: Say) -> None:
    """Start a cluster by a process of its own, which leaves the components to nobody; and pass its words on."""
    process = subprocess.Popen(
        command("up", name), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines = []
    with process:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            say(f"  {lines[-1]}")
    if process.returncode != 0:
        raise ClusterUnavailable("\n".join(lines))


@contextmanager
def _nobody() -> Iterator[None]:
    yield

"""The one-node cluster starts on a clean machine and on one that a killed run has left, and leaves nothing itself."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from own_machine import OwnMachine
from testcluster import tools
from testcluster.choice import Kind, choose, this_machine
from testcluster.containerd import PAUSE_IMAGE
from testcluster.errors import CommandFailed
from waiting import wait_until

# The first test's fixture may build the cluster's components for minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600, func_only=True)]

# A test run, as far as the cluster is concerned.
RUN = """\
import os, signal
from testcluster import session
with session.cluster(lambda line: print(line, flush=True)) as cluster:
    print("ready", os.getpid(), flush=True)
    signal.pause()
"""


@pytest.fixture
def machine() -> Iterator[OwnMachine]:
    chosen = choose(this_machine(os.environ))
    if chosen is not Kind.ONE_NODE:
        pytest.skip(f"the tests use {chosen.value} here; nothing of this is ever used")
    for name in tools.TOOLS:
        tools.path(name)
    # pytest's own directories have names too long for sockets.
    with tempfile.TemporaryDirectory() as home, OwnMachine(Path(home)) as own:
        yield own


def kubectl(machine: OwnMachine, *arguments: str) -> str:
    return machine.run(tools.path("kubectl"), f"--kubeconfig={machine.layout.kubeconfig}", *arguments)


def run_a_pod(machine: OwnMachine) -> None:
    kubectl(machine, "run", "pod", f"--image={PAUSE_IMAGE}")
    kubectl(machine, "wait", "pod/pod", "--for=condition=Ready", "--timeout=180s")


def start_run(machine: OwnMachine) -> tuple[subprocess.Popen[str], str, list[str]]:
    """A test run whose cluster is ready, with its process id inside the machine, and what it said."""
    process = machine.start(sys.executable, "-c", RUN)
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("ready"):
            return process, line.split()[1], said
    pytest.fail("".join(said), pytrace=False)


def end(machine: OwnMachine, process: subprocess.Popen[str], signal: str, *pids: str) -> None:
    machine.run("kill", f"-{signal}", *pids)
    process.communicate()


def test_after_down_nothing_of_a_cluster_is_left_and_the_next_one_starts(machine: OwnMachine) -> None:
    before = machine.state()
    for _ in range(2):
        machine.testcluster("up")
        run_a_pod(machine)
        assert machine.leftovers()
        machine.testcluster("down")
        assert machine.leftovers() == []
        wait_until_as_it_was(machine, before)


def wait_until_as_it_was(machine: OwnMachine, before: Mapping[str, str]) -> None:
    """Wait until a machine is as before: what was killed is listed until its parent has heard of it."""
    with suppress(TimeoutError):
        wait_until(lambda: machine.state() == before, 60, "the machine is not as it was")
    assert machine.state() == before


def test_a_run_that_is_killed_leaves_nothing(machine: OwnMachine) -> None:
    before = machine.state()
    process, pid, _ = start_run(machine)
    run_a_pod(machine)
    end(machine, process, "KILL", pid)
    wait_until(lambda: not machine.leftovers(), 180, "the guard did not remove the cluster")
    wait_until_as_it_was(machine, before)


def test_a_run_after_one_that_was_killed_together_with_its_guard_starts_clean(machine: OwnMachine) -> None:
    process, pid, _ = start_run(machine)
    run_a_pod(machine)
    end(machine, process, "KILL", pid, *machine.run("pgrep", "-f", "^sh -c cat").split())
    assert machine.leftovers()
    process, pid, said = start_run(machine)
    assert "an earlier run has left something of its cluster here; removing it" in "".join(said)
    assert "No resources found" in kubectl(machine, "get", "pods")
    run_a_pod(machine)
    end(machine, process, "INT", pid)
    assert machine.leftovers() == []


def test_a_cluster_whose_start_was_killed_is_removed_by_the_next_one(machine: OwnMachine) -> None:
    process = machine.start(
        sys.executable,
        "-c",
        "import os, runpy; print(os.getpid(), flush=True); import sys; sys.argv = ['', 'up']; runpy.run_module('testcluster', run_name='__main__')",
    )
    assert process.stdout is not None
    pid = process.stdout.readline().strip()
    next(line for line in process.stdout if "containerd answers" in line)
    end(machine, process, "KILL", pid)
    assert machine.leftovers()
    machine.testcluster("up")
    run_a_pod(machine)


def test_a_second_run_is_refused_while_one_has_a_cluster_of_its_own(machine: OwnMachine) -> None:
    process, pid, _ = start_run(machine)
    for attempt in ([sys.executable, "-c", RUN], [sys.executable, "-m", "testcluster", "up"]):
        with pytest.raises(CommandFailed, match=f"process {pid} has a cluster of its own on this machine"):
            machine.run(*attempt)
    run_a_pod(machine)
    end(machine, process, "INT", pid)
    assert machine.leftovers() == []


def test_runs_share_the_cluster_that_was_started_for_them(machine: OwnMachine) -> None:
    machine.testcluster("up")
    first, first_pid, said = start_run(machine)
    second, second_pid, _ = start_run(machine)
    assert "(of make cluster-up)" in said[0]
    end(machine, first, "INT", first_pid)
    end(machine, second, "INT", second_pid)
    run_a_pod(machine)
    assert "runs already" in machine.testcluster("up")

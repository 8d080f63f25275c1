"""The commands behind ``make cluster-up``, ``cluster-env`` and ``cluster-down``; test runs use them too."""

import argparse
import os
import shlex
import sys

from testcluster import kind, layout, locks, one_node, remains, session, tools
from testcluster.choice import Kind, choose, this_machine
from testcluster.errors import ClusterUnavailable, CommandFailed
from testcluster.progress import Say, timed, to_stdout
from testcluster.state import SHARED


def main() -> int:
    """Run a command; return its exit code."""
    arguments = _arguments()
    try:
        _run(arguments.command, arguments.name, timed(to_stdout))
    except (ClusterUnavailable, CommandFailed, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="testcluster", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "env", "leftovers", "tools"])
    parser.add_argument("name", nargs="?", help="of a test run's own cluster; without it, the one that runs share")
    return parser.parse_args()


def _run(command: str, name: str | None, say: Say) -> None:
    if command == "tools":
        for tool in tools.TOOLS:
            print(tools.path(tool, say))
        return
    if command == "leftovers":
        print("\n".join(remains.leftovers(layout.default())), end="")
        return
    chosen = choose(this_machine(os.environ))
    if command == "env":
        _print_environment(chosen)
    elif chosen is Kind.CURRENT:
        say("the current cluster is somebody else's to start and stop")
    elif name is None:
        _shared(command, chosen, say)
    elif chosen is Kind.KIND:
        _kind(command, name, say)
    elif command == "up":
        one_node.up(name, say)
    else:
        one_node.down(say, owner=name)


def _shared(command: str, chosen: Kind, say: Say) -> None:
    if command == "up" and session.shared(chosen) is not None:
        say("the cluster runs already")
    elif chosen is Kind.KIND:
        _kind(command, kind.SHARED, say)
    else:
        # A test run that has a cluster of its own keeps it.
        with locks.owning():
            if command == "up":
                one_node.up(SHARED, say)
            else:
                one_node.down(say)


def _kind(command: str, name: str, say: Say) -> None:
    if command == "up":
        kind.up(name, say)
    else:
        kind.down(name)


def _print_environment(chosen: Kind) -> None:
    cluster = session.shared(chosen)
    if cluster is None:
        raise ClusterUnavailable("no cluster runs; start one with `make cluster-up`")
    print(f"export KUBECONFIG={shlex.quote(str(cluster.kubeconfig))}")
    print(f'export PATH={shlex.quote(cluster.commands)}:"$PATH"')


if __name__ == "__main__":
    sys.exit(main())

"""A machine inside this one, with a network, mounts and processes of its own: where tests start and kill clusters."""

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from testcluster import cache
from testcluster.commands import run
from testcluster.guard import command as testcluster
from testcluster.guard import environment
from testcluster.layout import Layout

# What a cluster writes outside its own directories. What another one has mounted there, or in its own, is taken away
# before: it would vanish in the midst of a test when a pod over there ends.
_HIDDEN = ("/run", "/var/lib/kubelet", "/var/lib/cni", "/var/log/containers")
_INIT = f"""\
ip link set lo up
awk '{{ print $2 }}' /proc/self/mounts | grep --extended-regexp "^({"|".join(_HIDDEN)}|$0)/" | sort --reverse |
    while read -r mount; do umount --lazy "$mount"; done
for directory in {" ".join(_HIDDEN)}; do mkdir -p $directory; mount -t tmpfs tmpfs $directory; done
echo ready
while :; do sleep 1000; done
"""


class OwnMachine:
    """Runs commands in namespaces that end, with all that runs in them, when the block ends."""

    def __init__(self, home: Path) -> None:
        self._environment = environment() | {
            "XDG_CACHE_HOME": str(home),
            "TESTCLUSTER_CGROUP": f"embsvc-{os.getpid()}-{time.monotonic_ns()}",
        }
        self.layout = Layout(home / "embedding-service" / "cluster")
        # Built once is enough.
        tools = home / "embedding-service" / "tools"
        tools.parent.mkdir()
        tools.symlink_to(cache.directory() / "tools")
        self._init: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        namespaces = ("--net", "--mount", "--pid", "--ipc", "--fork", "--mount-proc", "--kill-child")
        self._init = subprocess.Popen(
            ["unshare", *namespaces, "sh", "-c", _INIT, str(cache.directory().resolve())],
            stdout=subprocess.PIPE,
            text=True,
            env=self._environment,
        )
        assert self._init.stdout is not None
        assert self._init.stdout.readline() == "ready\n"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.testcluster("down", check=False)
        assert self._init is not None
        self._init.kill()
        self._init.communicate()

    def run(self, *command: str | Path, check: bool = True, stdin: str | None = None) -> str:
        """Run a command in it to its end; return what it wrote."""
        done = run(*self._inside(), *command, check=check, stdin=stdin, environment=self._environment)
        return done.stdout + done.stderr

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in it, whose output is to be read."""
        return subprocess.Popen(
            [*self._inside(), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
        )

    def testcluster(self, *arguments: str, check: bool = True) -> str:
        """Run ``python -m testcluster`` in it."""
        return self.run(*testcluster(*arguments), check=check)

    def leftovers(self) -> list[str]:
        """Return what of a cluster is in it."""
        return self.testcluster("leftovers").splitlines()

    def state(self) -> Mapping[str, str]:
        """Return what a cluster changes, as the machine itself says it."""
        settings = ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "vm.overcommit_memory", "kernel.panic")
        commands = {
            "links": "ip -brief link",
            "addresses": "ip -brief address",
            "rules": "ip rule",
            "routes": "ip route show table all",
            "mounts": "cut -d' ' -f2 /proc/mounts",
            "processes": "ps -eo comm= | grep -vE '^(ps|sh|grep|sort|sleep|nsenter)$' | sort",
            "firewall": "(iptables-save; ip6tables-save) | grep '^-A' || true",
            "settings": f"sysctl {' '.join(settings)}",
            "cgroups": 'find /sys/fs/cgroup -maxdepth 2 -name "$TESTCLUSTER_CGROUP"',
        }
        return {name: self.run("sh", "-c", line) for name, line in commands.items()}

    def _inside(self) -> tuple[str, ...]:
        assert self._init is not None
        # unshare itself stays outside of the processes' namespace; its child is the first one in it.
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        return ("nsenter", f"--target={children[0]}", "--net", "--mount", "--pid", "--ipc")

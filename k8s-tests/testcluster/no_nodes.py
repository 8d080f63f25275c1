"""A control plane without nodes, in a network of its own: for measurements of what only talks to the API server."""

import os
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess
from types import TracebackType
from typing import Self

from testcluster import cgroups, control_plane, kubeconfig, tools
from testcluster.addresses import API_SERVER, NODE_ADDRESS
from testcluster.certificates import Authority
from testcluster.commands import run
from testcluster.components import Components
from testcluster.layout import Layout

_INSIDE = "TESTCLUSTER_INSIDE"
# The pods of a pipeline are made and wait for a scheduler for ever.
_COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager")


def in_own_network() -> bool:
    """Whether this process is one that ``run_in_own_network`` started."""
    return _INSIDE in os.environ


def run_in_own_network() -> int:
    """Run this very command again where a second control plane has its addresses for itself; return its exit code.

    Everything that it starts ends with it. Needs root.
    """
    namespaces = ("--net", "--pid", "--fork", "--mount-proc", "--kill-child")
    try:
        return subprocess.run(
            ["unshare", *namespaces, sys.executable, *sys.argv], check=False, env=os.environ | {_INSIDE: "1"}
        ).returncode
    finally:
        cgroups.remove()


class NoNodes:
    """etcd, the API server and the controller manager; ``base`` is a directory of their own."""

    def __init__(self, base: Path) -> None:
        self.layout = Layout(base)
        self._components: Components | None = None
        self._authority: Authority | None = None

    def __enter__(self) -> Self:
        for name in ("kubectl", *_COMPONENTS):
            tools.path(name)
        for command in ("ip link set lo up", f"ip address replace {NODE_ADDRESS}/32 dev lo"):
            run(*command.split())
        for directory in (self.layout.run, self.layout.logs):
            directory.mkdir(parents=True)
        self._authority = control_plane.write_identities(self.layout)
        self._components = components = Components(self.layout.logs)
        control_plane.start_etcd(components, self.layout)
        control_plane.start_api_server(components, self.layout)
        components.wait(self._is_ready, "no answer from the API server")
        control_plane.start_controller_manager(components, self.layout)
        components.wait(self._has_service_account, "no answer from the controller manager")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._components is not None:
            for name in reversed(_COMPONENTS):
                self._components.stop(name)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> CompletedProcess[str]:
        """Run ``kubectl`` as the administrator."""
        config = f"--kubeconfig={self.layout.kubeconfig}"
        return run(tools.path("kubectl"), config, *arguments, stdin=stdin, check=check, timeout=900)

    def service_account(self, namespace: str, name: str) -> Path:
        """Return a kubeconfig of a client with the rights of a service account, which the audit log then shows."""
        assert self._authority is not None
        self._authority.issue(name, f"system:serviceaccount:{namespace}:{name}", group="system:serviceaccounts")
        file = self.layout.run / f"{name}.kubeconfig"
        kubeconfig.write(file, API_SERVER, self.layout.certificates, name)
        return file

    def _is_ready(self) -> bool:
        return self.kubectl("get", "--raw=/readyz", check=False).returncode == 0

    def _has_service_account(self) -> bool:
        return self.kubectl("get", "serviceaccount", "default", check=False).returncode == 0

"""One node of the real components on this machine: its start and its end."""

import json
import shutil
import socket
from pathlib import Path

from testcluster import cgroups, containerd, control_plane, dns, locks, network, node, packages, state, tools
from testcluster.addresses import DNS_PORT, NODE, NODE_ADDRESS
from testcluster.cleanup import clean
from testcluster.commands import run
from testcluster.components import Components
from testcluster.errors import ClusterUnavailable
from testcluster.layout import Layout, default
from testcluster.progress import Say
from testcluster.remains import leftovers
from testcluster.state import State

_NEEDED = (
    *("kubectl", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"),
    *("kubelet", "kube-proxy", "coredns", "pause"),
)
_READY = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'


def up(owner: str, say: Say) -> State:
    """Start a cluster, which outlives this process, and return once a pod can run in it.

    Raises ``ClusterUnavailable`` or ``CommandFailed``; nothing is left then.
    """
    with locks.changing(say):
        packages.ensure(packages.NODE, say)
        for name in _NEEDED:
            tools.path(name, say)
        _refuse_other_nodes()
        started = State(owner, default())
        _clean_up_after_others(started.layout, say)
        state.write(started)
        try:
            _start(started.layout, say)
        except BaseException:
            clean(started.layout, say)
            raise
    return started


def down(say: Say, *, owner: str | None = None) -> None:
    """Remove the cluster; with ``owner``, only if it is that one's."""
    with locks.changing(say):
        known = state.read()
        if owner is None or (known is not None and known.owner == owner):
            clean(known.layout if known else default(), say)


def running() -> State | None:
    """Return the cluster of this machine, if its API server answers."""
    known = state.read()
    if known is None or not known.layout.kubeconfig.exists() or not cgroups.processes():
        return None
    return known if _api_server_is_ready(known.layout) else None


def _refuse_other_nodes() -> None:
    ours = cgroups.processes()
    for file in Path("/proc").glob("[0-9]*/comm"):
        try:
            name = file.read_text().strip()
        except OSError:
            # It has ended.
            continue
        if name in ("kubelet", "kube-proxy") and int(file.parent.name) not in ours:
            raise ClusterUnavailable(
                f"this machine is a Kubernetes node already ({name} is process {file.parent.name}): set "
                "E2E_USE_CURRENT_CLUSTER=1 and KUBECONFIG to test on its cluster, or end it"
            )


def _clean_up_after_others(layout: Layout, say: Say) -> None:
    known = state.read()
    if known is not None or leftovers(layout):
        say("an earlier run has left something of its cluster here; removing it")
        clean(known.layout if known else layout, say)


def _start(layout: Layout, say: Say) -> None:
    for directory in (layout.run, layout.logs):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    network.change_settings()
    network.make_bridge()
    network.write_pod_network(layout)
    control_plane.write_identities(layout)
    say("bridge and certificates made")
    components = Components(layout.logs)
    control_plane.start_etcd(components, layout)
    control_plane.start_api_server(components, layout)
    containerd.start(components, layout)
    containerd.load_pause_image()
    say("containerd answers")
    components.wait(lambda: _api_server_is_ready(layout), "no answer from the API server")
    say("the API server is ready")
    control_plane.start_controller_manager(components, layout)
    control_plane.start_scheduler(components, layout)
    node.start(components, layout)
    dns.start(components, layout)
    for item in dns.objects():
        run(*_kubectl(layout), "apply", "--filename=-", stdin=json.dumps(item))
    components.wait(lambda: _node_is_ready(layout), f"{NODE} is not Ready")
    say(f"{NODE} is Ready")
    components.wait(lambda: _exists(layout, "serviceaccount", "default"), "no service account for pods")
    components.wait(_dns_answers, "no answer from CoreDNS")
    say("names are resolved; pods can run")


def _kubectl(layout: Layout) -> tuple[str | Path, ...]:
    return (tools.path("kubectl"), f"--kubeconfig={layout.kubeconfig}", "--request-timeout=10s")


def _api_server_is_ready(layout: Layout) -> bool:
    return run(*_kubectl(layout), "get", "--raw=/readyz", check=False).returncode == 0


def _node_is_ready(layout: Layout) -> bool:
    return run(*_kubectl(layout), "get", "node", NODE, f"--output={_READY}", check=False).stdout == "True"


def _exists(layout: Layout, kind: str, name: str) -> bool:
    return run(*_kubectl(layout), "get", kind, name, check=False).returncode == 0


def _dns_answers() -> bool:
    try:
        socket.create_connection((NODE_ADDRESS, DNS_PORT), timeout=1).close()
    except OSError:
        return False
    return True

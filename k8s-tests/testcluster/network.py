"""The bridge between the pods and this machine, its routes, and the settings of the kernel that a node changes."""

import json
from pathlib import Path

from testcluster.addresses import BRIDGE, BRIDGE_MAC, NODE_ADDRESS, PODS, SERVICES
from testcluster.commands import run
from testcluster.layout import CNI_NETWORK, RUNTIME, Layout

# A table of routes for what comes from the pods, and the rule that leads there.
TABLE = "8510"
SETTINGS = {"net.ipv4.ip_forward": "1", "net.bridge.bridge-nf-call-iptables": "1"}
# The kubelet, kube-proxy and the bridge plugin change these without being asked.
OTHERS = (
    "net.ipv4.conf.all.forwarding",
    "net.ipv4.conf.all.route_localnet",
    "net.netfilter.nf_conntrack_max",
    "vm.overcommit_memory",
    "vm.panic_on_oom",
    "kernel.panic",
    "kernel.panic_on_oops",
    "kernel.keys.root_maxkeys",
    "kernel.keys.root_maxbytes",
)
_SAVED = RUNTIME / "settings.json"
_SYS = Path("/proc/sys")


def make_bridge() -> None:
    """Make the bridge and the routes; nothing that a pod sends leaves this machine."""
    run("ip", "link", "add", BRIDGE, "address", BRIDGE_MAC, "type", "bridge")
    run("ip", "address", "add", f"{NODE_ADDRESS}/16", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")
    # A Service address that nothing answers must die here, not leave by the default route.
    run("ip", "route", "replace", SERVICES, "dev", BRIDGE)
    for route in ((PODS, "dev", BRIDGE), (SERVICES, "dev", BRIDGE), ("unreachable", "default")):
        run("ip", "route", "replace", *([*route, "table", TABLE]))
    run("ip", "rule", "add", "iif", BRIDGE, "lookup", TABLE, "priority", TABLE)


def change_settings() -> None:
    """Change the kernel's settings, and keep the old ones for ``restore_settings``."""
    if not (_SYS / "net/bridge").exists():
        run("modprobe", "br_netfilter")
    if not _SAVED.exists():
        found = {name: value for name in (*SETTINGS, *OTHERS) if (value := _read(name)) is not None}
        _SAVED.write_text(json.dumps(found))
    for name, value in SETTINGS.items():
        _file(name).write_text(value)


def restore_settings() -> None:
    """Give the kernel's settings the values that they had before the cluster."""
    if _SAVED.exists():
        for name, value in json.loads(_SAVED.read_text()).items():
            if _read(name) != value:
                _file(name).write_text(value)


def write_pod_network(layout: Layout) -> None:
    """Write the configuration by which containerd gives each pod its address."""
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": False,
        # Or a pod could not reach its own Service.
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(layout.run / "addresses"),
            "ranges": [[{"subnet": PODS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    layout.network.mkdir()
    network = {"cniVersion": "0.4.0", "name": CNI_NETWORK, "plugins": [bridge]}
    (layout.network / "10-bridge.conflist").write_text(json.dumps(network))


def _file(name: str) -> Path:
    return _SYS / name.replace(".", "/")


def _read(name: str) -> str | None:
    try:
        return _file(name).read_text().strip()
    except OSError:
        # Not every kernel has each of them.
        return None

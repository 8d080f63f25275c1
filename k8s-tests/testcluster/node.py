"""What makes this machine a node: the kubelet and kube-proxy."""

from typing import Any

import yaml

from testcluster.addresses import DNS_SERVICE, DOMAIN, LOOPBACK, NODE, NODE_ADDRESS, PODS
from testcluster.components import Components
from testcluster.layout import CGROUP, CONTAINERD_SOCKET, Layout
from testcluster.tools import path


def start(components: Components, layout: Layout) -> None:
    """Start the kubelet and kube-proxy."""
    (layout.run / "resolv.conf").write_text(f"nameserver {DNS_SERVICE}\n")
    kubelet, proxy = layout.run / "kubelet.yaml", layout.run / "kube-proxy.yaml"
    kubelet.write_text(yaml.safe_dump(_kubelet(layout)))
    proxy.write_text(yaml.safe_dump(_proxy(layout)))
    components.start(
        "kubelet",
        *(path("kubelet"), f"--config={kubelet}", f"--kubeconfig={layout.run}/kubelet.kubeconfig"),
        *(f"--root-dir={layout.run}/kubelet", f"--hostname-override={NODE}", f"--node-ip={NODE_ADDRESS}"),
    )
    components.start("kube-proxy", path("kube-proxy"), f"--config={proxy}")


def _kubelet(layout: Layout) -> dict[str, Any]:
    keys = layout.certificates
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "healthzBindAddress": LOOPBACK,
        "readOnlyPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": f"{keys}/ca.crt"},
        },
        # Whoever has a certificate of this cluster; pods have none.
        "authorization": {"mode": "AlwaysAllow"},
        "tlsCertFile": f"{keys}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{keys}/kubelet-server.key",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "clusterDomain": DOMAIN,
        "clusterDNS": [DNS_SERVICE],
        "resolvConf": f"{layout.run}/resolv.conf",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "volumePluginDir": f"{layout.run}/volume-plugins",
        "podLogsDir": f"{layout.run}/pod-logs",
        "nodeStatusUpdateFrequency": "5s",
        "serializeImagePulls": False,
        # Images come by hand; one that was collected would be missed.
        "imageMinimumGCAge": "24h",
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    }


def _proxy(layout: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": f"{layout.run}/kube-proxy.kubeconfig"},
        "hostnameOverride": NODE,
        "bindAddress": NODE_ADDRESS,
        "healthzBindAddress": f"{LOOPBACK}:10256",
        "metricsBindAddress": f"{LOOPBACK}:10249",
        "clusterCIDR": PODS,
        "detectLocalMode": "ClusterCIDR",
        "nodePortAddresses": [PODS],
        # Or it would change limits of the whole machine, which not every root may do.
        "conntrack": {"maxPerCore": 0, "tcpCloseWaitTimeout": "0s", "tcpEstablishedTimeout": "0s"},
        "iptables": {"localhostNodePorts": False, "minSyncPeriod": "100ms", "syncPeriod": "30s"},
    }

"""Names of Services: CoreDNS, a process of this machine behind the Service ``kube-dns``."""

from typing import Any

from testcluster.addresses import API_SERVER, DNS_PORT, DNS_SERVICE, DOMAIN, NODE_ADDRESS
from testcluster.components import Components
from testcluster.layout import Layout
from testcluster.tools import path

# Two blocks, for in one of them `template` would answer before `kubernetes`. No other name exists here.
_COREFILE = """\
.:{port} {{
    bind {address}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
{domain}:{port} in-addr.arpa:{port} {{
    bind {address}
    errors
    kubernetes {domain} in-addr.arpa {{
        endpoint {server}
        kubeconfig {kubeconfig} test
        pods insecure
        ttl 5
    }}
    cache 5
}}
"""


def start(components: Components, layout: Layout) -> None:
    """Start CoreDNS."""
    corefile = layout.run / "Corefile"
    kubeconfig = layout.run / "coredns.kubeconfig"
    corefile.write_text(
        _COREFILE.format(port=DNS_PORT, address=NODE_ADDRESS, domain=DOMAIN, server=API_SERVER, kubeconfig=kubeconfig)
    )
    components.start("coredns", path("coredns"), "-conf", corefile)


def objects() -> list[dict[str, Any]]:
    """Return the Service by which pods find CoreDNS, and the endpoint behind it."""
    protocols = {"dns": "UDP", "dns-tcp": "TCP"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {
            "clusterIP": DNS_SERVICE,
            "ports": [
                {"name": name, "port": 53, "protocol": protocol, "targetPort": DNS_PORT}
                for name, protocol in protocols.items()
            ],
        },
    }
    labels = {
        "kubernetes.io/service-name": "kube-dns",
        "endpointslice.kubernetes.io/managed-by": "testcluster",
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns-host", "namespace": "kube-system", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
        "ports": [{"name": name, "port": DNS_PORT, "protocol": protocol} for name, protocol in protocols.items()],
    }
    return [service, endpoints]

"""etcd, the API server, the controller manager and the scheduler: their certificates and their command lines."""

from testcluster import audit, kubeconfig
from testcluster.addresses import (
    API_PORT,
    API_SERVER,
    API_SERVICE,
    DOMAIN,
    ETCD,
    ETCD_PEER_PORT,
    LOOPBACK,
    NODE,
    NODE_ADDRESS,
    SERVICES,
)
from testcluster.certificates import Authority, write_signing_keys
from testcluster.components import Components
from testcluster.layout import Layout
from testcluster.tools import path

_API_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}")
# Tests wait for every step of these: the defaults leave seconds between them.
_QUICK_CLIENT = ("--kube-api-qps=300", "--kube-api-burst=600", "--leader-elect=false")
_QUICK_AUTOSCALER = (
    "--horizontal-pod-autoscaler-sync-period=2s",
    "--horizontal-pod-autoscaler-downscale-stabilization=5s",
    "--horizontal-pod-autoscaler-initial-readiness-delay=0s",
    "--horizontal-pod-autoscaler-cpu-initialization-period=0s",
)


def write_identities(layout: Layout) -> Authority:
    """Write the certificates of all components and the kubeconfigs of those that are clients; return who signed."""
    authority = Authority(layout.certificates)
    write_signing_keys(layout.certificates)
    authority.issue(
        "apiserver", "kube-apiserver", hosts=(*_API_NAMES, "localhost", "127.0.0.1", API_SERVICE, NODE_ADDRESS)
    )
    authority.issue("kubelet-server", f"system:node:{NODE}", group="system:nodes", hosts=(NODE, NODE_ADDRESS))
    authority.issue("kubelet-client", "kube-apiserver-kubelet-client")
    authority.issue("front-proxy", "front-proxy")
    users = {
        "admin": ("admin", "system:masters"),
        "controller-manager": ("system:kube-controller-manager", None),
        "scheduler": ("system:kube-scheduler", None),
        "kubelet": (f"system:node:{NODE}", "system:nodes"),
        "kube-proxy": ("system:kube-proxy", None),
        "coredns": ("coredns", "system:masters"),
    }
    for user, (name, group) in users.items():
        authority.issue(user, name, group=group)
        kubeconfig.write(layout.run / f"{user}.kubeconfig", API_SERVER, layout.certificates, user)
    return authority


def start_etcd(components: Components, layout: Layout) -> None:
    """Start etcd, whose data is worth nothing after the run."""
    peer = f"http://{LOOPBACK}:{ETCD_PEER_PORT}"
    components.start(
        "etcd",
        *(path("etcd"), f"--name={NODE}", f"--data-dir={layout.run / 'etcd'}", "--unsafe-no-fsync"),
        *(f"--listen-client-urls={ETCD}", f"--advertise-client-urls={ETCD}"),
        *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster={NODE}={peer}"),
    )


def start_api_server(components: Components, layout: Layout) -> None:
    """Start the API server, with aggregation, Pod Security and an audit log."""
    keys = layout.certificates
    policy = layout.run / "audit-policy.yaml"
    audit.write_policy(policy)
    components.start(
        "kube-apiserver",
        *(path("kube-apiserver"), f"--etcd-servers={ETCD}", f"--service-cluster-ip-range={SERVICES}"),
        *(f"--bind-address={NODE_ADDRESS}", f"--advertise-address={NODE_ADDRESS}", f"--secure-port={API_PORT}"),
        *(f"--tls-cert-file={keys}/apiserver.crt", f"--tls-private-key-file={keys}/apiserver.key"),
        *(f"--client-ca-file={keys}/ca.crt", "--anonymous-auth=false", "--authorization-mode=Node,RBAC"),
        "--enable-admission-plugins=NodeRestriction",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        *(f"--service-account-key-file={keys}/sa.pub", f"--service-account-signing-key-file={keys}/sa.key"),
        *(f"--requestheader-client-ca-file={keys}/ca.crt", "--requestheader-allowed-names=front-proxy"),
        *("--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group"),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        *(f"--proxy-client-cert-file={keys}/front-proxy.crt", f"--proxy-client-key-file={keys}/front-proxy.key"),
        "--enable-aggregator-routing",
        f"--kubelet-client-certificate={keys}/kubelet-client.crt",
        f"--kubelet-client-key={keys}/kubelet-client.key",
        *(f"--kubelet-certificate-authority={keys}/ca.crt", "--kubelet-preferred-address-types=InternalIP"),
        *(f"--audit-policy-file={policy}", f"--audit-log-path={layout.audit_log}", "--audit-log-mode=blocking"),
    )


def start_controller_manager(components: Components, layout: Layout) -> None:
    """Start the controller manager."""
    keys = layout.certificates
    components.start(
        "kube-controller-manager",
        *(path("kube-controller-manager"), f"--kubeconfig={layout.run}/controller-manager.kubeconfig"),
        *(f"--bind-address={LOOPBACK}", f"--root-ca-file={keys}/ca.crt"),
        *(f"--service-account-private-key-file={keys}/sa.key", "--use-service-account-credentials"),
        *(*_QUICK_CLIENT, *_QUICK_AUTOSCALER),
    )


def start_scheduler(components: Components, layout: Layout) -> None:
    """Start the scheduler."""
    components.start(
        "kube-scheduler",
        *(path("kube-scheduler"), f"--kubeconfig={layout.run}/scheduler.kubeconfig", f"--bind-address={LOOPBACK}"),
        *_QUICK_CLIENT,
    )

"""The real KEDA: its operator and its adapter as processes of this machine, and its resource definitions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from host_process import HostProcess
from hosted_api import hosted_api
from kafka_node import free_ports
from testcluster.cluster import Cluster
from testcluster.tools import TOOLS, path, sources

NAMESPACE = "keda"
# By which the adapter knows the operator; KEDA's own default, which its certificate names.
_AUTHORITY = "keda-operator.keda.svc.cluster.local"


@contextmanager
def keda(cluster: Cluster, directory: Path) -> Iterator[None]:
    """Run it while the block does; its logs are in ``directory``. Its resource definitions go with it."""
    definitions = sources(TOOLS["keda-operator"]) / "config" / "crd" / "bases"
    cluster.kubectl("create", "namespace", NAMESPACE)
    # As its own instructions have it: they are too large for an annotation.
    cluster.kubectl("apply", "--server-side", f"--filename={definitions}")
    with _running(cluster, directory):
        try:
            yield
        finally:
            # While it runs: with nobody to let go of its objects they would stay, and the definitions with them.
            cluster.kubectl("delete", f"--filename={definitions}")
            cluster.kubectl("delete", "namespace", NAMESPACE)


@contextmanager
def _running(cluster: Cluster, directory: Path) -> Iterator[None]:
    certificates = directory / "keda-certificates"
    _write_certificates(certificates)
    grpc, api, metrics, probes, adapters = free_ports(5)
    config = {"KUBECONFIG": str(cluster.kubeconfig), "WATCH_NAMESPACE": ""}
    config |= dict.fromkeys(("POD_NAMESPACE", "KEDA_CLUSTER_OBJECT_NAMESPACE"), NAMESPACE)
    operator: tuple[str | Path, ...] = (
        *(path("keda-operator"), f"--cert-dir={certificates}", f"--metrics-service-bind-address=127.0.0.1:{grpc}"),
        *(f"--metrics-bind-address=127.0.0.1:{metrics}", f"--health-probe-bind-address=127.0.0.1:{probes}"),
        "--enable-webhook-patching=false",
    )
    adapter: tuple[str | Path, ...] = (
        *(path("keda-adapter"), f"--secure-port={api}", f"--bind-address={cluster.host_address}"),
        *(f"--port={adapters}", f"--cert-dir={certificates}", f"--client-ca-file={certificates / 'ca.crt'}"),
        *(f"--tls-cert-file={certificates / 'tls.crt'}", f"--tls-private-key-file={certificates / 'tls.key'}"),
        *(f"--metrics-service-address=127.0.0.1:{grpc}", f"--metrics-service-grpc-authority={_AUTHORITY}"),
        *(f"--{use}-kubeconfig={cluster.kubeconfig}" for use in ("authentication", "authorization", "lister")),
    )
    with (
        HostProcess(directory / "keda-operator.log", *operator, environment=config) as scaler,
        HostProcess(directory / "keda-adapter.log", *adapter, environment=config) as server,
        hosted_api(cluster, "external.metrics.k8s.io", "v1beta1", api, server.check),
    ):
        scaler.check()
        yield
        scaler.check()


def _write_certificates(directory: Path) -> None:
    directory.mkdir(exist_ok=True)
    authority = trustme.CA()
    issued = authority.issue_cert(_AUTHORITY, "localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(directory / "ca.crt")
    issued.cert_chain_pems[0].write_to_path(directory / "tls.crt")
    issued.private_key_pem.write_to_path(directory / "tls.key")

"""The real metrics-server, which tells the autoscaler the CPU of pods."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from host_process import HostProcess
from hosted_api import hosted_api
from kafka_node import free_port
from testcluster.cluster import Cluster
from testcluster.tools import path

# The shortest that it takes; its default is four times a minute.
_RESOLUTION_SECONDS = 10


@contextmanager
def metrics_server(cluster: Cluster, directory: Path) -> Iterator[None]:
    """Run it while the block does; its log is in ``directory``."""
    port, config = free_port(), cluster.kubeconfig
    command = (
        *(path("metrics-server"), f"--kubeconfig={config}", f"--authentication-kubeconfig={config}"),
        *(f"--authorization-kubeconfig={config}", f"--cert-dir={directory / 'certificates'}"),
        *(f"--bind-address={cluster.host_address}", f"--secure-port={port}"),
        # The kubelet's own certificate is of another authority than it knows.
        *("--kubelet-insecure-tls", "--kubelet-preferred-address-types=InternalIP"),
        *(f"--metric-resolution={_RESOLUTION_SECONDS}s", "--kubelet-request-timeout=5s"),
    )
    with (
        HostProcess(directory / "metrics-server.log", *command) as server,
        hosted_api(cluster, "metrics.k8s.io", "v1beta1", port, server.check),
    ):
        yield

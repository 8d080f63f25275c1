"""An API that extends Kubernetes' own, served by a process of this machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from testcluster.cluster import Cluster
from waiting import wait_until

ANSWER_SECONDS = 120
_NAMESPACE = "kube-system"

Object = dict[str, Any]


@contextmanager
def hosted_api(
    cluster: Cluster, group: str, version: str, port: int, check: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Have the API server ask ``port`` of this machine for a group; returns once that answers.

    ``check`` raises where it never will.
    Left in the cluster it would keep every namespace from being deleted, so it goes with the block.
    """

    def answers() -> bool:
        check()
        return is_served(cluster, f"{group}/{version}")

    service = "jsonpath={.spec.service.name}"
    owner = cluster.kubectl("get", "apiservice", f"{version}.{group}", "--ignore-not-found", "--output", service).stdout
    # A run that was killed may have left one of these.
    assert owner in ("", _name(group)), f"'{owner}' serves {group} in this cluster: use one where nobody does"
    objects = yaml.safe_dump_all(_objects(cluster.host_address, group, version, port))
    cluster.kubectl("apply", "--filename=-", input=objects)
    try:
        wait_until(answers, ANSWER_SECONDS, f"{group} isn't served", interval=0.5)
        yield
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "--filename=-", input=objects)


def is_served(cluster: Cluster, group_version: str) -> bool:
    """Whether somebody answers."""
    return cluster.kubectl("get", f"--raw=/apis/{group_version}", check=False).returncode == 0


def _name(group: str) -> str:
    return "hosted-" + group.replace(".", "-")


def _objects(address: str, group: str, version: str, port: int) -> list[Object]:
    name = _name(group)
    metadata = {"name": name, "namespace": _NAMESPACE}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"ports": [{"name": "api", "port": 443}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata | {"labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
            "ports": [{"name": "api", "port": port}],
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": f"{version}.{group}"},
            "spec": {
                "group": group,
                "version": version,
                "service": {"name": name, "namespace": _NAMESPACE},
                # Each makes itself a certificate.
                "insecureSkipTLSVerify": True,
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
            },
        },
    ]

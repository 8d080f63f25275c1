"""Fixtures of the tests on a cluster: the cluster itself, and namespaces that no other test has."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from announcing import announcer
from testcluster import session
from testcluster.cluster import Cluster
from testcluster.errors import ClusterUnavailable, CommandFailed
from waiting import wait_until

TEST_TIMEOUT_SECONDS = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a test's time limit be its own: the first one's fixture may build the cluster's components for minutes."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_SECONDS, func_only=True))


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Give the Kubernetes cluster that all tests share; use ``namespace``, or names of the test's own."""
    running = session.cluster(announcer(request.config))
    problem = ""
    try:
        given = running.__enter__()
    except (ClusterUnavailable, CommandFailed) as error:
        problem = str(error)
    if problem:
        # Outside the handler, or pytest would show the same text twice.
        pytest.fail(problem, pytrace=False)
    yield given
    running.__exit__(None, None, None)


@pytest.fixture
def namespace(cluster: Cluster, unique: str) -> Iterator[str]:
    """Make a namespace that enforces the Pod Security profile ``restricted``, and delete it after the test."""
    with restricted_namespace(cluster, unique[-63:].strip("-")) as name:
        yield name


@contextmanager
def restricted_namespace(cluster: Cluster, name: str) -> Iterator[str]:
    """Make such a namespace, for several tests together; pods can be made in it at once."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    # Not labelled afterwards: a pod may be judged by what the API server knew of the namespace before.
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    cluster.kubectl("create", "-f", "-", input=json.dumps(namespace))
    try:
        # A controller makes it, and without it there is no pod.
        account = ("--namespace", name, "get", "serviceaccount", "default")
        wait_until(lambda: cluster.kubectl(*account, check=False).returncode == 0, 120, "no service account")
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")

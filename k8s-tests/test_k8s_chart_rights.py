"""The chart on a cluster, without its operator running: what the API server says of the objects, and who may do what."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

import embedding_service
from testcluster.cluster import Cluster
from waiting import wait_until

CHART = Path(__file__).parents[1] / "charts" / "embedding-service"
CI = sorted((CHART / "ci").glob("*-values.yaml"))

# No pod of these tests has to start, and no registry may be asked for its image.
NO_IMAGES = ("--set", "image.pullPolicy=Never")

HEED_SECONDS = 120

pytestmark = pytest.mark.slow


@pytest.fixture
def release(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A release that runs the pipelines of its own namespace, with the resource definition left to others."""
    name = "rights"
    only_here = ("--set", f"watchNamespaces={{{namespace}}}", "--set", "crds.enabled=false")
    cluster.helm("install", name, str(CHART), "--namespace", namespace, *only_here, *NO_IMAGES)
    yield name
    cluster.helm("uninstall", name, "--namespace", namespace)


def may(cluster: Cluster, user: str, verb: str, resource: str, namespace: str) -> bool:
    """Whether a user may; ``resource`` is ``<group>/<plural>`` or ``<group>/<plural>/<subresource>``.

    Not by `kubectl auth can-i`, which wants to know the resource.
    """
    group, plural, *subresource = resource.split("/")
    asked = {"verb": verb, "group": group, "resource": plural, "namespace": namespace}
    if subresource:
        asked["subresource"] = subresource[0]
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": asked},
    }
    answer = cluster.kubectl("create", "-f", "-", "-o", "jsonpath={.status.allowed}", input=json.dumps(review))
    return answer.stdout == "true"


@pytest.mark.parametrize("values", CI, ids=lambda path: path.name)
def test_api_server_takes_every_object_of_the_chart(cluster: Cluster, namespace: str, values: Path) -> None:
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
    watched = yaml.safe_load(values.read_text(encoding="utf-8")).get("watchNamespaces")
    here = ("--set", f"watchNamespaces={{{namespace}}}") if watched else ()
    rendered = cluster.helm(
        "template",
        "es",
        str(CHART),
        "--namespace",
        namespace,
        "--kube-version",
        "1.34.2",
        "--values",
        str(values),
        *here,
    )
    # Kinds that this cluster doesn't have: the pure tests look at these.
    documents = [
        document
        for document in yaml.safe_load_all(rendered.stdout)
        if document and document["kind"] not in ("EmbeddingPipeline", "ServiceMonitor")
    ]
    applied = cluster.kubectl(
        *("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--filename=-"),
        input=yaml.safe_dump_all(documents),
    )
    assert applied.stdout.count("\n") == len(documents)
    assert applied.stderr == ""


@pytest.mark.usefixtures("release")
def test_operator_may_do_its_work_in_its_namespace_and_nothing_elsewhere(cluster: Cluster, namespace: str) -> None:
    operator = f"system:serviceaccount:{namespace}:rights-embedding-service-operator"
    expected = {
        ("watch", "embeddings.dev/embeddingpipelines"): True,
        ("patch", "embeddings.dev/embeddingpipelines/status"): True,
        ("create", "apps/deployments"): True,
        ("patch", "apps/deployments/scale"): True,
        ("get", "/secrets"): True,
        ("list", "/secrets"): False,
        ("delete", "autoscaling/horizontalpodautoscalers"): True,
        ("delete", "apps/deployments"): False,
        ("delete", "/pods"): False,
        ("create", "embeddings.dev/embeddingpipelines"): False,
        ("create", "rbac.authorization.k8s.io/roles"): False,
    }

    def answers() -> dict[tuple[str, str], bool]:
        return {asked: may(cluster, operator, *asked, namespace) for asked in expected}

    # The API server takes a moment to heed a new role.
    with suppress(TimeoutError):
        wait_until(lambda: answers() == expected, HEED_SECONDS, "the operator may do something else")
    assert answers() == expected
    assert not any(may(cluster, operator, *asked, "default") for asked in expected)


@pytest.mark.usefixtures("release")
def test_viewers_read_pipelines_and_editors_write_them(cluster: Cluster, namespace: str) -> None:
    for user, role in (("reader", "view"), ("writer", "edit")):
        cluster.kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={user}", "-n", namespace)
    pipelines = "embeddings.dev/embeddingpipelines"
    # A controller adds the chart's roles to the cluster's.
    wait_until(lambda: may(cluster, "reader", "watch", pipelines, namespace), HEED_SECONDS, "a viewer reads pipelines")
    wait_until(
        lambda: may(cluster, "writer", "deletecollection", pipelines, namespace), HEED_SECONDS, "an editor writes them"
    )
    assert may(cluster, "reader", "get", f"{pipelines}/status", namespace)
    assert not may(cluster, "reader", "patch", pipelines, namespace)
    assert may(cluster, "writer", "patch", f"{pipelines}/scale", namespace)
    assert not may(cluster, "writer", "patch", f"{pipelines}/status", namespace)


def test_notes_name_the_release_and_what_to_verify(cluster: Cluster, namespace: str) -> None:
    kafka = ("--set", "test.kafka.bootstrapServers={kafka:9092}", "--set", "crds.enabled=false")
    shown = cluster.helm("install", "es", str(CHART), "--namespace", namespace, "--dry-run=server", *kafka).stdout
    notes = shown.partition("NOTES:")[2]
    assert f"run in all namespaces, with workers of embedding-worker:{embedding_service.__version__}" in notes
    assert f"kubectl rollout status deployment/es-embedding-service-operator --namespace {namespace}" in notes
    assert f"helm test es --namespace {namespace} --timeout 300s" in notes
    assert "crds.enabled is false" in notes

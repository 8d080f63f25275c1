"""The resource on a real API server: what it accepts, in which words it refuses, and what kubectl shows of it."""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from crd_cel_rows import CEL_ROWS, CelRow, changed, rules
from crd_manifests import ABSENT, STATUS, every_field, quickstart, reported, value_at
from crd_schema_rows import ROWS, closed, limit, required, with_field, wrong_types
from crd_values import specs
from embedding_operator import crd, manifest
from pipeline_requests import Cause, Document, Pipelines, Refused, pipelines
from testcluster.cluster import Cluster
from waiting import wait_until

pytestmark = pytest.mark.slow

CRD = Path(__file__).parents[1] / "crds" / "embeddingpipelines.embeddings.dev.yaml"
RESOURCE = CRD.stem
STORED = "stored"
GROUP_VERSION = f"apis/{crd.api_version()}"
# Our fields; kind, apiVersion and metadata are every object's.
DESCRIPTIONS = {
    path: node["description"]
    for path, node in crd.schemas()
    if path.startswith(("spec", "status")) and "description" in node
}


def published(cluster: Cluster) -> dict[str, str | None]:
    """The descriptions of our fields, as the API server gives them to kubectl and other clients."""
    answer = cluster.kubectl("get", "--raw", f"/openapi/v3/{GROUP_VERSION}", check=False)
    if answer.returncode != 0:
        return {}
    found = json.loads(answer.stdout)["components"]["schemas"]
    (schema,) = [found[name] for name in found if name.endswith(f".{crd.kind()}")]
    return {path: node.get("description") for path, node in crd.schemas(schema) if path in DESCRIPTIONS}


@pytest.fixture(scope="module")
def alone(cluster: Cluster) -> Iterator[None]:
    """Stop the operators that other tests have installed, which would write statuses of their own."""
    operators = (
        "--selector=app.kubernetes.io/name=embedding-service,app.kubernetes.io/component=operator",
        "--output=json",
    )
    found = json.loads(cluster.kubectl("get", "deployments", "--all-namespaces", *operators).stdout)["items"]
    try:
        for operator in found:
            scale(cluster, operator, 0)
        wait_until(
            lambda: not json.loads(cluster.kubectl("get", "pods", "--all-namespaces", *operators).stdout)["items"],
            120,
            "an operator still runs",
        )
        yield
    finally:
        for operator in found:
            scale(cluster, operator, operator["spec"]["replicas"])


def scale(cluster: Cluster, deployment: Document, replicas: int) -> None:
    metadata = deployment["metadata"]
    named = (f"--namespace={metadata['namespace']}", f"deployment/{metadata['name']}")
    cluster.kubectl("scale", *named, f"--replicas={replicas}")
    cluster.kubectl("rollout", "status", *named, "--timeout=120s")


@pytest.fixture(scope="module")
def served(cluster: Cluster, alone: None) -> Iterator[Cluster]:  # noqa: ARG001 - for what it does
    """The cluster with the file as it stands; where it had no such resource, it has none afterwards."""
    was_there = cluster.kubectl("get", "crd", RESOURCE, check=False).returncode == 0
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(CRD))
    # A moment passes between Established and requests, and between a new schema and its use.
    wait_until(lambda: published(cluster) == DESCRIPTIONS, 120, "the API server has not taken the file up")
    wait_until(
        lambda: cluster.kubectl("get", "--raw", f"/{GROUP_VERSION}/embeddingpipelines", check=False).returncode == 0,
        120,
        "the API server does not serve the resource",
    )
    yield cluster
    if not was_there:
        cluster.kubectl("delete", "crd", RESOURCE)


def stored(document: Document) -> Document:
    """A document as one for the pipeline that the tests' namespace holds."""
    return {**document, "metadata": {"name": STORED}}


@pytest.fixture(scope="module")
def server(served: Cluster) -> Iterator[Pipelines]:
    """Requests to a namespace of these tests, which holds the example with every field, and a status of it."""
    namespace = f"crd-{uuid.uuid4().hex[:8]}"
    served.kubectl("create", "namespace", namespace)
    requests = pipelines(served.kubeconfig, namespace)
    requests.create(stored(every_field()), dry_run=False)
    requests.replace_status(stored(every_field()), dry_run=False)
    yield requests
    served.kubectl("delete", "namespace", namespace)


def send(server: Pipelines, path: str, document: Document) -> Document:
    """Try a document, by the way on which the part at a path is heeded."""
    return server.replace_status(stored(document)) if path.startswith("status") else server.create(document)


def defaulted(document: Document) -> Document:
    filled = manifest.defaulted(document)
    assert isinstance(filled, dict)
    return filled


def refusal(server: Pipelines, path: str, document: Document) -> list[Cause]:
    with pytest.raises(Refused) as refused:
        send(server, path, document)
    return refused.value.causes


def words(row: str) -> list[str]:
    """What an error of a row's keyword has to say."""
    match row.rpartition(" ")[2]:
        case "enum":
            return [f'"{value}"' for value in limit(row)]
        case "anyOf":
            return ["must be of type integer,string"]
        case "x-kubernetes-list-map-keys":
            return ["Duplicate value"]
        case "x-kubernetes-preserve-unknown-fields":
            return ["must be of type object"]
        case "format" if limit(row) == "int64":
            return ["must be of type integer"]
        case _:
            return [str(limit(row))]


@pytest.mark.parametrize(("row", "values"), ROWS.items(), ids=ROWS)
def test_api_server_draws_the_line_of(server: Pipelines, row: str, values: tuple[Any, Any]) -> None:
    path = row.rpartition(" ")[0]
    accepted, refused = values
    kept = send(server, path, with_field(path, accepted))
    assert value_at(kept, path) == value_at(defaulted(with_field(path, accepted)), path)
    causes = refusal(server, path, with_field(path, refused))
    assert any(
        cause.field.startswith(reported(path)) and all(word in cause.message for word in words(row)) for cause in causes
    ), causes


@pytest.mark.parametrize(("path", "value"), wrong_types().items(), ids=wrong_types())
def test_api_server_refuses_another_type_of(server: Pipelines, path: str, value: Any) -> None:
    causes = refusal(server, path, with_field(path, value))
    assert any(cause.field == reported(path) and "must be of type" in cause.message for cause in causes), causes


@pytest.mark.parametrize("path", required())
def test_api_server_asks_for(server: Pipelines, path: str) -> None:
    assert Cause(reported(path), "Required value") in refusal(server, path, with_field(path, ABSENT))


@pytest.mark.parametrize("path", closed())
def test_api_server_knows_all_fields_of(server: Pipelines, path: str) -> None:
    with pytest.raises(Refused, match=re.escape(f'unknown field "{reported(path)}.unheardOf"')):
        send(server, path, with_field(f"{path}.unheardOf", 1))


@pytest.mark.parametrize("row", CEL_ROWS.values(), ids=CEL_ROWS.keys())
def test_api_server_refuses(server: Pipelines, row: CelRow) -> None:
    if row.before is not None:
        server.create(changed(row.before), dry_run=False)
    judge = server.create if row.before is None else server.replace
    try:
        judge(changed(row.accepted))
        with pytest.raises(Refused) as refused:
            judge(changed(row.refused))
    finally:
        if row.before is not None:
            server.delete(quickstart()["metadata"]["name"])
    rule = row.rule()
    (cause,) = refused.value.causes
    # Of the object itself the API server names no field.
    assert cause.field == (rule.field or "<nil>")
    assert cause.message.endswith(f": {rule.message}")


def test_api_server_fills_in_the_defaults_that_local_validation_fills_in(server: Pipelines) -> None:
    assert server.create(quickstart())["spec"] == defaulted(quickstart())["spec"]


def as_kubectl_sends(value: Any) -> Any:
    """JSON as Go writes it: 256.0 is 256 there."""
    if isinstance(value, dict):
        return {name: as_kubectl_sends(part) for name, part in value.items()}
    if isinstance(value, list):
        return [as_kubectl_sends(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(spec=specs())
def test_api_server_and_local_validation_accept_the_same(server: Pipelines, spec: Any) -> None:
    document = {**quickstart(), "spec": spec}
    stored_spec = spec_stored_of(server, as_kubectl_sends(document))
    if manifest.problems(document):
        assert stored_spec is None
    else:
        assert stored_spec in (defaulted(document)["spec"], BY_RULE)


BY_RULE = {"refused": "by a rule, which is the API server's alone, and heeded once all else is right"}


def spec_stored_of(server: Pipelines, document: Document) -> Document | None:
    """What the API server makes of a spec; None where the schema refuses it."""
    try:
        return dict(server.create(document)["spec"])
    except Refused as refused:
        sentences = tuple(rule.message for rule in rules())
        by_rule = refused.causes and all(cause.message.endswith(sentences) for cause in refused.causes)
        return BY_RULE if by_rule else None


def test_api_server_describes_each_field(served: Cluster) -> None:
    assert published(served) == DESCRIPTIONS


@pytest.mark.parametrize("section", ["spec", "spec.worker", "status"])
def test_kubectl_explains_each_field_of(served: Cluster, section: str) -> None:
    explained = " ".join(served.kubectl("explain", f"embeddingpipeline.{section}").stdout.split())
    fields = [path for path in DESCRIPTIONS if path.rpartition(".")[0] == section]
    assert fields
    missing = [path for path in fields if " ".join(DESCRIPTIONS[path].split()) not in explained]
    assert not missing


def columns(cluster: Cluster, server: Pipelines, *options: str) -> dict[str, str]:
    """What `kubectl get embp` shows of the example, by its header."""
    shown = cluster.kubectl("--namespace", server.namespace, "get", "embp", STORED, *options).stdout
    header, row = (re.split(r"  +", line.strip()) for line in shown.splitlines())
    return dict(zip(header, row, strict=True))


def test_kubectl_get_shows_state_size_and_progress(served: Cluster, server: Pipelines) -> None:
    shown = columns(served, server)
    assert [*shown] == ["NAME", "READY", "REPLICAS", "AVAILABLE", "LAG", "RATE", "ETA", "AGE"]
    assert shown.pop("AGE")
    assert [*shown.values()] == [STORED, "True", "2", "1", "12345678901", "101.5", "1h5m"]


def test_kubectl_get_wide_shows_model_and_reason_too(served: Cluster, server: Pipelines) -> None:
    shown = columns(served, server, "--output=wide")
    assert [*shown][-3:] == ["AGE", "MODEL", "REASON"]
    assert shown["MODEL"] == every_field()["spec"]["model"]["name"]
    assert shown["REASON"] == STATUS["conditions"][0]["reason"]


def test_kubectl_finds_pipelines_by_category(served: Cluster, server: Pipelines) -> None:
    found = served.kubectl("--namespace", server.namespace, "get", "embeddings", "--output=name").stdout
    assert f"{RESOURCE.partition('.')[0].removesuffix('s')}.{crd.definition()['spec']['group']}/{STORED}" in found


def test_kubectl_scale_sets_the_replicas(served: Cluster, server: Pipelines) -> None:
    server.create(changed({"metadata.name": "scaled"}), dry_run=False)
    served.kubectl("--namespace", server.namespace, "scale", "embp/scaled", "--replicas=3")
    assert server.get("scaled")["spec"]["replicas"] == 3
    refused = served.kubectl("--namespace", server.namespace, "scale", "embp/scaled", "--replicas=1001", check=False)
    assert "should be less than or equal to 1000" in refused.stderr
    assert server.get("scaled")["spec"]["replicas"] == 3


def test_an_autoscaler_reads_size_and_selector_of_the_workers(served: Cluster, server: Pipelines) -> None:
    arguments = ("get", "embp", STORED, "--subresource=scale", "--output=json")
    scale = json.loads(served.kubectl("--namespace", server.namespace, *arguments).stdout)
    assert scale["spec"] == {"replicas": every_field()["spec"]["replicas"]}
    assert scale["status"] == {"replicas": STATUS["replicas"], "selector": STATUS["selector"]}


def test_a_status_is_neither_taken_from_a_manifest_nor_changed_by_one(server: Pipelines) -> None:
    assert "status" not in server.create(every_field())
    manifested = {**stored(every_field()), "status": {"replicas": 7}}
    manifested["spec"]["replicas"] = 4
    replaced = server.replace(manifested)
    assert replaced["spec"]["replicas"] == 4
    assert replaced["status"] == STATUS


def test_a_status_is_written_without_the_spec_and_is_no_new_generation(server: Pipelines) -> None:
    before = server.get(STORED)
    written = stored(every_field())
    written["spec"]["replicas"] = 4
    written["status"]["lag"] = 0
    after = server.replace_status(written)
    assert after["status"]["lag"] == 0
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]

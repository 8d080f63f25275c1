"""The chart as Helm renders it: what an administrator gets, and what is refused with which words; no cluster."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import embedding_service
from embedding_operator import manifest
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.settings import OperatorSettings, parse_settings
from embedding_operator.yaml_documents import documents
from embedding_service.contract import settings as worker_settings
from testcluster import tools

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "embedding-service"
CRD = ROOT / "crds" / "embeddingpipelines.embeddings.dev.yaml"
KUBERNETES = "1.34.2"
NAMESPACE = "embeddings"
CI = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}

Document = dict[str, Any]
Helm = Callable[..., "subprocess.CompletedProcess[str]"]
Render = Callable[..., list[Document]]


def load(path: Path) -> Document:
    document: Document = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


VALUES = load(CHART / "values.yaml")
SCHEMA: Document = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
METADATA = load(CHART / "Chart.yaml")


def leaves(values: Document, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each value that is no section, with its path."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def find(documents: list[Document], kind: str, name: str = "") -> list[Document]:
    return [item for item in documents if item["kind"] == kind and name in item["metadata"]["name"]]


def one(documents: list[Document], kind: str, name: str = "") -> Document:
    (found,) = find(documents, kind, name)
    return found


def pod_specs(documents: list[Document]) -> list[Document]:
    deployments = [item["spec"]["template"]["spec"] for item in find(documents, "Deployment")]
    return deployments + [item["spec"] for item in find(documents, "Pod")]


def environment(container: Document) -> dict[str, str]:
    """A container's variables; what comes from a Secret is the name of its key."""
    return {
        item["name"]: item["value"] if "value" in item else item["valueFrom"]["secretKeyRef"]["key"]
        for item in container["env"]
    }


@pytest.fixture(scope="session")
def helm() -> Helm:
    command = str(tools.path("helm"))

    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([command, *map(str, arguments)], capture_output=True, text=True, timeout=60)

    return run


@pytest.fixture(scope="session")
def template(helm: Helm) -> Helm:
    def run(
        *arguments: str | Path, release: str = "es", chart: Path = CHART, kubernetes: str = KUBERNETES
    ) -> "subprocess.CompletedProcess[str]":
        return helm("template", release, chart, "--namespace", NAMESPACE, "--kube-version", kubernetes, *arguments)

    return run


@pytest.fixture(scope="session")
def render(template: Helm) -> Render:
    @cache
    def run(*arguments: str | Path, **keywords: Any) -> list[Document]:
        done = template(*arguments, **keywords)
        assert (done.returncode, done.stderr) == (0, "")
        # Which refuses a key that is there twice, as the API server may.
        return documents(done.stdout)

    # Each test gets a copy of its own to take apart.
    return lambda *arguments, **keywords: copy.deepcopy(run(*arguments, **keywords))


@pytest.fixture(params=CI)
def rendered(render: Render, request: pytest.FixtureRequest) -> list[Document]:
    """What each of the chart's values files gives."""
    return render("--values", CI[request.param])


# What is in the files, without Helm.


def test_chart_holds_the_very_resource_definition() -> None:
    held = CHART / "files" / "crd.yaml"
    assert held.read_bytes() == CRD.read_bytes(), f"cp {CRD.relative_to(ROOT)} {held.relative_to(ROOT)}"


def test_chart_has_the_version_of_the_code() -> None:
    assert METADATA["version"] == METADATA["appVersion"] == embedding_service.__version__


def test_each_value_is_explained_where_it_stands() -> None:
    # What is Kubernetes' own: explained above the first of them, or known from every pod.
    known = {"requests", "limits", "cpu", "memory", "nodeSelector", "tolerations", "affinity", "priorityClassName"}
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        key, colon, value = line.strip().partition(":")
        is_section = not line.startswith(" ") and value == ""
        if colon and not key.startswith("#") and key not in known and not is_section:
            assert above.strip().startswith("#"), line


def test_schema_describes_each_value_and_no_other() -> None:
    def described(schema: Document, path: str) -> Iterator[str]:
        for name, child in schema.get("properties", {}).items():
            assert child["description"].endswith("."), f"{path}{name}"
            yield f"{path}{name}"
            yield from described(child, f"{path}{name}.")

    def given(values: Document, path: str = "") -> Iterator[str]:
        for name, value in values.items():
            yield f"{path}{name}"
            if isinstance(value, dict) and f"{path}{name}" not in ("operator.resources", "test.kafka"):
                yield from given(value, f"{path}{name}.")

    inside_kafka = {name for name in described(SCHEMA, "") if name.startswith("test.kafka.")}
    assert set(described(SCHEMA, "")) - inside_kafka - {"global"} == set(given(VALUES))


def test_schema_closes_each_object_that_lists_its_fields() -> None:
    def check(schema: Document) -> None:
        if "properties" in schema:
            assert schema["additionalProperties"] is False
        for child in [*schema.get("properties", {}).values(), *filter(None, [schema.get("items")])]:
            check(child)

    check(SCHEMA)


def test_the_tests_kafka_has_the_fields_of_a_pipelines() -> None:
    def fields(schema: Document) -> Document:
        return {name: fields(child) for name, child in sorted(schema.get("properties", {}).items())}

    (version,) = load(CRD)["spec"]["versions"]
    resource = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["kafka"]
    assert fields(SCHEMA["properties"]["test"]["properties"]["kafka"]) == fields(resource)


def test_the_values_file_with_every_value_has_each_at_other_than_its_default() -> None:
    given = dict(leaves(load(CI["every-value"])))
    for path, default in leaves(VALUES):
        changed = {key: value for key, value in given.items() if key == path or key.startswith(f"{path}.")}
        assert changed, path
        assert default not in changed.values(), path


def test_install_page_has_each_variable_of_the_operator() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    variables = {f"EMBEDDING_OPERATOR_{name.upper()}" for name in OperatorSettings.model_fields}
    assert set(re.findall(r"^\| `(EMBEDDING_OPERATOR_[A-Z_]+)` \|", page, re.MULTILINE)) == variables


# What Helm makes of it.


@pytest.mark.slow
@pytest.mark.parametrize("values", CI.values(), ids=CI.keys())
def test_lint_is_content(helm: Helm, values: Path) -> None:
    done = helm("lint", "--strict", CHART, "--kube-version", KUBERNETES, "--values", values)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.slow
def test_package_needs_nothing_from_outside_the_chart(helm: Helm, render: Render, tmp_path: Path) -> None:
    assert helm("package", CHART, "--destination", tmp_path).returncode == 0
    packed = tmp_path / f"embedding-service-{embedding_service.__version__}.tgz"
    assert render(chart=packed) == render()


@pytest.mark.slow
def test_resource_definition_is_the_file_and_stays_when_the_release_goes(render: Render) -> None:
    installed = one(render(), "CustomResourceDefinition")
    assert installed["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert installed["metadata"].pop("labels")["app.kubernetes.io/managed-by"] == "Helm"
    assert installed == load(CRD)


@pytest.mark.slow
def test_resource_definition_can_be_left_to_others(render: Render) -> None:
    without = render("--set", "crds.enabled=false")
    assert [item for item in render() if item["kind"] != "CustomResourceDefinition"] == without


@pytest.mark.slow
def test_a_copy_of_the_chart_without_the_resource_definition_says_so(template: Helm, tmp_path: Path) -> None:
    chart = shutil.copytree(CHART, tmp_path / "chart")
    (chart / "files" / "crd.yaml").unlink()
    done = template(chart=chart)
    assert done.returncode == 1
    assert "files/crd.yaml is missing from this copy of the chart" in done.stderr
    assert template("--set", "crds.enabled=false", chart=chart).returncode == 0


@pytest.mark.slow
def test_every_object_has_the_common_labels_and_a_name_of_its_own(rendered: list[Document]) -> None:
    for item in rendered:
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "es"
        assert labels["app.kubernetes.io/version"] == embedding_service.__version__
        assert labels["helm.sh/chart"] == f"embedding-service-{embedding_service.__version__}"
    named = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in rendered]
    assert len(named) == len(set(named))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("release", "operator"),
    [
        ("es", "es-embedding-service-operator"),
        ("embedding-service", "embedding-service-operator"),
        ("team.search", "team-search-embedding-service-operator"),
        ("a" * 53, f"{'a' * 40}-operator"),
        (f"{'a' * 39}.b{'c' * 12}", f"{'a' * 39}-operator"),
    ],
)
def test_names_derive_from_the_release_and_are_never_too_long(render: Render, release: str, operator: str) -> None:
    documents = render("--set", "test.kafka.bootstrapServers={kafka:9092}", release=release)
    assert one(documents, "Deployment")["metadata"]["name"] == operator
    for item in documents:
        if item["kind"] not in ("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"):
            assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", item["metadata"]["name"])
    assert len(one(documents, "EmbeddingPipeline")["metadata"]["name"]) <= 45


@pytest.mark.slow
def test_pods_are_admitted_where_restricted_is_enforced(rendered: list[Document]) -> None:
    specs = pod_specs(rendered)
    assert len(specs) == 2
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(not {"hostPath", "hostNetwork"} & volume.keys() for volume in spec["volumes"])
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "limits" in container["resources"]
            assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]


@pytest.mark.slow
def test_only_the_operators_pod_has_a_token(rendered: list[Document]) -> None:
    assert one(rendered, "Deployment")["spec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert one(rendered, "Pod")["spec"]["automountServiceAccountToken"] is False
    assert one(rendered, "ServiceAccount")["automountServiceAccountToken"] is False


@pytest.mark.slow
def test_there_are_never_two_operators(rendered: list[Document]) -> None:
    spec = one(rendered, "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


@pytest.mark.slow
def test_no_rule_has_a_wildcard(rendered: list[Document]) -> None:
    roles = find(rendered, "Role") + find(rendered, "ClusterRole")
    assert roles
    for rule in (rule for role in roles for rule in role["rules"]):
        assert rule.keys() == {"apiGroups", "resources", "verbs"}
        assert not any("*" in text for texts in rule.values() for text in texts)


@pytest.mark.slow
def test_operator_reads_secrets_by_name_alone_and_deletes_nothing_but_autoscalers(rendered: list[Document]) -> None:
    (rules, *_) = (
        role["rules"] for role in find(rendered, "Role", "operator") + find(rendered, "ClusterRole", "operator")
    )
    assert [rule["verbs"] for rule in rules if "secrets" in rule["resources"]] == [["get"]]
    deletes = [rule["resources"] for rule in rules if any("delete" in verb for verb in rule["verbs"])]
    assert deletes == [["horizontalpodautoscalers"]]


@pytest.mark.slow
def test_operator_of_all_namespaces_has_a_cluster_role(render: Render) -> None:
    documents = render()
    role, binding = one(documents, "ClusterRole", "operator"), one(documents, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": one(documents, "ServiceAccount")["metadata"]["name"], "namespace": NAMESPACE}
    ]
    assert find(documents, "Role") == []


@pytest.mark.slow
def test_operator_of_listed_namespaces_has_the_same_rights_in_these_alone(render: Render) -> None:
    documents = render("--set", "watchNamespaces={search,docs}")
    assert find(documents, "ClusterRole", "operator") == find(documents, "ClusterRoleBinding") == []
    everywhere = one(render(), "ClusterRole", "operator")["rules"]
    assert {role["metadata"]["namespace"]: role["rules"] for role in find(documents, "Role")} == {
        "search": everywhere,
        "docs": everywhere,
    }
    for binding in find(documents, "RoleBinding"):
        assert binding["roleRef"]["kind"] == "Role"
        assert binding["subjects"][0]["namespace"] == NAMESPACE
    assert [item["metadata"]["namespace"] for item in find(documents, "RoleBinding")] == ["search", "docs"]


@pytest.mark.slow
def test_who_may_make_nothing_cluster_wide_can_install_it(render: Render) -> None:
    documents = render("--values", CI["listed-namespaces"])
    assert all("namespace" in item["metadata"] for item in documents)


@pytest.mark.slow
def test_releases_of_one_name_in_two_namespaces_share_no_cluster_wide_object(render: Render) -> None:
    def cluster_wide(*arguments: str) -> set[str]:
        documents = render("--set", "crds.enabled=false", *arguments)
        return {item["metadata"]["name"] for item in documents if "namespace" not in item["metadata"]}

    assert cluster_wide() & cluster_wide("--namespace", "other") == set()


@pytest.mark.slow
def test_view_and_edit_of_pipelines_join_the_clusters_roles(render: Render) -> None:
    documents = render()
    view, edit = one(documents, "ClusterRole", "-view"), one(documents, "ClusterRole", "-edit")
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert {key.removeprefix(prefix) for key in view["metadata"]["labels"] if key.startswith(prefix)} == {
        *("view", "edit", "admin")
    }
    assert {key.removeprefix(prefix) for key in edit["metadata"]["labels"] if key.startswith(prefix)} == {
        *("edit", "admin")
    }
    (reading,) = view["rules"]
    assert "embeddingpipelines/status" in reading["resources"]
    assert reading["verbs"] == ["get", "list", "watch"]
    assert "embeddingpipelines/status" not in [resource for rule in edit["rules"] for resource in rule["resources"]]


@pytest.mark.slow
def test_operator_understands_what_it_is_told(render: Render) -> None:
    (container,) = one(render("--values", CI["every-value"]), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["run"]
    given = load(CI["every-value"])
    assert parse_settings(environment(container)) == OperatorSettings(
        worker_image=given["worker"]["image"],
        worker_image_pull_policy="Always",
        namespaces=("search",),
        resync_seconds=30,
        log_level="DEBUG",
        log_format="console",
        lag_provider="external",
        lag_metric="kafka_lag",
        lag_namespace_label="exported_namespace",
        lag_name_label="pipeline",
        http_port=8080,
    )


@pytest.mark.slow
@pytest.mark.parametrize(("provider", "granted"), [("none", False), ("external", False), ("keda", True)])
def test_operator_may_write_kedas_objects_only_where_that_is_chosen(
    render: Render, provider: str, granted: bool
) -> None:
    role = one(render("--set", f"autoscaling.lagProvider={provider}"), "ClusterRole", "operator")
    assert any("keda.sh" in rule["apiGroups"] for rule in role["rules"]) == granted


@pytest.mark.slow
def test_operator_without_values_has_its_defaults(render: Render) -> None:
    (container,) = one(render(), "Deployment")["spec"]["template"]["spec"]["containers"]
    image = f"embedding-worker:{embedding_service.__version__}"
    expected = OperatorSettings(worker_image=image, log_format="json")
    assert parse_settings(environment(container)) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "operator", "worker"),
    [
        ([], "embedding-operator:{version}", "embedding-worker:{version}"),
        (["image.repository=r.example/t/"], "r.example/t/embedding-operator:{version}", "r.example/t/embedding-worker:{version}"),
        (["image.repository=r.example", "image.tag=9"], "r.example/embedding-operator:9", "r.example/embedding-worker:9"),
        (["worker.image=w:cuda"], "embedding-operator:{version}", "w:cuda"),
        (["operator.image=o@sha256:0"], "o@sha256:0", "embedding-worker:{version}"),
    ],
)  # fmt: skip
def test_images_are_named_in_one_place_or_each_in_full(
    render: Render, values: list[str], operator: str, worker: str
) -> None:
    arguments = [part for value in values for part in ("--set-string", value)]
    (container,) = one(render(*arguments), "Deployment")["spec"]["template"]["spec"]["containers"]
    version = embedding_service.__version__
    assert container["image"] == operator.format(version=version)
    assert environment(container)["EMBEDDING_OPERATOR_WORKER_IMAGE"] == worker.format(version=version)


@pytest.mark.slow
def test_pod_is_placed_as_the_values_say(render: Render) -> None:
    given = load(CI["every-value"])
    template = one(render("--values", CI["every-value"]), "Deployment")["spec"]["template"]
    for field in ("nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert template["spec"][field] == given["operator"][field]
    assert template["spec"]["imagePullSecrets"] == given["imagePullSecrets"]
    assert template["spec"]["containers"][0]["resources"] == given["operator"]["resources"]
    assert template["metadata"]["annotations"] == given["operator"]["podAnnotations"]


@pytest.mark.slow
def test_metrics_service_leads_to_the_operators_port_alone(rendered: list[Document]) -> None:
    service, deployment = one(rendered, "Service"), one(rendered, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert not service["spec"]["selector"].items() <= one(rendered, "Pod")["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert port["name"] == "metrics"
    assert port["targetPort"] in [item["name"] for item in container["ports"]]


@pytest.mark.slow
def test_service_monitor_comes_where_asked_for_and_finds_the_service(render: Render) -> None:
    assert find(render(), "ServiceMonitor") == []
    documents = render("--values", CI["every-value"])
    monitor, service = one(documents, "ServiceMonitor"), one(documents, "Service")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] == "metrics"
    assert endpoint["honorLabels"], "or the namespace of a pipeline would be called exported_namespace"


@pytest.mark.slow
def test_helm_test_makes_a_valid_pipeline_and_takes_it_away_again(render: Render) -> None:
    document = one(render("--values", CI["every-value"]), "EmbeddingPipeline")
    annotations = document["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "test"
    assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    (pipeline,) = manifest.pipelines(yaml.safe_dump(document))
    assert isinstance(pipeline, EmbeddingPipeline), pipeline
    assert pipeline.spec.topics.deletion_policy == "Delete"
    given = load(CI["every-value"])["test"]
    assert document["spec"].items() >= {key: given[key] for key in ("kafka", "model", "worker")}.items()


@pytest.mark.slow
def test_helm_tests_pod_reaches_kafka_as_the_pipeline_does(render: Render) -> None:
    spec = one(render("--values", CI["every-value"]), "Pod")["spec"]
    (container,) = spec["containers"]
    kafka = worker_settings.parse_settings("", environment(container)).kafka
    assert kafka.bootstrap_servers == ("kafka-0.example.com:9093", "kafka-1.example.com:9093")
    assert kafka.sasl_mechanism == "SCRAM-SHA-512"
    assert (kafka.sasl_username, kafka.sasl_password) != (None, None)
    mounts = {item["mountPath"]: item["name"] for item in container["volumeMounts"]}
    volumes = {item["name"]: item.get("secret", {}) for item in spec["volumes"]}
    authorities = volumes[mounts["/etc/kafka/ca"]]
    assert (authorities["secretName"], authorities["items"]) == ("kafka-ca", [{"key": "ca.pem", "path": "ca.crt"}])
    assert kafka.tls_ca_file == "/etc/kafka/ca/ca.crt"
    assert volumes[mounts["/etc/kafka/client"]]["secretName"] == "kafka-client"
    assert (kafka.tls_certificate_file, kafka.tls_key_file) == (
        "/etc/kafka/client/tls.crt",
        "/etc/kafka/client/tls.key",
    )


@pytest.mark.slow
def test_helm_tests_pod_runs_a_command_that_there_is(render: Render) -> None:
    document = one(
        render("--set", "test.kafka.bootstrapServers={127.0.0.1:1}", "--set", "test.timeoutSeconds=1"), "Pod"
    )
    (container,) = document["spec"]["containers"]
    command = [
        str(Path(sys.executable).with_name(container["command"][0])),
        *container["command"][1:],
        *container["args"],
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment(container), timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("kafka-cli: no broker answers at 127.0.0.1:1 ")


@pytest.mark.slow
def test_helm_test_without_a_kafka_fails_and_says_what_to_set(render: Render) -> None:
    documents = render()
    assert find(documents, "EmbeddingPipeline") == []
    (container,) = one(documents, "Pod")["spec"]["containers"]
    assert container["command"] == ["python", "-c"]
    done = subprocess.run([sys.executable, "-c", *container["args"]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "test.kafka.bootstrapServers is not set" in done.stderr
    assert "helm upgrade es <chart> --namespace embeddings --reuse-values --set 'test.kafka.boot" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "namespace"),
    [
        ([], NAMESPACE),
        (["watchNamespaces={docs,embeddings}"], NAMESPACE),
        (["watchNamespaces={search,docs}"], "search"),
    ],
)
def test_helm_test_runs_where_the_operator_looks(render: Render, values: list[str], namespace: str) -> None:
    arguments = [part for value in values for part in ("--set", value)]
    documents = render("--set", "test.kafka.bootstrapServers={kafka:9092}", *arguments)
    pipeline, pod = one(documents, "EmbeddingPipeline"), one(documents, "Pod")
    assert pipeline["metadata"]["namespace"] == pod["metadata"]["namespace"] == namespace


@pytest.mark.slow
def test_both_hooks_of_helm_test_have_one_name(render: Render) -> None:
    # `helm test --logs` reads the log of a pod named as each hook, and fails where there is none.
    documents = render("--set", "test.kafka.bootstrapServers={kafka:9092}")
    hooks = [item for item in documents if "helm.sh/hook" in item["metadata"].get("annotations", {})]
    assert sorted(item["kind"] for item in hooks) == ["EmbeddingPipeline", "Pod"]
    assert len({item["metadata"]["name"] for item in hooks}) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("operater.logLevel=INFO", "at '': additional properties 'operater' not allowed"),
        ("operator.loglevel=INFO", "at '/operator': additional properties 'loglevel' not allowed"),
        ("operator.logLevel=info", "at '/operator/logLevel': value must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR'"),
        ("operator.resyncSeconds=0", "at '/operator/resyncSeconds': minimum: got 0, want 1"),
        ("image.pullPolicy=always", "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'"),
        ("image.tag=1", "at '/image/tag': got number, want string"),
        ("watchNamespaces=search", "at '/watchNamespaces': got string, want array"),
        ("watchNamespaces={Search}", "at '/watchNamespaces/0': 'Search' does not match pattern"),
        ("imagePullSecrets={registry}", "at '/imagePullSecrets/0': got string, want object"),
        ("crds.enabled=keep", "at '/crds/enabled': got string, want boolean"),
        ("test.kafka.bootstrapServers=kafka:9092", "at '/test/kafka/bootstrapServers': got string, want array"),
        ("test.kafka.sasl.mechanism=PLAIN", "at '/test/kafka/sasl': missing property 'credentialsSecret'"),
    ],
)
def test_a_wrong_value_is_refused_by_name(template: Helm, value: str, sentence: str) -> None:
    done = template("--set", value)
    assert done.returncode == 1
    assert sentence in done.stderr


@pytest.mark.slow
def test_chart_can_be_a_part_of_another_with_global_values(render: Render) -> None:
    assert render("--set", "global.team=search") == render()


@pytest.mark.slow
def test_an_older_kubernetes_is_refused(template: Helm) -> None:
    done = template(kubernetes="1.27.9")
    assert done.returncode == 1
    assert "requires kubeVersion: >=1.28.0-0" in done.stderr
    assert template(kubernetes="1.28.0-gke.100").returncode == 0

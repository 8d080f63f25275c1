"""The workers' Deployment: each field of the resource arrives in the pods, and what nobody may change stands."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.desired.config_map import worker_settings
from embedding_operator.desired.state import desired_state
from embedding_operator.observed import Object
from embedding_operator.settings import OperatorSettings
from operator_objects import SETTINGS, desired, pipeline

EXAMPLES = Path(__file__).parents[2] / "examples"
EVERY_FIELD = EmbeddingPipeline.model_validate(yaml.safe_load((EXAMPLES / "every-field.yaml").read_text("utf-8")))


def deployment(**spec: Any) -> Any:
    return desired(pipeline(**spec))["Deployment"]


def pod(**spec: Any) -> Any:
    return deployment(**spec)["spec"]["template"]["spec"]


def container(**spec: Any) -> Any:
    (found,) = pod(**spec)["containers"]
    return found


def by_name(items: list[Object]) -> dict[str, Object]:
    return {item["name"]: item for item in items}


def environment(**spec: Any) -> dict[str, Object]:
    return by_name(container(**spec)["env"])


def volumes(**spec: Any) -> dict[str, Object]:
    return by_name(pod(**spec)["volumes"])


def mounts(**spec: Any) -> dict[str, Object]:
    return by_name(container(**spec)["volumeMounts"])


TERM = {"weight": 1, "preference": {"matchExpressions": [{"key": "spot", "operator": "DoesNotExist"}]}}
AFFINITY = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [TERM]}}
SPREAD = {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
FROM = {"configMapKeyRef": {"name": "hub", "key": "endpoint"}}

# Field of spec.worker → what it is set to, and where that is found in the Deployment.
Found = Callable[[Any], object]
FIELDS: dict[str, tuple[Any, Found, object]] = {
    "image": ("other:2", lambda built: worker(built)["image"], "other:2"),
    "imagePullSecrets": ([{"name": "registry"}], lambda built: spec(built)["imagePullSecrets"], [{"name": "registry"}]),
    "resources": (
        {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi"}},
        lambda built: worker(built)["resources"],
        {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi"}},
    ),
    "gpu": (
        {"count": 2, "resourceName": "nvidia.com/mig-1g.5gb"},
        lambda built: worker(built)["resources"]["limits"],
        {"nvidia.com/mig-1g.5gb": 2},
    ),
    "nodeSelector": ({"pool": "a"}, lambda built: spec(built)["nodeSelector"], {"pool": "a"}),
    "tolerations": (
        [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        lambda built: spec(built)["tolerations"],
        [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
    ),
    "affinity": (AFFINITY, lambda built: spec(built)["affinity"], AFFINITY),
    "topologySpreadConstraints": ([SPREAD], lambda built: spec(built)["topologySpreadConstraints"], [SPREAD]),
    "priorityClassName": ("batch", lambda built: spec(built)["priorityClassName"], "batch"),
    "runtimeClassName": ("nvidia", lambda built: spec(built)["runtimeClassName"], "nvidia"),
    "env": (
        [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "HF_ENDPOINT", "valueFrom": FROM}],
        lambda built: worker(built)["env"][-2:],
        [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "HF_ENDPOINT", "valueFrom": FROM}],
    ),
    "podLabels": ({"team": "search"}, lambda built: labels(built)["team"], "search"),
    "podAnnotations": ({"note": "ours"}, lambda built: annotations(built)["note"], "ours"),
}


def spec(built: Any) -> Any:
    return built["spec"]["template"]["spec"]


def worker(built: Any) -> Any:
    return spec(built)["containers"][0]


def labels(built: Any) -> Any:
    return built["spec"]["template"]["metadata"]["labels"]


def annotations(built: Any) -> Any:
    return built["spec"]["template"]["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("field", "value", "found", "expected"), [(name, *row) for name, row in FIELDS.items()], ids=FIELDS
)
def test_reaches_the_pods(field: str, value: object, found: Found, expected: object) -> None:
    assert found(deployment(worker={field: value})) == expected


def test_each_field_of_spec_worker_is_in_the_table() -> None:
    schema = EmbeddingPipeline.model_json_schema(by_alias=True)["$defs"]["WorkerPods"]
    assert FIELDS.keys() == schema["properties"].keys()


# Fields of a pod that are absent where nothing is asked for: Kubernetes' and the cluster's defaults.
def test_a_pipeline_that_asks_for_nothing_leaves_placement_to_the_cluster() -> None:
    absent = {"imagePullSecrets", "nodeSelector", "tolerations", "affinity", "priorityClassName", "runtimeClassName"}
    assert absent & pod().keys() == set()
    assert container()["resources"] == {"requests": {"cpu": "500m", "memory": "1536Mi"}}


def test_image_and_pull_policy_are_the_operators_where_the_pipeline_names_none() -> None:
    settings = OperatorSettings(worker_image="own:3", worker_image_pull_policy="Never")
    built = next(one for one in desired_state(pipeline(), settings, None) if one["kind"] == "Deployment")
    assert (worker(built)["image"], worker(built)["imagePullPolicy"]) == ("own:3", "Never")


# The rules of the Pod Security Standards, profile restricted; source: Kubernetes' documentation.
def restricted(template: Any) -> bool:
    pods, (one,) = template["securityContext"], template["containers"]
    own = one["securityContext"]
    hosts = {"hostNetwork", "hostPID", "hostIPC"} & template.keys() or [
        port for port in one["ports"] if "hostPort" in port
    ]
    kinds = {kind for volume in template["volumes"] for kind in volume} - {"name"}
    return (
        pods["runAsNonRoot"]
        and pods["runAsUser"] != 0
        and pods["seccompProfile"] == {"type": "RuntimeDefault"}
        and own["allowPrivilegeEscalation"] is False
        and own["capabilities"] == {"drop": ["ALL"]}
        and "privileged" not in own
        and not hosts
        and kinds
        <= {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    )


@pytest.mark.parametrize("found", [pipeline(), EVERY_FIELD], ids=["the smallest pipeline", "every field"])
def test_pods_keep_to_the_restricted_profile_with_a_read_only_root_and_no_token_of_the_api_server(
    found: EmbeddingPipeline,
) -> None:
    template = desired(found)["Deployment"]["spec"]["template"]["spec"]
    assert restricted(template)
    assert template["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert template["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in template


def test_services_of_the_namespace_do_not_get_into_the_workers_environment() -> None:
    # One that is called embedding-kafka would set EMBEDDING_KAFKA_PORT.
    assert pod()["enableServiceLinks"] is False


OWN_LABELS = {
    "app.kubernetes.io/name": "embedding-worker",
    "app.kubernetes.io/instance": "articles",
    "app.kubernetes.io/managed-by": "embedding-operator",
}


def test_the_operators_own_labels_and_annotations_can_not_be_replaced() -> None:
    checksum = annotations(deployment())[names.CONFIG_CHECKSUM]
    others = {"podLabels": dict.fromkeys(OWN_LABELS, "x"), "podAnnotations": {names.CONFIG_CHECKSUM: "x"}}
    built = deployment(worker=others)
    assert labels(built) == OWN_LABELS
    assert annotations(built)[names.CONFIG_CHECKSUM] == checksum


def test_the_deployment_chooses_its_pods_by_labels_that_never_change() -> None:
    built = deployment(worker={"podLabels": {"team": "search"}})
    chosen = built["spec"]["selector"]["matchLabels"]
    assert (
        chosen == deployment()["spec"]["selector"]["matchLabels"] == desired(pipeline())["Service"]["spec"]["selector"]
    )
    assert chosen.items() <= labels(built).items()


def test_the_number_of_replicas_is_not_part_of_the_deployment() -> None:
    assert "replicas" not in deployment(replicas=3)["spec"]


def strategy(**spec: Any) -> object:
    return deployment(**spec)["spec"]["strategy"]["rollingUpdate"]


def test_workers_are_replaced_one_at_a_time_by_one_that_is_ready_before() -> None:
    assert strategy() == {"maxSurge": 1, "maxUnavailable": 0}


def test_with_gpus_a_worker_goes_before_its_successor_comes_which_would_wait_for_its_gpu() -> None:
    assert strategy(worker={"gpu": {}}) == {"maxSurge": 0, "maxUnavailable": 1}
    assert strategy(worker={"resources": {"limits": {"amd.com/gpu": 1}}}) == {"maxSurge": 0, "maxUnavailable": 1}
    assert strategy(worker={"resources": {"limits": {"memory": "8Gi"}}}) == {"maxSurge": 1, "maxUnavailable": 0}


def test_gpus_are_limits_beside_those_that_are_asked_for() -> None:
    resources = container(worker={"gpu": {}, "resources": {"limits": {"memory": "8Gi"}}})["resources"]
    assert resources["limits"] == {"memory": "8Gi", "nvidia.com/gpu": 1}
    assert "nvidia.com/gpu" not in resources["requests"]


def test_workers_are_spread_over_nodes_where_that_can_be_had() -> None:
    (spread,) = pod()["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    assert spread["labelSelector"]["matchLabels"].items() <= OWN_LABELS.items()


def test_a_pod_has_time_for_what_is_in_the_model_and_as_much_again() -> None:
    assert pod()["terminationGracePeriodSeconds"] >= 2 * worker_settings(pipeline()).engine.window_seconds + 10


def test_probes_ask_whether_the_worker_lives_and_whether_it_takes_part() -> None:
    found = {probe: container()[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe: ask["path"] for probe, ask in found.items()} == {
        "startupProbe": "/livez",
        "livenessProbe": "/livez",
        "readinessProbe": "/readyz",
    }
    (port,) = container()["ports"]
    assert {ask["port"] for ask in found.values()} == {port["name"]}
    assert port["containerPort"] == worker_settings(pipeline()).http.port


def test_a_busy_node_has_minutes_to_start_a_worker_before_it_is_given_up() -> None:
    startup = container()["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


def test_the_service_leads_to_the_workers_port() -> None:
    (port,) = desired(pipeline())["Service"]["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (5000, container()["ports"][0]["name"])


def test_the_worker_reads_the_configuration_that_the_config_map_holds() -> None:
    path = f"{mounts()['config']['mountPath']}/{names.CONFIG_FILE}"
    assert container()["args"] == ["run", "--config", path]
    assert volumes()["config"]["configMap"]["name"] == desired(pipeline())["ConfigMap"]["metadata"]["name"]
    assert names.CONFIG_FILE in desired(pipeline())["ConfigMap"]["data"]


def test_only_what_a_worker_may_write_to_is_mounted_to_be_written() -> None:
    built = desired(EVERY_FIELD)["Deployment"]
    writable = {mount["name"] for mount in worker(built)["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"tmp", "cache"}


@pytest.mark.parametrize("found", [pipeline(), EVERY_FIELD], ids=["the smallest pipeline", "every field"])
def test_each_volume_is_mounted_and_each_mount_has_its_volume(found: EmbeddingPipeline) -> None:
    built = desired(found)["Deployment"]
    mounted = {mount["name"] for mount in worker(built)["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec(built)["volumes"]}


def test_models_are_kept_in_a_directory_that_goes_with_the_pod() -> None:
    assert volumes()["cache"] == {"name": "cache", "emptyDir": {}}
    assert environment()["HF_HOME"]["value"] == mounts()["cache"]["mountPath"]


def test_that_directory_can_be_limited() -> None:
    assert volumes(model={"cache": {"sizeLimit": "5Gi"}})["cache"]["emptyDir"] == {"sizeLimit": "5Gi"}


def test_models_are_kept_on_a_volume_that_outlives_the_pods() -> None:
    found = volumes(model={"cache": {"persistentVolumeClaim": {"claimName": "models"}}})["cache"]
    assert found == {"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}


USER = {"credentialsSecret": {"name": "user", "usernameKey": "u", "passwordKey": "p"}, "mechanism": "PLAIN"}
TLS = {"enabled": True, "caSecret": {"name": "ca", "key": "pem"}, "clientCertificateSecret": {"name": "client"}}
SERVERS: dict[str, Any] = {"bootstrapServers": ["kafka:9093"]}

# Variable → the sections that name its Secret, and Secret and key.
SECRETS: dict[str, tuple[dict[str, Any], str, str]] = {
    "EMBEDDING_KAFKA__SASL_USERNAME": ({"kafka": SERVERS | {"sasl": USER}}, "user", "u"),
    "EMBEDDING_KAFKA__SASL_PASSWORD": ({"kafka": SERVERS | {"sasl": USER}}, "user", "p"),
    "EMBEDDING_HTTP__TOKEN": ({"http": {"tokenSecret": {"name": "workers", "key": "bearer"}}}, "workers", "bearer"),
    "HF_TOKEN": ({"model": {"tokenSecret": {"name": "hub", "key": "t"}}}, "hub", "t"),
}


@pytest.mark.parametrize(("variable", "row"), SECRETS.items(), ids=SECRETS.keys())
def test_a_secret_comes_by(variable: str, row: tuple[dict[str, Any], str, str]) -> None:
    sections, name, key = row
    assert environment(**sections)[variable] == {
        "name": variable,
        "valueFrom": {"secretKeyRef": {"name": name, "key": key}},
    }
    assert variable not in environment()


def test_certificates_come_as_files_where_the_worker_looks_for_them() -> None:
    secured: dict[str, Any] = {"kafka": SERVERS | {"tls": TLS}}
    found, mounted, settings = volumes(**secured), mounts(**secured), worker_settings(pipeline(**secured)).kafka
    (item,) = found["kafka-ca"]["secret"]["items"]
    assert (found["kafka-ca"]["secret"]["secretName"], item["key"]) == ("ca", "pem")
    assert f"{mounted['kafka-ca']['mountPath']}/{item['path']}" == settings.tls_ca_file
    assert found["kafka-client"]["secret"]["secretName"] == "client"
    directory = mounted["kafka-client"]["mountPath"]
    assert (settings.tls_certificate_file, settings.tls_key_file) == (f"{directory}/tls.crt", f"{directory}/tls.key")


def test_the_clients_key_is_read_by_the_workers_group_and_nobody_else() -> None:
    secured: dict[str, Any] = {"kafka": SERVERS | {"tls": TLS}}
    assert volumes(**secured)["kafka-client"]["secret"]["defaultMode"] & 0o007 == 0
    assert pod(**secured)["securityContext"]["fsGroup"] == pod(**secured)["securityContext"]["runAsGroup"]


def test_variables_of_the_pipeline_win_over_those_that_a_worker_has_anyway_and_stand_once() -> None:
    own = container(worker={"env": [{"name": "HF_HOME", "value": "/models"}]})["env"]
    assert own == [{"name": "HF_HOME", "value": "/models"}]


# Which pods are replaced → what changes, and whether that is so.
ROLLS: dict[str, tuple[dict[str, Any], bool]] = {
    "the configuration": ({"model": {"maxLength": 64}}, True),
    "the resources": ({"worker": {"resources": {"requests": {"cpu": "2"}}}}, True),
    "an annotation of the pods": ({"worker": {"podAnnotations": {"note": "new"}}}, True),
    "the number of workers": ({"replicas": 3}, False),
    "a pause": ({"paused": True}, False),
    "how topics are made": ({"output": {"topic": "out", "create": {"partitions": 6}}}, False),
    "who makes topics and deletes them": ({"topics": {"manage": False, "deletionPolicy": "Delete"}}, False),
}


@pytest.mark.parametrize(("change", "rolls"), ROLLS.values(), ids=ROLLS.keys())
def test_workers_are_rolled_or_not_by(change: dict[str, Any], rolls: bool) -> None:
    assert (deployment(**change)["spec"]["template"] != deployment()["spec"]["template"]) is rolls


def test_workers_are_rolled_by_a_changed_secret() -> None:
    first, second = (desired(pipeline(), checksum)["Deployment"]["spec"]["template"] for checksum in ("one", "two"))
    assert first != second
    assert names.SECRETS_CHECKSUM not in annotations(deployment())


@pytest.mark.parametrize("found", [pipeline(), EVERY_FIELD], ids=["the smallest pipeline", "every field"])
def test_no_secret_stands_in_any_object(found: EmbeddingPipeline) -> None:
    text = str(desired(found, "c0ffee"))
    assert re.findall(r"(?i)'[a-z_]*(?:password|token)': '(?!\*)[^']+'", text) == []


def test_all_objects_have_the_pipelines_name_namespace_labels_and_owner() -> None:
    built = desired(EVERY_FIELD)
    for one in built.values():
        metadata = one["metadata"]
        assert (metadata["name"], metadata["namespace"]) == ("every-field-embedding-worker", "search")
        assert metadata["labels"] == OWN_LABELS | {"app.kubernetes.io/instance": "every-field"}
        (owner,) = metadata["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("EmbeddingPipeline", "every-field", True)


def test_nodes_are_drained_one_worker_at_a_time_and_workers_that_can_not_run_hold_up_no_drain() -> None:
    found = desired(pipeline())["PodDisruptionBudget"]["spec"]
    assert (found["maxUnavailable"], found["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert found["selector"] == deployment()["spec"]["selector"]


def test_what_an_object_was_made_from_is_told_by_its_annotation() -> None:
    marks = {built["metadata"]["annotations"][names.APPLIED] for built in desired_state(pipeline(), SETTINGS, None)}
    assert len(marks) == 4
    again = {built["metadata"]["annotations"][names.APPLIED] for built in desired_state(pipeline(), SETTINGS, None)}
    assert again == marks

"""The table of what the schema of the CRD refuses: for each constraint, a value on either side of it.

Two tests read it: one without a cluster, that no constraint lacks its row and that local validation agrees, and one
against a real API server. What follows from the file itself (types, required and unknown fields) is read off it.
"""

from collections.abc import Iterator
from typing import Any

from crd_manifests import ABSENT, STATUS, Document, change, every_field
from embedding_operator import crd

# Path and keyword → a value that is accepted, and one that is refused.
Rows = dict[str, tuple[Any, Any]]

# Of two fields that bound each other, the other one is out of the way.
_BESIDE: dict[str, tuple[str, int]] = {
    "spec.autoscaling.minReplicas": ("spec.autoscaling.maxReplicas", 1000),
    "spec.autoscaling.maxReplicas": ("spec.autoscaling.minReplicas", 1),
}
# Of two fields that exclude each other, the example has the second.
_INSTEAD_OF = {"spec.model.cache.sizeLimit": "spec.model.cache.persistentVolumeClaim"}


def with_field(path: str, value: object) -> Document:
    """The example with every field, with one changed."""
    document = every_field()
    if path in _INSTEAD_OF:
        change(document, _INSTEAD_OF[path], ABSENT)
    if path in _BESIDE:
        change(document, *_BESIDE[path])
    change(document, path, value)
    return document


def _text(path: str, least: int, most: int) -> Rows:
    rows: Rows = {f"{path} maxLength": ("a" * most, "a" * (most + 1))}
    return rows | ({f"{path} minLength": ("a" * least, "")} if least else {})


def _whole(path: str, least: int, most: int) -> Rows:
    return {f"{path} minimum": (least, least - 1), f"{path} maximum": (most, most + 1)}


def _secret_name(path: str) -> Rows:
    return {f"{path} pattern": ("kafka.auth-1", "Kafka"), **_text(path, 0, 253)}


def _secret_key(path: str) -> Rows:
    return {f"{path} pattern": ("Ca_1.crt", "ca/crt"), **_text(path, 0, 253)}


def _map(path: str, most: int, length: int) -> Rows:
    entries = {f"key-{number}": "" for number in range(most + 1)}
    fewer = dict(list(entries.items())[:most])
    return {f"{path} maxProperties": (fewer, entries), **_text(f"{path}.*", 0, length)}


def _label_value(path: str) -> Rows:
    return {f"{path} pattern": ("", "-spot"), **_text(path, 0, 63)}


def _quantities(path: str) -> Rows:
    entries = {f"resource-{number}": 1 for number in range(33)}
    fewer = dict(list(entries.items())[:32])
    return {f"{path} maxProperties": (fewer, entries), **_quantity(f"{path}.*")}


def _quantity(path: str) -> Rows:
    refused_texts = {f"{path} pattern": ("1.5Gi", "-1Gi"), f"{path} maxLength": ("1" * 30 + "Gi", "1" * 31 + "Gi")}
    return {**refused_texts, **_whole(path, 0, 2**53 - 1), f"{path} anyOf": (2, 1.5)}


def _topic(path: str) -> Rows:
    topic = f"{path}.topic"
    return {f"{topic} pattern": ("..a", ".."), **_text(topic, 0, 249), **_topic_template(f"{path}.create")}


def _topic_template(path: str) -> Rows:
    partitions = _whole(f"{path}.partitions", 1, 10000)
    return {**partitions, **_whole(f"{path}.replicationFactor", 1, 100), **_map(f"{path}.config", 64, 1024)}


def _scaling_rules(path: str) -> Rows:
    policies = f"{path}.policies"
    return {
        **_whole(f"{path}.stabilizationWindowSeconds", 0, 3600),
        f"{path}.selectPolicy enum": ("Disabled", "Fastest"),
        f"{policies} minItems": (_POLICIES[:1], []),
        f"{policies} maxItems": (_POLICIES[:16], _POLICIES),
        f"{policies}[].type enum": ("Pods", "Workers"),
        **_whole(f"{policies}[].value", 1, 10000),
        **_whole(f"{policies}[].periodSeconds", 1, 1800),
    }


_ANYTHING = {"anything": {"goes": [1, "two", None]}}
_POLICIES = [{"type": "Pods", "value": 1, "periodSeconds": 60}] * 17
_BROKERS = [f"kafka-{number}:9092" for number in range(33)]
_VARIABLES = [{"name": f"V{number}"} for number in range(65)]
_CONDITIONS = [{**STATUS["conditions"][0], "type": f"Type{number}"} for number in range(17)]

ROWS: Rows = {
    **_whole("spec.replicas", 0, 1000),
    "spec.autoscaling.metric enum": ("CPU", "Memory"),
    **_whole("spec.autoscaling.minReplicas", 0, 1000),
    **_whole("spec.autoscaling.maxReplicas", 1, 1000),
    **_whole("spec.autoscaling.targetCPUUtilization", 1, 10000),
    **_whole("spec.autoscaling.targetLagPerReplica", 1, 1_000_000_000),
    **_scaling_rules("spec.autoscaling.behavior.scaleUp"),
    **_scaling_rules("spec.autoscaling.behavior.scaleDown"),
    **_secret_name("spec.kafka.tls.caSecret.name"),
    **_secret_key("spec.kafka.tls.caSecret.key"),
    **_secret_name("spec.kafka.tls.clientCertificateSecret.name"),
    "spec.kafka.sasl.mechanism enum": ("SCRAM-SHA-256", "GSSAPI"),
    **_secret_name("spec.kafka.sasl.credentialsSecret.name"),
    **_secret_key("spec.kafka.sasl.credentialsSecret.usernameKey"),
    **_secret_key("spec.kafka.sasl.credentialsSecret.passwordKey"),
    "spec.kafka.bootstrapServers minItems": (_BROKERS[:1], []),
    "spec.kafka.bootstrapServers maxItems": (_BROKERS[:32], _BROKERS),
    "spec.kafka.bootstrapServers[] pattern": ("[::1]:9092", "kafka"),
    "spec.kafka.bootstrapServers[] maxLength": ("a" * 255 + ":65535", "a" * 256 + ":65535"),
    **_topic("spec.input"),
    **_text("spec.input.consumerGroup", 1, 255),
    "spec.input.startFrom enum": ("Earliest", "latest"),
    **_text("spec.input.textField", 1, 255),
    **_text("spec.input.idField", 1, 255),
    **_topic("spec.output"),
    "spec.output.encoding enum": ("Base64", "json"),
    **_topic("spec.deadLetter"),
    "spec.topics.deletionPolicy enum": ("Retain", "Orphan"),
    "spec.model.name pattern": ("/models/mini", "./models/mini"),
    "spec.model.name maxLength": ("/" + "a" * 1023, "/" + "a" * 1024),
    **_text("spec.model.revision", 1, 255),
    **_whole("spec.model.maxLength", 1, 131072),
    "spec.model.onOverflow enum": ("Truncate", "truncate"),
    "spec.model.device enum": ("Auto", "gpu"),
    "spec.model.precision enum": ("BFloat16", "int8"),
    **_text("spec.model.prompt", 1, 4096),
    "spec.model.changePolicy enum": ("RequireNewOutputTopic", "Allow"),
    **_secret_name("spec.model.tokenSecret.name"),
    **_secret_key("spec.model.tokenSecret.key"),
    **_quantity("spec.model.cache.sizeLimit"),
    **_secret_name("spec.model.cache.persistentVolumeClaim.claimName"),
    **_text("spec.worker.image", 1, 1024),
    "spec.worker.imagePullSecrets maxItems": ([{"name": "a"}] * 16, [{"name": "a"}] * 17),
    **_secret_name("spec.worker.imagePullSecrets[].name"),
    **_quantities("spec.worker.resources.requests"),
    **_quantities("spec.worker.resources.limits"),
    **_whole("spec.worker.gpu.count", 1, 16),
    "spec.worker.gpu.resourceName pattern": ("amd.com/gpu", "gpu"),
    "spec.worker.gpu.resourceName maxLength": ("a/" + "a" * 251, "a/" + "a" * 252),
    **_map("spec.worker.nodeSelector", 64, 63),
    **_label_value("spec.worker.nodeSelector.*"),
    "spec.worker.tolerations maxItems": ([{"key": "a"}] * 64, [{"key": "a"}] * 65),
    **_text("spec.worker.tolerations[].key", 0, 317),
    "spec.worker.tolerations[].operator enum": ("Equal", "In"),
    **_label_value("spec.worker.tolerations[].value"),
    "spec.worker.tolerations[].effect enum": ("NoSchedule", "Evict"),
    **_whole("spec.worker.tolerations[].tolerationSeconds", 0, 2147483647),
    "spec.worker.affinity x-kubernetes-preserve-unknown-fields": (_ANYTHING, "spread"),
    "spec.worker.topologySpreadConstraints maxItems": ([{"maxSkew": 1}] * 16, [{"maxSkew": 1}] * 17),
    "spec.worker.topologySpreadConstraints[] x-kubernetes-preserve-unknown-fields": (_ANYTHING, "zone"),
    **_text("spec.worker.priorityClassName", 1, 253),
    **_text("spec.worker.runtimeClassName", 1, 253),
    "spec.worker.env maxItems": (_VARIABLES[:64], _VARIABLES),
    "spec.worker.env x-kubernetes-list-map-keys": ([{"name": "A"}, {"name": "B"}], [{"name": "A"}, {"name": "A"}]),
    "spec.worker.env[].name pattern": ("HTTPS_PROXY", "1_PROXY"),
    **_text("spec.worker.env[].name", 0, 253),
    **_text("spec.worker.env[].value", 0, 32768),
    "spec.worker.env[].valueFrom x-kubernetes-preserve-unknown-fields": (_ANYTHING, "secret"),
    **_map("spec.worker.podLabels", 64, 63),
    **_label_value("spec.worker.podLabels.*"),
    **_map("spec.worker.podAnnotations", 64, 65536),
    **_secret_name("spec.http.tokenSecret.name"),
    **_secret_key("spec.http.tokenSecret.key"),
    "status.observedGeneration format": (2**63 - 1, 2**63),
    "status.conditions maxItems": (_CONDITIONS[:16], _CONDITIONS),
    "status.conditions x-kubernetes-list-map-keys": (_CONDITIONS[:2], [_CONDITIONS[0], _CONDITIONS[0]]),
    **_text("status.conditions[].type", 0, 316),
    "status.conditions[].status enum": ("False", "true"),
    "status.conditions[].observedGeneration format": (2**63 - 1, 2**63),
    "status.conditions[].lastTransitionTime format": ("2026-01-02T03:04:05Z", "yesterday"),
    **_text("status.conditions[].reason", 0, 1024),
    **_text("status.conditions[].message", 0, 32768),
    "status.lag format": (2**63 - 1, 2**63),
    "status.deadLetters format": (2**63 - 1, 2**63),
}

# Keywords that need no row: they restrict nothing, or are read off the file below.
_WITHOUT_ROW = {
    *("description", "title", "default", "x-kubernetes-int-or-string", "x-kubernetes-list-type"),
    *("type", "properties", "items", "additionalProperties", "required", "x-kubernetes-validations"),
}
_OTHER_TYPE = {"object": "text", "array": "text", "string": 7, "integer": "7", "boolean": "yes"}


def _ours() -> Iterator[tuple[str, crd.JsonSchema]]:
    """The schemas that the file adds to what every Kubernetes object has."""
    return ((path, node) for path, node in crd.schemas() if path.startswith(("spec", "status")))


def constraints() -> set[str]:
    """Path and keyword of all that needs a row."""
    return {f"{path} {keyword}" for path, node in _ours() for keyword in node if keyword not in _WITHOUT_ROW}


def limit(row: str) -> Any:
    """The keyword's own value in the file."""
    path, _, keyword = row.rpartition(" ")
    return dict(crd.schemas())[path][keyword]


def wrong_types() -> dict[str, Any]:
    """Path → a value of another type than the field's."""
    # The whole status is only ever written by the operator.
    return {path: _OTHER_TYPE[node["type"]] for path, node in _ours() if "type" in node and path != "status"}


def required() -> list[str]:
    """The path of each required field."""
    return [f"{path}.{name}" for path, node in _ours() for name in node.get("required", [])]


def closed() -> list[str]:
    """The path of each object that lists its fields."""
    return [path for path, node in _ours() if "properties" in node]

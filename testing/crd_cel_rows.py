"""The table of what the CEL rules of the CRD refuse: for each a manifest that it accepts, and one that it refuses.

Two tests read it: one without a cluster, that no rule lacks its row, and one against a real API server.
"""

from dataclasses import dataclass

from crd_manifests import Document, change, quickstart
from embedding_operator import crd


@dataclass(frozen=True)
class Rule:
    """A CEL rule of the file: the path of its schema, where an error is reported, and the sentence."""

    path: str
    field: str
    message: str


def rules() -> list[Rule]:
    """Every CEL rule."""
    return [
        Rule(path, path.replace("[]", "[0]") + rule.get("fieldPath", ""), rule["message"])
        for path, node in crd.schemas()
        for rule in node.get("x-kubernetes-validations", [])
    ]


def changed(changes: Document) -> Document:
    """The quickstart with changes, by path."""
    document = quickstart()
    for path, value in changes.items():
        change(document, path, value)
    return document


@dataclass(frozen=True)
class CelRow:
    """Changes of the quickstart that a rule accepts, and changes that it refuses.

    Of a rule on changes, ``before`` are those of the stored object, which each of the two is to replace.
    """

    path: str  # of the rule's schema
    begins: str  # how the rule's sentence begins
    accepted: Document
    refused: Document
    before: Document | None = None

    def rule(self) -> Rule:
        """The rule that this row is of. Raises ``ValueError`` where there isn't one."""
        (found,) = [rule for rule in rules() if rule.path == self.path and rule.message.startswith(self.begins)]
        return found


_GROUP = "spec.input.consumerGroup"
_GROUP_CHANGES = f"{_GROUP} can't be changed"
_MODEL_CHANGES = "can't be changed in name, revision, maxLength, prompt or normalize"
_NEW_TOPIC = {"spec.output.topic": "other-embeddings"}
_MIXED = {"spec.model.changePolicy": "AllowMixed"}
_AUTOSCALED = {"spec.autoscaling": {"metric": "CPU", "maxReplicas": 3}}
_NO_CPU = "must name a cpu above 0 where spec.autoscaling.metric is CPU"


def _fewer_partitions(section: str, other_topic: Document) -> dict[str, CelRow]:
    field, begins = f"{section}.create.partitions", "can't be lowered"
    before = {field: 3}
    return {
        f"fewer partitions of {section}": CelRow(section, begins, {field: 4}, {field: 2}, before),
        f"fewer partitions of another topic of {section}": CelRow(
            section, begins, {field: 2, **other_topic}, {field: 1}, before
        ),
    }


CEL_ROWS: dict[str, CelRow] = {
    "a name that is too long": CelRow(
        "", "metadata.name must", {"metadata.name": "a" * 45}, {"metadata.name": "a" * 46}
    ),
    "a name with a dot": CelRow("", "metadata.name must", {"metadata.name": "a-b"}, {"metadata.name": "a.b"}),
    "another group than the derived one": CelRow(
        "", _GROUP_CHANGES, {_GROUP: "default.quickstart"}, {_GROUP: "others"}, before={}
    ),
    "another group than the one named": CelRow(
        "", _GROUP_CHANGES, {_GROUP: "mine", "spec.replicas": 2}, {_GROUP: "others"}, before={_GROUP: "mine"}
    ),
    "the group that was named left out": CelRow(
        "", _GROUP_CHANGES, {_GROUP: "mine", "spec.paused": True}, {}, before={_GROUP: "mine"}
    ),
    "another group than the derived one that was named": CelRow(
        "", _GROUP_CHANGES, {}, {_GROUP: "others"}, before={_GROUP: "default.quickstart"}
    ),
    "the input as output": CelRow(
        "spec",
        "must differ from spec.input.topic, since",
        {"spec.output.topic": "vectors"},
        {"spec.output.topic": "text-messages"},
    ),
    "the input for dead letters": CelRow(
        "spec",
        "must differ from spec.input.topic and spec.output.topic",
        {"spec.deadLetter.topic": "rejected"},
        {"spec.deadLetter.topic": "text-messages"},
    ),
    "the output for dead letters": CelRow(
        "spec",
        "must differ from spec.input.topic and spec.output.topic",
        {"spec.deadLetter.topic": "rejected"},
        {"spec.deadLetter.topic": "embeddings"},
    ),
    "the derived dead-letter topic as input": CelRow(
        "spec",
        "must be set, since the derived",
        {"spec.input.topic": "embeddings-deadletter", "spec.deadLetter.topic": "rejected"},
        {"spec.input.topic": "embeddings-deadletter"},
    ),
    "an output topic too long to derive from": CelRow(
        "spec",
        "must be set where spec.output.topic has more than 238",
        {"spec.output.topic": "a" * 238},
        {"spec.output.topic": "a" * 239},
    ),
    "CUDA and no GPU": CelRow(
        "spec",
        "must be set where spec.model.device is CUDA",
        {"spec.model.device": "CUDA", "spec.worker.gpu": {}},
        {"spec.model.device": "CUDA"},
    ),
    "more workers at least than at most": CelRow(
        "spec.autoscaling",
        "can't be more than maxReplicas",
        {"spec.autoscaling": {"metric": "CPU", "minReplicas": 3, "maxReplicas": 3}},
        {"spec.autoscaling": {"metric": "CPU", "minReplicas": 4, "maxReplicas": 3}},
    ),
    "no worker at least, by a CPU that none uses": CelRow(
        "spec.autoscaling",
        "must be 1 or more where metric is CPU",
        {"spec.autoscaling": {"metric": "Lag", "minReplicas": 0, "maxReplicas": 3}},
        {"spec.autoscaling": {"metric": "CPU", "minReplicas": 0, "maxReplicas": 3}},
    ),
    "autoscaling and no CPU asked for": CelRow(
        "spec",
        _NO_CPU,
        {**_AUTOSCALED, "spec.worker.resources": {"requests": {"memory": "2Gi"}, "limits": {"cpu": 2}}},
        {**_AUTOSCALED, "spec.worker.resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "2Gi"}}},
    ),
    "autoscaling and a request of 0 CPUs": CelRow(
        "spec",
        _NO_CPU,
        {**_AUTOSCALED, "spec.worker.resources": {"requests": {"cpu": 1}}},
        {**_AUTOSCALED, "spec.worker.resources": {"requests": {"cpu": 0}, "limits": {"cpu": 2}}},
    ),
    "autoscaling and a request of 0 CPUs as text": CelRow(
        "spec",
        _NO_CPU,
        {**_AUTOSCALED, "spec.worker.resources": {"requests": {"cpu": "0.05"}}},
        {**_AUTOSCALED, "spec.worker.resources": {"requests": {"cpu": "0.0m"}}},
    ),
    "autoscaling and a limit of 0 CPUs": CelRow(
        "spec",
        _NO_CPU,
        {**_AUTOSCALED, "spec.worker.resources": {"requests": {"memory": "2Gi"}, "limits": {"cpu": "100m"}}},
        {**_AUTOSCALED, "spec.worker.resources": {"requests": {"memory": "2Gi"}, "limits": {"cpu": 0}}},
    ),
    "GPUs among the limits": CelRow(
        "spec",
        "can't name the resource of spec.worker.gpu",
        {"spec.worker.gpu": {}, "spec.worker.resources.limits": {"memory": "8Gi"}},
        {"spec.worker.gpu": {}, "spec.worker.resources.limits": {"nvidia.com/gpu": 2}},
    ),
    "GPUs among the requests": CelRow(
        "spec",
        "can't name the resource of spec.worker.gpu",
        {
            "spec.worker.resources.requests": {"nvidia.com/gpu": 1},
            "spec.worker.resources.limits": {"nvidia.com/gpu": 1},
        },
        {
            "spec.worker.gpu": {"resourceName": "nvidia.com/mig-1g.10gb"},
            "spec.worker.resources.requests": {"nvidia.com/mig-1g.10gb": 1},
        },
    ),
    "Float16 and a CPU": CelRow(
        "spec",
        "can't be Float16 where spec.model.device is CPU",
        {"spec.model.device": "CPU", "spec.model.precision": "BFloat16"},
        {"spec.model.device": "CPU", "spec.model.precision": "Float16"},
    ),
    "another model into the same topic": CelRow(
        "spec",
        _MODEL_CHANGES,
        {"spec.model.name": "other", **_NEW_TOPIC},
        {"spec.model.name": "other"},
        before={},
    ),
    "another revision into the same topic": CelRow(
        "spec",
        _MODEL_CHANGES,
        {"spec.model.revision": "v2", **_MIXED},
        {"spec.model.revision": "v2"},
        before={"spec.model.revision": "v1"},
    ),
    "a first revision into the same topic": CelRow(
        "spec",
        _MODEL_CHANGES,
        {"spec.model.revision": "v1", **_NEW_TOPIC},
        {"spec.model.revision": "v1"},
        before={},
    ),
    "another maxLength into the same topic": CelRow(
        "spec",
        _MODEL_CHANGES,
        {"spec.model.maxLength": 64, **_NEW_TOPIC},
        {"spec.model.maxLength": 64},
        before={"spec.model.maxLength": 128},
    ),
    "no maxLength any more into the same topic": CelRow(
        "spec", _MODEL_CHANGES, _MIXED, {}, before={"spec.model.maxLength": 128}
    ),
    "another prompt into the same topic": CelRow(
        "spec",
        _MODEL_CHANGES,
        {"spec.model.prompt": "passage: ", **_NEW_TOPIC},
        {"spec.model.prompt": "passage: "},
        before={"spec.model.prompt": "query: "},
    ),
    "no prompt any more into the same topic": CelRow(
        "spec", _MODEL_CHANGES, _NEW_TOPIC, {}, before={"spec.model.prompt": "query: "}
    ),
    "another normalize into the same topic": CelRow(
        "spec",
        _MODEL_CHANGES,
        {"spec.model.normalize": False, **_MIXED},
        {"spec.model.normalize": False},
        before={},
    ),
    "another normalize under cover of another device": CelRow(
        "spec",
        _MODEL_CHANGES,
        {"spec.model.device": "CPU", "spec.model.onOverflow": "Reject", "spec.output.encoding": "Binary"},
        {"spec.model.device": "CPU", "spec.model.normalize": False},
        before={},
    ),
    "authorities and no TLS": CelRow(
        "spec.kafka.tls",
        "must be true where caSecret",
        {"spec.kafka.tls.caSecret.name": "authority", "spec.kafka.tls.enabled": True},
        {"spec.kafka.tls.caSecret.name": "authority"},
    ),
    "a certificate and no TLS": CelRow(
        "spec.kafka.tls",
        "must be true where caSecret",
        {"spec.kafka.tls.clientCertificateSecret.name": "mine", "spec.kafka.tls.enabled": True},
        {"spec.kafka.tls.clientCertificateSecret.name": "mine", "spec.kafka.tls.enabled": False},
    ),
    **_fewer_partitions("spec.input", {"spec.input.topic": "other-messages"}),
    **_fewer_partitions("spec.output", _NEW_TOPIC),
    **_fewer_partitions("spec.deadLetter", {"spec.deadLetter.topic": "rejected"}),
    "a size of a claim": CelRow(
        "spec.model.cache",
        "must be left out where persistentVolumeClaim is set",
        {"spec.model.cache.sizeLimit": 10_000_000_000},
        {"spec.model.cache.sizeLimit": "10Gi", "spec.model.cache.persistentVolumeClaim.claimName": "models"},
    ),
    "a variable of the workers' own": CelRow(
        "spec.worker.env[]",
        "can't begin with EMBEDDING_",
        {"spec.worker.env": [{"name": "HF_ENDPOINT", "value": "http://hub"}]},
        {"spec.worker.env": [{"name": "EMBEDDING_KAFKA__TLS", "value": "false"}]},
    ),
    "a label that pods are found by": CelRow(
        "spec.worker.podLabels",
        "can't hold keys that begin with app.kubernetes.io/ or",
        {"spec.worker.podLabels": {"kubernetes.io/app": "search"}},
        {"spec.worker.podLabels": {"app.kubernetes.io/name": "search"}},
    ),
    "a label of the operator's own": CelRow(
        "spec.worker.podLabels",
        "can't hold keys that begin with app.kubernetes.io/ or",
        {"spec.worker.podLabels": {"team": "search"}},
        {"spec.worker.podLabels": {"embeddings.dev/team": "search"}},
    ),
    "an annotation of the operator's own": CelRow(
        "spec.worker.podAnnotations",
        "can't hold keys that begin with embeddings.dev/",
        {"spec.worker.podAnnotations": {"example.com/config-checksum": "1"}},
        {"spec.worker.podAnnotations": {"embeddings.dev/config-checksum": "1"}},
    ),
}

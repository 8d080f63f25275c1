"""Manifests: what is accepted, what is refused with which line, and which defaults are applied."""

from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from pydantic import ValidationError

from crd_cel_rows import CEL_ROWS, CelRow, changed
from crd_manifests import ABSENT, every_field, reported
from crd_schema_rows import ROWS, closed, required, with_field, wrong_types
from crd_values import specs
from embedding_operator import crd, manifest
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.manifest import ManifestError

DEFAULT_MODEL = {
    "name": "sentence-transformers/all-MiniLM-L6-v2",
    "onOverflow": "Truncate",
    "device": "Auto",
    "precision": "Auto",
    "normalize": True,
    "changePolicy": "RequireNewOutputTopic",
    "cache": {},
}
VALID = """
apiVersion: embeddings.dev/v1alpha1
kind: EmbeddingPipeline
metadata:
  name: articles
spec:
  kafka:
    bootstrapServers: [kafka:9092]
  input:
    topic: articles
  output:
    topic: vectors
"""


def document(**fields: Any) -> dict[str, Any]:
    """The valid manifest, with fields (their path with ``__`` between) set, or taken away where the value is ``...``."""
    changed: dict[str, Any] = yaml.safe_load(VALID)
    for path, value in fields.items():
        *parents, name = path.split("__")
        parent = changed
        for each in parents:
            parent = parent.setdefault(each, {})
        if value is ...:
            del parent[name]
        else:
            parent[name] = value
    return changed


QUOTES = str.maketrans("'", '"')
REFUSED = {
    "an unknown value of an enum": (
        {"spec__model__device": "gpu"},
        'spec.model.device: "gpu" is not one of Auto, CPU, CUDA',
    ),
    "a value of an enum in other letters": (
        {"spec__input__startFrom": "latest"},
        'spec.input.startFrom: "latest" is not one of Earliest, Latest',
    ),
    "a missing field": ({"spec__input__topic": ...}, "spec.input.topic: is required"),
    "a missing section": ({"spec__kafka": ...}, "spec.kafka: is required"),
    "a null for a required field": ({"spec__input__topic": None}, "spec.input.topic: is required"),
    "no spec": ({"spec": ...}, "spec: is required"),
    "no metadata": ({"metadata": ...}, "metadata: is required"),
    "no name": ({"metadata": {"namespace": "search"}}, "metadata.name: is required"),
    "a name that no object can have": (
        {"metadata__name": "Articles"},
        'metadata.name: "Articles" is not a DNS name (a-z, 0-9, -, dots; a letter or digit at both ends)',
    ),
    "a namespace that can't be": (
        {"metadata__namespace": "a.b"},
        'metadata.namespace: "a.b" is not a DNS label (a-z, 0-9, -; a letter or digit at both ends)',
    ),
    "a label that isn't a string": ({"metadata__labels": {"tier": 1}}, "metadata.labels.tier: 1 is not a string"),
    "an unknown field of a section": (
        {"spec__kafka__servers": ["kafka:9092"]},
        "spec.kafka.servers: unknown field; expected one of tls, sasl, bootstrapServers",
    ),
    "an unknown field at the top": (
        {"specification": {}},
        "specification: unknown field; expected one of apiVersion, kind, metadata, spec, status",
    ),
    "an unknown field of a list's item": (
        {"spec__worker": {"tolerations": [{"key": "gpu"}, {"keys": "gpu"}]}},
        "spec.worker.tolerations[1].keys: unknown field; expected one of key, operator, value, effect, tolerationSeconds",
    ),
    "a status that no operator wrote": (
        {"status": {"phase": "Ready"}},
        "status.phase: unknown field; expected one of observedGeneration, conditions, replicas, availableReplicas, selector, lag, messagesPerSecond, caughtUpIn, deadLetters, consumerGroup, kafkaClusterId, topics, model",
    ),
    "a string for a number": (
        {"spec__model__maxLength": "256"},
        'spec.model.maxLength: "256" is not a whole number',
    ),
    "a fraction for a whole number": (
        {"spec__model__maxLength": 25.6},
        "spec.model.maxLength: 25.6 is not a whole number",
    ),
    "a truth value for a number": (
        {"spec__model__maxLength": True},
        "spec.model.maxLength: true is not a whole number",
    ),
    "a number for a string": ({"spec__input__topic": 7}, "spec.input.topic: 7 is not a string"),
    "a string for a truth value": (
        {"spec__output__includeText": "yes"},
        'spec.output.includeText: "yes" is not true or false',
    ),
    "a string for a list": (
        {"spec__kafka__bootstrapServers": "kafka:9092"},
        'spec.kafka.bootstrapServers: "kafka:9092" is not a list',
    ),
    "a list for a mapping": ({"spec__model": ["a"]}, 'spec.model: ["a"] is not a mapping'),
    "a null in a list": (
        {"spec__kafka__bootstrapServers": [None]},
        "spec.kafka.bootstrapServers[0]: null is not a string",
    ),
    "a broker without its port": (
        {"spec__kafka__bootstrapServers": ["kafka:9092", "kafka"]},
        'spec.kafka.bootstrapServers[1]: "kafka" is not host:port',
    ),
    "no brokers": (
        {"spec__kafka__bootstrapServers": []},
        "spec.kafka.bootstrapServers: [] has fewer than 1 item",
    ),
    "too many brokers": (
        {"spec__kafka__bootstrapServers": ["k:1"] * 33},
        f"spec.kafka.bootstrapServers: [{', '.join(['~k:1~'] * 11)}, ~k… has more than 32 items".replace("~", '"'),
    ),
    "a topic's name with a character that Kafka refuses": (
        {"spec__input__topic": "my topic"},
        'spec.input.topic: "my topic" is not a topic name (a-z, A-Z, 0-9, dots, _ and -, not dots alone)',
    ),
    "a topic's name of dots": (
        {"spec__output__topic": ".."},
        'spec.output.topic: ".." is not a topic name (a-z, A-Z, 0-9, dots, _ and -, not dots alone)',
    ),
    "a topic's name with a line's end": (
        {"spec__output__topic": "vectors\n"},
        'spec.output.topic: "vectors\\n" is not a topic name (a-z, A-Z, 0-9, dots, _ and -, not dots alone)',
    ),
    "an empty topic's name": (
        {"spec__deadLetter__topic": ""},
        'spec.deadLetter.topic: "" is not a topic name (a-z, A-Z, 0-9, dots, _ and -, not dots alone)',
    ),
    "a topic's name that is too long": (
        {"spec__input__topic": "t" * 250},
        f'spec.input.topic: "{"t" * 79}… is longer than 249 characters',
    ),
    "an empty field name": (
        {"spec__input__textField": ""},
        'spec.input.textField: "" is shorter than 1 character',
    ),
    "a length of nothing": ({"spec__model__maxLength": 0}, "spec.model.maxLength: 0 is less than 1"),
    "a length beyond any model's": (
        {"spec__model__maxLength": 131073},
        "spec.model.maxLength: 131073 is more than 131072",
    ),
    "a relative path of a model": (
        {"spec__model__name": "./model"},
        'spec.model.name: "./model" is not a hub id (organisation/model) or an absolute path',
    ),
    "a fraction that is not written as a string": (
        {"spec__worker": {"resources": {"requests": {"cpu": 0.5}}}},
        "spec.worker.resources.requests.cpu: 0.5 is neither a whole number nor a string; expected a quantity, such as 500m, 2 or 1.5Gi",
    ),
    "a quantity with a unit that there isn't": (
        {"spec__worker": {"resources": {"limits": {"memory": "2GB"}}}},
        'spec.worker.resources.limits.memory: "2GB" is not a quantity, such as 500m, 2 or 1.5Gi',
    ),
    "a value of a map that isn't a string": (
        {"spec__worker": {"nodeSelector": {"gpu": True}}},
        "spec.worker.nodeSelector.gpu: true is not a string",
    ),
    "too many entries of a map": (
        {"spec__worker": {"podLabels": {f"l{number}": "" for number in range(65)}}},
        f"spec.worker.podLabels: {str({f'l{number}': '' for number in range(9)}).translate(QUOTES)[:80]}… has more than 64 entries",
    ),
    "a variable that is there twice": (
        {"spec__worker": {"env": [{"name": "A"}, {"name": "B"}, {"name": "A", "value": "1"}]}},
        'spec.worker.env[2]: {"name": "A"} is there twice',
    ),
    "a variable without a name": (
        {"spec__worker": {"env": [{"name": "A"}, {"name": None, "value": "1"}]}},
        "spec.worker.env[1].name: is required",
    ),
    "another version": (
        {"apiVersion": "embeddings.dev/v1"},
        'apiVersion: "embeddings.dev/v1" is not embeddings.dev/v1alpha1',
    ),
    "another kind, whose fields are not looked at": (
        {"kind": "Deployment", "spec__replicas": 1},
        'kind: "Deployment" is not EmbeddingPipeline',
    ),
    "no kind": ({"kind": ...}, "kind: is required"),
}


@pytest.mark.parametrize(("fields", "line"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(fields: dict[str, Any], line: str) -> None:
    assert manifest.problems(document(**fields)) == [line]


def test_refuses_with_a_line_for_each_fault_in_the_order_of_the_schema() -> None:
    faulty = document(spec__model={"device": "gpu", "size": 1}, spec__input={"topics": "articles"})
    assert manifest.problems(faulty) == [
        "spec.input.topic: is required",
        "spec.input.topics: unknown field; expected one of create, topic, consumerGroup, startFrom, textField, idField",
        'spec.model.device: "gpu" is not one of Auto, CPU, CUDA',
        "spec.model.size: unknown field; expected one of changePolicy, tokenSecret, cache, name, revision, maxLength, onOverflow, device, precision, prompt, normalize",
    ]


def test_each_keyword_of_the_schema_has_a_sentence() -> None:
    keywords = set().union(*(node for _, node in crd.schemas()))
    silent = {
        *("description", "title", "default", "properties", "items"),
        # The API server's alone: its rules; and the status's formats, which nobody writes by hand.
        *("x-kubernetes-validations", "format"),
        # Said by anyOf, by type, and by the keys.
        *("x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type"),
    }
    assert keywords - silent <= manifest.SENTENCES.keys()


@pytest.mark.parametrize(("row", "values"), ROWS.items(), ids=ROWS)
def test_local_validation_draws_the_line_of(row: str, values: tuple[Any, Any]) -> None:
    path, _, keyword = row.rpartition(" ")
    accepted, refused = values
    assert manifest.problems(with_field(path, accepted)) == []
    if keyword == "format":
        return
    problems = manifest.problems(with_field(path, refused))
    assert problems
    assert all(problem.startswith(reported(path)) for problem in problems)


@pytest.mark.parametrize(("path", "value"), wrong_types().items(), ids=wrong_types())
def test_local_validation_refuses_another_type_of(path: str, value: Any) -> None:
    problems = manifest.problems(with_field(path, value))
    assert problems
    assert all(problem.startswith(f"{reported(path)}: ") for problem in problems)


@pytest.mark.parametrize("path", required())
def test_local_validation_asks_for(path: str) -> None:
    assert manifest.problems(with_field(path, ABSENT)) == [f"{reported(path)}: is required"]


@pytest.mark.parametrize("path", closed())
def test_local_validation_knows_all_fields_of(path: str) -> None:
    (problem,) = manifest.problems(with_field(f"{path}.unheardOf", 1))
    assert problem.startswith(f"{reported(path)}.unheardOf: unknown field; expected one of ")


@pytest.mark.parametrize("row", CEL_ROWS.values(), ids=CEL_ROWS.keys())
def test_local_validation_leaves_rules_to_the_api_server(row: CelRow) -> None:
    assert [manifest.problems(changed(changes)) for changes in (row.before or {}, row.accepted, row.refused)] == [
        []
    ] * 3


def test_an_object_that_was_read_back_from_a_cluster_is_accepted() -> None:
    stored = every_field()
    stored["metadata"] |= {
        "uid": "1",
        "generation": 2,
        "managedFields": [{}],
        "creationTimestamp": "2026-01-02T03:04:05Z",
    }
    assert manifest.problems(stored) == []
    assert EmbeddingPipeline.model_validate(manifest.defaulted(stored)).status == stored["status"]


UNUSABLE = {
    "nothing": ("", "empty; expected an EmbeddingPipeline"),
    "only comments and separators": ("# soon\n---\n---\n", "empty; expected an EmbeddingPipeline"),
    "a bracket that isn't closed": (
        "spec: [",
        "not valid YAML: line 1, column 8: expected the node content, but found '<stream end>'",
    ),
    "a colon too many": ("a: b: c", "not valid YAML: line 1, column 5: mapping values are not allowed here"),
    "a key that is there twice": ("a: 1\nb: 2\na: 3", "not valid YAML: line 3, column 1: the key 'a' is there twice"),
    "a key that is a list": ("? [a]\n: 1", "not valid YAML: line 1, column 3: a key must be a string"),
    "a node that contains itself": (
        "a: &a [*a]",
        "not valid YAML: line 1, column 4: found unconstructable recursive node",
    ),
    "a tag that JSON has no value for": (
        "a: !!binary aGk=",
        "not valid YAML: line 1, column 4: could not determine a constructor for the tag 'tag:yaml.org,2002:binary'",
    ),
}


@pytest.mark.parametrize(("text", "line"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_refuses_as_a_whole(text: str, line: str) -> None:
    with pytest.raises(ManifestError) as refused:
        manifest.pipelines(text)
    assert refused.value.problems == [line]


def test_a_document_that_is_no_mapping_is_refused() -> None:
    (checked,) = manifest.pipelines("- 1\n- 2\n")
    assert isinstance(checked, ManifestError)
    assert checked.problems == ["[1, 2] is not a mapping; expected an EmbeddingPipeline"]


def test_each_document_of_several_is_judged_on_its_own() -> None:
    accepted, refused = manifest.pipelines(f"{VALID}---\nkind: Namespace\napiVersion: v1\n")
    assert isinstance(accepted, EmbeddingPipeline)
    assert isinstance(refused, ManifestError)


def test_a_date_stays_the_string_that_it_is_to_kubernetes() -> None:
    (checked,) = manifest.pipelines(VALID.replace("topic: articles", "topic: 2024-01-31"))
    assert isinstance(checked, EmbeddingPipeline)
    assert checked.spec.input.topic == "2024-01-31"


DEFAULTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "sections that are left out": (
        {},
        {
            "replicas": 1,
            "paused": False,
            "kafka": {"bootstrapServers": ["kafka:9092"], "tls": {"enabled": False}},
            "deadLetter": {},
            "topics": {"manage": True, "deletionPolicy": "Retain"},
            "model": DEFAULT_MODEL,
            "worker": {"resources": {"requests": {"cpu": "500m", "memory": "1536Mi"}}},
            "http": {},
        },
    ),
    "a section that is null": ({"spec__model": None}, {"model": DEFAULT_MODEL}),
    "the rest of a section that is there": (
        {"spec__model": {"device": "CPU"}},
        {"model": {**DEFAULT_MODEL, "device": "CPU"}},
    ),
    "the rest of a section that is there and has no default itself": (
        {"spec__worker": {"gpu": {}}},
        {
            "worker": {
                "gpu": {"count": 1, "resourceName": "nvidia.com/gpu"},
                "resources": {"requests": {"cpu": "500m", "memory": "1536Mi"}},
            }
        },
    ),
    "the rest of a list's items": (
        {"spec__worker": {"resources": {"requests": {}}, "tolerations": [{"key": "gpu"}]}},
        {"worker": {"resources": {"requests": {}}, "tolerations": [{"key": "gpu", "operator": "Equal"}]}},
    ),
    "nothing into a map that is there": (
        {"spec__worker": {"resources": {"requests": {"cpu": 2, "memory": None}}}},
        {"worker": {"resources": {"requests": {"cpu": 2}}}},
    ),
    "nothing into what is kept as written": (
        {"spec__worker": {"resources": {"requests": {}}, "affinity": {"nodeAffinity": None}}},
        {"worker": {"resources": {"requests": {}}, "affinity": {"nodeAffinity": None}}},
    ),
    "a field that is null and has a default": (
        {"spec__input__startFrom": None},
        {"input": {"topic": "articles", "startFrom": "Earliest", "textField": "text", "idField": "id"}},
    ),
    "a field that is null and has none, which goes": (
        {"spec__output__topic": "vectors", "spec__deadLetter__topic": None},
        {"deadLetter": {}, "output": {"topic": "vectors", "encoding": "JSON", "includeText": True}},
    ),
    "nothing where a value is false": (
        {"spec__output__includeText": False},
        {"output": {"topic": "vectors", "encoding": "JSON", "includeText": False}},
    ),
}


@pytest.mark.parametrize(("fields", "sections"), DEFAULTED.values(), ids=DEFAULTED.keys())
def test_fills_in(fields: dict[str, Any], sections: dict[str, Any]) -> None:
    filled = manifest.defaulted(document(**fields))
    assert isinstance(filled, dict)
    assert {name: filled["spec"][name] for name in sections} == sections


def test_defaults_are_not_put_into_a_parent_that_is_missing_and_has_no_default_itself() -> None:
    filled = manifest.defaulted(document(spec__input=...))
    assert isinstance(filled, dict)
    assert "input" not in filled["spec"]


def test_the_manifest_that_was_given_stays_as_it_is() -> None:
    given_document = document()
    manifest.defaulted(given_document)
    assert given_document == document()


def test_defaults_of_the_models_are_those_of_the_schema() -> None:
    assert EmbeddingPipeline.model_validate(document()) == EmbeddingPipeline.model_validate(
        manifest.defaulted(document())
    )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spec=specs())
def test_schema_and_models_accept_the_same_manifests(spec: Any) -> None:
    generated = document(spec=spec)
    filled = manifest.defaulted(generated)
    if manifest.problems(generated):
        with pytest.raises(ValidationError):
            EmbeddingPipeline.model_validate(filled)
    else:
        stored = EmbeddingPipeline.model_validate(filled).model_dump(mode="json", by_alias=True, exclude_none=True)
        assert isinstance(filled, dict)
        assert stored["spec"] == filled["spec"]

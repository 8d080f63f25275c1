"""The ConfigMap: what a pipeline says is what its workers read."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from embedding_operator.api import EmbeddingPipeline
from embedding_operator.desired.config_map import config_map, worker_settings
from embedding_service.contract.settings import DEFAULT_MODEL, FROM_ENVIRONMENT, Settings, parse_settings

EXAMPLES = Path(__file__).parents[2] / "examples"


def pipeline(**spec: Any) -> EmbeddingPipeline:
    sections = {"kafka": {"bootstrapServers": ["kafka:9092"]}, "input": {"topic": "in"}, "output": {"topic": "out"}}
    return EmbeddingPipeline.model_validate(
        {
            "apiVersion": "embeddings.dev/v1alpha1",
            "kind": "EmbeddingPipeline",
            "metadata": {"name": "articles", "namespace": "search", "uid": "u-1"},
            "spec": sections | spec,
        }
    )


# What the pods' environment brings from Secrets; asked for only where a pipeline names them.
SECRETS = {
    "EMBEDDING_KAFKA__SASL_USERNAME": FROM_ENVIRONMENT.get_secret_value(),
    "EMBEDDING_KAFKA__SASL_PASSWORD": FROM_ENVIRONMENT.get_secret_value(),
    "EMBEDDING_HTTP__TOKEN": FROM_ENVIRONMENT.get_secret_value(),
}


def read_back(built: dict[str, Any], environment: dict[str, str] | None = None) -> Settings:
    return parse_settings(built["data"]["config.yaml"], environment or {})


# Field → the sections that set it, and where the worker finds which value.
FIELDS: dict[str, tuple[dict[str, Any], str, object]] = {
    "kafka.bootstrapServers": (
        {"kafka": {"bootstrapServers": ["a:1", "[::1]:2"]}},
        "kafka.bootstrap_servers",
        ("a:1", "[::1]:2"),
    ),
    "input.topic": ({"input": {"topic": "texts"}}, "kafka.input_topic", "texts"),
    "input.consumerGroup": ({"input": {"topic": "in", "consumerGroup": "g"}}, "kafka.consumer_group", "g"),
    "input.consumerGroup, unset": ({}, "kafka.consumer_group", "search.articles"),
    "input.startFrom": ({"input": {"topic": "in", "startFrom": "Latest"}}, "kafka.start_from", "latest"),
    "input.textField": ({"input": {"topic": "in", "textField": "body"}}, "input.text_field", "body"),
    "input.idField": ({"input": {"topic": "in", "idField": "key"}}, "input.id_field", "key"),
    "output.topic": ({"output": {"topic": "vectors"}}, "kafka.output_topic", "vectors"),
    "output.encoding": ({"output": {"topic": "o", "encoding": "Base64"}}, "output.encoding", "base64"),
    "output.encoding, Binary": ({"output": {"topic": "o", "encoding": "Binary"}}, "output.encoding", "binary"),
    "output.includeText": ({"output": {"topic": "o", "includeText": False}}, "output.include_text", False),
    "deadLetter.topic": ({"deadLetter": {"topic": "bad"}}, "kafka.dead_letter_topic", "bad"),
    "deadLetter.topic, unset": ({}, "kafka.dead_letter_topic", "out-deadletter"),
    "model.name": ({"model": {"name": "/models/own"}}, "model.name", "/models/own"),
    "model.name, unset": ({}, "model.name", DEFAULT_MODEL),
    "model.revision": ({"model": {"revision": "v1"}}, "model.revision", "v1"),
    "model.maxLength": ({"model": {"maxLength": 64}}, "model.max_length", 64),
    "model.maxLength, unset": ({}, "model.max_length", None),
    "model.onOverflow": ({"model": {"onOverflow": "Reject"}}, "model.on_overflow", "reject"),
    "model.onOverflow, unset": ({}, "model.on_overflow", "truncate"),
    "model.precision": ({"model": {"precision": "BFloat16"}}, "model.precision", "bfloat16"),
    "model.precision, unset": ({}, "model.precision", "auto"),
    "model.device": ({"model": {"device": "CUDA"}}, "model.device", "cuda"),
    "model.prompt": ({"model": {"prompt": "query: "}}, "model.prompt", "query: "),
    "model.changePolicy": ({"model": {"changePolicy": "AllowMixed"}}, "model.change_policy", "allow_mixed"),
    "model.normalize": ({"model": {"normalize": False}}, "model.normalize", False),
}


@pytest.mark.parametrize(("sections", "key", "value"), FIELDS.values(), ids=FIELDS.keys())
def test_reaches_the_worker(sections: dict[str, Any], key: str, value: object) -> None:
    settings = read_back(config_map(pipeline(**sections)))
    section, _, name = key.partition(".")
    assert getattr(getattr(settings, section), name) == value


# What the pods and the topics are made of, which is not the workers' own configuration.
ELSEWHERE = {
    "input.create",
    "output.create",
    "deadLetter.create",
    "model.tokenSecret",
    "model.cache",
    "kafka.tls",
    "kafka.sasl",
    "http.tokenSecret",
}
SECTIONS = ("kafka", "input", "output", "deadLetter", "model", "http")


def test_each_field_of_the_resource_is_in_the_table() -> None:
    definitions = EmbeddingPipeline.model_json_schema(by_alias=True)["$defs"]
    fields = {
        f"{section}.{field}"
        for section in SECTIONS
        for field in definitions[definitions["Spec"]["properties"][section]["$ref"].rpartition("/")[2]]["properties"]
    }
    assert fields == {name.partition(",")[0] for name in FIELDS} | ELSEWHERE


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_what_an_example_says_is_what_its_workers_read(example: Path) -> None:
    parsed = EmbeddingPipeline.model_validate(yaml.safe_load(example.read_text(encoding="utf-8")))
    environment = SECRETS if parsed.spec.kafka.sasl is not None else {}
    assert read_back(config_map(parsed), environment) == worker_settings(parsed)


# Line ends to YAML, and to nobody else.
@example(prompt="\x85\u2028\u2029", field="\x85", path="\x85")
@given(prompt=st.text(min_size=1), field=st.text(min_size=1, max_size=255), path=st.text(max_size=50))
def test_any_text_is_read_as_it_was_written(prompt: str, field: str, path: str) -> None:
    parsed = pipeline(
        input={"topic": "in", "textField": field},
        model={"prompt": prompt, "name": "/" + (path.replace("\n", "") or "model")},
    )
    assert read_back(config_map(parsed)) == worker_settings(parsed)


def test_workers_of_a_cluster_log_json_take_no_orders_by_http_and_make_no_topics() -> None:
    settings = worker_settings(pipeline())
    assert settings.logging.format == "json"
    assert settings.http.control == "off"
    assert settings.kafka.create_dead_letter_topic is False


def test_the_object_is_a_config_map_of_the_pipelines_namespace() -> None:
    built = config_map(pipeline())
    assert (built["apiVersion"], built["kind"]) == ("v1", "ConfigMap")
    assert built["metadata"] == {
        "name": "articles-embedding-worker",
        "namespace": "search",
        "labels": {
            "app.kubernetes.io/name": "embedding-worker",
            "app.kubernetes.io/instance": "articles",
            "app.kubernetes.io/managed-by": "embedding-operator",
        },
        "ownerReferences": [
            {
                "apiVersion": "embeddings.dev/v1alpha1",
                "kind": "EmbeddingPipeline",
                "name": "articles",
                "uid": "u-1",
                "controller": True,
            }
        ],
    }


def test_a_rule_that_only_the_api_server_checks_is_not_lost_where_there_is_none() -> None:
    with pytest.raises(ValidationError):
        worker_settings(pipeline(output={"topic": "in"}))

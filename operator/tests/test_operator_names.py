"""Derived names."""

from typing import Any

import pytest

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline


def pipeline(name: str = "articles", **spec: Any) -> EmbeddingPipeline:
    sections = {"kafka": {"bootstrapServers": ["kafka:9092"]}, "input": {"topic": "in"}, "output": {"topic": "out"}}
    return EmbeddingPipeline.model_validate(
        {
            "apiVersion": "embeddings.dev/v1alpha1",
            "kind": "EmbeddingPipeline",
            "metadata": {"name": name, "namespace": "search"},
            "spec": sections | spec,
        }
    )


def test_the_consumer_group_is_derived_from_namespace_and_name() -> None:
    assert names.consumer_group(pipeline()) == "search.articles"


def test_a_consumer_group_that_is_asked_for_stands() -> None:
    assert names.consumer_group(pipeline(input={"topic": "in", "consumerGroup": "old"})) == "old"


def test_the_dead_letter_topic_is_derived_from_the_output_topic() -> None:
    assert names.dead_letter_topic(pipeline()) == "out-deadletter"


def test_a_dead_letter_topic_that_is_asked_for_stands() -> None:
    assert names.dead_letter_topic(pipeline(deadLetter={"topic": "bad"})) == "bad"


@pytest.mark.parametrize("length", [1, 45])
def test_object_names_are_dns_labels_for_every_name_that_is_allowed(length: int) -> None:
    assert len(names.worker(pipeline(name="n" * length))) <= 63


def test_label_values_are_legal_for_every_name_that_is_allowed() -> None:
    assert all(len(value) <= 63 for value in names.labels(pipeline(name="n" * 45)).values())


def test_an_object_tells_by_its_name_whose_it_is() -> None:
    assert names.owner(names.worker(pipeline())) == "articles"
    assert names.owner("articles") is None


def test_a_pod_tells_by_its_labels_whose_it_is() -> None:
    assert names.owner_of_pod(names.labels(pipeline())) == "articles"
    assert names.owner_of_pod({}) is None

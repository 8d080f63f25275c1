"""The topics of a pipeline: which are made, how, and which are left alone."""

from typing import Any

import pytest

from embedding_operator.api import EmbeddingPipeline
from embedding_operator.topics import (
    NewTopic,
    Role,
    TopicChanges,
    changes,
    created_ids,
    deletable,
    missing,
    topics,
)
from embedding_service.contract.topics import dead_letter_max_bytes
from operator_objects import kafka, pipeline, topic

OURS = frozenset({"id-in", "id-out", "id-out-deadletter"})
NOBODYS: frozenset[str] = frozenset()


def managed(**create: dict[str, Any]) -> EmbeddingPipeline:
    """A pipeline whose ``input``, ``output`` or ``deadLetter`` is created so."""
    sections: dict[str, Any] = {"input": {"topic": "in"}, "output": {"topic": "out"}, "deadLetter": {}}
    return pipeline(**{name: section | {"create": create.get(name)} for name, section in sections.items()})


def test_a_pipeline_has_three_topics() -> None:
    assert topics(pipeline()) == {Role.INPUT: "in", Role.OUTPUT: "out", Role.DEAD_LETTER: "out-deadletter"}


def test_the_input_topic_is_made_first_since_the_others_follow_what_it_turns_out_to_be() -> None:
    asked = managed(input={"partitions": 6, "replicationFactor": 2, "config": {"retention.ms": "1"}})
    new = NewTopic("in", Role.INPUT, 6, 2, {"retention.ms": "1"})
    assert changes(asked, kafka(topic("unrelated")), NOBODYS) == TopicChanges(create=(new,))


def test_what_nobody_asks_for_of_the_input_topic_is_left_to_the_brokers() -> None:
    (new,) = changes(pipeline(), kafka(topic("unrelated")), NOBODYS).create
    assert (new.partitions, new.replication_factor, new.config) == (None, None, {})


def test_output_and_dead_letter_topic_have_as_many_partitions_as_the_input_topic_has() -> None:
    found = changes(pipeline(), kafka(topic("in", 12)), NOBODYS).create
    assert [(new.name, new.partitions) for new in found] == [("out", 12), ("out-deadletter", 12)]


def test_what_the_pipeline_asks_for_of_its_outputs_stands() -> None:
    asked = managed(output={"partitions": 2, "config": {"cleanup.policy": "compact"}}, deadLetter={"partitions": 1})
    output, dead_letter = changes(asked, kafka(topic("in", 12)), NOBODYS).create
    assert (output.partitions, output.config, dead_letter.partitions) == (2, {"cleanup.policy": "compact"}, 1)


def test_the_dead_letter_topic_has_room_for_the_largest_record_of_the_input_with_its_error() -> None:
    found = kafka(topic("in", max_message_bytes="2000000"))
    output, dead_letter = changes(pipeline(), found, NOBODYS).create
    assert output.config == {}
    assert dead_letter.config == {"max.message.bytes": str(dead_letter_max_bytes(2_000_000))}


def test_a_size_of_dead_letters_that_the_pipeline_asks_for_stands() -> None:
    asked = managed(deadLetter={"config": {"max.message.bytes": "7"}})
    dead_letter = changes(asked, kafka(topic("in", max_message_bytes="2000000")), NOBODYS).create[-1]
    assert dead_letter.config == {"max.message.bytes": "7"}


def test_a_configuration_that_may_not_be_read_leaves_the_size_of_dead_letters_to_the_brokers() -> None:
    assert changes(pipeline(), kafka(topic("in")), NOBODYS).create[-1].config == {}


def test_only_the_topic_that_is_missing_is_made() -> None:
    found = changes(pipeline(), kafka(topic("in"), topic("out")), OURS)
    assert [new.name for new in found.create] == ["out-deadletter"]


def test_where_all_is_there_nothing_is_done() -> None:
    found = changes(pipeline(), kafka(), OURS)
    assert found == TopicChanges()
    assert not found


def test_each_thing_to_do_is_something_to_do() -> None:
    assert changes(pipeline(), kafka(topic("in")), NOBODYS)
    assert changes(managed(output={"partitions": 6}), kafka(), OURS)
    live = kafka(topic("in"), topic("out", retention_ms="2"), topic("out-deadletter"))
    assert changes(managed(output={"config": {"retention.ms": "1"}}), live, OURS)


MORE = {"input": {"partitions": 6}, "output": {"partitions": 6}, "deadLetter": {"partitions": 6}}


def test_topics_of_ours_grow() -> None:
    assert changes(managed(**MORE), kafka(), OURS).grow == (("in", 6), ("out", 6), ("out-deadletter", 6))


def test_outputs_of_ours_grow_with_an_input_topic_that_is_not() -> None:
    found = kafka(topic("in", 6), topic("out", 3), topic("out-deadletter", 3))
    assert changes(pipeline(), found, OURS - {"id-in"}).grow == (("out", 6), ("out-deadletter", 6))


def test_no_topic_shrinks() -> None:
    less = {section: {"partitions": 1} for section in MORE}
    assert not changes(managed(**less), kafka(), OURS)


CONFIG = {"output": {"config": {"retention.ms": "1", "cleanup.policy": "delete"}}}


def test_of_the_configuration_only_what_differs_is_altered() -> None:
    found = kafka(topic("in"), topic("out", retention_ms="2", cleanup_policy="delete"), topic("out-deadletter"))
    assert changes(managed(**CONFIG), found, OURS).alter == (("out", {"retention.ms": "1"}),)


def test_configuration_that_nobody_asked_for_is_left_alone() -> None:
    found = kafka(topic("in"), topic("out", retention_ms="2"), topic("out-deadletter"))
    assert not changes(pipeline(), found, OURS)


def test_the_dead_letter_topic_follows_a_larger_limit_of_the_input_topic() -> None:
    found = kafka(
        topic("in", max_message_bytes="2000000"), topic("out"), topic("out-deadletter", max_message_bytes="9")
    )
    size = str(dead_letter_max_bytes(2_000_000))
    assert changes(pipeline(), found, OURS).alter == (("out-deadletter", {"max.message.bytes": size}),)


# As it stands in a manifest → as the brokers give it back (tried with Kafka 4.1).
SAME = {
    "a fraction": ("0.50", "0.5"),
    "true": ("True", "true"),
    "a list with blanks": ("compact, delete", "compact,delete"),
    "a number with a blank": (" 604800000", "604800000"),
    "a number with zeros in front": ("0104857600", "104857600"),
    "a number with a sign": ("+5", "5"),
    "text": ("lz4", "lz4"),
    "no text": ("", ""),
    "no number": ("nan", "nan"),
}


@pytest.mark.parametrize(("asked", "found"), SAME.values(), ids=SAME.keys())
def test_what_brokers_write_in_another_way_is_not_altered_without_end(asked: str, found: str) -> None:
    live = kafka(topic("in"), topic("out", some_key=found), topic("out-deadletter"))
    assert not changes(managed(output={"config": {"some.key": asked}}), live, OURS)


OTHER = {
    "a number": ("0.50", "0.51"),
    "true": ("true", "false"),
    "a list": ("compact,delete", "compact"),
    "text": ("lz4", "LZ4"),
    "nothing": ("", "compact"),
}


@pytest.mark.parametrize(("asked", "found"), OTHER.values(), ids=OTHER.keys())
def test_altered_is_another(asked: str, found: str) -> None:
    live = kafka(topic("in"), topic("out", some_key=found), topic("out-deadletter"))
    assert changes(managed(output={"config": {"some.key": asked}}), live, OURS).alter


def test_topics_of_others_are_neither_grown_nor_altered() -> None:
    asked = managed(**{section: {"partitions": 6, "config": {"retention.ms": "1"}} for section in MORE})
    assert not changes(asked, kafka(), NOBODYS)


def test_a_topic_of_ours_that_somebody_made_again_is_theirs() -> None:
    assert not changes(managed(**MORE), kafka(), frozenset({"id of the one before"}))


def test_topics_that_are_not_managed_are_neither_made_nor_changed() -> None:
    unmanaged = managed(**MORE).model_dump(by_alias=True)["spec"] | {"topics": {"manage": False}}
    for found in (kafka(topic("unrelated")), kafka(topic("in")), kafka()):
        assert changes(pipeline(**unmanaged), found, OURS) == TopicChanges()


def test_missing_topics_are_named() -> None:
    assert missing(pipeline(), kafka(topic("out"))) == ["in", "out-deadletter"]


def test_the_status_says_which_topics_are_ours() -> None:
    entries = [{"id": "a", "created": True}, {"id": "b", "created": False}, {"id": "c"}]
    assert created_ids(pipeline(status={"topics": entries})) == {"a"}
    assert created_ids(pipeline(status={})) == created_ids(pipeline()) == NOBODYS


def test_outputs_of_ours_go_with_the_pipeline_and_its_input_never() -> None:
    assert deletable(pipeline(), kafka(), OURS) == ["out", "out-deadletter"]


def test_topics_that_others_made_or_made_again_stay() -> None:
    assert deletable(pipeline(), kafka(), frozenset({"id-in", "id-out"})) == ["out"]
    assert deletable(pipeline(), kafka(), NOBODYS) == []


def test_topics_that_are_gone_already_need_no_deletion() -> None:
    assert deletable(pipeline(), kafka(topic("in")), OURS) == []

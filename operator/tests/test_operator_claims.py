"""Which of several pipelines has an output topic or a consumer group of one Kafka cluster."""

from dataclasses import replace
from typing import Any

import pytest

from embedding_operator.claims import Claim, claim, conflict
from embedding_operator.reasons import Reason
from operator_objects import pipeline

RUNNING = Claim("uid-a", "search/a", "2026-01-02T03:04:05Z", "cluster", "group-a", "out-a", held=True)
# Older, and with a smaller uid.
ANOTHER = Claim("uid-0", "docs/b", "2025-01-02T03:04:05Z", "cluster", "group-b", "out-b", held=False)


def stands_back(own: Claim, *others: Claim) -> bool:
    return conflict(own, others) is not None


def test_pipelines_with_topics_and_groups_of_their_own_do_not_meet() -> None:
    assert not stands_back(ANOTHER, RUNNING)
    assert not stands_back(RUNNING, ANOTHER)


@pytest.mark.parametrize("shared", [{"output": "out-a"}, {"group": "group-a"}, {"output": "out-a", "group": "group-a"}])
def test_the_one_that_runs_stays_though_the_other_is_older(shared: dict[str, Any]) -> None:
    edited = replace(ANOTHER, **shared)
    assert stands_back(edited, RUNNING)
    assert not stands_back(RUNNING, edited)


def test_another_kafka_cluster_has_topics_and_groups_of_its_own() -> None:
    same = replace(ANOTHER, output="out-a", group="group-a", cluster_id="elsewhere")
    assert not stands_back(same, RUNNING)


def test_of_two_that_do_not_run_the_older_one_goes_first() -> None:
    younger, older = replace(RUNNING, held=False), replace(ANOTHER, output="out-a")
    assert stands_back(younger, older)
    assert not stands_back(older, younger)


def test_of_three_that_do_not_run_the_oldest_goes_first() -> None:
    oldest, middle, youngest = (
        replace(RUNNING, uid=year, group=year, created=year, held=False) for year in ("1", "2", "3")
    )
    assert stands_back(youngest, oldest, middle)
    assert stands_back(middle, oldest, youngest)
    assert not stands_back(oldest, middle, youngest)


def test_of_two_of_the_same_second_the_one_with_the_smaller_uid_goes_first() -> None:
    larger, smaller = replace(RUNNING, held=False), replace(ANOTHER, output="out-a", created=RUNNING.created)
    assert stands_back(larger, smaller)
    assert not stands_back(smaller, larger)


def test_of_two_that_both_ran_as_statuses_say_the_older_one_stays() -> None:
    restored = replace(ANOTHER, output="out-a", held=True)
    assert stands_back(RUNNING, restored)
    assert not stands_back(restored, RUNNING)


def test_a_pipeline_does_not_meet_itself() -> None:
    assert not stands_back(replace(RUNNING, held=False), RUNNING)


def test_one_that_waits_for_a_third_does_not_keep_others_from_what_it_has_not_got() -> None:
    waits = replace(ANOTHER, output="out-a", group="wanted")
    free = Claim("uid-z", "search/z", "2026-06-01T00:00:00Z", "cluster", "wanted", "out-z", held=False)
    assert stands_back(waits, RUNNING, free)
    assert not stands_back(free, waits, RUNNING)


SENTENCES = {
    "the topic": (
        {"output": "out-a"},
        (
            "output topic 'out-a' of this Kafka cluster belongs to pipeline search/a; name another in spec.output.topic, "
            "or delete that pipeline"
        ),
    ),
    "the group": (
        {"group": "group-a"},
        (
            "consumer group 'group-a' of this Kafka cluster belongs to pipeline search/a; name another in "
            "spec.input.consumerGroup, or delete that pipeline"
        ),
    ),
}


@pytest.mark.parametrize(("shared", "message"), SENTENCES.values(), ids=SENTENCES.keys())
def test_a_sentence_names_the_other_pipeline_what_it_has_and_what_to_change(
    shared: dict[str, Any], message: str
) -> None:
    found = conflict(replace(ANOTHER, **shared), [RUNNING])
    assert found is not None
    assert (found.reason, found.message) == (Reason.CONFLICT, message)


def test_the_one_that_runs_is_named_and_none_that_waits_for_it_too() -> None:
    waits = replace(ANOTHER, output="out-a")
    last = Claim("uid-z", "search/z", "2026-06-01T00:00:00Z", "cluster", "group-z", "out-a", held=False)
    found = conflict(last, [waits, RUNNING])
    assert found is not None
    assert "belongs to pipeline search/a;" in found.message


HELD = {
    "kafkaClusterId": "cluster",
    "consumerGroup": "search.articles",
    "topics": [{"name": "in", "role": "Input"}, {"name": "out", "role": "Output"}],
}


def test_a_pipeline_claims_its_output_topic_and_its_group() -> None:
    assert claim(pipeline(), "cluster") == Claim(
        "uid-articles", "search/articles", "2026-01-02T03:04:05Z", "cluster", "search.articles", "out", held=False
    )


def test_what_the_status_names_was_granted() -> None:
    assert claim(pipeline(status=HELD), "cluster").held


CHANGED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another output topic": ({}, {"output": {"topic": "new"}}, "cluster"),
    "another group": ({}, {"input": {"topic": "in", "consumerGroup": "new"}}, "cluster"),
    "another Kafka cluster": ({}, {}, "elsewhere"),
    "a conflict, in which the status names no cluster": ({"kafkaClusterId": None}, {}, "cluster"),
    "a conflict, in which the status names no group": ({"consumerGroup": None}, {}, "cluster"),
    "a status that names no topics": ({"topics": []}, {}, "cluster"),
}


@pytest.mark.parametrize(("status", "spec", "cluster_id"), CHANGED.values(), ids=CHANGED.keys())
def test_not_granted_yet_is_what_a_pipeline_asks_for_after(
    status: dict[str, Any], spec: dict[str, Any], cluster_id: str
) -> None:
    assert not claim(pipeline(status=HELD | status, **spec), cluster_id).held

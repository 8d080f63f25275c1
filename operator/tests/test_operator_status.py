"""The status as it is written: what it says, what it keeps, and when it is worth a write."""

from typing import Any

import pytest

from crd_manifests import quickstart
from embedding_operator import manifest, status
from embedding_operator.claims import claim
from embedding_operator.conditions import Condition, conditions
from embedding_operator.durations import duration
from embedding_operator.observed import Observed, Problem, Secrets
from embedding_operator.reasons import Reason
from embedding_operator.topics import created_ids
from embedding_service.contract.broker_trouble import TroubleReason
from embedding_service.contract.stats import ModelStats
from operator_objects import CLUSTER, kafka, observed, pipeline, planned, pod, topic

NOW, LATER = "2026-01-02T03:04:05Z", "2026-01-02T03:05:05Z"
UNREACHABLE = Problem(TroubleReason.BROKER_UNREACHABLE, "Kafka: no broker answers")
MISSING = Problem(Reason.SECRET_MISSING, "there is no Secret 's'")
CONFLICT = Problem(Reason.CONFLICT, "another's")
MODEL = ModelStats(name="m", source="hub", path="/", dimension=384, max_length=256, device="cpu", contract="c0ffee")
FULL: dict[str, Any] = {"kafka": kafka(lag=7, dead_letters=3), "rate": 2.0, "model": MODEL}


def written(found: Observed, now: str = NOW) -> dict[str, Any]:
    return status.status(found, conditions(found, planned(found)), now)


def condition(values: dict[str, Any], kind: str = "Ready") -> dict[str, Any]:
    (found,) = [one for one in values["conditions"] if one["type"] == kind]
    return dict(found)


def afterwards(before: dict[str, Any], *, generation: int = 1, **others: Any) -> Observed:
    """What is found of a pipeline after its status was written."""
    return observed(pipeline(status=before, metadata={"generation": generation}), **others)


EVERYTHING = {
    "all there is": observed(**FULL),
    "brokers that don't answer": observed(kafka=UNREACHABLE),
    "a conflict": observed(conflict=CONFLICT),
    "a pause": observed(pipeline(paused=True)),
    "nothing yet": observed(objects={}, pods=(), kafka=kafka(topic("in"))),
}


@pytest.mark.parametrize("found", EVERYTHING.values(), ids=EVERYTHING.keys())
def test_the_api_server_takes_the_status_as_it_is_and_drops_nothing_of_it_with(found: Observed) -> None:
    assert manifest.problems(quickstart() | {"status": written(found)}) == []


def test_the_status_of_a_pipeline_at_which_all_is_well() -> None:
    values = written(observed(pipeline(metadata={"generation": 5}), created=frozenset({"id-out"}), **FULL))
    assert {key: value for key, value in values.items() if key != "conditions"} == {
        "observedGeneration": 5,
        "replicas": 1,
        "availableReplicas": 1,
        "selector": "app.kubernetes.io/instance=articles,app.kubernetes.io/name=embedding-worker",
        "lag": 7,
        "messagesPerSecond": "2",
        "caughtUpIn": "4s",
        "deadLetters": 3,
        "consumerGroup": "search.articles",
        "kafkaClusterId": CLUSTER,
        "topics": [
            {"name": "in", "role": "Input", "id": "id-in", "partitions": 3, "created": False},
            {"name": "out", "role": "Output", "id": "id-out", "partitions": 3, "created": True},
            {
                "name": "out-deadletter",
                "role": "DeadLetter",
                "id": "id-out-deadletter",
                "partitions": 3,
                "created": False,
            },
        ],
        "model": {"source": "hub", "dimension": 384, "contract": "c0ffee"},
    }
    assert condition(values) == {
        "type": "Ready",
        "status": "True",
        "reason": "Ready",
        "message": "texts are embedded as they come",
        "observedGeneration": 5,
        "lastTransitionTime": NOW,
    }


def test_every_condition_is_of_the_generation_that_was_looked_at() -> None:
    values = written(afterwards(written(observed()), generation=2))
    assert {one["observedGeneration"] for one in values["conditions"]} == {values["observedGeneration"]} == {2}


def test_without_a_deployment_there_are_no_replicas() -> None:
    values = written(observed(objects={}))
    assert (values["replicas"], values["availableReplicas"]) == (0, 0)


# Lag and rate → what the columns show.
PACES: dict[str, tuple[int, float | None, str | None, str | None]] = {
    "none before two looks": (7, None, None, None),
    "nothing moves": (7, 0.0, "0", None),
    "slow": (7, 0.03, "0.03", "3m53s"),
    "in tenths": (7, 12.345, "12.3", "1s"),
    "fast": (1_000_000, 1234.5, "1234", "13m30s"),
    "days": (10_000_000, 15.0, "15", "7d17h"),
    "caught up": (0, 0.0, "0", "0s"),
    "caught up, and none before two looks": (0, None, None, "0s"),
}


@pytest.mark.parametrize(("lag", "rate", "shown", "left"), PACES.values(), ids=PACES.keys())
def test_the_pace_is(lag: int, rate: float | None, shown: str | None, left: str | None) -> None:
    values = written(observed(kafka=kafka(lag=lag), rate=rate))
    assert (values["lag"], values.get("messagesPerSecond"), values.get("caughtUpIn")) == (lag, shown, left)


DURATIONS = {
    0.2: "1s",
    45: "45s",
    59.6: "1m",
    200: "3m20s",
    3599: "59m59s",
    3600: "1h",
    86399: "23h59m",
    86_405: "1d",
    187_200: "2d4h",
    1e9: "11574d1h",
}


@pytest.mark.parametrize(("seconds", "shown"), DURATIONS.items())
def test_a_duration_is_shown_in_two_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_figures_that_the_brokers_do_not_tell_are_left_out() -> None:
    assert status.FIGURES & written(observed(kafka=kafka(lag=None, dead_letters=None))).keys() == set()


BLIND = {"brokers that don't answer": {"kafka": UNREACHABLE}, "a missing Secret": {"kafka": MISSING}}


@pytest.mark.parametrize("blind", BLIND.values(), ids=BLIND.keys())
def test_figures_are_withdrawn_and_what_stays_true_is_kept_with(blind: dict[str, Any]) -> None:
    before = written(observed(created=frozenset({"id-out"}), **FULL))
    after = written(afterwards(before, **blind))
    assert status.FIGURES & after.keys() == set()
    for kept in ("topics", "kafkaClusterId", "consumerGroup", "model"):
        assert after[kept] == before[kept]


def test_topics_of_ours_are_still_ours_after_the_brokers_were_away() -> None:
    before = written(observed(created=frozenset({"id-out"})))
    blind = afterwards(before, kafka=UNREACHABLE)
    assert created_ids(afterwards(written(blind)).pipeline) == {"id-out"}


def test_nothing_is_said_of_brokers_that_never_answered() -> None:
    assert {"topics", "kafkaClusterId", "consumerGroup", "model"} & written(observed(kafka=UNREACHABLE)).keys() == set()


def test_in_a_conflict_nothing_is_claimed_and_no_figures_of_another_are_shown() -> None:
    before = written(observed(**FULL))
    after = written(
        afterwards(before, conflict=CONFLICT, kafka=FULL["kafka"], created=frozenset({"id-out-deadletter"}))
    )
    assert (status.FIGURES | {"kafkaClusterId", "consumerGroup"}) & after.keys() == set()
    assert [one["name"] for one in after["topics"]] == ["out-deadletter"]
    assert not claim(afterwards(after).pipeline, CLUSTER).held


def test_what_was_granted_is_claimed_so_that_the_next_process_knows() -> None:
    assert claim(afterwards(written(observed())).pipeline, CLUSTER).held


def test_a_topic_that_is_missing_is_not_shown() -> None:
    assert [one["name"] for one in written(observed(kafka=kafka(topic("in"))))["topics"]] == ["in"]


def test_a_topic_that_was_made_again_by_somebody_else_is_not_ours_any_more() -> None:
    values = written(observed(created=frozenset({"id of the one before"})))
    assert [one["created"] for one in values["topics"]] == [False, False, False]


def test_the_model_is_kept_while_no_worker_can_be_asked() -> None:
    before = written(observed(**FULL))
    assert written(afterwards(before, pods=()))["model"] == before["model"]


def test_the_time_of_a_transition_is_that_of_the_status_and_not_of_the_reason() -> None:
    before = written(observed(pods=(), objects={}))
    still = written(afterwards(before, secrets=Secrets(problem=MISSING), kafka=MISSING), LATER)
    assert condition(still)["reason"] == "SecretMissing" != condition(before)["reason"]
    assert condition(still)["lastTransitionTime"] == NOW
    well = written(afterwards(still), LATER)
    assert condition(well)["lastTransitionTime"] == LATER


def test_the_time_of_each_condition_is_its_own() -> None:
    before = written(observed())
    after = written(afterwards(before, kafka=kafka(lag=7)), LATER)
    assert condition(after, "CaughtUp")["lastTransitionTime"] == LATER
    assert condition(after)["lastTransitionTime"] == NOW


def test_the_same_again_is_not_worth_a_write_also_at_another_time() -> None:
    before = written(observed(**FULL))
    again = written(afterwards(before, **FULL), LATER)
    assert again == before
    assert not status.worth_writing(before, again, figures_due=True)


@pytest.mark.parametrize("figures", [{"kafka": kafka(lag=8, dead_letters=3)}, {"rate": 3.0}, {"kafka": kafka(lag=7)}])
def test_figures_alone_are_worth_a_write_where_they_are_due(figures: dict[str, Any]) -> None:
    before = written(observed(**FULL))
    after = written(afterwards(before, **(FULL | figures)))
    assert after != before
    assert status.worth_writing(before, after, figures_due=True)
    assert not status.worth_writing(before, after, figures_due=False)


def test_records_that_come_one_by_one_do_not_make_a_write_of_each_look() -> None:
    before = written(observed(rate=1.0))
    after = written(afterwards(before, kafka=kafka(lag=1), rate=1.0))
    assert condition(after, "CaughtUp")["status"] != condition(before, "CaughtUp")["status"]
    assert not status.worth_writing(before, after, figures_due=False)
    assert status.worth_writing(before, after, figures_due=True)


OTHERWISE: dict[str, dict[str, Any]] = {
    "another condition": {"conflict": CONFLICT},
    "another reason": {"pods": (), "objects": {}},
    "another generation": {"generation": 2},
    "a model that is known now": {"model": MODEL},
    "a topic that is gone": {"kafka": kafka(topic("in"), topic("out"))},
    "more partitions": {"kafka": kafka(topic("in", 4), topic("out"), topic("out-deadletter"))},
}


@pytest.mark.parametrize("others", OTHERWISE.values(), ids=OTHERWISE.keys())
def test_worth_a_write_at_once_is(others: dict[str, Any]) -> None:
    before = written(observed())
    assert status.worth_writing(before, written(afterwards(before, **others)), figures_due=False)


def test_the_first_status_is_worth_a_write() -> None:
    assert status.worth_writing({}, written(observed()), figures_due=False)


UNREAD = Condition("Ready", "False", Reason.INVALID, "spec.output.topic: 'in': expected another")


def stored(before: dict[str, Any] | None) -> dict[str, Any]:
    return {"metadata": {"generation": 2}} | ({} if before is None else {"status": before})


def test_a_pipeline_that_can_not_be_read_keeps_what_is_its_own_and_says_that_alone() -> None:
    before = written(observed(created=frozenset({"id-out"}), **FULL))
    after = status.unreadable(stored(before), UNREAD, LATER)
    assert [(one["type"], one["status"], one["reason"]) for one in after["conditions"]] == [
        ("Ready", "False", "Invalid")
    ]
    assert (after["observedGeneration"], condition(after)["lastTransitionTime"]) == (2, LATER)
    assert status.FIGURES & after.keys() == set()
    assert created_ids(pipeline(status=after)) == {"id-out"}
    assert manifest.problems(quickstart() | {"status": after}) == []


def test_a_pipeline_that_still_can_not_be_read_is_written_once() -> None:
    once = status.unreadable(stored(None), UNREAD, NOW)
    assert status.unreadable(stored(once), UNREAD, LATER) == once


def test_available_are_those_that_are_ready() -> None:
    found = observed(pipeline(replicas=2), pods=(pod("w-1", ready=True), pod("w-2")))
    found.objects["Deployment"]["status"]["availableReplicas"] = 1
    values = written(found)
    assert (values["replicas"], values["availableReplicas"]) == (2, 1)

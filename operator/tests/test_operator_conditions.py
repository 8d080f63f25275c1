"""What is said of a pipeline: each condition with its reason, and a message that says what to do."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from embedding_operator.conditions import Condition, conditions, unreadable
from embedding_operator.observed import Kafka, Object, Observed, Problem, Secrets
from embedding_operator.reasons import Reason
from embedding_service.contract.broker_trouble import TroubleReason
from embedding_service.contract.reasons import TerminationReason
from embedding_service.contract.stats import ModelStats
from operator_objects import (
    autoscaler,
    container,
    kafka,
    observed,
    pipeline,
    planned,
    pod,
    rolled_out,
    scaled_object,
    topic,
)

CONFLICT = Problem(Reason.CONFLICT, "output topic 'out' belongs to pipeline search/b; name another")
MISSING = Problem(Reason.SECRET_MISSING, "there is no Secret 's' in namespace 'search'; create it")
UNREACHABLE = Problem(TroubleReason.BROKER_UNREACHABLE, "Kafka: no broker answers")
REFUSED = Problem(Reason.TOPIC_REFUSED, "topic 'out' can't be created: Kafka refuses: no")
REJECTED = Problem(Reason.REJECTED, "the API server refuses an object of this pipeline: no")
WRITE_FAILED = Problem(Reason.WRITE_FAILED, "the API server can't write an object of this pipeline: no answer")
MODEL = ModelStats(name="loaded/model", source="hub", path="/", dimension=1, max_length=1, device="cpu", contract="c")


def told(found: Observed) -> Mapping[str, Condition]:
    """The conditions by their types."""
    return {condition.type: condition for condition in conditions(found, planned(found))}


def deployment(count: int = 2, /, **status: Any) -> dict[str, Object]:
    """The workers' Deployment of a pipeline of two workers, with another status."""
    live = rolled_out(pipeline(replicas=2), count)
    live["status"] |= status
    return {"objects": dict(observed(pipeline(replicas=2)).objects) | {"Deployment": live}}


def failing(reason: str, message: str) -> Object:
    """A pod whose worker ended for a reason of its own."""
    return pod("failing", **container(state={"terminated": {"exitCode": 1, "message": f"{reason}: {message}"}}))


def two(**others: Any) -> Observed:
    return observed(pipeline(replicas=2), **others)


def scaled(*told: tuple[str, str, str, str], count: int = 1, most: int = 3, **others: Any) -> Observed:
    """Of an autoscaled pipeline with so many workers, of whose autoscaler Kubernetes says this."""
    of = pipeline(autoscaling={"metric": "CPU", "maxReplicas": most}, paused=others.pop("paused", False))
    objects = {"Deployment": rolled_out(of, count), "HorizontalPodAutoscaler": autoscaler(of, *told)}
    return observed(of, **({"objects": dict(observed(of).objects) | objects} | others))


def by_lag(*told: tuple[str, str, str, str], count: int = 1, least: int = 1, **others: Any) -> Observed:
    """Of a pipeline that is autoscaled by its lag, of whose autoscaler Kubernetes says this; KEDA's, where it is so."""
    of = pipeline(autoscaling={"metric": "Lag", "minReplicas": least, "maxReplicas": 3})
    given = {"lag_provider": "external", "keda": ()} | others
    keda: tuple[tuple[str, str, str, str], ...] = given.pop("keda")
    objects = {"Deployment": rolled_out(of, count), "HorizontalPodAutoscaler": autoscaler(of, *told)}
    if given["lag_provider"] == "keda":
        objects["KEDAAutoscaler"] = objects.pop("HorizontalPodAutoscaler")
        objects["ScaledObject"] = scaled_object(of, *keda)
    return observed(of, **({"objects": dict(observed(of).objects) | objects} | given))


UNMANAGED = pipeline(topics={"manage": False})
IMAGE = container(state={"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
NO_NODE: Object = {
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}]
}
NO_CONFIG = container(state={"waiting": {"reason": "CreateContainerConfigError", "message": "no Secret"}})
CRASHED = container(state={"terminated": {"exitCode": 139}})
NO_POD: Object = {
    "updatedReplicas": 0,
    "conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}],
}
ABLE = ("AbleToScale", "True", "ReadyForNewScale", "recommended size matches current size")
SEES = ("ScalingActive", "True", "ValidMetricFound", "calculated a replica count from cpu")
BLIND = ("ScalingActive", "False", "FailedGetContainerResourceMetric", "the HPA was unable to: no metrics returned")
AMBIGUOUS = ("ScalingActive", "False", "AmbiguousSelector", "pods are controlled by multiple HPAs")
DISABLED = ("ScalingActive", "False", "ScalingDisabled", "the replica count of the target is zero")
UNABLE = ("AbleToScale", "False", "FailedUpdateScale", "deployments/scale is forbidden")
NO_LAG = ("ScalingActive", "False", "FailedGetExternalMetric", "unable to get external metric: none returned")
KEDA_READY = (("Ready", "True", "ScaledObjectReady", "ScaledObject is ready for scaling"),)
KEDA_BLIND = (("Ready", "False", "TriggerError", "Triggers defined in ScaledObject are not working correctly"),)
LIMITED = ("ScalingLimited", "True", "TooManyReplicas", "the desired count is more than the maximum")

# What was found → the condition, its status, reason, and what its message holds.
SAID: dict[str, tuple[Observed, str, str, str, str]] = {
    "all is well": (observed(), "Ready", "True", Reason.READY, "texts are embedded as they come"),
    "all topics are there": (observed(), "TopicsReady", "True", Reason.TOPICS_READY, "all topics are there"),
    "topics are being made": (
        observed(kafka=kafka(topic("in"))),
        *("TopicsReady", "False", Reason.CREATING_TOPICS, "creating 'out', 'out-deadletter'"),
    ),
    "topics are missing that others make": (
        observed(UNMANAGED, kafka=kafka(topic("out"))),
        *("TopicsReady", "False", Reason.TOPIC_MISSING),
        "missing: 'in', 'out-deadletter'; create them, or set spec.topics.manage to true",
    ),
    "topics are missing in a conflict": (
        observed(kafka=kafka(topic("in"), topic("out")), conflict=CONFLICT),
        *("TopicsReady", "False", Reason.TOPIC_MISSING, "missing: 'out-deadletter'; created after the conflict"),
    ),
    "the brokers refuse a topic": (
        observed(kafka=kafka(topic("in")), topic_problem=REFUSED),
        *("TopicsReady", "False", Reason.TOPIC_REFUSED, REFUSED.message),
    ),
    "there are more workers than partitions": (
        observed(pipeline(replicas=5)),
        *("TopicsReady", "False", Reason.TOO_FEW_PARTITIONS),
        (
            "input topic 'in' has 3 partitions for 5 workers: 2 are idle; set spec.replicas to 3 or less, or give the topic "
            "more partitions"
        ),
    ),
    "the brokers don't answer": (
        observed(kafka=UNREACHABLE),
        *("TopicsReady", "Unknown", TroubleReason.BROKER_UNREACHABLE, UNREACHABLE.message),
    ),
    "a Secret is missing": (
        observed(secrets=Secrets(problem=MISSING), kafka=MISSING),
        *("WorkersReady", "False", Reason.SECRET_MISSING, MISSING.message),
    ),
    "another pipeline has the topic": (
        observed(conflict=CONFLICT),
        *("WorkersReady", "False", Reason.CONFLICT, CONFLICT.message),
    ),
    "the pipeline is paused": (
        observed(pipeline(paused=True)),
        *("WorkersReady", "False", Reason.PAUSED, "spec.paused is true: no worker is to run; topics and offsets stay"),
    ),
    "no worker is wanted": (
        observed(pipeline(replicas=0)),
        *("WorkersReady", "False", Reason.SCALED_TO_ZERO, "spec.replicas is 0: no worker is to run"),
    ),
    "the API server refuses an object": (
        observed(rejected=REJECTED),
        *("WorkersReady", "False", Reason.REJECTED, REJECTED.message),
    ),
    "the API server can't write an object": (
        observed(rejected=WRITE_FAILED),
        *("WorkersReady", "False", Reason.WRITE_FAILED, WRITE_FAILED.message),
    ),
    "a worker is ready": (observed(), "WorkersReady", "True", Reason.WORKERS_READY, "1 worker is ready"),
    "workers are ready": (two(), "WorkersReady", "True", Reason.WORKERS_READY, "2 workers are ready"),
    "the pods are refused": (
        two(**deployment(**NO_POD), pods=()),
        *("WorkersReady", "False", Reason.PODS_FORBIDDEN, "pods can't be created: exceeded quota; change spec.worker"),
    ),
    "no node has a GPU": (
        observed(pods=(pod(**NO_NODE),)),
        *(
            "WorkersReady",
            "False",
            Reason.UNSCHEDULABLE,
            "1 of 1 workers can't be scheduled: no GPU; free or add a node",
        ),
    ),
    "the image can't be pulled": (
        observed(pods=(pod(**IMAGE),)),
        *("WorkersReady", "False", Reason.IMAGE_PULL_FAILED, "can't be pulled: no such image; check spec.worker.image"),
    ),
    "the container can't be started": (
        observed(pods=(pod(**NO_CONFIG),)),
        *("WorkersReady", "False", Reason.CONTAINER_CONFIG_ERROR, "can't be started: no Secret; check spec.worker"),
    ),
    "a worker crashes": (
        observed(pods=(pod(**CRASHED),)),
        *("WorkersReady", "False", Reason.CRASH_LOOP, "exit code 139; read its log with kubectl logs --previous"),
    ),
    "the Deployment isn't there yet": (
        observed(objects={}, pods=()),
        *("WorkersReady", "False", Reason.PROGRESSING, "the workers' Deployment is yet to be created"),
    ),
    "the Deployment's controller hasn't seen a change yet": (
        two(**deployment(observedGeneration=0)),
        *("WorkersReady", "False", Reason.PROGRESSING, "the workers' Deployment was just changed"),
    ),
    "the number of workers has just been changed": (
        two(**deployment(1)),
        *("WorkersReady", "False", Reason.PROGRESSING, "the workers' Deployment was just changed"),
    ),
    "former workers are still there": (
        two(**deployment(replicas=3)),
        *("WorkersReady", "False", Reason.PROGRESSING, "1 of the former workers are still there"),
    ),
    "workers are being replaced": (
        two(**deployment(updatedReplicas=1)),
        *("WorkersReady", "False", Reason.PROGRESSING, "1 of 2 workers are of the current configuration"),
    ),
    "workers are starting": (
        two(**deployment(availableReplicas=1)),
        *("WorkersReady", "False", Reason.PROGRESSING, "1 of 2 workers are ready; the others start, load the model"),
    ),
    "workers wait for a topic": (
        two(**deployment(0), pods=(), kafka=kafka(topic("in"))),
        *("WorkersReady", "False", Reason.PROGRESSING),
        "0 of 2 workers run; the others are started once the brokers answer and have all topics",
    ),
    "workers wait for the brokers": (
        two(objects={}, pods=(), kafka=UNREACHABLE),
        *("WorkersReady", "False", Reason.PROGRESSING),
        "0 of 2 workers run; the others are started once the brokers answer and have all topics",
    ),
    "workers that run go on without the brokers": (
        two(kafka=UNREACHABLE),
        *("WorkersReady", "True", Reason.WORKERS_READY, "2 workers are ready"),
    ),
    "the model is loaded": (observed(model=MODEL), "ModelReady", "True", Reason.MODEL_LOADED, "loaded/model is loaded"),
    "the model is loaded, and no worker can be asked": (
        observed(),
        *("ModelReady", "True", Reason.MODEL_LOADED, "the model is loaded"),
    ),
    "no worker runs": (
        observed(pods=()),
        *("ModelReady", "Unknown", Reason.NO_WORKERS, "no worker has loaded the model yet"),
    ),
    "a worker runs and is not ready": (
        observed(pods=(pod(),)),
        *("ModelReady", "Unknown", Reason.NO_WORKERS, "no worker has loaded the model yet"),
    ),
    "all is embedded": (
        observed(),
        *("CaughtUp", "True", Reason.CAUGHT_UP, "every record of the input topic is embedded"),
    ),
    "records wait": (
        observed(kafka=kafka(lag=7)),
        *("CaughtUp", "False", Reason.BEHIND, "records wait to be embedded; status.lag says how many"),
    ),
    "the group's offsets aren't known": (
        observed(kafka=kafka(lag=None)),
        *("CaughtUp", "Unknown", Reason.UNKNOWN, "the brokers don't say how far the workers are"),
    ),
    "how far it is isn't known": (
        observed(kafka=UNREACHABLE),
        *("CaughtUp", "Unknown", Reason.UNKNOWN, "the brokers don't say how far the workers are"),
    ),
    "how far another pipeline is": (
        observed(conflict=CONFLICT),
        *("CaughtUp", "Unknown", Reason.CONFLICT, CONFLICT.message),
    ),
    "the number of workers follows their load": (
        scaled(ABLE, SEES),
        *("ScalingActive", "True", Reason.METRIC_SERVED, "the number of workers follows their CPU, between 1 and 3"),
    ),
    "the load asks for more workers than are allowed": (
        scaled(ABLE, SEES, LIMITED, count=3),
        *("ScalingActive", "True", Reason.METRIC_SERVED, "between 1 and 3; their load asks for more"),
    ),
    "more workers are allowed than there are partitions": (
        scaled(ABLE, SEES, most=20),
        *("ScalingActive", "True", Reason.METRIC_SERVED),
        (
            "between 1 and 3; spec.autoscaling.maxReplicas is 20 and counts as 3, the partitions of input topic 'in': more "
            "workers would be idle"
        ),
    ),
    "nobody serves metrics": (
        scaled(ABLE, BLIND, provider_served=False),
        *("ScalingActive", "False", Reason.METRICS_SERVER_MISSING),
        "stays as it is: nobody in this cluster tells the CPU of pods; install metrics-server",
    ),
    "nobody serves metrics, and there are few partitions": (
        scaled(ABLE, BLIND, most=20, provider_served=False),
        *("ScalingActive", "False", Reason.METRICS_SERVER_MISSING, "maxReplicas is 20 and counts as 3"),
    ),
    "the workers' CPU isn't known yet": (
        scaled(ABLE, BLIND),
        *("ScalingActive", "False", Reason.METRIC_NOT_SERVED),
        "stays as it is until their CPU is known: the HPA was unable to: no metrics returned",
    ),
    "two autoscalers have the same workers": (
        scaled(ABLE, AMBIGUOUS),
        *("ScalingActive", "False", Reason.SCALING_FAILED, "stays as it is: pods are controlled by multiple HPAs"),
    ),
    "the autoscaler may not change the number": (
        scaled(UNABLE, SEES),
        *("ScalingActive", "False", Reason.SCALING_FAILED, "can't be changed: deployments/scale is forbidden"),
    ),
    "the autoscaler was just made": (
        scaled(),
        *("ScalingActive", "Unknown", Reason.PROGRESSING, "has not looked at the HorizontalPodAutoscaler yet"),
    ),
    "the autoscaler has not seen yet that there are workers again": (
        scaled(ABLE, DISABLED),
        *("ScalingActive", "Unknown", Reason.PROGRESSING, "has not looked at the HorizontalPodAutoscaler yet"),
    ),
    "there is no worker that could be scaled": (
        scaled(ABLE, DISABLED, count=0, kafka=UNREACHABLE),
        *(
            "ScalingActive",
            "Unknown",
            Reason.NO_WORKERS,
            "no worker runs, and an autoscaler doesn't start the first one",
        ),
    ),
    "nobody is chosen to tell the lag": (
        by_lag(lag_provider="none"),
        *("ScalingActive", "False", Reason.LAG_PROVIDER_MISSING),
        "stays as it is: the operator isn't told who knows the lag; set autoscaling.lagProvider",
    ),
    "an adapter tells the lag": (
        by_lag(ABLE, SEES),
        *("ScalingActive", "True", Reason.METRIC_SERVED, "the number of workers follows their lag, between 1 and 3"),
    ),
    "an adapter is to tell the lag, and none worker at least was asked for": (
        by_lag(ABLE, SEES, least=0),
        *("ScalingActive", "True", Reason.METRIC_SERVED),
        "between 1 and 3; spec.autoscaling.minReplicas is 0 and counts as 1: only KEDA starts the first worker",
    ),
    "an adapter doesn't know the lag": (
        by_lag(ABLE, NO_LAG),
        *("ScalingActive", "False", Reason.METRIC_NOT_SERVED),
        "until their lag is known: FailedGetExternalMetric: unable to get external metric",
    ),
    "there is no adapter": (
        by_lag(ABLE, NO_LAG, provider_served=False),
        *("ScalingActive", "False", Reason.METRIC_NOT_SERVED),
        "until their lag is known (nobody in this cluster serves external metrics: install an adapter)",
    ),
    "there is no KEDA": (
        by_lag(lag_provider="keda", provider_served=False),
        *("ScalingActive", "False", Reason.KEDA_MISSING),
        "stays as it is: there is no KEDA in this cluster; install KEDA, or set autoscaling.lagProvider",
    ),
    "KEDA has just been told": (
        by_lag(lag_provider="keda"),
        *("ScalingActive", "Unknown", Reason.PROGRESSING, "KEDA has not looked at the ScaledObject yet"),
    ),
    "KEDA can't ask the brokers": (
        by_lag(lag_provider="keda", keda=KEDA_BLIND),
        *("ScalingActive", "False", Reason.METRIC_NOT_SERVED),
        "stays as it is until KEDA knows their lag: Triggers defined in ScaledObject are not working correctly",
    ),
    "KEDA has no worker to scale": (
        by_lag(DISABLED, count=0, least=0, lag_provider="keda", keda=KEDA_READY),
        *("ScalingActive", "True", Reason.METRIC_SERVED, "the number of workers follows their lag, between 0 and 3"),
    ),
    "KEDA scales workers": (
        by_lag(ABLE, SEES, lag_provider="keda", keda=KEDA_READY),
        *("ScalingActive", "True", Reason.METRIC_SERVED, "the number of workers follows their lag, between 1 and 3"),
    ),
    "KEDA's adapter is away": (
        by_lag(ABLE, NO_LAG, lag_provider="keda", keda=KEDA_READY),
        *("ScalingActive", "False", Reason.METRIC_NOT_SERVED, "until their lag is known: FailedGetExternalMetric"),
    ),
    "no record waits, and KEDA has taken the last worker": (
        by_lag(DISABLED, count=0, least=0, lag_provider="keda", keda=KEDA_READY),
        *("WorkersReady", "True", Reason.SCALED_TO_ZERO, "no worker runs; KEDA starts one when one comes"),
    ),
    "KEDA is gone, and no worker runs": (
        by_lag(count=0, least=0, lag_provider="keda", provider_served=False),
        *("WorkersReady", "False", Reason.KEDA_MISSING, "no worker runs, and nobody starts one: "),
    ),
    "an autoscaled pipeline is paused": (
        scaled(ABLE, DISABLED, count=0, paused=True),
        *("ScalingActive", "False", Reason.PAUSED, "spec.paused is true: no worker is to run; topics and offsets stay"),
    ),
    "an autoscaled pipeline is in a conflict": (
        scaled(ABLE, DISABLED, count=0, conflict=CONFLICT),
        *("ScalingActive", "False", Reason.CONFLICT, CONFLICT.message),
    ),
    "an autoscaler has the workers that it asked for": (
        scaled(ABLE, SEES, count=3),
        *("WorkersReady", "True", Reason.WORKERS_READY, "3 workers are ready"),
    ),
    "an autoscaled pipeline has no Deployment yet": (
        scaled(objects={}, pods=()),
        *("WorkersReady", "False", Reason.PROGRESSING, "the workers' Deployment is yet to be created"),
    ),
}


@pytest.mark.parametrize(("found", "kind", "status", "reason", "message"), SAID.values(), ids=SAID.keys())
def test_where(found: Observed, kind: str, status: str, reason: str, message: str) -> None:
    condition = told(found)[kind]
    assert (condition.status, condition.reason) == (status, reason)
    assert message in condition.message


def test_each_reason_of_the_operator_is_in_the_table_but_that_of_a_pipeline_that_can_not_be_read() -> None:
    assert {reason for _, _, _, reason, _ in SAID.values()} >= set(Reason) - {Reason.INVALID}


@pytest.mark.parametrize("found", [found for found, *_ in SAID.values()], ids=SAID.keys())
def test_the_same_conditions_are_told_in_the_same_order_where(found: Observed) -> None:
    types = [condition.type for condition in conditions(found, planned(found))]
    autoscaled = ["ScalingActive"] if found.pipeline.spec.autoscaling is not None else []
    assert types == ["Ready", "TopicsReady", "WorkersReady", "ModelReady", "CaughtUp", *autoscaled]


@pytest.mark.parametrize("found", [found for found, *_ in SAID.values()], ids=SAID.keys())
def test_ready_repeats_what_is_in_the_way_where(found: Observed) -> None:
    ready, *parts = conditions(found, planned(found))
    # Records that wait, and a model that nobody told of, are no trouble.
    wrong = [
        part for part in parts[:3] if part.status == "False" or (part.status, part.type) == ("Unknown", "TopicsReady")
    ]
    assert ready.status == ("False" if wrong else "True")
    if wrong:
        assert (ready.reason, ready.message) in {(part.reason, part.message) for part in wrong}


@pytest.mark.parametrize("reason", TerminationReason)
def test_a_worker_that_says_why_it_ended_is_repeated_in_workers_ready_and_ready(reason: TerminationReason) -> None:
    found = told(observed(pods=(failing(reason, "why"),)))
    for kind in ("WorkersReady", "Ready"):
        assert (found[kind].status, found[kind].reason, found[kind].message) == ("False", reason, "why")


OF_THE_MODEL = ["ModelNotFound", "ModelLoadFailed", "ModelMismatch", "DeviceUnavailable"]


@pytest.mark.parametrize("reason", OF_THE_MODEL)
def test_a_worker_that_ended_for_its_model_is_repeated_in_model_ready(reason: str) -> None:
    condition = told(observed(pods=(failing(reason, "why"),)))["ModelReady"]
    assert (condition.status, condition.reason, condition.message) == ("False", reason, "why")


@pytest.mark.parametrize("reason", OF_THE_MODEL)
def test_workers_with_the_model_before_do_not_hide_that_the_new_one_can_not_be_loaded(reason: str) -> None:
    found = told(two(pods=(pod("w-1", ready=True), failing(reason, "why")), model=MODEL))
    assert [(found[kind].status, found[kind].reason) for kind in ("Ready", "ModelReady")] == [("False", reason)] * 2


@pytest.mark.parametrize("reason", sorted(set(TerminationReason) - set(OF_THE_MODEL)))
def test_a_worker_that_ended_for_something_else_says_nothing_of_the_model(reason: str) -> None:
    assert told(observed(pods=(failing(reason, "why"),)))["ModelReady"].status == "Unknown"


JUST_CHANGED = {"objects": dict(observed().objects) | {"Deployment": rolled_out(pipeline(), 0)}}

# What is in the way, the first thing first; each is there together with all that come after it.
PRECEDENCE: list[tuple[str, dict[str, Any]]] = [
    (Reason.CONFLICT, {"conflict": CONFLICT}),
    (Reason.SECRET_MISSING, {"secrets": Secrets(problem=MISSING)}),
    (Reason.TOPIC_REFUSED, {"topic_problem": REFUSED}),
    (TerminationReason.MODEL_NOT_FOUND, {"pods": (failing("ModelNotFound", "why"),)}),
    (Reason.PROGRESSING, JUST_CHANGED),
]


@pytest.mark.parametrize("place", range(len(PRECEDENCE)), ids=[str(reason) for reason, _ in PRECEDENCE])
def test_ready_says_first_what_a_person_would_look_for_first(place: int) -> None:
    found: dict[str, Any] = {}
    for _, others in reversed(PRECEDENCE[place:]):
        found |= others
    assert told(observed(**found))["Ready"].reason == PRECEDENCE[place][0]


@pytest.mark.parametrize("others", [others for _, others in PRECEDENCE], ids=[str(reason) for reason, _ in PRECEDENCE])
def test_a_pause_comes_before(others: dict[str, Any]) -> None:
    assert told(observed(pipeline(paused=True), **others))["Ready"].reason == Reason.PAUSED


def test_brokers_that_do_not_answer_are_in_the_way_though_workers_are_ready() -> None:
    ready = told(observed(kafka=UNREACHABLE))["Ready"]
    assert (ready.status, ready.reason) == ("False", TroubleReason.BROKER_UNREACHABLE)


def test_a_backlog_is_not_in_the_way() -> None:
    assert told(observed(kafka=kafka(lag=1_000_000)))["Ready"].status == "True"


@pytest.mark.parametrize("lag", [1, 1_000_000])
def test_how_long_the_backlog_is_does_not_change_the_condition(lag: int) -> None:
    assert told(observed(kafka=kafka(lag=lag)))["CaughtUp"] == told(observed(kafka=kafka(lag=7)))["CaughtUp"]


@pytest.mark.parametrize("restarts", [1, 9])
def test_how_often_a_worker_crashed_does_not_change_the_condition(restarts: int) -> None:
    once, often = (
        told(observed(pods=(pod(**container(**CRASHED["containerStatuses"][0] | {"restartCount": count})),)))
        for count in (0, restarts)
    )
    assert once == often


def test_a_deployment_that_its_controller_has_not_seen_at_all_was_just_changed() -> None:
    found = observed()
    del found.objects["Deployment"]["status"]
    assert told(found)["WorkersReady"].message == "the workers' Deployment was just changed"


def test_a_deployment_of_which_no_worker_has_been_counted_yet_has_none() -> None:
    found = observed()
    found.objects["Deployment"]["status"] = {"observedGeneration": 1, "updatedReplicas": 1}
    assert told(found)["WorkersReady"].message.startswith("0 of 1 workers are ready")


def test_a_partition_for_each_worker_is_enough() -> None:
    assert told(observed(pipeline(replicas=3)))["TopicsReady"].status == "True"


def test_a_pipeline_that_can_not_be_read_says_what_is_wrong_with_it() -> None:
    told = unreadable("spec.output.topic: 'in': expected a topic other than input_topic")
    assert told == Condition(
        "Ready",
        "False",
        Reason.INVALID,
        "spec.output.topic: 'in': expected a topic other than input_topic; change it, until then the pipeline stays as "
        "it is",
    )


def test_without_topics_of_its_own_nothing_breaks() -> None:
    assert told(observed(kafka=Kafka("cluster", {})))["TopicsReady"].reason == Reason.CREATING_TOPICS


def test_an_autoscaler_that_is_blind_does_not_make_a_pipeline_unready() -> None:
    found = told(scaled(ABLE, BLIND, provider_served=False))
    assert (found["Ready"].status, found["ScalingActive"].status) == ("True", "False")


def growing(available: int, **counts: Any) -> Observed:
    """Of a pipeline of at least two workers, of which an autoscaler wants four."""
    of = pipeline(autoscaling={"metric": "CPU", "minReplicas": 2, "maxReplicas": 4})
    live = rolled_out(of, 4)
    live["status"] |= {"availableReplicas": available} | counts
    return observed(of, objects=dict(observed(of).objects) | {"Deployment": live})


@pytest.mark.parametrize(("available", "status"), [(1, "False"), (2, "True"), (3, "True"), (4, "True")])
def test_workers_that_an_autoscaler_has_just_added_are_not_waited_for(available: int, status: str) -> None:
    found = told(growing(available))["WorkersReady"]
    assert found.status == status
    if status == "True":
        assert found.message == f"{available} workers are ready"


# Workers that there are, and how many of them are of the current configuration, where an autoscaler wants four → what
# isn't well.
STEPS: dict[str, tuple[int, int, str | None]] = {
    "that are yet to be made": (3, 3, None),
    "of which some are yet to go": (5, 5, None),
    "while the first ones are replaced": (2, 1, "1 of 2 workers are of the current configuration"),
    "while none but former ones are there": (3, 0, "0 of 3 workers are of the current configuration"),
    "while former ones are yet to go": (5, 4, "1 of the former workers are still there"),
    "while there are fewer than the fewest": (1, 1, "1 of 2 workers are of the current configuration"),
}


@pytest.mark.parametrize(("there", "updated", "message"), STEPS.values(), ids=STEPS.keys())
def test_an_autoscaler_asks_for_workers(there: int, updated: int, message: str | None) -> None:
    found = told(growing(min(there, 4), replicas=there, updatedReplicas=updated))["WorkersReady"]
    assert (found.status, found.message) == (("True", found.message) if message is None else ("False", message))


FULL: dict[str, Any] = {"pods": (pod(created="2026-01-02T03:30:00Z", **NO_NODE),)}
FAILS: dict[str, Any] = {"pods": (pod(**CRASHED),)}
QUOTA: dict[str, Any] = {"conditions": NO_POD["conditions"]}

# Workers that there are of the four that an autoscaler wants, those of the current configuration, those that are
# ready, and what is in the way of the others → what that makes the workers.
SURPLUS: dict[str, tuple[tuple[int, int, int], dict[str, Any], dict[str, Any], str, str]] = {
    "no node takes some of the surplus": ((4, 4, 3), FULL, {}, "True", Reason.WORKERS_READY),
    "the namespace's quota is used up by the fewest": ((2, 2, 2), {}, QUOTA, "True", Reason.WORKERS_READY),
    "no node takes one of the fewest": ((4, 4, 1), FULL, {}, "False", Reason.UNSCHEDULABLE),
    "the quota is less than the fewest": ((1, 1, 1), {}, QUOTA, "False", Reason.PODS_FORBIDDEN),
    "no node takes the next ones of an update": ((4, 1, 3), FULL, {}, "False", Reason.UNSCHEDULABLE),
    "the quota stops an update": ((4, 1, 4), {}, QUOTA, "False", Reason.PODS_FORBIDDEN),
    "the number has just been changed again": ((4, 4, 3), FULL, {"observedGeneration": 0}, "False", "Progressing"),
    "one of the surplus crashes": ((4, 4, 3), FAILS, {}, "False", Reason.CRASH_LOOP),
}


@pytest.mark.parametrize(("counts", "others", "more", "status", "reason"), SURPLUS.values(), ids=SURPLUS.keys())
def test_what_is_in_the_way_of_workers_beyond_the_fewest_is_merely_told_where_there_is_no_room(
    counts: tuple[int, int, int], others: dict[str, Any], more: Object, status: str, reason: str
) -> None:
    there, updated, available = counts
    found = replace(growing(available, replicas=there, updatedReplicas=updated, **more), **others)
    workers_ready, ready = (told(found)[kind] for kind in ("WorkersReady", "Ready"))
    assert (workers_ready.status, workers_ready.reason, ready.status) == (status, reason, status)


@pytest.mark.parametrize(
    ("available", "others", "more", "message"),
    [
        (3, FULL, {}, "3 workers are ready; 1 of 4 workers can't be scheduled: no GPU; free or add a node"),
        (2, {}, {"replicas": 2, "updatedReplicas": 2} | QUOTA, "2 workers are ready; pods can't be created: exceeded"),
    ],
    ids=["nodes", "the quota"],
)
def test_a_ready_pipeline_says_that_there_is_no_room_for_more_by(
    available: int, others: dict[str, Any], more: Object, message: str
) -> None:
    assert told(replace(growing(available, **more), **others))["WorkersReady"].message.startswith(message)


def test_a_pipeline_that_keda_wakes_stays_ready() -> None:
    found = by_lag(ABLE, SEES, least=0, lag_provider="keda", keda=KEDA_READY)
    found.objects["Deployment"]["status"]["availableReplicas"] = 0
    workers = told(found)["WorkersReady"]
    assert (workers.status, workers.message) == ("True", "KEDA has started a worker, which isn't ready yet")
    assert told(replace(found, **FULL))["WorkersReady"].reason == Reason.UNSCHEDULABLE


def test_of_an_autoscaled_pipeline_all_workers_are_of_the_current_configuration_before_it_is_ready() -> None:
    found = told(growing(4, updatedReplicas=3))["WorkersReady"]
    assert (found.status, found.message) == ("False", "3 of 4 workers are of the current configuration")


def test_replicas_that_are_ignored_are_not_held_against_the_partitions() -> None:
    of = pipeline(replicas=9, autoscaling={"metric": "CPU", "maxReplicas": 3})
    found = observed(of, objects=dict(observed(of).objects) | {"Deployment": rolled_out(of, 1)})
    assert told(found)["TopicsReady"].status == "True"

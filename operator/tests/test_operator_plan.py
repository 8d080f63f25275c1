"""What is to be done for a pipeline: objects, replicas, and whether workers may run."""

import copy
from typing import Any

import pytest

from embedding_operator import names
from embedding_operator.observed import Object, Observed, Problem, Secrets
from embedding_operator.plan import Gate, Plan, owns_replicas
from embedding_operator.reasons import Reason
from embedding_operator.topics import TopicChanges
from embedding_service.contract.broker_trouble import TroubleReason
from operator_objects import desired, kafka, observed, pipeline, planned, rolled_out, stored, topic

CONFLICT = Problem(Reason.CONFLICT, "another's")
UNREACHABLE = Problem(TroubleReason.BROKER_UNREACHABLE, "no broker answers")
MISSING = Secrets(problem=Problem(Reason.SECRET_MISSING, "there is no Secret 's'"))


def with_workers(count: int, **others: Any) -> Observed:
    """Of a pipeline of two workers, at which so many run."""
    wanted = pipeline(replicas=2)
    built = {kind: stored(one) for kind, one in desired(wanted).items()}
    return observed(wanted, **({"objects": built | {"Deployment": rolled_out(wanted, count)}} | others))


def applied(plan: Plan) -> list[str]:
    return [built["kind"] for built in plan.apply]


def test_nothing_is_to_be_done_where_all_is_as_it_should_be() -> None:
    nothing = Plan(TopicChanges(), release_replicas=False, delete=(), apply=(), scale=None, gate=Gate.OPEN)
    assert planned(observed()) == nothing


def test_a_new_pipeline_gets_all_of_its_objects_the_configuration_before_the_pods_that_mount_it() -> None:
    assert applied(planned(observed(objects={}))) == ["ConfigMap", "Service", "PodDisruptionBudget", "Deployment"]


@pytest.mark.parametrize(
    "kind", ["ConfigMap", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "Deployment"]
)
def test_only_what_is_missing_is_made_again(kind: str) -> None:
    of = pipeline(autoscaling={"metric": "CPU", "maxReplicas": 3})
    objects = {one: live for one, live in observed(of).objects.items() if one != kind}
    assert applied(planned(observed(of, objects=objects))) == [kind]


def test_a_change_of_the_configuration_rolls_the_workers_and_does_not_touch_the_rest() -> None:
    changed = pipeline(model={"maxLength": 64})
    assert applied(planned(observed(changed, objects=observed().objects))) == ["ConfigMap", "Deployment"]


def test_a_changed_secret_rolls_the_workers() -> None:
    assert applied(planned(observed(secrets=Secrets(checksum="c0ffee")))) == ["Deployment"]


def test_a_secret_that_goes_missing_does_not_roll_the_workers_that_run_with_it() -> None:
    wanted = pipeline(replicas=2)
    objects = {kind: stored(one) for kind, one in desired(wanted, "c0ffee").items()}
    objects["Deployment"]["spec"]["replicas"] = 2
    plan = planned(observed(wanted, objects=objects, secrets=MISSING, kafka=MISSING.problem))
    assert (applied(plan), plan.scale) == ([], None)


def running_with(checksum: str, **others: Any) -> Observed:
    """Of a pipeline whose workers run with Secrets of this checksum."""
    built = {kind: stored(one) for kind, one in desired(pipeline(), checksum).items()}
    built["Deployment"]["spec"]["replicas"] = 1
    return observed(objects=built, **others)


def test_the_same_secrets_leave_the_workers_alone() -> None:
    assert not planned(running_with("c0ffee", secrets=Secrets(checksum="c0ffee"))).apply


def test_a_secret_that_goes_missing_leaves_the_workers_alone_that_run_with_it() -> None:
    plan = planned(running_with("c0ffee", secrets=MISSING, kafka=MISSING.problem))
    assert (plan.apply, plan.scale, plan.gate) == ((), None, Gate.HOLD)


def test_secrets_that_the_pipeline_no_longer_names_roll_the_workers() -> None:
    assert applied(planned(running_with("c0ffee"))) == ["Deployment"]


def test_a_change_of_replicas_only_scales() -> None:
    plan = planned(with_workers(1))
    assert (applied(plan), plan.scale) == ([], 2)


def created(plan: Plan) -> Object:
    (deployment,) = [built for built in plan.apply if built["kind"] == "Deployment"]
    return deployment


def test_a_deployment_is_created_with_its_number_of_workers_and_not_scaled_besides() -> None:
    plan = planned(observed(pipeline(replicas=3), objects={}))
    assert (created(plan)["spec"]["replicas"], plan.scale) == (3, None)


def test_one_worker_is_kubernetes_own_default_and_stays_nobodys_field() -> None:
    assert "replicas" not in created(planned(observed(objects={})))["spec"]


def test_a_deployment_that_is_there_is_applied_without_replicas() -> None:
    changed = pipeline(replicas=2, model={"maxLength": 64})
    assert "replicas" not in created(planned(observed(changed, objects=with_workers(2).objects)))["spec"]


def owned_by_apply(replicas: int, manager: str = names.FIELD_MANAGER, operation: str = "Apply") -> Observed:
    """Two workers are wanted; so many run, and the number belongs to a field manager."""
    found = with_workers(replicas)
    owner = {"manager": manager, "operation": operation, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    found.objects["Deployment"]["metadata"]["managedFields"] = [owner]
    return found


def test_replicas_that_were_set_at_the_creation_are_handed_over_and_let_go_of_by_one_more_apply() -> None:
    plan = planned(owned_by_apply(2))
    assert (plan.release_replicas, applied(plan), plan.scale) == (True, ["Deployment"], None)
    assert "replicas" not in created(plan)["spec"]


def test_replicas_are_handed_over_before_they_are_changed() -> None:
    plan = planned(owned_by_apply(3))
    assert (plan.release_replicas, plan.scale) == (True, 2)


@pytest.mark.parametrize(
    ("manager", "operation"),
    [(names.REPLICAS_FIELD_MANAGER, "Apply"), (names.FIELD_MANAGER, "Update"), ("kubectl", "Apply")],
)
def test_replicas_of_others_are_not_handed_over(manager: str, operation: str) -> None:
    plan = planned(owned_by_apply(2, manager, operation))
    assert (plan.release_replicas, plan.apply) == (False, ())


def test_a_deployment_without_field_managers_owns_no_replicas() -> None:
    assert not owns_replicas(rolled_out(pipeline()))


# What keeps workers from running → what was found, the gate, and the workers that there are to be of two wanted ones
# where none, one or three run.
GATES: dict[str, tuple[dict[str, Any], Gate, tuple[int, int, int]]] = {
    "nothing": ({}, Gate.OPEN, (2, 2, 2)),
    "another pipeline's claim": ({"conflict": CONFLICT}, Gate.CLOSED, (0, 0, 0)),
    "brokers that don't answer": ({"kafka": UNREACHABLE}, Gate.HOLD, (0, 1, 2)),
    "a missing Secret": ({"secrets": MISSING, "kafka": MISSING.problem}, Gate.HOLD, (0, 1, 2)),
    "a missing input topic": ({"kafka": kafka(topic("out"), topic("out-deadletter"))}, Gate.HOLD, (0, 1, 2)),
    "a missing output topic": ({"kafka": kafka(topic("in"), topic("out-deadletter"))}, Gate.HOLD, (0, 1, 2)),
    "a missing dead-letter topic": ({"kafka": kafka(topic("in"), topic("out"))}, Gate.HOLD, (0, 1, 2)),
}


@pytest.mark.parametrize("running", [0, 1, 2], ids=["none runs", "one runs", "three run"])
@pytest.mark.parametrize(("found", "gate", "counts"), GATES.values(), ids=GATES.keys())
def test_workers_with(found: dict[str, Any], gate: Gate, counts: tuple[int, int, int], running: int) -> None:
    there = (0, 1, 3)[running]
    plan = planned(with_workers(there, **found))
    assert plan.gate is gate
    assert (there if plan.scale is None else plan.scale) == counts[running]


@pytest.mark.parametrize(("found", "gate", "counts"), GATES.values(), ids=GATES.keys())
def test_a_new_deployment_starts_with(found: dict[str, Any], gate: Gate, counts: tuple[int, int, int]) -> None:
    plan = planned(observed(pipeline(replicas=2), objects={}, **found))
    assert (created(plan)["spec"]["replicas"], plan.gate) == (counts[0], gate)


@pytest.mark.parametrize("found", [found for found, _, _ in GATES.values()], ids=GATES.keys())
def test_a_paused_pipeline_has_no_workers_with(found: dict[str, Any]) -> None:
    paused = pipeline(replicas=2, paused=True)
    plan = planned(observed(paused, **({"objects": with_workers(2).objects} | found)))
    assert (plan.gate, plan.scale) == (Gate.CLOSED, 0)


def test_a_pipeline_goes_on_after_a_pause_with_as_many_workers_as_it_asks_for() -> None:
    assert planned(with_workers(0)).scale == 2


def test_fewer_workers_are_wanted_though_the_brokers_do_not_answer() -> None:
    wanted = pipeline(replicas=0)
    assert planned(observed(wanted, objects=with_workers(2).objects, kafka=UNREACHABLE)).scale == 0


def test_workers_that_run_are_not_rolled_less_because_the_brokers_do_not_answer() -> None:
    changed = pipeline(worker={"podLabels": {"team": "search"}})
    assert applied(planned(observed(changed, objects=observed().objects, kafka=UNREACHABLE))) == ["Deployment"]


def test_missing_topics_are_made() -> None:
    plan = planned(observed(kafka=kafka(topic("in"))))
    assert [new.name for new in plan.topics.create] == ["out", "out-deadletter"]


def test_a_paused_pipeline_has_its_topics_made() -> None:
    assert planned(observed(pipeline(paused=True), kafka=kafka(topic("in")))).topics


@pytest.mark.parametrize(
    "found",
    [{"kafka": kafka(topic("in")), "conflict": CONFLICT}, {"kafka": UNREACHABLE}],
    ids=["in a conflict", "of brokers that don't answer"],
)
def test_topics_are_left_alone(found: dict[str, Any]) -> None:
    assert not planned(observed(**found)).topics


def test_deciding_changes_nothing_that_was_found() -> None:
    found = owned_by_apply(3)
    before = copy.deepcopy(found.objects)
    planned(found)
    assert found.objects == before

"""What the operator exports of each pipeline: what stands in the status, and nothing that isn't known any more."""

from collections.abc import Callable

import pytest
from kubernetes.dynamic.exceptions import DynamicApiError
from prometheus_client import CollectorRegistry

from embedding_operator.metrics import Metrics, PipelineFigures
from embedding_operator.observed import Problem
from embedding_service.contract.broker_trouble import TroubleReason
from manual_clock import Clock
from operator_objects import pipeline
from operator_scene import KEY, Scene, answer

LABELS = dict(zip(("namespace", "name"), KEY, strict=True))
LAG, RATE = "embedding_pipeline_lag", "embedding_pipeline_messages_per_second"


@pytest.fixture
def scene() -> Scene:
    """A pipeline that is seven records behind, as the status and Prometheus were told."""
    found = Scene(pipeline())
    found.brokers.lag = 7
    found.look()
    assert found.cluster.status["lag"] == found.exported(LAG) == 7
    return found


def test_lag_and_rate_of_each_pipeline_are_among_the_operators_metrics() -> None:
    metrics = Metrics()
    metrics.figures.tell(KEY, 7, 2.5, 30)
    metrics.figures.tell(("search", "other"), 0, None, 30)
    assert metrics.registry.get_sample_value(LAG, LABELS) == 7
    assert metrics.registry.get_sample_value(RATE, LABELS) == 2.5
    other = {"namespace": "search", "name": "other"}
    assert metrics.registry.get_sample_value(LAG, other) == 0
    assert metrics.registry.get_sample_value(RATE, other) is None, "unknown is not zero"


def test_what_is_not_told_anew_in_time_is_gone(clock: Clock) -> None:
    figures = PipelineFigures(clock)
    registry = CollectorRegistry()
    registry.register(figures)

    def told() -> tuple[float | None, float | None]:
        return registry.get_sample_value(LAG, LABELS), registry.get_sample_value(RATE, LABELS)

    figures.tell(KEY, 7, 2.5, 30)
    clock.now += 29
    assert told() == (7, 2.5)
    clock.now += 1
    assert told() == (None, None)
    figures.tell(KEY, 6, None, 30)
    assert told() == (6, None)


def test_each_look_tells_what_it_finds(scene: Scene) -> None:
    scene.brokers.lag = 5
    scene.look(after=10)
    assert scene.exported(LAG) == 5


def brokers_are_away(scene: Scene) -> None:
    scene.brokers.problem = Problem(TroubleReason.BROKER_UNREACHABLE, "no broker answers")


def topic_is_gone(scene: Scene) -> None:
    scene.brokers.lag = None


def pipeline_is_gone(scene: Scene) -> None:
    stored = scene.store.pipeline(KEY)
    assert stored is not None
    scene.store.drop_pipeline(stored)


def pipeline_is_being_deleted(scene: Scene) -> None:
    scene.edit(pipeline(metadata={"deletionTimestamp": "2026-01-02T03:05:05Z"}))


def pipeline_can_not_be_read(scene: Scene) -> None:
    stored = scene.store.pipeline(KEY)
    assert stored is not None
    metadata = stored["metadata"] | {"resourceVersion": str(scene.cluster.next_version())}
    scene.store.put_pipeline(stored | {"spec": {}, "metadata": metadata})


BLIND: dict[str, Callable[[Scene], None]] = {
    "the brokers can't be asked": brokers_are_away,
    "the input topic is gone": topic_is_gone,
    "the pipeline is gone": pipeline_is_gone,
    "the pipeline is being deleted": pipeline_is_being_deleted,
    "the stored pipeline can't be read": pipeline_can_not_be_read,
}


@pytest.mark.parametrize("happens", BLIND.values(), ids=BLIND.keys())
def test_figures_are_withdrawn_at_the_first_look_at_which(happens: Callable[[Scene], None], scene: Scene) -> None:
    happens(scene)
    scene.look(after=10)
    assert scene.exported(LAG) is None


def test_who_reads_in_a_group_that_another_has_is_told_no_figures_of_that_one() -> None:
    scene = Scene(pipeline("first", output={"topic": "other"}, input={"topic": "in", "consumerGroup": "shared"}))
    first = ("search", "first")
    scene.brokers.names += ["other", "other-deadletter"]
    scene.reconciler.reconcile(first)
    scene.edit(pipeline(input={"topic": "in", "consumerGroup": "shared"}))
    scene.look()
    assert scene.exported(LAG, first) == 0
    assert scene.exported(LAG) is None


def test_figures_come_back_with_the_brokers(scene: Scene) -> None:
    brokers_are_away(scene)
    scene.look(after=10)
    assert scene.exported(LAG) is None
    scene.brokers.problem, scene.brokers.lag = None, 3
    scene.look(after=10)
    assert scene.exported(LAG) == 3


def test_figures_outlast_a_look_that_comes_late_and_not_an_operator_that_has_stopped_looking(scene: Scene) -> None:
    scene.clock.now += 29
    assert scene.exported(LAG) == 7
    scene.clock.now += 1
    assert scene.exported(LAG) is None


def test_figures_stay_from_look_to_look_where_looks_come_less_often_since_writes_fail(scene: Scene) -> None:
    webhook = answer(500, 'failed calling webhook "w": connection refused')
    scene.edit(pipeline(model={"maxLength": 64}))
    with pytest.raises(DynamicApiError):
        scene.look(webhook)
    pause: float | None = 10
    for _ in range(6):
        scene.clock.now += pause or 0
        assert scene.exported(LAG) == 7
        pause = scene.look(webhook)
    assert pause == 60

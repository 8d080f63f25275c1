"""Writes that fail: what the status says of them, from when on, and that they are made again."""

import pytest
from kubernetes.dynamic.exceptions import ConflictError, DynamicApiError
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from operator_objects import pipeline
from operator_scene import Scene, answer

WEBHOOK = 'Internal error occurred: failed calling webhook "pods.example.com": connection refused'
TOLD = (
    f"the API server can't write an object of this pipeline: {WEBHOOK}; mend what this names, such as an admission "
    "webhook that doesn't answer; it is tried again by itself"
)


class Failing(Scene):
    """A pipeline at whose looks writes fail."""

    def retried(self, failure: Exception, after: float = 0.0) -> bool:
        """Whether a look ends in a retry and leaves the status as it was."""
        before = self.cluster.status
        with pytest.raises((DynamicApiError, HTTPError)):
            self.look(failure, after)
        return self.cluster.status == before


@pytest.fixture
def scene() -> Failing:
    return Failing(pipeline())


def test_a_dead_webhook_is_told_of_by_the_status_once_it_lasts(scene: Failing) -> None:
    assert scene.retried(answer(500, WEBHOOK))
    assert scene.retried(answer(500, WEBHOOK), after=9)
    assert scene.cluster.status == {}
    scene.look(answer(500, WEBHOOK), after=1)
    assert scene.told() == scene.told("Ready") == ("WriteFailed", TOLD)


def test_a_write_that_failed_is_made_again_at_the_next_look_and_the_status_follows(scene: Failing) -> None:
    assert scene.retried(answer(500))
    assert scene.look(answer(500), after=10) == 10
    assert scene.told()[0] == "WriteFailed"
    scene.look(None, after=10)
    assert scene.cluster.applied == ["ConfigMap", "Service", "PodDisruptionBudget", "Deployment"]
    assert scene.told()[0] == "Progressing"


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_every_broken_answer_that_lasts_is_told(scene: Failing, status: int) -> None:
    assert scene.retried(answer(status))
    scene.look(answer(status), after=10)
    assert scene.told()[0] == "WriteFailed"


def test_a_webhook_that_hangs_until_nobody_waits_any_longer_is_told_too(scene: Failing) -> None:
    hanging = ReadTimeoutError(HTTPConnectionPool("api"), "/", "read timed out")
    assert scene.retried(hanging)
    scene.look(hanging, after=30)
    assert scene.told()[0] == "WriteFailed"
    assert "it doesn't answer in time" in scene.told()[1]


def test_what_is_broken_for_long_is_tried_less_often_so_that_it_holds_nobody_up(scene: Failing) -> None:
    assert scene.retried(answer(500))
    assert [scene.look(answer(500), after=seconds) for seconds in (10, 10, 20, 40, 60)] == [10, 20, 40, 60, 60]
    assert scene.look(None, after=60) == 10


def test_workers_that_may_no_longer_run_are_stopped_though_an_object_is_refused(scene: Failing) -> None:
    scene.look()
    scene.edit(pipeline(paused=True, worker={"podLabels": {"another": "template"}}))
    scene.look(answer(422, "no valid template"))
    assert scene.cluster.scaled == [0]


@pytest.mark.parametrize("status", [400, 403, 422])
def test_what_is_refused_for_good_is_told_at_once(scene: Failing, status: int) -> None:
    scene.look(answer(status, "exceeded quota"))
    reason, message = scene.told()
    assert reason == "Rejected"
    assert message.startswith("the API server refuses an object of this pipeline: exceeded quota; ")


# What passes by itself.
PASSING = {
    "a conflict": answer(409),
    "too many requests": answer(429),
    "a lost connection": ProtocolError("connection aborted"),
}


@pytest.mark.parametrize("failure", PASSING.values(), ids=PASSING.keys())
def test_the_status_stays_as_it_is_however_long_it_lasts_with(scene: Failing, failure: Exception) -> None:
    assert scene.retried(failure)
    assert scene.retried(failure, after=3600)


@pytest.mark.parametrize("failure", PASSING.values(), ids=PASSING.keys())
def test_what_was_told_of_a_dead_webhook_does_not_come_and_go_with(scene: Failing, failure: Exception) -> None:
    assert scene.retried(answer(500, WEBHOOK))
    scene.look(answer(500, WEBHOOK), after=10)
    assert scene.retried(failure, after=10)
    assert scene.retried(answer(500, WEBHOOK), after=10)
    scene.look(answer(500, WEBHOOK), after=10)
    assert scene.told() == ("WriteFailed", TOLD)


def test_an_api_server_that_restarts_is_not_told_of(scene: Failing) -> None:
    assert scene.retried(answer(500))
    assert scene.retried(ProtocolError("connection refused"), after=5)
    assert scene.retried(ProtocolError("connection refused"), after=30)
    # It is about to be ready.
    assert scene.retried(answer(503), after=1)
    scene.look(None, after=1)
    assert scene.told()[0] == "Progressing"


def test_an_object_that_somebody_else_has_just_changed_is_left_to_the_next_look(scene: Failing) -> None:
    with pytest.raises(ConflictError):
        scene.look(answer(409))

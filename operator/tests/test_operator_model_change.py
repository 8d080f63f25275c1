"""The model in the status: the present one, or none, never the one before a change of the spec."""

from typing import Any

import pytest

from embedding_operator import observe, workers
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.observed import Object
from embedding_service.contract.stats import ModelStats
from operator_objects import desired, pipeline, pod, rolled_out
from operator_scene import Scene, answer


def stats(name: str) -> ModelStats:
    contract = f"contract of {name}"
    return ModelStats(name=name, source="hub", path="/", dimension=3, max_length=8, device="cpu", contract=contract)


def with_model(name: str, generation: int, **spec: Any) -> EmbeddingPipeline:
    model = {"name": name, "changePolicy": "AllowMixed"}
    return pipeline(metadata={"generation": generation}, model=model, **spec)


def worker(name: str, of: EmbeddingPipeline) -> Object:
    """A ready worker of a pipeline as it stands."""
    found = pod(name, ready=True)
    annotations = desired(of)["Deployment"]["spec"]["template"]["metadata"]["annotations"]
    labels = {"app.kubernetes.io/instance": of.metadata.name}
    found["metadata"] |= {
        "annotations": annotations,
        "labels": labels,
        "namespace": of.metadata.namespace,
        "resourceVersion": "1",
    }
    return found


class Workers:
    """Which model each worker tells, by its address; the others can't be reached."""

    def __init__(self) -> None:
        self.told: dict[str, str] = {}

    def ask(self, address: str, _: str | None) -> ModelStats | None:
        return stats(self.told[address]) if address in self.told else None


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> Workers:
    found = Workers()
    monkeypatch.setattr(observe, "ask", found.ask)
    return found


def start(scene: Scene, name: str, of: EmbeddingPipeline) -> None:
    scene.store.put("Pod", worker(name, of))


def shown(scene: Scene) -> str | None:
    """The contract of the model in the status."""
    model = scene.cluster.status.get("model")
    return None if model is None else str(model["contract"])


OLD, NEW = with_model("a/old", 1), with_model("a/new", 2)


@pytest.fixture
def scene(reached: Workers) -> Scene:
    """A pipeline whose worker has told its model."""
    reached.told = {"10.0.0.1": "a/old"}
    found = Scene(OLD)
    found.look()
    start(found, "w-old", OLD)
    found.look(after=10)
    assert shown(found) == "contract of a/old"
    return found


def test_workers_of_the_former_model_do_not_tell_the_present_one(scene: Scene) -> None:
    scene.edit(NEW)
    scene.look(after=10)
    assert shown(scene) is None
    scene.look(after=10)
    assert shown(scene) is None
    assert scene.told("ModelReady") == ("NoWorkers", "no worker has loaded the model yet")


def test_the_first_worker_of_the_new_model_tells_it_though_others_are_still_there(
    scene: Scene, reached: Workers
) -> None:
    scene.edit(NEW)
    scene.look(after=10)
    start(scene, "w-new", NEW)
    reached.told = {"10.0.0.1": "a/new"}
    scene.look(after=10)
    assert shown(scene) == "contract of a/new"
    assert scene.told("ModelReady") == ("ModelLoaded", "a/new is loaded")


def test_the_former_model_does_not_come_back_where_the_new_workers_can_not_be_asked(
    scene: Scene, reached: Workers
) -> None:
    reached.told = {}
    scene.edit(NEW)
    scene.look(after=10)
    scene.store.drop("Pod", worker("w-old", OLD))
    start(scene, "w-new", NEW)
    scene.look(after=10)
    assert shown(scene) is None
    assert scene.told("ModelReady") == ("ModelLoaded", "the model is loaded")


def test_a_new_output_topic_that_is_made_first_does_not_keep_the_former_model(scene: Scene) -> None:
    scene.edit(with_model("a/new", 2, output={"topic": "out-new"}))
    assert scene.look(after=10) == 0
    assert shown(scene) is None
    scene.look()
    assert shown(scene) is None


def test_a_change_that_the_api_server_refuses_at_first_does_not_keep_the_former_model(scene: Scene) -> None:
    scene.edit(NEW)
    scene.look(answer(403), after=10)
    assert (shown(scene), scene.told()[0]) == (None, "Rejected")
    scene.look(after=10)
    assert shown(scene) is None


def test_workers_that_stay_tell_their_model_after_a_change_of_something_else(scene: Scene) -> None:
    scene.edit(with_model("a/old", 2, worker={"podLabels": {"team": "search"}}))
    scene.look(after=10)
    assert shown(scene) == "contract of a/old"
    assert scene.told("ModelReady")[0] == "ModelLoaded"


def test_the_model_stays_while_no_worker_is_there_and_the_spec_is_the_same(scene: Scene) -> None:
    scene.store.drop("Pod", worker("w-old", OLD))
    scene.look(after=10)
    assert shown(scene) == "contract of a/old"


def test_ready_workers_are_those_of_the_configuration_of_the_deployment() -> None:
    old, new = worker("w-old", OLD), worker("w-new", NEW)
    assert workers.configured(rolled_out(NEW), (old, new, pod())) == (new,)
    assert workers.configured(None, (old, pod())) == (old,)

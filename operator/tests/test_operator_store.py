"""What the operator knows of the cluster, by watches and by the answers to its own writes, in whatever order they come."""

import copy
from typing import Any

from embedding_operator import names
from embedding_operator.observed import Object
from embedding_operator.store import Store
from operator_objects import desired, pipeline, pod, stored

KEY = ("search", "articles")
BUILT = desired(pipeline())


def resource(version: int, uid: str = "uid-1", **others: Any) -> Object:
    metadata = {"namespace": "search", "name": "articles", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata, **others}


def config_map(version: int, uid: str = "uid-1", **metadata: Any) -> Object:
    return stored(BUILT["ConfigMap"], resourceVersion=str(version), uid=uid, **metadata)


def worker(name: str, version: int = 1, **labels: str) -> Object:
    found = pod(name)
    found["metadata"] |= {"namespace": "search", "resourceVersion": str(version)}
    found["metadata"]["labels"] = names.labels(pipeline()) | labels
    return found


def known(store: Store, kind: str = "ConfigMap") -> str | None:
    """The version of an object of the pipeline that is known."""
    found = store.owned(KEY)[0].get(kind)
    return None if found is None else found["metadata"]["resourceVersion"]


def test_the_newest_state_of_a_pipeline_is_kept_in_whatever_order_states_come() -> None:
    store = Store()
    for version in (9, 10, 8):
        assert store.put_pipeline(resource(version)) == KEY
    assert store.pipeline(KEY) == resource(10)
    assert store.pipelines() == [resource(10)]


def test_a_pipeline_that_is_deleted_is_gone() -> None:
    store = Store()
    store.put_pipeline(resource(1))
    assert store.drop_pipeline(resource(2)) == KEY
    assert store.pipeline(KEY) is None


def test_a_pipeline_made_again_under_the_same_name_counts_whatever_its_version() -> None:
    store = Store()
    store.put_pipeline(resource(9))
    store.put_pipeline(resource(3, "uid-2"))
    assert store.pipeline(KEY) == resource(3, "uid-2")


def test_the_late_news_of_a_deletion_leave_the_pipeline_that_was_made_again() -> None:
    store = Store()
    store.put_pipeline(resource(1))
    store.put_pipeline(resource(3, "uid-2"))
    store.drop_pipeline(resource(2))
    assert store.pipeline(KEY) == resource(3, "uid-2")


def test_a_status_that_was_written_just_before_the_deletion_does_not_bring_the_pipeline_back() -> None:
    store = Store()
    store.put_pipeline(resource(1))
    store.drop_pipeline(resource(3))
    store.put_pipeline(resource(2))
    assert store.pipeline(KEY) is None


def test_what_a_write_of_ours_led_to_is_no_news() -> None:
    store = Store()
    assert not store.knows(resource(1))
    store.put_pipeline(resource(9))
    assert store.knows(resource(9))
    assert store.knows(resource(8))
    assert not store.knows(resource(10))
    assert not store.knows(resource(9, "uid-2"))


def test_objects_are_known_by_their_pipeline_and_kind() -> None:
    store = Store()
    for kind, built in BUILT.items():
        assert store.put(kind, stored(built)) == KEY
    assert store.owned(KEY)[0].keys() == BUILT.keys()
    assert store.owned(("search", "others")) == ({}, ())
    assert store.owned(("elsewhere", "articles")) == ({}, ())


def test_the_newest_state_of_an_object_is_kept() -> None:
    store = Store()
    for version in (9, 10, 8):
        store.put("ConfigMap", config_map(version))
    assert known(store) == "10"


def test_an_object_that_is_deleted_is_gone() -> None:
    store = Store()
    store.put("ConfigMap", config_map(1))
    assert store.drop("ConfigMap", config_map(2)) == KEY
    assert known(store) is None


def test_the_answer_to_an_apply_that_comes_after_the_news_of_a_deletion_does_not_bring_the_object_back() -> None:
    store = Store()
    store.drop("ConfigMap", config_map(3))
    store.put("ConfigMap", config_map(2))
    assert known(store) is None


def test_the_very_state_that_was_told_to_be_gone_stays_gone() -> None:
    store = Store()
    store.drop("ConfigMap", config_map(2))
    store.put("ConfigMap", config_map(2))
    assert known(store) is None


def test_an_object_that_lost_the_labels_of_the_watch_and_got_them_back_is_known_again() -> None:
    store = Store()
    store.put("ConfigMap", config_map(1))
    store.drop("ConfigMap", config_map(2))
    store.put("ConfigMap", config_map(3))
    assert known(store) == "3"


def test_the_late_news_of_a_deletion_leave_the_object_that_was_made_again() -> None:
    store = Store()
    store.put("ConfigMap", config_map(3, "uid-2"))
    store.drop("ConfigMap", config_map(2, "uid-1"))
    assert known(store) == "3"


def test_deletions_of_long_ago_are_forgotten() -> None:
    store = Store()
    store.drop("ConfigMap", config_map(3))
    for number in range(1000):
        store.drop("ConfigMap", config_map(4, f"other-{number}"))
    store.put("ConfigMap", config_map(2))
    assert known(store) == "2"


def test_an_object_whose_labels_were_edited_is_still_its_pipelines() -> None:
    store = Store()
    store.put("ConfigMap", config_map(1))
    edited = config_map(2)
    edited["metadata"]["labels"]["app.kubernetes.io/instance"] = "another"
    assert store.put("ConfigMap", edited) == KEY
    assert known(store) == "2"


def test_a_copy_with_the_same_labels_is_not_taken_for_the_object() -> None:
    store = Store()
    store.put("ConfigMap", config_map(1))
    copied = config_map(2, "uid-copy", name="backup")
    assert store.put("ConfigMap", copied) is None
    assert store.drop("ConfigMap", copied) is None
    assert known(store) == "1"


def test_pods_are_known_by_their_label_in_the_order_of_their_names() -> None:
    store = Store()
    for name in ("w-2", "w-1"):
        assert store.put("Pod", worker(name)) == KEY
    assert [found["metadata"]["name"] for found in store.owned(KEY)[1]] == ["w-1", "w-2"]
    assert store.drop("Pod", worker("w-1", 2)) == KEY
    assert [found["metadata"]["name"] for found in store.owned(KEY)[1]] == ["w-2"]


def test_what_a_pod_was_asked_to_be_is_not_kept() -> None:
    store = Store()
    store.put("Pod", worker("w-1") | {"spec": {"containers": []}})
    (found,) = store.owned(KEY)[1]
    assert "spec" not in found
    assert found["status"] == worker("w-1")["status"]


def test_pipelines_are_counted() -> None:
    store = Store()
    store.put_pipeline(resource(1))
    store.put_pipeline(resource(2))
    assert len(store) == 1


def test_a_pod_of_no_pipeline_is_left_out() -> None:
    assert Store().put("Pod", {"metadata": {"name": "w", "namespace": "search"}}) is None


def test_what_is_given_out_does_not_change_with_what_comes_later() -> None:
    store = Store()
    store.put("Pod", worker("w-1"))
    before = copy.deepcopy(found := store.owned(KEY))
    store.put("Pod", worker("w-1", 2))
    store.put("ConfigMap", config_map(1))
    assert found == before


def managed(manager: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {"manager": manager, "operation": "Apply", "fieldsV1": fields}


REPLICAS: dict[str, Any] = {"f:spec": {"f:replicas": {}}}


def test_of_who_set_which_field_only_the_replicas_of_our_applies_are_kept() -> None:
    more: dict[str, Any] = {"f:metadata": {}, "f:spec": {"f:replicas": {}, "f:template": {}}}
    entries = [managed(names.FIELD_MANAGER, more), managed("kubectl", REPLICAS)]
    store = Store()
    store.put("Deployment", stored(BUILT["Deployment"], managedFields=entries))
    kept = store.owned(KEY)[0]["Deployment"]["metadata"]["managedFields"]
    assert kept == [managed(names.FIELD_MANAGER, REPLICAS)]


def test_where_nothing_of_that_is_to_be_kept_no_field_is_left() -> None:
    store = Store()
    store.put("ConfigMap", config_map(1, managedFields=[managed(names.FIELD_MANAGER, {"f:data": {}})]))
    assert "managedFields" not in store.owned(KEY)[0]["ConfigMap"]["metadata"]


def autoscaler(version: int, utilisation: int, reason: str = "ValidMetricFound") -> Object:
    """An autoscaler as Kubernetes writes it four times a minute."""
    built = desired(pipeline(autoscaling={"metric": "CPU", "maxReplicas": 3}))["HorizontalPodAutoscaler"]
    status = {"currentMetrics": [{"utilisation": utilisation}], "conditions": [{"reason": reason}]}
    return stored(built, resourceVersion=str(version)) | {"status": status}


def test_figures_of_an_autoscaler_are_not_kept_and_are_no_news() -> None:
    store, kind = Store(), "HorizontalPodAutoscaler"
    assert store.put(kind, autoscaler(1, 70)) == KEY
    assert store.put(kind, autoscaler(2, 75)) is None
    assert (known(store, kind), "currentMetrics" in store.owned(KEY)[0][kind]["status"]) == ("2", False)
    assert store.put(kind, autoscaler(3, 75, "FailedGetContainerResourceMetric")) == KEY

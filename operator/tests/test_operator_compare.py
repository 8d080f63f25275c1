"""Whether an object in the cluster is as it should be: what is found, and what is left alone."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.compare import differs
from embedding_operator.observed import Object
from operator_objects import desired, pipeline, stored

EXAMPLES = Path(__file__).parents[2] / "examples"
Edit = Callable[[Object], None]

# It has one object of each kind, but for KEDA's.
AUTOSCALED = pipeline(autoscaling={"metric": "CPU", "maxReplicas": 3})


def worker(live: Object) -> Any:
    return live["spec"]["template"]["spec"]["containers"][0]


def pods(live: Object) -> Any:
    return live["spec"]["template"]["spec"]


def edited(kind: str, edit: Edit, **spec: Any) -> bool:
    """Whether the object with an edit differs from what it should be."""
    built = desired(pipeline(**spec), "c0ffee")[kind]
    live = stored(built)
    edit(live)
    return differs(built, live)


@pytest.mark.parametrize(
    "kind", ["ConfigMap", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "Deployment"]
)
def test_an_object_that_is_missing_differs(kind: str) -> None:
    assert differs(desired(AUTOSCALED)[kind], None)


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_nothing_of_an_example_differs_from_itself(example: Path) -> None:
    parsed = EmbeddingPipeline.model_validate(yaml.safe_load(example.read_text(encoding="utf-8")))
    for built in desired(parsed, "c0ffee").values():
        assert not differs(built, stored(built))


SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}

# As the API server keeps it → field of spec.worker, and what it makes of it.
STORED: dict[str, tuple[dict[str, Any], Edit]] = {
    "half a core as 500m": (
        {"resources": {"requests": {"cpu": "0.5", "memory": "1Gi"}}},
        lambda live: worker(live)["resources"]["requests"].update(cpu="500m"),
    ),
    "a core as text": (
        {"resources": {"limits": {"cpu": 1}}},
        lambda live: worker(live)["resources"]["limits"].update(cpu="1"),
    ),
    "bytes in larger units": (
        {"resources": {"limits": {"memory": "2048Mi"}}},
        lambda live: worker(live)["resources"]["limits"].update(memory="2Gi"),
    ),
    "no requests as no field": (
        {"resources": {"requests": {}}},
        lambda live: worker(live)["resources"].pop("requests"),
    ),
    "an empty variable as no value": (
        {"env": [{"name": "HF_HUB_OFFLINE", "value": ""}]},
        lambda live: worker(live)["env"][-1].pop("value"),
    ),
    "a divisor as text": (
        {"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": 1}}}]},
        lambda live: worker(live)["env"][-1]["valueFrom"]["resourceFieldRef"].update(divisor="1"),
    ),
    "an empty value of a toleration as no field": (
        {"tolerations": [{"key": "gpu", "operator": "Exists", "value": ""}]},
        lambda live: pods(live)["tolerations"][0].pop("value"),
    ),
    "empty labels of a selector as no field": (
        {"topologySpreadConstraints": [SPREAD | {"labelSelector": {"matchLabels": {}}}]},
        lambda live: pods(live)["topologySpreadConstraints"][0]["labelSelector"].pop("matchLabels"),
    ),
    "an empty list as no field": (
        {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}},
        lambda live: pods(live)["affinity"]["nodeAffinity"].clear(),
    ),
    "defaults": (
        {},
        lambda live: pods(live).update(dnsPolicy="ClusterFirst", restartPolicy="Always", schedulerName="default"),
    ),
    "defaults in an item of a list": (
        {},
        lambda live: worker(live).update(terminationMessagePath="/dev/termination-log", imagePullPolicy="IfNotPresent"),
    ),
    "labels that are called like fields": (
        {"podLabels": {"limits": "strict", "env": "production", "selector": "a"}},
        lambda live: live["spec"]["template"]["metadata"]["labels"].update(mesh="on"),
    ),
    "the mode of files": (
        {},
        lambda live: pods(live)["volumes"][0]["configMap"].update(defaultMode=420),
    ),
}


@pytest.mark.parametrize(("fields", "edit"), STORED.values(), ids=STORED.keys())
def test_the_same_stored_in_another_form_is_no_difference(fields: dict[str, Any], edit: Edit) -> None:
    assert not edited("Deployment", edit, worker=fields)


# What is another's → kind, and what that one added.
ADDED: dict[str, tuple[str, Edit]] = {
    "a label": ("Deployment", lambda live: live["metadata"]["labels"].update(team="search")),
    "an annotation": ("Service", lambda live: live["metadata"]["annotations"].update(note="ours")),
    "a pod's annotation": (
        "Deployment",
        lambda live: live["spec"]["template"]["metadata"]["annotations"].update(injected="true"),
    ),
    "a pod's label": ("Deployment", lambda live: live["spec"]["template"]["metadata"]["labels"].update(mesh="on")),
    "a sidecar before ours": ("Deployment", lambda live: pods(live)["containers"].insert(0, {"name": "proxy"})),
    "a variable": ("Deployment", lambda live: worker(live)["env"].insert(0, {"name": "TZ", "value": "UTC"})),
    "a port": ("Deployment", lambda live: worker(live)["ports"].append({"containerPort": 9, "protocol": "TCP"})),
    "a volume": ("Deployment", lambda live: pods(live)["volumes"].insert(0, {"name": "socket", "emptyDir": {}})),
    "a mount": ("Deployment", lambda live: worker(live)["volumeMounts"].append({"name": "socket", "mountPath": "/s"})),
    "another resource's request": (
        "Deployment",
        lambda live: worker(live)["resources"]["requests"].update({"ephemeral-storage": "1Gi"}),
    ),
    "limits where none are asked for": (
        "Deployment",
        lambda live: worker(live)["resources"].update(limits={"cpu": "8"}),
    ),
    "where pods may run, where nothing is asked for": (
        "Deployment",
        lambda live: pods(live).update(nodeSelector={"pool": "a"}, tolerations=[{"operator": "Exists"}]),
    ),
    "the number of replicas": ("Deployment", lambda live: live["spec"].update(replicas=7)),
    "an owner": ("ConfigMap", lambda live: live["metadata"]["ownerReferences"].insert(0, {"uid": "other"})),
    "a key of the data": ("ConfigMap", lambda live: live["data"].update(more="text")),
    "the addresses of a Service": ("Service", lambda live: live["spec"].update(clusterIP="10.96.0.7")),
    "a status": ("PodDisruptionBudget", lambda live: live.update(status={"currentHealthy": 1})),
}


@pytest.mark.parametrize(("kind", "edit"), ADDED.values(), ids=ADDED.keys())
def test_left_alone_is(kind: str, edit: Edit) -> None:
    assert not edited(kind, edit)


# What somebody changed by hand → kind, and how.
CHANGED: dict[str, tuple[str, Edit]] = {
    "the image": ("Deployment", lambda live: worker(live).update(image="other:1")),
    "a request": ("Deployment", lambda live: worker(live)["resources"]["requests"].update(memory="1Mi")),
    "a request taken away": ("Deployment", lambda live: worker(live)["resources"]["requests"].pop("cpu")),
    "all requests taken away": ("Deployment", lambda live: worker(live)["resources"].clear()),
    "a probe": ("Deployment", lambda live: worker(live)["readinessProbe"].update(failureThreshold=99)),
    "a probe taken away": ("Deployment", lambda live: worker(live).pop("livenessProbe")),
    "the arguments": ("Deployment", lambda live: worker(live)["args"].append("--verbose")),
    "a capability given back": (
        "Deployment",
        lambda live: worker(live)["securityContext"]["capabilities"].update(drop=[]),
    ),
    "a variable": ("Deployment", lambda live: worker(live)["env"][0].update(value="/elsewhere")),
    "a variable taken away": ("Deployment", lambda live: worker(live)["env"].clear()),
    "the container under another name": ("Deployment", lambda live: worker(live).update(name="main")),
    "a directory on the node in place of an empty one": (
        "Deployment",
        lambda live: pods(live)["volumes"].__setitem__(1, {"name": "tmp", "hostPath": {"path": "/tmp"}}),
    ),
    "a mount made writable": ("Deployment", lambda live: worker(live)["volumeMounts"][0].pop("readOnly")),
    "the checksum that rolls the pods": (
        "Deployment",
        lambda live: live["spec"]["template"]["metadata"]["annotations"].update({names.CONFIG_CHECKSUM: "0"}),
    ),
    "the strategy": ("Deployment", lambda live: live["spec"].update(strategy={"type": "Recreate"})),
    "a label": ("Deployment", lambda live: live["metadata"]["labels"].update({"app.kubernetes.io/instance": "x"})),
    "all labels taken away": ("Service", lambda live: live["metadata"].pop("labels")),
    "the owner taken away": ("ConfigMap", lambda live: live["metadata"].pop("ownerReferences")),
    "the data": ("ConfigMap", lambda live: live["data"].update({names.CONFIG_FILE: "kafka: {}"})),
    "the data taken away": ("ConfigMap", lambda live: live.pop("data")),
    "the port": ("Service", lambda live: live["spec"]["ports"][0].update(targetPort=80)),
    "a label more that a Service chooses by": (
        "Service",
        lambda live: live["spec"]["selector"].update(version="2"),
    ),
    "a label more that a budget counts by": (
        "PodDisruptionBudget",
        lambda live: live["spec"]["selector"]["matchLabels"].update(version="2"),
    ),
    "an expression that a budget counts by": (
        "PodDisruptionBudget",
        lambda live: live["spec"]["selector"].update(matchExpressions=[{"key": "a", "operator": "Exists"}]),
    ),
    "the budget": ("PodDisruptionBudget", lambda live: live["spec"].update(maxUnavailable=0)),
    "what it was applied from": ("Service", lambda live: live["metadata"]["annotations"].update({names.APPLIED: "0"})),
    "all annotations taken away": ("Service", lambda live: live["metadata"].pop("annotations")),
}


@pytest.mark.parametrize(("kind", "edit"), CHANGED.values(), ids=CHANGED.keys())
def test_found_is(kind: str, edit: Edit) -> None:
    assert edited(kind, edit)


def test_found_is_a_toleration_more_in_a_list_that_is_replaced_as_a_whole() -> None:
    fields = {"tolerations": [{"key": "gpu", "operator": "Exists"}]}
    assert edited("Deployment", lambda live: pods(live)["tolerations"].append({"operator": "Exists"}), worker=fields)


def test_found_is_that_an_empty_label_was_taken_away() -> None:
    fields = {"podLabels": {"canary": ""}}
    assert edited(
        "Deployment", lambda live: live["spec"]["template"]["metadata"]["labels"].pop("canary"), worker=fields
    )


def test_found_is_a_label_more_that_nodes_must_have() -> None:
    fields = {"nodeSelector": {"pool": "a"}}
    assert edited("Deployment", lambda live: pods(live)["nodeSelector"].update(disk="ssd"), worker=fields)


# Fields that go → what the pipeline was, and what it becomes. Nothing that is left is another than before.
TAKEN_AWAY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a node selector": ({"worker": {"nodeSelector": {"pool": "a"}}}, {}),
    "a limit": (
        {"worker": {"resources": {"limits": {"cpu": 1, "memory": "2Gi"}}}},
        {"worker": {"resources": {"limits": {"cpu": 1}}}},
    ),
    "a variable": ({"worker": {"env": [{"name": "A", "value": "b"}]}}, {}),
    "a label of the pods": ({"worker": {"podLabels": {"team": "search"}}}, {}),
    "a GPU": ({"worker": {"gpu": {}}}, {}),
}


@pytest.mark.parametrize(("before", "after"), TAKEN_AWAY.values(), ids=TAKEN_AWAY.keys())
def test_found_is_that_the_pipeline_no_longer_asks_for(before: dict[str, Any], after: dict[str, Any]) -> None:
    live = stored(desired(pipeline(**before))["Deployment"])
    assert differs(desired(pipeline(**after))["Deployment"], live)


def test_an_object_of_a_pipeline_that_was_made_again_under_the_same_name_differs() -> None:
    live = stored(desired(pipeline(metadata={"uid": "before"}))["ConfigMap"])
    assert differs(desired(pipeline(metadata={"uid": "after"}))["ConfigMap"], live)


@pytest.mark.parametrize("kind", sorted(desired(AUTOSCALED)))
def test_an_item_of_a_list_which_has_no_kind_of_its_own_is_compared_like_the_object(kind: str) -> None:
    built = desired(AUTOSCALED)[kind]
    assert not differs(
        built, {part: value for part, value in stored(built).items() if part not in {"apiVersion", "kind"}}
    )


def test_comparing_changes_neither_side() -> None:
    built = desired(pipeline())["Deployment"]
    live = stored(built)
    before = copy.deepcopy((built, live))
    differs(built, live)
    assert (built, live) == before


# Fields of others: names that no field of ours has.
OTHERS = st.dictionaries(st.text(min_size=1, max_size=5).map("x-".__add__), st.text(max_size=3), max_size=3)
# Mappings of which the API server keeps nobody else's entries.
ATOMIC = {"selector", "nodeSelector"}


def with_others(node: Any, added: dict[str, str], name: str = "") -> Any:
    """The same, with fields of others in every mapping that others may add to."""
    if isinstance(node, list):
        return [with_others(item, added) for item in node]
    if not isinstance(node, dict) or name in ATOMIC:
        return node
    return added | {key: with_others(value, added, key) for key, value in node.items()}


BUILT = desired(AUTOSCALED, "c0ffee")


@given(kind=st.sampled_from(sorted(BUILT)), added=OTHERS)
def test_whatever_others_add_is_no_difference(kind: str, added: dict[str, str]) -> None:
    assert not differs(BUILT[kind], with_others(stored(BUILT[kind]), added))


def leaves(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values that have no parts."""
    steps = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found = [leaf for key, value in steps for leaf in leaves(value, (*path, key))]
    return found or ([path] if path else [])


LEAVES = [
    (kind, *path)
    for kind in ("Deployment", "HorizontalPodAutoscaler")
    for path in leaves(BUILT[kind])
    if path not in {("apiVersion",), ("kind",)}
]


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: ".".join(map(str, path)).replace("/", "-"))
def test_found_is_another_value_of(path: tuple[Any, ...]) -> None:
    kind, *keys, last = path
    live = stored(BUILT[kind])
    parent: Any = live
    for key in keys:
        parent = parent[key]
    parent[last] = "7" if isinstance(parent[last], str) else 7
    assert differs(BUILT[kind], live)

"""What the operator knows of the cluster: pipelines and what belongs to them, by the watches and its own writes."""

import threading
from collections import defaultdict

from embedding_operator import names
from embedding_operator.observed import Object
from embedding_operator.providers import AUTOSCALER, KEDAS_AUTOSCALER, SCALED_OBJECT

# Namespace and name of a pipeline.
Key = tuple[str, str]
_LONGEST_MEMORY = 1000
# Of which nothing is news but their conditions.
_AUTOSCALERS = (AUTOSCALER, KEDAS_AUTOSCALER, SCALED_OBJECT)


class Store:
    """Objects in memory. Safe to use from every thread; what is given out is not to be changed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipelines: dict[Key, Object] = {}
        # By pipeline, then by kind and name.
        self._owned: defaultdict[Key, dict[tuple[str, str], Object]] = defaultdict(dict)
        # By uid: the version that said it's gone. An answer to a write of ours may come after that news.
        self._gone: dict[str, int] = {}

    def put_pipeline(self, pipeline: Object) -> Key:
        """Remember a pipeline, unless a newer state of it is known."""
        metadata = pipeline["metadata"]
        key = (metadata["namespace"], metadata["name"])
        # A copy, since Kopf has the original.
        slimmed = pipeline | {"metadata": {name: value for name, value in metadata.items() if name != "managedFields"}}
        with self._lock:
            if not self._is_old(pipeline, self._pipelines.get(key)):
                self._pipelines[key] = slimmed
        return key

    def knows(self, pipeline: Object) -> bool:
        """Whether a state of a pipeline is no news, such as what a write of ours led to."""
        known = self.pipeline((pipeline["metadata"]["namespace"], pipeline["metadata"]["name"]))
        return known is not None and _is_same(pipeline, known) and _version(pipeline) <= _version(known)

    def drop_pipeline(self, pipeline: Object) -> Key:
        """Forget a pipeline, but none that was made under its name since; its objects go when they are gone."""
        key = (pipeline["metadata"]["namespace"], pipeline["metadata"]["name"])
        with self._lock:
            self._remember_gone(pipeline)
            if _is_same(pipeline, self._pipelines.get(key)):
                del self._pipelines[key]
        return key

    def pipeline(self, key: Key) -> Object | None:
        """The pipeline as it was last seen."""
        with self._lock:
            return self._pipelines.get(key)

    def pipelines(self) -> list[Object]:
        """Every pipeline."""
        with self._lock:
            return list(self._pipelines.values())

    def __len__(self) -> int:
        """How many pipelines there are."""
        return len(self._pipelines)

    def put(self, kind: str, found: Object) -> Key | None:
        """Remember an object of a pipeline; returns whose it is, unless it says no more than before."""
        key = _owner(kind, found)
        if key is None:
            return None
        slim(kind, found)
        place = _place(kind, found)
        with self._lock:
            known = self._owned.get(key, {}).get(place)
            if not self._is_old(found, known):
                self._owned[key][place] = found
        return None if place[0] in _AUTOSCALERS and known is not None and _content(found) == _content(known) else key

    def drop(self, kind: str, found: Object) -> Key | None:
        """Forget an object of a pipeline; returns whose it was."""
        key = _owner(kind, found)
        if key is None:
            return None
        place = _place(kind, found)
        with self._lock:
            if kind != "Pod":
                self._remember_gone(found)
            owned = self._owned.get(key, {})
            if _is_same(found, owned.get(place)):
                del owned[place]
            if not owned:
                self._owned.pop(key, None)
        return key

    def owned(self, key: Key) -> tuple[dict[str, Object], tuple[Object, ...]]:
        """The objects of a pipeline by kind, and its pods."""
        with self._lock:
            found = dict(self._owned.get(key, {}))
        pods = tuple(known for (kind, _), known in sorted(found.items()) if kind == "Pod")
        return {kind: known for (kind, _), known in found.items() if kind != "Pod"}, pods

    def _remember_gone(self, found: Object) -> None:
        self._gone[found["metadata"]["uid"]] = _version(found)
        if len(self._gone) > _LONGEST_MEMORY:
            del self._gone[next(iter(self._gone))]

    def _is_old(self, found: Object, known: Object | None) -> bool:
        """Whether a state is older than what is known."""
        version = _version(found)
        if version <= self._gone.get(found["metadata"]["uid"], -1):
            return True
        return known is not None and _is_same(found, known) and version < _version(known)


def slim(kind: str, found: Object) -> None:
    """Take away what nothing is decided by, and which is most of an object's size.

    Who set which field, but for the replicas of our own applies; of a pod what was asked for, which is the
    Deployment's; of an autoscaler its figures, which change four times a minute.
    """
    kept = [
        {**entry, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        for entry in found["metadata"].pop("managedFields", ())
        if entry.get("manager") == names.FIELD_MANAGER and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
    ]
    if kept:
        found["metadata"]["managedFields"] = kept
    if kind == "Pod":
        found.pop("spec", None)
    if kind in _AUTOSCALERS and "status" in found:
        found["status"] = {"conditions": found["status"].get("conditions", [])}


def _place(kind: str, found: Object) -> tuple[str, str]:
    name = found["metadata"]["name"]
    return (KEDAS_AUTOSCALER if kind == AUTOSCALER and names.is_kedas(name) else kind, name)


def _content(found: Object) -> Object:
    """An object without its version."""
    metadata = {name: value for name, value in found["metadata"].items() if name != "resourceVersion"}
    return found | {"metadata": metadata}


def _owner(kind: str, found: Object) -> Key | None:
    metadata = found["metadata"]
    # Objects by their names: labels can be edited, and copies have them too.
    name = names.owner_of_pod(metadata.get("labels") or {}) if kind == "Pod" else names.owner(metadata["name"])
    return None if name is None else (metadata["namespace"], name)


def _version(found: Object) -> int:
    # The API server's versions are numbers that grow.
    return int(found["metadata"]["resourceVersion"])


def _is_same(found: Object, known: Object | None) -> bool:
    return known is not None and known["metadata"]["uid"] == found["metadata"]["uid"]

"""What the operator knows of the cluster: pipelines and what belongs to them, by the watches and its own writes."""

import threading
from collections import defaultdict

from embedding_operator import names
from embedding_operator.observed import Object

# Namespace and name of a pipeline.
Key = tuple[str, str]


class Store:
    """Objects in memory. Safe to use from every thread; what is given out is not to be changed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipelines: dict[Key, Object] = {}
        # By pipeline, then by kind and name.
        self._owned: defaultdict[Key, dict[tuple[str, str], Object]] = defaultdict(dict)

    def put_pipeline(self, pipeline: Object) -> Key:
        """Remember a pipeline, unless a newer state of it is known."""
        key = (pipeline["metadata"]["namespace"], pipeline["metadata"]["name"])
        with self._lock:
            if not _is_older(pipeline, self._pipelines.get(key)):
                self._pipelines[key] = pipeline
        return key

    def drop_pipeline(self, key: Key) -> None:
        """Forget a pipeline; its objects go when they are gone."""
        with self._lock:
            self._pipelines.pop(key, None)

    def pipeline(self, key: Key) -> Object | None:
        """The pipeline as it was last seen."""
        with self._lock:
            return self._pipelines.get(key)

    def pipelines(self) -> list[Object]:
        """Every pipeline."""
        with self._lock:
            return list(self._pipelines.values())

    def put(self, kind: str, found: Object) -> Key | None:
        """Remember an object of a pipeline; returns whose it is."""
        key = _owner(found)
        if key is None:
            return None
        slim(found)
        place = (kind, found["metadata"]["name"])
        with self._lock:
            if not _is_older(found, self._owned[key].get(place)):
                self._owned[key][place] = found
        return key

    def drop(self, kind: str, found: Object) -> Key | None:
        """Forget an object of a pipeline; returns whose it was."""
        key = _owner(found)
        if key is None:
            return None
        with self._lock:
            self._owned[key].pop((kind, found["metadata"]["name"]), None)
            if not self._owned[key]:
                del self._owned[key]
        return key

    def owned(self, key: Key) -> tuple[dict[str, Object], tuple[Object, ...]]:
        """The objects of a pipeline by kind, and its pods."""
        with self._lock:
            found = dict(self._owned.get(key, {}))
        pods = tuple(known for (kind, _), known in sorted(found.items()) if kind == "Pod")
        return {kind: known for (kind, _), known in found.items() if kind != "Pod"}, pods


def slim(found: Object) -> None:
    """Take away who set which field, but for the replicas of our own applies: it is half of an object's size."""
    kept = [
        {**entry, "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        for entry in found["metadata"].pop("managedFields", ())
        if entry.get("manager") == names.FIELD_MANAGER and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
    ]
    if kept:
        found["metadata"]["managedFields"] = kept


def _owner(found: Object) -> Key | None:
    metadata = found["metadata"]
    name = names.owner(metadata.get("labels") or {})
    return None if name is None else (metadata["namespace"], name)


def _is_older(found: Object, known: Object | None) -> bool:
    """Whether a state is older than the one that is known; resource versions are numbers that grow."""
    if known is None or known["metadata"].get("uid") != found["metadata"].get("uid"):
        return False
    return int(found["metadata"]["resourceVersion"]) < int(known["metadata"]["resourceVersion"])

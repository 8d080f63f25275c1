"""The Kubernetes API: the requests that the operator makes, and no decision about them."""

import base64
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from kubernetes.client import ApiClient
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import DynamicApiError, NotFoundError
from urllib3.exceptions import HTTPError

from embedding_operator import names
from embedding_operator.observed import Object

_GROUP = "/apis/embeddings.dev/v1alpha1"
PATHS = {
    "EmbeddingPipeline": (_GROUP, "embeddingpipelines"),
    "ConfigMap": ("/api/v1", "configmaps"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "Event": ("/api/v1", "events"),
    "HorizontalPodAutoscaler": ("/apis/autoscaling/v2", "horizontalpodautoscalers"),
    "Pod": ("/api/v1", "pods"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "Secret": ("/api/v1", "secrets"),
    "ScaledObject": ("/apis/keda.sh/v1alpha1", "scaledobjects"),
    "Service": ("/api/v1", "services"),
    "TriggerAuthentication": ("/apis/keda.sh/v1alpha1", "triggerauthentications"),
}
# What is watched of a pipeline, beside what KEDA has.
WATCHED = ("ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Pod", "PodDisruptionBudget", "Service")

_CONNECT_SECONDS, _READ_SECONDS = 5, 30
# A watch ends by itself before a silent connection could hang for long.
_WATCH_SECONDS = 300
_RETRY_SECONDS = 1.0
_MERGE = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"
# Whether an API is served is told in milliseconds, or by nobody. The library asks four times.
_SERVES_SECONDS = (1.0, 2.0)
_NOT_FOUND, _BROKEN = 404, 500


class ListMetadata(NamedTuple):
    """As the library's informer wants it."""

    resource_version: str


class ObjectList(NamedTuple):
    """As the library's informer wants it."""

    items: list[Object]
    metadata: ListMetadata


class Cluster:
    """Requests to one API server. Safe to use from every thread.

    Every method raises the library's ``DynamicApiError`` where the API server refuses, and urllib3's ``HTTPError``
    where it doesn't answer; ``serves`` is an answer by itself.
    """

    def __init__(self, client: ApiClient) -> None:
        # Every path is known: discovery would only cost requests.
        self._client = DynamicClient(client, discoverer=lambda *_: None)

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """An object, or ``None`` where there is none."""
        try:
            return self._request("get", _path(kind, namespace, name))
        except NotFoundError:
            return None

    def list_all(self, kind: str, namespace: str | None = None) -> Object:
        """All objects of a kind, of one namespace or of all, as the API server's list."""
        return self._request("get", _path(kind, namespace))

    def secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """The data of a Secret, decoded; ``None`` where there is none."""
        found = self.get("Secret", namespace, name)
        if found is None:
            return None
        data = found.get("data") or {}
        return {key: base64.b64decode(value).decode(errors="replace") for key, value in data.items()}

    def apply(self, built: Object) -> Object:
        """Server-side apply; what others set in fields that are ours is overwritten. Returns the stored object."""
        metadata = built["metadata"]
        path = _path(built["kind"], metadata["namespace"], metadata["name"])
        return self._request("patch", path, built, _APPLY, field_manager=names.FIELD_MANAGER, force_conflicts=True)

    def delete(self, found: Object, kind: str) -> None:
        """Delete this very object, where it is still there."""
        metadata = found["metadata"]
        body = {"preconditions": {"uid": metadata["uid"]}}
        with suppress(NotFoundError):
            self._request("delete", _path(kind, metadata["namespace"], metadata["name"]), body)

    def serves(self, group_version: str) -> bool:
        """Whether the API server has an API, and what is behind it answers. Raises nothing."""
        try:
            self._client.request("get", f"/apis/{group_version}", serialize=False, _request_timeout=_SERVES_SECONDS)
        except DynamicApiError as error:
            # Anything else, such as that it may not be asked for, doesn't say so.
            return error.status != _NOT_FOUND and int(error.status or 0) < _BROKEN
        except HTTPError:
            return False
        return True

    def release_replicas(self, deployment: Object) -> None:
        """Hand the number of replicas as it is to a field manager of its own.

        Source: Kubernetes' documentation of server-side apply, "transferring ownership".
        """
        metadata = deployment["metadata"]
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "spec": {"replicas": deployment["spec"]["replicas"]},
        }
        path = _path("Deployment", metadata["namespace"], metadata["name"])
        self._request("patch", path, body, _APPLY, field_manager=names.REPLICAS_FIELD_MANAGER, force_conflicts=True)

    def scale(self, namespace: str, name: str, replicas: int) -> None:
        """Set the number of replicas of a Deployment, as an autoscaler does."""
        path = _path("Deployment", namespace, name) + "/scale"
        body = {"spec": {"replicas": replicas}}
        self._request("patch", path, body, _MERGE, field_manager=names.REPLICAS_FIELD_MANAGER)

    def write_status(self, pipeline: Object, status: Mapping[str, Any]) -> Object:
        """Write a pipeline's status, and take away what it no longer says. Returns the stored object.

        Raises ``ConflictError`` where it has changed since it was read: it may be another one of the same name.
        """
        metadata = pipeline["metadata"]
        gone = dict.fromkeys((pipeline.get("status") or {}).keys() - status.keys())
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": gone | dict(status)}
        path = _path("EmbeddingPipeline", metadata["namespace"], metadata["name"]) + "/status"
        return self._request("patch", path, body, _MERGE, field_manager=names.FIELD_MANAGER)

    def set_finalizers(self, pipeline: Object, finalizers: list[str]) -> Object:
        """Replace a pipeline's finalizers. Raises ``ConflictError`` where it has changed since it was read."""
        metadata = pipeline["metadata"]
        body = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
        path = _path("EmbeddingPipeline", metadata["namespace"], metadata["name"])
        return self._request("patch", path, body, _MERGE, field_manager=names.FIELD_MANAGER)

    def set_replicas(self, pipeline: Object, replicas: int) -> Object:
        """Set a pipeline's ``spec.replicas``. Raises ``ConflictError`` where it has changed since it was read."""
        metadata = pipeline["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "spec": {"replicas": replicas}}
        path = _path("EmbeddingPipeline", metadata["namespace"], metadata["name"])
        return self._request("patch", path, body, _MERGE, field_manager=names.REPLICAS_FIELD_MANAGER)

    def create_event(self, namespace: str, event: Object) -> None:
        """Post an event."""
        self._request("post", _path("Event", namespace), event)

    def lister(self, kind: str, stop: threading.Event) -> Any:
        """Return the function with which the library's informer lists and watches what belongs to pipelines."""

        def list_objects(namespace: str | None = None, **parameters: Any) -> Any:
            """List, or watch.

            :return: object
            """
            try:
                return self._list_or_watch(_path(kind, namespace), parameters)
            except Exception:
                # The informer tries again at once; an API server that is away must not be hammered.
                stop.wait(_RETRY_SECONDS)
                raise

        return list_objects

    def _list_or_watch(self, path: str, parameters: dict[str, Any]) -> Any:
        watching = parameters.pop("watch", False)
        parameters.pop("_preload_content", None)
        common = {"label_selector": names.OWNED_SELECTOR, "serialize": False}
        if watching:
            seconds = (_CONNECT_SECONDS, _WATCH_SECONDS + _READ_SECONDS)
            extra = {"timeout_seconds": _WATCH_SECONDS, "allow_watch_bookmarks": True, "_request_timeout": seconds}
            return self._client.request("get", path, watch=True, **common, **extra, **parameters)
        answer = self._client.request("get", path, _request_timeout=(_CONNECT_SECONDS, _READ_SECONDS), **common)
        found = json.loads(answer.data)
        return ObjectList(found["items"], ListMetadata(found["metadata"]["resourceVersion"]))

    def _request(
        self, method: str, path: str, body: Object | None = None, content_type: str | None = None, **parameters: Any
    ) -> Object:
        answer = self._client.request(
            method,
            path,
            body=body,
            content_type=content_type,
            serialize=False,
            _request_timeout=(_CONNECT_SECONDS, _READ_SECONDS),
            **parameters,
        )
        found: Object = json.loads(answer.data)
        return found


def refusal(error: DynamicApiError) -> str:
    """What the API server says, in its own words."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (KeyError, TypeError, ValueError):
        return str(error.reason)


def _path(kind: str, namespace: str | None, name: str | None = None) -> str:
    prefix, plural = PATHS[kind]
    place = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"{prefix}{place}/{plural}" + (f"/{name}" if name is not None else "")

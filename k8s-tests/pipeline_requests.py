"""Requests about EmbeddingPipelines, straight to the API server: what it stores, and in which words it refuses."""

import json
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple, cast

from kubernetes import config
from kubernetes.client import ApiException, CustomObjectsApi

Document = dict[str, Any]
_RESOURCE = ("embeddings.dev", "v1alpha1")
_PLURAL = "embeddingpipelines"
# Not to be decoded as such, and not valid; all else is trouble.
_REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY)


class Cause(NamedTuple):
    """One of the faults for which a request was refused."""

    field: str
    message: str


class Refused(Exception):  # noqa: N818 - an answer, not an error of the program
    """The API server's answer to what it doesn't accept."""

    def __init__(self, answer: Document) -> None:
        super().__init__(answer["message"])
        causes = answer.get("details", {}).get("causes", [])
        self.causes = [Cause(cause.get("field", ""), cause["message"]) for cause in causes]


@dataclass(frozen=True)
class Pipelines:
    """The pipelines of a namespace. Every method raises ``Refused``; a dry run checks all and stores nothing."""

    api: CustomObjectsApi
    namespace: str

    def create(self, document: Document, *, dry_run: bool = True) -> Document:
        """Create a pipeline, strictly, as kubectl does; its namespace is replaced by this one."""
        document = {**document, "metadata": {**document["metadata"], "namespace": self.namespace}}
        return self._answer("create_namespaced_custom_object", _PLURAL, document, dry_run=dry_run)

    def replace(self, document: Document, *, dry_run: bool = True) -> Document:
        """Put another spec in place of a stored one."""
        return self._replace("replace_namespaced_custom_object", document, dry_run=dry_run)

    def replace_status(self, document: Document, *, dry_run: bool = True) -> Document:
        """Put another status in place of a stored one, as the operator does."""
        return self._replace("replace_namespaced_custom_object_status", document, dry_run=dry_run)

    def get(self, name: str) -> Document:
        """Return what is stored."""
        return cast("Document", self.api.get_namespaced_custom_object(*_RESOURCE, self.namespace, _PLURAL, name))

    def delete(self, name: str) -> None:
        """Delete a pipeline."""
        self.api.delete_namespaced_custom_object(*_RESOURCE, self.namespace, _PLURAL, name)

    def _replace(self, request: str, document: Document, *, dry_run: bool) -> Document:
        name = document["metadata"]["name"]
        document = {**document, "metadata": self.get(name)["metadata"]}
        return self._answer(request, _PLURAL, name, document, dry_run=dry_run)

    def _answer(self, request: str, *arguments: object, dry_run: bool) -> Document:
        send = getattr(self.api, request)
        try:
            return cast(
                "Document",
                send(
                    *(*_RESOURCE, self.namespace, *arguments),
                    dry_run="All" if dry_run else None,
                    field_validation="Strict",
                ),
            )
        except ApiException as error:
            if error.status not in _REFUSALS:
                raise
            refusal = json.loads(str(error.body))
        # Outside the handler, or a failing test would show both.
        raise Refused(refusal)


def pipelines(kubeconfig: Path, namespace: str) -> Pipelines:
    """Return the requests to the API server of a kubeconfig."""
    return Pipelines(CustomObjectsApi(config.new_client_from_config(str(kubeconfig))), namespace)

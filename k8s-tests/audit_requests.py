"""What the operator asked of the API server, from the server's own audit log."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from system_fixtures import System
from testcluster.choice import CURRENT_VARIABLE
from testcluster.cluster import Cluster

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_FORBIDDEN = 403
_CREATED = 201


class Right(NamedTuple):
    """A verb on a kind of objects; ``resource`` has the subresource after a slash."""

    verb: str
    group: str
    resource: str


@dataclass(frozen=True)
class Request:
    """One request, of any outcome; a dry run is one too."""

    right: Right
    namespace: str
    name: str
    code: int
    denied: bool

    @property
    def needed(self) -> set[Right]:
        """The rights that it took: a patch that makes an object is a creation, too."""
        made = self.right.verb == "patch" and self.code == _CREATED
        return {self.right, self.right._replace(verb="create")} if made else {self.right}


class AuditLog:
    """The requests of one pod."""

    def __init__(self, file: Path, pod_uid: str) -> None:
        self._file = file
        self._pod_uid = pod_uid

    def end(self) -> int:
        """Where the log ends now."""
        return self._file.stat().st_size

    def requests(self, start: int = 0) -> list[Request]:
        """The pod's requests for objects that were answered after ``end`` was ``start``, or since it runs."""
        with self._file.open("rb") as file:
            file.seek(start)
            # A line without its end is being written.
            lines = [line for line in file if line.endswith(b"\n")]
        return list(self._parsed(lines))

    def _parsed(self, lines: list[bytes]) -> Iterator[Request]:
        uid = self._pod_uid.encode()
        for line in lines:
            if uid not in line:
                continue
            event = json.loads(line)
            extra = event["user"].get("extra", {})
            if self._pod_uid in extra.get("authentication.kubernetes.io/pod-uid", ()) and "objectRef" in event:
                yield _request(event)


def operators_log(system: System) -> AuditLog:
    """The log of the operator that runs now."""
    return AuditLog(audit_log(system.cluster), system.operator_pod()["metadata"]["uid"])


def audit_log(cluster: Cluster) -> Path:
    """The API server's audit log; a test without it fails."""
    if cluster.audit_log is None:
        pytest.fail(
            f"the API server's audit log can't be had from the current cluster; unset {CURRENT_VARIABLE}, so that the "
            "tests start a cluster of their own, or leave out what reads the log, with pytest -m 'not audit'",
            pytrace=False,
        )
    return cluster.audit_log


def granted(rules: list[dict[str, Any]]) -> set[Right]:
    """What the rules of a role allow."""
    return {
        Right(verb, group, resource)
        for rule in rules
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def _request(event: dict[str, Any]) -> Request:
    asked, code = event["objectRef"], event.get("responseStatus", {}).get("code", 0)
    resource = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
    denied = code == _FORBIDDEN or event["annotations"].get("authorization.k8s.io/decision") == "forbid"
    right = Right(event["verb"], asked.get("apiGroup", ""), resource)
    return Request(right, asked.get("namespace", ""), asked.get("name", ""), code, denied)

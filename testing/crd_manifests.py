"""Manifests to try the API with: the examples, and how to change them by the paths of the CRD's schemas."""

import copy
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_EXAMPLES = Path(__file__).parents[1] / "examples"
Document = dict[str, Any]
# In place of a value: the field is taken away.
ABSENT = ...

STATUS: Document = {
    "observedGeneration": 1,
    "conditions": [
        {
            "type": "Ready",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
            "reason": "Ready",
            "message": "embeds",
        },
        {
            "type": "CaughtUp",
            "status": "Unknown",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
            "reason": "NoRate",
            "message": "not yet known",
        },
    ],
    "replicas": 2,
    "availableReplicas": 1,
    "selector": "app.kubernetes.io/instance=every-field",
    "lag": 12345678901,
    "messagesPerSecond": "101.5",
    "caughtUpIn": "1h5m",
    "deadLetters": 3,
    "consumerGroup": "articles-embedding",
    "kafkaClusterId": "5L6g3nShT-eMCtK--X86sw",
    "topics": [{"name": "articles", "role": "Input", "id": "dGVzdA", "partitions": 12, "created": False}],
    "model": {"source": "hub", "dimension": 384, "contract": "0123456789abcdef"},
}


@cache
def _example(name: str) -> Document:
    document: Document = yaml.safe_load((_EXAMPLES / name).read_text(encoding="utf-8"))
    return document


def every_field() -> Document:
    """The example with every field, as a cluster would give it back: with a status."""
    return copy.deepcopy({**_example("every-field.yaml"), "status": STATUS})


def quickstart() -> Document:
    """The smallest manifest."""
    return copy.deepcopy(_example("quickstart.yaml"))


def _steps(document: Document, path: str) -> Iterator[tuple[Any, Any]]:
    """Each object or list on the way to a field, with the key that leads on: of a list 0, of a map its first."""
    node: Any = document
    for part in re.findall(r"\[\]|[^.\[]+", path):
        key = 0 if part == "[]" else next(iter(node)) if part == "*" else part
        yield node, key
        node = node[key] if isinstance(node, list) else node.setdefault(key, {})


def change(document: Document, path: str, value: object) -> None:
    """Set the field at a path of ``crd.schemas``, of a list its first item; ``ABSENT`` takes it away."""
    *_, (parent, key) = _steps(document, path)
    if value is ABSENT:
        del parent[key]
    else:
        parent[key] = value


def value_at(document: Document, path: str) -> Any:
    """What ``change`` would replace."""
    *_, (parent, key) = _steps(copy.deepcopy(document), path)
    return parent[key]


def reported(path: str) -> str:
    """A path as an error names it, in the example with every field."""
    keys = [key for _, key in _steps(every_field(), path)]
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).removeprefix(".")

"""The CustomResourceDefinition file, read from where this installation has it.

Only the file and what can be read off it belong here; what a manifest makes of it stands in ``manifest``.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

JsonSchema = dict[str, Any]

_PACKAGED = Path(__file__).with_name("crd.yaml")
_CHECKOUT = Path(__file__).parents[2] / "crds" / "embeddingpipelines.embeddings.dev.yaml"


def path() -> Path:
    """The wheel's copy of the file, or the source itself in an editable checkout."""
    return _PACKAGED if _PACKAGED.exists() else _CHECKOUT


@cache
def definition() -> dict[str, Any]:
    """The CustomResourceDefinition object. Raises ``FileNotFoundError`` in a broken installation."""
    document: dict[str, Any] = yaml.safe_load(path().read_text(encoding="utf-8"))
    return document


def api_version() -> str:
    """``<group>/<version>`` of the one version that there is."""
    spec = definition()["spec"]
    return f"{spec['group']}/{spec['versions'][0]['name']}"


def kind() -> str:
    """The resource's kind."""
    return str(definition()["spec"]["names"]["kind"])


def schema() -> JsonSchema:
    """The ``openAPIV3Schema`` of the one version that there is."""
    openapi: JsonSchema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return openapi


def schemas(node: JsonSchema | None = None, path: str = "") -> Iterator[tuple[str, JsonSchema]]:
    """A schema (unset: the resource's) and every schema in it, outermost first, each after its path.

    A path is ``a.b`` for a field, ``a[]`` for the items of a list, and ``a.*`` for the values of a map.
    """
    node = schema() if node is None else node
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from schemas(child, f"{path}.{name}" if path else name)
    if "items" in node:
        yield from schemas(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from schemas(node["additionalProperties"], f"{path}.*")


def cel_rules() -> list[dict[str, str]]:
    """Every ``x-kubernetes-validations`` rule of the resource, outermost first."""
    return [rule for _, node in schemas() for rule in node.get("x-kubernetes-validations", [])]

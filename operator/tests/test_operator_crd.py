"""The CRD file: held equal to the models, complete, and the same in every place."""

import operator
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedding_operator import crd, manifest
from embedding_operator.api import EmbeddingPipeline, Spec

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "crds" / "embeddingpipelines.embeddings.dev.yaml"

Node = dict[str, Any]
SPEC: Node = crd.schema()["properties"]["spec"]


def walk(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    """A schema and every schema in it, with their paths as a person writes them."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    if "items" in node:
        yield from walk(node["items"], f"{path}[]")


FIELDS = dict(walk(SPEC, "spec"))

# What one side alone carries: words, rules for the API server, and defaults of objects, which are {} in the file and
# whole models in pydantic.
_ONE_SIDED = ("description", "title", "x-kubernetes-validations", "$defs")


def from_crd(node: Node) -> Node:
    plain = {key: value for key, value in node.items() if key not in _ONE_SIDED}
    if node["type"] == "object":
        assert node.get("default", {}) == {}
        plain.pop("default", None)
        plain["required"] = sorted(node.get("required", []))
        plain["properties"] = {name: from_crd(child) for name, child in node["properties"].items()}
    if "items" in node:
        plain["items"] = from_crd(node["items"])
    return plain


def from_models(node: Node, definitions: Node) -> Node:
    if "$ref" in node:
        return from_models(definitions[node["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in node:
        # None is how a model says unset, which in the file is no value at all.
        (kept,) = [choice for choice in node["anyOf"] if choice != {"type": "null"}]
        assert node["default"] is None
        return from_models(kept, definitions)
    plain = {key: value for key, value in node.items() if key not in _ONE_SIDED}
    if node["type"] == "object":
        assert plain.pop("additionalProperties") is False
        plain["required"] = sorted(node.get("required", []))
        plain["properties"] = {name: from_models(child, definitions) for name, child in node["properties"].items()}
    if "items" in node:
        plain["items"] = from_models(node["items"], definitions)
    return plain


def flat(node: Node) -> dict[str, Node]:
    """Each field's own properties by its path, so that a difference is shown where it is."""
    return {
        path: {key: value for key, value in found.items() if key not in ("properties", "items")}
        | {"fields": sorted(found.get("properties", {}))}
        for path, found in walk(node, "spec")
    }


def test_fields_types_enums_limits_required_and_defaults_of_file_and_models_are_equal() -> None:
    schema = Spec.model_json_schema(by_alias=True)
    assert flat(from_models(schema, schema["$defs"])) == flat(from_crd(SPEC))


def test_models_take_exactly_the_api_version_and_kind_of_the_file() -> None:
    properties = EmbeddingPipeline.model_json_schema(by_alias=True)["properties"]
    assert properties["apiVersion"]["const"] == crd.api_version()
    assert properties["kind"]["const"] == crd.kind()


def test_file_is_named_after_the_resource() -> None:
    definition = crd.definition()
    assert definition["metadata"]["name"] == f"{definition['spec']['names']['plural']}.{definition['spec']['group']}"
    assert SOURCE.stem == definition["metadata"]["name"]


@pytest.mark.parametrize("path", FIELDS)
def test_each_field_is_described_and_bounded(path: str) -> None:
    node = FIELDS[path]
    if not path.endswith("[]"):
        assert node["description"].endswith(".")
    if node["type"] == "string" and "enum" not in node:
        assert node["maxLength"] > 0
    if node["type"] == "array":
        assert node["maxItems"] > 0
    if "pattern" in node:
        # Local validation searches with Python's engine, which agrees with RE2 on whole matches alone.
        assert re.fullmatch(r"\^.*\$", node["pattern"])
        assert node["title"]
    for name, child in node.get("properties", {}).items():
        if child["type"] == "object" and name not in node.get("required", []):
            assert child["default"] == {}, "defaults of children apply only where the parent exists"
        if "default" in child and child["default"] != {}:
            assert "default" in child["description"].lower()
        elif name not in node.get("required", []) and child["type"] != "object":
            assert "Unset:" in child["description"]


def test_each_rule_says_what_to_do() -> None:
    rules = crd.cel_rules()
    assert rules
    assert all("must" in rule["message"] or "can't" in rule["message"] for rule in rules)


def test_columns_show_fields_that_exist() -> None:
    (version,) = crd.definition()["spec"]["versions"]
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    assert all(path.removeprefix(".") in FIELDS or path == ".metadata.creationTimestamp" for path in paths)


def test_docs_name_each_field() -> None:
    documented = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    missing = [
        path
        for path, node in FIELDS.items()
        if node["type"] != "object" and not path.endswith("[]") and f"`{path}`" not in documented
    ]
    assert not missing


def test_docs_name_no_field_that_does_not_exist() -> None:
    documented = set(re.findall(r"`(spec\.[A-Za-z.]+)`", (ROOT / "docs" / "api.md").read_text(encoding="utf-8")))
    assert documented <= FIELDS.keys()


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_each_example_is_valid(example: Path) -> None:
    (checked,) = manifest.pipelines(example.read_text(encoding="utf-8"))
    assert isinstance(checked, EmbeddingPipeline)


def test_the_example_with_every_field_has_every_field_at_other_than_its_default() -> None:
    document = yaml.safe_load((ROOT / "examples" / "every-field.yaml").read_text(encoding="utf-8"))
    given = {"spec": document["spec"]}
    for path, node in FIELDS.items():
        if node["type"] == "object" or path.endswith("[]"):
            continue
        value: Any = given
        for name in path.split("."):
            value = value[name]
        assert value != node.get("default", ...)


def test_wheel_and_checkout_hold_the_same_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packaged = archive.read("embedding_operator/crd.yaml")
    assert packaged == SOURCE.read_bytes() == crd.path().read_bytes()


def test_import_operator_is_the_standard_library() -> None:
    assert operator.__file__ is not None
    assert Path(operator.__file__).parent == Path(sysconfig.get_path("stdlib"))

"""The CRD file: held equal to the models, complete, and the same in every place."""

import operator
import re
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crd_cel_rows import CEL_ROWS, rules
from crd_manifests import every_field
from crd_schema_rows import ROWS, constraints
from embedding_operator import crd, manifest
from embedding_operator.api import EmbeddingPipeline, Spec

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "crds" / "embeddingpipelines.embeddings.dev.yaml"

Node = dict[str, Any]
SPEC: Node = crd.schema()["properties"]["spec"]
# By path; what isn't below these two is every Kubernetes object's.
FIELDS = {path: node for path, node in crd.schemas() if path.startswith(("spec", "status"))}

# What one side alone carries: words, and what is the API server's alone.
ONE_SIDED = {
    *("description", "title", "$defs"),
    *("x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
}
OPEN = "x-kubernetes-preserve-unknown-fields"
PARTS = ("properties", "items", "additionalProperties")


def normal(node: Node, normal_part: Callable[[Node], Node]) -> Node:
    """A schema without what is one-sided, and with its parts in the form that both sides are compared in."""
    plain = {key: value for key, value in node.items() if key not in ONE_SIDED}
    for keyword in ("items", "additionalProperties"):
        if keyword in plain:
            plain[keyword] = normal_part(plain[keyword])
    if "properties" in plain:
        plain["properties"] = {name: normal_part(child) for name, child in plain["properties"].items()}
        plain["required"] = sorted(plain.get("required", []))
    return plain


QUANTITY = {"type": "a whole number or a string"}


def from_crd(node: Node) -> Node:
    plain = normal(node, from_crd)
    if plain.pop("x-kubernetes-int-or-string", False):
        assert plain.pop("anyOf") == [{"type": "integer"}, {"type": "string"}]
        return plain | QUANTITY
    return plain


def from_models(node: Node, definitions: Node) -> Node:
    def part(child: Node) -> Node:
        return from_models(child, definitions)

    match node:
        case {"$ref": reference}:
            section = part(definitions[reference.rpartition("/")[2]])
            # Whole in the models, and {} in the file, whose fields have defaults of their own.
            return section | ({"default": {}} if "default" in node else {})
        case {"const": only, **rest}:
            # An enum of one value.
            return part({"enum": [only], **rest})
        case {"anyOf": [choice, {"type": "null"}], "default": None}:
            # None is how a model says unset, which in the file is no value at all.
            return part(choice)
        case {"anyOf": [{"type": "integer"} as number, {"type": "string"} as text, *unset]}:
            assert unset == [{"type": "null"}] * ("default" in node)
            return {**number, **text, **QUANTITY}
        case {"additionalProperties": True, **rest}:
            return normal({OPEN: True, **rest}, part)
        case {"additionalProperties": False, **rest}:
            return normal(rest, part)
        case _:
            assert "properties" not in node, "a section takes fields that it doesn't know"
            return normal(node, part)


def flat(node: Node) -> dict[str, Node]:
    """Each field's own properties by its path, so that a difference is shown where it is."""
    return {
        path: {key: value for key, value in found.items() if key not in PARTS}
        | {"fields": sorted(found.get("properties", {}))}
        for path, found in crd.schemas(node, "spec")
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


def is_field(path: str) -> bool:
    """Not the items of a list or the values of a map."""
    return not path.endswith(("[]", "*"))


@pytest.mark.parametrize("path", [path for path in FIELDS if is_field(path)])
def test_each_field_is_described(path: str) -> None:
    assert FIELDS[path]["description"].endswith(".")


@pytest.mark.parametrize("path", [path for path in FIELDS if path.startswith("spec")])
def test_each_field_is_bounded(path: str) -> None:
    node = FIELDS[path]
    if node.get("type") == "string" and "enum" not in node:
        assert node["maxLength"] > 0
    if node.get("type") == "array":
        assert node["maxItems"] > 0
    if node.get("type") == "integer":
        assert node["minimum"] <= node["maximum"]
    if "pattern" in node:
        # Local validation searches with Python's engine, which agrees with RE2 on whole matches alone.
        assert re.fullmatch(r"\^.*\$", node["pattern"])
        assert node["title"]
    if node.get("type") == "object":
        # Of any other the API server would drop all that is in it.
        assert ("properties" in node) + ("additionalProperties" in node) + (OPEN in node) == 1
        assert node.get("maxProperties", 0) > 0 or "additionalProperties" not in node


@pytest.mark.parametrize("path", [path for path in FIELDS if path.startswith("spec")])
def test_what_is_left_out_is_described_in(path: str) -> None:
    node = FIELDS[path]
    for name, child in node.get("properties", {}).items():
        if "default" in child:
            assert "default" in child["description"].lower()
            # Else leaving out this one would be refused.
            assert name not in node.get("required", [])
        elif name not in node.get("required", []):
            # So that defaults of its fields apply only where it is there.
            assert "Unset:" in child["description"]


def test_each_rule_says_what_to_do() -> None:
    rules = crd.cel_rules()
    assert rules
    assert all("must" in rule["message"] or "can't" in rule["message"] for rule in rules)


def test_each_constraint_has_its_row_in_the_table() -> None:
    assert constraints() == ROWS.keys()


def test_each_rule_has_its_row_in_the_table() -> None:
    assert {row.rule() for row in CEL_ROWS.values()} == set(rules())
    assert len(set(rules())) == len(crd.cel_rules())


def test_columns_show_fields_that_exist() -> None:
    (version,) = crd.definition()["spec"]["versions"]
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    shown = {re.sub(r"\[.*?\]", "[]", path).removeprefix(".") for path in paths}
    assert shown <= FIELDS.keys() | {"metadata.creationTimestamp"}


def test_scaling_works_on_fields_that_exist() -> None:
    (version,) = crd.definition()["spec"]["versions"]
    paths = {path.removeprefix(".") for path in version["subresources"]["scale"].values()}
    assert paths == {"spec.replicas", "status.replicas", "status.selector"}
    assert paths <= FIELDS.keys()


def is_leaf(path: str) -> bool:
    """A field of the spec that has a value of its own, not only fields."""
    return path.startswith("spec") and is_field(path) and "properties" not in FIELDS[path]


def test_docs_name_each_field() -> None:
    documented = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    # A list of objects is described by their fields.
    missing = {path for path in FIELDS if is_leaf(path) and f"`{path}`" not in documented}
    assert not {path for path in missing if "properties" not in FIELDS[path].get("items", {})}


def test_docs_name_no_field_that_does_not_exist() -> None:
    documented = set(re.findall(r"`(spec\.[A-Za-z.\[\]]+)`", (ROOT / "docs" / "api.md").read_text(encoding="utf-8")))
    assert documented <= FIELDS.keys()


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_each_example_is_valid(example: Path) -> None:
    (checked,) = manifest.pipelines(example.read_text(encoding="utf-8"))
    assert isinstance(checked, EmbeddingPipeline)


def values(document: Any, path: str) -> list[Any]:
    """What a manifest has at a path; of a list, what any item has there."""
    found = [document]
    for name in path.replace("[]", ".[]").split("."):
        found = [value for each in found for value in (each if name == "[]" else [each[name]] if name in each else [])]
    return found


# Fields that another one in the example excludes.
EXCLUDED = {"spec.model.cache.sizeLimit"}


@pytest.mark.parametrize("path", [path for path in FIELDS if is_leaf(path) and path not in EXCLUDED])
def test_the_example_with_every_field_has_at_other_than_its_default(path: str) -> None:
    found = values(every_field(), path)
    assert any(value not in (FIELDS[path].get("default"), [], {}) for value in found)


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

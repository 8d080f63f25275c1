"""A manifest's text → checked pipelines, as the API server would store them; pure.

Applies the schema of the CRD file, its defaults, and ``kubectl``'s strict validation (an unknown field is an error).
The schema's CEL rules are the API server's alone. What a pipeline leads to does not belong here.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from embedding_operator import crd
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.crd import JsonSchema
from embedding_operator.yaml_documents import YamlError, documents

_SHOWN = 80  # characters of a value in an error line
_LIST_MAP = "x-kubernetes-list-map-keys"

_DNS_LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
_STRINGS: JsonSchema = {"type": "object", "additionalProperties": {"type": "string"}}
# What the API server itself asks of every object's metadata; it is in no CRD.
_METADATA: JsonSchema = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {
            "title": "a DNS name (a-z, 0-9, -, dots; a letter or digit at both ends)",
            "type": "string",
            "maxLength": 253,
            "pattern": rf"^{_DNS_LABEL}(\.{_DNS_LABEL})*$",
        },
        "namespace": {
            "title": "a DNS label (a-z, 0-9, -; a letter or digit at both ends)",
            "type": "string",
            "maxLength": 63,
            "pattern": f"^{_DNS_LABEL}$",
        },
        "labels": _STRINGS,
        "annotations": _STRINGS,
        "finalizers": {"type": "array", "items": {"type": "string"}},
        "ownerReferences": {"type": "array", "items": {"type": "object"}},
        "generateName": {"type": "string"},
        # What is in an object that was read back from a cluster.
        "creationTimestamp": {"type": "string"},
        "deletionGracePeriodSeconds": {"type": "integer"},
        "deletionTimestamp": {"type": "string"},
        "generation": {"type": "integer"},
        "managedFields": {"type": "array", "items": {"type": "object"}},
        "resourceVersion": {"type": "string"},
        "selfLink": {"type": "string"},
        "uid": {"type": "string"},
    },
}


class ManifestError(Exception):
    """A manifest that can't be used: a line for each fault."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def pipelines(text: str) -> list[EmbeddingPipeline | ManifestError]:
    """Each document of a YAML text, checked and defaulted, or what is wrong with it.

    Raises ``ManifestError`` where the text as a whole is at fault: not YAML, or empty.
    """
    try:
        found = documents(text)
    except YamlError as error:
        raise ManifestError([str(error)]) from None
    if not found:
        raise ManifestError([f"empty; expected an {crd.kind()}"])
    return [_pipeline(document) for document in found]


def _pipeline(document: object) -> EmbeddingPipeline | ManifestError:
    found = problems(document)
    return ManifestError(found) if found else EmbeddingPipeline.model_validate(defaulted(document))


def problems(document: object) -> list[str]:
    """What is wrong with a document, a line for each fault, by the schema after its defaults."""
    if not isinstance(document, dict):
        return [f"{_json(document)} is not a mapping; expected an {crd.kind()}"]
    header = _lines(_header_schema(), document)
    # What is wrong with another kind's fields would be noise.
    return header or _lines(_strict(_whole_schema()), defaulted(document))


def defaulted(document: object) -> object:
    """A copy with the schema's defaults, by the API server's rules.

    A null where the schema doesn't allow one counts as unset. A child's default applies only where its parent exists.
    """
    document = copy.deepcopy(document)
    _fill(document, _whole_schema())
    return document


def _fill(value: object, schema: JsonSchema) -> None:
    if isinstance(value, list):
        for item in value:
            _fill(item, schema.get("items", {}))
    if not isinstance(value, dict):
        return
    fields, of_map = schema.get("properties", {}), schema.get("additionalProperties", {})
    for name in [name for name in value if value[name] is None and (of_map or name in fields)]:
        del value[name]
    for name, child in fields.items():
        if name not in value and "default" in child:
            value[name] = copy.deepcopy(child["default"])
    for name, part in value.items():
        _fill(part, fields.get(name, of_map))


def _header_schema() -> JsonSchema:
    return {
        "type": "object",
        "required": ["apiVersion", "kind"],
        "properties": {"apiVersion": {"const": crd.api_version()}, "kind": {"const": crd.kind()}},
    }


def _whole_schema() -> JsonSchema:
    """The CRD's schema with the rules for ``metadata`` that the CRD doesn't repeat."""
    schema = crd.schema()
    required = ["metadata", *schema["required"]]
    return {**schema, "required": required, "properties": {**schema["properties"], "metadata": _METADATA}}


def _strict(schema: JsonSchema) -> JsonSchema:
    """The schema with every object that lists its fields closed to others."""
    strict = dict(schema)
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            strict[keyword] = _strict(schema[keyword])
    if "properties" in schema:
        strict["properties"] = {name: _strict(child) for name, child in schema["properties"].items()}
        strict["additionalProperties"] = False
    return strict


def _lines(schema: JsonSchema, document: object) -> list[str]:
    return [_line(error) for error in _Validator(schema).iter_errors(document)]


def _line(error: Any) -> str:
    """The library leaves the types of an error's parts open."""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    sentence = SENTENCES[error.validator](_json(error.instance), error.validator_value, error.schema)
    return f"{path.removeprefix('.')}: {sentence}"


def _required(_: Any, names: list[str], instance: object, __: JsonSchema) -> Iterator[ValidationError]:
    """Replaces the library's keyword: the fault is told at the missing field, not at its parent."""
    if isinstance(instance, dict):
        yield from (ValidationError("", path=[name]) for name in names if name not in instance)


def _additional(validator: Any, allowed: Any, instance: object, schema: JsonSchema) -> Iterator[ValidationError]:
    """Replaces the library's keyword: one fault for each unknown field."""
    if not isinstance(instance, dict):
        return
    for name in instance:
        if name in schema.get("properties", {}):
            continue
        if allowed is False:
            yield ValidationError("", path=[name])
        else:
            yield from validator.descend(instance[name], allowed, path=name)


def _pattern(_: Any, pattern: str, instance: object, __: JsonSchema) -> Iterator[ValidationError]:
    """Replaces the library's keyword: Python's ``$`` accepts a line's end, and RE2's, the API server's, refuses it."""
    if isinstance(instance, str) and not re.search(pattern.removesuffix("$") + r"\Z", instance):
        yield ValidationError("")


def _any_of(validator: Any, choices: list[JsonSchema], instance: object, _: JsonSchema) -> Iterator[ValidationError]:
    """Replaces the library's keyword: one fault, not one for each choice."""
    if not any(validator.evolve(schema=choice).is_valid(instance) for choice in choices):
        yield ValidationError("")


def _list_map(_: Any, keys: list[str], instance: object, __: JsonSchema) -> Iterator[ValidationError]:
    """Adds the API server's own keyword: no two entries of a list with the same keys."""
    if not isinstance(instance, list):
        return
    seen = []
    for number, item in enumerate(instance):
        key = {name: item[name] for name in keys if name in item} if isinstance(item, dict) else {}
        # A missing key is a fault of its own.
        if len(key) == len(keys) and key in seen:
            yield ValidationError("", path=[number], instance=key)
        seen.append(key)


_Validator = extend(  # type: ignore[no-untyped-call] # the stubs leave it untyped
    Draft202012Validator,
    {
        "required": _required,
        "additionalProperties": _additional,
        "pattern": _pattern,
        "anyOf": _any_of,
        _LIST_MAP: _list_map,
    },
)


_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "a string",
    "integer": "a whole number",
    "boolean": "true or false",
}

# Validator keyword → the rest of the error line, from the value as JSON, the keyword's own value, and the schema.
SENTENCES: dict[str, Callable[[str, Any, JsonSchema], str]] = {
    "required": lambda *_: "is required",
    "additionalProperties": lambda _, __, schema: f"unknown field; expected one of {', '.join(schema['properties'])}",
    "type": lambda value, expected, _: f"{value} is not {_TYPES[expected]}",
    "const": lambda value, expected, _: f"{value} is not {expected}",
    "enum": lambda value, expected, _: f"{value} is not one of {', '.join(expected)}",
    "pattern": lambda value, _, schema: f"{value} is not {schema['title']}",
    # A fraction without quotes is a number; as a string it is a quantity.
    "anyOf": lambda value, _, schema: f"{value} is neither a whole number nor a string; expected {schema['title']}",
    "minLength": lambda value, limit, _: f"{value} is shorter than {_count(limit, 'character')}",
    "maxLength": lambda value, limit, _: f"{value} is longer than {_count(limit, 'character')}",
    "minItems": lambda value, limit, _: f"{value} has fewer than {_count(limit, 'item')}",
    "maxItems": lambda value, limit, _: f"{value} has more than {_count(limit, 'item')}",
    "maxProperties": lambda value, limit, _: f"{value} has more than {_count(limit, 'entry', 'entries')}",
    _LIST_MAP: lambda value, *_: f"{value} is there twice",
    "minimum": lambda value, limit, _: f"{value} is less than {limit}",
    "maximum": lambda value, limit, _: f"{value} is more than {limit}",
}


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"

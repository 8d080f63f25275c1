"""YAML text → JSON values, as kubectl reads it; pure.

Stricter than ``yaml.safe_load`` where that would hide a fault or make what JSON has not: a key given twice is an
error, dates stay strings, keys are strings. Nothing about EmbeddingPipelines belongs here.
"""

from typing import Any

import yaml


class YamlError(Exception):
    """Not YAML, or no JSON in it: one line with the place in the text."""


class _Loader(yaml.SafeLoader):
    """The safe loader, reduced to what JSON has."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    loader.flatten_mapping(node)
    mapping: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a string", key_node.start_mark)
        if key_node.value in mapping:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key_node.value!r} is there twice", key_node.start_mark
            )
        # Deep and in one step, so that a node which contains itself is an error and no endless object.
        mapping[key_node.value] = loader.construct_object(value_node, deep=True)
    return mapping


def _sequence(loader: _Loader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


_KEPT = ("null", "bool", "int", "float", "str")
_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _KEPT
}
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _sequence)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def documents(text: str) -> list[Any]:
    """Every document that isn't empty, as JSON values. Raises ``YamlError``."""
    try:
        found = list(yaml.load_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise YamlError(f"not valid YAML: {place}{error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise YamlError(f"not valid YAML: {' '.join(str(error).split())}") from None
    return [document for document in found if document is not None]

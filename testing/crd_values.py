"""Hypothesis strategies of specs: what the CRD's schema accepts, and what is near it."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from embedding_operator import crd

Schema = dict[str, Any]
Path = tuple[str | int, ...]

_OPEN = "x-kubernetes-preserve-unknown-fields"
# What JSON numbers are to the API server.
_INTEGERS = st.integers(-(2**63), 2**63 - 1)
_ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    _INTEGERS,
    # The API server takes a large number with a small fraction, such as 250000000.5, for a whole one.
    st.integers(-1000, 1000).map(lambda number: number + 0.5),
    st.text(max_size=5),
    st.lists(st.text(max_size=3), max_size=1),
    st.dictionaries(st.text(max_size=3), st.none(), max_size=1),
)


def accepted(node: Schema) -> SearchStrategy[Any]:
    """Values that a schema accepts."""
    match node.get("type"):
        case "object" if _OPEN in node:
            return st.dictionaries(st.text(max_size=5), _ANYTHING, max_size=2)
        case "object" if "additionalProperties" in node:
            return st.dictionaries(st.text(max_size=5), accepted(node["additionalProperties"]), max_size=2)
        case "object":
            fields = {name: accepted(child) for name, child in node["properties"].items()}
            required = {name: fields.pop(name) for name in node.get("required", [])}
            return st.fixed_dictionaries(required, optional=fields)
        case "array":
            keys = node.get("x-kubernetes-list-map-keys", [])
            unique = (lambda item: tuple(item[key] for key in keys)) if keys else None
            return st.lists(accepted(node["items"]), min_size=node.get("minItems", 0), max_size=2, unique_by=unique)
        case "boolean":
            return st.booleans()
        case "integer":
            return _numbers(node)
        case "string":
            return _strings(node)
        case _:
            # A quantity.
            return st.one_of(_numbers(node), _strings(node))


def _numbers(node: Schema) -> SearchStrategy[int | float]:
    numbers = st.integers(node["minimum"], node["maximum"])
    return st.one_of(numbers, numbers.map(float))


def _strings(node: Schema) -> SearchStrategy[str]:
    if "enum" in node:
        return st.sampled_from(node["enum"])
    if "pattern" in node:
        matching: SearchStrategy[str] = st.from_regex(str(node["pattern"]), fullmatch=True)
        return matching.filter(lambda text: len(text) <= _longest(node))
    return st.text(min_size=node.get("minLength", 0), max_size=20)


def _longest(node: Schema) -> int:
    return int(node.get("maxLength", 100))


def around(node: Schema) -> SearchStrategy[Any]:
    """Values at the edges of what a schema accepts, on either side."""
    choices = [_ANYTHING]
    match node.get("type"):
        case "object":
            unknown = st.dictionaries(st.text(max_size=3), st.none(), max_size=1)
            choices.append(st.tuples(accepted(node), unknown).map(lambda parts: {**parts[0], **parts[1]}))
        case "array":
            sizes = [0, 1, node["maxItems"], node["maxItems"] + 1]
            items = st.tuples(accepted(node["items"]), st.sampled_from(sizes))
            choices.append(items.map(lambda parts: [parts[0]] * parts[1]))
        case "integer":
            choices.append(_edges(node))
        case "boolean":
            pass
        case _ if "enum" in node:
            choices.append(st.sampled_from(node["enum"]).map(str.lower))
        case _:
            edge = st.sampled_from([0, _longest(node), _longest(node) + 1])
            choices.append(edge.map(lambda size: "a" * size))
            # Not the full match alone: to Python, `$` matches before a line's end too.
            choices.append(st.from_regex(node.get("pattern", "")))
            if "minimum" in node:
                # A quantity.
                choices.append(_edges(node))
    return st.one_of(choices)


def _edges(node: Schema) -> SearchStrategy[int | float | str]:
    edges = [node["minimum"] - 1, node["minimum"], node["maximum"], node["maximum"] + 1]
    return st.sampled_from([*edges, *map(float, edges), *map(str, edges)])


def _places(node: Schema, value: Any, path: Path = ()) -> list[tuple[Path, Schema]]:
    """Where a value of this schema has parts: the path of each, and its schema."""
    found = [(path, node)] if path else []
    for name, child in node.get("properties", {}).items():
        if name in value:
            found += _places(child, value[name], (*path, name))
    for name in value if "additionalProperties" in node else ():
        found += _places(node["additionalProperties"], value[name], (*path, name))
    for number, item in enumerate(value if "items" in node else ()):
        found += _places(node["items"], item, (*path, number))
    return found


_SPEC = crd.schema()["properties"]["spec"]
_VALID_SPECS = accepted(_SPEC)


@st.composite
def specs(draw: st.DrawFn) -> Any:
    """A valid spec, in half of the cases with one part replaced by something near it or taken away."""
    spec = draw(_VALID_SPECS)
    if draw(st.booleans()):
        (*parents, last), node = draw(st.sampled_from(_places(_SPEC, spec)))
        parent = spec
        for each in parents:
            parent = parent[each]
        if draw(st.integers(0, 3)):
            parent[last] = draw(around(node))
        else:
            del parent[last]
    return spec

"""What is wrong with a configuration, as lines that name key, value and what was expected."""

from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError


class Problem(NamedTuple):
    """A dotted key, and the rest of the line: the value and what was expected."""

    key: str
    text: str


class SettingsError(Exception):
    """A configuration that can't be used: a line for each thing that is wrong with it."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


_RULE = "rule"


def rule(key: str, value: str | None, expected: str) -> PydanticCustomError:
    """A broken rule over several keys of a section, told of the one at fault."""
    return PydanticCustomError(_RULE, "expected {expected}", {"key": key, "value": value, "expected": expected})


_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "a string",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def problems_of(error: ValidationError, model: type[BaseModel], secret_keys: AbstractSet[str]) -> list[Problem]:
    """Turn pydantic's errors into ours; values of ``secret_keys`` are never repeated."""
    # A default that waits for a broken field is the same fault told twice.
    details = [detail for detail in error.errors() if detail["type"] != "default_factory_not_called"]
    return [_problem(detail, model, secret_keys) for detail in details]


def _problem(detail: ErrorDetails, model: type[BaseModel], secret_keys: AbstractSet[str]) -> Problem:
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location)
    if detail["type"] == "extra_forbidden":
        known = ", ".join(_fields(model, location[:-1]))
        return Problem(key, f"unknown key; expected one of {known}")
    if detail["type"] == _RULE:
        context = detail["ctx"]
        return Problem(f"{key}.{context['key']}", f"{context['value']!r}: expected {context['expected']}")
    if detail["type"] == "missing":
        return Problem(key, "expected a value")
    shown = "********" if key in secret_keys else repr(detail["input"])
    return Problem(key, f"{shown}: expected {_expected(detail, model, location)}")


def _expected(detail: ErrorDetails, model: type[BaseModel], location: list[str]) -> str:
    context: dict[str, Any] = detail.get("ctx", {})
    match detail["type"]:
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return "one of " + str(context["expected"]).replace("'", "").replace(" or ", ", ")
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            return detail["msg"].removeprefix("Input should be ")
        case "string_too_short":
            return "a string that isn't empty"
        case "string_pattern_mismatch":
            return _description(model, location) or detail["msg"]
        case kind:
            return _EXPECTED.get(kind, detail["msg"].removeprefix("Input should be "))


def _description(model: type[BaseModel], location: list[str]) -> str | None:
    parent = _model_at(model, location[:-1])
    field = parent.model_fields.get(location[-1]) if parent else None
    return field.description if field else None


def _fields(model: type[BaseModel], location: list[str]) -> list[str]:
    parent = _model_at(model, location)
    return list(parent.model_fields) if parent else []


def _model_at(model: type[BaseModel], location: list[str]) -> type[BaseModel] | None:
    for name in location:
        field = model.model_fields.get(name)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return None
        model = field.annotation
    return model

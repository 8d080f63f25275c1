"""The operator's settings, from its environment alone."""

import re
from pathlib import Path

import pytest

from embedding_operator.settings import PREFIX, OperatorSettings, parse_settings
from embedding_service.contract.problems import SettingsError

ROOT = Path(__file__).parents[2]
IMAGE = {f"{PREFIX}WORKER_IMAGE": "registry.example/worker:1"}
ALL = ", ".join(PREFIX + name.upper() for name in OperatorSettings.model_fields)


def parsed(**variables: str) -> OperatorSettings:
    return parse_settings(IMAGE | {PREFIX + name: value for name, value in variables.items()})


def test_an_image_for_the_workers_is_all_that_is_needed() -> None:
    assert parse_settings(IMAGE) == OperatorSettings(
        worker_image="registry.example/worker:1",
        worker_image_pull_policy="IfNotPresent",
        namespaces=(),
        resync_seconds=60,
        log_level="INFO",
        log_format="console",
        lag_provider="none",
        lag_metric="embedding_pipeline_lag",
        lag_namespace_label="namespace",
        lag_name_label="name",
        http_port=8080,
    )


# Variable and value → field and what it becomes.
READ: dict[str, tuple[str, str, str, object]] = {
    "another image": ("WORKER_IMAGE", "other:2", "worker_image", "other:2"),
    "a policy": ("WORKER_IMAGE_PULL_POLICY", "Never", "worker_image_pull_policy", "Never"),
    "a namespace": ("NAMESPACES", "search", "namespaces", ("search",)),
    "namespaces with blanks and a comma too many": ("NAMESPACES", " search, docs,,", "namespaces", ("search", "docs")),
    "a resync": ("RESYNC_SECONDS", "2.5", "resync_seconds", 2.5),
    "a level in small letters": ("LOG_LEVEL", "debug", "log_level", "DEBUG"),
    "a format": ("LOG_FORMAT", "json", "log_format", "json"),
    "a provider": ("LAG_PROVIDER", "keda", "lag_provider", "keda"),
    "another metric": ("LAG_METRIC", "lag", "lag_metric", "lag"),
    "a label with the namespace": ("LAG_NAMESPACE_LABEL", "exported_ns", "lag_namespace_label", "exported_ns"),
    "a label with the name": ("LAG_NAME_LABEL", "pipeline", "lag_name_label", "pipeline"),
    "a port": ("HTTP_PORT", "9090", "http_port", 9090),
    "an empty variable, which is none": ("LOG_LEVEL", "", "log_level", "INFO"),
}


@pytest.mark.parametrize(("variable", "value", "field", "expected"), READ.values(), ids=READ.keys())
def test_read_is(variable: str, value: str, field: str, expected: object) -> None:
    assert getattr(parsed(**{variable: value}), field) == expected


def test_each_setting_is_in_the_table() -> None:
    assert {field for _, _, field, _ in READ.values()} == OperatorSettings.model_fields.keys()


# Variable and value → the rest of the line.
REFUSED: dict[str, tuple[str, str, str]] = {
    "a policy that there isn't": (
        "WORKER_IMAGE_PULL_POLICY",
        "Sometimes",
        "'Sometimes': expected one of Always, IfNotPresent, Never",
    ),
    "a resync without a pause": ("RESYNC_SECONDS", "0", "'0': expected greater than or equal to 1"),
    "a resync that never comes": ("RESYNC_SECONDS", "inf", "'inf': expected less than or equal to 86400"),
    "a resync that is no number": ("RESYNC_SECONDS", "1m", "'1m': expected a number"),
    "a level that there isn't": ("LOG_LEVEL", "LOUD", "'LOUD': expected one of DEBUG, INFO, WARNING, ERROR"),
    "a format that there isn't": ("LOG_FORMAT", "xml", "'xml': expected one of console, json"),
    "a port that can't be": ("HTTP_PORT", "70000", "'70000': expected less than or equal to 65535"),
    "a port that is no whole number": ("HTTP_PORT", "80.5", "'80.5': expected a whole number"),
    "a variable that there isn't": ("RESYNC", "60", f"unknown; expected one of {ALL}"),
}


@pytest.mark.parametrize(("variable", "value", "line"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_with_variable_value_and_what_was_expected_is(variable: str, value: str, line: str) -> None:
    with pytest.raises(SettingsError) as error:
        parsed(**{variable: value})
    assert error.value.problems == [f"{PREFIX}{variable}: {line}"]


@pytest.mark.parametrize("others", [{}, {f"{PREFIX}LOG_LEVEL": "INFO"}, {f"{PREFIX}WORKER_IMAGE": ""}])
def test_a_missing_image_is_told_and_no_other_variable_with_it(others: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as error:
        parse_settings(others)
    assert error.value.problems == [f"{PREFIX}WORKER_IMAGE: expected a value"]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        parsed(HTTP_PORT="0", LOG_LEVEL="LOUD")
    assert len(error.value.problems) == 2


def test_variables_of_others_are_nothing_to_the_operator() -> None:
    assert parse_settings(IMAGE | {"EMBEDDING_KAFKA__TLS": "true", "PATH": "/bin"}) == parse_settings(IMAGE)


@pytest.mark.parametrize(("pipelines", "seconds"), [(0, 10), (500, 10), (1_000, 20), (3_000, 60), (50_000, 60)])
def test_pipelines_are_looked_at_less_often_where_there_are_many_and_never_less_than_the_resync(
    pipelines: int, seconds: float
) -> None:
    assert parsed().look_seconds(pipelines) == seconds


PLACES = {"the chart": "charts/embedding-service/templates/operator/_environment.tpl", "the docs": "docs/install.md"}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_each_variable_and_no_other_stands_in(place: str) -> None:
    named = set(re.findall(rf"{PREFIX}[A-Z_]+", (ROOT / place).read_text(encoding="utf-8")))
    assert named == {PREFIX + name.upper() for name in OperatorSettings.model_fields}

"""The operator's own settings, from its environment; docs/install.md and the chart's values say what they do."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from embedding_service.contract.problems import Problem, SettingsError, problems_of

PREFIX = "EMBEDDING_OPERATOR_"
# Figures are written at most so often.
FIGURES_SECONDS = 10.0
# Where there are more pipelines than fit, each is looked at less often, up to the resync.
_LOOKS_PER_SECOND = 50

LagProvider = Literal["none", "keda", "external"]


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class OperatorSettings(BaseModel):
    """What an operator is told. ``namespaces`` empty: all of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    worker_image: str = Field(min_length=1, description="the image of pipelines that name none")
    worker_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    namespaces: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    resync_seconds: float = Field(
        default=60.0, ge=1, le=86400, description="how often Secrets and the configuration of topics are read again"
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = "INFO"
    log_format: Literal["console", "json"] = "console"
    lag_provider: LagProvider = Field(default="none", description="who tells autoscalers the lag")
    lag_metric: str = Field(
        default="embedding_pipeline_lag", min_length=1, description="the metric by which an adapter serves the lag"
    )
    lag_namespace_label: str = Field(default="namespace", min_length=1, description="its label with the namespace")
    lag_name_label: str = Field(default="name", min_length=1, description="its label with the pipeline's name")
    http_port: int = Field(default=8080, ge=1, le=65535, description="probes and metrics")

    def look_seconds(self, pipelines: int) -> float:
        """Seconds between two looks at a pipeline of which nothing is heard meanwhile, one of so many."""
        return min(max(FIGURES_SECONDS, pipelines / _LOOKS_PER_SECOND), self.resync_seconds)


def parse_settings(environ: Mapping[str, str]) -> OperatorSettings:
    """Settings from the environment. Raises ``SettingsError`` with a line for each variable that is wrong."""
    given = {
        variable.removeprefix(PREFIX).lower(): value
        for variable, value in environ.items()
        if _is_setting(variable, value)
    }
    try:
        return OperatorSettings.model_validate(given)
    except ValidationError as error:
        found = problems_of(error, OperatorSettings, frozenset())
        raise SettingsError([f"{_variable(problem.key)}: {_text(problem)}" for problem in found]) from None


def _variable(key: str) -> str:
    return PREFIX + key.upper()


def _text(problem: Problem) -> str:
    known = OperatorSettings.model_fields
    return problem.text if problem.key in known else f"unknown; expected one of {', '.join(map(_variable, known))}"


def _is_setting(variable: str, value: str) -> bool:
    # An empty variable is how a chart's template says unset.
    return variable.startswith(PREFIX) and value != ""

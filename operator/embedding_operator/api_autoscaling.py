"""``spec.autoscaling`` as typed models: how many workers, by what, and how fast the number changes."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from embedding_operator.api_section import Section, whole

Workers = Annotated[int, Field(ge=1, le=1000), BeforeValidator(whole)]


class Policy(Section):
    """How much the number may change within a period."""

    type: Literal["Pods", "Percent"]
    value: Annotated[int, Field(ge=1, le=10000), BeforeValidator(whole)]
    period_seconds: Annotated[int, Field(ge=1, le=1800), BeforeValidator(whole)]


class Rules(Section):
    """How the number changes in one direction."""

    stabilization_window_seconds: Annotated[int, Field(ge=0, le=3600), BeforeValidator(whole)] | None = None
    select_policy: Literal["Max", "Min", "Disabled"] | None = None
    policies: Annotated[tuple[Policy, ...], Field(strict=False, min_length=1, max_length=16)] | None = None


class Behavior(Section):
    """How fast the number changes."""

    scale_up: Rules | None = None
    scale_down: Rules | None = None


class Autoscaling(Section):
    """Who says how many workers run, in place of ``spec.replicas``."""

    metric: Literal["CPU", "Lag"]
    min_replicas: Annotated[int, Field(ge=0, le=1000), BeforeValidator(whole)] = 1
    max_replicas: Workers
    target_cpu_utilization: Annotated[int, Field(ge=1, le=10000), BeforeValidator(whole)] = Field(
        default=80, alias="targetCPUUtilization"
    )
    target_lag_per_replica: Annotated[int, Field(ge=1, le=1_000_000_000), BeforeValidator(whole)] = 1000
    behavior: Behavior | None = None

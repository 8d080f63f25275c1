"""``spec.worker`` as typed models: the worker pods. What is Kubernetes' own and nested deeper stays as written."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from embedding_operator.api_section import SecretName, Section, whole

# Quantities as the API server normalises them; GPUs have their own field. A larger number is not the same to every
# reader of JSON.
Quantity = Annotated[
    Annotated[int, Field(ge=0, le=2**53 - 1)]
    | Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")],
    BeforeValidator(whole),
]
Quantities = Annotated[dict[str, Quantity], Field(max_length=32)]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?)?$")]


class Resources(Section):
    """Of a worker's container, by resource name."""

    requests: Quantities = {"cpu": "500m", "memory": "1536Mi"}  # noqa: RUF012 - the model is frozen, and pydantic copies
    limits: Quantities | None = None


class Gpu(Section):
    """GPUs for each worker."""

    count: Annotated[int, Field(ge=1, le=16), BeforeValidator(whole)] = 1
    resource_name: Annotated[
        str,
        Field(
            max_length=253,
            pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$",
        ),
    ] = "nvidia.com/gpu"


class PullSecret(Section):
    """A Secret to pull the image with."""

    name: SecretName


class Toleration(Section):
    """A taint that the workers bear."""

    key: Annotated[str, Field(max_length=317)] | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0, le=2147483647), BeforeValidator(whole)] | None = None


class EnvVar(Section):
    """A variable of the workers' environment."""

    name: Annotated[str, Field(max_length=253, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")]
    value: Annotated[str, Field(max_length=32768)] | None = None
    value_from: dict[str, Any] | None = None


class WorkerPods(Section):
    """Image, resources and placement."""

    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    image_pull_secrets: Annotated[tuple[PullSecret, ...], Field(strict=False, max_length=16)] | None = None
    resources: Resources = Resources()
    gpu: Gpu | None = None
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=64)] | None = None
    tolerations: Annotated[tuple[Toleration, ...], Field(strict=False, max_length=64)] | None = None
    affinity: dict[str, Any] | None = None
    topology_spread_constraints: Annotated[tuple[dict[str, Any], ...], Field(strict=False, max_length=16)] | None = None
    priority_class_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    runtime_class_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    env: Annotated[tuple[EnvVar, ...], Field(strict=False, max_length=64)] | None = None
    pod_labels: Annotated[dict[str, LabelValue], Field(max_length=64)] | None = None
    pod_annotations: Annotated[dict[str, Annotated[str, Field(max_length=65536)]], Field(max_length=64)] | None = None

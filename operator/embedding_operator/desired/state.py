"""All that a pipeline should have in its namespace."""

import hashlib
import json

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.desired.autoscaler import autoscaler
from embedding_operator.desired.config_map import config_map
from embedding_operator.desired.deployment import deployment
from embedding_operator.desired.disruption_budget import disruption_budget
from embedding_operator.desired.keda import scaled_object, trigger_authentication
from embedding_operator.desired.metadata import Object
from embedding_operator.desired.rollout import paced
from embedding_operator.desired.service import service
from embedding_operator.providers import AUTOSCALER, SCALED_OBJECT, TRIGGER_AUTHENTICATION, kinds
from embedding_operator.settings import OperatorSettings


def desired_state(
    pipeline: EmbeddingPipeline,
    settings: OperatorSettings,
    secrets: str | None,
    partitions: int | None = None,
    *,
    live: Object | None = None,
    placed: int = 0,
    stopped: bool = False,
) -> tuple[Object, ...]:
    """The objects, in the order in which they are applied.

    ``secrets`` is a checksum of the Secrets that the workers read at their start, so that a changed one rolls them.
    ``partitions`` are the input topic's, where they are known; ``live`` is the workers' Deployment in the cluster, and
    ``placed`` how many of its workers have a node. ``stopped``: nobody is to start one.
    Raises as ``config_map.worker_settings`` does.
    """
    config = config_map(pipeline)
    annotations = {names.CONFIG_CHECKSUM: checksum(config["data"])}
    if secrets is not None:
        annotations[names.SECRETS_CHECKSUM] = secrets
    workers = deployment(pipeline, settings, annotations)
    template = workers["spec"]["template"]
    template["metadata"]["annotations"] |= {names.TEMPLATE_CHECKSUM: checksum(template)}
    found = [config, service(pipeline), disruption_budget(pipeline), paced(workers, live, placed)]
    found += _autoscaling(pipeline, settings, partitions, stopped=stopped)
    return tuple(_marked(built) for built in found)


def _autoscaling(
    pipeline: EmbeddingPipeline, settings: OperatorSettings, partitions: int | None, *, stopped: bool
) -> list[Object]:
    autoscaling, needed = pipeline.spec.autoscaling, kinds(pipeline, settings.lag_provider)
    found = []
    if autoscaling is not None and AUTOSCALER in needed:
        found.append(autoscaler(pipeline, autoscaling, settings, partitions))
    if TRIGGER_AUTHENTICATION in needed:
        found.append(trigger_authentication(pipeline))
    if autoscaling is not None and SCALED_OBJECT in needed:
        found.append(scaled_object(pipeline, autoscaling, partitions, stopped=stopped))
    return found


def checksum(value: object) -> str:
    """The same 16 hexadecimal digits for the same JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _marked(built: Object) -> Object:
    metadata = built["metadata"]
    annotations = metadata.get("annotations", {}) | {names.APPLIED: checksum(built)}
    return built | {"metadata": metadata | {"annotations": annotations}}

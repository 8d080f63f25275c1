"""All that a pipeline should have in its namespace."""

import hashlib
import json

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.desired.config_map import config_map
from embedding_operator.desired.deployment import deployment
from embedding_operator.desired.disruption_budget import disruption_budget
from embedding_operator.desired.metadata import Object
from embedding_operator.desired.service import service
from embedding_operator.settings import OperatorSettings


def desired_state(pipeline: EmbeddingPipeline, settings: OperatorSettings, secrets: str | None) -> tuple[Object, ...]:
    """The objects, in the order in which they are applied.

    ``secrets`` is a checksum of the Secrets that the workers read at their start, so that a changed one rolls them.
    Raises as ``config_map.worker_settings`` does.
    """
    config = config_map(pipeline)
    annotations = {names.CONFIG_CHECKSUM: checksum(config["data"])}
    if secrets is not None:
        annotations[names.SECRETS_CHECKSUM] = secrets
    workers = deployment(pipeline, settings, annotations)
    template = workers["spec"]["template"]
    template["metadata"]["annotations"] |= {names.TEMPLATE_CHECKSUM: checksum(template)}
    found = (config, service(pipeline), disruption_budget(pipeline), workers)
    return tuple(_marked(built) for built in found)


def checksum(value: object) -> str:
    """The same 16 hexadecimal digits for the same JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _marked(built: Object) -> Object:
    applied = {names.APPLIED: checksum(built)}
    return built | {"metadata": built["metadata"] | {"annotations": applied}}

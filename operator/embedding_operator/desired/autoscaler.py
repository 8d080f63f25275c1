"""The HorizontalPodAutoscaler, which changes the number of workers by their CPU, or by a lag that an adapter serves."""

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.api_autoscaling import Autoscaling, Behavior, Rules
from embedding_operator.desired.metadata import Object, metadata
from embedding_operator.providers import bounds, provider
from embedding_operator.settings import OperatorSettings

# Each change of members makes the group share its partitions out anew, and a worker loads its model first. So a load
# that passes in half a minute starts none, and most of those that were added take part before the number doubles again.
_UP: Object = {
    "stabilizationWindowSeconds": 30,
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 60}],
}
# One that was stopped too early costs more than one that was kept for some minutes.
_DOWN: Object = {
    "stabilizationWindowSeconds": 300,
    "selectPolicy": "Max",
    "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
}


def autoscaler(
    pipeline: EmbeddingPipeline, autoscaling: Autoscaling, settings: OperatorSettings, partitions: int | None
) -> Object:
    """The Kubernetes object; ``partitions`` are the input topic's, where they are known."""
    least, most = bounds(autoscaling, provider(pipeline, settings.lag_provider), partitions)
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(pipeline) | {"annotations": kept_number(pipeline)},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": names.worker(pipeline)},
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": [_cpu(autoscaling) if autoscaling.metric == "CPU" else _lag(pipeline, autoscaling, settings)],
            "behavior": behavior(autoscaling),
        },
    }


def kept_number(pipeline: EmbeddingPipeline) -> dict[str, str]:
    """The annotation with ``spec.replicas``, which is ignored meanwhile."""
    return {names.REPLICAS: str(pipeline.spec.replicas)}


def behavior(autoscaling: Autoscaling) -> Object:
    """How fast the number changes, with what the pipeline leaves out."""
    given = autoscaling.behavior or Behavior()
    return {"scaleUp": _rules(_UP, given.scale_up), "scaleDown": _rules(_DOWN, given.scale_down)}


def _cpu(autoscaling: Autoscaling) -> Object:
    # That of the container alone: what a sidecar uses says nothing of the backlog, and it may request no CPU.
    target = {"type": "Utilization", "averageUtilization": autoscaling.target_cpu_utilization}
    cpu = {"name": "cpu", "container": names.CONTAINER, "target": target}
    return {"type": "ContainerResource", "containerResource": cpu}


def _lag(pipeline: EmbeddingPipeline, autoscaling: Autoscaling, settings: OperatorSettings) -> Object:
    whose = pipeline.metadata
    labels = {settings.lag_namespace_label: whose.namespace, settings.lag_name_label: whose.name}
    metric: Object = {"name": settings.lag_metric, "selector": {"matchLabels": labels}}
    # A sum over the workers, shared out among them: the metric itself is the pipeline's.
    target = {"type": "AverageValue", "averageValue": str(autoscaling.target_lag_per_replica)}
    return {"type": "External", "external": {"metric": metric, "target": target}}


def _rules(default: Object, given: Rules | None) -> Object:
    return default | ({} if given is None else given.model_dump(mode="json", by_alias=True, exclude_none=True))

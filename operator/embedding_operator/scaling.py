"""How many workers there should be, and whose number that is: the pipeline's, or an autoscaler's; pure."""

from collections.abc import Mapping

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.desired.deployment import DEPLOYMENT, running
from embedding_operator.observed import Kafka, Object, Observed, condition
from embedding_operator.providers import AUTOSCALER, SCALED_OBJECT, Provider, bounds, provider

# Of a HorizontalPodAutoscaler's ScalingActive: nobody told it the workers' CPU, or their lag.
_LACKS_METRIC = frozenset({"FailedGetContainerResourceMetric", "FailedGetExternalMetric"})


def partitions(observed: Observed) -> int | None:
    """How many the input topic has, by the brokers or by the last status; ``None`` where nobody has told yet."""
    name, kafka = observed.pipeline.spec.input.topic, observed.kafka
    if isinstance(kafka, Kafka) and name in kafka.topics:
        return kafka.topics[name].partitions
    return next((topic.get("partitions") for topic in observed.status.get("topics", ()) if topic["name"] == name), None)


def cap(observed: Observed) -> int | None:
    """The most workers an autoscaler may ask for: the partitions; where nobody knows them, as many as now.

    A topic that is gone has none: without that, its deletion would start workers.
    """
    found = partitions(observed)
    if found is not None:
        return found
    spec = (autoscaler(observed.objects) or {}).get("spec", {})
    # Kubernetes' word, and KEDA's.
    most: int | None = spec.get("maxReplicas", spec.get("maxReplicaCount"))
    return most


def asked_for(observed: Observed) -> int:
    """How many workers there should be where nothing is in their way.

    An autoscaler writes its number into the Deployment; only where there is none it needs the first ones made.
    """
    if observed.pipeline.spec.autoscaling is None:
        return observed.pipeline.spec.replicas
    return running(observed.objects.get(DEPLOYMENT)) or fewest(observed)


def fewest(observed: Observed) -> int:
    """How many workers are enough for the pipeline to be ready."""
    autoscaling = observed.pipeline.spec.autoscaling
    if autoscaling is None:
        return observed.pipeline.spec.replicas
    return bounds(autoscaling, by(observed), cap(observed))[0]


def by(observed: Observed) -> Provider | None:
    """Who says how many workers there should be; ``None`` where the pipeline does."""
    return provider(observed.pipeline, observed.lag_provider)


def autoscaler(objects: Mapping[str, Object]) -> Object | None:
    """What of ours says how many workers run; ``None`` where there is no such thing, or it is on its way out."""
    found = (objects.get(kind) for kind in (AUTOSCALER, SCALED_OBJECT))
    return next((one for one in found if one is not None and "deletionTimestamp" not in one["metadata"]), None)


def kept_replicas(pipeline: EmbeddingPipeline, objects: Mapping[str, Object]) -> int | None:
    """What ``spec.replicas`` becomes once autoscaling was switched off: as many as run; ``None`` where it stays.

    It stays where somebody named another number than there was while an autoscaler said how many.
    """
    found, now = autoscaler(objects), running(objects.get(DEPLOYMENT))
    if pipeline.spec.autoscaling is not None or found is None or now in (0, pipeline.spec.replicas):
        return None
    before = (found["metadata"].get("annotations") or {}).get(names.REPLICAS)
    return now if before == str(pipeline.spec.replicas) else None


def lacks_metric(found: Object | None) -> bool:
    """Whether an autoscaler decides nothing because it doesn't know the load."""
    return condition(found, "ScalingActive").get("reason") in _LACKS_METRIC

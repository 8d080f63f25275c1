"""Who tells an autoscaler how many workers there should be, and which objects that takes; pure."""

from enum import StrEnum

from embedding_operator.api import EmbeddingPipeline
from embedding_operator.api_autoscaling import Autoscaling
from embedding_operator.settings import LagProvider


class Provider(StrEnum):
    """By the metric of the pipeline, and what the platform has for the lag."""

    METRICS_SERVER = "metrics-server"
    KEDA = "keda"
    ADAPTER = "external"
    # The platform has none for the lag.
    NOBODY = "none"


AUTOSCALER = "HorizontalPodAutoscaler"
# The one that KEDA makes of a ScaledObject: a kind of its own here.
KEDAS_AUTOSCALER = "KEDAAutoscaler"
SCALED_OBJECT = "ScaledObject"
TRIGGER_AUTHENTICATION = "TriggerAuthentication"
KEDA_KINDS = (SCALED_OBJECT, TRIGGER_AUTHENTICATION)
KEDA_API = "keda.sh/v1alpha1"
# What has to be served for each.
APIS = {
    # metrics-server is behind it, or what stands in for that.
    Provider.METRICS_SERVER: "metrics.k8s.io/v1beta1",
    Provider.ADAPTER: "external.metrics.k8s.io/v1beta1",
    Provider.KEDA: KEDA_API,
}


def provider(pipeline: EmbeddingPipeline, lag_provider: LagProvider) -> Provider | None:
    """Who does it for this pipeline; ``None`` where it isn't autoscaled."""
    autoscaling = pipeline.spec.autoscaling
    if autoscaling is None:
        return None
    return Provider.METRICS_SERVER if autoscaling.metric == "CPU" else Provider(lag_provider)


def kinds(pipeline: EmbeddingPipeline, lag_provider: LagProvider) -> frozenset[str]:
    """The kinds of the objects that it takes."""
    match provider(pipeline, lag_provider):
        case Provider.METRICS_SERVER | Provider.ADAPTER:
            return frozenset({AUTOSCALER})
        case Provider.KEDA:
            needed = {SCALED_OBJECT, TRIGGER_AUTHENTICATION} if authenticates(pipeline) else {SCALED_OBJECT}
            return frozenset(needed)
        case _:
            return frozenset()


def authenticates(pipeline: EmbeddingPipeline) -> bool:
    """Whether who asks the brokers needs a Secret of the pipeline's."""
    tls, sasl = pipeline.spec.kafka.tls, pipeline.spec.kafka.sasl
    return sasl is not None or tls.ca_secret is not None or tls.client_certificate_secret is not None


def bounds(autoscaling: Autoscaling, by: Provider | None, partitions: int | None) -> tuple[int, int]:
    """The fewest and the most workers: more than the input topic has partitions would be idle.

    None at all only with KEDA: no other autoscaler starts the first one.
    """
    most = autoscaling.max_replicas if partitions is None else min(autoscaling.max_replicas, partitions)
    least = autoscaling.min_replicas if by is Provider.KEDA else max(autoscaling.min_replicas, 1)
    return min(least, most), most

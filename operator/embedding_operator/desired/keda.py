"""KEDA's ScaledObject, of which it makes an autoscaler by the lag, and how it logs in to the brokers."""

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.api_autoscaling import Autoscaling
from embedding_operator.desired.autoscaler import behavior, kept_number
from embedding_operator.desired.metadata import Object, metadata
from embedding_operator.providers import (
    KEDA_API,
    SCALED_OBJECT,
    TRIGGER_AUTHENTICATION,
    Provider,
    authenticates,
    bounds,
)

# As often as Kubernetes looks at an autoscaler; a lone record waits so long for the first worker to be started.
_POLLING_SECONDS = 15
# The oldest protocol that Kafka 4 speaks; KEDA's own default is older, and refused there.
_PROTOCOL = "2.1.0"
_SASL = {"PLAIN": "plaintext", "SCRAM-SHA-256": "scram_sha256", "SCRAM-SHA-512": "scram_sha512"}
_PAUSED = "autoscaling.keda.sh/paused"


def scaled_object(
    pipeline: EmbeddingPipeline, autoscaling: Autoscaling, partitions: int | None, *, stopped: bool
) -> Object:
    """The ScaledObject; where the pipeline is stopped, KEDA is told to start no worker."""
    least, most = bounds(autoscaling, Provider.KEDA, partitions)
    rules = behavior(autoscaling)
    # The last worker goes after as long a time as the others; at once after the ScaledObject was made, else.
    patience = rules["scaleDown"]["stabilizationWindowSeconds"]
    return {
        "apiVersion": KEDA_API,
        "kind": SCALED_OBJECT,
        "metadata": metadata(pipeline)
        | {"annotations": kept_number(pipeline) | ({_PAUSED: "true"} if stopped else {})},
        "spec": {
            "scaleTargetRef": {"name": names.worker(pipeline)},
            "pollingInterval": _POLLING_SECONDS,
            "cooldownPeriod": patience,
            "initialCooldownPeriod": patience,
            "minReplicaCount": least,
            "maxReplicaCount": most,
            "advanced": {
                "horizontalPodAutoscalerConfig": {"name": names.keda_autoscaler(pipeline), "behavior": rules},
            },
            "triggers": [_trigger(pipeline, autoscaling)],
        },
    }


def trigger_authentication(pipeline: EmbeddingPipeline) -> Object:
    """Which Secrets KEDA logs in with: the pipeline's own."""
    tls, sasl = pipeline.spec.kafka.tls, pipeline.spec.kafka.sasl
    keys = []
    if sasl is not None:
        login = sasl.credentials_secret
        keys += [("username", login.name, login.username_key), ("password", login.name, login.password_key)]
    if tls.ca_secret is not None:
        keys.append(("ca", tls.ca_secret.name, tls.ca_secret.key))
    if tls.client_certificate_secret is not None:
        name = tls.client_certificate_secret.name
        keys += [("cert", name, "tls.crt"), ("key", name, "tls.key")]
    return {
        "apiVersion": KEDA_API,
        "kind": TRIGGER_AUTHENTICATION,
        "metadata": metadata(pipeline),
        "spec": {"secretTargetRef": [{"parameter": what, "name": name, "key": key} for what, name, key in keys]},
    }


def _trigger(pipeline: EmbeddingPipeline, autoscaling: Autoscaling) -> Object:
    kafka, source = pipeline.spec.kafka, pipeline.spec.input
    found: dict[str, str] = {
        "bootstrapServers": ",".join(kafka.bootstrap_servers),
        "consumerGroup": names.consumer_group(pipeline),
        "topic": source.topic,
        "lagThreshold": str(autoscaling.target_lag_per_replica),
        "offsetResetPolicy": source.start_from.lower(),
        "version": _PROTOCOL,
        "tls": "enable" if kafka.tls.enabled else "disable",
        "sasl": "none" if kafka.sasl is None else _SASL[kafka.sasl.mechanism],
    }
    trigger: Object = {"type": "kafka", "metricType": "AverageValue", "metadata": found}
    return trigger | ({"authenticationRef": {"name": names.worker(pipeline)}} if authenticates(pipeline) else {})

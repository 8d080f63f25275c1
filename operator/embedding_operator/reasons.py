"""Why a condition is as it is: every reason that a status can show; docs/status.md explains each.

Reasons of ``contract.reasons.TerminationReason`` and ``contract.broker_trouble.TroubleReason`` stand in a status under
their own names.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Reasons of the operator's own."""

    READY = "Ready"
    # TopicsReady
    TOPICS_READY = "TopicsReady"
    CREATING_TOPICS = "CreatingTopics"
    TOPIC_MISSING = "TopicMissing"
    TOPIC_REFUSED = "TopicRefused"
    TOO_FEW_PARTITIONS = "TooFewPartitions"
    # Before anything else
    SECRET_MISSING = "SecretMissing"  # noqa: S105 - a reason, not a secret
    CONFLICT = "Conflict"
    INVALID = "Invalid"
    # WorkersReady
    WORKERS_READY = "WorkersReady"
    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    SCALED_TO_ZERO = "ScaledToZero"
    REJECTED = "Rejected"
    WRITE_FAILED = "WriteFailed"
    PODS_FORBIDDEN = "PodsForbidden"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CONFIG_ERROR = "ContainerConfigError"
    CRASH_LOOP = "CrashLoop"
    # ModelReady
    MODEL_LOADED = "ModelLoaded"
    NO_WORKERS = "NoWorkers"
    # CaughtUp
    CAUGHT_UP = "CaughtUp"
    BEHIND = "Behind"
    UNKNOWN = "Unknown"
    # ScalingActive
    METRIC_SERVED = "MetricServed"
    METRIC_NOT_SERVED = "MetricNotServed"
    METRICS_SERVER_MISSING = "MetricsServerMissing"
    KEDA_MISSING = "KEDAMissing"
    LAG_PROVIDER_MISSING = "LagProviderMissing"
    SCALING_FAILED = "ScalingFailed"

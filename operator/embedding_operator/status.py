"""The status of a pipeline as it is written to the resource; pure."""

from collections.abc import Mapping
from typing import Any

from embedding_operator import names, topics
from embedding_operator.conditions import Condition
from embedding_operator.desired.deployment import DEPLOYMENT
from embedding_operator.durations import duration
from embedding_operator.observed import Kafka, Object, Observed

# What changes by itself while records flow.
FIGURES = frozenset({"lag", "messagesPerSecond", "caughtUpIn", "deadLetters"})


def status(observed: Observed, found: tuple[Condition, ...], now: str) -> dict[str, Any]:
    """The whole status; ``now`` is RFC 3339."""
    pipeline = observed.pipeline
    live = observed.objects.get(DEPLOYMENT, {}).get("status", {})
    values = {
        "observedGeneration": pipeline.metadata.generation,
        "conditions": _stored(found, observed.status, pipeline.metadata.generation, now),
        "replicas": live.get("replicas", 0),
        "availableReplicas": live.get("availableReplicas", 0),
        "selector": names.selector(pipeline),
        **_model(observed),
    }
    return values | (_kafka(observed, observed.kafka) if isinstance(observed.kafka, Kafka) else _kept(observed))


def unreadable(stored: Object, found: Condition, now: str) -> dict[str, Any]:
    """The status of a stored pipeline that can't be read: what was said of it before, but for what may be wrong now."""
    before, generation = stored.get("status") or {}, stored["metadata"]["generation"]
    conditions = _stored((found,), before, generation, now)
    return _without_figures(before) | {"observedGeneration": generation, "conditions": conditions}


def worth_writing(before: Mapping[str, Any], after: Mapping[str, Any], *, figures_due: bool) -> bool:
    """Whether the status differs; in figures alone only where they are due."""
    if before == after:
        return False
    return figures_due or _without_figures(before) != _without_figures(after)


def _without_figures(values: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in values.items() if key not in FIGURES}
    # Where records come one by one, this one changes as often as the lag.
    conditions = [condition for condition in values.get("conditions", ()) if condition["type"] != "CaughtUp"]
    return kept | {"conditions": conditions}


def _stored(found: tuple[Condition, ...], before: Mapping[str, Any], generation: int, now: str) -> list[dict[str, Any]]:
    since = {(old["type"], old["status"]): old["lastTransitionTime"] for old in before.get("conditions", ())}
    return [
        {
            "type": condition.type,
            "status": condition.status,
            "reason": str(condition.reason),
            "message": condition.message,
            "observedGeneration": generation,
            "lastTransitionTime": since.get((condition.type, condition.status), now),
        }
        for condition in found
    ]


def _kafka(observed: Observed, kafka: Kafka) -> dict[str, Any]:
    values: dict[str, Any] = {"topics": _topics(observed, kafka)}
    if observed.conflict is not None:
        # The figures would be another pipeline's; and what is named here is claimed.
        return values
    values |= {"kafkaClusterId": kafka.cluster_id, "consumerGroup": names.consumer_group(observed.pipeline)}
    if kafka.dead_letters is not None:
        values["deadLetters"] = kafka.dead_letters
    if kafka.progress is not None:
        values["lag"] = kafka.progress.lag
        values |= _pace(kafka.progress.lag, observed.rate)
    return values


def _pace(lag: int, rate: float | None) -> dict[str, str]:
    found = {} if rate is None else {"messagesPerSecond": f"{rate:.3g}" if rate < 100 else f"{rate:.0f}"}
    if lag == 0:
        return found | {"caughtUpIn": "0s"}
    return found | ({"caughtUpIn": duration(lag / rate)} if rate else {})


def _topics(observed: Observed, kafka: Kafka) -> list[dict[str, Any]]:
    found = []
    for role, name in topics.topics(observed.pipeline).items():
        topic = kafka.topics.get(name)
        if topic is None or (observed.conflict is not None and topic.id not in observed.created):
            continue
        entry = {"name": name, "role": str(role), "id": topic.id, "partitions": topic.partitions}
        found.append(entry | {"created": topic.id in observed.created})
    return found


def _kept(observed: Observed) -> dict[str, Any]:
    """What stays true of the brokers though they can't be asked. Figures would be frozen, and are withdrawn."""
    keys = ("topics", "kafkaClusterId", "consumerGroup")
    return {key: observed.status[key] for key in keys if key in observed.status}


def _model(observed: Observed) -> dict[str, Any]:
    model, before = observed.model, observed.status
    if model is not None:
        return {"model": {"source": model.source, "dimension": model.dimension, "contract": model.contract}}
    # Of another spec it may be another model.
    same = before.get("observedGeneration") == observed.pipeline.metadata.generation
    return {"model": before["model"]} if same and "model" in before else {}

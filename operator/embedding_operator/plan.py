"""What is to be done for a pipeline, from what was found and what should be; pure."""

from dataclasses import dataclass
from enum import Enum

from embedding_operator import names, topics
from embedding_operator.compare import differs
from embedding_operator.desired.deployment import DEPLOYMENT, running
from embedding_operator.observed import Kafka, Object, Observed, Problem
from embedding_operator.providers import AUTOSCALER, KEDA_KINDS, kinds
from embedding_operator.scaling import asked_for
from embedding_operator.topics import TopicChanges


class Gate(Enum):
    """Whether workers may run."""

    OPEN = "as many as asked for"
    # The operator can't see whether they may: those that run go on, as far as they are still wanted; none is started.
    HOLD = "no more than there are"
    CLOSED = "none"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, in this order."""

    topics: TopicChanges
    # Replicas have to be handed to their own field manager, or the next apply would reset them; ours lets go of them
    # when it applies the Deployment again.
    release_replicas: bool
    # Autoscaling was switched off, or to something else: its objects go.
    delete: tuple[tuple[str, Object], ...]
    apply: tuple[Object, ...]
    # The new number of replicas of the Deployment that is there.
    scale: int | None
    gate: Gate


def decide(observed: Observed, desired: tuple[Object, ...]) -> Plan:
    """Everything that has to be done now; nothing where all is as it should be."""
    pipeline, kafka = observed.pipeline, observed.kafka
    gate = _gate(observed)
    change = TopicChanges()
    if isinstance(kafka, Kafka) and observed.conflict is None:
        change = topics.changes(pipeline, kafka, observed.created)
    live = observed.objects.get(DEPLOYMENT)
    wanted = wanted_replicas(observed, gate)
    release = live is not None and owns_replicas(live)
    return Plan(
        topics=change,
        release_replicas=release,
        delete=_obsolete(observed),
        apply=tuple(
            _created(built, wanted) if live is None else built
            for built in desired
            if (observed.provider_served or built["kind"] not in KEDA_KINDS)
            if differs(built, observed.objects.get(built["kind"])) or (release and built["kind"] == DEPLOYMENT)
        ),
        scale=wanted if live is not None and running(live) != wanted else None,
        gate=gate,
    )


def _obsolete(observed: Observed) -> tuple[tuple[str, Object], ...]:
    """What autoscaled the pipeline before; what KEDA still holds, deleted once, goes by itself."""
    needed = kinds(observed.pipeline, observed.lag_provider)
    found = ((kind, observed.objects.get(kind)) for kind in (AUTOSCALER, *KEDA_KINDS) if kind not in needed)
    return tuple((kind, one) for kind, one in found if one is not None and "deletionTimestamp" not in one["metadata"])


def secrets_checksum(observed: Observed) -> str | None:
    """Of the Secrets that the workers are to have: where one is missing now, of those that they run with.

    Else its absence would be a change, and workers that run would make room for others that can't start.
    """
    if observed.secrets.problem is None and observed.secrets.complete:
        return observed.secrets.checksum
    live = observed.objects.get(DEPLOYMENT, {})
    template = live.get("spec", {}).get("template", {}).get("metadata", {})
    found: str | None = (template.get("annotations") or {}).get(names.SECRETS_CHECKSUM)
    return found


def wanted_replicas(observed: Observed, gate: Gate) -> int:
    """How many workers there should be."""
    if gate is Gate.CLOSED:
        return 0
    wanted = asked_for(observed)
    return wanted if gate is Gate.OPEN else min(wanted, running(observed.objects.get(DEPLOYMENT)))


def owns_replicas(deployment: Object) -> bool:
    """Whether the manager of our applies owns the number of replicas, and would reset it by leaving it out."""
    return any(
        entry.get("manager") == names.FIELD_MANAGER
        and entry.get("operation") == "Apply"
        and "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
        for entry in deployment["metadata"].get("managedFields", ())
    )


def _created(built: Object, replicas: int) -> Object:
    """The object as it is created: with the number of replicas, where Kubernetes' own default isn't meant."""
    if built["kind"] != DEPLOYMENT or replicas == 1:
        return built
    return built | {"spec": built["spec"] | {"replicas": replicas}}


def _gate(observed: Observed) -> Gate:
    if observed.stopped:
        return Gate.CLOSED
    kafka = observed.kafka
    if observed.secrets.problem is not None or isinstance(kafka, Problem):
        return Gate.HOLD
    # Without its topics a worker would only crash.
    return Gate.HOLD if topics.missing(observed.pipeline, kafka) else Gate.OPEN

"""The conditions of a pipeline, from what was found and what is planned; pure. docs/status.md explains each reason."""

from dataclasses import dataclass

from embedding_operator import topics, workers
from embedding_operator.observed import Kafka, Object, Observed, Problem
from embedding_operator.plan import Gate, Plan
from embedding_operator.reasons import Reason

TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that is said of a pipeline, as the Kubernetes API conventions have it."""

    type: str
    status: str
    reason: str
    message: str


def conditions(observed: Observed, plan: Plan) -> tuple[Condition, ...]:
    """Ready first, then what it is made of, then whether the pipeline has caught up."""
    parts = (_topics_ready(observed, plan), _workers_ready(observed, plan), _model_ready(observed))
    return (_ready(observed, parts), *parts, _caught_up(observed))


def unreadable(error: str) -> Condition:
    """What is said of a pipeline whose spec can't be made sense of."""
    message = f"{error}; change it, until then the pipeline stays as it is"
    return Condition("Ready", FALSE, Reason.INVALID, message)


def _ready(observed: Observed, parts: tuple[Condition, ...]) -> Condition:
    """The first thing that is in the way, as a person would look for it."""
    topics_ready, workers_ready, model_ready = parts
    blocked = _blocked(observed)
    if blocked is not None:
        return Condition("Ready", FALSE, blocked.reason, blocked.message)
    # A model that can't be loaded says more than the crash loop that it leads to.
    for part in (topics_ready, model_ready, workers_ready):
        if part.status == FALSE or (part is topics_ready and part.status == UNKNOWN):
            return Condition("Ready", FALSE, part.reason, part.message)
    return Condition("Ready", TRUE, Reason.READY, "texts are embedded as they come")


def _blocked(observed: Observed) -> Problem | None:
    """What stands before everything else."""
    if observed.pipeline.spec.paused:
        return Problem(Reason.PAUSED, "spec.paused is true: no worker is to run; topics and offsets stay")
    return observed.conflict or observed.secrets.problem


def _topics_ready(observed: Observed, plan: Plan) -> Condition:
    def condition(status: str, reason: str, message: str) -> Condition:
        return Condition("TopicsReady", status, reason, message)

    pipeline, kafka = observed.pipeline, observed.kafka
    if isinstance(kafka, Problem):
        return condition(UNKNOWN, kafka.reason, kafka.message)
    if observed.topic_problem is not None:
        return condition(FALSE, observed.topic_problem.reason, observed.topic_problem.message)
    missing = ", ".join(f"'{name}'" for name in topics.missing(pipeline, kafka))
    if missing and plan.topics.create:
        return condition(FALSE, Reason.CREATING_TOPICS, f"creating {missing}")
    if missing:
        managed = pipeline.spec.topics.manage
        # In a conflict managed topics are left alone, too.
        advice = "created after the conflict" if managed else "create them, or set spec.topics.manage to true"
        return condition(FALSE, Reason.TOPIC_MISSING, f"missing: {missing}; {advice}")
    partitions, replicas = kafka.topics[pipeline.spec.input.topic].partitions, pipeline.spec.replicas
    if partitions < replicas:
        idle = f"input topic '{pipeline.spec.input.topic}' has {partitions} partitions for {replicas} workers"
        advice = f"set spec.replicas to {partitions} or less, or give the topic more partitions"
        return condition(FALSE, Reason.TOO_FEW_PARTITIONS, f"{idle}: {replicas - partitions} are idle; {advice}")
    return condition(TRUE, Reason.TOPICS_READY, "all topics are there")


def _workers_ready(observed: Observed, plan: Plan) -> Condition:
    def condition(status: str, reason: str, message: str) -> Condition:
        return Condition("WorkersReady", status, reason, message)

    blocked = _blocked(observed) or observed.rejected
    if blocked is not None:
        return condition(FALSE, blocked.reason, blocked.message)
    wanted = observed.pipeline.spec.replicas
    if wanted == 0:
        return condition(FALSE, Reason.SCALED_TO_ZERO, "spec.replicas is 0: no worker is to run")
    live = observed.objects.get("Deployment")
    problem = workers.problem(live, observed.pods, observed.now)
    if problem is not None:
        return condition(FALSE, problem.reason, problem.message)
    rest = _held_back(live, wanted, plan) or _rolled_out(live, wanted)
    if rest is None:
        return condition(TRUE, Reason.WORKERS_READY, f"{_workers(wanted)} ready")
    return condition(FALSE, Reason.PROGRESSING, rest)


def _workers(count: int) -> str:
    return "1 worker is" if count == 1 else f"{count} workers are"


def _held_back(deployment: Object | None, wanted: int, plan: Plan) -> str | None:
    """That workers wait to be started, where they do."""
    there = 0 if deployment is None else deployment["spec"].get("replicas", 1)
    if plan.gate is not Gate.HOLD or there >= wanted:
        return None
    return f"{there} of {wanted} workers run; the others are started once the brokers answer and have all topics"


def _rolled_out(deployment: Object | None, wanted: int) -> str | None:
    """What is still to come; ``None`` where all workers are of the current template and ready."""
    if deployment is None:
        return "the workers' Deployment is yet to be created"
    status = deployment.get("status", {})
    # A Deployment is seen here before its controller, or the watch, has followed our change.
    behind = status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0)
    if behind or deployment["spec"].get("replicas", 1) != wanted:
        return "the workers' Deployment was just changed"
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    if status.get("replicas", 0) > wanted:
        return f"{status['replicas'] - wanted} of the former workers are still there"
    if updated < wanted:
        return f"{updated} of {wanted} workers are of the current configuration"
    if available < wanted:
        return f"{available} of {wanted} workers are ready; the others start, load the model or wait for the brokers"
    return None


def _model_ready(observed: Observed) -> Condition:
    def condition(status: str, reason: str, message: str) -> Condition:
        return Condition("ModelReady", status, reason, message)

    live = observed.objects.get("Deployment")
    # First, since a worker that is ready may be one of those before a change of the image or its environment.
    problem = workers.problem(live, observed.pods, observed.now)
    if problem is not None and problem.reason in workers.MODEL_REASONS:
        return condition(FALSE, problem.reason, problem.message)
    if workers.configured(live, observed.pods):
        loaded = "the model" if observed.model is None else observed.model.name
        return condition(TRUE, Reason.MODEL_LOADED, f"{loaded} is loaded")
    return condition(UNKNOWN, Reason.NO_WORKERS, "no worker has loaded the model yet")


def _caught_up(observed: Observed) -> Condition:
    progress = observed.kafka.progress if isinstance(observed.kafka, Kafka) else None
    if observed.conflict is not None:
        # What the brokers say is another pipeline's.
        return Condition("CaughtUp", UNKNOWN, observed.conflict.reason, observed.conflict.message)
    if progress is None:
        return Condition("CaughtUp", UNKNOWN, Reason.UNKNOWN, "the brokers don't say how far the workers are")
    if progress.lag:
        # No figure here: status.lag has it, and a changed message would be a change of the condition.
        return Condition("CaughtUp", FALSE, Reason.BEHIND, "records wait to be embedded; status.lag says how many")
    return Condition("CaughtUp", TRUE, Reason.CAUGHT_UP, "every record of the input topic is embedded")

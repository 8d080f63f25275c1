"""The conditions of a pipeline, from what was found and what is planned; pure. docs/status.md explains each reason."""

from dataclasses import dataclass

from embedding_operator import scaling, topics, workers
from embedding_operator.autoscaler_says import says
from embedding_operator.desired.deployment import DEPLOYMENT, running
from embedding_operator.observed import Kafka, Object, Observed, Problem
from embedding_operator.plan import Gate, Plan
from embedding_operator.providers import Provider
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
    """Ready first, then what it is made of, then whether the pipeline has caught up, and whether it is autoscaled."""
    parts = (_topics_ready(observed, plan), _workers_ready(observed, plan), _model_ready(observed))
    return (_ready(observed, parts), *parts, _caught_up(observed), *_scaling_active(observed))


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


def _stopped(observed: Observed) -> Problem | None:
    """Why no worker is to run at all."""
    if observed.pipeline.spec.paused:
        return Problem(Reason.PAUSED, "spec.paused is true: no worker is to run; topics and offsets stay")
    return observed.conflict


def _blocked(observed: Observed) -> Problem | None:
    """What stands before everything else."""
    return _stopped(observed) or observed.secrets.problem


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
    # An autoscaler never asks for more.
    if partitions < replicas and pipeline.spec.autoscaling is None:
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
    wanted = scaling.asked_for(observed)
    if wanted == 0:
        return condition(*_no_worker(observed))
    live = observed.objects.get(DEPLOYMENT)
    problem = workers.problem(live, observed.pods, observed.now)
    enough = min(wanted, scaling.fewest(observed))
    if problem is not None and not _is_of_the_surplus(problem, observed, enough):
        return condition(FALSE, problem.reason, problem.message)
    rest = _held_back(live, wanted, plan) or _rolled_out(live, wanted, enough)
    if rest is not None:
        return condition(FALSE, Reason.PROGRESSING, rest)
    # More than are asked for while they are replaced; fewer while an autoscaler has just added some.
    ready = min(wanted, _counts(live)[2])
    said = f"{_workers(ready)} ready" if ready else "KEDA has started a worker, which isn't ready yet"
    return condition(TRUE, Reason.WORKERS_READY, said if problem is None else f"{said}; {problem.message}")


def _is_of_the_surplus(problem: Problem, observed: Observed, enough: int) -> bool:
    """Whether there is merely no room for some of those that an autoscaler asks for beyond the fewest.

    A worker that fails is another matter: it runs with what all of them have.
    """
    if observed.pipeline.spec.autoscaling is None or problem.reason not in workers.NO_ROOM:
        return False
    there, updated, available = _counts(observed.objects.get(DEPLOYMENT))
    return updated >= there and available >= max(1, enough)


def _no_worker(observed: Observed) -> tuple[str, str, str]:
    """Status, reason and message where none is to run."""
    autoscaling = observed.pipeline.spec.autoscaling
    if autoscaling is None:
        return FALSE, Reason.SCALED_TO_ZERO, "spec.replicas is 0: no worker is to run"
    status, reason, message = says(observed, autoscaling)
    if status == TRUE:
        return TRUE, Reason.SCALED_TO_ZERO, "no record waits, and no worker runs; KEDA starts one when one comes"
    return FALSE, reason, f"no worker runs, and nobody starts one: {message}"


def _workers(count: int) -> str:
    return "1 worker is" if count == 1 else f"{count} workers are"


def _held_back(deployment: Object | None, wanted: int, plan: Plan) -> str | None:
    """That workers wait to be started, where they do."""
    there = running(deployment)
    if plan.gate is not Gate.HOLD or there >= wanted:
        return None
    return f"{there} of {wanted} workers run; the others are started once the brokers answer and have all topics"


def _rolled_out(deployment: Object | None, wanted: int, enough: int) -> str | None:
    """What is still to come; ``None`` where all workers are of the current template, and enough of them ready."""
    if deployment is None:
        return "the workers' Deployment is yet to be created"
    status = deployment.get("status", {})
    # A Deployment is seen here before its controller, or the watch, has followed our change.
    behind = status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0)
    if behind or running(deployment) != wanted:
        return "the workers' Deployment was just changed"
    there, updated, available = _counts(deployment)
    # Those of the current template that are too many go by themselves.
    if there > max(wanted, updated):
        return f"{there - max(wanted, updated)} of the former workers are still there"
    # Those that an autoscaler has just asked for are yet to be made.
    if updated < max(there, enough):
        return f"{updated} of {max(there, enough)} workers are of the current configuration"
    if available < enough:
        return f"{available} of {wanted} workers are ready; the others start, load the model or wait for the brokers"
    return None


def _counts(deployment: Object | None) -> tuple[int, int, int]:
    """Workers that there are, those of them of the current template, and those that are ready."""
    status = (deployment or {}).get("status", {})
    return status.get("replicas", 0), status.get("updatedReplicas", 0), status.get("availableReplicas", 0)


def _model_ready(observed: Observed) -> Condition:
    def condition(status: str, reason: str, message: str) -> Condition:
        return Condition("ModelReady", status, reason, message)

    live = observed.objects.get(DEPLOYMENT)
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


def _scaling_active(observed: Observed) -> tuple[Condition, ...]:
    """Whether the autoscaler decides how many workers run; nothing is said where there is to be none."""
    autoscaling, stopped = observed.pipeline.spec.autoscaling, _stopped(observed)
    if autoscaling is None:
        return ()
    if stopped is not None:
        status, reason, message = FALSE, stopped.reason, stopped.message
    else:
        status, reason, message = says(observed, autoscaling)
    source, partitions = observed.pipeline.spec.input.topic, scaling.partitions(observed)
    if partitions is not None and partitions < autoscaling.max_replicas:
        capped = f"spec.autoscaling.maxReplicas is {autoscaling.max_replicas} and counts as {partitions}"
        message += f"; {capped}, the partitions of input topic '{source}': more workers would be idle"
    if autoscaling.min_replicas == 0 and scaling.by(observed) is not Provider.KEDA:
        message += "; spec.autoscaling.minReplicas is 0 and counts as 1: only KEDA starts the first worker"
    return (Condition("ScalingActive", status, reason, message),)

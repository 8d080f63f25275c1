"""Why worker pods aren't ready, from what Kubernetes and the workers themselves say of them; pure."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from embedding_operator import names, placement
from embedding_operator.desired.deployment import running
from embedding_operator.observed import Object, Problem, condition
from embedding_operator.placement import ends
from embedding_operator.reasons import Reason
from embedding_service.contract.reasons import TerminationReason, parse_termination

_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"})
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_BACK_OFF = "CrashLoopBackOff"
_NOT_STARTED = frozenset({"ContainerCannotRun", "StartError"})
# How long the end of a container explains why the one after it isn't ready: longer than a back-off, which is 5 minutes
# at most, and than most models take to load.
_EXPLAINS = timedelta(minutes=10)
# Longer than a kubelet takes to notice that a container ended, shorter than a worker is ready and not ready again.
_NOTICED = timedelta(seconds=5)
# Reasons of a worker that are about its model; the others are about the worker as a whole.
MODEL_REASONS = frozenset(
    {
        TerminationReason.MODEL_NOT_FOUND,
        TerminationReason.MODEL_LOAD_FAILED,
        TerminationReason.MODEL_MISMATCH,
        TerminationReason.DEVICE_UNAVAILABLE,
    }
)

# Reasons of workers that aren't there, and so take nothing from the others.
NO_ROOM = frozenset({Reason.UNSCHEDULABLE, Reason.PODS_FORBIDDEN})


def problem(deployment: Object | None, pods: Iterable[Object], now: datetime) -> Problem | None:
    """What is in the way of the workers, the newest pod's trouble first; ``None`` where they merely need time."""
    found = tuple(pods)
    # One that is about to be replaced would be blamed for what is mended already.
    mine = (None, None if deployment is None else _template(deployment["spec"]["template"]))
    waiting = [pod for pod in found if not ends(pod) and not is_ready(pod) and _template(pod) in mine]
    newest_first = sorted(waiting, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")), reverse=True)
    troubles = (told for pod in newest_first if (told := _pod_problem(pod, now)) is not None)
    # Why a worker ended says more than why another one waits.
    return next(troubles, None) or placement.problem(deployment, found, newest_first, now) or _forbidden(deployment)


def is_ready(pod: Object) -> bool:
    """Whether a pod takes part: its model is loaded and it has joined the group."""
    return condition(pod, "Ready").get("status") == "True" and not ends(pod)


def configured(deployment: Object | None, pods: Iterable[Object]) -> tuple[Object, ...]:
    """Those that are ready and run with the Deployment's configuration: one before it may have had another model."""
    ready = tuple(pod for pod in pods if is_ready(pod))
    if deployment is None:
        return ready
    mine = _annotation(deployment["spec"]["template"], names.CONFIG_CHECKSUM)
    return tuple(pod for pod in ready if _annotation(pod, names.CONFIG_CHECKSUM) == mine)


def _template(thing: Object) -> str | None:
    """Which template a pod is of, or that a template is itself."""
    return _annotation(thing, names.TEMPLATE_CHECKSUM)


def _annotation(thing: Object, name: str) -> str | None:
    found: str | None = (thing.get("metadata", {}).get("annotations") or {}).get(name)
    return found


def _pod_problem(pod: Object, now: datetime) -> Problem | None:
    statuses = pod.get("status", {}).get("containerStatuses") or []
    ours = next((status for status in statuses if status["name"] == names.CONTAINER), None)
    return None if ours is None else _container_problem(pod, ours, now)


def _container_problem(pod: Object, status: Object, now: datetime) -> Problem | None:
    waiting = status.get("state", {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _IMAGE:
        said = f"the image '{status.get('image', '')}' can't be pulled: {message or reason}"
        return Problem(Reason.IMAGE_PULL_FAILED, f"{said}; check spec.worker.image and spec.worker.imagePullSecrets")
    if reason in _CONFIG:
        return _not_started(message or reason)
    ended = status.get("state", {}).get("terminated") or _last_end(pod, status, now)
    if ended is not None and ended.get("reason") in _NOT_STARTED:
        return _not_started(ended.get("message") or ended["reason"])
    return None if ended is None else _termination(ended)


def _last_end(pod: Object, status: Object, now: datetime) -> Object | None:
    """How the container before this one ended, where that still says why this one isn't ready."""
    ended: Object | None = status.get("lastState", {}).get("terminated")
    waiting = status.get("state", {}).get("waiting") or {}
    if ended is None or waiting.get("reason") == _BACK_OFF:
        return ended
    if _was_ready(pod, status):
        # What ended the one before it was over.
        return None
    # Kubernetes leaves the time out where it lost track of the container.
    finished = ended.get("finishedAt")
    return ended if finished and now - datetime.fromisoformat(finished) < _EXPLAINS else None


def _was_ready(pod: Object, status: Object) -> bool:
    """Whether the container that runs was ready before it wasn't."""
    started = status.get("state", {}).get("running", {}).get("startedAt")
    unready = condition(pod, "Ready").get("lastTransitionTime")
    if not started or not unready:
        return False
    return datetime.fromisoformat(unready) - datetime.fromisoformat(started) > _NOTICED


def _not_started(said: str) -> Problem:
    advice = "check spec.worker (image, env, runtimeClassName) and the Secrets that the pipeline names"
    return Problem(Reason.CONTAINER_CONFIG_ERROR, f"the container can't be started: {said}; {advice}")


def _termination(ended: Object) -> Problem | None:
    if ended.get("reason") == "OOMKilled":
        advice = "raise spec.worker.resources.limits.memory, or use a smaller model"
        return Problem(TerminationReason.OUT_OF_MEMORY, f"a worker was killed for its memory; {advice}")
    told = parse_termination(ended.get("message", ""))
    if told is not None:
        return Problem(told[0], _in_words_of_the_resource(told[1]))
    if ended.get("exitCode", 0) == 0:
        return None
    # How often is no part of it: each new number would be a change of the condition.
    advice = "read its log with kubectl logs --previous"
    return Problem(Reason.CRASH_LOOP, f"a worker ended with exit code {ended['exitCode']}; {advice}")


# Where a worker found a key that it names.
_FILE = f"{names.CONFIG_DIRECTORY}/{names.CONFIG_FILE}: "
# Keys and variables of the workers' configuration by the fields that they come from.
_FIELDS = {
    "kafka.bootstrap_servers": "spec.kafka.bootstrapServers",
    "kafka.input_topic": "spec.input.topic",
    "kafka.output_topic": "spec.output.topic",
    "kafka.dead_letter_topic": "spec.deadLetter.topic",
    "kafka.consumer_group": "spec.input.consumerGroup",
    "kafka.tls": "spec.kafka.tls.enabled",
    "kafka.tls_ca_file": "spec.kafka.tls.caSecret",
    "kafka.tls_certificate_file": "spec.kafka.tls.clientCertificateSecret",
    "kafka.tls_key_file": "spec.kafka.tls.clientCertificateSecret",
    "kafka.sasl_mechanism": "spec.kafka.sasl.mechanism",
    "EMBEDDING_KAFKA__SASL_USERNAME": "spec.kafka.sasl.credentialsSecret",
    "EMBEDDING_KAFKA__SASL_PASSWORD": "spec.kafka.sasl.credentialsSecret",
    "EMBEDDING_HTTP__TOKEN": "spec.http.tokenSecret",
    "model.name": "spec.model.name",
    "model.device": "spec.model.device",
    "model.precision": "spec.model.precision",
    "model.revision": "spec.model.revision",
    "model.max_length": "spec.model.maxLength",
}


def _in_words_of_the_resource(message: str) -> str:
    """A worker names the keys of its own configuration; a person has the manifest before them."""
    pattern = "|".join(re.escape(key) for key in _FIELDS)
    return re.sub(rf"(?<!spec\.)\b({pattern})\b", lambda found: _FIELDS[found.group()], message.replace(_FILE, ""))


def _forbidden(deployment: Object | None) -> Problem | None:
    failure = condition(deployment, "ReplicaFailure")
    if deployment is None or failure.get("status") != "True":
        return None
    # It stays until the workers of the former template are gone, too.
    if deployment["status"].get("updatedReplicas", 0) >= running(deployment):
        return None
    said = failure.get("message", failure.get("reason", ""))
    advice = "change spec.worker, or what the namespace allows"
    return Problem(Reason.PODS_FORBIDDEN, f"pods can't be created: {said}; {advice}")

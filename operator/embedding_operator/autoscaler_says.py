"""Whether something decides how many workers run, by what Kubernetes and KEDA say of it; pure."""

from typing import NamedTuple

from embedding_operator import scaling
from embedding_operator.api_autoscaling import Autoscaling
from embedding_operator.desired.deployment import DEPLOYMENT, running
from embedding_operator.observed import Object, Observed, condition
from embedding_operator.providers import AUTOSCALER, KEDAS_AUTOSCALER, SCALED_OBJECT, Provider, bounds
from embedding_operator.reasons import Reason

_STAYS = "the number of workers stays as it is"


class Said(NamedTuple):
    """Status, reason and message of a condition."""

    status: str
    reason: str
    message: str


def says(observed: Observed, autoscaling: Autoscaling) -> Said:
    """Whether the autoscaler of a pipeline that isn't stopped decides."""
    by = scaling.by(observed)
    if by is Provider.NOBODY:
        advice = "set autoscaling.lagProvider of the operator's chart to keda or external, or metric to CPU"
        return Said(
            "False", Reason.LAG_PROVIDER_MISSING, f"{_STAYS}: the operator isn't told who knows the lag; {advice}"
        )
    if by is Provider.KEDA:
        return _keda_says(observed, autoscaling)
    if running(observed.objects.get(DEPLOYMENT)) == 0:
        return Said("Unknown", Reason.NO_WORKERS, "no worker runs, and an autoscaler doesn't start the first one")
    return _kubernetes_says(observed, autoscaling, observed.objects.get(AUTOSCALER))


def _keda_says(observed: Observed, autoscaling: Autoscaling) -> Said:
    if not observed.provider_served:
        advice = "install KEDA, or set autoscaling.lagProvider of the operator's chart; it then goes on by itself"
        return Said("False", Reason.KEDA_MISSING, f"{_STAYS}: there is no KEDA in this cluster; {advice}")
    ready = condition(observed.objects.get(SCALED_OBJECT), "Ready")
    if not ready.get("reason"):
        return Said("Unknown", Reason.PROGRESSING, "KEDA has not looked at the ScaledObject yet")
    if ready["status"] != "True":
        return Said("False", Reason.METRIC_NOT_SERVED, f"{_STAYS} until KEDA knows their lag: {ready['message']}")
    if running(observed.objects.get(DEPLOYMENT)) == 0:
        return _follows(observed, autoscaling, "")
    return _kubernetes_says(observed, autoscaling, observed.objects.get(KEDAS_AUTOSCALER))


def _kubernetes_says(observed: Observed, autoscaling: Autoscaling, autoscaler: Object | None) -> Said:
    """Of a HorizontalPodAutoscaler, of ours or KEDA's, where there are workers."""
    able, active, limited = (condition(autoscaler, kind) for kind in ("AbleToScale", "ScalingActive", "ScalingLimited"))
    if able.get("status") == "False":
        return Said("False", Reason.SCALING_FAILED, f"the number of workers can't be changed: {able['message']}")
    # The latter stays for a moment when there are workers again.
    if not active or active["reason"] == "ScalingDisabled":
        return Said("Unknown", Reason.PROGRESSING, "Kubernetes has not looked at the HorizontalPodAutoscaler yet")
    if active["status"] != "True":
        return Said("False", *_blind(observed, autoscaler, active["message"]))
    more = "; their load asks for more" if limited.get("reason") == "TooManyReplicas" else ""
    return _follows(observed, autoscaling, more)


def _follows(observed: Observed, autoscaling: Autoscaling, more: str) -> Said:
    least, most = bounds(autoscaling, scaling.by(observed), scaling.cap(observed))
    load = autoscaling.metric if autoscaling.metric == "CPU" else "lag"
    text = f"the number of workers follows their {load}, between {least} and {most}{more}"
    return Said("True", Reason.METRIC_SERVED, text)


def _blind(observed: Observed, autoscaler: Object | None, said: str) -> tuple[str, str]:
    """Why the autoscaler decides nothing: reason and message."""
    if not scaling.lacks_metric(autoscaler):
        return Reason.SCALING_FAILED, f"{_STAYS}: {said}"
    if scaling.by(observed) is not Provider.METRICS_SERVER:
        why = condition(autoscaler, "ScalingActive")["reason"]
        who = (
            "" if observed.provider_served else " (nobody in this cluster serves external metrics: install an adapter)"
        )
        return Reason.METRIC_NOT_SERVED, f"{_STAYS} until their lag is known{who}: {why}: {said}"
    if observed.provider_served:
        return Reason.METRIC_NOT_SERVED, f"{_STAYS} until their CPU is known: {said}"
    advice = "install metrics-server, or mend what serves metrics.k8s.io; it then goes on by itself"
    return Reason.METRICS_SERVER_MISSING, f"{_STAYS}: nobody in this cluster tells the CPU of pods; {advice}"

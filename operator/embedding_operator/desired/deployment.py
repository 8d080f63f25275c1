"""The Deployment of the workers. The number of its replicas is not part of it: ``plan`` sets that at the creation."""

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.desired.metadata import Object, metadata
from embedding_operator.desired.pod import pod_template
from embedding_operator.settings import OperatorSettings

DEPLOYMENT = "Deployment"
# A large model is downloaded before the first worker of an update is ready.
_PROGRESS_SECONDS = 3600


def deployment(pipeline: EmbeddingPipeline, settings: OperatorSettings, annotations: dict[str, str]) -> Object:
    """The Kubernetes object; ``annotations`` of the pods are those by which a change rolls the workers."""
    template = pod_template(pipeline, settings, annotations)
    limits = template["spec"]["containers"][0]["resources"].get("limits", {})
    # A pod beside the old ones would wait for a GPU that its predecessor holds. Devices have names with a domain.
    surge = 0 if any("/" in name for name in limits) else 1
    return {
        "apiVersion": "apps/v1",
        "kind": DEPLOYMENT,
        "metadata": metadata(pipeline),
        "spec": {
            "selector": {"matchLabels": names.match_labels(pipeline)},
            "strategy": {
                "type": "RollingUpdate",
                # One at a time: each change of members makes the group share its partitions out anew.
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": 1 - surge},
            },
            "progressDeadlineSeconds": _PROGRESS_SECONDS,
            "revisionHistoryLimit": 3,
            "template": template,
        },
    }


def running(live: Object | None) -> int:
    """How many workers a Deployment has now, or is about to have."""
    return 0 if live is None else int(live["spec"].get("replicas", 1))

"""The template of the worker pods: a container of the restricted profile, its environment, volumes and placement."""

import math
from typing import Any

from embedding_operator import names
from embedding_operator.api import EmbeddingPipeline
from embedding_operator.api_section import Section
from embedding_operator.desired.config_map import worker_settings
from embedding_operator.desired.metadata import Object
from embedding_operator.settings import OperatorSettings

HTTP_PORT = "http"
# The images' own.
_USER = 65532
# Beside the batches in the model: the last deliveries, the commit and leaving the group.
_GRACE_SECONDS = 30


def pod_template(pipeline: EmbeddingPipeline, settings: OperatorSettings, annotations: dict[str, str]) -> Object:
    """The pod template; ``annotations`` are those by which a change rolls the workers."""
    worker = pipeline.spec.worker
    return {
        "metadata": {
            "labels": (worker.pod_labels or {}) | names.labels(pipeline),
            "annotations": (worker.pod_annotations or {}) | annotations,
        },
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": grace_seconds(pipeline),
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "runAsGroup": _USER,
                "fsGroup": _USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(pipeline, settings)],
            "volumes": _volumes(pipeline),
        }
        | _placement(pipeline),
    }


def grace_seconds(pipeline: EmbeddingPipeline) -> int:
    """How long a worker may take to end: the window in the model, and another that a slow batch made of it."""
    return math.ceil(2 * worker_settings(pipeline).engine.window_seconds) + _GRACE_SECONDS


def _container(pipeline: EmbeddingPipeline, settings: OperatorSettings) -> Object:
    worker = pipeline.spec.worker
    limits: dict[str, Any] = dict(worker.resources.limits or {})
    if worker.gpu is not None:
        limits[worker.gpu.resource_name] = worker.gpu.count
    resources = {"requests": dict(worker.resources.requests)} | ({"limits": limits} if limits else {})
    return {
        "name": names.CONTAINER,
        "image": worker.image or settings.worker_image,
        "imagePullPolicy": settings.worker_image_pull_policy,
        "args": ["run", "--config", f"{names.CONFIG_DIRECTORY}/{names.CONFIG_FILE}"],
        "ports": [{"name": HTTP_PORT, "containerPort": 5000, "protocol": "TCP"}],
        "env": _environment(pipeline),
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": _mounts(pipeline),
        # Imports take their time on a busy node. A model that is being downloaded answers as alive.
        "startupProbe": _probe("/livez", period=2, failures=150),
        "livenessProbe": _probe("/livez", period=10, failures=3),
        "readinessProbe": _probe("/readyz", period=2, failures=3),
    }


def _probe(path: str, *, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": HTTP_PORT},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _environment(pipeline: EmbeddingPipeline) -> list[Object]:
    spec = pipeline.spec
    found: list[Object] = [{"name": "HF_HOME", "value": names.CACHE_DIRECTORY}]
    if spec.kafka.sasl is not None:
        secret = spec.kafka.sasl.credentials_secret
        found.append(_from_secret("EMBEDDING_KAFKA__SASL_USERNAME", secret.name, secret.username_key))
        found.append(_from_secret("EMBEDDING_KAFKA__SASL_PASSWORD", secret.name, secret.password_key))
    if spec.http.token_secret is not None:
        found.append(_from_secret("EMBEDDING_HTTP__TOKEN", spec.http.token_secret.name, spec.http.token_secret.key))
    if spec.model.token_secret is not None:
        found.append(_from_secret("HF_TOKEN", spec.model.token_secret.name, spec.model.token_secret.key))
    own = {variable.name for variable in spec.worker.env or ()}
    return [variable for variable in found if variable["name"] not in own] + _plain(spec.worker.env)


def _from_secret(variable: str, name: str, key: str) -> Object:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


def _volumes(pipeline: EmbeddingPipeline) -> list[Object]:
    tls, cache = pipeline.spec.kafka.tls, pipeline.spec.model.cache
    found: list[Object] = [
        {"name": "config", "configMap": {"name": names.worker(pipeline)}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if cache.persistent_volume_claim is not None:
        claim = {"claimName": cache.persistent_volume_claim.claim_name}
        found.append({"name": "cache", "persistentVolumeClaim": claim})
    else:
        limit = {} if cache.size_limit is None else {"sizeLimit": cache.size_limit}
        found.append({"name": "cache", "emptyDir": limit})
    if tls.ca_secret is not None:
        items = [{"key": tls.ca_secret.key, "path": "ca.crt"}]
        found.append({"name": "kafka-ca", "secret": {"secretName": tls.ca_secret.name, "items": items}})
    if tls.client_certificate_secret is not None:
        secret = {"secretName": tls.client_certificate_secret.name, "defaultMode": 0o440}
        found.append({"name": "kafka-client", "secret": secret})
    return found


def _mounts(pipeline: EmbeddingPipeline) -> list[Object]:
    tls = pipeline.spec.kafka.tls
    paths = {"config": names.CONFIG_DIRECTORY, "tmp": "/tmp", "cache": names.CACHE_DIRECTORY}  # noqa: S108 - a volume
    if tls.ca_secret is not None:
        paths["kafka-ca"] = names.CA_DIRECTORY
    if tls.client_certificate_secret is not None:
        paths["kafka-client"] = names.CLIENT_CERTIFICATE_DIRECTORY
    written = {"tmp", "cache"}
    return [
        {"name": name, "mountPath": path} | ({} if name in written else {"readOnly": True})
        for name, path in paths.items()
    ]


def _placement(pipeline: EmbeddingPipeline) -> Object:
    """The fields of ``spec.worker`` that are a pod's own, where they are set."""
    worker = pipeline.spec.worker
    spread = list(worker.topology_spread_constraints or ()) or [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": names.match_labels(pipeline)},
        }
    ]
    found = {
        "imagePullSecrets": _plain(worker.image_pull_secrets),
        "nodeSelector": worker.node_selector,
        "tolerations": _plain(worker.tolerations),
        "affinity": worker.affinity,
        "topologySpreadConstraints": spread,
        "priorityClassName": worker.priority_class_name,
        "runtimeClassName": worker.runtime_class_name,
    }
    return {name: value for name, value in found.items() if value}


def _plain(sections: tuple[Section, ...] | None) -> list[Object]:
    return [section.model_dump(by_alias=True, exclude_none=True) for section in sections or ()]

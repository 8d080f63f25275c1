"""Specs of pipelines as different as can be: that run, that wait for something, and that are stopped."""

from typing import Any

STOPPED: dict[str, Any] = {"replicas": 0}
# What the API server stores in another form than it was written, or adds to, in one pipeline or another.
# Secret `workers` is there, Secret `nowhere` isn't.
SPECS: dict[str, dict[str, Any]] = {
    "plain": STOPPED,
    "tokened": {"http": {"tokenSecret": {"name": "workers"}}, "input": {"create": {"partitions": 3}}},
    "numbers": {
        "worker": {
            "resources": {"requests": {"cpu": "0.1", "memory": 629145600}, "limits": {"cpu": 2, "memory": "2000M"}}
        },
        "model": {"cache": {"sizeLimit": "0.5Gi"}},
        "output": {"create": {"config": {"cleanup.policy": "compact", "retention.ms": "604800000"}}},
    },
    "paused": {"paused": True},
    "autoscaled": {
        "paused": True,
        "autoscaling": {"metric": "CPU", "maxReplicas": 1, "behavior": {"scaleDown": {"selectPolicy": "Disabled"}}},
    },
    "thousandths": STOPPED
    | {"worker": {"resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": {"cpu": "1500m"}}}},
    "zeros": STOPPED | {"worker": {"resources": {"requests": {"cpu": 0, "memory": "0"}}}},
    "nothing-requested": STOPPED
    | {"worker": {"resources": {"requests": {"cpu": "0", "memory": "0.5Gi"}, "limits": {}}}},
    "volume": STOPPED | {"model": {"cache": {"persistentVolumeClaim": {"claimName": "models"}}}},
    "gpu": STOPPED | {"worker": {"gpu": {"count": 2, "resourceName": "nvidia.com/mig-1g.5gb"}}},
    "placed": STOPPED
    | {
        "worker": {
            "nodeSelector": {"accelerator": "a100", "empty": ""},
            "tolerations": [
                {"operator": "Exists"},
                {"key": "team", "value": "search", "effect": "NoSchedule"},
                {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0},
            ],
            "topologySpreadConstraints": [
                {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
                {
                    "maxSkew": 1,
                    "topologyKey": "zone",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"team": "search"}},
                    "matchLabelKeys": ["pod-template-hash"],
                },
            ],
            "affinity": {
                "podAntiAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"team": "search"}}}
                    ]
                },
                "nodeAffinity": {},
            },
            "priorityClassName": "batch",
            "runtimeClassName": "nvidia",
            "imagePullSecrets": [{"name": "registry"}, {"name": "mirror"}],
            "podLabels": {"team": "search", "empty": ""},
            "podAnnotations": {"example.com/owner": "search", "example.com/empty": ""},
        }
    },
    "environment": STOPPED
    | {
        "worker": {
            "env": [
                {"name": "EMPTY", "value": ""},
                {"name": "ABSENT"},
                {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {
                    "name": "MEMORY",
                    "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1024Ki"}},
                },
                {"name": "OPTIONAL", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token", "optional": True}}},
                {
                    "name": "REQUIRED",
                    "valueFrom": {"configMapKeyRef": {"name": "hub", "key": "url", "optional": False}},
                },
                {"name": "HF_HOME", "value": "/cache/own"},
            ]
        }
    },
    "prompted": STOPPED | {"model": {"prompt": "Ünïcode: \n\ttext ", "maxLength": 64.0, "normalize": False}},
    "unschedulable": {"worker": {"gpu": {}}},
    "secretless": {"http": {"tokenSecret": {"name": "nowhere"}}},
    "unmanaged": {"topics": {"manage": False}},
    "crowded": {"replicas": 2, "input": {"create": {"partitions": 1}}, "worker": {"gpu": {}}},
    "unreachable": {"kafka": {"bootstrapServers": ["kafka-0.kafka.svc:9092", "192.0.2.1:9092"]}},
    "deleting-later": STOPPED | {"topics": {"deletionPolicy": "Delete"}},
}

# Those that run; none of the others starts a worker.
RUNNING = ("tokened", "numbers")

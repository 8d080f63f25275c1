"""The whole system on the cluster: Kafka that pods reach, the operator by its chart, and pipelines to look at."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from announcing import announcer
from kafka_broker import KafkaBroker
from kafka_helpers import delete_topics, topic_names
from kafka_listeners import PLAIN_HOST
from testcluster.cluster import Cluster
from testcluster.errors import CommandFailed
from testcluster.images import BuiltImage
from waiting import wait_until

REPOSITORY = Path(__file__).parents[1]
CHART = REPOSITORY / "charts" / "embedding-service"
SYSTEM_NAMESPACE = "embedding-system"
RELEASE = "embedding"
OPERATOR = f"deployment/{RELEASE}-embedding-service-operator"
# How soon what only a resync sees is seen.
RESYNC_SECONDS = 10
READY_SECONDS = 180
SETTLE_SECONDS = 120

T = TypeVar("T")

Object = dict[str, Any]

_NAMESPACE = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {"name": SYSTEM_NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
}


@dataclass(frozen=True)
class System:
    """An installed operator and a Kafka cluster.

    ``kafka.bootstrap_servers`` is for the tests themselves, ``bootstrap_servers`` for pods.
    """

    cluster: Cluster
    kafka: KafkaBroker
    values: Path
    worker_image: str
    operator_image: str

    @property
    def bootstrap_servers(self) -> str:
        """The plain listener, as pods reach it."""
        return self.kafka.address(PLAIN_HOST)

    def upgrade(self, *arguments: str) -> None:
        """Install the chart, or upgrade it, with further values; returns once the operator is ready."""
        self.cluster.helm(
            *("upgrade", "--install", RELEASE, str(CHART), "--namespace", SYSTEM_NAMESPACE),
            *("--values", str(self.values), "--wait", "--timeout", "3m", *arguments),
        )

    def scale_operator(self, replicas: int) -> None:
        """Stop the operator, or start it again, and wait until it is so."""
        self.cluster.kubectl("scale", "--namespace", SYSTEM_NAMESPACE, OPERATOR, f"--replicas={replicas}")
        self.cluster.kubectl("rollout", "status", "--namespace", SYSTEM_NAMESPACE, OPERATOR, "--timeout=120s")
        if replicas == 0:
            pods = ("get", "pods", "--namespace", SYSTEM_NAMESPACE, "--selector=app.kubernetes.io/component=operator")
            wait_until(lambda: not self.cluster.kubectl(*pods, "-o", "name").stdout, SETTLE_SECONDS, "it still runs")

    def operator_pod(self) -> Object:
        """The operator's pod that isn't ending."""
        selector = "--selector=app.kubernetes.io/component=operator"
        found = self.cluster.kubectl("get", "pods", "--namespace", SYSTEM_NAMESPACE, selector, "-o", "json").stdout
        pods: list[Object] = [pod for pod in json.loads(found)["items"] if "deletionTimestamp" not in pod["metadata"]]
        return pods[0]

    def operator_restarts(self) -> int:
        """How often the operator's container has ended in its pod."""
        return sum(status["restartCount"] for status in self.operator_pod()["status"]["containerStatuses"])

    def operator_log(self, *, previous: bool = False) -> str:
        """What the operator says, or what it said before its container ended."""
        command = ("logs", "--namespace", SYSTEM_NAMESPACE, OPERATOR, "--tail=-1", f"--previous={previous}".lower())
        return self.cluster.kubectl(*command).stdout


@dataclass(frozen=True)
class Pipeline:
    """A pipeline of a test, by its name; what is asked of it is asked of the API server each time."""

    system: System
    namespace: str
    name: str

    @property
    def worker(self) -> str:
        """The name of its Deployment, ConfigMap, Service and PodDisruptionBudget."""
        return f"{self.name}-embedding-worker"

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """Run ``kubectl`` in its namespace; returns what it prints."""
        return self.system.cluster.kubectl("--namespace", self.namespace, *arguments, **options).stdout

    def get(self, kind: str = "embp", name: str | None = None) -> Object | None:
        """The pipeline, or an object of it; ``None`` where there is none."""
        wanted = name or (self.name if kind == "embp" else self.worker)
        found = self.kubectl("get", kind, wanted, "--ignore-not-found", "-o", "json")
        return json.loads(found) if found.strip() else None

    def pods(self) -> list[Object]:
        """Its worker pods, those that are ending too."""
        selector = f"--selector=app.kubernetes.io/instance={self.name},app.kubernetes.io/name=embedding-worker"
        found: list[Object] = json.loads(self.kubectl("get", "pods", selector, "-o", "json"))["items"]
        return found

    @property
    def status(self) -> Object:
        """Its status; empty where there is none."""
        found = self.get()
        return {} if found is None else found.get("status", {})

    def conditions(self) -> dict[str, Object]:
        """The conditions of its current generation by their types, all of one moment."""
        found = self.get() or {}
        generation = found.get("metadata", {}).get("generation")
        told = found.get("status", {}).get("conditions", [])
        return {one["type"]: one for one in told if one["observedGeneration"] == generation}

    def condition(self, kind: str) -> Object:
        """A condition of its current generation; empty where there is none."""
        return self.conditions().get(kind, {})

    def wait(
        self, kind: str, status: str, reason: str | None = None, words: str = "", seconds: float = READY_SECONDS
    ) -> Object:
        """Wait for a condition, whose message has these words; returns it as it was then."""
        return self.wait_for_all(kind, status, reason, words, seconds)[kind]

    def wait_for_all(
        self, kind: str, status: str, reason: str | None = None, words: str = "", seconds: float = READY_SECONDS
    ) -> dict[str, Object]:
        """Wait for a condition, as ``wait`` does; returns all of that moment: the next one may say otherwise."""

        def found() -> dict[str, Object] | None:
            all_told = self.conditions()
            told = all_told.get(kind, {})
            right = told.get("status") == status and (reason is None or told["reason"] == reason)
            return all_told if right and words in told["message"] else None

        return self.until(found, f"{kind} isn't {status} {reason or ''} {words}", seconds) or {}

    def until(self, condition: Callable[[], T], what: str, seconds: float = READY_SECONDS) -> T:
        """Wait until something is so, and return it; says how the pipeline stands where it never is."""
        try:
            # Each look is a process of kubectl, which takes its time from the pods that are waited for.
            return wait_until(condition, seconds, what, interval=0.5)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self._account()}") from None

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Wait as a user does, with kubectl."""
        try:
            self.kubectl("wait", f"embp/{self.name}", "--for=condition=Ready", f"--timeout={seconds:.0f}s")
        except CommandFailed as error:
            raise AssertionError(f"{error}\n{self._account()}") from None

    def patch(self, spec: Object) -> None:
        """Change its spec, as a merge patch."""
        self.kubectl("patch", "embp", self.name, "--type=merge", "--patch", json.dumps({"spec": spec}))

    def delete(self, *, wait: bool = True) -> None:
        """Delete it; returns once it is gone."""
        self.kubectl("delete", "embp", self.name, "--ignore-not-found", f"--wait={str(wait).lower()}")

    def _account(self) -> str:
        parts = [
            yaml.safe_dump(self.status),
            self.kubectl("get", "deploy,pods,events", "-o", "wide", check=False),
            self.kubectl("logs", f"deploy/{self.worker}", "--tail=30", check=False),
            self.system.operator_log()[-4000:],
        ]
        return "\n---\n".join(parts)


class Pipelines:
    """Makes the pipelines of a test."""

    def __init__(self, system: System, namespace: str) -> None:
        self.system = system
        self.namespace = namespace

    def apply(self, name: str, **sections: Any) -> Pipeline:
        """Apply a pipeline; sections of its spec are merged with the shortest that works. Topics are named after it."""
        prefix = f"{self.namespace}.{name}"
        spec: Object = {
            "kafka": {"bootstrapServers": [self.system.bootstrap_servers]},
            "input": {"topic": f"{prefix}.in"},
            "output": {"topic": f"{prefix}.out"},
            # The cluster of the tests has two cores for everything.
            "worker": {"resources": {"requests": {"cpu": "100m", "memory": "600Mi"}}},
        }
        document = {
            "apiVersion": "embeddings.dev/v1alpha1",
            "kind": "EmbeddingPipeline",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": _merged(spec, sections),
        }
        self.system.cluster.kubectl("apply", "-f", "-", input=json.dumps(document))
        return Pipeline(self.system, self.namespace, name)


def _merged(base: Object, more: Object) -> Object:
    merged = dict(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


@pytest.fixture(scope="session")
def cluster_kafka(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[KafkaBroker]:
    """Start a Kafka with TLS, SASL and ACLs that pods reach, in the cluster as the Service kafka.kafka.svc:9092."""
    with KafkaBroker(host=cluster.host_address, secured=True, announce=announcer(request.config)) as broker:
        host, _, port = broker.address(PLAIN_HOST).rpartition(":")
        cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(_kafka_service(host, int(port))))
        yield broker
        cluster.kubectl("delete", "namespace", "kafka", "--wait=false")


def _kafka_service(host: str, port: int) -> list[Object]:
    service = {"kubernetes.io/service-name": "kafka"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kafka"}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kafka", "namespace": "kafka"},
            "spec": {"ports": [{"name": "kafka", "port": 9092, "targetPort": port}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "kafka-host", "namespace": "kafka", "labels": service},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
            "ports": [{"name": "kafka", "port": port}],
        },
    ]


@pytest.fixture(scope="session")
def system(
    cluster: Cluster,
    cluster_kafka: KafkaBroker,
    operator_image: BuiltImage,
    worker_image: BuiltImage,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[System]:
    """Install the operator with its chart, in a namespace that enforces the Pod Security profile ``restricted``."""
    announce = announcer(request.config)
    started = time.monotonic()
    operator, worker = (cluster.load_image(image.reference) for image in (operator_image, worker_image))
    values = tmp_path_factory.mktemp("chart") / "values.yaml"
    chosen = {
        "operator": {"image": operator, "resyncSeconds": RESYNC_SECONDS},
        "worker": {"image": worker},
        "image": {"pullPolicy": "IfNotPresent"},
    }
    values.write_text(yaml.safe_dump(chosen), encoding="utf-8")
    installed = System(cluster, cluster_kafka, values, worker, operator)
    # What a run that was killed may have left in a cluster that goes on.
    _remove(cluster)
    cluster.kubectl("apply", "-f", "-", input=yaml.safe_dump(_NAMESPACE))
    installed.upgrade()
    announce(f"Operator: installed by its chart after {time.monotonic() - started:.0f} s")
    try:
        yield installed
        assert installed.operator_restarts() == 0, (
            f"the operator ended by itself:\n{installed.operator_log(previous=True)}"
        )
    finally:
        _remove(cluster)


def _remove(cluster: Cluster) -> None:
    cluster.helm("uninstall", RELEASE, "--namespace", SYSTEM_NAMESPACE, "--wait", "--ignore-not-found")
    cluster.kubectl("delete", "namespace", SYSTEM_NAMESPACE, "--ignore-not-found")
    cluster.kubectl("delete", "crd", "embeddingpipelines.embeddings.dev", "--ignore-not-found")


@pytest.fixture
def pipelines(system: System, namespace: str) -> Iterator[Pipelines]:
    """Make pipelines in a namespace of the test's own; they and their topics go after it."""
    with pipelines_in(system, namespace) as made:
        yield made


@contextmanager
def pipelines_in(system: System, namespace: str) -> Iterator[Pipelines]:
    """Make pipelines in a namespace, for several tests together."""
    try:
        yield Pipelines(system, namespace)
    finally:
        # What goes on running takes its time from every later test.
        system.cluster.kubectl("delete", "embp", "--all", "--namespace", namespace, "--timeout=180s")
        servers = system.kafka.bootstrap_servers
        delete_topics(servers, [name for name in topic_names(servers) if name.startswith(f"{namespace}.")])

"""How fast and how heavy is the operator? 200 and 1,000 pipelines, applied at once to a real API server without nodes.

Each size is measured three times, with a control plane and a Kafka of its own: ``kubectl apply --server-side`` of the
very objects that the operator makes; the operator where all topics are there; the operator where it creates two topics
for each pipeline. Prints a table and writes ``out/benchmarks/operator-scale.json``. Run by ``make bench-operator``, as
root: the control plane needs a network of its own. Sizes can be given as arguments.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from kubernetes import client, config

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "testing"), str(ROOT / "k8s-tests")]
# A cgroup of its own, beside a cluster that may run here.
os.environ.setdefault("TESTCLUSTER_CGROUP", f"embsvc-{os.getpid()}")

from embedding_operator.api import EmbeddingPipeline  # noqa: E402 - as above
from embedding_operator.desired.state import desired_state  # noqa: E402 - as above
from embedding_operator.settings import OperatorSettings  # noqa: E402 - as above
from kafka_broker import KafkaBroker  # noqa: E402 - as above
from kafka_helpers import create_topics  # noqa: E402 - as above
from machine import machine, resident_kib  # noqa: E402 - as above
from testcluster import tools  # noqa: E402 - as above
from testcluster.commands import run  # noqa: E402 - as above
from testcluster.no_nodes import NoNodes, in_own_network, run_in_own_network  # noqa: E402 - as above
from waiting import wait_until  # noqa: E402 - as above

SIZES = (200, 1000)
NAMESPACE = "pipelines"
# Short: with them the user name fits a certificate.
RELEASE, RELEASE_NAMESPACE = "scale", "scale"
OPERATOR = f"{RELEASE}-embedding-service-operator"
INPUT = "texts"
SETTINGS = OperatorSettings(worker_image="embedding-worker:none", http_port=18080)
LIMIT_SECONDS = 900.0
MOST_TIMES_KUBECTL = 3
# The operator is at rest once it has written nothing for so long, and is then watched for so long.
QUIET_SECONDS, REST_SECONDS = 15, 60
CONFIG_MAPS_OF_KUBERNETES = 1
TICKS = os.sysconf("SC_CLK_TCK")
OUTPUT = ROOT / "out" / "benchmarks" / "operator-scale.json"

Object = dict[str, Any]


def main() -> None:
    """Measure and report."""
    if not in_own_network():
        sys.exit(run_in_own_network())
    sizes = [int(argument) for argument in sys.argv[1:]] or SIZES
    rows = []

    for size in sizes:
        say(f"{size} pipelines: kubectl apply --server-side of their objects")
        row: Object = {"pipelines": size, "kubectl": kubectl_alone(size)}
        for name, there in (("topics_there", True), ("topics_created", False)):
            say(f"{size} pipelines: the operator, {name.replace('_', ' ')}")
            row[name] = operator(size, topics_there=there)
            row[name]["ratio"] = round(row[name]["seconds"] / row["kubectl"]["seconds"], 2)
            say(json.dumps({name: row[name]}))
        rows.append(row)
    report(rows)


def kubectl_alone(size: int) -> Object:
    """What ``kubectl`` takes for the pipelines, and then for the objects of all of them."""
    with cluster() as (plane, api):
        pipelines_seconds = timed_apply(plane, [pipeline(n, "kafka:9092") for n in range(size)])
        stored = [EmbeddingPipeline.model_validate(found) for found in stored_pipelines(api)]
        objects = [built for one in stored for built in desired_state(one, SETTINGS, None)]
        before = cpu_seconds()
        return {
            "seconds": timed_apply(plane, objects),
            "objects": len(objects),
            "cpu_seconds": difference(cpu_seconds(), before),
            "pipelines_alone_seconds": pipelines_seconds,
            "load_average": os.getloadavg()[0],
        }


def operator(size: int, *, topics_there: bool) -> Object:
    """What the operator takes, from the start of ``kubectl apply`` of the pipelines to the last status."""
    found: Object = {"load_average_before": os.getloadavg()[0]}
    with KafkaBroker(own=True) as kafka, cluster() as (plane, api):
        servers = kafka.bootstrap_servers
        create_topics(servers, [INPUT], partitions=1)
        if topics_there:
            topics = [name for n in range(size) for name in (f"out-{n}", f"out-{n}-deadletter")]
            found["kafka_alone_seconds"] = timed_topics(servers, topics)
        with process(plane) as operator_pid:
            found["resident_mib_before"] = resident_kib(operator_pid) // 1024
            before = cpu_seconds()
            started = time.monotonic()
            found["pipelines_applied_seconds"] = timed_apply(plane, [pipeline(n, servers) for n in range(size)])
            wait_until(lambda: complete(api, size), LIMIT_SECONDS, "not all pipelines have a status", interval=0.5)
            found["seconds"] = round(time.monotonic() - started, 1)
            found["cpu_seconds"] = difference(cpu_seconds(), before)
            found |= at_rest(plane, size, operator_pid)
    return found


def at_rest(plane: NoNodes, size: int, operator_pid: int) -> Object:
    """What was written until the operator came to rest, and what it still does then."""
    wait_until(lambda: quiet(plane), LIMIT_SECONDS, "the operator still writes", interval=1)
    writes = Counter(word for word in requests(plane) if is_write(word))
    asked, before, started = len(requests(plane)), cpu_seconds(), time.monotonic()
    # A benchmark samples by the clock.
    time.sleep(REST_SECONDS)
    seconds = time.monotonic() - started
    used = difference(cpu_seconds(), before)
    return {
        "writes": dict(writes),
        "writes_per_pipeline": round(writes.total() / size, 2),
        "resident_mib": resident_kib(operator_pid) // 1024,
        "rest_cores": {name: round(value / seconds, 3) for name, value in used.items()},
        "rest_requests_per_second": round((len(requests(plane)) - asked) / seconds, 2),
        "rest_writes": sum(map(is_write, requests(plane)[asked:])),
    }


@contextmanager
def cluster() -> Iterator[tuple[NoNodes, client.ApiClient]]:
    """A control plane with the resource definition and the namespace, and a client of it."""
    with tempfile.TemporaryDirectory() as directory, NoNodes(Path(directory)) as plane:
        plane.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        plane.kubectl("create", "namespace", NAMESPACE)
        plane.kubectl("wait", "--for=condition=Established", "crd/embeddingpipelines.embeddings.dev", "--timeout=30s")
        yield plane, config.new_client_from_config(str(plane.layout.kubeconfig))


@contextmanager
def process(plane: NoNodes) -> Iterator[int]:
    """The operator, with exactly the rights that the chart gives it."""
    plane.kubectl("create", "namespace", RELEASE_NAMESPACE)
    chart = (str(ROOT / "charts" / "embedding-service"), "--namespace", RELEASE_NAMESPACE)
    only = ("--kube-version", "1.34", "--show-only", "templates/operator/rbac.yaml")
    rights = run(tools.path("helm"), "template", RELEASE, *chart, *only).stdout
    plane.kubectl("apply", "-f", "-", stdin=rights)
    environment = {
        "KUBECONFIG": str(plane.service_account(RELEASE_NAMESPACE, OPERATOR)),
        "EMBEDDING_OPERATOR_WORKER_IMAGE": SETTINGS.worker_image,
        "EMBEDDING_OPERATOR_HTTP_PORT": str(SETTINGS.http_port),
    }
    log = OUTPUT.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        started = subprocess.Popen(
            [Path(sys.executable).with_name("embedding-operator"), "run"],
            env=os.environ | environment,
            stdout=output,
            stderr=output,
        )
        try:
            wait_until(lambda: is_ready(started), 60, f"the operator isn't ready; {log} says why")
            yield started.pid
        finally:
            started.send_signal(signal.SIGTERM)
            started.wait(timeout=60)


def is_ready(operator_process: subprocess.Popen[bytes]) -> bool:
    """Whether the operator says that it is."""
    if operator_process.poll() is not None:
        sys.exit(f"the operator ended with {operator_process.returncode}")
    address = f"http://localhost:{SETTINGS.http_port}/readyz"
    return subprocess.run(["curl", "--fail", "--silent", address], check=False, capture_output=True).returncode == 0


def pipeline(number: int, servers: str) -> Object:
    """The smallest pipeline. All read one topic and write to their own."""
    return {
        "apiVersion": "embeddings.dev/v1alpha1",
        "kind": "EmbeddingPipeline",
        "metadata": {"name": f"pipeline-{number}", "namespace": NAMESPACE},
        "spec": {
            "kafka": {"bootstrapServers": [servers]},
            "input": {"topic": INPUT},
            "output": {"topic": f"out-{number}"},
        },
    }


def timed_apply(plane: NoNodes, objects: Iterable[Object]) -> float:
    """Seconds that ``kubectl`` needs to apply objects."""
    text = "\n---\n".join(json.dumps(one) for one in objects)
    started = time.monotonic()
    plane.kubectl("apply", "--server-side", "-f", "-", stdin=text)
    return round(time.monotonic() - started, 1)


def timed_topics(servers: str, wanted: list[str]) -> float:
    """Seconds that Kafka needs to create topics, of which it is told at once."""
    started = time.monotonic()
    with AdminClient({"bootstrap.servers": servers}) as admin:
        new = [NewTopic(name, num_partitions=1) for name in wanted]
        for future in admin.create_topics(new, operation_timeout=LIMIT_SECONDS, request_timeout=LIMIT_SECONDS).values():
            future.result()
    return round(time.monotonic() - started, 1)


def stored_pipelines(api: client.ApiClient) -> list[Object]:
    """All pipelines as the API server has them."""
    pipelines = client.CustomObjectsApi(api)
    answer: Any = pipelines.list_namespaced_custom_object("embeddings.dev", "v1alpha1", NAMESPACE, "embeddingpipelines")
    found: list[Object] = answer["items"]
    return found


def complete(api: client.ApiClient, size: int) -> bool:
    """Whether every pipeline has its objects, and a status of its generation that knows of its topics."""
    core, policy = client.CoreV1Api(api), client.PolicyV1Api(api)
    counts = (
        # What is made last is looked at first; a count costs the API server next to nothing.
        (client.AppsV1Api(api).list_namespaced_deployment, 0),
        (policy.list_namespaced_pod_disruption_budget, 0),
        (core.list_namespaced_service, 0),
        (core.list_namespaced_config_map, CONFIG_MAPS_OF_KUBERNETES),
    )
    return all(count(listing) == size + more for listing, more in counts) and all(
        is_told(found) for found in stored_pipelines(api)
    )


def count(listing: Any) -> int:
    """How many objects there are of a kind."""
    page = listing(NAMESPACE, limit=1)
    return len(page.items) + (page.metadata.remaining_item_count or 0)


def is_told(found: Object) -> bool:
    """Whether a status speaks of the current generation, and of topics that are there."""
    conditions: list[Object] = found.get("status", {}).get("conditions", [])
    wanted = ("TopicsReady", "True", found["metadata"]["generation"])
    return any((one["type"], one["status"], one["observedGeneration"]) == wanted for one in conditions)


def requests(plane: NoNodes) -> list[str]:
    """What the operator asked of the API server, by the audit log: verb and resource."""
    user = f"system:serviceaccount:{RELEASE_NAMESPACE}:{OPERATOR}"
    with plane.layout.audit_log.open() as lines:
        events = (json.loads(line) for line in lines if user in line and line.endswith("\n"))
        return [what(event["verb"], event["objectRef"]) for event in events if "objectRef" in event]


def what(verb: str, reference: Object) -> str:
    """A request in two words."""
    return f"{verb} {'/'.join(reference[key] for key in ('resource', 'subresource') if reference.get(key))}"


def is_write(request: str) -> bool:
    """Whether a request changes anything."""
    return request.split()[0] in ("create", "update", "patch", "delete")


def quiet(plane: NoNodes) -> bool:
    """Whether the operator writes nothing for a while."""
    before = sum(map(is_write, requests(plane)))
    time.sleep(QUIET_SECONDS)
    return sum(map(is_write, requests(plane))) == before


def cpu_seconds() -> dict[str, float]:
    """CPU time of every process in this network, by its name."""
    found: Counter[str] = Counter()
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = file.read_text().partition("(")[2].rpartition(")")
        except OSError:
            # It has ended.
            continue
        fields = rest.split()
        found[name] += int(fields[11]) + int(fields[12])
    kept = ("embedding-opera", "kube-apiserver", "etcd", "kube-controller", "java")
    return {name: found[name] / TICKS for name in kept}


def difference(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """What was used between two readings."""
    return {name: round(after[name] - before[name], 1) for name in after}


def say(line: str) -> None:
    """Print at once, with the load of the machine."""
    print(f"{line} (load {os.getloadavg()[0]:.1f})", flush=True)


def report(rows: list[Object]) -> None:
    """Print the figures and write them."""
    result = {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "machine": machine("kubernetes", "kopf", "confluent-kafka"),
        "rows": rows,
    }
    OUTPUT.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(yaml.safe_dump(rows, sort_keys=False))
    print(f"figures: {OUTPUT.relative_to(ROOT)}")
    slow = [
        f"{row['pipelines']} pipelines, {name}: {row[name]['ratio']}"
        for row in rows
        for name in ("topics_there", "topics_created")
        if row[name]["ratio"] > MOST_TIMES_KUBECTL
    ]
    if slow:
        sys.exit(f"over {MOST_TIMES_KUBECTL} times as long as kubectl for the same objects: {'; '.join(slow)}")


if __name__ == "__main__":
    main()

"""How long after a pod's own status does the pipeline's follow? Both watched by one client, on the current cluster.

Needs an operator that is installed, and a Kafka that its pods reach. A pipeline is made to fail and to run again; each
time counts from the moment in which the watch of pods shows the fault, or the readiness, to the moment in which the
watch of pipelines shows what follows from it. Prints the median and the longest; writes all of them to
``out/benchmarks/status_latency.json``.
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from kubernetes import config, watch
from kubernetes.client import CoreV1Api, CustomObjectsApi, V1Namespace, V1ObjectMeta

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "testing"))

from waiting import wait_until  # noqa: E402 - needs the path above

OUTPUT = ROOT / "out" / "benchmarks" / "status_latency.json"
GROUP, VERSION, PLURAL = "embeddings.dev", "v1alpha1", "embeddingpipelines"
NAME = "watched"
FAULT_ROUNDS, READY_ROUNDS = 10, 3
WAIT_SECONDS = 300
NOWHERE = {"benchmark.example/no-such-node": "none"}
NO_IMAGE = "registry.invalid/none:1"

Object = dict[str, Any]


class Seen:
    """When each thing was first seen, by the watches' threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # A pod's by its uid and its state, the pipeline's by its generation and its reason.
        self.pods: dict[tuple[str, str], float] = {}
        self.pipeline: dict[tuple[int, str], float] = {}

    def known_pods(self) -> set[str]:
        """The pods that were seen so far."""
        with self._lock:
            return {uid for uid, _ in self.pods}

    def pod(self, pod: Object) -> None:
        """A state of a pod."""
        with self._lock:
            self.pods.setdefault((pod["metadata"]["uid"], pod_state(pod)), time.monotonic())

    def pipelines(self, pipeline: Object) -> None:
        """A state of the pipeline."""
        found = [one for one in pipeline.get("status", {}).get("conditions", ()) if one["type"] == "WorkersReady"]
        if found:
            with self._lock:
                self.pipeline.setdefault((found[0]["observedGeneration"], found[0]["reason"]), time.monotonic())

    def latency(self, state: str, old: set[str], told: tuple[int, str]) -> float | None:
        """From a new pod's state to what the pipeline tells of it; ``None`` before both were seen."""
        with self._lock:
            pods = [at for (uid, found), at in self.pods.items() if found == state and uid not in old]
            followed = self.pipeline.get(told)
        return followed - min(pods) if pods and followed is not None else None


def pod_state(pod: Object) -> str:
    """What a pod's status comes to, in the words of this benchmark."""
    status = pod.get("status", {})
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or ()}
    states = [one["state"] for one in status.get("containerStatuses") or ()]
    waiting = [state["waiting"]["reason"] for state in states if "waiting" in state]
    if conditions.get("PodScheduled") == "False":
        return "unschedulable"
    if waiting and waiting[0] in ("ErrImagePull", "ImagePullBackOff"):
        return "no image"
    return "ready" if conditions.get("Ready") == "True" else "starting"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap-servers", default="kafka.kafka.svc:9092", help="as pods reach it (%(default)s)")
    servers = parser.parse_args().bootstrap_servers
    config.load_kube_config()
    with namespace() as name:
        seen = Seen()
        CustomObjectsApi().create_namespaced_custom_object(GROUP, VERSION, name, PLURAL, pipeline(servers))
        follow(seen, name)
        rounds: list[tuple[str, str, Object]] = [
            ("unschedulable", "Unschedulable", {"worker": {"nodeSelector": NOWHERE, "image": None}}),
            ("no image", "ImagePullFailed", {"worker": {"nodeSelector": None, "image": NO_IMAGE}}),
        ] * FAULT_ROUNDS
        rounds += [("ready", "WorkersReady", {"worker": {"image": None, "nodeSelector": None}})] * READY_ROUNDS
        report([measure(seen, name, *entry) for entry in rounds])


def measure(seen: Seen, namespace: str, state: str, reason: str, spec: Object) -> tuple[str, float]:
    """Start a worker in this state, after the one before is gone; returns by how much the pipeline was later."""
    paused = (change(namespace, {"paused": True}), "Paused")
    wait_until(lambda: paused in seen.pipeline, WAIT_SECONDS, "the pipeline isn't paused")
    old = seen.known_pods()
    told = (change(namespace, {"paused": False} | spec), reason)

    def found() -> bool:
        return seen.latency(state, old, told) is not None

    wait_until(found, WAIT_SECONDS, f"no {state} pod, or no pipeline that says {reason}")
    latency = seen.latency(state, old, told)
    assert latency is not None  # it never becomes unseen
    return state, latency


def change(namespace: str, spec: Object) -> int:
    """Change the pipeline's spec; returns its new generation."""
    patch = CustomObjectsApi().patch_namespaced_custom_object
    changed = cast("Object", patch(GROUP, VERSION, namespace, PLURAL, NAME, {"spec": spec}))
    return int(changed["metadata"]["generation"])


@contextmanager
def namespace() -> Iterator[str]:
    """Make a namespace, and delete it."""
    name = f"status-latency-{uuid.uuid4().hex[:8]}"
    CoreV1Api().create_namespace(V1Namespace(metadata=V1ObjectMeta(name=name)))
    try:
        yield name
    finally:
        CoreV1Api().delete_namespace(name)


def pipeline(servers: str) -> Object:
    """The pipeline; nobody else's topics. The input topic stays, as it does after every pipeline."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "EmbeddingPipeline",
        "metadata": {"name": NAME},
        "spec": {
            "kafka": {"bootstrapServers": [servers]},
            "input": {"topic": "status-latency-in", "create": {"partitions": 1}},
            "output": {"topic": f"status-latency-{uuid.uuid4().hex[:8]}"},
            "worker": {"nodeSelector": NOWHERE, "resources": {"requests": {"cpu": "100m", "memory": "600Mi"}}},
        },
    }


def follow(seen: Seen, namespace: str) -> None:
    """Watch pods and pipelines from now on, in threads that end with the process."""

    def pods() -> None:
        for event in watch.Watch().stream(CoreV1Api().list_namespaced_pod, namespace):
            seen.pod(event["raw_object"])

    def pipelines() -> None:
        listing = CustomObjectsApi().list_namespaced_custom_object
        for event in watch.Watch().stream(listing, GROUP, VERSION, namespace, PLURAL):
            seen.pipelines(event["raw_object"])

    for target in (pods, pipelines):
        threading.Thread(target=target, daemon=True).start()


def report(found: list[tuple[str, float]]) -> None:
    """Print the figures and write all of them."""
    seconds = [one for _, one in found]
    result = {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "seconds": [[state, round(one, 3)] for state, one in found],
    }
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_text(json.dumps(result, indent=1), encoding="utf-8")
    for state in sorted({state for state, _ in found}):
        times = [one for known, one in found if known == state]
        print(f"{state}: {len(times)} times, median {statistics.median(times):.2f} s, longest {max(times):.2f} s")
    print(f"all: median {statistics.median(seconds):.2f} s, longest {max(seconds):.2f} s (the aim is 5 s)")
    print(f"load average while measured: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

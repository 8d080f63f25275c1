"""The cluster for tests does what the other tests take for granted."""

import json
import re
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from audit_requests import audit_log
from testcluster.cluster import Cluster
from testcluster.errors import CommandFailed
from testcluster.images import build_image
from waiting import wait_until

pytestmark = pytest.mark.slow

PROBE = Path(__file__).parent / "probe"
NAMESPACE = "testcluster"
LABELS = {"app": "probe"}


@pytest.fixture(scope="module")
def pod(cluster: Cluster) -> Iterator[Callable[[str], str]]:
    """Run the probe in a namespace that enforces ``restricted``; a function that runs Python in it."""
    image = cluster.load_image(build_image("probe", "embedding-probe:test", context=PROBE).reference)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
    cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted")
    wait_until(
        lambda: cluster.kubectl("-n", NAMESPACE, "get", "serviceaccount", "default", check=False).returncode == 0,
        120,
        "no service account",
    )
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "answers"},
        "spec": {"selector": LABELS, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    for item in (probe(image), service):
        cluster.kubectl("-n", NAMESPACE, "apply", "-f", "-", input=json.dumps(item))
    cluster.kubectl("-n", NAMESPACE, "wait", "pod/probe", "--for=condition=Ready", "--timeout=120s")
    yield lambda code: cluster.kubectl("-n", NAMESPACE, "exec", "probe", "--", "python", "-c", code).stdout
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def probe(image: str, **security: object) -> dict[str, object]:
    restricted = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    ready = {"httpGet": {"port": 8080}, "periodSeconds": 1}
    container = {"name": "probe", "image": image, "readinessProbe": ready, "securityContext": restricted | security}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "labels": LABELS},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }


def test_every_node_is_ready(cluster: Cluster) -> None:
    states = cluster.kubectl("get", "nodes", "-o", 'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}')
    assert set(states.stdout.split()) == {"True"}


@pytest.mark.usefixtures("pod")
def test_a_pod_finds_the_api_server_by_name_and_is_known_to_it(cluster: Cluster) -> None:
    version = json.loads(cluster.kubectl("-n", NAMESPACE, "logs", "probe").stdout)["gitVersion"]
    assert version == json.loads(cluster.kubectl("version", "-o", "json").stdout)["serverVersion"]["gitVersion"]


def test_a_pod_reaches_its_own_service_by_name(pod: Callable[[str], str]) -> None:
    answer = "__import__('urllib.request').request.urlopen('http://answers', timeout=10).status"
    code = f"try: print({answer})\nexcept OSError as error: print(error)"
    # kube-proxy hears of the pod a moment after it is Ready.
    wait_until(lambda: pod(code).strip() == "204", 120, "no answer of the Service to its own pod")


def test_a_pod_reaches_a_server_of_this_machine(cluster: Cluster, pod: Callable[[str], str]) -> None:
    class Hello(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello from the host")

        def log_message(self, *_arguments: object) -> None:
            """Not among the test's output."""

    with HTTPServer(("0.0.0.0", 0), Hello) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://{cluster.host_address}:{server.server_port}"
            assert (
                pod(f"import urllib.request as r; print(r.urlopen('{url}', timeout=10).read())")
                == "b'hello from the host'\n"
            )
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.usefixtures("pod")
def test_a_port_of_a_pod_can_be_forwarded_here(cluster: Cluster) -> None:
    command = ["kubectl", "-n", NAMESPACE, "port-forward", "pod/probe", ":8080"]
    with subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, text=True) as forward:
        try:
            assert forward.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
            assert found is not None
            with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}", timeout=10) as answer:
                assert answer.status == 204
        finally:
            forward.terminate()


@pytest.mark.usefixtures("pod")
def test_a_pod_that_is_not_restricted_is_refused(cluster: Cluster) -> None:
    loose = json.dumps(probe("embedding-probe:test", allowPrivilegeEscalation=True))
    with pytest.raises(CommandFailed, match='violates PodSecurity "restricted:latest": allowPrivilegeEscalation'):
        cluster.kubectl(
            "-n",
            NAMESPACE,
            "apply",
            "-f",
            "-",
            input=loose.replace('"name": "probe", "labels"', '"name": "loose", "labels"'),
        )


@pytest.mark.audit
@pytest.mark.usefixtures("pod")
def test_the_audit_log_has_what_service_accounts_ask_and_nothing_of_the_administrator(cluster: Cluster) -> None:
    # A line without its end is being written.
    lines = audit_log(cluster).read_bytes().rpartition(b"\n")[0].splitlines()
    events = [json.loads(line) for line in lines]
    asked = [event for event in events if event["user"]["username"] == f"system:serviceaccount:{NAMESPACE}:default"]
    assert "/version" in [event["requestURI"] for event in asked]
    assert {event["stage"] for event in events} <= {"ResponseStarted", "ResponseComplete", "Panic"}
    assert all(event["user"]["username"].startswith("system:serviceaccount:") for event in events)

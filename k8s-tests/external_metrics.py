"""What stands in for an adapter such as prometheus-adapter: serves the lag that the operator exports, as it does."""

import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import trustme
from kubernetes.config import new_client_from_config
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import DynamicApiError
from prometheus_client.parser import text_string_to_metric_families
from urllib3.exceptions import HTTPError

from hosted_api import Object, hosted_api
from system_fixtures import SYSTEM_NAMESPACE, System
from testcluster.cluster import Cluster

GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
_PATH = re.compile(rf"/apis/{GROUP}/{VERSION}/namespaces/(?P<namespace>[^/]+)/(?P<metric>[^/]+)")
_SERVICE = "embedding-embedding-service-operator-metrics:metrics"

# A metric's name and its labels → its values.
Values = Callable[[str, dict[str, str]], list[float]]


class Adapter:
    """Answers Kubernetes; while ``withdrawn`` it has no value of any metric, as where nothing was scraped."""

    def __init__(self, values: Values) -> None:
        self.withdrawn = False
        self._values = values

    def answer(self, path: str) -> Object:
        """The JSON at a path of the API."""
        parts = urlsplit(path)
        found = _PATH.fullmatch(parts.path)
        if found is None:
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": f"{GROUP}/{VERSION}",
                "resources": [],
            }
        selector = parse_qs(parts.query).get("labelSelector", [""])[0]
        labels = dict(term.split("=", 1) for term in selector.split(",") if term)
        values = [] if self.withdrawn else self._values(found["metric"], labels)
        return {
            "kind": "ExternalMetricValueList",
            "apiVersion": f"{GROUP}/{VERSION}",
            "metadata": {},
            "items": [_item(found["metric"], labels, value) for value in values],
        }


@contextmanager
def adapter(cluster: Cluster, values: Values) -> Iterator[Adapter]:
    """Run one while the block does."""
    answering = Adapter(values)

    class Handler(BaseHTTPRequestHandler):
        """Answers in JSON."""

        def do_GET(self) -> None:
            """Answer Kubernetes."""
            body = json.dumps(answering.answer(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer((cluster.host_address, 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, name="adapter")
    thread.start()
    try:
        with hosted_api(cluster, GROUP, VERSION, server.server_port):
            yield answering
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def exported(system: System) -> Values:
    """What the operator exports at the time; nothing where it doesn't answer."""
    # Discovery would only cost requests.
    client = DynamicClient(
        new_client_from_config(config_file=str(system.cluster.kubeconfig)), discoverer=lambda *_: None
    )
    path = f"/api/v1/namespaces/{SYSTEM_NAMESPACE}/services/{_SERVICE}/proxy/metrics"

    def values(metric: str, labels: dict[str, str]) -> list[float]:
        try:
            answer = client.request("get", path, serialize=False, _request_timeout=5)
        except (DynamicApiError, HTTPError):
            return []
        return samples(answer.data.decode(), metric, labels)

    return values


def samples(text: str, metric: str, labels: dict[str, str]) -> list[float]:
    """The values of a metric that has these labels, in Prometheus' own format."""
    found = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return [sample.value for sample in found if sample.name == metric and labels.items() <= sample.labels.items()]


def _item(metric: str, labels: dict[str, str], value: float) -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"metricName": metric, "metricLabels": labels, "timestamp": now, "value": f"{value:.0f}"}

"""Requests to an API server on this machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes.client import ApiClient, Configuration

from embedding_operator import cluster
from embedding_operator.cluster import Cluster

API = "metrics.k8s.io/v1beta1"


@contextmanager
def api_server(status: int | None) -> Iterator[Cluster]:
    """One that answers so to everything, or not at all."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if status is None:
                over.wait()
                return
            self.send_response(status if self.path == f"/apis/{API}" else 400)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            with ApiClient(Configuration(host=f"http://127.0.0.1:{server.server_port}")) as client:
                yield Cluster(client)
        finally:
            over.set()
            server.shutdown()
            serving.join()


# Who may not ask has not been told that there is none.
@pytest.mark.parametrize("status", [200, 403])
def test_an_api_is_served_where_the_api_server_says(status: int) -> None:
    with api_server(status) as asked:
        assert asked.serves(API)


@pytest.mark.parametrize("status", [404, 500, 502, 503, 504])
def test_an_api_is_not_served_where_the_api_server_says(status: int) -> None:
    with api_server(status) as asked:
        assert not asked.serves(API)


def test_an_api_behind_which_nobody_answers_is_not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_SERVES_SECONDS", (1.0, 0.1))
    with api_server(None) as asked:
        assert not asked.serves(API)


def test_without_an_api_server_nothing_is_served() -> None:
    with api_server(200) as asked:
        pass
    assert not asked.serves(API)

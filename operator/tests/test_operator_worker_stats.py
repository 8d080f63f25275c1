"""The worker's word on its model, asked over HTTP: the image may be anybody's."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from embedding_operator import worker_stats

Write = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def worker(monkeypatch: pytest.MonkeyPatch, write: Write) -> Iterator[None]:
    """A worker on this machine whose answers are written so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            write(self)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        monkeypatch.setattr(worker_stats, "_PORT", server.server_port)
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield
        finally:
            server.shutdown()
            serving.join()


def without_end(handler: BaseHTTPRequestHandler) -> None:
    try:
        while True:
            handler.wfile.write(b" " * 8192)
    except OSError:
        return


def a_byte_at_a_time(handler: BaseHTTPRequestHandler) -> None:
    gone = threading.Event()
    try:
        while not gone.wait(0.1):
            handler.wfile.write(b" ")
    except OSError:
        return


def something_else(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(json.dumps({"model": "none of that shape"}).encode())


@pytest.mark.parametrize("write", [without_end, a_byte_at_a_time, something_else])
def test_nothing_is_known_of_a_worker_that_answers(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    with worker(monkeypatch, write):
        assert worker_stats.ask("127.0.0.1", None) is None


def test_nothing_is_known_of_a_worker_that_is_not_there() -> None:
    assert worker_stats.ask("127.0.0.1", "a\ntoken that no header can hold") is None

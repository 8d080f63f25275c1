"""``POST /v1/embeddings`` over HTTP with a model of words: any request gets an answer that fits, at once."""

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from functools import partial
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import AuthenticationError, NotFoundError, OpenAI, RateLimitError
from openai.types import CreateEmbeddingResponse

import embedding_service.worker
from embedding_service.contract.fingerprint import EmbeddingContract
from embedding_service.contract.settings import Settings
from embedding_service.encoders.protocol import Encoder, LoadedModel, Matrix, Tokenized
from embedding_service.queries import MAX_BODY_BYTES, MAX_TEXTS
from embedding_service.web import HttpServer
from embedding_service.worker import Worker
from kafka_node import free_port
from waiting import wait_until
from word_encoder import GatedWordEncoder, WordEncoder

SECONDS = 30.0
MODEL = Settings().model.name


@dataclass
class Service:
    """A worker whose loop doesn't run, behind its HTTP server."""

    worker: Worker
    server: HttpServer

    @property
    def port(self) -> int:
        return self.worker.settings.http.port

    def load(self, encoder: Encoder) -> None:
        contract = EmbeddingContract({}, encoder.dimension, normalize=False, prompt=None, max_length=encoder.max_length)
        self.worker.use(LoadedModel(encoder, MODEL, "test", "", "cpu", "none", "float32", contract, 0.0, 0))

    def create(self, *, key: str = "unused", **fields: Any) -> CreateEmbeddingResponse:
        """As the client of OpenAI does it."""
        url = f"http://127.0.0.1:{self.port}/v1"
        with OpenAI(base_url=url, api_key=key, max_retries=0, timeout=SECONDS) as client:
            return client.embeddings.create(**fields)

    def ask(self, body: bytes) -> tuple[int, Message, Any]:
        """Status, headers and JSON."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/embeddings", data=body)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as response:
                return response.status, response.headers, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, json.loads(error.read())

    def metric(self, name: str, **labels: str) -> float:
        return self.worker.metrics.registry.get_sample_value(name, labels) or 0


@pytest.fixture
def serve() -> Iterator[Callable[..., Service]]:
    running: list[tuple[Worker, HttpServer]] = []

    def start(encoder: Encoder | None, **http: Any) -> Service:
        worker = Worker(Settings.model_validate({"http": {"host": "127.0.0.1", "port": free_port(), **http}}))
        worker.stop()
        server = HttpServer(worker)
        server.start()
        running.append((worker, server))
        service = Service(worker, server)
        if encoder is not None:
            service.load(encoder)
        return service

    yield start
    for worker, server in running:
        worker.close()
        server.stop()


def body(*texts: str) -> bytes:
    return json.dumps({"model": MODEL, "input": texts}).encode()


def test_it_answers_while_the_loop_is_stopped_and_counts(serve: Callable[..., Service]) -> None:
    service = serve(WordEncoder())
    status, _, found = service.ask(body("a b", "c"))
    assert (status, [one["embedding"] for one in found["data"]]) == (200, [[2.0, 97.0], [1.0, 99.0]])
    assert found["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert service.ask(b"{")[0] == 400
    assert service.metric("embedding_queries_total", status="200") == 1
    assert service.metric("embedding_queries_total", status="400") == 1
    assert service.metric("embedding_query_seconds_count") == 1


def test_the_openai_client_gets_floats_and_base64_alike(serve: Callable[..., Service]) -> None:
    service = serve(WordEncoder())
    # By default it asks for base64 and decodes it by itself.
    default = service.create(model=MODEL, input=["a b", "c"], user="alice")
    floats = service.create(model=MODEL, input=["a b", "c"], encoding_format="float")
    assert [one.embedding for one in default.data] == [one.embedding for one in floats.data] == [[2, 97], [1, 99]]
    assert (default.usage.prompt_tokens, default.usage.total_tokens) == (3, 3)
    with pytest.raises(NotFoundError) as caught:
        service.create(model="text-embedding-3-small", input="a")
    assert caught.value.code == "model_not_found"


def test_while_the_model_loads_it_says_so(serve: Callable[..., Service]) -> None:
    service = serve(None)
    status, headers, found = service.ask(body("a"))
    assert (status, headers["Retry-After"], found["error"]["code"]) == (503, "5", "model_loading")
    service.load(WordEncoder())
    assert service.ask(body("a"))[0] == 200


def test_a_model_that_fails_at_every_query_ends_the_worker_though_no_text_comes(serve: Callable[..., Service]) -> None:
    def fault(_texts: Sequence[str]) -> None:
        raise RuntimeError("CUDA error: the GPU is lost")

    service = serve(WordEncoder(fault))
    assert service.worker.failure is None
    assert service.ask(body("a"))[0] == 500
    assert str(service.worker.failure) == (
        "Crashed: the model fails at every text: RuntimeError: CUDA error: the GPU is lost"
    )


def test_livez_fails_where_a_query_hangs_in_the_model_and_recovers_with_it(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_service.worker, "_LIVE_SECONDS", 0.5)
    encoder = GatedWordEncoder()
    service = serve(encoder)
    assert service.worker.live()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(service.ask, body("a"))
        try:
            wait_until(lambda: not service.worker.live(), SECONDS, "it is live though a query hangs")
        finally:
            encoder.open.set()
        assert asked.result()[0] == 200
    wait_until(service.worker.live, SECONDS, "it isn't live again")


def test_a_token_guards_it(serve: Callable[..., Service]) -> None:
    service = serve(WordEncoder(), token="s3cret")
    assert service.create(key="s3cret", model=MODEL, input="a").data
    for key in ("wrong", "s3cre", "s3cret2"):
        with pytest.raises(AuthenticationError) as caught:
            service.create(key=key, model=MODEL, input="a")
        assert caught.value.code == "invalid_api_key"
    assert service.ask(body("a"))[1]["WWW-Authenticate"] == "Bearer"


def test_a_worker_that_nobody_may_stop_still_answers(serve: Callable[..., Service]) -> None:
    service = serve(WordEncoder(), control="off")
    assert service.ask(body("a"))[0] == 200


def test_too_many_texts_get_429_at_once_and_the_probes_answer(serve: Callable[..., Service]) -> None:
    encoder = GatedWordEncoder()
    service = serve(encoder)
    with ThreadPoolExecutor(2) as pool:
        many = [pool.submit(service.ask, body(*["a"] * MAX_TEXTS))]
        wait_until(lambda: service.worker.queries and service.worker.queries._waiting, SECONDS, "the texts wait")
        with pytest.raises(RateLimitError) as caught:
            service.create(model=MODEL, input=["b"] * 100)
        assert (caught.value.response.headers["Retry-After"], caught.value.code) == ("1", "overloaded")
        with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/livez") as response:
            assert response.status == 200
        encoder.open.set()
        assert [one.result(SECONDS)[0] for one in many] == [200]
    assert service.ask(body("b"))[0] == 200


def test_too_many_requests_get_429_at_once(serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedding_service.web_embeddings._MAX_REQUESTS", 2)
    encoder = GatedWordEncoder()
    service = serve(encoder)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(service.ask, body("a")) for _ in range(3)]
        wait_until(lambda: service.metric("embedding_queries_total", status="429"), SECONDS, "one is refused")
        encoder.open.set()
        assert sorted(one.result(SECONDS)[0] for one in asked) == [200, 200, 429]


def answer_to(port: int, head: bytes, sent: bytes) -> tuple[int, Any]:
    """Status and JSON of the answer to a request whose body never ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n" + sent)
        with HTTPResponse(connection) as response:
            response.begin()
            return response.status, json.loads(response.read())


def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(serve: Callable[..., Service]) -> None:
    status, found = answer_to(serve(WordEncoder()).port, b"Content-Length: 100000000", b"{")
    assert (status, found["error"]["code"]) == (413, "body_too_large")


def test_a_body_of_unknown_length_is_refused_where_it_becomes_too_large(serve: Callable[..., Service]) -> None:
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    status, found = answer_to(serve(WordEncoder()).port, b"Transfer-Encoding: chunked", chunk * 2 + b"1\r\n \r\n")
    assert (status, found["error"]["code"]) == (413, "body_too_large")


def test_a_body_of_the_largest_size_is_taken(serve: Callable[..., Service]) -> None:
    service = serve(WordEncoder())
    assert service.ask(body("a").ljust(MAX_BODY_BYTES))[0] == 200
    assert answer_to(service.port, b"Content-Length: %d" % (MAX_BODY_BYTES + 1), b"{")[0] == 413


def test_a_body_that_is_cut_off_harms_nobody(serve: Callable[..., Service]) -> None:
    service = serve(WordEncoder())
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    wait_until(lambda: service.metric("embedding_queries_total", status="400"), SECONDS, "it has been noticed")
    assert service.ask(body("a"))[0] == 200


def test_who_waits_when_the_worker_ends_is_told_so(serve: Callable[..., Service]) -> None:
    encoder = GatedWordEncoder()
    service = serve(encoder)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(service.ask, body("a"))]
        assert encoder.entered.wait(SECONDS)
        asked.append(pool.submit(service.ask, body("b")))
        wait_until(lambda: service.worker.queries and service.worker.queries._waiting == 1, SECONDS, "one waits")
        service.worker.close()
        encoder.open.set()
        assert sorted(one.result(SECONDS)[0] for one in asked) == [200, 503]
    assert service.ask(body("c"))[0] == 503


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_right = {"model": MODEL, "input": ["a", "b"]}
_not_a_text = _json.filter(lambda value: not isinstance(value, str))
_wrong_fields = st.one_of(
    st.tuples(st.just("input"), _not_a_text.filter(lambda value: not isinstance(value, list) or not value)),
    st.tuples(st.just("input"), st.lists(st.text(), max_size=3).flatmap(lambda some: _not_a_text.map(lambda bad: [*some, bad]))),
    st.tuples(st.just("model"), _json.filter(lambda value: value != MODEL)),
    st.tuples(st.just("encoding_format"), _json.filter(lambda value: value not in (None, "float", "base64"))),
    st.tuples(st.just("dimensions"), _json.filter(lambda value: value is not None)),
    st.tuples(st.just("user"), _json.filter(lambda value: not isinstance(value, str | None))),
    st.tuples(st.text().filter(lambda name: name not in ("input", "model", "encoding_format", "dimensions", "user")), _json),
)  # fmt: skip
_malformed = st.one_of(
    st.binary(),
    _json.map(lambda value: json.dumps(value).encode()),
    _wrong_fields.map(lambda field: json.dumps(_right | dict([field])).encode()),
    st.integers(0, len(json.dumps(_right)) - 1).map(lambda cut: json.dumps(_right).encode()[:cut]),
)


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Service]:
    worker = Worker(Settings.model_validate({"http": {"host": "127.0.0.1", "port": free_port()}}))
    worker.stop()
    server = HttpServer(worker)
    server.start()
    service = Service(worker, server)
    service.load(WordEncoder())
    yield service
    worker.close()
    server.stop()


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sent=_malformed)
def test_a_malformed_request_is_the_callers_fault_and_says_why(fuzzed: Service, sent: bytes) -> None:
    connection = HTTPConnection("127.0.0.1", fuzzed.port, timeout=SECONDS)
    connection.request("POST", "/v1/embeddings", sent)
    response = connection.getresponse()
    found = json.loads(response.read())
    connection.close()
    assert 400 <= response.status < 500, found
    assert found["error"].keys() == {"message", "type", "param", "code"}
    assert found["error"]["message"]


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.text(), min_size=1, max_size=40))
def test_any_texts_get_their_vectors(fuzzed: Service, texts: list[str]) -> None:
    status, _, found = fuzzed.ask(body(*texts))
    assert status == 200
    assert [one["embedding"][0] for one in found["data"]] == [len(text.split()) for text in texts]


class Wide(WordEncoder):
    """Vectors whose answers no socket holds."""

    dimension = 1_000

    def encode(self, batch: Sequence[Tokenized]) -> Matrix:
        return np.full((len(batch), self.dimension), 0.123456789, dtype=np.float32)


@contextmanager
def unread(service: Service) -> Iterator[socket.socket]:
    """A client whose answer is on its way, and more than sockets hold."""
    before = service.metric("embedding_queries_total", status="200")
    asked = body(*["a"] * MAX_TEXTS)
    with socket.create_connection(("127.0.0.1", service.port), timeout=SECONDS) as client:
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(asked)}\r\n\r\n"
        client.sendall(head.encode() + asked)
        answered = partial(service.metric, "embedding_queries_total", status="200")
        wait_until(lambda: answered() > before, SECONDS, "the answer is on its way")
        yield client


def test_a_client_that_does_not_read_its_answer_keeps_no_worker_from_ending(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedding_service.web._FINISH_SECONDS", 1.0)
    service = serve(Wide())
    with unread(service):
        ending = threading.Thread(target=service.server.stop, daemon=True)
        ending.start()
        ending.join(SECONDS)
        assert not ending.is_alive()


def test_an_answer_keeps_its_place_among_the_requests_until_it_is_read(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedding_service.web_embeddings._MAX_REQUESTS", 1)
    service = serve(Wide())
    with unread(service) as client:
        assert service.ask(body("b"))[0] == 429
        with HTTPResponse(client) as response:
            response.begin()
            assert len(json.loads(response.read())["data"]) == MAX_TEXTS
        wait_until(lambda: service.ask(body("b"))[0] == 200, SECONDS, "its place is free")


def test_a_client_that_does_not_read_its_answer_loses_its_place_and_the_rest(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedding_service.web_embeddings._MAX_REQUESTS", 1)
    monkeypatch.setattr("embedding_service.web_embeddings._PART_SECONDS", 0.1)
    service = serve(Wide())
    with unread(service) as client:
        wait_until(lambda: service.ask(body("b"))[0] == 200, SECONDS, "its place is free")
        with HTTPResponse(client) as response:
            response.begin()
            with pytest.raises(IncompleteRead):
                response.read()


def test_a_client_that_goes_away_before_it_has_read_its_answer_leaves_its_place(
    serve: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedding_service.web_embeddings._MAX_REQUESTS", 1)
    service = serve(Wide())
    with unread(service):
        pass
    wait_until(lambda: service.ask(body("b"))[0] == 200, SECONDS, "its place is free")

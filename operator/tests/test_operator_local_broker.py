"""The broker of a run: the one in memory, and what is done where a real one doesn't answer."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Producer

from embedding_operator.local import broker
from embedding_operator.local.errors import Interrupted, LocalError
from embedding_operator.local.stop import Stop
from embedding_service.contract.settings import KafkaSettings


@contextmanager
def silent(asked: Callable[[], None]) -> Iterator[str]:
    """A server that takes connections and answers nothing; ``asked`` is called at the first request."""
    done = threading.Event()

    def listen() -> None:
        with server.accept()[0] as connection:
            connection.recv(1)
            asked()
            done.wait()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            done.set()
        thread.join()


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """As though the broker had said that it has no topics, and then fallen silent."""
    monkeypatch.setattr("embedding_operator.local.broker._existing", lambda *_: set())


@pytest.mark.slow
def test_a_request_to_end_ends_the_wait_for_a_broker() -> None:
    stop = Stop()
    with silent(lambda: setattr(stop, "requested", True)) as servers, pytest.raises(Interrupted):
        broker.prepare(servers, KafkaSettings(), stop)


@pytest.mark.slow
@pytest.mark.usefixtures("reached")
def test_a_request_to_end_ends_the_wait_for_a_topic() -> None:
    stop = Stop()
    with silent(lambda: setattr(stop, "requested", True)) as servers, pytest.raises(Interrupted):
        broker.prepare(servers, KafkaSettings(), stop)


@pytest.mark.slow
@pytest.mark.usefixtures("reached")
def test_a_broker_that_never_makes_a_topic_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedding_operator.local.broker._REACH_SECONDS", 1.0)
    with silent(lambda: None) as servers, pytest.raises(LocalError, match="did not make the topic 'text-messages'"):
        broker.prepare(servers, KafkaSettings(), Stop())


@pytest.mark.slow
def test_the_broker_in_memory_has_the_topics_with_four_partitions_each_and_goes_at_the_end() -> None:
    with broker.in_memory(["one", "two", "three"]) as servers:
        client = Producer({"bootstrap.servers": servers, "allow.auto.create.topics": False})
        for topic in ("one", "two", "three"):
            assert len(client.list_topics(topic, timeout=10).topics[topic].partitions) == 4
        assert client.list_topics("four", timeout=10).topics["four"].error is not None
        del client
    host, _, port = servers.partition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))

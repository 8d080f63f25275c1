"""A real Apache Kafka for tests and benchmarks, which can go away and come back.

``with KafkaBroker() as kafka: Producer({"bootstrap.servers": kafka.bootstrap_servers})``
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

import kafka_node
from kafka_certificates import Certificates
from kafka_listeners import AUTHORIZATION, HOST, PLAIN, PLAIN_HOST, SECURED, Listener, secured_listeners
from kafka_node import DockerNode, JavaNode, Node
from kafka_source import KafkaUnavailable, Source, choose, fetch_jars, jars_directory, kafka_version, this_machine
from waiting import wait_until

READY_TIMEOUT_SECONDS = 120


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


class KafkaBroker:
    """A one-node Kafka: the cluster of KAFKA_BOOTSTRAP_SERVERS where that is set, else one started here.

    ``own``: start one in any case, to pause or kill it. ``host``: it can be reached at this address of the machine too,
    by pods for instance. ``secured``: it has listeners with TLS and SASL (``kafka_listeners``; at ``host``, where that
    is given), and who comes by these needs ACLs. ``announce`` is told in a line which Kafka was chosen.
    """

    def __init__(
        self,
        *,
        own: bool = False,
        host: str | None = None,
        secured: bool = False,
        announce: Callable[[str], None] = _to_stderr,
    ) -> None:
        self._own = own or host is not None or secured
        self._host = host
        self._announce = announce
        self._listeners: dict[str, Listener] = {}
        self.certificates = Certificates(["localhost", HOST, *_names(host)]) if secured else None
        self._node: Node | None = None
        self._bootstrap_servers = ""

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect, as host:port; empty before ``start``."""
        return self._bootstrap_servers

    def address(self, listener: str) -> str:
        """Where clients of a listener connect (``kafka_listeners``: its names)."""
        return self._listeners[listener].address

    @property
    def started_here(self) -> bool:
        """Whether this broker is ours to pause and kill, and gone after ``stop``."""
        return self._node is not None

    def start(self) -> Self:
        """Start Kafka and return once it answers.

        Raises ``KafkaUnavailable`` saying what to install, or with the broker's last words.
        """
        self._choose()
        try:
            self._start_node()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the broker and delete its data, where it was started here."""
        if self._node is not None:
            self._node.remove()
            self._node = None

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        self._ours().pause()

    def resume(self) -> None:
        """Let it go on after ``pause``."""
        self._ours().resume()
        # Its own controller may have fenced it meanwhile.
        self._wait_until_it_answers()

    def kill(self) -> None:
        """End it at once; ``restart`` brings it back with the same address and data."""
        self._ours().kill()

    def restart(self) -> None:
        """End it in good order where it still runs, start it with the same address and data, wait until it answers."""
        node = self._ours()
        if node.is_running():
            node.terminate()
        self._start_node()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _choose(self) -> None:
        machine = this_machine(os.environ)
        if self._own:
            machine = replace(machine, bootstrap_servers=None)
        source = choose(machine)
        if source is Source.GIVEN:
            self._bootstrap_servers = machine.bootstrap_servers or ""
        else:
            self._listen()
            listeners, more = list(self._listeners.values()), AUTHORIZATION if self.certificates else {}
            docker = source is Source.DOCKER
            self._node = DockerNode(listeners, more) if docker else JavaNode(self._jars(), listeners, more)
            self._bootstrap_servers = self.address(PLAIN)
        self._announce(f"Kafka: {source.value}, at {self._bootstrap_servers}")

    def _listen(self) -> None:
        """Choose the listeners and their ports."""
        first, second, *others = kafka_node.free_ports(2 + SECURED)
        listeners = [Listener(PLAIN, first)]
        if self._host is not None:
            listeners.append(Listener(PLAIN_HOST, second, self._host))
        if self.certificates is not None:
            listeners += secured_listeners(others, self._host or HOST, self.certificates)
        self._listeners = {listener.name: listener for listener in listeners}

    def _jars(self) -> Path:
        libs = jars_directory(os.environ)
        if not libs.is_dir():
            self._announce(f"Kafka {kafka_version()}: downloading its jars to {libs}")
            fetch_jars(libs)
        return libs

    def _ours(self) -> Node:
        if self._node is None:
            raise RuntimeError("only a running broker that was started here can be paused, killed or restarted")
        return self._node

    def _start_node(self) -> None:
        if self._node is not None:
            self._node.start()
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        # Nothing listens at first, and librdkafka would print that.
        config: dict[str, str | int | float | bool] = {
            "bootstrap.servers": self._bootstrap_servers,
            "log_level": 0,
            "reconnect.backoff.max.ms": 250,
        }
        try:
            wait_until(lambda: self._answers(config), READY_TIMEOUT_SECONDS, "no answer from Kafka")
        except TimeoutError as error:
            raise KafkaUnavailable(self._problem(str(error))) from None

    def _answers(self, config: dict[str, str | int | float | bool]) -> bool:
        """Whether the node serves every partition that it has."""
        if self._node is not None and not self._node.is_running():
            raise KafkaUnavailable(self._problem("Kafka ended instead of starting"))
        try:
            # One that has met the fenced broker may be told of no broker at all, and has nobody left to ask.
            with AdminClient(config) as client:
                metadata = client.list_topics(timeout=1)
        except KafkaException:
            return False
        if self._node is not None and metadata.cluster_id != self._node.cluster_id:
            # Somebody took the port first; ours is about to end for it.
            return False
        partitions = [partition for topic in metadata.topics.values() for partition in topic.partitions.values()]
        return bool(metadata.brokers) and all(partition.leader >= 0 for partition in partitions)

    def _problem(self, what: str) -> str:
        log = f"; its log ends:\n{self._node.log_tail()}" if self._node is not None else ""
        return f"{what} at {self._bootstrap_servers}{log}"


def _names(host: str | None) -> list[str]:
    # Also as a cluster would name it.
    return [] if host is None else [host, "kafka.kafka.svc"]

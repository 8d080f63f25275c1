"""One node of Apache Kafka (KRaft, broker and controller in one) as a process or a container of this machine.

Each node has a guard, a small process that waits for its standard input to close and then removes the node. The
kernel closes it however the test run ends, so no broker is left behind, not even by SIGKILL.
"""

import base64
import random
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from kafka_listeners import (
    LONG_SESSION,
    SHORT_SESSION,
    Listener,
    container_environment,
    properties_file,
    server_properties,
)
from kafka_source import KafkaUnavailable, kafka_version

HEAP = "-Xmx512m"
# Below every system's range of ephemeral ports: a client that dials a dead broker there could be given the very port
# as its own, and be connected to itself.
PORTS = range(20_000, 30_000)
# At INFO, the reason of a failed start is buried under the shutdown that follows.
LOG_LEVEL = "WARN"
LOG_TAIL_LINES = 40
DOCKER_TIMEOUT_SECONDS = 600


class Node(Protocol):
    """A Kafka node that can be started again with the data it had."""

    cluster_id: str

    def start(self) -> None:
        """Start it, or start it again; returns before it answers."""

    def is_running(self) -> bool:
        """Whether the process is there, answering or not."""

    def log_tail(self) -> str:
        """Return the last lines of its log."""

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""

    def resume(self) -> None:
        """Let it go on after ``pause``."""

    def kill(self) -> None:
        """End it at once, without a goodbye to its clients."""

    def terminate(self) -> None:
        """End it in good order."""

    def remove(self) -> None:
        """End it, and delete all it wrote."""


def free_port() -> int:
    """Find a port that nothing listens on now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Find ports that nothing listens on now, at any address of this machine."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise KafkaUnavailable(f"no {count} free ports in {PORTS.start}-{PORTS.stop - 1}")


def new_cluster_id() -> str:
    """Make a new id of a Kafka cluster: 22 characters of base64."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22]


class Guard:
    """Runs a shell script once this process lets go of it, or is gone."""

    def __init__(self, script: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", f"cat >/dev/null; {script}", "guard", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Ctrl-C at the terminal is for the test run, which then lets go.
            start_new_session=True,
        )

    def release(self) -> None:
        """Run the script now, and wait for its end."""
        self._process.communicate()


class JavaNode:
    """Kafka's jars on this machine's Java, in a temporary directory."""

    def __init__(self, libs: Path, listeners: Sequence[Listener], more: Mapping[str, str]) -> None:
        self.cluster_id = new_cluster_id()
        self._libs = libs
        self._listeners = listeners
        self._more = more
        self._directory = Path(tempfile.mkdtemp(prefix="kafka-"))
        self._pid_file = self._directory / "pid"
        self._properties = self._directory / "server.properties"
        self._log = self._directory / "kafka.log"
        self._controller_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard = Guard('kill -KILL "$(cat "$1/pid")" && sleep 1; rm -rf "$1"', str(self._directory))

    def start(self) -> None:
        """Start it, or start it again with the same ports and data."""
        if not self._properties.exists():
            self._format()
        else:
            self._configure(SHORT_SESSION)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._java("kafka.Kafka", str(self._properties)), stdout=log, stderr=log, start_new_session=True
            )
        self._pid_file.write_text(str(self._process.pid))

    def is_running(self) -> bool:
        """Whether the process is there, frozen or not."""
        return self._process is not None and self._process.poll() is None

    def log_tail(self) -> str:
        """Return the last lines of the broker's log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def pause(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM; a frozen process is let go on, or it would never see it."""
        self._signal(signal.SIGCONT)
        self._end(signal.SIGTERM)

    def remove(self) -> None:
        """End the process and delete its directory."""
        if self.is_running():
            self.kill()
        self._pid_file.unlink(missing_ok=True)
        self._guard.release()

    def _configure(self, session: Mapping[str, str]) -> None:
        properties = server_properties(self._listeners, self._controller_port, str(self._directory / "data"))
        self._properties.write_text(properties_file({**properties, **self._more, **session}))

    def _format(self) -> None:
        self._configure(LONG_SESSION)
        arguments = ["format", f"--cluster-id={self.cluster_id}", "--config", str(self._properties)]
        done = subprocess.run(
            self._java("kafka.tools.StorageTool", *arguments), capture_output=True, text=True, timeout=120, check=False
        )
        if done.returncode != 0:
            raise KafkaUnavailable(f"formatting Kafka's storage failed:\n{done.stdout}{done.stderr}")

    def _java(self, main_class: str, *arguments: str) -> list[str]:
        log_level = f"-Dlog4j2.level={LOG_LEVEL}"
        return ["java", HEAP, "-XX:+UseSerialGC", log_level, "-cp", f"{self._libs}/*", main_class, *arguments]

    def _signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process = self._running()
        process.send_signal(number)
        process.wait(timeout=60)
        self._pid_file.unlink()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError("this Kafka node is not running")
        return self._process


class DockerNode:
    """The image apache/kafka in a container; its data lives as long as the container."""

    def __init__(self, listeners: Sequence[Listener], more: Mapping[str, str]) -> None:
        self.cluster_id = new_cluster_id()
        self._listeners = listeners
        self._more = more
        self._name = f"kafka-for-tests-{uuid.uuid4().hex[:12]}"
        self._made = False
        self._guard = Guard('docker rm --force --volumes "$1"', self._name)

    def start(self) -> None:
        """Start it, or start it again with the same ports and data; the first time may pull the image."""
        if self._made:
            self._docker("start", self._name)
            return
        # Inside the container all addresses are its own; the host publishes each port at its address only.
        properties = server_properties(self._listeners, free_port(), "/var/lib/kafka/data", listen="0.0.0.0")
        variables = container_environment(properties | dict(self._more))
        variables |= {"CLUSTER_ID": self.cluster_id, "KAFKA_HEAP_OPTS": HEAP, "KAFKA_LOG4J_ROOT_LOGLEVEL": LOG_LEVEL}
        environment = [f"--env={key}={value}" for key, value in variables.items()]
        publish = [f"--publish={listener.address}:{listener.port}" for listener in self._listeners]
        self._docker(
            "run", "--detach", f"--name={self._name}", *publish, *environment, f"apache/kafka:{kafka_version()}"
        )
        self._made = True

    def is_running(self) -> bool:
        """Whether the container runs, frozen or not."""
        return self._docker("inspect", "--format={{.State.Running}}", self._name).strip() == "true"

    def log_tail(self) -> str:
        """Return the last lines of the container's log."""
        return self._docker("logs", f"--tail={LOG_TAIL_LINES}", self._name)

    def pause(self) -> None:
        """Freeze the container."""
        self._docker("pause", self._name)

    def resume(self) -> None:
        """Thaw the container."""
        self._docker("unpause", self._name)

    def kill(self) -> None:
        """SIGKILL."""
        self._docker("kill", self._name)

    def terminate(self) -> None:
        """SIGTERM, and SIGKILL after a minute."""
        self._docker("stop", "-t", "60", self._name)

    def remove(self) -> None:
        """Delete the container and its volumes."""
        self._guard.release()

    @staticmethod
    def _docker(*arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DOCKER_TIMEOUT_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise KafkaUnavailable(f"docker {arguments[0]} failed: {done.stdout.strip()}")
        return done.stdout

"""The tests' own Kafka: where it comes from, that it can go away and come back, and that nothing of it is left."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

import kafka_node
from embedding_service.contract.kafka import Connection, connection_config
from kafka_access import Acl, allow, set_password
from kafka_broker import KafkaBroker
from kafka_helpers import Record, committed_offsets, create_topics, end_offsets, group_lag, produce, read_all
from kafka_listeners import PLAIN_HOST, SASL_TLS, Listener
from kafka_source import KafkaUnavailable, Machine, Source, choose, fetch_jars, jars_directory, parse_java_version
from waiting import wait_until


def _machine(
    *,
    servers: str | None = None,
    java: int | None = None,
    jars: bool = False,
    maven: bool = False,
    docker: bool = False,
) -> Machine:
    return Machine(bootstrap_servers=servers, java=java, jars=jars, maven=maven, docker_runs=lambda: docker)


@pytest.mark.parametrize(
    ("machine", "source"),
    [
        (_machine(servers="kafka:9092", java=17, maven=True, docker=True), Source.GIVEN),
        (_machine(java=17, maven=True, docker=True), Source.JARS),
        (_machine(java=21, jars=True), Source.JARS),
        (_machine(java=11, maven=True, docker=True), Source.DOCKER),
        (_machine(java=17, docker=True), Source.DOCKER),
        (_machine(servers="", docker=True), Source.DOCKER),
    ],
)
def test_kafka_is_the_given_one_else_jars_else_docker(machine: Machine, source: Source) -> None:
    assert choose(machine) is source


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (
            _machine(),
            r"install Java 17 or newer \(Debian: .*\) and Maven \(Debian: .*\); or start a Docker engine; or set KAFKA",
        ),
        (_machine(java=11, maven=True), r"install Java 17 or newer \(found 11\) \(Debian: [^)]*\); or"),
        (_machine(java=17), r"install Maven \(Debian: [^)]*\); or"),
    ],
)
def test_where_there_is_no_kafka_the_error_says_what_to_install(machine: Machine, expected: str) -> None:
    with pytest.raises(KafkaUnavailable, match=expected):
        choose(machine)


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15\nOpenJDK Runtime Environment', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('java version "1.8.0_392"', 8),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "25-ea" 2025-09-16', 25),
        ("bash: java: something else", None),
    ],
)
def test_java_tells_its_version_in_several_ways(output: str, version: int | None) -> None:
    assert parse_java_version(output) == version


def test_jars_are_cached_where_the_user_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    assert jars_directory({"XDG_CACHE_HOME": "/c"}).match("/c/embedding-service/kafka-*/libs")
    assert jars_directory({}).match("/home/u/.cache/embedding-service/kafka-*/libs")


def test_a_failed_download_leaves_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path / "mvn", "echo no route to host; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    libs = tmp_path / "cache" / "libs"
    with pytest.raises(KafkaUnavailable, match=r"dependency:copy-dependencies(.|\n)*no route to host"):
        fetch_jars(libs)
    assert list(libs.parent.iterdir()) == []


def test_a_download_that_comes_second_keeps_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libs = tmp_path / "cache" / "libs"
    # The other run ends while this one's Maven is at work.
    _program(
        tmp_path / "mvn",
        f'for last; do :; done; mkdir -p "${{last#*=}}" {libs}; touch "${{last#*=}}/mine" {libs}/first',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    fetch_jars(libs)
    assert [path.name for path in libs.iterdir()] == ["first"]
    assert list(libs.parent.iterdir()) == [libs]


def test_a_container_has_kafkas_configuration_and_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = tmp_path / "calls"
    _program(tmp_path / "docker", f'printf "%s\\n" "$*" >> {calls}; [ "$1" != inspect ] || echo true')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    listeners = [Listener("PLAINTEXT", 20_001), Listener("HOST", 20_002, "10.0.0.1", properties={"a.b-c": "1\n2"})]
    node = kafka_node.DockerNode(listeners, {"super.users": "User:me"})
    node.start()
    assert node.is_running()
    node.pause()
    node.resume()
    node.kill()
    node.start()
    node.terminate()
    node.remove()
    run, *rest = calls.read_text().splitlines()
    assert "--publish=127.0.0.1:20001:20001 --publish=10.0.0.1:20002:20002" in run
    assert "--env=KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://127.0.0.1:20001,HOST://10.0.0.1:20002" in run
    assert "--env=KAFKA_LISTENERS=PLAINTEXT://0.0.0.0:20001,HOST://0.0.0.0:20002,CONTROLLER://127.0.0.1:" in run
    assert "--env=KAFKA_LISTENER_NAME_HOST_A_B___C=1\\n2" in run
    assert "--env=KAFKA_SUPER_USERS=User:me" in run
    assert "--env=KAFKA_AUTO_CREATE_TOPICS_ENABLE=false" in run
    assert [call.split()[0] for call in rest] == ["inspect", "pause", "unpause", "kill", "start", "stop", "rm"]


def test_a_given_cluster_is_not_ours_to_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kafka_broker.READY_TIMEOUT_SECONDS", 0)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    broker = KafkaBroker(announce=lambda _: None)
    with pytest.raises(KafkaUnavailable, match=r"no answer from Kafka.* at 127\.0\.0\.1:1"):
        broker.start()
    with pytest.raises(RuntimeError, match="started here"):
        broker.kill()


def test_wait_until_tells_what_it_waited_for_and_what_it_saw_last() -> None:
    seen = iter([0, 0, 7])
    assert wait_until(lambda: next(seen), 5, "a number", interval=0) == 7
    with pytest.raises(TimeoutError, match=r"the lag is 0: not within 0 s; last seen: \[\]"):
        wait_until(list[int], 0, "the lag is 0")


@pytest.mark.slow
def test_a_given_cluster_is_used_and_left_running(
    kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch, unique: str
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    told: list[str] = []
    with KafkaBroker(announce=told.append) as given:
        assert given.bootstrap_servers == kafka.bootstrap_servers
        assert not given.started_here
    assert told == [f"Kafka: the cluster of KAFKA_BOOTSTRAP_SERVERS, at {kafka.bootstrap_servers}"]
    create_topics(kafka.bootstrap_servers, [unique], partitions=1)
    assert end_offsets(kafka.bootstrap_servers, unique) == {0: 0}


@pytest.mark.slow
def test_a_killed_or_paused_broker_comes_back_with_its_records(private_kafka: KafkaBroker, unique: str) -> None:
    servers = private_kafka.bootstrap_servers
    create_topics(servers, [unique])
    produce(servers, [Record(unique, value=b"before")])

    private_kafka.kill()
    private_kafka.restart()
    assert private_kafka.bootstrap_servers == servers
    assert [message.value() for message in read_all(servers, unique)] == [b"before"]

    private_kafka.pause()
    with pytest.raises(KafkaException, match="_MSG_TIMED_OUT"):
        produce(servers, [Record(unique, value=b"never sent")], timeout=1)
    private_kafka.resume()
    produce(servers, [Record(unique, value=b"after")])
    assert {message.value() for message in read_all(servers, unique)} == {b"before", b"after"}


@pytest.mark.slow
def test_a_broker_that_cannot_start_says_why(private_kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = int(private_kafka.bootstrap_servers.rpartition(":")[2])
    others = kafka_node.free_ports(7)
    # First for the listeners, then for the controller.
    ports = iter([[taken, *others], others[-1:]])
    monkeypatch.setattr("kafka_node.free_ports", lambda _: next(ports))
    with pytest.raises(KafkaUnavailable, match=r"Kafka ended instead of starting(.|\n)*Address already in use"):
        KafkaBroker(own=True, announce=lambda _: None).start()


@pytest.mark.slow
def test_a_broker_can_be_reached_at_a_second_address_too_plain_and_secured(unique: str) -> None:
    # Any address of the loopback network stands for a bridge's.
    with KafkaBroker(host="127.0.0.2", secured=True, announce=lambda _: None) as broker:
        assert broker.certificates is not None
        set_password(broker.bootstrap_servers, "alice", "secret")
        create_topics(broker.address(PLAIN_HOST), [unique])
        allow(broker.bootstrap_servers, "alice", [Acl("READ", "TOPIC", unique)])
        secured = Connection(
            (broker.address(SASL_TLS),),
            True,
            broker.certificates.ca_pem,
            None,
            None,
            "SCRAM-SHA-512",
            "alice",
            "secret",
        )
        with AdminClient(connection_config(secured)) as admin:
            metadata = admin.list_topics(timeout=30)
            assert list(metadata.topics) == [unique], "the internal ones aren't alice's to see"
            assert metadata.brokers[1].host == "127.0.0.2"


@pytest.mark.slow
def test_nothing_is_left_of_a_broker_whose_test_run_was_killed(tmp_path: Path) -> None:
    code = "from kafka_broker import KafkaBroker; KafkaBroker(own=True).start(); print('up', flush=True); input()"
    environment = os.environ | {"PYTHONPATH": str(Path(kafka_node.__file__).parent), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as run:
        assert run.stdout
        assert run.stdout.readline() == b"up\n"
        [directory] = tmp_path.glob("kafka-*")
        pid = int((directory / "pid").read_text())
        run.send_signal(signal.SIGKILL)
    wait_until(lambda: not _alive(pid), 30, f"Kafka, process {pid}, is gone")
    wait_until(lambda: not directory.exists(), 30, f"{directory} is gone")


@pytest.mark.slow
def test_records_are_read_as_they_were_produced(kafka: KafkaBroker, unique: str) -> None:
    servers = kafka.bootstrap_servers
    create_topics(servers, [unique], partitions=3)
    headers = [("a", b"1"), ("a", None)]
    delivered = produce(servers, [Record(unique, 1, b"k", b"v", headers), (unique, 2, None, None, [])])
    assert [(message.partition(), message.offset()) for message in delivered] == [(1, 0), (2, 0)]
    messages = {message.partition(): message for message in read_all(servers, unique)}
    assert (messages[1].key(), messages[1].value(), messages[1].headers()) == (b"k", b"v", headers)
    assert (messages[2].key(), messages[2].value()) == (None, None)
    assert len(read_all(servers, unique, count=2)) == 2
    with pytest.raises(TimeoutError, match=r"2 records of .* wanted 3"):
        read_all(servers, unique, count=3, timeout=5)


@pytest.mark.slow
def test_a_group_that_committed_nothing_lags_by_everything(kafka: KafkaBroker, unique: str) -> None:
    create_topics(kafka.bootstrap_servers, [unique], partitions=2)
    produce(kafka.bootstrap_servers, [Record(unique, partition=number % 2, value=b"v") for number in range(5)])
    assert end_offsets(kafka.bootstrap_servers, unique) == {0: 3, 1: 2}
    assert committed_offsets(kafka.bootstrap_servers, unique, unique) == {}
    assert group_lag(kafka.bootstrap_servers, unique, unique) == 5


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

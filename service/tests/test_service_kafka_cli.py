"""``kafka-cli`` against a real Kafka, as a console script and as ``python kafka_cli.py``."""

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from embedding_service.kafka_cli import json_line, main
from kafka_broker import KafkaBroker
from kafka_helpers import Record, create_topics, delete_topics, produce, read_all, topic_names
from service_fixtures import Stream
from worker_process import WorkerProcess

ROOT = Path(__file__).parents[2]
SCRIPT = [str(Path(sys.executable).with_name("kafka-cli"))]
FILE = [sys.executable, "kafka_cli.py"]
NOWHERE = "127.0.0.1:1"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli(kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("EMBEDDING_KAFKA__BOOTSTRAP_SERVERS", kafka.bootstrap_servers)

    def run(*arguments: str | bytes, command: list[str] = SCRIPT) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)

    return run


def _documents(done: "subprocess.CompletedProcess[str]") -> list[object]:
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _reading(kafka: KafkaBroker, topic: str, *options: str) -> "subprocess.Popen[bytes]":
    command = [*SCRIPT, "read", topic, *options, "--bootstrap-servers", kafka.bootstrap_servers]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
@pytest.mark.parametrize("command", [SCRIPT, FILE], ids=["kafka-cli", "python kafka_cli.py"])
def test_the_sequence_of_the_original_readme_works(cli: Run, command: list[str], unique: str) -> None:
    before = time.time()
    created = cli("create-topic", unique, command=command)
    assert (created.returncode, created.stdout, created.stderr) == (0, f"created topic {unique}\n", "")

    texts = ["Hello, this is a test message!", "Another message for embedding generation"]
    written = [_documents(cli("write", unique, text, command=command))[0] for text in texts]
    records = _documents(cli("read", unique, "--max-messages", "2", command=command))

    assert isinstance(records[0], dict)
    assert list(records[0]) == ["id", "text", "timestamp", "source"]
    assert before <= records[0]["timestamp"] <= time.time()
    assert uuid.UUID(records[0]["id"]).version == 4
    found = {record["id"]: (record["text"], record["source"]) for record in records if isinstance(record, dict)}
    positions = [position for position in written if isinstance(position, dict)]
    assert found == {position["id"]: (text, "kafka-cli") for position, text in zip(positions, texts, strict=True)}
    assert {position["topic"] for position in positions} == {unique}


@pytest.mark.slow
def test_create_topic_takes_partitions_replication_and_configuration(cli: Run, kafka: KafkaBroker, unique: str) -> None:
    options = [
        "--partitions",
        "3",
        "--replication-factor",
        "1",
        "--config",
        "cleanup.policy=compact",
        "retention.ms=-1",
    ]
    assert cli("create-topic", unique, *options).returncode == 0
    produce(kafka.bootstrap_servers, [Record(unique, partition=2, key=b"k", value=b"v")])
    # Only a compacted topic refuses a record without a key.
    refused = cli("write", unique, "no key")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"kafka-cli: topic {unique} at {kafka.bootstrap_servers}: ")
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_a_topic_that_exists_is_an_error_unless_that_is_allowed(cli: Run, kafka: KafkaBroker, unique: str) -> None:
    cli("create-topic", unique)
    again = cli("create-topic", unique)
    allowed = cli("create-topic", unique, "--if-not-exists")
    assert (again.returncode, again.stderr) == (
        1,
        f"kafka-cli: topic {unique} exists already at {kafka.bootstrap_servers}; with --if-not-exists that is no error\n",
    )
    assert (allowed.returncode, allowed.stdout) == (0, f"topic {unique} exists already\n")


@pytest.mark.slow
def test_write_takes_id_key_and_source_and_tells_where_the_record_went(
    cli: Run, kafka: KafkaBroker, unique: str
) -> None:
    create_topics(kafka.bootstrap_servers, [unique], partitions=1)
    text = 'Grüße, "日本" 🙂'
    options = ["--id", "id-1", "--key", "schlüssel", "--source", "test"]
    assert _documents(cli("write", unique, text, *options)) == [
        {"id": "id-1", "topic": unique, "partition": 0, "offset": 0}
    ]
    [message] = read_all(kafka.bootstrap_servers, unique)
    assert message.key() == "schlüssel".encode()
    record = json.loads(message.value() or b"")
    assert (record["id"], record["text"], record["source"]) == ("id-1", text, "test")


@pytest.mark.slow
def test_the_broker_may_be_named_before_or_after_the_verb(
    cli: Run, kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch, unique: str
) -> None:
    monkeypatch.setenv("EMBEDDING_KAFKA__BOOTSTRAP_SERVERS", NOWHERE)
    servers = ["--bootstrap-servers", kafka.bootstrap_servers]
    assert cli(*servers, "create-topic", unique).returncode == 0
    assert cli("write", unique, "a text", *servers).returncode == 0


@pytest.mark.slow
def test_read_shows_every_kind_of_value_as_one_line(cli: Run, kafka: KafkaBroker, unique: str) -> None:
    create_topics(kafka.bootstrap_servers, [unique], partitions=1)
    values = [b'{"embedding": [0.10, -1e-05]}', b"not JSON", None, b'{\n"a": 1\n}', b"\xff"]
    produce(kafka.bootstrap_servers, [Record(unique, value=value) for value in values])
    done = cli("read", unique, "--timeout", "5")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ['{"embedding": [0.10, -1e-05]}', '"not JSON"', "null", '{"a":1}', r'"\\xff"']


@pytest.mark.slow
def test_read_ends_after_max_messages_and_leaves_no_group_behind(cli: Run, kafka: KafkaBroker, unique: str) -> None:
    create_topics(kafka.bootstrap_servers, [unique], partitions=1)
    produce(kafka.bootstrap_servers, [Record(unique, value=str(number).encode()) for number in range(5)])
    assert _documents(cli("read", unique, "--max-messages", "3", "--from-beginning")) == [0, 1, 2]
    with AdminClient({"bootstrap.servers": kafka.bootstrap_servers}) as admin:
        groups = {group.group_id for group in admin.list_consumer_groups().result().valid}
    assert "kafka-cli" not in groups


@pytest.mark.slow
def test_read_from_the_end_shows_only_what_comes_later(kafka: KafkaBroker, unique: str) -> None:
    create_topics(kafka.bootstrap_servers, [unique])
    produce(kafka.bootstrap_servers, [Record(unique, value=b'"before"')])
    with _reading(kafka, unique, "--from-end", "--max-messages", "1") as process:
        assert process.stderr
        assert process.stderr.readline() == f"kafka-cli: reading {unique} from its end\n".encode()
        produce(kafka.bootstrap_servers, [Record(unique, value=b'"after"')])
        assert process.communicate(timeout=30) == (b'"after"\n', b"")
    assert process.returncode == 0


@pytest.mark.slow
@pytest.mark.usefixtures("cli")
def test_a_roundtrip_waits_for_topics_and_worker_and_tells_of_the_embedding(
    stream: Stream, worker: Callable[..., WorkerProcess], kafka: KafkaBroker
) -> None:
    delete_topics(kafka.bootstrap_servers, [stream.input, stream.output])
    command = [*SCRIPT, "roundtrip", stream.input, stream.output, "a text", "--timeout", "180"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        for topic in (stream.input, stream.output):
            assert process.stderr.readline() == f"kafka-cli: waiting for the topic {topic}\n".encode()
            create_topics(kafka.bootstrap_servers, [topic])
        assert (
            process.stderr.readline()
            == f"kafka-cli: wrote a text to {stream.input}; waiting for its embedding\n".encode()
        )
        # What others write there meanwhile is not it.
        produce(kafka.bootstrap_servers, [Record(stream.output, value=value) for value in (b"no JSON", b"[]", None)])
        worker()
        told = json.loads(process.stdout.read())
    assert process.returncode == 0
    values = [message.value() or b"" for message in stream.outputs(4)]
    (output,) = (json.loads(value) for value in values if b"original_text" in value)
    assert told["id"] == output["id"]
    assert (told["model_name"], told["embedding_dimension"]) == (output["model_name"], len(output["embedding"]))


@pytest.mark.slow
def test_a_roundtrip_without_a_worker_ends_in_one_line(cli: Run, stream: Stream) -> None:
    done = cli("roundtrip", stream.input, stream.output, "a text", "--timeout", "1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        f"kafka-cli: no embedding in {stream.output} within 1 s of a text written to {stream.input}; is a worker running?"
    )


@pytest.mark.slow
def test_a_roundtrip_names_the_topic_that_does_not_come(cli: Run, kafka: KafkaBroker, unique: str) -> None:
    create_topics(kafka.bootstrap_servers, [unique])
    done = cli("roundtrip", unique, f"{unique}-out", "a text", "--timeout", "1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"kafka-cli: no topic {unique}-out at {kafka.bootstrap_servers};")


@pytest.mark.slow
@pytest.mark.parametrize("verb", [["read"], ["write"]], ids=["read", "write"])
def test_a_missing_topic_is_named_and_not_made(cli: Run, kafka: KafkaBroker, verb: list[str], unique: str) -> None:
    done = cli(*verb, unique, *(["a text"] if verb == ["write"] else []))
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        f"kafka-cli: no topic {unique} at {kafka.bootstrap_servers}; `kafka-cli create-topic {unique}` makes it\n",
    )
    assert unique not in topic_names(kafka.bootstrap_servers)


@pytest.mark.slow
@pytest.mark.parametrize("topic", ["not a topic", "a" * 300, ".."])
def test_an_illegal_name_is_told_in_one_line(cli: Run, topic: str) -> None:
    for arguments in (["create-topic", topic], ["write", topic, "a text"], ["read", topic]):
        done = cli(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith(f"kafka-cli: topic {topic} at ")
        assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["read", "t"], ["write", "t", "a text"], ["create-topic", "t"]])
def test_an_unreachable_broker_is_named_in_one_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("embedding_service.brokers.BROKER_TIMEOUT_SECONDS", 1.0)
    assert main([*arguments, "--bootstrap-servers", NOWHERE]) == 1
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"kafka-cli: no broker answers at {NOWHERE} (")
    assert shown.err.count("\n") == 1


@pytest.mark.slow
def test_a_broker_that_goes_away_is_not_taken_for_the_end_of_the_topic(
    private_kafka: KafkaBroker, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], unique: str
) -> None:
    servers = private_kafka.bootstrap_servers
    monkeypatch.setattr("embedding_service.brokers.BROKER_TIMEOUT_SECONDS", 1.0)
    create_topics(servers, [unique])
    produce(servers, [Record(unique, value=b"1")])

    def kill_once_printed(line: bytes) -> None:
        assert line == b"1"
        private_kafka.kill()

    monkeypatch.setattr("embedding_service.kafka_cli._print", kill_once_printed)
    assert main(["read", unique, "--timeout", "5", "--bootstrap-servers", servers]) == 1
    assert f"no broker answers at {servers}" in capfd.readouterr().err


@pytest.mark.slow
def test_ctrl_c_ends_a_read_quietly(kafka: KafkaBroker, unique: str) -> None:
    create_topics(kafka.bootstrap_servers, [unique])
    produce(kafka.bootstrap_servers, [Record(unique, value=b"1")])
    with _reading(kafka, unique) as process:
        assert process.stdout
        assert process.stdout.readline() == b"1\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 130


@pytest.mark.slow
def test_a_closed_pipe_ends_a_read_quietly(kafka: KafkaBroker, unique: str) -> None:
    create_topics(kafka.bootstrap_servers, [unique])
    # More than a pipe holds.
    produce(kafka.bootstrap_servers, [Record(unique, value=b'"%0100d"' % number) for number in range(5000)])
    with _reading(kafka, unique) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.slow
def test_arguments_that_are_not_utf8_are_told_in_one_line(cli: Run, kafka: KafkaBroker, unique: str) -> None:
    create_topics(kafka.bootstrap_servers, [unique])
    for arguments in (["write", unique, b"\xff"], ["write", unique, "a text", "--key", b"\xff"], ["read", b"\xff"]):
        done = cli(*arguments)
        assert (done.returncode, done.stderr) == (1, "kafka-cli: the arguments are not valid UTF-8\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["read", "t", "--max-messages", "0"], "--max-messages: '0': expected a whole number from 1"),
        (["read", "t", "--timeout", "nan"], "--timeout: 'nan': expected a number of seconds above 0"),
        (["read", "t", "--timeout", "soon"], "--timeout: 'soon': expected a number of seconds above 0"),
        (["create-topic", "t", "--partitions", "x"], "--partitions: 'x': expected a whole number from 1"),
        (["create-topic", "t", "--config", "compact"], "--config: 'compact': expected KEY=VALUE"),
        (["read", ""], "topic: expected the name of a topic"),
        (["write", "t"], "the following arguments are required: text"),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert expected in capsys.readouterr().err


def test_a_wrong_broker_address_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bootstrap-servers", "kafka", "read", "t"]) == 1
    assert capsys.readouterr().err == "kafka-cli: --bootstrap-servers: 'kafka': expected host:port, or a list of them\n"


def test_a_wrong_broker_address_names_the_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDING_KAFKA__BOOTSTRAP_SERVERS", "")
    assert main(["read", "t"]) == 1
    assert capsys.readouterr().err.startswith("kafka-cli: EMBEDDING_KAFKA__BOOTSTRAP_SERVERS: '': expected ")


def test_what_a_secured_broker_asks_for_comes_from_the_workers_variables(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDING_KAFKA__SASL_MECHANISM", "KERBEROS")
    assert main(["read", "t"]) == 1
    assert capsys.readouterr().err.startswith("kafka-cli: EMBEDDING_KAFKA__SASL_MECHANISM: 'KERBEROS': expected ")


def test_deeply_nested_values_are_shown_as_text() -> None:
    value = b"[" * 100_000
    assert json_line(value) == b'"' + value + b'"'


def test_the_command_does_not_load_torch() -> None:
    check = "import sys, embedding_service.kafka_cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


def test_the_file_says_how_to_install_what_it_needs() -> None:
    # -S leaves site-packages out, as a Python would be in which nothing is installed.
    done = subprocess.run([sys.executable, "-S", "kafka_cli.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "`make quickstart`" in done.stderr
    assert done.stderr.count("\n") == 1

"""A worker over SASL_SSL with ACLs: that the documented ones are enough, and what each missing thing says."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs forget to export these
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from embedding_service.contract.kafka import producer_config
from embedding_service.contract.reasons import Termination, TerminationReason
from embedding_service.contract.stats import State
from embedding_service.delivery.at_least_once import AtLeastOnce
from embedding_service.delivery.offsets import OffsetTracker
from embedding_service.delivery.output import Target
from embedding_service.encoders.protocol import LoadedModel
from embedding_service.metrics import Metrics
from embedding_service.pipeline import Pipeline
from embedding_service.records import InputRecord, Tombstone
from kafka_access import Acl, allow, disallow, set_password
from kafka_broker import KafkaBroker
from kafka_helpers import create_topics
from kafka_listeners import EXPIRED, MISNAMED, PLAIN, SASL, SASL_TLS, TLS
from service_fixtures import STREAM_SECONDS, Stream, make_stream
from waiting import wait_until
from worker_process import WorkerProcess

pytestmark = pytest.mark.slow

PASSWORD = "right"
PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Secured:
    """One user's way to the stream's topics on the secured broker; ``stream`` itself is the plain one of the tests."""

    broker: KafkaBroker
    stream: Stream
    user: str
    ca_file: Path

    def acls(self, table: str) -> list[Acl]:
        """What the documentation says that workers or the operator need."""
        return [
            Acl(operation, kind.upper(), name)
            for operation, kind, resource in documented(table)
            for name in self.names(resource)
        ]

    def names(self, resource: str) -> list[str]:
        """The topics or the group that a row is about."""
        stream = self.stream
        each = {"input topic": stream.input, "output topic": stream.output, "dead-letter topic": stream.dead_letter}
        return (
            [stream.group]
            if resource == "consumer group"
            else [each[resource]]
            if resource in each
            else [*each.values()]
        )

    def kafka(self, listener: str = SASL_TLS, **changes: Any) -> dict[str, Any]:
        """The section ``kafka``, with the secrets in it."""
        return {
            "bootstrap_servers": self.broker.address(listener),
            "tls": True,
            "tls_ca_file": str(self.ca_file),
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": self.user,
            "sasl_password": PASSWORD,
            **changes,
        }


def documented(table: str) -> list[tuple[str, str, str]]:
    """Operation, kind of resource and resource of each row of a table of docs/security.md."""
    section = PAGE.partition(f"### {table}\n")[2].partition("\n#")[0]
    return re.findall(r"^\| `([A-Z_]+)` \| (topic|group) \| ([^|]+) \|", section, re.MULTILINE)


def titled(rows: list[tuple[str, str, str]]) -> list[Any]:
    """Parameters with readable names."""
    return [pytest.param(*row, id=" ".join(row)) for row in rows]


@pytest.fixture
def secured(secured_kafka: KafkaBroker, unique: str, tmp_path: Path) -> Secured:
    """Topics, and a user without any rights."""
    return secure(secured_kafka, unique, tmp_path)


def secure(broker: KafkaBroker, unique: str, directory: Path) -> Secured:
    assert broker.certificates is not None
    set_password(broker.bootstrap_servers, unique, PASSWORD)
    ca_file = directory / "ca.pem"
    ca_file.write_text(broker.certificates.ca_pem, encoding="utf-8")
    return Secured(broker, make_stream(broker, unique), unique, ca_file)


@pytest.fixture
def run(model: LoadedModel) -> Iterator[Callable[..., Pipeline]]:
    """Run the loop as the user of ``secured`` until it runs or has failed."""
    started: list[Pipeline] = []

    def start(secured: Secured, kafka: dict[str, Any] | None = None) -> Pipeline:
        pipeline = Pipeline(secured.stream.settings(kafka=kafka or secured.kafka()), model, Metrics())
        started.append(pipeline)
        pipeline.start()
        wait_until(
            lambda: pipeline.state is State.RUNNING or pipeline.failure.occurred(), STREAM_SECONDS, "runs or failed"
        )
        return pipeline

    yield start
    for pipeline in started:
        pipeline.stop()
        pipeline.join()


def ended(pipeline: Pipeline) -> Termination:
    wait_until(pipeline.failure.occurred, STREAM_SECONDS, "the loop ends")
    error = pipeline.failure.error
    assert isinstance(error, Termination), error
    return error


def missing(operation: str, kind: str, name: str) -> str:
    resource = f"{'consumer group' if kind == 'group' else kind} '{name}'"
    return f"missing ACL: expected {operation} on {resource} to be allowed to this user (docs/security.md lists all)"


def test_the_documented_acls_are_enough(secured: Secured, worker_of: Callable[..., WorkerProcess]) -> None:
    allow(secured.broker.bootstrap_servers, secured.user, secured.acls("Workers"))
    process = worker_of(secured).wait_ready()
    secured.stream.feed_texts(["a", "b", "c"])
    secured.stream.feed([b"no JSON"])
    assert len(secured.stream.outputs(3)) == 3
    assert len(secured.stream.dead_letters(1)) == 1
    shown = str(process.request("/config")[1]) + process.stderr
    assert PASSWORD not in shown
    assert secured.user not in process.request("/config")[1]["kafka"]["sasl_username"]
    assert process.terminate() == 0
    assert "max.message.bytes" not in process.stderr, "no warning"


@pytest.fixture
def worker_of(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    """Start a worker as a process, with the secrets in its environment."""
    made: list[WorkerProcess] = []

    def make(secured: Secured, environ: dict[str, str] | None = None, **changes: Any) -> WorkerProcess:
        kafka = {**secured.stream.kafka, **secured.kafka(**changes)}
        secrets = {f"EMBEDDING_KAFKA__{key.upper()}": kafka.pop(key) for key in ("sasl_username", "sasl_password")}
        process = WorkerProcess(tmp_path / "worker", {"kafka": kafka}, environ={**secrets, **(environ or {})})
        made.append(process)
        return process.start()

    yield make
    for process in made:
        process.__exit__(None, None, None)


REQUIRED = [row for row in documented("Workers") if row[0] in ("READ", "WRITE")]


@pytest.mark.parametrize(("operation", "kind", "resource"), titled(REQUIRED))
def test_each_missing_acl_is_named_at_start(
    secured: Secured, run: Callable[..., Pipeline], operation: str, kind: str, resource: str
) -> None:
    (name,) = secured.names(resource)
    create_topics(secured.broker.bootstrap_servers, [secured.stream.dead_letter])
    needed = [acl for acl in secured.acls("Workers") if acl.operation in ("READ", "WRITE")]
    allow(
        secured.broker.bootstrap_servers,
        secured.user,
        [acl for acl in needed if (acl.operation, acl.name) != (operation, name)],
    )
    error = ended(run(secured))
    assert error.reason is TerminationReason.ACCESS_DENIED
    assert error.message == missing(operation, kind, name)


@pytest.mark.parametrize(
    ("operation", "resource"), [("DESCRIBE_CONFIGS", "input topic"), ("CREATE", "dead-letter topic")]
)
def test_an_acl_to_make_the_dead_letter_topic_is_named(
    secured: Secured, run: Callable[..., Pipeline], operation: str, resource: str
) -> None:
    (name,) = secured.names(resource)
    needed = secured.acls("Workers")
    allow(
        secured.broker.bootstrap_servers,
        secured.user,
        [acl for acl in needed if (acl.operation, acl.name) != (operation, name)],
    )
    assert ended(run(secured)).message == missing(operation, "topic", name)


def test_without_the_right_to_see_configurations_a_worker_runs(
    secured: Secured, run: Callable[..., Pipeline], caplog: pytest.LogCaptureFixture
) -> None:
    create_topics(secured.broker.bootstrap_servers, [secured.stream.dead_letter])
    needed = [acl for acl in secured.acls("Workers") if acl.operation in ("READ", "WRITE")]
    allow(secured.broker.bootstrap_servers, secured.user, needed)
    assert run(secured).state is State.RUNNING
    assert "max.message.bytes of the output topics can't be read" in caplog.text


def test_with_mixed_models_allowed_the_output_topic_is_not_read(secured: Secured, model: LoadedModel) -> None:
    create_topics(secured.broker.bootstrap_servers, [secured.stream.dead_letter])
    needed = [acl for acl in secured.acls("Workers") if (acl.operation, acl.name) != ("READ", secured.stream.output)]
    allow(secured.broker.bootstrap_servers, secured.user, needed)
    settings = secured.stream.settings(kafka=secured.kafka(), model={"change_policy": "allow_mixed"})
    pipeline = Pipeline(settings, model, Metrics())
    pipeline.start()
    wait_until(lambda: pipeline.state is State.RUNNING, STREAM_SECONDS, "the loop runs")
    pipeline.stop()
    pipeline.join()


# The output topic is read at the start only.
USED = [row for row in REQUIRED if row != ("READ", "topic", "output topic")]


@pytest.mark.parametrize(("operation", "kind", "resource"), titled(USED))
def test_an_acl_that_is_taken_from_a_running_worker_ends_it_with_its_name(
    secured: Secured, run: Callable[..., Pipeline], operation: str, kind: str, resource: str
) -> None:
    servers, stream = secured.broker.bootstrap_servers, secured.stream
    (name,) = secured.names(resource)
    allow(servers, secured.user, secured.acls("Workers"))
    pipeline = run(secured)
    stream.feed_texts(["a"])
    stream.wait_caught_up()
    disallow(servers, secured.user, [Acl(operation, kind.upper(), name)])
    # Each kind of output, so that there is something to write.
    stream.feed_texts(["b"])
    stream.feed([b"no JSON"])
    error = ended(pipeline)
    assert error.reason is TerminationReason.ACCESS_DENIED
    assert error.message == missing(operation, kind, name)


def test_a_user_that_may_write_nowhere_may_not_even_be_a_producer(secured: Secured) -> None:
    allow(secured.broker.bootstrap_servers, secured.user, [Acl("DESCRIBE", "TOPIC", secured.stream.output)])
    target = Target(
        secured.stream.output, secured.stream.dead_letter, "m", "v1:c", "json", include_text=True, same_partitions=False
    )
    kafka = secured.stream.settings(kafka=secured.kafka()).kafka
    delivery = AtLeastOnce(lambda: Producer(producer_config(kafka)), target, OffsetTracker(), lambda _: None)

    def deliver() -> None:
        delivery.deliver([Tombstone(InputRecord("i", 0, 0, b"k", None, [], 0.0))])

    with pytest.raises(Termination) as raised:
        wait_until(deliver, STREAM_SECONDS, "the broker refuses")
    assert raised.value.reason is TerminationReason.ACCESS_DENIED
    assert raised.value.message == missing("WRITE", "topic", secured.stream.output)
    delivery.close()


@pytest.mark.parametrize(
    ("listener", "changes", "reason", "says"),
    [
        pytest.param(SASL_TLS, {"sasl_password": "wrong"}, TerminationReason.AUTHENTICATION_FAILED, "the broker doesn't accept this SASL user name or its password", id="a wrong password"),
        pytest.param(SASL, {"tls": False, "tls_ca_file": None, "sasl_mechanism": "PLAIN"}, TerminationReason.AUTHENTICATION_FAILED, "the broker doesn't offer PLAIN; expected a SASL mechanism of SCRAM-SHA-512", id="a mechanism that isn't enabled"),
        pytest.param(SASL_TLS, {"tls_ca_file": None}, TerminationReason.TLS_FAILED, "the broker's certificate isn't signed by a CA that this system knows; expected its CA to be given", id="no CA"),
        pytest.param(EXPIRED, {}, TerminationReason.TLS_FAILED, "the broker's certificate has expired; expected a renewed one", id="an expired certificate"),
        pytest.param(MISNAMED, {}, TerminationReason.TLS_FAILED, "the broker's certificate isn't for 127.0.0.1; expected an address that it names", id="another host's certificate"),
        pytest.param(PLAIN, {}, TerminationReason.TLS_FAILED, "the broker speaks no TLS there; expected the address of a TLS listener", id="a listener without TLS"),
        pytest.param(SASL_TLS, {"tls": False, "tls_ca_file": None}, TerminationReason.TLS_FAILED, "the broker speaks TLS there; expected TLS to be switched on, or the address of a listener without it", id="a client without TLS"),
    ],
)  # fmt: skip
def test_what_waiting_does_not_cure_ends_the_start(
    secured: Secured,
    run: Callable[..., Pipeline],
    listener: str,
    changes: dict[str, Any],
    reason: TerminationReason,
    says: str,
) -> None:
    error = ended(run(secured, secured.kafka(listener, **changes)))
    assert error.reason is reason
    assert error.message == f"{secured.broker.address(listener)}: {says}"


def test_a_worker_with_another_ca_tells_its_termination_log(
    secured: Secured, worker_of: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    assert secured.broker.certificates is not None
    other = tmp_path / "other.pem"
    other.write_text(secured.broker.certificates.other_ca_pem, encoding="utf-8")
    process = worker_of(secured, tls_ca_file=str(other))
    assert process.wait() == 1
    address = secured.broker.address(SASL_TLS)
    assert process.termination_log == f"TlsFailed: {address}: the broker's certificate isn't signed by the given CA"


def test_a_client_certificate_is_a_user(secured: Secured, run: Callable[..., Pipeline], tmp_path: Path) -> None:
    assert secured.broker.certificates is not None
    identity = secured.broker.certificates.client(secured.user)
    files = {"tls_certificate_file": identity.certificate_pem, "tls_key_file": identity.key_pem}
    for name, pem in files.items():
        (tmp_path / name).write_text(pem, encoding="utf-8")
    allow(secured.broker.bootstrap_servers, secured.user, secured.acls("Workers"))
    no_sasl = dict.fromkeys(("sasl_mechanism", "sasl_username", "sasl_password"))
    run(secured, secured.kafka(TLS, **no_sasl, **{name: str(tmp_path / name) for name in files}))
    secured.stream.feed_texts(["a"])
    assert len(secured.stream.outputs(1)) == 1


@pytest.fixture
def private_secured_kafka() -> Iterator[KafkaBroker]:
    """A secured Kafka of this test's own, to restart."""
    with KafkaBroker(secured=True) as broker:
        yield broker


def test_a_password_that_is_changed_under_a_running_worker_is_told_and_waited_out(
    private_secured_kafka: KafkaBroker,
    unique: str,
    tmp_path: Path,
    run: Callable[..., Pipeline],
    caplog: pytest.LogCaptureFixture,
) -> None:
    secured = secure(private_secured_kafka, unique, tmp_path)
    servers = private_secured_kafka.bootstrap_servers
    allow(servers, secured.user, secured.acls("Workers"))
    pipeline = run(secured)
    set_password(servers, secured.user, "another")
    # Who is connected stays so; a restart makes all connect anew. At once: one that ends in good order may tell its
    # clients of no broker, which then have nobody to ask (see connection_watch).
    private_secured_kafka.kill()
    private_secured_kafka.restart()
    says = "consumer: .*: the broker doesn't accept this SASL user name or its password"
    wait_until(lambda: re.search(says, caplog.text), STREAM_SECONDS, "the refusal is logged")
    assert not pipeline.failure.occurred()
    set_password(servers, secured.user, PASSWORD)
    secured.stream.feed_texts(["a"])
    assert len(secured.stream.outputs(1)) == 1
    assert pipeline.state is State.RUNNING


ANSWERED: dict[tuple[str, str], Callable[[AdminClient, str, str], object]] = {
    ("DESCRIBE", "topic"): lambda admin, topic, _: admin.describe_topics(TopicCollection([topic]))[topic].result(30),
    ("DESCRIBE", "group"): lambda admin, _, group: admin.describe_consumer_groups([group])[group].result(30),
    ("DESCRIBE_CONFIGS", "topic"): lambda admin, topic, _: _only(
        admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)])
    ),
    ("CREATE", "topic"): lambda admin, topic, _: _only(admin.create_topics([NewTopic(topic, 1)])),
    ("ALTER", "topic"): lambda admin, topic, _: _only(admin.create_partitions([NewPartitions(topic, 10)])),
    ("ALTER_CONFIGS", "topic"): lambda admin, topic, _: _only(
        admin.incremental_alter_configs(
            [
                ConfigResource(
                    ResourceType.TOPIC,
                    topic,
                    incremental_configs=[
                        ConfigEntry("retention.ms", "1000000", incremental_operation=AlterConfigOpType.SET)
                    ],
                )
            ]
        )
    ),
    ("DELETE", "topic"): lambda admin, topic, _: _only(admin.delete_topics([topic])),
    ("DELETE", "group"): lambda admin, _, group: _only(admin.delete_consumer_groups([group])),
}
"""What the operator asks of the brokers by each ACL of its table."""


def _only(futures: dict[Any, Any]) -> object:
    (future,) = futures.values()
    return future.result(30)


def _refused(ask: Callable[[], object]) -> bool:
    """Whether an ACL is missing; other errors are about what is there."""
    try:
        ask()
    except KafkaException as error:
        return error.args[0].code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
    return False


@pytest.mark.parametrize(("operation", "kind", "resource"), titled(documented("Operator")))
def test_each_acl_of_the_operators_table_is_needed_and_enough(
    secured: Secured, operation: str, kind: str, resource: str
) -> None:
    name, stream = secured.names(resource)[0], secured.stream
    config: dict[str, str | int | float] = {
        "bootstrap.servers": secured.broker.address(SASL_TLS),
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(secured.ca_file),
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": secured.user,
        "sasl.password": PASSWORD,
        "log_level": 0,
    }
    with AdminClient(config) as admin:

        def ask() -> bool:
            return _refused(lambda: ANSWERED[operation, kind](admin, name, stream.group))

        assert ask()
        allow(secured.broker.bootstrap_servers, secured.user, [Acl(operation, kind.upper(), name)])
        wait_until(lambda: not ask(), STREAM_SECONDS, "it is allowed")

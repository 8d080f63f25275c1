"""What keeps a client from its brokers: the sentences, from texts that librdkafka gave, and that it still gives them."""

import socket
from dataclasses import replace

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from embedding_service.connection_check import examine
from embedding_service.contract.broker_trouble import BrokerTrouble, Trouble, TroubleReason, explain, missing_acl
from embedding_service.contract.kafka import Connection, connection_config
from kafka_access import set_password
from kafka_broker import KafkaBroker
from kafka_certificates import Certificates
from kafka_listeners import EXPIRED, MISNAMED, PLAIN, PLAIN_PASSWORD, PLAIN_USER, SASL, SASL_TLS, TLS
from kafka_node import free_port
from waiting import wait_until

PASSWORD = "right"

UNREACHABLE, AUTHENTICATION, TLS_FAILED, DENIED = (
    TroubleReason.BROKER_UNREACHABLE,
    TroubleReason.AUTHENTICATION_FAILED,
    TroubleReason.TLS_FAILED,
    TroubleReason.ACCESS_DENIED,
)


# As librdkafka 2.16 and Apache Kafka 4.1 said it.
SAID = [
    ("_AUTHENTICATION", "sasl_ssl://b:1/bootstrap: SASL authentication error: Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512 (after 320ms in state AUTH_REQ)", AUTHENTICATION, "b:1: the broker doesn't accept this SASL user name or its password"),
    ("_AUTHENTICATION", "sasl_ssl://b:1/bootstrap: SASL authentication error: Authentication failed: Invalid username or password (after 302ms in state AUTH_REQ)", AUTHENTICATION, "b:1: the broker doesn't accept this SASL user name or its password"),
    ("_AUTHENTICATION", "sasl_plaintext://b:1/bootstrap: SASL SCRAM-SHA-512 mechanism handshake failed: Broker: Request not valid in current SASL state: broker's supported mechanisms:  (after 5ms in state AUTH_HANDSHAKE)", AUTHENTICATION, "b:1: the broker takes no SASL there; expected the address of a SASL listener, or no SASL"),
    ("_AUTHENTICATION", "sasl_plaintext://b:1/1: SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported mechanisms: SCRAM-SHA-512,GSSAPI (after 5ms in state AUTH_HANDSHAKE)", AUTHENTICATION, "b:1: the broker doesn't offer PLAIN; expected a SASL mechanism of SCRAM-SHA-512,GSSAPI"),
    ("SASL_AUTHENTICATION_FAILED", "Broker: SASL Authentication failed", AUTHENTICATION, "the broker refuses this user; expected a SASL user name and password that it knows"),
    ("_SSL", "ssl://b:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified, verify that ssl.ca.location is correctly configured or root CA certificates are installed (install ca-certificates package) (after 10ms in state SSL_HANDSHAKE)", TLS_FAILED, "b:1: the broker's certificate can't be verified"),
    ("_TRANSPORT", "ssl://b:1/bootstrap: SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a PLAINTEXT broker listener? (after 10ms in state SSL_HANDSHAKE)", TLS_FAILED, "b:1: the broker speaks no TLS there; expected the address of a TLS listener"),
    ("_TRANSPORT", "ssl://b:1/bootstrap: Disconnected: SSL connection closed by peer (after 1ms in state SSL_HANDSHAKE)", TLS_FAILED, "b:1: the broker speaks no TLS there; expected the address of a TLS listener"),
    ("_TRANSPORT", "ssl://b:1/2: Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate: SSL alert number 42 (after 2ms in state APIVERSION_QUERY)", TLS_FAILED, "b:1: the broker doesn't accept the client's certificate, or was given none; expected one by its CA"),
    ("_TRANSPORT", "ssl://b:1/2: Receive failed: error:0A00042E:SSL routines::tlsv1 alert protocol version: SSL alert number 70 (after 2ms in state SSL_HANDSHAKE)", TLS_FAILED, "b:1: the TLS handshake failed; expected a TLS listener of Kafka"),
    ("_TRANSPORT", "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)", UNREACHABLE, "127.0.0.1:1: Connection refused; expected a broker that runs and can be reached there"),
    ("_TRANSPORT", "GroupCoordinator: 127.0.0.1:1: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)", UNREACHABLE, "127.0.0.1:1: Connection refused; expected a broker that runs and can be reached there"),
    ("_RESOLVE", "nowhere.invalid:9092/bootstrap: Failed to resolve 'nowhere.invalid:9092': Name or service not known (after 0ms in state CONNECT)", UNREACHABLE, "nowhere.invalid:9092: Name or service not known; expected names known here, in the bootstrap servers and the brokers' advertised.listeners"),
    ("_ALL_BROKERS_DOWN", "1/1 brokers are down", UNREACHABLE, "no broker answers; expected brokers that run and can be reached at the bootstrap servers"),
    ("_TIMED_OUT", "Failed while waiting for controller: Local: Timed out", UNREACHABLE, "no broker answers; expected brokers that run and can be reached at the bootstrap servers"),
    ("_INVALID_ARG", "Failed to create admin client: failed to read certificate #0 from ssl.ca.pem: not in PEM format?: error:0480006C:PEM routines::no start line: Expecting: CERTIFICATE", TLS_FAILED, "the given CA can't be read; expected certificates in PEM"),
    ("_INVALID_ARG", "ssl.ca.location failed: error:05800088:x509 certificate routines::no certificate or crl found", TLS_FAILED, "the given CA can't be read; expected certificates in PEM"),
    ("_INVALID_ARG", "ssl.certificate.location failed: error:0A080009:SSL routines::PEM lib", TLS_FAILED, "the client's certificate can't be read; expected it and its chain in PEM"),
    ("_INVALID_ARG", "ssl.key.pem failed: error:05800074:x509 certificate routines::key values mismatch", TLS_FAILED, "the client's key isn't that of its certificate"),
    ("TOPIC_AUTHORIZATION_FAILED", "Broker: Topic authorization failed", DENIED, "missing ACL: expected the right to do this with the topic (docs/security.md lists all)"),
    ("GROUP_AUTHORIZATION_FAILED", "Broker: Group authorization failed", DENIED, "missing ACL: expected the right to do this with the consumer group (docs/security.md lists all)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "reason", "message"), SAID, ids=[f"{said[0]}-{number}" for number, said in enumerate(SAID)]
)
def test_each_text_becomes_a_sentence_that_says_what_to_do(
    name: str, text: str, reason: TroubleReason, message: str
) -> None:
    trouble = explain(name, text)
    assert trouble is not None
    assert (trouble.reason, trouble.message) == (reason, message)


@pytest.mark.parametrize("name", ["UNKNOWN_TOPIC_OR_PART", "_PARTITION_EOF", "_INVALID_ARG"])
def test_an_error_about_something_else_is_no_trouble_of_connections(name: str) -> None:
    assert explain(name, "something") is None


class Said:
    """An error as the callback gets it."""

    def __init__(self, name: str, text: str) -> None:
        self._name, self._text = name, text

    def name(self) -> str:
        return self._name

    def str(self) -> str:
        return self._text


def test_that_all_brokers_are_down_does_not_hide_the_cause() -> None:
    trouble = BrokerTrouble()
    assert trouble.last() is None
    trouble(Said("_AUTHENTICATION", "no"))
    trouble(Said("_ALL_BROKERS_DOWN", "1/1 brokers are down"))
    last = trouble.last()
    assert last is not None
    assert last.reason is AUTHENTICATION
    trouble(Said("_RESOLVE", "no"))
    assert trouble.last() != last
    trouble.clear()
    assert trouble.last() is None


def test_a_missing_acl_names_operation_and_resource() -> None:
    assert missing_acl("WRITE", "topic 'texts'") == Trouble(
        DENIED,
        "missing ACL: expected WRITE on topic 'texts' to be allowed to this user (docs/security.md lists all)",
    )


@pytest.fixture(scope="module")
def certificates(secured_kafka: KafkaBroker) -> Certificates:
    assert secured_kafka.certificates is not None
    return secured_kafka.certificates


@pytest.fixture(scope="module")
def alice(secured_kafka: KafkaBroker, certificates: Certificates) -> Connection:
    """One that works."""
    set_password(secured_kafka.bootstrap_servers, "alice", PASSWORD)
    servers = (secured_kafka.address(SASL_TLS),)
    return Connection(servers, True, certificates.ca_pem, None, None, "SCRAM-SHA-512", "alice", PASSWORD)


def without_sasl(connection: Connection) -> Connection:
    return replace(connection, sasl_mechanism=None, sasl_username=None, sasl_password=None)


def attempt(connection: Connection) -> Trouble | None:
    """What is wrong with a connection, as worker and operator find it."""
    trouble = BrokerTrouble()
    config = connection_config(connection)
    try:
        admin = AdminClient(config | {"error_cb": trouble, "log_level": 0})
    except KafkaException as error:
        return explain(error.args[0].name(), error.args[0].str())

    def answered() -> bool:
        try:
            admin.list_topics(timeout=1)
        except KafkaException:
            admin.poll(0)
            return False
        return True

    with admin:
        wait_until(lambda: answered() or trouble.last(), 30, "an answer or a trouble")
        last = trouble.last()
    return last and examine(last, connection)


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_user_of_scram_reaches_the_broker(alice: Connection, mechanism: str) -> None:
    assert attempt(replace(alice, sasl_mechanism=mechanism)) is None


@pytest.mark.slow
def test_a_user_of_plain_reaches_the_broker(alice: Connection) -> None:
    user = replace(alice, sasl_mechanism="PLAIN", sasl_username=PLAIN_USER, sasl_password=PLAIN_PASSWORD)
    assert attempt(user) is None


@pytest.mark.slow
def test_sasl_needs_no_tls(secured_kafka: KafkaBroker, alice: Connection) -> None:
    assert attempt(replace(alice, bootstrap_servers=(secured_kafka.address(SASL),), tls=False, ca_pem=None)) is None


@pytest.mark.slow
def test_a_client_certificate_by_an_intermediate_ca_reaches_the_broker(
    secured_kafka: KafkaBroker, certificates: Certificates, alice: Connection
) -> None:
    carol = certificates.client("carol")
    mutual = replace(
        without_sasl(alice),
        bootstrap_servers=(secured_kafka.address(TLS),),
        certificate_pem=carol.certificate_pem,
        key_pem=carol.key_pem,
    )
    assert attempt(mutual) is None


NO_SASL = {"sasl_mechanism": None, "sasl_username": None, "sasl_password": None}
UNKNOWN_CA = "the broker's certificate isn't signed by a CA that this system knows; expected its CA to be given"
NO_TLS_THERE = "the broker speaks no TLS there; expected the address of a TLS listener"
TLS_THERE = "the broker speaks TLS there; expected TLS to be switched on, or the address of a listener without it"
NO_USER = "the broker doesn't accept this SASL user name or its password"
CLIENT = "the broker doesn't accept the client's certificate, or was given none; expected one by its CA"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("listener", "changes", "reason", "message"),
    [
        pytest.param(SASL_TLS, {"sasl_password": "wrong"}, AUTHENTICATION, NO_USER, id="a wrong password"),
        pytest.param(SASL_TLS, {"sasl_username": "nobody"}, AUTHENTICATION, NO_USER, id="an unknown user"),
        pytest.param(SASL_TLS, {"sasl_mechanism": "PLAIN"}, AUTHENTICATION, NO_USER, id="a user of another mechanism"),
        pytest.param(SASL, {"tls": False, "sasl_mechanism": "PLAIN"}, AUTHENTICATION, "the broker doesn't offer PLAIN; expected a SASL mechanism of SCRAM-SHA-512", id="a mechanism that isn't enabled"),
        pytest.param(PLAIN, {"tls": False}, AUTHENTICATION, "the broker takes no SASL there; expected the address of a SASL listener, or no SASL", id="SASL where there is none"),
        pytest.param(SASL_TLS, {"ca_pem": None}, TLS_FAILED, UNKNOWN_CA, id="no CA given"),
        pytest.param(EXPIRED, {}, TLS_FAILED, "the broker's certificate has expired; expected a renewed one", id="an expired certificate"),
        pytest.param(MISNAMED, {}, TLS_FAILED, "the broker's certificate isn't for 127.0.0.1; expected an address that it names", id="another host's certificate"),
        pytest.param(PLAIN, NO_SASL, TLS_FAILED, NO_TLS_THERE, id="TLS where there is none"),
        pytest.param(SASL_TLS, {"tls": False, **NO_SASL}, TLS_FAILED, TLS_THERE, id="no TLS where there is some"),
        pytest.param(SASL_TLS, {"tls": False}, TLS_FAILED, TLS_THERE, id="SASL without TLS where there is some"),
        pytest.param(TLS, NO_SASL, TLS_FAILED, CLIENT, id="no client certificate"),
        pytest.param(SASL_TLS, NO_SASL, UNREACHABLE, "closes the connection; perhaps it expects a SASL user and password", id="no user over TLS"),
        pytest.param(SASL, {"tls": False, **NO_SASL}, UNREACHABLE, "closes the connection; perhaps it expects a SASL user and password", id="no user"),
    ],
)  # fmt: skip
def test_the_real_broker_and_library_still_say_what_is_understood(
    secured_kafka: KafkaBroker,
    alice: Connection,
    listener: str,
    changes: dict[str, str | bool | None],
    reason: TroubleReason,
    message: str,
) -> None:
    address = secured_kafka.address(listener)
    trouble = attempt(replace(alice, bootstrap_servers=(address,), **changes))  # type: ignore[arg-type]  # a table
    assert trouble is not None
    assert (trouble.reason, trouble.message) == (reason, f"{address}: {message}")


@pytest.mark.slow
def test_another_ca_is_told_from_none(alice: Connection, certificates: Certificates) -> None:
    trouble = attempt(replace(alice, ca_pem=certificates.other_ca_pem))
    assert trouble is not None
    assert trouble.message.endswith(": the broker's certificate isn't signed by the given CA")


@pytest.mark.slow
def test_a_foreign_client_certificate_is_refused(
    secured_kafka: KafkaBroker, alice: Connection, certificates: Certificates
) -> None:
    mutual, foreign = (
        replace(alice, bootstrap_servers=(secured_kafka.address(TLS),)),
        certificates.foreign_client("eve"),
    )
    trouble = attempt(replace(without_sasl(mutual), certificate_pem=foreign.certificate_pem, key_pem=foreign.key_pem))
    assert trouble is not None
    assert trouble.message.endswith(CLIENT)


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True])
def test_a_broker_that_hangs_is_not_taken_for_one_that_hangs_up(tls: bool) -> None:
    # Connections are taken, and nothing answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        trouble = explain("_ALL_BROKERS_DOWN", "1/1 brokers are down")
        assert trouble is not None
        assert examine(trouble, Connection((address,), tls=tls)) == trouble


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ca_pem": "garbage"}, "the given CA can't be read; expected certificates in PEM"),
        ({"certificate_pem": "garbage"}, "the client's certificate can't be read; expected it and its chain in PEM"),
        ({"key_pem": "garbage"}, "the client's key can't be read; expected a key in PEM, not encrypted"),
    ],
)
def test_what_is_no_pem_is_told_before_anything_is_connected(given: dict[str, str], message: str) -> None:
    connection = replace(Connection(("127.0.0.1:1",), tls=True), **given)  # type: ignore[arg-type]  # a table
    assert attempt(connection) == Trouble(TLS_FAILED, message)


def test_a_key_of_another_certificate_is_told_before_anything_is_connected() -> None:
    made = Certificates(["localhost"])
    one, other = made.client("one"), made.client("other")
    connection = Connection(("127.0.0.1:1",), tls=True, certificate_pem=one.certificate_pem, key_pem=other.key_pem)
    assert attempt(connection) == Trouble(TLS_FAILED, "the client's key isn't that of its certificate")


def test_a_port_where_nothing_listens_is_told() -> None:
    address = f"127.0.0.1:{free_port()}"
    assert attempt(Connection((address,))) == Trouble(
        UNREACHABLE, f"{address}: Connection refused; expected a broker that runs and can be reached there"
    )


def test_a_name_that_is_not_known_is_told() -> None:
    trouble = attempt(Connection(("nowhere.invalid:9092",)))
    assert trouble is not None
    assert trouble.reason is UNREACHABLE
    assert trouble.message.startswith("nowhere.invalid:9092: ")

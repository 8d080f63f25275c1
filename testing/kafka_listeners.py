"""Where a Kafka node for tests listens, and how it is secured there: its ``server.properties``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kafka_certificates import Certificates, Identity

HOST = "127.0.0.1"

# The plain listener of this machine's own clients, who may do everything.
PLAIN = "PLAINTEXT"
# The same at another address of this machine, for pods.
PLAIN_HOST = "HOST"
# SASL with all MECHANISMS over TLS, and with the first of them only without TLS.
SASL_TLS = "SASLTLS"
SASL = "SASL"
# TLS with a client's certificate, which names the user.
TLS = "TLS"
# With a certificate that is over, and with one for another host.
EXPIRED = "EXPIRED"
MISNAMED = "MISNAMED"

# SCRAM users are made while the broker runs (kafka_access.py); those of PLAIN stand in its configuration.
PLAIN_USER = "plainuser"
PLAIN_PASSWORD = "plain-secret"
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")

_JAAS = "org.apache.kafka.common.security"
_SCRAM_LOGIN = f"{_JAAS}.scram.ScramLoginModule required;"
_PLAIN_LOGIN = f'{_JAAS}.plain.PlainLoginModule required user_{PLAIN_USER}="{PLAIN_PASSWORD}";'


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener; ``properties`` are its own, without their prefix ``listener.name.<name>.``."""

    name: str
    port: int
    host: str = HOST
    protocol: str = "PLAINTEXT"
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"{self.host}:{self.port}"


def secured_listeners(ports: Iterable[int], host: str, certificates: Certificates) -> list[Listener]:
    """The secured listeners, all at ``host``."""
    port = iter(ports)
    sasl, good = _sasl(MECHANISMS), _tls(certificates.server, certificates.ca_pem)
    return [
        Listener(SASL_TLS, next(port), host, "SASL_SSL", sasl | good),
        Listener(SASL, next(port), host, "SASL_PLAINTEXT", _sasl(MECHANISMS[:1])),
        Listener(TLS, next(port), host, "SSL", good | _CLIENT_CERTIFICATE),
        Listener(EXPIRED, next(port), host, "SASL_SSL", sasl | _tls(certificates.expired_server)),
        Listener(MISNAMED, next(port), host, "SASL_SSL", sasl | _tls(certificates.misnamed_server)),
    ]


SECURED = 5

AUTHORIZATION = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "false",
    # Who comes over a plain listener, where the tests make topics, users and ACLs. The broker itself does so too.
    "super.users": "User:ANONYMOUS",
}

_CLIENT_CERTIFICATE = {
    "ssl.client.auth": "required",
    "ssl.principal.mapping.rules": "RULE:^.*CN=([a-zA-Z0-9.-]+).*$/$1/",
}


# A killed node is let back in once its old session is over.
SHORT_SESSION = {"broker.session.timeout.ms": "3000"}
# One that was paused isn't fenced by its own controller: fenced, it tells clients of no broker at all, and some of
# librdkafka's then never ask again (its issue 5301).
LONG_SESSION = {"broker.session.timeout.ms": "600000"}


def server_properties(
    listeners: Iterable[Listener], controller_port: int, log_dirs: str, *, listen: str | None = None
) -> dict[str, str]:
    """Return the configuration of a one-node cluster. ``listen``: all interfaces are this one, as in a container."""
    listeners = list(listeners)
    controller = f"CONTROLLER://{HOST}:{controller_port}"
    own = {
        f"listener.name.{listener.name.lower()}.{key}": value
        for listener in listeners
        for key, value in listener.properties.items()
    }
    protocols = [f"{listener.name}:{listener.protocol}" for listener in listeners]
    return own | {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "listeners": ",".join(
            [*(f"{item.name}://{listen or item.host}:{item.port}" for item in listeners), controller]
        ),
        "advertised.listeners": ",".join(f"{item.name}://{item.address}" for item in listeners),
        "inter.broker.listener.name": PLAIN,
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": ",".join(["CONTROLLER:PLAINTEXT", *protocols]),
        "log.dirs": log_dirs,
        "num.partitions": "4",
        "auto.create.topics.enable": "false",
        "log.retention.ms": "-1",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        # The internal topics' fifty partitions each cost seconds at the first commit and at each restart.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "broker.heartbeat.interval.ms": "500",
        **SHORT_SESSION,
    }


def properties_file(properties: Mapping[str, str]) -> str:
    """The properties as Java reads them."""
    return "".join(f"{key}={_escaped(value)}\n" for key, value in properties.items())


def container_environment(properties: Mapping[str, str]) -> dict[str, str]:
    """The same as variables of the image apache/kafka, which copies their values into such a file."""
    return {
        "KAFKA_" + key.replace("-", "___").replace(".", "_").upper(): _escaped(value)
        for key, value in properties.items()
    }


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _sasl(mechanisms: Sequence[str]) -> dict[str, str]:
    logins = {mechanism: _PLAIN_LOGIN if mechanism == "PLAIN" else _SCRAM_LOGIN for mechanism in mechanisms}
    return {"sasl.enabled.mechanisms": ",".join(mechanisms)} | {
        f"{mechanism.lower()}.sasl.jaas.config": login for mechanism, login in logins.items()
    }


def _tls(server: Identity, client_ca_pem: str | None = None) -> dict[str, str]:
    properties = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": server.certificate_pem,
        "ssl.keystore.key": server.key_pem,
    }
    if client_ca_pem is not None:
        properties |= {"ssl.truststore.type": "PEM", "ssl.truststore.certificates": client_ca_pem}
    return properties

"""librdkafka client configuration, from the settings. Names and units are librdkafka's own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from embedding_service.contract.settings import KafkaSettings

ClientConfig = dict[str, Any]

# librdkafka's default of 1,000,000 is below the broker's 1,048,588: a legal record could be read and not written back.
# Above it the broker judges, by the topic's max.message.bytes.
MAX_REQUEST_BYTES = 16 * 1024 * 1024

# librdkafka's.
DEFAULT_BATCH_BYTES = 1_000_000

# By whether there is TLS, and whether there is SASL.
_PROTOCOLS = {
    (False, False): "PLAINTEXT",
    (True, False): "SSL",
    (False, True): "SASL_PLAINTEXT",
    (True, True): "SASL_SSL",
}


@dataclass(frozen=True)
class Connection:
    """How to reach a cluster, and as whom, with certificates and secrets themselves in place of files.

    ``ca_pem`` unset: the system's own CAs. ``certificate_pem`` and ``key_pem`` come together.
    """

    bootstrap_servers: tuple[str, ...]
    tls: bool = False
    ca_pem: str | None = field(default=None, repr=False)
    certificate_pem: str | None = field(default=None, repr=False)
    key_pem: str | None = field(default=None, repr=False)
    sasl_mechanism: str | None = None
    sasl_username: str | None = field(default=None, repr=False)
    sasl_password: str | None = field(default=None, repr=False)


def common_config(kafka: KafkaSettings) -> ClientConfig:
    """What every client of a worker needs to reach the cluster."""
    return _config(
        kafka.bootstrap_servers,
        tls=kafka.tls,
        tls_options={
            "ssl.ca.location": kafka.tls_ca_file,
            "ssl.certificate.location": kafka.tls_certificate_file,
            "ssl.key.location": kafka.tls_key_file,
        },
        sasl_options={
            "sasl.mechanism": kafka.sasl_mechanism,
            "sasl.username": _revealed(kafka.sasl_username),
            "sasl.password": _revealed(kafka.sasl_password),
        },
    )


def connection_config(connection: Connection) -> ClientConfig:
    """The same for one that holds certificates and secrets in memory."""
    return _config(
        connection.bootstrap_servers,
        tls=connection.tls,
        tls_options={
            "ssl.ca.pem": connection.ca_pem,
            "ssl.certificate.pem": connection.certificate_pem,
            "ssl.key.pem": connection.key_pem,
        },
        sasl_options={
            "sasl.mechanism": connection.sasl_mechanism,
            "sasl.username": connection.sasl_username,
            "sasl.password": connection.sasl_password,
        },
    )


def consumer_config(kafka: KafkaSettings) -> ClientConfig:
    """A member of the consumer group that commits by itself what has been delivered."""
    return common_config(kafka) | {
        "group.id": kafka.consumer_group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "partition.assignment.strategy": "cooperative-sticky",
        # Tells when a partition is read to its end, control records included.
        "enable.partition.eof": True,
        # A killed worker's partitions move on after this; heartbeats have their own thread, whatever the model does.
        "session.timeout.ms": 15_000,
        "max.poll.interval.ms": 300_000,
        # What is read ahead waits in one queue for all partitions: a record of a quiet one comes behind all of it. So
        # little is: see docs/decisions/2026-11-24-little-is-read-ahead.md.
        "queued.min.messages": 2_048,
        "queued.max.messages.kbytes": 16 * 1024,
        # Of all partitions of a broker together: the bound above only says when to fetch again.
        "fetch.max.bytes": 8 * 1024 * 1024,
        "fetch.queue.backoff.ms": 50,
        "statistics.interval.ms": 2_000,
        # How soon new partitions, and a topic that is made again, are seen.
        "topic.metadata.refresh.interval.ms": 30_000,
    }


def producer_config(kafka: KafkaSettings, batch_bytes: int = DEFAULT_BATCH_BYTES) -> ClientConfig:
    """An idempotent producer that never gives a record up: the world's trouble is waited out.

    ``batch_bytes`` bounds a batch before it is compressed; a larger record stands alone in one.
    """
    return common_config(kafka) | {
        "enable.idempotence": True,
        "message.timeout.ms": 0,
        "message.max.bytes": MAX_REQUEST_BYTES,
        "batch.size": batch_bytes,
        "linger.ms": 5,
        "compression.type": "lz4",
        "partitioner": "murmur2_random",
        # The consumer's bound on messages in flight bounds this queue; a second bound could only block on the first.
        "queue.buffering.max.messages": 0,
        "queue.buffering.max.kbytes": 2**31 - 1,
    }


def _config(
    servers: tuple[str, ...],
    *,
    tls: bool,
    tls_options: Mapping[str, str | None],
    sasl_options: Mapping[str, str | None],
) -> ClientConfig:
    sasl = sasl_options["sasl.mechanism"] is not None
    config: ClientConfig = {
        "bootstrap.servers": ",".join(servers),
        "security.protocol": _PROTOCOLS[tls, sasl],
        "socket.keepalive.enable": True,
        # A deleted topic must stay deleted; topics are made on purpose.
        "allow.auto.create.topics": False,
    }
    if tls:
        # librdkafka's default; never to be lost: without it any certificate of the CA would do for any broker.
        config["ssl.endpoint.identification.algorithm"] = "https"
        config |= _set(tls_options)
    return config | _set(sasl_options)


def _set(options: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in options.items() if value is not None}


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()

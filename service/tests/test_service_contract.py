"""The contract's small parts: fingerprints, termination logs, client configuration."""

from dataclasses import replace

import pytest
from pydantic import SecretStr

from embedding_service.contract.fingerprint import EmbeddingContract
from embedding_service.contract.kafka import (
    Connection,
    common_config,
    connection_config,
    consumer_config,
    producer_config,
)
from embedding_service.contract.reasons import Termination, TerminationReason, parse_termination
from embedding_service.contract.settings import KafkaSettings

CONTRACT = EmbeddingContract(
    files={"model.safetensors": "ab", "tokenizer.json": "cd"},
    dimension=384,
    normalize=True,
    prompt=None,
    max_length=256,
)


def test_a_fingerprint_is_stable_across_versions_of_this_program() -> None:
    # Every output record carries it: a change here makes all that was written look like another model's.
    assert CONTRACT.fingerprint() == "v1:565615ad6d29bbdb9064a66a379fd7f0"


def test_a_fingerprint_does_not_depend_on_the_order_of_files() -> None:
    reordered = dict(reversed(list(CONTRACT.files.items())))
    assert replace(CONTRACT, files=reordered).fingerprint() == CONTRACT.fingerprint()


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(CONTRACT, files={"model.safetensors": "ee", "tokenizer.json": "cd"}), id="weights"),
        pytest.param(replace(CONTRACT, files={"model.safetensors": "ab", "tokenizer.json": "ee"}), id="tokenizer"),
        pytest.param(replace(CONTRACT, normalize=False), id="normalisation"),
        pytest.param(replace(CONTRACT, prompt="query: "), id="prompt"),
        pytest.param(replace(CONTRACT, max_length=512), id="maximum length"),
        pytest.param(replace(CONTRACT, precision="int8"), id="precision class"),
    ],
)
def test_the_fingerprint_changes_with(other: EmbeddingContract) -> None:
    assert other.fingerprint() != CONTRACT.fingerprint()


def test_a_termination_log_reads_back() -> None:
    ended = Termination(TerminationReason.MODEL_NOT_FOUND, "model.name: 'x': no: such: model")
    assert parse_termination(f"{ended}\n") == (ended.reason, ended.message)


@pytest.mark.parametrize("text", ["", "Killed", "Traceback (most recent call last): boom"])
def test_somebody_elses_termination_log_is_not_read_as_ours(text: str) -> None:
    assert parse_termination(text) is None


def test_the_clients_are_configured_for_at_least_once() -> None:
    kafka = KafkaSettings(bootstrap_servers=("a:1", "b:2"))
    consumer, producer = consumer_config(kafka), producer_config(kafka)
    assert consumer["bootstrap.servers"] == producer["bootstrap.servers"] == "a:1,b:2"
    assert consumer["enable.auto.commit"] is False
    assert consumer["isolation.level"] == "read_committed"
    assert consumer["auto.offset.reset"] == "earliest"
    assert consumer["partition.assignment.strategy"] == "cooperative-sticky"
    assert producer["enable.idempotence"] is True
    assert producer["partitioner"] == "murmur2_random"


@pytest.mark.parametrize(
    ("tls", "mechanism", "protocol"),
    [(False, None, "PLAINTEXT"), (True, None, "SSL"), (False, "PLAIN", "SASL_PLAINTEXT"), (True, "PLAIN", "SASL_SSL")],
)
def test_the_security_protocol_follows_from_tls_and_sasl(tls: bool, mechanism: str | None, protocol: str) -> None:
    connection = Connection(("a:1",), tls=tls, sasl_mechanism=mechanism, sasl_username="u", sasl_password="p")
    assert connection_config(connection)["security.protocol"] == protocol


def test_workers_and_operator_reach_the_cluster_in_the_same_way() -> None:
    worker = common_config(
        KafkaSettings(
            bootstrap_servers=("a:1", "b:2"),
            tls=True,
            tls_ca_file="/ca.pem",
            tls_certificate_file="/tls.crt",
            tls_key_file="/tls.key",
            sasl_mechanism="SCRAM-SHA-512",
            sasl_username=SecretStr("u"),
            sasl_password=SecretStr("p"),
        )
    )
    operator = connection_config(
        Connection(("a:1", "b:2"), True, "/ca.pem", "/tls.crt", "/tls.key", "SCRAM-SHA-512", "u", "p")
    )
    assert worker == {name.replace(".pem", ".location"): value for name, value in operator.items()}
    assert worker["ssl.endpoint.identification.algorithm"] == "https"


def test_a_connection_tells_no_secret_and_equal_ones_are_one_key() -> None:
    def connection() -> Connection:
        return Connection(("a:1",), key_pem="s3cret", sasl_username="s3cret", sasl_password="s3cret")

    assert "s3cret" not in repr(connection())
    assert len({connection(), connection()}) == 1

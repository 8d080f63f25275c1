"""The files that settings name: whether they can be used, and what is in them."""

from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from embedding_service.contract.broker_trouble import explain
from embedding_service.contract.kafka import Connection, common_config
from embedding_service.contract.problems import Problem
from embedding_service.contract.settings import KafkaSettings

_OPTIONS = {
    "tls_ca_file": "ssl.ca.location",
    "tls_certificate_file": "ssl.certificate.location",
    "tls_key_file": "ssl.key.location",
}


def unusable(kafka: KafkaSettings) -> list[Problem]:
    """What is wrong with the files of TLS: not there, or not what they should be."""
    given = {key: str(file) for key in _OPTIONS if (file := getattr(kafka, key)) is not None}
    problems = [problem for key, file in given.items() if (problem := _unreadable(key, file))]
    if problems:
        return problems
    try:
        # librdkafka is the judge; nothing is waited for.
        with AdminClient(common_config(kafka) | {"log_level": 0}):
            return []
    except KafkaException as error:
        text = error.args[0].str()
        trouble = explain(error.args[0].name(), text)
        key = next((key for key in given if _OPTIONS[key] in text), "tls")
        said = trouble.message if trouble is not None else text
        return [Problem(f"kafka.{key}", f"'{given[key]}': {said}" if key in given else said)]


def connection(kafka: KafkaSettings) -> Connection:
    """How the brokers are reached, with the CA itself in place of its file."""
    ca = None if kafka.tls_ca_file is None else Path(kafka.tls_ca_file).read_text(encoding="utf-8", errors="replace")
    return Connection(kafka.bootstrap_servers, kafka.tls, ca, sasl_mechanism=kafka.sasl_mechanism)


def _unreadable(key: str, file: str) -> Problem | None:
    try:
        Path(file).open("rb").close()
    except OSError as error:
        return Problem(f"kafka.{key}", f"'{file}': {error.strerror}; expected a readable file in PEM")
    return None

"""The Secrets that a pipeline names: what it wants of them, what is missing, and what follows from what is there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedding_operator.api import EmbeddingPipeline
from embedding_operator.credentials import SecretKeys, connection, gather, http_token, wanted
from embedding_operator.observed import Secrets
from embedding_operator.reasons import Reason
from embedding_service.contract.kafka import Connection
from operator_objects import pipeline

EXAMPLES = Path(__file__).parents[2] / "examples"
SERVERS = ["kafka:9093"]
SASL = {"mechanism": "SCRAM-SHA-512", "credentialsSecret": {"name": "user"}}
SECURED: dict[str, Any] = {
    "kafka": {
        "bootstrapServers": SERVERS,
        "tls": {"enabled": True, "caSecret": {"name": "ca"}, "clientCertificateSecret": {"name": "client"}},
        "sasl": SASL,
    },
    "model": {"tokenSecret": {"name": "hub"}},
    "http": {"tokenSecret": {"name": "workers", "key": "bearer"}},
}
DATA: dict[str, dict[str, str]] = {
    "ca": {"ca.crt": "CA"},
    "client": {"tls.crt": "CERTIFICATE", "tls.key": "KEY"},
    "user": {"username": "embedder", "password": "a secret"},
    "hub": {"token": "hub-token"},
    "workers": {"bearer": "worker-token"},
}


def secured(**others: Any) -> EmbeddingPipeline:
    return pipeline(**(SECURED | others))


def found(data: Mapping[str, Mapping[str, str] | None] = DATA) -> Secrets:
    return gather(secured(), data)


def test_a_plain_pipeline_wants_no_secret() -> None:
    assert wanted(pipeline()) == ()
    assert gather(pipeline(), {}) == Secrets()


def test_each_secret_is_wanted_with_its_keys_and_the_field_that_names_it() -> None:
    assert wanted(secured()) == (
        SecretKeys("spec.kafka.tls.caSecret", "ca", ("ca.crt",)),
        SecretKeys("spec.kafka.tls.clientCertificateSecret", "client", ("tls.crt", "tls.key")),
        SecretKeys("spec.kafka.sasl.credentialsSecret", "user", ("username", "password")),
        SecretKeys("spec.model.tokenSecret", "hub", ("token",)),
        SecretKeys("spec.http.tokenSecret", "workers", ("bearer",)),
    )


def test_every_secret_of_the_example_with_each_field_is_wanted_but_those_that_kubernetes_reads() -> None:
    example = yaml.safe_load((EXAMPLES / "every-field.yaml").read_text(encoding="utf-8"))
    named = {one.name for one in wanted(EmbeddingPipeline.model_validate(example))}
    assert named == {"kafka-authority", "search-certificate", "search-credentials", "hub", "workers"}


@pytest.mark.parametrize("missing", DATA)
def test_a_missing_secret_is_told_by_its_field_its_name_and_its_namespace(missing: str) -> None:
    (field,) = [one.field for one in wanted(secured()) if one.name == missing]
    problem = found(DATA | {missing: None}).problem
    assert problem is not None
    assert problem.reason == Reason.SECRET_MISSING
    assert problem.message == f"{field}: there is no Secret '{missing}' in namespace 'search'; create it"


KEYS = [(name, key) for name, data in DATA.items() for key in data]


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_a_missing_key_is_told(name: str, key: str) -> None:
    problem = found(DATA | {name: {"another": "value"}}).problem
    assert problem is not None
    first = next(iter(DATA[name]))
    assert problem.message.endswith(f": Secret '{name}' has no key '{first}'; add it, or name another key")
    problem = found(DATA | {name: {**DATA[name], key: ""}}).problem
    assert problem is not None
    assert problem.message.endswith(f": Secret '{name}' has nothing under key '{key}'; add it, or name another key")


def test_no_sentence_repeats_what_is_in_a_secret() -> None:
    problem = found(DATA | {"user": {"username": "embedder", "passwort": "a secret"}}).problem
    assert problem is not None
    assert "a secret" not in problem.message
    assert "a secret" not in repr(found())
    assert "a secret" not in repr(connection(secured(), found()))


@pytest.mark.parametrize(("name", "key"), KEYS)
def test_another_value_gives_another_checksum_and_so_rolls_the_workers(name: str, key: str) -> None:
    changed = found(DATA | {name: {**DATA[name], key: "another"}})
    assert changed.checksum is not None
    assert changed.checksum != found().checksum


def test_the_checksum_is_of_what_the_workers_read_and_nothing_else() -> None:
    assert found().checksum == found({name: {**data, "more": "keys"} for name, data in DATA.items()}).checksum
    assert found().checksum == found(dict(reversed(DATA.items()))).checksum


def test_values_that_change_places_give_another_checksum() -> None:
    swapped = {"username": DATA["user"]["password"], "password": DATA["user"]["username"]}
    assert found(DATA | {"user": swapped}).checksum != found().checksum


def test_the_operator_connects_as_the_workers_do() -> None:
    assert connection(secured(), found()) == Connection(
        bootstrap_servers=("kafka:9093",),
        tls=True,
        ca_pem="CA",
        certificate_pem="CERTIFICATE",
        key_pem="KEY",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="embedder",
        sasl_password="a secret",
    )


def test_a_plain_pipeline_connects_without_anything() -> None:
    assert connection(pipeline(), Secrets()) == Connection(bootstrap_servers=("kafka:9092",))


def test_tls_by_the_systems_own_authorities_needs_no_secret() -> None:
    own = pipeline(kafka={"bootstrapServers": SERVERS, "tls": {"enabled": True}})
    assert connection(own, gather(own, {})) == Connection(bootstrap_servers=("kafka:9093",), tls=True)


def test_one_secret_may_hold_everything_under_keys_of_ones_own() -> None:
    everything = {"a": "CA", "u": "embedder", "p": "a secret"}
    one = pipeline(
        kafka={
            "bootstrapServers": SERVERS,
            "tls": {"enabled": True, "caSecret": {"name": "one", "key": "a"}},
            "sasl": {
                "mechanism": "PLAIN",
                "credentialsSecret": {"name": "one", "usernameKey": "u", "passwordKey": "p"},
            },
        }
    )
    reached = connection(one, gather(one, {"one": everything}))
    assert (reached.ca_pem, reached.sasl_username, reached.sasl_password) == ("CA", "embedder", "a secret")


def test_callers_of_the_workers_send_the_token_of_the_pipeline() -> None:
    assert http_token(secured(), found()) == "worker-token"
    assert http_token(pipeline(), Secrets()) is None

"""Kafka with TLS, SASL and ACLs on a cluster: the documented rights are enough, and each fault is told in a sentence."""

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from cluster_fixtures import restricted_namespace
from kafka_access import Acl, allow, disallow
from kafka_helpers import Record, produce, read_all
from kafka_listeners import EXPIRED, MISNAMED, SASL_TLS, TLS
from kafka_users import (
    CA,
    CREDENTIALS,
    Names,
    certificates,
    login,
    make_user,
    needed_acls,
    put_secret,
    sasl_over_tls,
)
from system_fixtures import Pipeline, Pipelines, System, pipelines_in

pytestmark = pytest.mark.slow

TOKEN = "open-sesame"


@dataclass(frozen=True)
class Secured:
    """A pipeline over SASL_SSL whose user may do what docs/security.md says, and no more."""

    pipelines: Pipelines
    pipeline: Pipeline
    user: str

    @property
    def servers(self) -> str:
        return self.pipelines.system.kafka.bootstrap_servers

    @property
    def names(self) -> Names:
        return Names.of(self.pipeline.namespace, self.pipeline.name)

    def connect(self, listener: str) -> None:
        self.pipeline.patch({"kafka": {"bootstrapServers": [self.pipelines.system.kafka.address(listener)]}})


def send(pipeline: Pipeline, text: str) -> None:
    servers, names = pipeline.system.kafka.bootstrap_servers, Names.of(pipeline.namespace, pipeline.name)
    produce(servers, [Record(names.input, value=json.dumps({"id": text, "text": text}).encode())])


def until_embedded(pipeline: Pipeline, text: str) -> None:
    """Wait until a text is among the outputs, whatever else is."""
    servers, names = pipeline.system.kafka.bootstrap_servers, Names.of(pipeline.namespace, pipeline.name)

    def texts() -> list[str]:
        return [json.loads(record.value() or b"")["original_text"] for record in read_all(servers, names.output)]

    pipeline.until(lambda: text in texts(), f"{text!r} isn't embedded")


def look(pipeline: Pipeline) -> None:
    """Make the operator look at once, where only a resync would."""
    pipeline.kubectl("annotate", "embp", pipeline.name, f"tests.example/look={uuid.uuid4().hex}", "--overwrite")


@pytest.fixture(scope="module")
def pipelines_here(system: System) -> Iterator[Pipelines]:
    """One namespace for all tests here, with the Secret of the brokers' CA."""
    name = f"security-{uuid.uuid4().hex[:8]}"
    with restricted_namespace(system.cluster, name), pipelines_in(system, name) as made:
        put_secret(made, CA, {"ca.crt": certificates(system).ca_pem})
        yield made


@pytest.fixture(scope="module")
def secured(pipelines_here: Pipelines) -> Secured:
    """A pipeline that runs; each test leaves it so."""
    system, user = pipelines_here.system, f"user-{uuid.uuid4().hex[:8]}"
    names = Names.of(pipelines_here.namespace, "secured")
    make_user(system, user, needed_acls(names))
    put_secret(pipelines_here, CREDENTIALS, login(user))
    put_secret(pipelines_here, "http-token", {"token": TOKEN})
    http = {"tokenSecret": {"name": "http-token"}}
    pipeline = pipelines_here.apply("secured", kafka=sasl_over_tls(system), http=http)
    pipeline.wait_until_ready()
    return Secured(pipelines_here, pipeline, user)


def test_with_the_documented_acls_and_no_more_a_pipeline_makes_its_topics_over_tls_and_sasl_and_embeds(
    secured: Secured,
) -> None:
    send(secured.pipeline, "over TLS and SASL")

    until_embedded(secured.pipeline, "over TLS and SASL")
    assert [topic["created"] for topic in secured.pipeline.status["topics"]] == [True, True, True]


def test_with_a_token_the_workers_answer_who_has_it_and_the_operator_still_tells_the_model(secured: Secured) -> None:
    asked = """
import os, sys, urllib.error, urllib.request
for headers in ({}, {"Authorization": "Bearer guessed"}, {"Authorization": "Bearer " + os.environ["EMBEDDING_HTTP__TOKEN"]}):
    try:
        print(urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:5000/stats", headers=headers)).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""
    answers = secured.pipeline.kubectl("exec", f"deploy/{secured.pipeline.worker}", "--", "python", "-c", asked)

    assert answers.split() == ["401", "401", "200"]
    secured.pipeline.until(lambda: "model" in secured.pipeline.status, "the status has no model")
    assert secured.pipeline.status["model"]["dimension"] == 384


@dataclass(frozen=True)
class Fault:
    """What is broken in a pipeline that runs, what its status then says, and what mends it."""

    name: str
    reason: str
    words: str
    breaks: Callable[[Secured], None]
    mends: Callable[[Secured], None]


def secret(name: str, data: Callable[[Secured], dict[str, str]]) -> Callable[[Secured], None]:
    return lambda secured: put_secret(secured.pipelines, name, data(secured))


def right_ca(secured: Secured) -> dict[str, str]:
    return {"ca.crt": certificates(secured.pipelines.system).ca_pem}


def wrong_ca(secured: Secured) -> dict[str, str]:
    return {"ca.crt": certificates(secured.pipelines.system).other_ca_pem}


FAULTS = [
    Fault(
        "wrong-password",
        "AuthenticationFailed",
        "the broker doesn't accept this SASL user name or its password",
        secret(CREDENTIALS, lambda secured: login(secured.user, "wrong")),
        secret(CREDENTIALS, lambda secured: login(secured.user)),
    ),
    Fault(
        "wrong-ca",
        "TlsFailed",
        "the broker's certificate isn't signed by the given CA",
        secret(CA, wrong_ca),
        secret(CA, right_ca),
    ),
    Fault(
        "expired-certificate",
        "TlsFailed",
        "the broker's certificate has expired; expected a renewed one",
        lambda secured: secured.connect(EXPIRED),
        lambda secured: secured.connect(SASL_TLS),
    ),
    Fault(
        "certificate-for-another-host",
        "TlsFailed",
        "expected an address that it names",
        lambda secured: secured.connect(MISNAMED),
        lambda secured: secured.connect(SASL_TLS),
    ),
    Fault(
        "no-tls-at-a-listener-with-it",
        "TlsFailed",
        "the broker speaks TLS there; expected TLS to be switched on",
        lambda secured: secured.pipeline.patch({"kafka": {"tls": None}}),
        lambda secured: secured.pipeline.patch({"kafka": {"tls": {"enabled": True, "caSecret": {"name": CA}}}}),
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_pipeline_that_no_longer_gets_to_its_brokers_says_why_in_a_sentence_and_comes_back_when_that_is_mended(
    secured: Secured, fault: Fault
) -> None:
    fault.breaks(secured)
    told = secured.pipeline.wait("Ready", "False", fault.reason)
    assert fault.words in told["message"]
    assert "\n" not in told["message"]

    fault.mends(secured)
    secured.pipeline.wait("Ready", "True")


def test_each_acl_that_the_operator_lacks_is_named_one_after_the_other(pipelines_here: Pipelines) -> None:
    system, user = pipelines_here.system, f"user-{uuid.uuid4().hex[:8]}"
    names = Names.of(pipelines_here.namespace, "rightless")
    make_user(system, user, [])
    put_secret(pipelines_here, "rightless", login(user))
    kafka = sasl_over_tls(system)
    kafka["sasl"]["credentialsSecret"]["name"] = "rightless"
    # Without workers: they are not what is asked about.
    pipeline = pipelines_here.apply("rightless", kafka=kafka, replicas=0)

    steps = [
        (Acl("READ", "TOPIC", names.input), f"READ on topic '{names.input}'"),
        (Acl("WRITE", "TOPIC", names.output), f"WRITE on topic '{names.output}'"),
        (Acl("WRITE", "TOPIC", names.dead_letter), f"WRITE on topic '{names.dead_letter}'"),
        (Acl("CREATE", "TOPIC", names.input), f"CREATE on topic '{names.input}'"),
        (Acl("READ", "GROUP", names.group), f"READ on consumer group '{names.group}'"),
        (Acl("CREATE", "TOPIC", names.output), f"CREATE on topic '{names.output}'"),
        (Acl("CREATE", "TOPIC", names.dead_letter), f"CREATE on topic '{names.dead_letter}'"),
    ]
    for acl, words in steps:
        sentence = f"Kafka: missing ACL: expected {words} to be allowed to this user"
        pipeline.wait("Ready", "False", "AccessDenied", words=sentence)
        allow(system.kafka.bootstrap_servers, user, [acl])
        look(pipeline)

    pipeline.wait("TopicsReady", "True")
    pipeline.wait("Ready", "False", "ScaledToZero")


def test_a_worker_that_may_no_longer_write_names_the_acl_and_loses_nothing_once_it_may_again(secured: Secured) -> None:
    acl = [Acl("WRITE", "TOPIC", secured.names.output)]
    disallow(secured.servers, secured.user, acl)
    send(secured.pipeline, "kept for later")

    told = secured.pipeline.wait_for_all("WorkersReady", "False", "AccessDenied")["Ready"]
    assert (told["status"], told["reason"]) == ("False", "AccessDenied")
    assert f"missing ACL: expected WRITE on topic '{secured.names.output}'" in told["message"]

    allow(secured.servers, secured.user, acl)
    secured.pipeline.wait_until_ready()
    until_embedded(secured.pipeline, "kept for later")


def test_a_group_that_may_no_longer_be_read_in_is_named_and_the_workers_come_back(secured: Secured) -> None:
    acl = [Acl("READ", "GROUP", secured.names.group)]
    disallow(secured.servers, secured.user, acl)

    told = secured.pipeline.wait("Ready", "False", "AccessDenied")
    assert f"missing ACL: expected READ on consumer group '{secured.names.group}'" in told["message"]

    allow(secured.servers, secured.user, acl)
    secured.pipeline.wait_until_ready()


def test_a_client_certificate_that_the_brokers_know_is_enough_and_another_is_told(pipelines_here: Pipelines) -> None:
    system, user = pipelines_here.system, f"user-{uuid.uuid4().hex[:8]}"
    names = Names.of(pipelines_here.namespace, "mutual")
    allow(system.kafka.bootstrap_servers, user, needed_acls(names))
    foreign, own = certificates(system).foreign_client(user), certificates(system).client(user)
    put_secret(
        pipelines_here, "client", {"tls.crt": foreign.certificate_pem, "tls.key": foreign.key_pem}, "kubernetes.io/tls"
    )
    tls = {"enabled": True, "caSecret": {"name": CA}, "clientCertificateSecret": {"name": "client"}}
    kafka = {"bootstrapServers": [system.kafka.address(TLS)], "tls": tls}
    pipeline = pipelines_here.apply("mutual", kafka=kafka)

    told = pipeline.wait("Ready", "False", "TlsFailed")
    assert "the broker doesn't accept the client's certificate" in told["message"]

    put_secret(pipelines_here, "client", {"tls.crt": own.certificate_pem, "tls.key": own.key_pem}, "kubernetes.io/tls")
    pipeline.wait_until_ready()
    send(pipeline, "by certificate")
    until_embedded(pipeline, "by certificate")

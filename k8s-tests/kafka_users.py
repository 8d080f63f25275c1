"""Users of the tests' secured Kafka: the ACLs of pipelines by docs/security.md, and the Secrets with their logins."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from kafka_access import Acl, allow, set_password
from kafka_certificates import Certificates
from kafka_listeners import SASL_TLS
from system_fixtures import REPOSITORY, Object, Pipelines, System

PASSWORD = "correct-horse"
_PAGE = REPOSITORY / "docs" / "security.md"
CREDENTIALS, CA = "kafka-login", "kafka-ca"


@dataclass(frozen=True)
class Names:
    """The topics and the group of a pipeline that ``Pipelines.apply`` makes."""

    input: str
    output: str
    dead_letter: str
    group: str

    @classmethod
    def of(cls, namespace: str, name: str) -> "Names":
        """Of a pipeline."""
        prefix = f"{namespace}.{name}"
        return cls(f"{prefix}.in", f"{prefix}.out", f"{prefix}.out-deadletter", prefix)


def needed_acls(names: Names) -> list[Acl]:
    """What a pipeline needs by docs/security.md whose topics the operator makes; nothing that is only good to have."""
    workers = [row for row in _documented("Workers") if "`AccessDenied`" in row[3] and "Only to make" not in row[3]]
    creation = [row for row in _documented("Operator") if row[0] == "CREATE"]
    return [
        Acl(operation, kind.upper(), name)
        for operation, kind, resource, _ in workers + creation
        for name in _named(names, resource)
    ]


def _documented(table: str) -> list[tuple[str, str, str, str]]:
    """Operation, kind of resource, resource and the rest of each row of a table of the page."""
    section = _PAGE.read_text(encoding="utf-8").partition(f"### {table}\n")[2].partition("\n#")[0]
    return re.findall(r"^\| `([A-Z_]+)` \| (topic|group) \| ([^|]+) \| (.+) \|$", section, re.MULTILINE)


def _named(names: Names, resource: str) -> list[str]:
    each = {
        "input topic": names.input,
        "output topic": names.output,
        "dead-letter topic": names.dead_letter,
        "consumer group": names.group,
    }
    return [each[resource]] if resource in each else [names.input, names.output, names.dead_letter]


def make_user(system: System, user: str, acls: list[Acl]) -> None:
    """Make a user of SCRAM with ``PASSWORD``, who may do this and no more."""
    servers = system.kafka.bootstrap_servers
    set_password(servers, user, PASSWORD)
    if acls:
        allow(servers, user, acls)


def certificates(system: System) -> Certificates:
    """The certificates of the tests' Kafka."""
    found = system.kafka.certificates
    assert found is not None  # it is a secured one
    return found


def sasl_over_tls(system: System, listener: str = SASL_TLS) -> Object:
    """``spec.kafka`` for SCRAM-SHA-512 over TLS, with both Secrets under their usual names."""
    return {
        "bootstrapServers": [system.kafka.address(listener)],
        "tls": {"enabled": True, "caSecret": {"name": CA}},
        "sasl": {"mechanism": "SCRAM-SHA-512", "credentialsSecret": {"name": CREDENTIALS}},
    }


def login(user: str, password: str = PASSWORD) -> dict[str, str]:
    """The data of the Secret with a user's name and password."""
    return {"username": user, "password": password}


def put_secret(pipelines: Pipelines, name: str, data: Mapping[str, str], kind: str = "Opaque") -> None:
    """Make a Secret, or change it."""
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": pipelines.namespace},
        "type": kind,
        "stringData": dict(data),
    }
    pipelines.system.cluster.kubectl("apply", "-f", "-", input=json.dumps(document))

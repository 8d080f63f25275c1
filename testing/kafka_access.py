"""Users and ACLs of a secured Kafka for tests, made over its plain listener."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs forget to export these
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from waiting import wait_until

TIMEOUT_SECONDS = 30.0
_SCRAM = {"SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512}
_Rule: TypeAlias = tuple[ResourceType, str, ResourcePatternType, str, str, AclOperation, AclPermissionType]


@dataclass(frozen=True, slots=True)
class Acl:
    """What a user may do: an operation such as ``READ`` on a resource such as ``TOPIC`` ``texts``."""

    operation: str
    resource: str
    name: str


CLUSTER = "kafka-cluster"


def set_password(
    bootstrap_servers: str, user: str, password: str, mechanisms: Sequence[str] = ("SCRAM-SHA-512", "SCRAM-SHA-256")
) -> None:
    """Make a user of SCRAM, whom the broker knows then, or change the password."""
    with _admin(bootstrap_servers) as admin:
        for mechanism in mechanisms:
            credential = ScramCredentialInfo(_SCRAM[mechanism], 4096)
            wanted = UserScramCredentialUpsertion(user, credential, password.encode())
            admin.alter_user_scram_credentials([wanted])[user].result(TIMEOUT_SECONDS)
        known = {_SCRAM[mechanism] for mechanism in mechanisms}
        wait_until(lambda: known <= _mechanisms(admin, user), TIMEOUT_SECONDS, f"the broker doesn't know {user}")


def allow(bootstrap_servers: str, user: str, acls: Iterable[Acl]) -> None:
    """Let a user do these things; returns once the broker heeds it."""
    rules = [_rule(user, acl) for acl in acls]
    with _admin(bootstrap_servers) as admin:
        for future in admin.create_acls([AclBinding(*rule) for rule in rules]).values():
            future.result(TIMEOUT_SECONDS)
        wait_until(lambda: all(_there(admin, rules)), TIMEOUT_SECONDS, f"the broker doesn't heed the ACLs of {user}")


def disallow(bootstrap_servers: str, user: str, acls: Iterable[Acl]) -> None:
    """Take it back; returns once the broker heeds it."""
    rules = [_rule(user, acl) for acl in acls]
    with _admin(bootstrap_servers) as admin:
        for future in admin.delete_acls([AclBindingFilter(*rule) for rule in rules]).values():
            future.result(TIMEOUT_SECONDS)
        wait_until(lambda: not any(_there(admin, rules)), TIMEOUT_SECONDS, f"the broker heeds old ACLs of {user}")


# The broker hears of a change a moment after its controller, which is who answers that it is made.


def _mechanisms(admin: AdminClient, user: str) -> set[ScramMechanism]:
    # A future for all, where no user is named.
    answers = cast("dict[str, Future[Any]]", admin.describe_user_scram_credentials([user]))
    try:
        found = answers[user].result(TIMEOUT_SECONDS)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.RESOURCE_NOT_FOUND:
            raise
        return set()
    return {info.mechanism for info in found.scram_credential_infos}


def _there(admin: AdminClient, rules: Iterable[_Rule]) -> Iterator[bool]:
    return (bool(admin.describe_acls(AclBindingFilter(*rule)).result(TIMEOUT_SECONDS)) for rule in rules)


def _rule(user: str, acl: Acl) -> _Rule:
    # librdkafka names the cluster by what its one resource once was.
    resource = ResourceType.BROKER if acl.resource == "CLUSTER" else ResourceType[acl.resource]
    operation = AclOperation[acl.operation]
    return resource, acl.name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW


def _admin(bootstrap_servers: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})

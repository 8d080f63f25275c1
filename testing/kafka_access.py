"""Users and ACLs of a secured Kafka for tests, made over its plain listener."""

from collections.abc import Iterable
from dataclasses import dataclass

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

TIMEOUT_SECONDS = 30.0
_SCRAM = {"SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512}


@dataclass(frozen=True, slots=True)
class Acl:
    """What a user may do: an operation such as ``READ`` on a resource such as ``TOPIC`` ``texts``."""

    operation: str
    resource: str
    name: str


CLUSTER = "kafka-cluster"


def set_password(
    bootstrap_servers: str, user: str, password: str, mechanisms: Iterable[str] = ("SCRAM-SHA-512", "SCRAM-SHA-256")
) -> None:
    """Make a user of SCRAM, or change the password."""
    with _admin(bootstrap_servers) as admin:
        for mechanism in mechanisms:
            credential = ScramCredentialInfo(_SCRAM[mechanism], 4096)
            wanted = UserScramCredentialUpsertion(user, credential, password.encode())
            admin.alter_user_scram_credentials([wanted])[user].result(TIMEOUT_SECONDS)


def allow(bootstrap_servers: str, user: str, acls: Iterable[Acl]) -> None:
    """Let a user do these things."""
    bindings = [AclBinding(*_rule(user, acl)) for acl in acls]
    with _admin(bootstrap_servers) as admin:
        for future in admin.create_acls(bindings).values():
            future.result(TIMEOUT_SECONDS)


def disallow(bootstrap_servers: str, user: str, acls: Iterable[Acl]) -> None:
    """Take it back."""
    filters = [AclBindingFilter(*_rule(user, acl)) for acl in acls]
    with _admin(bootstrap_servers) as admin:
        for future in admin.delete_acls(filters).values():
            future.result(TIMEOUT_SECONDS)


def _rule(
    user: str, acl: Acl
) -> tuple[ResourceType, str, ResourcePatternType, str, str, AclOperation, AclPermissionType]:
    # librdkafka names the cluster by what its one resource once was.
    resource = ResourceType.BROKER if acl.resource == "CLUSTER" else ResourceType[acl.resource]
    operation = AclOperation[acl.operation]
    return resource, acl.name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW


def _admin(bootstrap_servers: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})

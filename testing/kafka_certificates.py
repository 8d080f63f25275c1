"""The certificates of a secured Kafka for tests: good ones, and each kind of bad one."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its chain, and its private key (PKCS #8), in PEM."""

    certificate_pem: str
    key_pem: str


class Certificates:
    """One CA and what it has issued for brokers at ``names`` (host names and addresses)."""

    def __init__(self, names: Sequence[str]) -> None:
        self._ca = trustme.CA()
        yesterday = datetime.now(UTC) - timedelta(days=1)
        self.ca_pem = self._ca.cert_pem.bytes().decode()
        # Trusted by nobody here.
        self.other_ca_pem = trustme.CA().cert_pem.bytes().decode()
        self.server = _identity(self._ca.issue_cert(*names))
        self.expired_server = _identity(self._ca.issue_cert(*names, not_after=yesterday))
        self.misnamed_server = _identity(self._ca.issue_cert("elsewhere.example"))

    def client(self, user: str) -> Identity:
        """A client's certificate, by an intermediate CA; the brokers know it as ``User:<user>``."""
        return _identity(self._ca.create_child_ca().issue_cert(f"{user}.example", common_name=user))

    def foreign_client(self, user: str) -> Identity:
        """The same by a CA that the brokers don't know."""
        return _identity(trustme.CA().issue_cert(f"{user}.example", common_name=user))


def _identity(issued: trustme.LeafCert) -> Identity:
    key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    # Kafka reads no other format.
    pkcs8 = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Identity(b"".join(blob.bytes() for blob in issued.cert_chain_pems).decode(), pkcs8.decode())

"""What librdkafka doesn't tell of a failed connection, found by a TLS handshake of one's own.

It has the same words for a certificate of another CA, one that is over and one for another host; and none where a
client without TLS meets a listener with it. The operator uses this too.
"""

import re
import socket
import ssl
from dataclasses import replace

from embedding_service.contract.broker_trouble import Trouble, TroubleReason
from embedding_service.contract.kafka import Connection

_SECONDS = 5.0
# OpenSSL's X509_V_ERR_*.
_EXPIRED = 10
_NOT_YET_VALID = 9
_WRONG_CA = (2, 18, 19, 20, 21)
_WRONG_NAME = (62, 64)


def examine(trouble: Trouble, connection: Connection) -> Trouble:
    """The trouble told more clearly, where it is unclear and a look at the broker helps; may take some seconds."""
    if not trouble.unclear:
        return trouble
    named = re.match(r"(\S+:\d+): ", trouble.message)
    server = named[1] if named else connection.bootstrap_servers[0]
    try:
        problem = _certificate_problem(server, connection.ca_pem) if connection.tls else _tls_there(server)
    except (OSError, ValueError):
        # Not reached, or silent: there is no more to be known.
        return trouble
    if problem is not None:
        return Trouble(TroubleReason.TLS_FAILED, f"{server}: {problem}")
    if trouble.reason is TroubleReason.BROKER_UNREACHABLE and connection.sasl_mechanism is None:
        return replace(trouble, message=f"{server}: closes the connection; perhaps it expects a SASL user and password")
    return trouble


def _certificate_problem(server: str, ca_pem: str | None) -> str | None:
    # Comments beside the certificates may have any letters.
    context = ssl.create_default_context(cadata=ca_pem and ca_pem.encode("ascii", errors="ignore").decode())
    # Newer Pythons are stricter than librdkafka, which is asked about here.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        _handshake(server, context)
    except ssl.SSLCertVerificationError as error:
        return _told(error, server, given=ca_pem is not None)
    return None


def _told(error: ssl.SSLCertVerificationError, server: str, *, given: bool) -> str:
    if error.verify_code == _EXPIRED:
        return "the broker's certificate has expired; expected a renewed one"
    if error.verify_code == _NOT_YET_VALID:
        return "the broker's certificate isn't valid yet; expected clocks that agree"
    if error.verify_code in _WRONG_CA:
        signer = "the given CA" if given else "a CA that this system knows; expected its CA to be given"
        return f"the broker's certificate isn't signed by {signer}"
    if error.verify_code in _WRONG_NAME:
        return f"the broker's certificate isn't for {_host(server)}; expected an address that it names"
    return f"the broker's certificate isn't accepted: {error.verify_message}"


def _tls_there(server: str) -> str | None:
    context = ssl.create_default_context()
    # Nothing is sent over this connection: only whether there is a handshake counts.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        _handshake(server, context)
    except (ssl.SSLError, ConnectionResetError) as error:
        # A broker without TLS hangs up on it; an alert is TLS too.
        if "ALERT" not in str(error):
            return None
    return "the broker speaks TLS there; expected TLS to be switched on, or the address of a listener without it"


def _handshake(server: str, context: ssl.SSLContext) -> None:
    with _connect(server) as plain, context.wrap_socket(plain, server_hostname=_host(server)):
        pass


def _connect(server: str) -> socket.socket:
    return socket.create_connection((_host(server), int(server.rpartition(":")[2])), timeout=_SECONDS)


def _host(server: str) -> str:
    return server.rpartition(":")[0].strip("[]")

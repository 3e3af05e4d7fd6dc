"""Why a server cannot be used, in one sentence: its name, its port, TLS, the password.

Every library words these in its own way, and wraps what the system said.  The
chain of causes is walked: by type where the system or Python's ssl spoke, by the
known words of each library otherwise.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

import redis.exceptions


class Reason(NamedTuple):
    """What is wrong, and what to do; ``{name}`` is the setting that says where the server is."""

    says: str
    do: str


NO_HOST = Reason("no machine has that host name", "mend the host in {name}, or the name server")
REFUSED = Reason(
    "nothing listens on that host and port", "mend the port in {name}, or start the server"
)
UNTRUSTED = Reason(
    "TLS: its certificate is not trusted here, or was made for another name",
    "write the host as its certificate does, or make its authority known to this machine",
)
NO_TLS = Reason(
    "TLS was asked for, and the server does not speak it on that port",
    "ask for no TLS in {name}, or mend the port",
)
WANTS_TLS = Reason(
    "the server hangs up on a connection without TLS, or is no such server",
    "ask for TLS in {name}, or mend the port",
)
PASSWORD = Reason(
    "the server refuses that user and password",
    "mend the user and password in {name}; special characters must be percent-encoded in a URL",
)
NOT_ALLOWED = Reason("the user may not do what is needed", "grant it on the server; see the docs")
NO_DATABASE = Reason("the server has no database of that name", "create it, or mend {name}")
NO_BUCKET = Reason("there is no bucket of that name", "create it, or mend {name}")
SILENT = Reason("it does not answer in time", "see the host in {name}, firewalls and the server")
OTHER_SERVER = Reason("what answers there is another kind of server", "mend the port in {name}")

HANDSHAKE = "handshake operation timed out"
"""A server that does not speak TLS waits for the end of a line that never comes."""

TYPES: tuple[tuple[type[BaseException], Reason], ...] = (
    (socket.gaierror, NO_HOST),
    (ConnectionRefusedError, REFUSED),
    (ssl.SSLCertVerificationError, UNTRUSTED),
    (ssl.SSLError, NO_TLS),
    (ConnectionResetError, WANTS_TLS),
    (redis.exceptions.NoPermissionError, NOT_ALLOWED),
    (redis.exceptions.AuthenticationError, PASSWORD),
    (redis.exceptions.InvalidResponse, OTHER_SERVER),
    (TimeoutError, SILENT),
)

WORDS: tuple[tuple[str, Reason], ...] = (
    # psycopg, which is libpq's
    ("password authentication failed", PASSWORD),
    ("no password supplied", PASSWORD),
    ("certificate verify failed", UNTRUSTED),
    ("does not match host name", UNTRUSTED),
    ("server does not support ssl", NO_TLS),
    ("no encryption", WANTS_TLS),
    ("could not translate host name", NO_HOST),
    ("failed to resolve host", NO_HOST),
    ("database", NO_DATABASE),
    ("received invalid response to ssl negotiation", OTHER_SERVER),
    ("server closed the connection", WANTS_TLS),
    # obstore
    ("invalidaccesskeyid", PASSWORD),
    ("signaturedoesnotmatch", PASSWORD),
    ("nosuchbucket", NO_BUCKET),
    ("accessdenied", NOT_ALLOWED),
    ("invalidcertificate", UNTRUSTED),
    ("dns error", NO_HOST),
    ("failed to lookup address", NO_HOST),
    # redis-py, amqp, smtplib
    ("wrongpass", PASSWORD),
    ("noauth", PASSWORD),
    ("access_refused", PASSWORD),
    ("refused the login", PASSWORD),
    ("noperm", NOT_ALLOWED),
    ("name or service not known", NO_HOST),
    ("name resolution", NO_HOST),
    ("connection refused", REFUSED),
    ("wrong version number", NO_TLS),
    ("starttls extension not supported", NO_TLS),
    ("connection closed by server", WANTS_TLS),
    ("connection unexpectedly closed", WANTS_TLS),
    ("timed out", SILENT),
    ("timeout", SILENT),
)
"""Parts of messages in small letters; the first that is found counts."""


def reason_of(error: BaseException) -> Reason | None:
    """The reason that an error gives, or one of its causes does; None for any other."""
    chain = list(_chain(error))
    said = " ".join(str(found) for found in chain).lower()
    if HANDSHAKE in said:
        return NO_TLS
    for found in chain:
        for kind, reason in TYPES:
            if isinstance(found, kind):
                return reason
    for words, reason in WORDS:
        if words in said and (reason is not NO_DATABASE or "does not exist" in said):
            return reason
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it, the first cause first."""
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in seen:
        seen.append(found)
        found = found.__cause__ or found.__context__
    return reversed(seen)

"""Clients of the server that carries the stream, by its URL, and its errors in words.

Behind sentinels a connection asks them for the primary each time it is made:
after a fail-over the next one goes to the new primary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from schemas.servers import is_sentinel, parse_sentinel

CONNECT_S = 2.0


def open_client(
    url: str, *, timeout_s: float, connect_s: float = CONNECT_S, is_patient: bool = False
) -> Any:
    """A client; nothing is connected yet.

    Every answer is waited for ``timeout_s`` at most.  The library tries again
    for a patient caller alone: a loop knows better whether and when to.
    """
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": connect_s,
        "socket_keepalive": True,
        "protocol": 2,  # one shape of answers, whatever the library's default becomes
    }
    if not is_patient:
        options["retry"] = Retry(NoBackoff(), 0)
    if not is_sentinel(url):
        if url.startswith("unix://"):
            del options["socket_keepalive"], options["socket_connect_timeout"]
        return redis.Redis.from_url(url, **options)
    named = parse_sentinel(url)
    tls = {} if named.tls is None else {"ssl": True, **library_options(named.tls)}
    sentinels: Any = Sentinel(  # type: ignore[no-untyped-call]  # its library has no types here
        list(named.hosts), sentinel_kwargs={**options, **tls, **named.own}, **options, **tls
    )
    return sentinels.master_for(
        named.service, db=named.db, username=named.username, password=named.password
    )


def library_options(tls: Mapping[str, str]) -> dict[str, Any]:
    """Options of TLS from a URL as redis-py takes them."""
    named: dict[str, Any] = dict(tls)
    if "ssl_check_hostname" in named:
        named["ssl_check_hostname"] = named["ssl_check_hostname"].lower() != "false"
    return named


def told(error: BaseException, otherwise: str = "") -> str:
    """What a server's or its client's error says, in one line, and what to do where we know it."""
    said = _CLIENT.sub("a sentinel: ", str(error))
    line = " ".join(f"{type(error).__name__}: {said}".split())
    advice = _advice(error) or otherwise
    return f"{line}; {advice}" if advice else line


ASK = "is it running, and is REDIS_URL right?"


_CLIENT = re.compile(r"<redis\.client\.Redis\(.*?\)>\)> - ")
"""How the library names a sentinel that did not answer: by all that its client was made with."""


def _advice(error: BaseException) -> str:
    """By what is said and not by its type: kombu and Celery wrap it in types of their own."""
    said = f"{type(error).__name__}: {error}"
    return next((advice for words, advice in _ADVICE if any(word in said for word in words)), "")


_ADVICE = (
    (
        ("NOPERM", "NoPermission", "no permissions", "The user executing the script can't"),
        "the user's ACL lacks this right: docs/brokers.md has the lines that are needed",
    ),
    (
        ("WRONGPASS", "NOAUTH", "AuthenticationError", "invalid username-password"),
        "user or password in the URL are not what the server has; percent-encode special "
        "characters",
    ),
    (
        ("CERTIFICATE_VERIFY_FAILED",),
        "give the authority that signed the server's certificate in the URL, "
        "?ssl_ca_certs=/path/to/ca.pem, and the host as it is certified",
    ),
    (
        ("MasterNotFound", "No master found"),
        "do the sentinels answer (address, sentinel_password, ssl_ca_certs), and is the service in "
        "the URL theirs? See: redis-cli -p 26379 SENTINEL masters",
    ),
    (
        ("SSL",),
        "does the server speak TLS on this port, and does its URL begin with rediss:// or amqps://?",
    ),
    (("OutOfMemory", "OOM command"), "raise maxmemory, or lower SCANHERALD_STREAM_RETENTION_S"),
    (
        ("READONLY", "ReadOnly"),
        "this server is a replica: give the primary's address, or its sentinels'",
    ),
    (
        ("NOREPLICAS",),
        "the primary has fewer replicas than its min-replicas-to-write asks for: start them",
    ),
)

"""What Celery is told of its broker and its result backend, by their URLs."""

from __future__ import annotations

import ssl
from typing import Any

from schemas.servers import (
    SentinelUrl,
    is_sentinel,
    parse_sentinel,
    tls_options,
)
from schemas.settings import Settings
from tasks.priorities import priorities_of
from tasks.redis_server import library_options

ANSWER_S = 5
CONNECT_S = 2

_VERIFICATION = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}

AMQP_OPTIONS = {
    # A publish has happened when the broker says so, not when a socket that may be dead took it.
    "confirm_publish": True,
    # A broker that hangs, or takes nothing while its memory or disk is full, is not waited on
    # for ever.
    "read_timeout": ANSWER_S,
    "write_timeout": ANSWER_S,
}


PUBLISH_POLICY = {
    "max_retries": 3,
    "interval_start": 0.1,
    "interval_step": 0.3,
    "interval_max": 1.0,
}
"""A publish that fails says so after seconds; the ledger's sweep publishes again."""


def engine_settings(settings: Settings) -> dict[str, Any]:
    """Celery's settings that depend on which engines there are."""
    broker = _broker(settings)
    return {
        "task_publish_retry_policy": PUBLISH_POLICY,
        **broker,
        # Named twice more, or Celery's own look at CELERY_BROKER_URL would win over what we made
        # of it: with kombu's defaults a rediss:// URL verifies nothing.
        "broker_read_url": broker["broker_url"],
        "broker_write_url": broker["broker_url"],
        **_result_backend(settings),
    }


def _broker(settings: Settings) -> dict[str, Any]:
    url = settings.broker_url
    if url.startswith(("amqp", "pyamqp")):
        bare, tls = _amqp_tls(url)
        return {
            "broker_url": bare,
            "broker_transport_options": AMQP_OPTIONS,
            "broker_use_ssl": tls,
            # Each try may take the time of an answer and of new connections, on top of each other.
            "task_publish_retry_policy": {**PUBLISH_POLICY, "max_retries": 1},
        }
    if not url.startswith("redis"):
        return {"broker_url": url}
    options = {
        # An unacknowledged task goes to another worker after this: longer than any time limit.
        "visibility_timeout": settings.visibility_timeout_s,
        # Look for tasks of dead workers this often; the default cadence took 101 s to find one.
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 30,
        # A dead connection is noticed, not waited on for ever.
        "health_check_interval": 10,
        "socket_keepalive": True,
        "socket_timeout": ANSWER_S,
        "socket_connect_timeout": CONNECT_S,
        **priorities_of(url).transport_options,
    }
    if not is_sentinel(url):
        return {"broker_url": url, "broker_transport_options": options}
    named = parse_sentinel(url)
    return {
        "broker_url": named.chunks("sentinel"),
        "broker_transport_options": {**options, **_of_sentinels(named)},
        "broker_use_ssl": _of_primary(named),
    }


def _result_backend(settings: Settings) -> dict[str, Any]:
    url = settings.result_backend
    # The shortest visibility timeout among a server's users wins: the same for both.
    options: dict[str, Any] = {"visibility_timeout": settings.visibility_timeout_s}
    if not is_sentinel(url):
        return {"result_backend": url, "result_backend_transport_options": options}
    named = parse_sentinel(url)
    return {
        "result_backend": named.chunks("sentinel"),
        "result_backend_transport_options": {**options, **_of_sentinels(named)},
        "redis_backend_use_ssl": _of_primary(named),
        # A primary whose machine is gone does not answer: look for the new one soon.
        "redis_socket_timeout": ANSWER_S,
        "redis_socket_connect_timeout": CONNECT_S,
    }


def _of_sentinels(named: SentinelUrl) -> dict[str, Any]:
    tls = {} if named.tls is None else {"ssl": True, **library_options(named.tls)}
    limits = {"socket_timeout": CONNECT_S, "socket_connect_timeout": CONNECT_S}
    return {"master_name": named.service, "sentinel_kwargs": {**limits, **tls, **named.own}}


def _of_primary(named: SentinelUrl) -> dict[str, Any] | None:
    if named.tls is None:
        return None
    options = library_options(named.tls)
    return {**options, "ssl_cert_reqs": _VERIFICATION[options["ssl_cert_reqs"]]}


def _amqp_tls(url: str) -> tuple[str, dict[str, Any] | None]:
    """Plain URLs, and py-amqp's words for their options of TLS; of several URLs those of the first.

    Without a host name it would accept any name that a trusted authority has signed.
    """
    found = [tls_options(part) for part in url.split(";")]
    bare = ";".join(part for part, _ in found)
    if not url.startswith("amqps"):
        return bare, None
    options = found[0][1]
    words: dict[str, Any] = {
        name.removeprefix("ssl_"): value
        for name, value in options.items()
        if name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
    }
    words["cert_reqs"] = _VERIFICATION[options["ssl_cert_reqs"]]
    if words["cert_reqs"] is not ssl.CERT_NONE and options.get("ssl_check_hostname") != "false":
        words["server_hostname"] = None  # kombu puts the URL's in
    return bare, words

"""Metrics on an HTTP port, for Prometheus to fetch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from prometheus_client import CollectorRegistry, start_http_server

from schemas.errors import InvalidSettings

log = structlog.get_logger("listener.serving")


@contextmanager
def served(registry: CollectorRegistry, host: str, port: int) -> Iterator[int]:
    """Serve in a thread until left; gives the port, which was free if ``port`` is 0.

    Raises InvalidSettings where nobody can listen there.
    """
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise InvalidSettings(
            f"cannot serve metrics on {host}:{port}: {error.strerror or error}; "
            "choose another address or port"
        ) from error
    log.info("metrics_served", host=host, port=server.server_port)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

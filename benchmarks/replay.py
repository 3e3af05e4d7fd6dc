"""A replay's memory, its pace, and what it costs a live scan.

``memory`` drives a replay of so many recorded events to its end, with the
command itself and a real broker.  No worker renders: this process notes the
runs as done and empties the queues, as fast workers would, so that the driver
alone is measured.  ``latency`` publishes live scans while workers render a
replay, and beside it while nothing else happens.

    .venv/bin/python -m benchmarks.replay memory --events 1000 --events 100000
    .venv/bin/python -m benchmarks.replay latency --events 10000
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import redis
import typer
from rich.console import Console
from sqlalchemy import insert, literal, select, update

from cli.embedded import free_port, service_parts, valkey_part, wait_for_redis
from cli.supervisor import Supervisor
from listener.decode import decode_batch
from schemas.reports import DEFAULT_FORMATS
from schemas.runs import Entry, RunState
from schemas.settings import Settings, load_settings
from store.events import record_batch
from store.ledger import Ledger
from store.tables import events, reports, runs
from tasks import wiring
from tasks.app import QUEUES

app = typer.Typer(help=__doc__)

BATCH = 500
ENDED = (RunState.DONE.value, RunState.DEAD.value)


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one driver: events, seconds, resident megabytes at its peak and near its end."""

    events: int
    seconds: float
    peak_mb: float
    last_mb: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from a live scan's XADD to the end of its run, one by one."""

    alone: list[float]
    beside: list[float]
    started: int


class House:
    """A ledger, a Valkey and a folder of their own; ``parts`` are started on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.environment = {
            "REDIS_URL": f"redis://127.0.0.1:{self.port}/0",
            "SCANHERALD_DATA_DIR": str(folder / "data"),
            "SCANHERALD_LOG_FORMAT": "json",
            "SCANHERALD_SWEEP_INTERVAL_S": "5",
        }
        self.supervisor = Supervisor()
        self.settings: Settings = load_settings(
            data_dir=folder / "data", REDIS_URL=self.environment["REDIS_URL"]
        )
        self.ledger = Ledger(self.settings.ledger_url)
        self.ledger.migrate()
        self.supervisor.start(valkey_part(self.port, folder / "valkey", folder / "valkey.log"))
        wait_for_redis(self.environment["REDIS_URL"])

    def start(self) -> None:
        """Two workers, beat and a listener."""
        for part in service_parts(self.environment, 2, self.folder):
            self.supervisor.start(part)

    def client(self) -> Any:
        return redis.Redis.from_url(self.environment["REDIS_URL"])

    def record(self, count: int, cookies: int) -> None:
        """So many scans in the ledger, settled, with no report yet."""
        defaults = wiring.wire(self.settings).run_defaults
        now = datetime.now(UTC) - timedelta(days=1)
        for first in range(0, count, BATCH):
            entries = [
                Entry(
                    "scans:events",
                    f"{number + 1}-0",
                    {b"data": scan(number, cookies, f"shop-{number % 5000}.example")},
                )
                for number in range(first, min(count, first + BATCH))
            ]
            decoded, _ = decode_batch(entries, max_bytes=1 << 24)
            with self.ledger.write() as connection:
                record_batch(
                    connection,
                    decoded,
                    [],
                    defaults=defaults,
                    now=now,
                    dispatch_by=now,
                    new_id=lambda: str(uuid.uuid4()),
                )
                connection.execute(
                    update(runs)
                    .where(runs.c.state == RunState.RECORDED.value)
                    .values(state=RunState.DONE.value, deadline=None, settled_at=now)
                )
                connection.execute(
                    update(events).where(events.c.outcome == "pending").values(outcome="done")
                )

    def make_reports(self) -> None:
        """Let the ledger say that every scan has its reports, as far as a replay looks."""
        columns = [
            "report_id",
            "scan_id",
            "format",
            "language",
            "run_id",
            "tries",
            "status",
            "created_at",
        ]
        with self.ledger.write() as connection:
            for name in DEFAULT_FORMATS:
                made = select(
                    runs.c.run_id.concat(f".{name}"),
                    runs.c.scan_id,
                    literal(name.value),
                    literal("en"),
                    runs.c.run_id,
                    literal(1),
                    literal("ready"),
                    runs.c.created_at,
                )
                connection.execute(insert(reports).from_select(columns, made))

    def replay(self, *arguments: str) -> subprocess.Popen[bytes]:
        """The command, as an operator runs it."""
        return subprocess.Popen(
            [sys.executable, "-m", "cli.main", "replay", "--json", *arguments],
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )


def scan(name: object, cookies: int, domain: str = "shop.example") -> bytes:
    """A scan result with so many cookies; the same name gives the same scan id."""
    found = {
        "scan_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"scan {name}")),
        "domain": domain,
        "status": "completed",
        "cookies": [
            {
                "name": f"cookie_{number}",
                "domain": f".third-{number % 40}.example",
                "path": "/",
                "category": ("advertising", "analytics", "necessary")[number % 3],
                "cookie_type": "Third Party",
                "cookie_duration": "30 days",
                "set_after_accept": bool(number % 2),
            }
            for number in range(cookies)
        ],
    }
    return json.dumps(found).encode()


@contextmanager
def house() -> Iterator[House]:
    """Made, and removed."""
    folder = Path(tempfile.mkdtemp(prefix="replay-"))
    made = House(folder)
    try:
        yield made
    finally:
        made.supervisor.stop()
        made.ledger.close()
        shutil.rmtree(folder)


def measure_memory(count: int, *, there: bool = False, in_flight: int = 100) -> Memory:
    """Drive one replay and look at its process all the while.

    One format each, for the publishing of messages is nothing that a replay adds.
    ``there``: all reports are there, so that the walk alone is measured.
    """
    with house() as made:
        made.record(count, 3)
        if there:
            made.make_reports()
        with made.client() as client:
            client.config_set("appendfsync", "no")  # the disk is not what is measured
        began = time.monotonic()
        driver = made.replay("--in-flight", str(in_flight), "--formats", "json")
        last = peak = 0.0
        with made.client() as client:
            while driver.poll() is None:
                peak, resident = _resident(driver.pid) or (peak, last)
                last = resident or last
                with made.ledger.write() as connection:
                    connection.execute(
                        update(runs)
                        .where(runs.c.state == RunState.DISPATCHED.value)
                        .values(state=RunState.DONE.value, deadline=None)
                    )
                client.delete(*(f"{name}\x06\x169" for name in QUEUES))
                time.sleep(0.02)
        seconds = time.monotonic() - began
        found = json.loads(driver.communicate()[0])
        assert (found["state"], found["selected"]) == ("done", count), found
        assert found["started"] == (0 if there else count), found
    return Memory(count, seconds, peak, last)


def measure_latency(count: int, live: int, cookies: int) -> Latency:
    """Publish live scans one after another, alone and in the middle of a replay."""
    with house() as made:
        made.record(count, cookies)
        made.start()
        with made.client() as client:
            _live(made, client, 2, cookies, "warm")
            alone = _live(made, client, live, cookies, "alone")
            driver = made.replay()
            while _started(made) < 40:
                time.sleep(0.2)
            beside = _live(made, client, live, cookies, "beside")
        started = _started(made)
        assert driver.poll() is None, "the replay was over before the live scans were"
        driver.terminate()
        driver.communicate(timeout=60)
    return Latency(alone, beside, started)


def _live(made: House, client: Any, count: int, cookies: int, kind: str) -> list[float]:
    spent = []
    for number in range(count):
        data = scan(f"{kind} {number}", cookies)
        scan_id = json.loads(data)["scan_id"]
        began = time.monotonic()
        client.xadd("scans:events", {"data": data})
        while True:
            with made.ledger.read() as connection:
                state = connection.execute(
                    select(runs.c.state).where(runs.c.scan_id == scan_id)
                ).scalar()
            if state in ENDED:
                break
            time.sleep(0.005)
        spent.append((time.monotonic() - began) * 1000)
        made.supervisor.tend()
    return spent


def _started(made: House) -> int:
    with made.ledger.read() as connection:
        query = select(runs.c.run_id).where(runs.c.kind == "replay")
        return len(connection.execute(query).all())


def _resident(pid: int) -> tuple[float, float] | None:
    """Peak and present resident memory, MB; None once the process is gone."""
    try:
        said = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = dict(re.findall(r"^(VmHWM|VmRSS):\s+(\d+) kB$", said, re.MULTILINE))
    if len(found) < 2:
        return None
    return int(found["VmHWM"]) / 1024, int(found["VmRSS"]) / 1024


@app.command()
def memory(
    events: Annotated[list[int] | None, typer.Option(help="Sizes, one replay each.")] = None,
    there: Annotated[bool, typer.Option("--there", help="All reports are there.")] = False,
) -> None:
    """Memory and pace of the driver."""
    for count in events or [1_000, 100_000]:
        found = measure_memory(count, there=there)
        Console().print(
            f"{found.events:,} events: {found.seconds:.1f} s, "
            f"{found.events / found.seconds:.0f}/s, RSS {found.last_mb:.1f} MB, "
            f"peak {found.peak_mb:.1f} MB"
        )


@app.command()
def latency(
    events: Annotated[int, typer.Option(help="Events of the replay.")] = 10_000,
    live: Annotated[int, typer.Option(help="Live scans, one after another.")] = 20,
    cookies: Annotated[int, typer.Option(help="Cookies of each scan.")] = 200,
) -> None:
    """A live scan's time, alone and beside a replay."""
    found = measure_latency(events, live, cookies)
    for name, spent in (("alone", found.alone), ("beside", found.beside)):
        Console().print(
            f"{name}: median {median(spent):.0f} ms, worst {max(spent):.0f} ms of {len(spent)}"
        )
    Console().print(f"{found.started:,} of {events:,} were started by then")


if __name__ == "__main__":
    app()

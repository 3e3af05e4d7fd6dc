"""One notification for many users: our fan-out beside a loop over the users.

Both run as a Celery task in a fresh process, on a SQLite ledger of so many
subscribers and a Valkey server of their own, with a disk behind each.  The loop
is what one writes first: per user a look, a transaction with a content of its
own, and a publish per delivery.

    .venv/bin/python -m benchmarks.bulk
    .venv/bin/python -m benchmarks.bulk --users 2000 --rounds 1
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.measure import in_fresh_process, measure_peak
from cli.embedded import free_port, valkey_part, wait_for_redis
from cli.supervisor import Supervisor
from schemas.events import EventType
from schemas.notifications import ChannelAddress, ChannelKind, Notification, Subscriber
from schemas.reports import Severity
from schemas.settings import Settings, load_settings
from store.ledger import Ledger
from store.secrets import open_secret_box
from store.subscribers import save_subscriber, subscribers_of_users
from tasks import send_bulk_notifications_async, wiring
from tasks.app import DELIVER, app
from tasks.fan_out import plan_for
from tasks.logs import configure_logs
from tasks.telling import recipients

EVENT, DATA = "scan.failed", {"domain": "shop.example", "error": "DNS"}


@dataclass(frozen=True, slots=True)
class Bulk:
    """What one task took: seconds on the wall and of CPU, megabytes at the peak."""

    seconds: float
    cpu_seconds: float
    megabytes: float
    contents: int


def user_id(number: int) -> str:
    """As long as the ids of most platforms."""
    return f"user-{number:08d}-0000-4000-8000-000000000000"


def add_users(settings: Settings, count: int, hook: str = "https://r.example/hook") -> None:
    """A migrated ledger with so many users, each with a subscriber on this webhook."""
    ledger = Ledger(settings.ledger_url)
    ledger.migrate()
    box = open_secret_box([], settings.data_dir)
    with ledger.write() as connection:
        for number in range(count):
            address = ChannelAddress(
                kind=ChannelKind.WEBHOOK, target=hook, secret="whsec_" + "A" * 32
            )
            subscriber = Subscriber(
                subscriber_id=f"s-{number}", user_id=user_id(number), channels=(address,)
            )
            save_subscriber(connection, subscriber, box, datetime.now(UTC))
    ledger.close()


@app.task(name="scanherald.benchmarks.naive_bulk", bind=True)
def naive_bulk(self: Any, event: str, data: dict[str, Any], user_ids: list[str]) -> int:
    """The loop."""
    parts = wiring.current()
    told = 0
    for name in user_ids:
        key = f"{event}:task:{self.request.id}:{name}"
        notification = Notification(
            event_key=key,
            type=EventType(event),
            occurred_at=parts.clock(),
            domain=data["domain"],
            scan_id=None,
            severity=Severity.MEDIUM,
            title="Scan failed",
            summary=data["error"],
        )
        with parts.ledger.read() as connection:
            found = subscribers_of_users(connection, [name], notification, parts.box)
        with parts.ledger.write() as connection:
            planned = [
                recipient
                for subscriber in found
                for recipient in recipients(subscriber, notification, parts.clock(), {})
            ]
            tickets = plan_for(connection, parts, notification, planned)
        for ticket in tickets:
            app.send_task(DELIVER, (ticket.delivery_id, ticket.number), ignore_result=True)
        told += len(tickets)
    return told


CONTESTANTS: dict[str, Any] = {"ours": send_bulk_notifications_async, "loop": naive_bulk}


def run(name: str, redis_url: str, folder: Path, users: int) -> Bulk:
    """Measure one contestant in this process, which is a fresh one; its first task is small."""
    settings = load_settings(data_dir=folder, redis_url=redis_url, log_level="WARNING")
    configure_logs(settings)
    wiring.use(settings)
    task = CONTESTANTS[name]
    task.apply((EVENT, DATA, [user_id(0)]), throw=True)
    seconds = cpu = 0.0

    def work() -> None:
        nonlocal seconds, cpu
        ids = [user_id(number) for number in range(users)]
        began, used = time.monotonic(), time.process_time()
        task.apply((EVENT, DATA, ids), throw=True)
        seconds, cpu = time.monotonic() - began, time.process_time() - used

    peak = measure_peak(work)
    with wiring.current().ledger.read() as connection:
        contents = connection.exec_driver_sql("SELECT count(*) FROM notifications").scalar_one()
        planned = connection.exec_driver_sql("SELECT count(*) FROM deliveries").scalar_one()
    assert planned == users + 1, "the first task told one, this one all"
    return Bulk(seconds, cpu, peak / 1e6, contents - 1)


def with_server(folder: Path, work: Callable[[str], Bulk]) -> Bulk:
    """``work`` with a server of its own that writes to disk as in production."""
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    supervisor = Supervisor()
    supervisor.start(valkey_part(port, folder, folder / "valkey.log"))
    try:
        wait_for_redis(url)
        return work(url)
    finally:
        supervisor.stop()


def measure(users: int, rounds: int) -> dict[str, list[Bulk]]:
    """All contestants in turn, each on a copy of the same ledger."""
    found: dict[str, list[Bulk]] = {name: [] for name in CONTESTANTS}
    with tempfile.TemporaryDirectory() as temporary:
        origin = Path(temporary) / "origin"
        origin.mkdir()
        add_users(load_settings(data_dir=origin), users)
        for number in range(rounds):
            for name in CONTESTANTS:
                folder = Path(temporary) / f"{name}-{number}"
                shutil.copytree(origin, folder / "data")
                work = partial(_in_process, name, folder / "data", users)
                found[name].append(with_server(folder / "valkey", work))
    return found


def _in_process(name: str, folder: Path, users: int, url: str) -> Bulk:
    return in_fresh_process(run, name, url, folder, users)


def main(
    users: Annotated[int, typer.Option(help="Users that one task names.")] = 10_000,
    rounds: Annotated[int, typer.Option(help="Turns of each contestant.")] = 3,
) -> None:
    """Print the median round of each contestant."""
    configure_logs(load_settings(log_level="WARNING"))
    console = Console()
    load = os.getloadavg()[0]
    console.print(f"{users:,} users, one delivery each; load {load:.1f} on {os.cpu_count()} CPUs")
    table = Table("", "s", "users/s", "CPU ms/user", "peak +MB", "contents kept")
    for name, bulks in measure(users, rounds).items():
        seconds = median(item.seconds for item in bulks)
        table.add_row(
            name,
            f"{seconds:.1f}",
            f"{users / seconds:,.0f}",
            f"{median(item.cpu_seconds for item in bulks) / users * 1000:.2f}",
            f"{median(item.megabytes for item in bulks):.1f}",
            f"{bulks[0].contents:,}",
        )
    console.print(table)


if __name__ == "__main__":
    typer.run(main)

"""Records what a release leaves behind when it is stopped in the middle: queues, ledger, artifacts.

Run by hand, with a checkout of that release as the working folder and first on the path:
``PYTHONPATH=. python …/record.py FOLDER``.  See README.md beside this.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from cli.embedded import free_port, valkey_part, wait_for_redis
from cli.supervisor import Part, Supervisor
from listener.publish import publish
from store.runs import list_runs
from tasks import wiring

KEY = "rGsPkSpwsHWLqk0CNSJ6ytrKcBiUz5iDpq0bx8Dq7hU="
"""Of these records alone."""

SCANS = Path("tests/data/scans")
RENDERED = "cookieblock__bcl.it.json"
WAITING = "gdpr-cookie-scanner__arte.tv.json"


def main(output: Path) -> None:
    work = Path(tempfile.mkdtemp())
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    os.environ |= {
        "REDIS_URL": url,
        "SCANHERALD_DATA_DIR": str(work / "data"),
        "SCANHERALD_ENCRYPTION_KEYS": KEY,
        "SCANHERALD_FORMATS": "json,csv",
        "SCANHERALD_SMTP_HOST": "127.0.0.1",
    }
    supervisor = Supervisor()
    supervisor.start(valkey_part(port, work / "valkey", work / "valkey.log"))
    wait_for_redis(url)
    client: Any = redis.Redis.from_url(url, decode_responses=True)
    try:
        record(url, work, client)
        keep(client, work, output)
    finally:
        supervisor.stop()
        shutil.rmtree(work)


def record(url: str, work: Path, client: Any) -> None:
    own = [sys.executable, "-m", "cli.main"]
    subprocess.run(
        [*own, "subscribers", "add", "officer", "--email", "officer@example.org", "--user", "u1"],
        check=True,
    )

    def run_part(*arguments: str, until: Callable[[], bool]) -> None:
        running = Supervisor()
        running.start(Part("part", [*own, *arguments], dict(os.environ), work / "part.log"))
        try:
            patiently(until)
            time.sleep(1.0)  # what has come is acknowledged
        finally:
            running.stop()

    publish(url, "scans:events", [{"data": (SCANS / RENDERED).read_bytes()}])
    run_part("listen", until=lambda: client.llen("reports") == 2)
    run_part(
        *("worker", "--queue", "reports", "--pool", "solo"),
        until=lambda: client.llen("notifications") == 1,
    )
    publish(
        url,
        "scans:events",
        [
            {"data": (SCANS / WAITING).read_bytes()},
            {"type": "scan.failed", "data": b'{"domain": "failed.example", "error": "timed out"}'},
            {"type": "schedule.failed", "data": b'{"domain": "told.example", "error": "no slot"}'},
            {"dataref": "file:///outside/of/every/root.json"},
        ],
    )
    run_part("listen", until=lambda: client.llen("notifications") + client.llen("reports") == 6)
    by_hand()


def by_hand() -> None:
    """What no process of the recording published: a body's deliveries, and the public tasks."""
    import tasks
    from tasks.app import NOTE_CHORD_ERROR, app
    from tasks.finish import settle
    from tasks.notifications import start_deliveries

    parts = wiring.current()
    with parts.ledger.read() as connection:
        runs = list_runs(connection, limit=100)
    told = next(run for run in runs if run["type"] == "schedule.failed")
    rendered = json.loads((SCANS / RENDERED).read_text())["scan_id"]
    start_deliveries(settle(parts, told["run_id"], 1))
    run_id = next(run["run_id"] for run in runs if run["scan_id"] == rendered)
    app.signature(
        NOTE_CHORD_ERROR, args=("gone",), kwargs={"run_id": run_id, "attempt": 1}
    ).apply_async(queue="notifications")
    tasks.generate_report_async.apply_async((rendered, "csv"), task_id="one-report")
    tasks.generate_multiple_reports_async.apply_async(
        kwargs={"scan_id": rendered, "formats": ["json", "csv"]}, task_id="two-reports"
    )
    tasks.export_scan_to_csv_async.apply_async((rendered,), task_id="export")
    tasks.send_notification_async.apply_async(
        (
            {"event": "scan.completed", "data": {"domain": "said.example"}, "title": "Said"},
            {"email_address": "direct@example.org"},
        ),
        task_id="one-message",
    )
    news = ("schedule.updated", {"domain": "event.example"})
    tasks.send_event_notifications_async.apply_async((*news, "u1"), task_id="one-user")
    tasks.send_bulk_notifications_async.apply_async((*news, ["u1", "u2"]), task_id="two-users")
    for entry in app.conf.beat_schedule.values():
        app.send_task(entry["task"], task_id=entry["task"])


def keep(client: Any, work: Path, output: Path) -> None:
    readers = {
        "string": client.get,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": lambda key: sorted(client.smembers(key)),
        "hash": client.hgetall,
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
    }
    kept = {
        key: {"type": kind, "value": readers[kind](key)}
        for key in sorted(client.keys())
        if (kind := client.type(key)) in readers
    }
    with sqlite3.connect(work / "data" / "ledger.sqlite3") as ledger:
        rows = "\n".join(ledger.iterdump()) + "\n"
    for name, text in (("redis.json", json.dumps(kept, indent=1) + "\n"), ("ledger.sql", rows)):
        text = text.replace(str(work), "/recorded").replace(socket.gethostname(), "recorder")
        (output / name).write_text(text)
    shutil.copytree(work / "data" / "artifacts", output / "artifacts", dirs_exist_ok=True)


def patiently(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    give_up = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError
        time.sleep(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())

"""``scanherald demo``: the main job on real scans, with real processes, checked to the byte.

Starts Valkey, worker, beat and listener, plays the mail server and the HTTP
receivers, publishes the scans by plain XADD, and believes only what arrived.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import RowMapping

from channels.signing import new_secret
from cli import subscribers
from cli.embedded import free_port, service_parts, valkey_part, wait_for_redis
from cli.inspect_artifact import fault_in
from cli.output import cell
from cli.sinks import HttpSink, MailSink
from cli.supervisor import Supervisor
from listener.publish import publish
from schemas.errors import InvalidSettings
from schemas.notifications import ChannelAddress, ChannelKind, Subscriber
from schemas.reports import DEFAULT_FORMATS
from schemas.runs import DeliveryState
from schemas.scans import decode_scan
from schemas.settings import Settings, load_settings
from store.deliveries import list_deliveries
from store.ledger import Ledger
from store.runs import list_reports, list_runs

MARK = ".scanherald-demo"
"""A folder with this file in it is ours to empty."""

MANY = 1_000_000


def run_demo(scans: Path, output: Path, timeout_s: float) -> int:
    """Returns the exit status: 0 only if everything planned exists and arrived exactly once."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 140  # a log has no edge to keep within
    files = sorted(scans.glob("*.json"))
    if not files:
        raise InvalidSettings(f"no *.json scan results in {scans}; name a folder with --scans")
    _fresh_folder(output)
    logs = output / "logs"
    logs.mkdir()
    structlog.configure(logger_factory=structlog.WriteLoggerFactory((logs / "demo.log").open("w")))
    # A flag, not KeyboardInterrupt: an exception that lands in a finalizer is swallowed.
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    supervisor = Supervisor()
    scratch = Path(tempfile.mkdtemp(prefix="scanherald-demo-"))
    began = time.monotonic()
    try:
        with MailSink(output / "mails") as mails, HttpSink(output / "received") as sink:
            settings = _settings(output, scratch, mails.port, sink.port)
            _start(console, supervisor, settings, logs)
            _subscribe(settings, sink.url)
            expected = _publish(settings, files)
            ledger = Ledger(settings.ledger_url)
            done = _wait(console, supervisor, ledger, len(expected), timeout_s, interrupted)
            if interrupted.is_set():
                console.print("Interrupted; stopping every process.")
                return 130
            faults = [] if done else [f"not finished after {timeout_s:.0f} s; see {logs}"]
            faults += _check(console, ledger, expected, _arrivals(mails, sink))
            ledger.close()
    finally:
        supervisor.stop()
        shutil.rmtree(scratch, ignore_errors=True)
    console.print(
        f"\nReports: {output}/reports   E-mails: {output}/mails   "
        f"Webhook and Slack bodies: {output}/received   Logs: {logs}",
        soft_wrap=True,
    )
    for fault in faults:
        console.print(f"[red]✗[/red] {cell(fault)}", soft_wrap=True)
    if not faults:
        console.print(f"[green]✓[/green] All checked in {time.monotonic() - began:.1f} s.")
    return 1 if faults else 0


def _settings(output: Path, scratch: Path, mail_port: int, http_port: int) -> Settings:
    return load_settings(
        redis_url=f"redis://127.0.0.1:{free_port()}/0",
        celery_broker_url="",
        celery_result_backend="",
        data_dir=scratch,
        database_url=f"sqlite:///{(output / 'ledger.sqlite3').absolute()}",
        artifacts_url=(output / "reports").absolute().as_uri(),
        smtp_host="127.0.0.1",
        smtp_port=mail_port,
        smtp_security="none",
        http_allow=(f"127.0.0.1:{http_port}",),
        mail_from="reports@scanherald.example",
    )


NO_PACE = ("DESTINATION_PER_S", "SLACK_PER_S", "SUBSCRIBER_PER_MIN")
"""Our own sinks take whatever comes: nobody should wait for a demo at Slack's pace."""


def _environment(settings: Settings) -> dict[str, str]:
    return {
        "REDIS_URL": settings.redis_url,
        "CELERY_BROKER_URL": "",
        "CELERY_RESULT_BACKEND": "",
        "DATABASE_URL": settings.ledger_url,
        "ARTIFACTS_URL": settings.artifact_store_url,
        "SCANHERALD_DATA_DIR": str(settings.data_dir),
        "SCANHERALD_CONSUMER_NAME": "demo",
        "SCANHERALD_SMTP_HOST": str(settings.smtp_host),
        "SCANHERALD_SMTP_PORT": str(settings.smtp_port),
        "SCANHERALD_SMTP_SECURITY": settings.smtp_security,
        "SCANHERALD_HTTP_ALLOW": ",".join(settings.http_allow),
        "SCANHERALD_MAIL_FROM": settings.mail_from,
        **{f"SCANHERALD_{name}": "0" for name in NO_PACE},
    }


def _start(console: Console, supervisor: Supervisor, settings: Settings, logs: Path) -> None:
    console.print("Starting Valkey, worker, beat and listener …")
    Ledger(settings.ledger_url).migrate()
    port = int(settings.redis_url.rsplit(":", 1)[1].split("/", 1)[0])
    supervisor.start(valkey_part(port, settings.data_dir / "valkey", logs / "valkey.log"))
    wait_for_redis(settings.redis_url)
    for part in service_parts(_environment(settings), 2, logs):
        supervisor.start(part)


def _subscribe(settings: Settings, sink_url: str) -> None:
    subscribers.save(
        settings,
        Subscriber(
            subscriber_id="demo",
            channels=(
                ChannelAddress(kind=ChannelKind.EMAIL, target="officer@example.org"),
                ChannelAddress(
                    kind=ChannelKind.WEBHOOK,
                    target=f"{sink_url}/webhook",
                    secret=new_secret(secrets.token_bytes),
                ),
                ChannelAddress(kind=ChannelKind.SLACK, target=f"{sink_url}/slack/demo"),
            ),
        ),
    )


def _publish(settings: Settings, files: list[Path]) -> dict[str, int]:
    """XADD each scan with nothing but ``data``; returns cookies by scan id."""
    contents = [path.read_bytes() for path in files]
    publish(settings.redis_url, settings.streams[0], [{"data": data} for data in contents])
    decoded = [decode_scan(data) for data in contents]
    return {str(scan.scan_id): len(scan.cookies or ()) for scan in decoded}


def _wait(
    console: Console,
    supervisor: Supervisor,
    ledger: Ledger,
    scans: int,
    timeout_s: float,
    interrupted: threading.Event,
) -> bool:
    """Show progress until every run and delivery is settled.

    False after ``timeout_s``, or as soon as the user interrupts.
    """
    give_up = time.monotonic() + timeout_s
    with Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        bars = {
            name: progress.add_task(name, total=None)
            for name in ("scans", "artifacts", "deliveries")
        }
        while time.monotonic() < give_up and not interrupted.wait(0.2):
            supervisor.tend()
            with ledger.read() as connection:
                runs = list_runs(connection, limit=MANY)
                reports = list_reports(connection, limit=MANY)
                deliveries = list_deliveries(connection, limit=MANY)
            settled = sum(1 for run in runs if run["state"] in ("done", "dead"))
            sent = sum(1 for row in deliveries if row["settled_at"] is not None)
            ready = sum(1 for row in reports if row["status"] == "ready")
            progress.update(bars["scans"], completed=settled, total=scans)
            progress.update(bars["artifacts"], completed=ready, total=scans * len(DEFAULT_FORMATS))
            progress.update(bars["deliveries"], completed=sent, total=len(deliveries) or None)
            if settled == scans and sent == len(deliveries):
                return True
    return False


def _arrivals(mails: MailSink, sink: HttpSink) -> Counter[tuple[str, str]]:
    """What the sinks got, by (channel, delivery id)."""
    arrived: Counter[tuple[str, str]] = Counter()
    for mail in mails.messages:
        message_id = str(mail.parsed["Message-ID"]).strip().lstrip("<").split("@", 1)[0]
        arrived[ChannelKind.EMAIL, message_id] += 1
    for request in sink.requests:
        if request.path.startswith("/slack"):
            arrived[ChannelKind.SLACK, _slack_message_id(request.body)] += 1
        else:
            arrived[ChannelKind.WEBHOOK, request.headers["webhook-id"]] += 1
    return arrived


def _slack_message_id(body: bytes) -> str:
    """The id that our Slack messages end with."""
    return body.decode("utf-8", "replace").rpartition("message ")[2][:36]


def _check(
    console: Console,
    ledger: Ledger,
    expected: dict[str, int],
    arrived: Counter[tuple[str, str]],
) -> list[str]:
    """Print the table and return everything that is not as it should be."""
    with ledger.read() as connection:
        reports = list_reports(connection, limit=MANY)
        deliveries = list_deliveries(connection, limit=MANY)
        runs = list_runs(connection, limit=MANY)
    faults = [
        f"run {run['run_id']} is {run['state']}: {run['last_error']}"
        for run in runs
        if run["state"] != "done"
    ]
    faults += _check_artifacts(reports, expected)
    faults += _check_deliveries(deliveries, arrived)
    _print_table(console, reports, deliveries, runs)
    console.print(
        f"{len(reports)} artifacts of {len(expected) * len(DEFAULT_FORMATS)}, "
        f"{len(deliveries)} deliveries planned, {sum(arrived.values())} messages received."
    )
    return faults


def _check_artifacts(reports: list[RowMapping], expected: dict[str, int]) -> list[str]:
    faults: list[str] = []
    by_key = {(row["scan_id"], row["format"]): row for row in reports}
    for scan_id, cookies in expected.items():
        for name in DEFAULT_FORMATS:
            row = by_key.get((scan_id, name.value))
            if row is None or row["status"] != "ready":
                faults.append(f"{scan_id}: no {name.value}: {row and row['error']}")
                continue
            fault = fault_in(Path(row["uri"]), name, row["sha256"], cookies)
            if fault:
                faults.append(f"{row['uri']}: {fault}")
    return faults


def _check_deliveries(deliveries: list[RowMapping], arrived: Counter[tuple[str, str]]) -> list[str]:
    planned = {(row["channel"], row["delivery_id"]): row for row in deliveries}
    faults = [
        f"{channel} delivery {delivery_id} ({row['event_key']}) is {row['state']} "
        f"and arrived {arrived[channel, delivery_id]} times: {row['reason'] or ''}"
        for (channel, delivery_id), row in planned.items()
        if row["state"] != DeliveryState.SENT.value or arrived[channel, delivery_id] != 1
    ]
    faults += [
        f"{channel} message {message_id} arrived and was never planned"
        for channel, message_id in arrived
        if (channel, message_id) not in planned
    ]
    if not planned:
        faults.append("no delivery was planned")
    return faults


def _print_table(
    console: Console,
    reports: list[RowMapping],
    deliveries: list[RowMapping],
    runs: list[RowMapping],
) -> None:
    told: dict[tuple[str, str], list[str]] = {}
    for row in deliveries:
        told.setdefault((row["run_id"], row["type"]), []).append(row["channel"])
    event_types = sorted({event_type for _, event_type in told}, reverse=True)
    sizes = {(row["scan_id"], row["format"]): row["size_bytes"] for row in reports}
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("scan", overflow="fold")
    for name in ("score", "cookies", *(f"{name.value} kB" for name in DEFAULT_FORMATS)):
        table.add_column(name, justify="right")
    for event_type in event_types:
        table.add_column(event_type, overflow="fold")
    for run in sorted(runs, key=lambda row: str(row["subject"])):
        table.add_row(
            cell(run["subject"]),
            cell(run["score"]),
            cell(run["cookie_count"]),
            *(
                f"{(sizes.get((run['scan_id'], name.value)) or 0) / 1000:.1f}"
                for name in DEFAULT_FORMATS
            ),
            *(
                " ".join(sorted(told.get((run["run_id"], event_type), ()))) or "-"
                for event_type in event_types
            ),
        )
    console.print(table)


def _fresh_folder(output: Path) -> None:
    """Empty a folder of an earlier demo; refuse to empty anything else."""
    if output.exists() and any(output.iterdir()) and not (output / MARK).exists():
        raise InvalidSettings(
            f"{output} exists and is not a demo's; choose another folder with --output"
        )
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    (output / MARK).write_text("made by scanherald demo; emptied by the next one\n")

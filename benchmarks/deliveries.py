"""``python -m benchmarks.deliveries``: what a delivery costs beside a bare loop of sends.

The bare loop sends the very bytes that our channel sent, over one connection, by
httpx or smtplib; the textbook loop also writes each message, by the standard
library's e-mail package, or by json and a signing library.  Ours is a whole delivery:
leased and settled in a real ledger on disk, composed, signed, guarded.  Sinks run in a
process of their own, so only the senders' CPU counts.  Always exits with 0: a benchmark
reports, it does not judge.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import smtplib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from uuid import uuid4

import httpx
import structlog
import typer
from rich.console import Console
from rich.table import Table
from standardwebhooks.webhooks import Webhook

from benchmarks.measure import in_fresh_process
from channels.registry import CHANNELS
from channels.signing import new_secret
from cli.embedded import free_port, service_parts, valkey_part, wait_for_redis
from cli.sinks import HttpSink, MailSink, SunkMail, SunkRequest
from cli.supervisor import Supervisor
from schemas.events import EventType
from schemas.notifications import (
    ArtifactLink,
    ChannelAddress,
    ChannelKind,
    Fact,
    FindingSummary,
    Message,
    Notification,
    Subscriber,
)
from schemas.reports import Severity
from schemas.settings import Settings, load_settings
from store.deliveries import DeliveryTicket, Recipient, plan_deliveries, save_notification
from store.subscribers import save_subscriber
from tasks import wiring
from tasks.wiring import Wiring, utc_now, wire

TARGET = 3.0
"""At most so many times the bare loop's CPU."""
WIDTH = 110
KINDS = (ChannelKind.EMAIL, ChannelKind.WEBHOOK, ChannelKind.SLACK)
SECRET = new_secret(lambda size: b"s" * size)
UNPACED = {
    "destination_per_s": 0,
    "slack_per_s": 0,
    "subscriber_per_min": 0,
    "destination_in_flight": 0,
    "smtp_in_flight": 0,
}
"""One sink is everybody's: what is measured is our cost, not our patience."""


@dataclass(frozen=True, slots=True)
class Row:
    """One channel.  Times are CPU milliseconds of one delivery; rates are deliveries a second."""

    channel: ChannelKind
    bytes: int
    bare_ms: float
    textbook_ms: float
    """The same message written anew for each send, by the usual libraries."""
    channel_ms: float
    """Composed, signed and sent by our channel, without a ledger."""
    ours_ms: float
    bare_per_s: float
    ours_per_s: float
    worker_ms: float | None = None
    worker_per_s: float | None = None

    @property
    def times(self) -> float:
        """Our CPU over the bare loop's."""
        return self.ours_ms / self.bare_ms

    @property
    def times_textbook(self) -> float:
        """Our CPU over that of a loop that writes what it sends."""
        return self.ours_ms / self.textbook_ms


def main(
    count: Annotated[int, typer.Option(min=1, help="Deliveries of a round.")] = 200,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, of which the median counts.")] = 7,
    worker: Annotated[bool, typer.Option(help="Also by a real worker of two processes.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Figures as JSON.")] = None,
) -> None:
    """Measure deliveries of each channel beside bare loops, and print ratios."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    console.print(f"cpus: {os.cpu_count()}, load: {os.getloadavg()[0]:.1f}", highlight=False)
    rows = []
    with _sinks() as (mail_port, http_port):
        for kind in KINDS:
            console.print(f"measuring {kind}", style="dim", highlight=False)
            row = in_fresh_process(measure, kind, mail_port, http_port, count, rounds)
            if worker:
                ms, per_s = in_fresh_process(
                    measure_worker, kind, mail_port, http_port, count * rounds
                )
                row = Row(**{**asdict(row), "worker_ms": ms, "worker_per_s": per_s})
            rows.append(row)
    _print(console, rows)
    if json_file:
        json_file.write_text(
            json.dumps(
                [
                    {**asdict(row), "times": row.times, "times_textbook": row.times_textbook}
                    for row in rows
                ],
                indent=2,
            )
            + "\n"
        )


def measure(kind: ChannelKind, mail_port: int, http_port: int, count: int, rounds: int) -> Row:
    """Bare sends and whole deliveries, in turns.  For a fresh process."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    bare, textbook, size = _loops(kind, mail_port, http_port)
    with _parts(mail_port, http_port) as parts:
        from tasks.notifications import try_delivery

        _subscribe(parts, kind, http_port)
        for ticket in _plan(parts, kind, 5):  # connections, templates, compiled statements
            try_delivery(parts, ticket)
        bare()
        textbook()
        message = _message(kind, http_port)
        send = parts.channel(kind).send
        samples: dict[str, list[tuple[float, float]]] = {
            "bare": [],
            "textbook": [],
            "channel": [],
            "ours": [],
        }
        for _ in range(rounds):
            samples["bare"].append(_timed(lambda: [bare() for _ in range(count)]))
            samples["textbook"].append(_timed(lambda: [textbook() for _ in range(count)]))
            samples["channel"].append(_timed(lambda: [send(message) for _ in range(count)]))
            tickets = _plan(parts, kind, count)
            samples["ours"].append(
                _timed(lambda tickets=tickets: [try_delivery(parts, item) for item in tickets])
            )
        with parts.ledger.read() as connection:
            from store.deliveries import count_deliveries

            states = count_deliveries(connection)
        if set(states) != {(kind.value, "sent")}:
            raise RuntimeError(f"not all deliveries were sent: {states}")
    cpu = {name: median(item[0] for item in taken) / count for name, taken in samples.items()}
    wall = {name: median(item[1] for item in taken) / count for name, taken in samples.items()}
    return Row(
        channel=kind,
        bytes=size,
        bare_ms=cpu["bare"] * 1000,
        textbook_ms=cpu["textbook"] * 1000,
        channel_ms=cpu["channel"] * 1000,
        ours_ms=cpu["ours"] * 1000,
        bare_per_s=1 / wall["bare"],
        ours_per_s=1 / wall["ours"],
    )


def measure_worker(
    kind: ChannelKind, mail_port: int, http_port: int, count: int
) -> tuple[float, float]:
    """CPU milliseconds of one delivery by a real worker, and deliveries a second."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    port = free_port()
    supervisor = Supervisor()
    with _parts(mail_port, http_port, redis_url=f"redis://127.0.0.1:{port}/0") as parts:
        from tasks.notifications import start_deliveries

        folder = parts.settings.data_dir
        _subscribe(parts, kind, http_port)
        environment = {
            f"SCANHERALD_{name}".upper(): str(value)
            for name, value in parts.settings.model_dump().items()
            if name in (*UNPACED, "data_dir", "smtp_host", "smtp_port", "smtp_security")
        } | {
            "REDIS_URL": parts.settings.redis_url,
            "SCANHERALD_HTTP_ALLOW": ",".join(parts.settings.http_allow),
            "SCANHERALD_LOG_LEVEL": "WARNING",
        }
        try:
            supervisor.start(valkey_part(port, folder / "valkey", folder / "valkey.log"))
            wait_for_redis(parts.settings.redis_url)
            supervisor.start(service_parts(environment, 2, folder)[0])
            start_deliveries(_plan(parts, kind, 20))
            _wait(parts, kind, 20)
            pids = _with_children(supervisor.pid("worker") or 0)
            tickets = _plan(parts, kind, count)
            spent, began = _cpu(pids), time.monotonic()
            start_deliveries(tickets)
            _wait(parts, kind, 20 + count)
            took = time.monotonic() - began
            return (_cpu(pids) - spent) / count * 1000, count / took
        finally:
            supervisor.stop()


def notification(key: str) -> Notification:
    """News of the usual size."""
    return Notification(
        event_key=key,
        type=EventType.SCAN_COMPLETED,
        occurred_at=datetime(2026, 3, 4, 12, tzinfo=UTC),
        domain="shop.example",
        scan_id="3176b0cd-199b-5ec6-b280-ec5c6e92338a",
        severity=Severity.HIGH,
        title="shop.example: score 71",
        summary="48 cookies, 12 of them before consent; 5 findings.",
        variant="scan.completed",
        values={
            "domain": "shop.example",
            "score": 71,
            "cookies": 48,
            "before_consent": 12,
            "findings": 5,
        },
        facts=tuple(
            Fact(label=label, value="12")
            for label in ("cookies", "before_consent", "third_party", "findings")
        ),
        findings=tuple(
            FindingSummary(
                rule_id=f"rule-{number}",
                severity=Severity.HIGH,
                title="Advertising cookies are set before consent",
                count=number,
            )
            for number in range(1, 6)
        ),
        artifacts=tuple(
            ArtifactLink(
                format=name,
                uri=f"https://reports.example/shop.example/{name}",
                size_bytes=40_000,
                sha256="0" * 64,
            )
            for name in ("pdf", "html", "json", "csv")
        ),
    )


def _address(kind: ChannelKind, http_port: int) -> ChannelAddress:
    if kind is ChannelKind.EMAIL:
        return ChannelAddress(kind=kind, target="officer@example.org")
    secret = SECRET if kind is ChannelKind.WEBHOOK else None
    return ChannelAddress(
        kind=kind, target=f"http://127.0.0.1:{http_port}/{kind.value}", secret=secret
    )


def _message(kind: ChannelKind, http_port: int) -> Message:
    return Message(
        message_id=str(uuid4()),
        notification=notification("scan.completed:1"),
        address=_address(kind, http_port),
    )


def _settings(folder: Path, mail_port: int, http_port: int, **more: Any) -> Settings:
    return load_settings(
        data_dir=folder,
        smtp_host="127.0.0.1",
        smtp_port=mail_port,
        smtp_security="none",
        http_allow=(f"127.0.0.1:{http_port}",),
        **UNPACED,
        **more,
    )


@contextmanager
def _parts(mail_port: int, http_port: int, **more: Any) -> Iterator[Wiring]:
    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(Path(folder), mail_port, http_port, **more)
        wiring.use(settings)
        parts = wire(settings)
        parts.ledger.migrate()
        try:
            yield parts
        finally:
            parts.close()


def _subscribe(parts: Wiring, kind: ChannelKind, http_port: int) -> None:
    subscriber = Subscriber(subscriber_id="one", channels=(_address(kind, http_port),))
    with parts.ledger.write() as connection:
        save_subscriber(connection, subscriber, parts.box, utc_now())


def _plan(parts: Wiring, kind: ChannelKind, count: int) -> list[DeliveryTicket]:
    now = utc_now()
    tickets: list[DeliveryTicket] = []
    with parts.ledger.write() as connection:
        for _ in range(count):
            told = notification(f"scan.completed:{uuid4()}")
            save_notification(connection, told, None, now)
            tickets += plan_deliveries(
                connection,
                told.event_key,
                [Recipient("one", ChannelAddress(kind=kind, target="theirs"))],
                now=now,
                started_by=now,
                new_id=lambda: str(uuid4()),
                box=parts.box,
            )
    return tickets


def _loops(
    kind: ChannelKind, mail_port: int, http_port: int
) -> tuple[Callable[[], object], Callable[[], object], int]:
    """A bare and a textbook send of what our channel sends, and how many bytes that is."""
    with MailSink() as mails, HttpSink() as sink, tempfile.TemporaryDirectory() as folder:
        channel = CHANNELS[kind](_settings(Path(folder), mails.port, sink.port), utc_now)
        channel.send(_message(kind, sink.port))
        channel.close()
        caught = mails.messages[0] if kind is ChannelKind.EMAIL else sink.requests[0]
    if isinstance(caught, SunkMail):
        size = len(caught.content)
        return _bare_mail(caught, mail_port), _textbook_mail(caught, mail_port), size
    return _bare_post(caught, http_port), _textbook_post(caught, http_port), len(caught.body)


def _bare_mail(mail: SunkMail, port: int) -> Callable[[], object]:
    connection = smtplib.SMTP("127.0.0.1", port)
    connection.ehlo()
    return lambda: connection.sendmail(mail.sender, list(mail.recipients), mail.content)


def _textbook_mail(mail: SunkMail, port: int) -> Callable[[], object]:
    connection = smtplib.SMTP("127.0.0.1", port)
    parsed = message_from_bytes(mail.content, policy=policy.default)
    headers = {
        name: str(value)
        for name, value in parsed.items()
        if not name.lower().startswith(("content-", "mime-"))
    }
    texts = {
        kind: part.get_content() for kind in ("plain", "html") if (part := parsed.get_body((kind,)))
    }

    def send() -> object:
        written = EmailMessage()
        for name, value in headers.items():
            written[name] = value
        written.set_content(texts["plain"])
        written.add_alternative(texts["html"], subtype="html")
        return connection.send_message(written, mail.sender, list(mail.recipients))

    return send


def _textbook_post(request: SunkRequest, port: int) -> Callable[[], object]:
    client = httpx.Client(timeout=10)
    url = f"http://127.0.0.1:{port}{request.path}"
    content = json.loads(request.body)
    signer = Webhook(SECRET) if "webhook-id" in request.headers else None

    def send() -> object:
        body = json.dumps(content)
        headers = {"content-type": "application/json"}
        if signer is not None:
            now, identity = utc_now(), str(uuid4())
            headers |= {
                "webhook-id": identity,
                "webhook-timestamp": str(int(now.timestamp())),
                "webhook-signature": signer.sign(identity, now, body),
            }
        return client.post(url, content=body, headers=headers).raise_for_status()

    return send


def _bare_post(request: SunkRequest, port: int) -> Callable[[], object]:
    client = httpx.Client(timeout=10)
    url = f"http://127.0.0.1:{port}{request.path}"
    headers = {
        name: value
        for name, value in request.headers.items()
        if name not in ("host", "content-length")
    }
    return lambda: client.post(url, content=request.body, headers=headers).raise_for_status()


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds."""
    cpu, wall = time.process_time(), time.monotonic()
    work()
    return time.process_time() - cpu, time.monotonic() - wall


def _wait(parts: Wiring, kind: ChannelKind, count: int) -> None:
    from store.deliveries import count_deliveries

    give_up = time.monotonic() + 300
    while time.monotonic() < give_up:
        with parts.ledger.read() as connection:
            if count_deliveries(connection).get((kind.value, "sent"), 0) >= count:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{count} deliveries were not sent within 300 s")


def _with_children(pid: int) -> list[int]:
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def _cpu(pids: list[int]) -> float:
    """CPU seconds that these processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def _sinks() -> Iterator[tuple[int, int]]:
    """The ports of a mail and an HTTP sink in a process of their own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_sinks, args=(theirs,))
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send(None)
        process.join()


def _serve_sinks(told: Connection) -> None:
    with MailSink() as mails, HttpSink() as sink:
        told.send((mails.port, sink.port))
        told.recv()


def _print(console: Console, rows: list[Row]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("channel")
    for name in (
        "bytes",
        "bare ms",
        "textbook",
        "channel",
        "ours ms",
        "× bare",
        "target",
        "",
        "× textbook",
        "bare /s",
        "ours /s",
        "worker ms",
        "worker /s",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.channel.value,
            f"{row.bytes:,}",
            f"{row.bare_ms:.2f}",
            f"{row.textbook_ms:.2f}",
            f"{row.channel_ms:.2f}",
            f"{row.ours_ms:.2f}",
            f"{row.times:.2f}",
            f"≤ {TARGET:g}",
            "ok" if row.times <= TARGET else "miss",
            f"{row.times_textbook:.2f}",
            f"{row.bare_per_s:.0f}",
            f"{row.ours_per_s:.0f}",
            "" if row.worker_ms is None else f"{row.worker_ms:.2f}",
            "" if row.worker_per_s is None else f"{row.worker_per_s:.0f}",
        )
    console.print(table)
    console.print("ms: CPU time of one delivery, of all its threads and processes.", style="dim")


if __name__ == "__main__":
    typer.run(main)

"""Write transactions and CPU of one scan by stage; each transaction waits for the disk."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import structlog
from sqlalchemy import Connection

from benchmarks.figures import Figure
from benchmarks.render import Target
from benchmarks.service import UNPACED, make_scan
from benchmarks.sink import sink
from listener.decode import decode_batch
from schemas.events import EventType
from schemas.notifications import ChannelAddress, ChannelKind, Subscriber
from schemas.reports import DEFAULT_FORMATS, Format
from schemas.runs import Entry
from schemas.settings import load_settings
from store import runs
from store.events import record_batch
from store.ledger import Ledger
from store.subscribers import save_subscriber
from tasks import reports, wiring
from tasks.finish import settle
from tasks.notifications import try_delivery
from tasks.reports import render_formats
from tasks.wiring import utc_now

HOOKS = 3
COOKIES = 200
WARM_UP, SCANS = 3, 15
LAYOUTS: dict[str, tuple[tuple[Format, ...], ...]] = {
    "one header task": (DEFAULT_FORMATS,),
    "two header tasks": (DEFAULT_FORMATS[:1], DEFAULT_FORMATS[1:]),
    "four header tasks": tuple((name,) for name in DEFAULT_FORMATS),
}


class CountedLedger(Ledger):
    """Counts committed write transactions under ``stage``."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.stage = "set-up"
        self.writes: Counter[str] = Counter()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        with super().write() as connection:
            yield connection
        self.writes[self.stage] += 1


def count_writes(urls: Mapping[str, str] | None = None) -> list[Figure]:
    """Figures for each way to share formats out.  For a fresh process.

    ``urls`` are those of an empty PostgreSQL database for each layout; SQLite without.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    figures = []
    engine = "PostgreSQL" if urls else "SQLite"
    for layout, headers in LAYOUTS.items():
        writes, cpu = _take_scans(headers, urls[layout] if urls else None)
        whole = writes["header"] + writes["body"] + writes["deliveries"]
        figures.append(
            Figure(
                f"ledger, {engine}",
                f"write transactions of a scan, {layout}, {HOOKS} deliveries", whole,
                None, "", whole, "", None if len(headers) == 4 else Target(10, ""),
                {stage: count for stage, count in writes.items() if stage != "set-up"},
            )
        )  # fmt: skip
        figures.append(
            Figure(
                f"stages, {engine}",
                f"CPU of a scan of {COOKIES} cookies, {layout}, without Celery",
                sum(cpu.values()), None, "ms",
                told={stage: f"{spent:.2f} ms" for stage, spent in cpu.items()},
            )
        )  # fmt: skip
    return figures


def _take_scans(
    headers: tuple[tuple[Format, ...], ...], url: str | None
) -> tuple[Counter[str], dict[str, float]]:
    """Write transactions of one scan by stage, and its CPU milliseconds by stage."""
    with tempfile.TemporaryDirectory() as folder, sink() as arrivals:
        address = f"127.0.0.1:{arrivals.port}"
        chosen = {} if url is None else {"DATABASE_URL": url}
        settings = load_settings(data_dir=Path(folder), http_allow=(address,), **UNPACED, **chosen)
        wiring.use(settings)
        parts = wiring.current()
        ledger = CountedLedger(settings.ledger_url)
        parts.ledger = ledger
        ledger.migrate()
        for number in range(HOOKS):
            add_hook(parts, f"one-{number}", f"http://{address}/{number}")
        samples: dict[str, list[float]] = {}
        for number in range(WARM_UP + SCANS):
            ledger.writes.clear()
            _take_one(parts, ledger, headers, number, samples if number >= WARM_UP else {})
        parts.close()
        if arrivals.count() != HOOKS * (WARM_UP + SCANS):
            raise RuntimeError(f"only {arrivals.count()} deliveries arrived")
        return ledger.writes, {stage: median(taken) for stage, taken in samples.items()}


def _take_one(
    parts: Any,
    ledger: CountedLedger,
    headers: tuple[tuple[Format, ...], ...],
    number: int,
    samples: dict[str, list[float]],
) -> None:
    @contextmanager
    def stage(name: str) -> Iterator[None]:
        ledger.stage = name
        began = time.process_time()
        yield
        samples.setdefault(name, []).append((time.process_time() - began) * 1000)

    with stage("listener, a batch"):
        run_id = record_scan(parts, make_scan(number, COOKIES), number)
    with stage("header"):
        for formats in headers:
            render_formats(parts, run_id, formats)
    if len(headers) > 1:
        reports._assessed.clear()  # as in another process of the pool
    with stage("body"):
        tickets = settle(parts, run_id, 1)
    with stage("deliveries"):
        for ticket in tickets:
            try_delivery(parts, ticket)


def record_scan(parts: Any, data: bytes, number: int) -> str:
    """RECORD and the note that all is published: the listener's two transactions; the run's id."""
    entry = Entry("scans:events", f"{number + 1}-0", {b"data": data})
    decoded, _ = decode_batch([entry], max_bytes=1 << 24)
    now = utc_now()
    with parts.ledger.write() as connection:
        recorded = record_batch(
            connection, decoded, [], defaults=parts.run_defaults, now=now, dispatch_by=now,
            new_id=parts.new_id,
        )  # fmt: skip
    with parts.ledger.write() as connection:
        runs.mark_dispatched(connection, recorded.tickets, now)
    return recorded.tickets[0].run_id


def add_hook(parts: Any, name: str, target: str) -> None:
    """A subscriber of every finished scan."""
    address = ChannelAddress(kind=ChannelKind.WEBHOOK, target=target, secret="whsec_" + "c2Vj" * 8)
    subscriber = Subscriber(
        subscriber_id=name, channels=(address,), events=(EventType.SCAN_COMPLETED,)
    )
    with parts.ledger.write() as connection:
        save_subscriber(connection, subscriber, parts.box, utc_now())

"""Does the cost of one event stay flat when there are many, and linear in what it holds?

The same listener takes in a backlog of growing length, scans of growing size, and
into a ledger that holds more and more; each figure is CPU per event beside that
of the smallest.  Then whole services with more processes, by scans a second.
"""

from __future__ import annotations

import time
import uuid
from statistics import median

import structlog
from sqlalchemy import Connection, insert
from sqlalchemy import text as sql

from benchmarks.end_to_end import COOKIES, Ours
from benchmarks.figures import Figure
from benchmarks.intake import Bench
from benchmarks.measure import in_fresh_process
from benchmarks.render import Target
from benchmarks.service import Service, make_scan, service
from benchmarks.sink import sink
from store.tables import events, runs, scans
from tasks import wiring
from tasks.app import app as ours
from tasks.app import publish_only
from tasks.wiring import utc_now

FLAT = Target(1.3)
SMALL = 2
"""Cookies of a scan where the number of scans is what grows."""
ROWS_AT_ONCE = 5_000


def measure_growth(*, full: bool) -> list[Figure]:
    """All figures; ``full`` has the largest sizes."""
    backlog = (10, 100, 1_000, 10_000) if full else (10, 100, 1_000)
    cookies = (50, 500, 5_000, 50_000) if full else (50, 500, 5_000)
    rows = (1_000, 10_000, 100_000, 1_000_000) if full else (1_000, 10_000, 50_000)
    figures = _beside_smallest(
        "backlog of", {n: in_fresh_process(take_backlog, n) for n in backlog}, "events"
    )
    figures += _beside_smallest(
        "cookies:", {n: in_fresh_process(take_cookies, n) / n for n in cookies}, "per cookie"
    )
    figures += _beside_smallest("ledger of", in_fresh_process(take_into_ledger, rows), "events")
    return figures


def measure_processes(scans_each: int) -> list[Figure]:
    """Scans a second with more workers or listeners, beside the fewest."""
    figures = []
    for what, layouts in (
        ("worker processes", {1: (1, 1), 2: (2, 1), 4: (4, 1)}),
        ("listeners", {1: (2, 1), 2: (2, 2)}),
    ):
        rates = {
            number: _rate(concurrency, listeners, scans_each)
            for number, (concurrency, listeners) in layouts.items()
        }
        fewest = min(rates)
        figures += [
            Figure("growth", f"{number} {what}: scans/s beside {fewest}", rate, rates[fewest],
                   "/s", rate / rates[fewest])
            for number, rate in rates.items()
            if number != fewest
        ]  # fmt: skip
    return figures


def take_backlog(count: int) -> float:
    """CPU ms of the listener per event; enough backlogs of ``count`` to be told.  Fresh process."""
    with _listening() as (bench, _):
        return _per_event(bench, count, max(3, 100 // count), SMALL)


def take_cookies(cookies: int) -> float:
    """CPU ms of the listener per event of so many cookies.  For a fresh process."""
    with _listening() as (bench, _):
        return _per_event(bench, 4, 5, cookies)


def take_into_ledger(sizes: tuple[int, ...]) -> dict[int, float]:
    """CPU ms of the listener per event, by the number of events there are.  Fresh process."""
    found = {}
    with _listening() as (bench, made):
        there = 0
        for size in sizes:
            with made.ledger.write() as connection:
                _fill(connection, there, size)
            there = size
            found[size] = _per_event(bench, 100, 5, SMALL)
    return found


def _per_event(bench: Bench, count: int, turns: int, cookies: int) -> float:
    samples = []
    for number in range(turns + 1):  # the first one warms up
        bench.publish(f"{uuid.uuid4()}", count, cookies)
        began = time.process_time()
        bench.listen(count)
        if number:
            samples.append((time.process_time() - began) / count * 1000)
        bench.empty()
    return median(samples)


class _listening:
    """A bench on a service of its own, for the length of a block."""

    def __enter__(self) -> tuple[Bench, Service]:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        # 50,000 cookies are 25 MB
        self._service = service(reports_high_water=1_000_000, max_entry_bytes=1 << 26)
        made = self._service.__enter__()
        wiring.use(made.settings)
        publish_only()
        ours.conf.update(broker_url=made.url, result_backend=made.url)
        self._bench = Bench(made)
        return self._bench, made

    def __exit__(self, *told: object) -> None:
        self._bench.close()
        self._service.__exit__(None, None, None)


def _beside_smallest(what: str, spent: dict[int, float], unit: str) -> list[Figure]:
    least = min(spent)
    return [
        Figure("growth", f"{what} {size:,} beside {least:,}: CPU per event", ms, spent[least],
               "ms" if unit == "events" else f"ms {unit}", ms / spent[least], target=FLAT)
        for size, ms in spent.items()
        if size != least
    ]  # fmt: skip


def _fill(connection: Connection, first: int, last: int) -> None:
    """Settled events with their scans and runs, of a thousand domains; keys grow downwards."""
    now = utc_now()
    for start in range(first, last, ROWS_AT_ONCE):
        numbers = range(start, min(last, start + ROWS_AT_ONCE))
        connection.execute(
            insert(events),
            [
                {
                    "source": "filled", "event_id": f"f-{n}", "stream": "filled",
                    "entry_id": f"{n}-1", "type": "scan.completed",
                    "subject": f"shop-{n % 997}.example", "occurred_at": now,
                    "payload_size": 0, "payload_sha256": "", "outcome": "done", "seen": 1,
                    "recorded_at": now, "event_pk": 1_000_000_000 - n,
                }
                for n in numbers
            ],
        )  # fmt: skip
        connection.execute(
            insert(scans),
            [
                {
                    "scan_id": str(uuid.UUID(int=n)), "event_pk": 1_000_000_000 - n,
                    "domain": f"shop-{n % 997}.example", "finished_at": now,
                    "cookie_count": 1, "score": 50, "recorded_at": now,
                }
                for n in numbers
            ],
        )  # fmt: skip
        connection.execute(
            insert(runs),
            [
                {
                    "run_id": f"filled-{n}", "event_pk": 1_000_000_000 - n,
                    "scan_id": str(uuid.UUID(int=n)), "kind": "live", "state": "done",
                    "attempt": 1, "formats": [], "inputs": {}, "created_at": now,
                    "settled_at": now,
                }
                for n in numbers
            ],
        )  # fmt: skip
    connection.execute(sql("ANALYZE"))


def _rate(concurrency: int, listeners: int, count: int) -> float:
    with sink() as arrivals, service(allow=f"127.0.0.1:{arrivals.port}") as made:
        made.subscribe({"hook": f"http://127.0.0.1:{arrivals.port}/hook"})
        made.start_parts(concurrency, listeners)
        contestant = Ours(made, arrivals, ["/hook"], f"{concurrency} processes")
        contestant.run([make_scan(f"warm {number}", COOKIES) for number in range(4)])
        return contestant.run(
            [make_scan(f"turn {number}", COOKIES) for number in range(count)]
        ).rate

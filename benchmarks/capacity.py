"""What one scan costs by its size: CPU by stage, bytes in stream, ledger and artifact store.

``python -m benchmarks.capacity``: the figures of docs/scaling.md.  One process, SQLite,
a local folder, one webhook; Celery's own share is measured by the end-to-end part.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import structlog

from benchmarks.ledger_writes import add_hook, record_scan
from benchmarks.machine import describe_machine
from benchmarks.service import UNPACED, make_scan
from benchmarks.sink import sink
from schemas.reports import DEFAULT_FORMATS
from schemas.settings import load_settings
from tasks import reports, wiring
from tasks.finish import settle
from tasks.notifications import try_delivery
from tasks.reports import render_formats

SIZES = (50, 200, 1_000, 5_000, 20_000)
STAGES = ("listener", "header", "body", "delivery")
WARM_UP = 1


def measure(cookies: int, scans: int) -> dict[str, float]:
    """CPU ms by stage, KB of an entry, of the ledger and of the artifacts, for each scan."""
    with tempfile.TemporaryDirectory() as folder, sink() as arrivals:
        address = f"127.0.0.1:{arrivals.port}"
        settings = load_settings(data_dir=Path(folder), http_allow=(address,), **UNPACED)
        wiring.use(settings)
        parts = wiring.current()
        parts.ledger.migrate()
        add_hook(parts, "one", f"http://{address}/")
        spent: dict[str, list[float]] = {stage: [] for stage in STAGES}
        for number in range(WARM_UP):
            _take(parts, make_scan(number, cookies), number, {stage: [] for stage in STAGES})
        before = _bytes_of(Path(folder))
        for number in range(WARM_UP, WARM_UP + scans):
            data = make_scan(number, cookies)
            _take(parts, data, number, spent)
        after = _bytes_of(Path(folder))
        parts.close()
    found = {stage: median(taken) for stage, taken in spent.items()}
    found["entry"] = len(data) / 1024
    return found | {place: (after[place] - before[place]) / 1024 / scans for place in after}


def _take(parts: Any, data: bytes, number: int, spent: dict[str, list[float]]) -> None:
    clock = time.process_time
    began = clock()
    run_id = record_scan(parts, data, number)
    recorded = clock()
    render_formats(parts, run_id, DEFAULT_FORMATS)
    rendered = clock()
    reports._assessed.clear()  # as in another process of the pool
    tickets = settle(parts, run_id, 1)
    settled = clock()
    for ticket in tickets:
        try_delivery(parts, ticket)
    moments = (began, recorded, rendered, settled, clock())
    for stage, first, last in zip(STAGES, moments, moments[1:], strict=False):
        spent[stage].append((last - first) * 1000)


def _bytes_of(folder: Path) -> dict[str, int]:
    """The ledger, its write-ahead log put away, and the artifacts."""
    with sqlite3.connect(folder / "ledger.sqlite3") as ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.close()
    artifacts = folder / "artifacts"
    return {
        "ledger": (folder / "ledger.sqlite3").stat().st_size,
        "artifacts": sum(path.stat().st_size for path in artifacts.rglob("*") if path.is_file()),
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="cookies, with commas")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    print(", ".join(describe_machine().values()))
    print("| cookies | listener | header | body | delivery | entry KB | ledger KB | artifacts KB |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for cookies in map(int, given.sizes.split(",")):
        found = measure(cookies, scans=max(3, min(30, 10_000 // cookies)))
        cells = [f"{found[stage]:,.1f} ms" for stage in STAGES]
        cells += [f"{found[place]:,.0f}" for place in ("entry", "ledger", "artifacts")]
        print(f"| {cookies:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

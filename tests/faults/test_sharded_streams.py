"""Several streams and listeners: scans of a domain are compared by their times all the same."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from store.runs import load_run

STREAMS = ("scans:events:0", "scans:events:1", "scans:events:2")
DOMAINS, SCANS_EACH = 4, 6
FIRST = datetime(2026, 3, 4, tzinfo=UTC)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]  # a quarter of a minute


def scan(number: int) -> dict[str, bytes]:
    """The scans of a domain finish a day apart, and each sets one cookie more than the last."""
    domain, day = number % DOMAINS, number // DOMAINS
    data = {
        "scan_id": str(UUID(int=number + 1)),
        "domain": f"site-{domain}.example",
        "timestamp_utc": (FIRST + timedelta(days=day)).isoformat(),
        "page_count": 1,
        "cookies": [{"name": f"c{index}"} for index in range(day + 1)],
    }
    return {"data": json.dumps(data).encode()}


def drifts(service: Any) -> dict[str, list[tuple[str, str | None, int]]]:
    """By domain: each scan's day, what its report was compared with, and cookies added since."""
    found = defaultdict(list)
    for row in service.reports():
        if row["format"] == "json":
            (run,) = service.rows(lambda connection, row=row: [load_run(connection, row["run_id"])])
            shown = json.loads(Path(row["uri"]).read_bytes())
            day = f"{run.occurred_at:%Y-%m-%d}"
            added = len(shown["drift"]["added"])
            found[run.subject].append((day, run.inputs.previous_scan_id, added))
    return {domain: sorted(each) for domain, each in found.items()}


def test_scans_in_any_order_in_any_stream_are_compared_with_the_true_one_before(
    service: Any,
) -> None:
    chance = random.Random(7)
    service.environment |= {
        "SCANHERALD_STREAMS": ",".join(STREAMS),
        "SCANHERALD_BATCH_ENTRIES": "3",  # so that both listeners get something of each stream
        "SCANHERALD_FORMATS": "json",
    }
    count = DOMAINS * SCANS_EACH
    service.start("beat")
    for number in chance.sample(range(count), count):
        service.publish(scan(number), stream=chance.choice(STREAMS))
    for name in ("listener-1", "listener-2"):
        service.start_another("listener", name)
    service.wait(lambda: len(service.runs()) == count)
    read = [
        sum(line.get("new", 0) for line in service.log_lines(name))
        for name in ("listener-1", "listener-2")
    ]
    assert sum(read) == count
    service.start_part("worker")
    service.wait(lambda: service.settled(count))

    found = drifts(service)
    assert len(found) == DOMAINS
    for domain, each in found.items():
        first = int(domain.removeprefix("site-").removesuffix(".example")) + 1
        days = [f"{FIRST + timedelta(days=day):%Y-%m-%d}" for day in range(SCANS_EACH)]
        before = [str(UUID(int=first + day * DOMAINS)) for day in range(SCANS_EACH - 1)]
        added = [0] + [1] * (SCANS_EACH - 1)
        assert each == list(zip(days, [None, *before], added, strict=True))

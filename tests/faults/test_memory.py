"""A memory bound: one worker, the largest scan that there may be, then a thousand small ones."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from dataclasses import replace
from typing import Any

import orjson
import pytest

from cli.embedded import service_parts
from store.runs import count_runs
from tests.faults.conftest import small_scans
from tests.faults.processes import children, memory_mb

BOUND_MB = 350
COOKIES = 50_000
SMALL = 1_000
SMALL_FORMAT = "pdf"
"""The one that keeps fonts and encoded text in memory; four formats would double the time."""


def start_part(service: Any, name: str, called: str = "") -> int:
    """Start a part, with one process where it has a pool; returns its process id."""
    parts = service_parts(service.environment, 1, service.folder / "logs")
    part = next(part for part in parts if part.name == name)
    service.supervisor.start(replace(part, name=called or name))
    pid: int = service.supervisor.pid(called or name)
    return pid


def largest_entry(scans: list[bytes], limit: int) -> bytes:
    """All the cookies that a report shows, of real ones, in an entry just under ``limit`` bytes."""
    real = [cookie for data in scans for cookie in orjson.loads(data)["cookies"]]
    wanted = ("domain", "path", "cookie_duration", "http_only", "secure", "same_site", "category")
    wanted += ("vendor", "cookie_type", "set_after_accept", "size", "source")
    cookies = [
        {"name": f"{cookie['name'][:40]}_{number}"}
        | {name: cookie[name] for name in wanted}
        | {"description": f"{number} {cookie['description']}"[:50]}
        for number in range(COOKIES)
        for cookie in [real[number % len(real)]]
    ]
    scan = {"scan_id": str(uuid.UUID(int=10**6)), "domain": "large.example", "cookies": cookies}
    padding = limit - 100 - len(orjson.dumps(scan))
    assert 0 < padding < limit / 5
    return orjson.dumps(scan | {"params": {"padding": "x" * padding}})


@pytest.mark.faults
@pytest.mark.timeout(360)
def test_the_largest_scan_and_a_thousand_small_ones_stay_within_the_bound(
    service: Any, scans: list[bytes]
) -> None:
    limit = service.settings.max_entry_bytes
    data = largest_entry(scans, limit)
    assert limit * 0.999 < len(data) < limit
    service.start("listener")
    worker = start_part(service, "worker")
    listener = service.supervisor.pid("listener")

    service.publish({"data": data})
    service.wait(lambda: service.rows(count_runs) == {"done": 1}, 100)
    (child,) = children(worker)
    after_large = memory_mb(child, "VmHWM")
    service.environment["SCANHERALD_STREAMS"] = "scans:small"
    service.environment["SCANHERALD_FORMATS"] = SMALL_FORMAT
    start_part(service, "listener", "listener-2")
    began = time.monotonic()
    service.publish(*small_scans(SMALL), stream="scans:small")
    service.wait(lambda: service.rows(count_runs) == {"done": 1 + SMALL}, 180)
    spent_s = time.monotonic() - began

    peaks = {
        "pool child": memory_mb(child, "VmHWM"),
        "worker": memory_mb(worker, "VmHWM"),
        "listener": memory_mb(listener, "VmHWM"),
    }
    print(f"peak MB {peaks}, child after the large scan {after_large}; {SMALL} in {spent_s:.0f} s")
    assert children(worker) == [child], "one process handled all"
    assert service.supervisor.pid("listener") == listener
    assert Counter(row["status"] for row in service.reports()) == {"ready": 4 + SMALL}
    assert {name: peak for name, peak in peaks.items() if peak > BOUND_MB} == {}

"""A task that tells thousands of users: killed on its way, and how much it holds in memory."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bulk import add_users
from schemas.crash_points import CrashPoint
from tests.faults.processes import children, memory_mb
from tests.faults.test_memory import start_part
from tests.integration.test_bulk import UNPACED, tell

USERS = 2_000
MANY = 10_000
BOUND_MB = 20


@pytest.mark.faults
@pytest.mark.timeout(240)
def test_a_bulk_task_killed_between_batches_goes_on_and_tells_each_once(
    quick: Any, judge: Any
) -> None:
    """Killed with a batch planned and unstarted, thrice: the message comes back each time."""
    quick.environment |= UNPACED
    add_users(quick.settings, USERS, f"{quick.sink.url}/hook")
    deaths = (0, 3, 7)
    for skip in deaths:
        quick.crashes.lay(CrashPoint.BULK_PLANNED, skip=skip)
    quick.start("worker", "beat")
    assert tell(quick, USERS) == {
        "event": "scan.failed",
        "total_users": USERS + 1,
        "successful_users": USERS,
        "failed_users": 1,
        "total_notifications": USERS,
    }
    assert quick.crashes.fired(CrashPoint.BULK_PLANNED) == len(deaths)
    quick.wait(lambda: len(quick.deliveries()) == USERS)
    judge.judge(quick, faults=len(deaths), events=0)


@pytest.mark.faults
@pytest.mark.timeout(240)
def test_ten_thousand_users_are_planned_for_within_the_bound(service: Any) -> None:
    service.environment |= UNPACED
    add_users(service.settings, MANY, f"{service.sink.url}/hook")
    service.start("nothing but the server")
    worker = start_part(service, "worker")
    tell(service, 1)
    (child,) = children(worker)
    before = {pid: memory_mb(pid, "VmRSS") for pid in (child, worker)}
    for pid in before:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts again from here
    assert tell(service, MANY)["total_notifications"] == MANY
    assert children(worker) == [child], "one process planned for all"
    added = {pid: memory_mb(pid, "VmHWM") - before[pid] for pid in before}
    planning_s = max(
        line["duration_ms"]
        for line in service.log_lines("worker")
        if line["event"] == "task_ended" and line["task"] == "send_bulk_notifications_async"
    )
    print(f"{MANY:,} users in {planning_s / 1000:.1f} s; peak MB added: {added}")
    assert max(added.values()) < BOUND_MB
    os.killpg(worker, signal.SIGKILL)  # what waits is not the point
    # comfortably within what a task may take
    assert planning_s / 1000 < service.settings.task_soft_time_limit_s / 4

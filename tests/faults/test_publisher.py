"""A publisher that lives long, and two beats where one should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from cli.embedded import service_parts
from cli.supervisor import Part
from schemas.crash_points import CrashPoint
from tests.faults.conftest import small_scans

DISPATCHES = 10_000

PUBLISHER = """
import json, sys
import redis
from pathlib import Path
from schemas.reports import DEFAULT_FORMATS
from schemas.runs import RunTicket
from schemas.settings import load_settings
from tasks import wiring
from tasks.app import publish_only
from tasks.chords import dispatch

settings = load_settings()
wiring.use(settings)
publish_only()
client = redis.Redis.from_url(settings.redis_url)

def rss_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) / 1024

def channels():
    return [len(client.pubsub_channels("celery-task-meta-*")), client.pubsub_numpat()]

measured = []
for number in range(1, int(sys.argv[1]) + 1):
    dispatch([RunTicket(f"run-{number}", 1, DEFAULT_FORMATS, needs_data=False)])
    if number in (500, int(sys.argv[1])):
        measured.append([rss_mb(), *channels()])
    if number % 500 == 0:
        client.delete(*[f"{name}" for name in ("reports", "notifications")])
print(json.dumps(measured))
"""


@pytest.mark.faults
@pytest.mark.timeout(240)
def test_ten_thousand_dispatches_hold_no_channel_and_no_memory(service: Any) -> None:
    """Fault 15: 4,000 chords held 16,000 channels and 73 MB with Celery's defaults."""
    service.start("nothing but the server")
    done = subprocess.run(
        [sys.executable, "-c", PUBLISHER, str(DISPATCHES)],
        env={**os.environ, **service.environment},
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (early, *early_channels), (late, *late_channels) = json.loads(done.stdout)
    print(f"RSS after 500 dispatches {early:.1f} MB, after {DISPATCHES:,} {late:.1f} MB")
    assert early_channels == late_channels == [0, 0]
    assert late - early < 10


@pytest.mark.faults
def test_two_beats_at_once_dispatch_each_attempt_once(quick: Any, judge: Any) -> None:
    events = 30
    quick.environment["SCANHERALD_SWEEP_INTERVAL_S"] = "0.5"
    quick.start("worker", "beat")
    beat = next(
        part
        for part in service_parts(quick.environment, 2, quick.folder / "logs")
        if part.name == "beat"
    )
    own = {**beat.environment, "SCANHERALD_DATA_DIR": str(quick.folder / "second")}
    own["DATABASE_URL"] = quick.settings.ledger_url
    quick.supervisor.start(
        Part("beat-2", beat.command, own, quick.folder / "logs" / "beat-2.log", grace_s=10)
    )
    quick.subscribe()
    quick.crashes.lay(CrashPoint.LISTENER_RECORDED)  # recorded, and never dispatched
    quick.publish(*small_scans(events))
    listener = next(
        part
        for part in service_parts(quick.environment, 2, quick.folder / "logs")
        if part.name == "listener"
    )
    died = subprocess.run(listener.command, env=dict(listener.environment), timeout=60, check=False)
    assert died.returncode == -9
    recorded = len(quick.runs())
    assert recorded
    quick.start_part("listener")
    judge.watch_recovery(quick)
    judge.judge(quick, faults=2, events=events)
    sweeps = Counter(
        line["event"] for line in quick.log_lines("worker") if line["event"] == "swept"
    )
    print(f"{recorded} runs left by the death, {sweeps['swept']} sweeps found work")
    assert {row["tries"] for row in quick.reports()} == {1}, "each header was begun once"

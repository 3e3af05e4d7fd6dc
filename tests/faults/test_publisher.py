"""A publisher that lives long, and two beats where one should be."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from cli.embedded import service_parts
from schemas.crash_points import CrashPoint
from schemas.reports import DEFAULT_FORMATS
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
    with contextlib.closing(service.redis()) as client:
        client.config_set("appendonly", "no")  # the publisher is measured, not the disk
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
    """Fault 15: the sweeps of both, tick by tick, meet the runs that a listener left behind."""
    left = 30
    quick.environment |= {
        "SCANHERALD_SWEEP_INTERVAL_S": "0.5",
        # nothing but a sweep that claims twice may begin anything twice, however slow the machine
        "SCANHERALD_RUN_DEADLINE_S": "60",
        "SCANHERALD_VISIBILITY_TIMEOUT_S": "60",
    }
    quick.start("worker", "beat")
    quick.subscribe()
    parts = {part.name: part for part in service_parts(quick.environment, 2, quick.folder / "logs")}
    own = {"SCANHERALD_DATA_DIR": str(quick.folder / "second")}
    quick.supervisor.start(
        replace(
            parts["beat"],
            name="beat-2",
            environment={**parts["beat"].environment, **own},
            log_file=quick.folder / "logs" / "beat-2.log",
        )
    )
    quick.crashes.lay(CrashPoint.LISTENER_RECORDED, skip=1)  # its first batch is one entry
    quick.publish(*small_scans(1 + left))
    listener = parts["listener"]
    died = subprocess.run(listener.command, env=dict(listener.environment), timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    assert len(quick.runs()) == 1 + left
    judge.watch_recovery(quick)
    quick.wait(lambda: quick.settled(1 + left))

    assert Counter(run["attempt"] for run in quick.runs()) == {1: 1, 2: left}
    begun = Counter(
        line["task_id"] for line in quick.log_lines("worker") if line["event"] == "task_started"
    )
    headers = {f"{run['run_id']}:{name}:a2" for run in quick.runs() for name in DEFAULT_FORMATS}
    assert len(headers & set(begun)) == len(DEFAULT_FORMATS) * left
    assert {begun[header] for header in headers & set(begun)} == {1}
    due = [
        line
        for beat in ("beat", "beat-2")
        for line in quick.log_lines(beat)
        if "Sending due task sweep" in line["event"]
    ]
    assert len(due) > 2, "no beat sweeps"
    quick.start_part("listener")  # the entries it finds pending are repeats by now
    with contextlib.closing(quick.redis()) as client:
        quick.wait(lambda: client.xpending("scans:events", "scanherald")["pending"] == 0)
    judge.judge(quick, faults=2, events=1 + left)

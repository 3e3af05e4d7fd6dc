"""What kills whoever touches it: bounded, set aside, and nobody else is harmed."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from cli.supervisor import Part
from schemas.crash_points import CrashPoint
from tests.faults.conftest import small_scans

KILLER_RENDERER = """
import os, signal
import tasks.reports as reports
whole = reports._render_one
def render_one(parts, run, report, presentation, name):
    if name == "pdf" and report.identity.domain == "poison.example":
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(parts, run, report, presentation, name)
reports._render_one = render_one
"""

KILLER_ENTRY = """
import os, signal
import listener.consumer as consumer
whole = consumer.decode_batch
def decode_batch(entries, *, max_bytes):
    if any(b"poison" in entry.fields for entry in entries):
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(entries, max_bytes=max_bytes)
consumer.decode_batch = decode_batch
"""


def sabotaged(service: Any, folder: Path, part: str, code: str, *command: str) -> Part:
    """A part whose process, and what it forks, inherits ``code``'s changes."""
    (folder / f"sabotaged_{part}.py").write_text(code)
    start = (
        f"import sabotaged_{part}, sys; from cli.main import main; "
        "sys.argv[0] = 'scanherald'; main()"
    )
    return Part(
        part,
        [sys.executable, "-c", start, *command],
        {**os.environ, **service.environment, "PYTHONPATH": str(folder)},
        folder / "logs" / f"{part}.log",
    )


@pytest.mark.faults
def test_a_body_that_kills_its_worker_is_given_up(quick: Any) -> None:
    """Each attempt's first body is not counted: that it came back is, by the broker's own mark."""
    tries = 3
    quick.environment["SCANHERALD_RENDER_MAX_TRIES"] = str(tries)
    quick.start()
    quick.crashes.lay(CrashPoint.BODY_SETTLING, 20)
    quick.publish(*small_scans(1))
    quick.wait(lambda: [run["state"] for run in quick.runs()] == ["dead"])
    (run,) = quick.runs()
    assert "poison" in run["last_error"]
    assert quick.crashes.fired(CrashPoint.BODY_SETTLING) <= tries + run["attempt"]


@pytest.mark.faults
def test_a_poison_renderer_costs_one_format_of_one_scan(
    quick: Any, judge: Any, tmp_path: Path, scans: list[bytes]
) -> None:
    """Fault 12."""
    tries, sound = 3, 10
    quick.environment["SCANHERALD_RENDER_MAX_TRIES"] = str(tries)
    poison = orjson.dumps(orjson.loads(scans[0]) | {"domain": "poison.example"})
    quick.start("listener", "beat")
    quick.supervisor.start(
        sabotaged(quick, tmp_path, "worker", KILLER_RENDERER, "worker", "--concurrency", "2")
    )
    quick.subscribe()
    quick.publish({"data": poison}, *small_scans(sound))
    quick.wait(lambda: quick.settled(1 + sound))
    judge.judge(quick, faults=tries, events=1 + sound, failed_artifacts=1)

    failed = [row for row in quick.reports() if row["status"] == "failed"]
    assert [(row["domain"], row["format"]) for row in failed] == [("poison.example", "pdf")]
    assert f"{tries} starts of rendering never ended" in failed[0]["error"]
    bodies = [orjson.loads(request.body) for request in quick.sink.requests]
    (told,) = (
        body
        for body in bodies
        if body["type"] == "scan.completed" and body["data"]["domain"] == "poison.example"
    )
    assert told["data"]["missing_formats"] == ["pdf"]


@pytest.mark.faults
def test_an_entry_that_kills_its_listener_is_set_aside_with_its_reason(
    quick: Any, judge: Any, tmp_path: Path
) -> None:
    sound = 10
    quick.environment |= {
        "SCANHERALD_POISON_DELIVERIES": "2",
        "SCANHERALD_CLAIM_IDLE_MS": "60000",
    }
    quick.start("worker", "beat")
    quick.subscribe()
    events = small_scans(sound)
    quick.publish(*events[:5], {"poison": "1", **small_scans(1, first=99)[0]}, *events[5:])
    quick.supervisor.start(sabotaged(quick, tmp_path, "listener", KILLER_ENTRY, "listen"))
    pids: set[int | None] = set()

    def set_aside() -> bool:
        pids.add(quick.supervisor.pid("listener"))
        return quick.settled(sound)

    quick.wait(set_aside, 90)
    judge.watch_recovery(quick)
    judge.judge(quick, faults=len(pids - {None}) - 1, events=sound)
    (letter,) = quick.dead_letters()
    assert "the listener died" in letter["reason"]


@pytest.mark.faults
def test_a_healthy_entry_that_only_came_back_often_survives(quick: Any, judge: Any) -> None:
    """Deliveries rise in an outage too: neither a count nor two deaths alone condemn it."""
    deaths, events = 6, 3  # four by deliveries, two more under a suspect's look
    quick.start("worker", "beat")
    quick.subscribe()
    quick.crashes.lay(CrashPoint.LISTENER_READ, deaths)
    quick.publish(*small_scans(events))
    quick.start_part("listener")
    quick.wait(lambda: quick.crashes.fired(CrashPoint.LISTENER_READ) == deaths, 90)
    judge.watch_recovery(quick)
    judge.judge(quick, faults=deaths, events=events)
    assert quick.dead_letters() == []
    said = Counter(line["event"] for line in quick.log_lines("listener"))
    assert said["suspect_taken"] > 0

"""Renderers that kill or break their worker: one failure does not block the rest."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from cli.supervisor import Part

KILLER = """
import os, signal
import tasks.reports as reports
whole = reports._render_one
def render_one(parts, run, report, presentation, name):
    if name == "pdf":
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(parts, run, report, presentation, name)
reports._render_one = render_one
"""

BREAKER = """
import tasks.reports as reports
def broken(*arguments, **named):
    raise RuntimeError("a bug in the header itself")
reports.render_formats = reports._fail_all = broken
"""


def sabotaged_worker(service: Any, folder: Path, code: str) -> Part:
    """A worker whose pool inherits ``code``'s changes."""
    (folder / "sabotage.py").write_text(code)
    start = "import sabotage, sys; from cli.main import main; sys.argv[0] = 'scanherald'; main()"
    return Part(
        "worker",
        [sys.executable, "-c", start, "worker", "--concurrency", "2"],
        {**os.environ, **service.environment, "PYTHONPATH": str(folder)},
        folder / "logs" / "worker.log",
    )


@pytest.mark.full
def test_a_renderer_that_kills_its_worker_is_given_up_and_the_rest_arrives(
    service: Any, scans: list[bytes], tmp_path: Path
) -> None:
    service.environment["SCANHERALD_RENDER_MAX_TRIES"] = "2"
    service.start("listener", "beat")
    service.supervisor.start(sabotaged_worker(service, tmp_path, KILLER))
    service.subscribe()
    service.publish({"data": scans[0]})
    service.wait(lambda: service.settled(1))

    by_format = {row["format"]: row for row in service.reports()}
    assert by_format.pop("pdf")["status"] == "failed"
    assert {row["status"] for row in by_format.values()} == {"ready"}
    told = orjson.loads(service.sink.requests[0].body)
    assert told["data"]["missing_formats"] == ["pdf"]


@pytest.mark.full
def test_a_header_that_breaks_lets_the_sweep_go_on_until_the_cap_and_then_says_why(
    service: Any, scans: list[bytes], tmp_path: Path
) -> None:
    service.environment["SCANHERALD_RUN_MAX_ATTEMPTS"] = "2"
    service.environment["SCANHERALD_TOGETHER_BYTES"] = "0"  # a chord at the first attempt, too
    service.start("listener", "beat")
    service.supervisor.start(sabotaged_worker(service, tmp_path, BREAKER))
    service.publish({"data": scans[0]})
    service.wait(lambda: service.settled(1))

    run = service.runs()[0]
    assert (run["state"], run["attempt"]) == ("dead", 2)
    assert "gave up after 2 attempts: a task ended without saying how" in run["last_error"]
    assert "attempt_broken" in {line["event"] for line in service.log_lines("worker")}
    letters = orjson.loads(service.scanherald("dead-letters", "--json").stdout)
    assert "gave up after 2 attempts" in letters[0]["reason"]

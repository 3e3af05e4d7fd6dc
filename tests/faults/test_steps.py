"""Every crash point of workers and beat: killed at each step of a run and of a delivery."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

from cli.embedded import service_parts
from cli.sinks import SinkAnswer
from schemas.crash_points import CrashPoint
from tests.faults.conftest import small_scans

RENDERING = (
    CrashPoint.RENDER_COUNTED,
    CrashPoint.RENDER_RENDERED,
    CrashPoint.RENDER_PUT,
    CrashPoint.RENDER_SAVED,
    CrashPoint.BODY_SETTLING,
    CrashPoint.BODY_SETTLED,
)
DELIVERING = (CrashPoint.DELIVERY_LEASED, CrashPoint.DELIVERY_SETTLED)


@pytest.mark.faults
def test_a_worker_killed_at_each_step_of_a_run_loses_nothing(quick: Any, judge: Any) -> None:
    quick.start()
    quick.subscribe()
    points = [*RENDERING, *DELIVERING]
    for number, point in enumerate(points):
        quick.crashes.lay(point, 2)
        quick.publish(*small_scans(2, first=2 * number + 1))
        quick.wait(lambda point=point: quick.crashes.fired(point) == 2)
    judge.watch_recovery(quick)
    judge.judge(quick, faults=2 * len(points), events=2 * len(points))


@pytest.mark.full
def test_a_worker_killed_after_the_post_sends_again_under_the_same_id(
    quick: Any, judge: Any
) -> None:
    """Fault 9: the receiver has it, the ledger does not know; each repeat can be told."""
    deaths, events = 3, 6
    quick.start()
    quick.subscribe()
    quick.crashes.lay(CrashPoint.DELIVERY_SENT, deaths)
    quick.publish(*small_scans(events))
    quick.wait(lambda: quick.crashes.fired(CrashPoint.DELIVERY_SENT) == deaths)
    judge.watch_recovery(quick)
    line = judge.judge(quick, faults=deaths, events=events, duplicates_at_most=deaths)
    assert line.duplicates == deaths, "a lease that ends sends again: at least once, never less"


@pytest.mark.faults
def test_a_retry_that_was_never_published_is_the_sweeps(quick: Any, judge: Any) -> None:
    deaths = 2
    quick.sink.script(*[SinkAnswer(status=503, body=b"later")] * deaths)
    quick.start()
    quick.subscribe()
    quick.crashes.lay(CrashPoint.DELIVERY_PUT_BACK, deaths)
    quick.publish(*small_scans(deaths))
    quick.wait(lambda: quick.crashes.fired(CrashPoint.DELIVERY_PUT_BACK) == deaths)
    judge.watch_recovery(quick)
    judge.judge(quick, faults=deaths, events=deaths, refused=deaths)


@pytest.mark.faults
def test_a_fetch_killed_before_it_dispatches_loses_nothing(
    quick: Any, judge: Any, tmp_path: Path, scans: list[bytes]
) -> None:
    root = tmp_path / "refs"
    root.mkdir()
    quick.environment["SCANHERALD_DATAREF_FILE_ROOTS"] = str(root)
    quick.start()
    quick.subscribe()
    quick.crashes.lay(CrashPoint.FETCH_RECORDED, 2)
    for number, data in enumerate(scans[:4]):
        (root / f"{number}.json").write_bytes(data)
        quick.publish({"dataref": (root / f"{number}.json").as_uri()})
    quick.wait(lambda: quick.crashes.fired(CrashPoint.FETCH_RECORDED) == 2)
    judge.watch_recovery(quick)
    judge.judge(quick, faults=2, events=4)


@pytest.mark.faults
def test_a_sweep_killed_with_runs_claimed_leaves_them_to_the_next_deadline(
    quick: Any, judge: Any
) -> None:
    """Only a sweep that has claimed something proves this: so every message is lost first."""
    events = 6
    quick.start("listener")
    quick.subscribe()
    quick.publish(*small_scans(events))
    quick.wait(lambda: [run["state"] for run in quick.runs()] == ["dispatched"] * events)
    with contextlib.closing(quick.redis()) as client:
        assert client.delete("reports") == 1
    until = time.monotonic() + quick.settings.run_deadline_s + 1
    quick.wait(lambda: time.monotonic() > until)
    quick.crashes.lay(CrashPoint.SWEEP_CLAIMED)
    for part in service_parts(quick.environment, 2, quick.folder / "logs"):
        if part.name != "listener":
            quick.supervisor.start(part)
    quick.wait(lambda: quick.crashes.fired(CrashPoint.SWEEP_CLAIMED) == 1)
    assert {run["attempt"] for run in quick.runs()} == {2}, "claimed, and never published"
    judge.watch_recovery(quick)
    judge.judge(quick, faults=1, events=events)
    assert min(run["attempt"] for run in quick.runs()) >= 3

"""The listener and its dispatch, killed at each step."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.crash_points import CrashPoint
from tests.faults.conftest import small_scans

STEPS = [
    (CrashPoint.LISTENER_READ, 0),
    (CrashPoint.LISTENER_COMMITTING, 0),
    (CrashPoint.LISTENER_RECORDED, 0),  # nothing published: K = 0
    (CrashPoint.HEADER_PUBLISHED, 0),  # K = 1 of 4
    (CrashPoint.HEADER_PUBLISHED, 1),
    (CrashPoint.HEADER_PUBLISHED, 2),
    (CrashPoint.HEADER_PUBLISHED, 3),  # K = 4
    (CrashPoint.LISTENER_DISPATCHED, 0),
    (CrashPoint.LISTENER_MARKED, 0),
]


@pytest.mark.full
def test_the_dispatcher_killed_after_each_step_loses_nothing(quick: Any, judge: Any) -> None:
    """Faults 5 and 4: dispatch cut off after K = 0 to 4 publishes, and at every other step."""
    quick.environment["SCANHERALD_BATCH_ENTRIES"] = "1"
    quick.environment["SCANHERALD_TOGETHER_BYTES"] = "0"  # small scans, and chords all the same
    quick.start()
    quick.subscribe()
    for number, (point, skip) in enumerate(STEPS):
        quick.crashes.lay(point, skip=skip)
        quick.publish(*small_scans(1, first=number + 1))
        deaths = sum(1 for before in STEPS[: number + 1] if before[0] is point)
        quick.wait(lambda point=point, deaths=deaths: quick.crashes.fired(point) == deaths)
    judge.watch_recovery(quick)
    judge.judge(quick, faults=len(STEPS), events=len(STEPS))

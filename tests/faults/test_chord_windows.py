"""Windows inside Celery and kombu in which a chord, or a message, is lost for Celery itself."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.conftest import small_scans
from tests.faults.sabotage import Window, sabotaged_worker

FAULTS = {
    Window.COUNTING: 4,  # fault 6, with header results that are not stored
    Window.HOLDING_CLAIM: 3,  # fault 7: Celery alone lost 16 chords of 16
    Window.POPPED_REPORT: 2,  # fault 8: Celery alone lost 8 of 8
    Window.POPPED_NOTIFICATION: 2,
    Window.PART_RETURN: 4,  # fault 11
    Window.ANSWER_LOST: 4,
}


@pytest.mark.faults
@pytest.mark.parametrize("window", FAULTS, ids=str)
def test_a_break_inside_celery_loses_no_run(quick: Any, judge: Any, window: Window) -> None:
    events = 8
    quick.environment["SCANHERALD_TOGETHER_BYTES"] = "0"  # small scans, and chords all the same
    quick.start("listener", "beat")
    quick.supervisor.start(sabotaged_worker(quick))
    quick.subscribe()
    quick.crashes.lay(window, FAULTS[window])
    quick.publish(*small_scans(events))
    quick.wait(lambda: quick.crashes.fired(window) == FAULTS[window])
    judge.watch_recovery(quick)
    judge.judge(quick, faults=FAULTS[window], events=events)

"""A primary behind sentinels killed, and its successor killed when the first one is back."""

from __future__ import annotations

from typing import Any

import pytest

from cli.embedded import service_parts
from tests.faults.conftest import small_scans


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_two_primaries_killed_one_after_the_other_lose_nothing(
    quick: Any, sentinels: Any, judge: Any
) -> None:
    kills, each = 2, 10
    # Longer than a fail-over: a run that waits for its broker is not published again and again.
    quick.environment["SCANHERALD_RUN_DEADLINE_S"] = "15"
    for part in service_parts(quick.environment, 2, quick.folder / "logs"):
        quick.supervisor.start(part)
    quick.subscribe()
    for number in range(kills):
        old = sentinels.primary()
        known = len(quick.reports())
        assert sentinels.publish(*small_scans(each, first=2 * number * each + 1)) == 1
        quick.wait(lambda known=known: len(quick.reports()) > known)
        sentinels.kill(old)
        quick.wait(lambda old=old: sentinels.primary() != old)
        sentinels.publish(*small_scans(each, first=(2 * number + 1) * each + 1))
        sentinels.revive()
        quick.wait(lambda: sentinels.replicas() == 1)
    judge.watch_recovery(quick)
    judge.judge(quick, faults=kills, events=2 * kills * each, duplicates_at_most=2, timeout_s=200)

"""Listeners, workers and their pool children killed at random moments."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import Any

import pytest

from tests.faults.conftest import small_scans
from tests.faults.processes import children


def kill(pid: int) -> bool:
    """kill -9; False if it was gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def pause(service: Any, seconds: float) -> None:
    """Tend the processes for so long."""
    until = time.monotonic() + seconds
    service.wait(lambda: time.monotonic() > until)


@pytest.mark.faults
def test_pool_children_killed_every_half_second_lose_nothing(
    quick: Any, judge: Any, chance: random.Random, scans: list[bytes]
) -> None:
    """Fault 1."""
    kills, rounds, each = 0, 20, 3
    quick.start()
    quick.subscribe()
    quick.publish(*({"data": data} for data in scans))
    for number in range(rounds):
        quick.publish(*small_scans(each, first=number * each + 1))
        pause(quick, 0.5)
        pool = children(quick.supervisor.pid("worker") or 0)
        kills += bool(pool) and kill(chance.choice(pool))
    assert kills > rounds / 2
    judge.watch_recovery(quick)
    judge.judge(quick, faults=kills, events=rounds * each + len(scans), duplicates_at_most=kills)


@pytest.mark.faults
def test_whole_workers_killed_and_restarted_lose_nothing(
    quick: Any, judge: Any, chance: random.Random
) -> None:
    """Fault 2: the worker and its whole pool at once."""
    kills, each = 5, 8
    quick.start()
    quick.subscribe()
    for number in range(kills):
        quick.publish(*small_scans(each, first=number * each + 1))
        before = len(quick.reports())
        quick.wait(lambda before=before: len(quick.reports()) > before)
        pause(quick, chance.uniform(0.1, 0.6))
        os.killpg(quick.supervisor.pid("worker"), signal.SIGKILL)
        quick.wait(lambda: quick.supervisor.pid("worker") is not None)
    judge.watch_recovery(quick)
    judge.judge(quick, faults=kills, events=kills * each, duplicates_at_most=2 * kills)


@pytest.mark.faults
def test_a_listener_killed_in_a_loop_loses_nothing(
    quick: Any, judge: Any, chance: random.Random
) -> None:
    """Fault 4."""
    kills, each = 6, 20
    quick.environment["SCANHERALD_BATCH_ENTRIES"] = "5"
    quick.start()
    quick.subscribe()
    for number in range(kills):
        quick.wait(lambda: quick.supervisor.pid("listener") is not None)
        known = len(quick.runs())
        quick.publish(*small_scans(each, first=number * each + 1))
        quick.wait(lambda known=known: len(quick.runs()) > known)
        pause(quick, chance.uniform(0.0, 0.05))
        assert kill(quick.supervisor.pid("listener"))
        quick.wait(lambda: quick.supervisor.pid("listener") is not None)
    judge.watch_recovery(quick)
    judge.judge(quick, faults=kills, events=kills * each)

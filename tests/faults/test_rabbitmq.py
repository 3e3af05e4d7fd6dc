"""The faults of workers, listener and broker once more, with RabbitMQ as the broker."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cuttable import Line
from tests.faults import test_workers as workers
from tests.faults.conftest import small_scans
from tests.faults.test_workers import pause

pytestmark = pytest.mark.faults


def test_on_rabbitmq_pool_children_killed_lose_nothing(
    quick: Any, rabbitmq: Any, judge: Any, chance: random.Random, scans: list[bytes]
) -> None:
    workers.test_pool_children_killed_every_half_second_lose_nothing(quick, judge, chance, scans)


def test_on_rabbitmq_whole_workers_killed_lose_nothing(
    quick: Any, rabbitmq: Any, judge: Any, chance: random.Random
) -> None:
    workers.test_whole_workers_killed_and_restarted_lose_nothing(quick, judge, chance)


def test_on_rabbitmq_a_listener_killed_loses_nothing(
    quick: Any, rabbitmq: Any, judge: Any, chance: random.Random
) -> None:
    workers.test_a_listener_killed_in_a_loop_loses_nothing(quick, judge, chance)


@pytest.mark.timeout(240)
def test_rabbitmq_itself_killed_twice_loses_nothing(
    quick: Any, rabbitmq: Any, judge: Any, chance: random.Random
) -> None:
    kills, each = 2, 20
    quick.start()
    quick.subscribe()
    for number in range(kills):
        quick.publish(*small_scans(each, first=number * each + 1))
        before = len(quick.reports())
        quick.wait(lambda before=before: len(quick.reports()) > before)
        pause(quick, chance.uniform(0.0, 0.5))
        os.kill(rabbitmq.pid(), signal.SIGKILL)
        pause(quick, 0.2)
        rabbitmq.wait()
    judge.watch_recovery(quick)
    judge.judge(quick, faults=kills, events=kills * each, duplicates_at_most=kills)


@pytest.fixture
def line(quick: Any, rabbitmq: Any) -> Iterator[Line]:
    """Between all of the service and RabbitMQ."""
    made = Line(rabbitmq.port)
    quick.environment["CELERY_BROKER_URL"] = rabbitmq.url.replace(
        str(rabbitmq.port), str(made.port)
    )
    with contextlib.closing(made):
        yield made


def test_connections_to_rabbitmq_cut_again_and_again_lose_nothing(
    quick: Any, line: Line, judge: Any, chance: random.Random
) -> None:
    cuts, each, connections = 6, 10, 0
    quick.start()
    quick.subscribe()
    for number in range(cuts):
        quick.publish(*small_scans(each, first=number * each + 1))
        before = len(quick.reports())
        quick.wait(lambda before=before: len(quick.reports()) > before)
        pause(quick, chance.uniform(0.0, 0.5))
        connections += line.cut()
    judge.watch_recovery(quick)
    judge.judge(quick, faults=connections, events=cuts * each, duplicates_at_most=cuts)


def test_a_line_to_rabbitmq_on_which_nothing_passes_is_given_up_and_loses_nothing(
    quick: Any, line: Line, judge: Any
) -> None:
    """No end of the connection is told: only limits of time help."""
    each, held_s = 20, 25.0
    quick.start()
    quick.subscribe()
    quick.publish(*small_scans(each))
    quick.wait(lambda: len(quick.reports()) > 0)
    line.hold()
    until = time.monotonic() + held_s
    quick.publish(*small_scans(each, first=each + 1))
    quick.wait(lambda: time.monotonic() > until)
    assert not quick.settled(2 * each)
    alive = quick.scanherald("health", "listener", "beat")
    assert alive.returncode == 1, alive.stdout  # degraded: alive, and it says what it waits for
    assert "waits for the broker" in " ".join(alive.stdout.split())
    assert quick.scanherald("health", "broker").returncode == 2
    line.cut()
    line.release()
    judge.watch_recovery(quick)
    judge.judge(quick, faults=1, events=2 * each, duplicates_at_most=2)

"""Redis killed, flushed and trimmed under the service."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from typing import Any

import pytest
import redis

from cli.embedded import wait_for_redis
from listener.decode import TRIMMED
from tests.faults.conftest import small_scans

STREAM, GROUP = "scans:events", "scanherald"


def read_and_die(quick: Any, consumer: str, count: int) -> list[str]:
    """Deliver the next entries to a consumer that dies before it does anything."""
    with contextlib.closing(quick.redis()) as client:
        with contextlib.suppress(redis.ResponseError):  # the group is there already
            client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        ((_, entries),) = client.xreadgroup(GROUP, consumer, {STREAM: ">"}, count=count)
    return [entry_id.decode() for entry_id, _ in entries]


@pytest.mark.faults
def test_the_server_killed_three_times_loses_nothing(
    quick: Any, judge: Any, chance: random.Random
) -> None:
    """Fault 3, with the parts supervised: lost 193 of 300 chords without."""
    kills, each = 3, 20
    quick.start()
    quick.subscribe()
    for number in range(kills):
        quick.publish(*small_scans(each, first=number * each + 1))
        before = len(quick.reports())
        quick.wait(lambda before=before: len(quick.reports()) > before)
        until = time.monotonic() + chance.uniform(0.0, 0.5)
        quick.wait(lambda until=until: time.monotonic() > until)
        pid = quick.supervisor.pid("valkey")
        os.kill(pid, signal.SIGKILL)
        quick.wait(lambda pid=pid: quick.supervisor.pid("valkey") not in (None, pid))
        wait_for_redis(quick.environment["REDIS_URL"])
    judge.watch_recovery(quick)
    judge.judge(quick, faults=kills, events=kills * each, duplicates_at_most=kills)


@pytest.mark.faults
def test_a_server_that_forgot_everything_costs_time_and_no_run(quick: Any, judge: Any) -> None:
    """Fault 13: FLUSHALL takes stream, group, queues and chords; the ledger has the runs."""
    first, later = 30, 5
    quick.start()
    quick.subscribe()
    quick.publish(*small_scans(first))
    quick.wait(lambda: len(quick.runs()) == first)
    with contextlib.closing(quick.redis()) as client:
        client.flushall()
    assert not quick.settled(first), "flushed too late to hurt"
    quick.publish(*small_scans(later, first=first + 1))
    judge.watch_recovery(quick)
    judge.judge(quick, faults=1, events=first + later)
    lost = [line for line in quick.log_lines("listener") if line["event"] == "stream_lost"]
    assert "NOGROUP" in lost[0]["error"]


@pytest.mark.parametrize(
    "consumer",
    ["listener-1", pytest.param("another", marks=pytest.mark.faults)],  # read as own; claimed
)
def test_entries_trimmed_while_they_were_pending_are_counted_and_the_rest_goes_on(
    quick: Any, judge: Any, consumer: str
) -> None:
    """Fault 14: XTRIM under a dead consumer's batch."""
    trimmed, sound = 5, 5
    quick.start("worker", "beat")
    quick.subscribe()
    quick.publish(*small_scans(trimmed))
    gone = read_and_die(quick, consumer, trimmed)
    with contextlib.closing(quick.redis()) as client:
        client.xtrim(STREAM, maxlen=0, approximate=False)
    quick.publish(*small_scans(sound, first=trimmed + 1))
    quick.start_part("listener")
    quick.wait(lambda: len(quick.dead_letters()) == trimmed)
    judge.watch_recovery(quick)
    judge.judge(quick, faults=trimmed, events=sound)
    letters = quick.dead_letters()
    assert sorted(letter["entry_id"] for letter in letters) == sorted(gone)
    assert {letter["reason"] for letter in letters} == {TRIMMED}
    alerts = [line for line in quick.log_lines("listener") if line["event"] == "operator_alert"]
    assert sum(line["count"] for line in alerts) == trimmed
    with contextlib.closing(quick.redis()) as client:
        assert client.xpending(STREAM, GROUP)["pending"] == 0

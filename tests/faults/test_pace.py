"""Killed where a delivery is put off to its turn, and where a disabled address is settled."""

from __future__ import annotations

from typing import Any

import pytest

from cli.sinks import SinkAnswer, SunkRequest
from schemas.crash_points import CrashPoint
from tests.faults.conftest import small_scans


@pytest.mark.faults
def test_a_delivery_put_off_whose_message_was_never_published_is_the_sweeps(
    quick: Any, judge: Any
) -> None:
    deaths, events = 2, 4
    quick.environment |= {
        "SCANHERALD_DESTINATION_PER_S": "2",
        "SCANHERALD_DESTINATION_BURST": "1",
    }
    quick.start()
    quick.subscribe()
    quick.crashes.lay(CrashPoint.DELIVERY_PUT_OFF, deaths)
    quick.publish(*small_scans(events))
    quick.wait(lambda: quick.crashes.fired(CrashPoint.DELIVERY_PUT_OFF) == deaths)
    judge.watch_recovery(quick)
    judge.judge(quick, faults=deaths, events=events)


@pytest.mark.faults
def test_a_sweep_killed_while_it_settles_a_disabled_address_tells_operators_once(
    quick: Any,
) -> None:
    def answer(request: SunkRequest) -> SinkAnswer:
        return SinkAnswer(status=410 if request.path == "/gone" else 200)

    quick.sink._answer = answer
    quick.environment["SCANHERALD_SWEEP_BATCH"] = "1"
    quick.start("listener")
    for name, event in (("gone", "scan.completed"), ("operator", "operator.alert")):
        url = f"{quick.sink.url}/{name}"
        said = quick.scanherald("subscribers", "add", name, "--webhook", url, "--event", event)
        assert said.returncode == 0, said.stderr
    quick.crashes.lay(CrashPoint.ENDPOINT_SETTLING, 2)
    quick.publish(*small_scans(4))
    quick.start_part("worker")
    quick.start_part("beat")
    quick.wait(lambda: quick.crashes.fired(CrashPoint.ENDPOINT_SETTLING) >= 1)
    quick.wait(lambda: quick.settled(4) and _paths(quick).count("/operator") == 1)
    told = [row for row in quick.deliveries() if row["subscriber_id"] == "gone"]
    assert len(told) == 4
    assert {row["state"] for row in told} <= {"failed", "suppressed"}
    assert all("the address is disabled" in row["reason"] for row in told)
    assert _paths(quick).count("/gone") == 1
    assert quick.scanherald("audit", "--json").returncode == 0


def _paths(service: Any) -> list[str]:
    return [request.path for request in service.sink.requests]

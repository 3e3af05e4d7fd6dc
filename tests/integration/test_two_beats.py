"""Two real beats on one ledger: every tick is started once, and either goes on alone."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from cli.embedded import service_parts

pytestmark = pytest.mark.full  # half a minute

INTERVAL_S = 2.0


def start_beat(service: Any, name: str) -> None:
    """A beat as on a machine of its own: own data folder, same ledger and Redis."""
    parts = {
        part.name: part for part in service_parts(service.environment, 1, service.folder / "logs")
    }
    own = {
        "SCANHERALD_DATA_DIR": str(service.folder / name),
        "DATABASE_URL": service.settings.ledger_url,
    }
    service.supervisor.start(
        replace(
            parts["beat"],
            name=name,
            environment={**os.environ, **service.environment, **own},
            log_file=service.folder / "logs" / f"{name}.log",
        )
    )


def ticks(service: Any, name: str) -> list[datetime]:
    """When a beat started the sweep."""
    return [
        datetime.fromisoformat(line["timestamp"])
        for line in service.log_lines(name)
        if "Sending due task sweep " in line["event"]
    ]


def test_two_beats_start_each_tick_once_and_one_goes_on_when_the_other_dies(service: Any) -> None:
    service.environment["SCANHERALD_SWEEP_INTERVAL_S"] = str(INTERVAL_S)
    service.start("worker")
    for name in ("beat-1", "beat-2"):
        start_beat(service, name)

    def started() -> list[datetime]:
        return sorted(ticks(service, "beat-1") + ticks(service, "beat-2"))

    service.wait(lambda: len(started()) >= 6)
    alive = started()
    # without the claim there would be twice as many; a slow machine only has fewer
    elapsed = (alive[-1] - alive[0]).total_seconds()
    assert len(alive) - 1 <= elapsed / INTERVAL_S + 1, alive

    killed = Counter(
        {name: len(ticks(service, name)) for name in ("beat-1", "beat-2")}
    ).most_common(1)[0][0]
    other = {"beat-1": "beat-2", "beat-2": "beat-1"}[killed]
    os.kill(service.supervisor.pid(killed), 9)
    before = len(ticks(service, other))
    service.wait(lambda: len(ticks(service, other)) >= before + 2)
    sent = sum(len(ticks(service, name)) for name in ("beat-1", "beat-2"))
    done = [
        line
        for line in service.log_lines("worker")
        if line["event"] == "task_started" and line.get("task") == "scanherald.sweep"
    ]
    assert abs(len(done) - sent) <= 1

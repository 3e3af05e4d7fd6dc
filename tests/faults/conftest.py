"""What the fault tests share: quick settings, a judge, and the table of last lines."""

from __future__ import annotations

import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import orjson
import pytest

from cli.supervisor import Supervisor
from schemas.crash_points import CrashPoint, fired, lay_token

QUICK = {
    "SCANHERALD_RUN_DEADLINE_S": "5",
    "SCANHERALD_STARTING_GRACE_S": "3",
    "SCANHERALD_RETRY_MAX_S": "1",
    "SCANHERALD_TASK_SOFT_TIME_LIMIT_S": "4",
    "SCANHERALD_TASK_TIME_LIMIT_S": "5",
    "SCANHERALD_DELIVERY_LEASE_S": "5",
    "SCANHERALD_VISIBILITY_TIMEOUT_S": "6",
    "SCANHERALD_CLAIM_IDLE_MS": "3000",
}
"""Every wait of the service shortened, so that what production does in minutes shows in seconds.

The bounds on attempts and on starts are production's: a kill must not look like poison.
"""

RECOVERED_WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Line:
    """What one fault test measured."""

    test: str
    seed: int
    faults: int
    events: int
    lost: int
    effects: int
    duplicates: int
    recovery_s: float


_lines: list[Line] = []


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table of what was measured, ready for docs/reliability.md."""
    if not _lines:
        return
    names = [field.name for field in fields(Line)]
    terminalreporter.section("faults")
    terminalreporter.write_line("| " + " | ".join(names) + " |")
    terminalreporter.write_line("|" + "---|" * len(names))
    for line in _lines:
        terminalreporter.write_line("| " + " | ".join(map(str, asdict(line).values())) + " |")


@pytest.fixture
def seed() -> int:
    """Printed with each line; set SCANHERALD_TEST_SEED to repeat a run."""
    return int(os.environ.get("SCANHERALD_TEST_SEED", "20"))


@pytest.fixture
def chance(seed: int) -> random.Random:
    """The randomness of kills."""
    return random.Random(seed)


class Crashes:
    """Named crash points of a service that runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def lay(self, point: CrashPoint, number: int = 1, *, skip: int = 0) -> None:
        """Let ``number`` processes die at ``point``, each at its pass ``skip`` + 1."""
        lay_token(self.folder, point, number, skip=skip)

    def fired(self, point: CrashPoint) -> int:
        """How many have."""
        return fired(self.folder, point)


@pytest.fixture
def quick(service: Any, tmp_path: Path) -> Iterator[Any]:
    """The service with short waits and crash points; nothing runs yet."""
    service.supervisor = Supervisor(longest_pause_s=0.5)  # dozens of deaths are the point here
    service.crashes = Crashes(tmp_path / "crashes")
    service.environment |= {**QUICK, "SCANHERALD_CRASH_DIR": str(service.crashes.folder)}
    yield service
    service.kill()


def small_scans(count: int, *, first: int = 1, cookies: int = 1) -> list[dict[str, bytes]]:
    """Events of scans that render in a moment; each has its own domain."""
    return [
        {
            "data": orjson.dumps(
                {
                    "scan_id": str(uuid.UUID(int=number)),
                    "domain": f"site-{number}.example",
                    "page_count": 1,
                    "cookies": [
                        {"name": f"c{index}", "set_after_accept": False} for index in range(cookies)
                    ],
                }
            )
        }
        for number in range(first, first + count)
    ]


class Judge:
    """Holds a service to its promises when the faults are over."""

    def __init__(self, test: str, seed: int) -> None:
        self._test = test
        self._seed = seed
        self._recovery_s = 0.0

    def watch_recovery(
        self, service: Any, *, events: int = 0, timeout_s: float = RECOVERED_WITHIN_S
    ) -> None:
        """Call when the last fault is over: waits for the next settled run, or for the last one.

        With ``events`` published in all, none of them is the last before it is recorded.
        """
        began = time.monotonic()
        before = _settled(service)
        service.wait(
            lambda: _settled(service) > before or _all_settled(service, events),
            timeout_s=timeout_s,
        )
        self._recovery_s = max(self._recovery_s, time.monotonic() - began)

    def judge(
        self,
        service: Any,
        *,
        faults: int,
        events: int,
        duplicates_at_most: int = 0,
        refused: int = 0,
        failed_artifacts: int = 0,
        timeout_s: float = 100.0,
    ) -> Line:
        """Wait until all is settled; then nothing may be lost, and each delivery has one effect.

        ``refused`` sends were answered with an error.  A duplicate is a further
        send of a delivery under its unchanged id: the receiver can tell, and only
        a death between send and settle makes one.
        """
        assert faults > 0, "no fault was injected: the test proves nothing"
        service.wait(lambda: service.settled(events), timeout_s)
        runs = service.runs()
        assert len(runs) == events
        lost = sum(1 for run in runs if run["state"] != "done")
        assert not lost, [run["last_error"] for run in runs if run["state"] != "done"]
        made = Counter(row["status"] for row in service.reports())
        expected = {"ready": 4 * events - failed_artifacts, "failed": failed_artifacts}
        assert made == {status: count for status, count in expected.items() if count}
        deliveries = service.deliveries()
        assert len(deliveries) >= events, "every run has something to tell"
        assert {row["state"] for row in deliveries} <= {"sent"}
        sends = Counter(request.headers["webhook-id"] for request in service.sink.requests)
        assert set(sends) == {row["delivery_id"] for row in deliveries}, "an effect per delivery"
        duplicates = sum(sends.values()) - len(sends) - refused
        assert duplicates <= duplicates_at_most
        audit = service.scanherald("audit", "--json")
        assert audit.returncode == 0, audit.stdout[-3000:] + audit.stderr[-3000:]
        return self._line(faults, events, lost, len(sends), duplicates)

    def _line(self, faults: int, events: int, lost: int, effects: int, duplicates: int) -> Line:
        line = Line(
            self._test,
            self._seed,
            faults,
            events,
            lost,
            effects,
            duplicates,
            round(self._recovery_s, 1),
        )
        _lines.append(line)
        return line


@pytest.fixture
def judge(request: pytest.FixtureRequest, seed: int) -> Iterator[Judge]:
    """One judge per test; it must have spoken when the test ends."""
    judging = Judge(request.node.name.removeprefix("test_"), seed)
    spoken = len(_lines)
    yield judging
    failed = getattr(request.node, "failed_in_call", False)
    assert failed or len(_lines) > spoken, "the judge was never asked"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Iterator[None]:
    """Tell the judge's fixture whether the test itself failed."""
    outcome: Any = yield
    if call.when == "call":
        item.failed_in_call = outcome.get_result().failed


def _settled(service: Any) -> int:
    return sum(1 for run in service.runs() if run["state"] in ("done", "dead"))


def _all_settled(service: Any, events: int) -> bool:
    states = [run["state"] for run in service.runs()]
    return len(states) >= events and set(states) <= {"done", "dead"}

"""The supervisor on tiny real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from cli import supervisor as supervising
from cli.supervisor import FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S, Part, Supervisor

WAIT_FOR_EVER = "import signal; signal.pause()"


def until(condition: Callable[[], Any]) -> None:
    """Poll; a test that waits in vain fails after ten seconds."""
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up, "never happened"
        time.sleep(0.005)


def part(name: str, code: str, log_file: Path | None = None, grace_s: float = 10.0) -> Part:
    return Part(name, [sys.executable, "-S", "-c", code], dict(os.environ), log_file, grace_s)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Time:
    """A monotonic clock that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(supervising, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    supervisor = Supervisor()
    yield supervisor
    supervisor.stop()


def ended(supervisor: Supervisor, name: str) -> None:
    """Wait until a part's process has ended, without looking at it as ``tend`` does."""
    process = supervisor._running[name]
    process.wait(10)


def test_a_part_that_runs_is_left_alone(supervisor: Supervisor) -> None:
    supervisor.start(part("one", WAIT_FOR_EVER))
    pid = supervisor.pid("one")
    supervisor.tend()
    assert supervisor.pid("one") == pid
    assert pid is not None
    assert is_alive(pid)


def test_a_part_that_ended_is_started_again_after_its_pause(
    supervisor: Supervisor, clock: Time
) -> None:
    supervisor.start(part("one", "raise SystemExit(3)"))
    first = supervisor.pid("one")
    ended(supervisor, "one")
    with capture_logs() as logs:
        supervisor.tend()
    assert supervisor.pid("one") is None
    assert [(line["part"], line["status"]) for line in logs] == [("one", 3)]
    clock.now += FIRST_PAUSE_S / 2
    supervisor.tend()
    assert supervisor.pid("one") is None
    clock.now += FIRST_PAUSE_S / 2
    supervisor.tend()
    assert supervisor.pid("one") not in (None, first)


def test_the_pause_doubles_up_to_its_bound_and_begins_again_after_a_steady_run(
    supervisor: Supervisor, clock: Time
) -> None:
    supervisor.start(part("one", ""))
    pauses = []
    for steady in [False] * 8 + [True]:
        ended(supervisor, "one")
        clock.now += STEADY_S + 1 if steady else 0
        with capture_logs() as logs:
            supervisor.tend()
        pauses.append(logs[0]["restart_in_s"])
        clock.now += pauses[-1]
        supervisor.tend()
    assert pauses[:3] == [FIRST_PAUSE_S, FIRST_PAUSE_S * 2, FIRST_PAUSE_S * 4]
    assert pauses[7] == LONGEST_PAUSE_S
    assert pauses[8] == FIRST_PAUSE_S


def test_one_part_that_keeps_ending_does_not_disturb_another(
    supervisor: Supervisor, clock: Time
) -> None:
    supervisor.start(part("steady", WAIT_FOR_EVER))
    supervisor.start(part("ending", ""))
    steady = supervisor.pid("steady")
    for _ in range(3):
        ended(supervisor, "ending")
        supervisor.tend()
        clock.now += LONGEST_PAUSE_S
        supervisor.tend()
    assert supervisor.pid("steady") == steady


def test_parts_are_stopped_in_reverse_order_and_are_gone(supervisor: Supervisor) -> None:
    for name in ("valkey", "worker", "listener"):
        supervisor.start(part(name, WAIT_FOR_EVER))
    pids = [supervisor.pid(name) for name in ("valkey", "worker", "listener")]
    with capture_logs() as logs:
        supervisor.stop()
    stopped = [line["part"] for line in logs if line["event"] == "part_stopped"]
    assert stopped == ["listener", "worker", "valkey"]
    assert not any(is_alive(pid) for pid in pids if pid)
    supervisor.tend()
    assert supervisor.pid("valkey") is None, "what was stopped stays stopped"


def test_a_part_is_asked_to_end_and_may_finish_what_it_has_in_hand(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    code = (
        "import pathlib, signal, sys\n"
        f"said = pathlib.Path({str(tmp_path / 'said')!r})\n"
        "signal.signal(signal.SIGTERM, lambda *_: (said.write_text('finished'), sys.exit(0)))\n"
        "said.write_text('ready')\n"
        "while True: signal.pause()"
    )
    supervisor.start(part("one", code))
    until(lambda: (tmp_path / "said").exists() and (tmp_path / "said").read_text() == "ready")
    supervisor.stop()
    assert (tmp_path / "said").read_text() == "finished"


def test_a_part_that_will_not_end_is_killed_after_its_grace(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    code = (
        "import pathlib, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\n"
        "while True: signal.pause()"
    )
    supervisor.start(part("one", code, grace_s=0.05))
    pid = supervisor.pid("one")
    assert pid is not None
    until((tmp_path / "ready").exists)
    with capture_logs() as logs:
        supervisor.stop()
    assert "part_killed" in [line["event"] for line in logs]
    assert not is_alive(pid)


def child_of(code_path: Path) -> str:
    """A program that starts a child, writes down its pid, and waits."""
    return (
        "import pathlib, signal, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-S', '-c', {WAIT_FOR_EVER!r}])\n"
        f"path = pathlib.Path({str(code_path)!r})\n"
        "path.with_suffix('.new').write_text(str(child.pid))\n"
        "path.with_suffix('.new').rename(path)\n"
        "signal.pause()"
    )


def test_what_a_part_leaves_behind_is_killed_with_it(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    supervisor.start(part("worker", child_of(tmp_path / "pid")))
    until((tmp_path / "pid").exists)
    child = int((tmp_path / "pid").read_text())
    assert is_alive(child)
    supervisor.stop()
    until(lambda: not is_alive(child))


def test_a_parts_output_is_appended_to_its_log(
    supervisor: Supervisor, clock: Time, tmp_path: Path
) -> None:
    log_file = tmp_path / "one.log"
    log_file.write_text("from before\n")
    supervisor.start(
        part("one", "import sys; print('out'); print('err', file=sys.stderr)", log_file)
    )
    ended(supervisor, "one")
    supervisor.tend()
    clock.now += FIRST_PAUSE_S
    supervisor.tend()
    ended(supervisor, "one")
    lines = log_file.read_text().splitlines()
    assert lines[0] == "from before"
    assert sorted(lines[1:]) == ["err", "err", "out", "out"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's promise is Linux's alone")
def test_parts_die_with_a_supervisor_that_was_killed(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from cli.supervisor import Part, Supervisor\n"
        "supervisor = Supervisor()\n"
        f"command = [sys.executable, '-S', '-c', {WAIT_FOR_EVER!r}]\n"
        "supervisor.start(Part('one', command, dict(os.environ)))\n"
        f"path = pathlib.Path({str(tmp_path / 'pid')!r})\n"
        "path.with_suffix('.new').write_text(str(supervisor.pid('one')))\n"
        "path.with_suffix('.new').rename(path)\n"
        "signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as parent:
        until((tmp_path / "pid").exists)
        child = int((tmp_path / "pid").read_text())
        assert is_alive(child)
        parent.send_signal(signal.SIGKILL)
    until(lambda: not is_alive(child))

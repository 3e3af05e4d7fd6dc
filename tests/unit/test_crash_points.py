"""Crash points: one comparison when off, one death per token when armed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.crash_points import CrashPoint, arm, crash_here, fired, lay_token
from schemas.settings import load_settings

POINT = CrashPoint.DELIVERY_SENT

WALK = """
import sys
from pathlib import Path
from schemas.crash_points import CrashPoint, arm, crash_here
arm(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    print(number, flush=True)
    crash_here(CrashPoint.DELIVERY_SENT)
"""


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm(None)


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Signals that this process would have sent itself."""
    seen: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: seen.append(number))
    return seen


def walk(folder: Path, passes: int = 3) -> tuple[int, list[str]]:
    """A process that passes the point so often; returns its end and the passes it began."""
    done = subprocess.run(
        [sys.executable, "-c", WALK, str(folder), str(passes)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout.split()


def test_they_are_off_unless_a_setting_names_a_folder(
    clean_environment: None, tmp_path: Path, deaths: list[int]
) -> None:
    assert load_settings().crash_dir is None
    lay_token(tmp_path, POINT)
    crash_here(POINT)
    assert deaths == []
    assert fired(tmp_path, POINT) == 0


def test_a_token_kills_one_process_and_the_next_one_lives(tmp_path: Path) -> None:
    lay_token(tmp_path, POINT)
    assert walk(tmp_path) == (-signal.SIGKILL, ["0"])
    assert fired(tmp_path, POINT) == 1
    assert walk(tmp_path) == (0, ["0", "1", "2"])


def test_a_token_may_let_the_first_passes_go(tmp_path: Path) -> None:
    lay_token(tmp_path, POINT, skip=2)
    assert walk(tmp_path) == (-signal.SIGKILL, ["0", "1", "2"])


def test_several_tokens_kill_so_many_processes(tmp_path: Path) -> None:
    lay_token(tmp_path, POINT, 2)
    assert [walk(tmp_path)[0] for _ in range(3)] == [-signal.SIGKILL, -signal.SIGKILL, 0]
    assert fired(tmp_path, POINT) == 2


def test_another_points_token_is_left_alone(tmp_path: Path, deaths: list[int]) -> None:
    lay_token(tmp_path, CrashPoint.DELIVERY_LEASED)
    arm(tmp_path)
    crash_here(POINT)
    assert deaths == []
    crash_here(CrashPoint.DELIVERY_LEASED)
    assert deaths == [signal.SIGKILL]

"""``scanherald demo`` as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def demo(output: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "demo", "--output", str(output)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def processes_of(folder: Path) -> list[str]:
    """Command lines and environments that name a folder: what a demo has left running."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            said = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue  # it ended while we looked
        if str(folder).encode() in said and int(process.name) != os.getpid():
            found.append(said[:200].decode(errors="replace"))
    return found


def test_the_demo_makes_and_checks_everything_and_leaves_no_process(tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = demo(output)
    said, _ = process.communicate(timeout=110)

    assert process.returncode == 0, said
    assert "44 artifacts of 44" in said
    assert "All checked" in said
    assert len([path for path in (output / "reports").rglob("*") if path.is_file()]) == 44
    assert len(list((output / "mails").glob("*.eml"))) >= 11
    assert len(list((output / "received").rglob("*.json"))) >= 22
    assert processes_of(output) == []


def test_an_interrupted_demo_stops_what_it_started(tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = demo(output)
    give_up = time.monotonic() + 30
    while not (output / "logs" / "worker.log").exists():
        assert time.monotonic() < give_up
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 130, said
    assert processes_of(output) == []


def test_the_demo_refuses_to_empty_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep me")
    process = demo(tmp_path)
    said, _ = process.communicate(timeout=30)

    assert process.returncode == 1
    assert "is not a demo's" in said
    assert (tmp_path / "precious.txt").read_text() == "keep me"

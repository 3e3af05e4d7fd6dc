"""``health … --live``: cheap, and the same whichever way it is answered."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import entry, liveness
from cli.liveness import Question, question_of
from cli.main import app
from store.heartbeats import Heartbeat, process_start, write_heartbeat

HEAVY = ("typer", "click", "rich", "pydantic", "celery", "sqlalchemy", "redis", "structlog")


@pytest.fixture
def folder(tmp_path: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(tmp_path))
    made = tmp_path / "heartbeats"
    made.mkdir()
    return made


def beats(folder: Path, part: str, ago_s: float = 0.0, **fields: Any) -> None:
    pid = os.getpid()
    said = Heartbeat(part, socket.gethostname(), pid, process_start(pid), time.time() - ago_s)
    write_heartbeat(folder, said._replace(**fields))


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (["health", "--live"], Question((), False)),
        (["health", "worker", "--live"], Question(("worker",), False)),
        (["health", "--live", "worker", "beat", "--json"], Question(("worker", "beat"), True)),
        (["health"], None),
        (["health", "worker"], None),
        (["health", "redis", "--live"], None),
        (["health", "--live", "--watch"], None),
        (["health", "--live", "--help"], None),
        (["runs", "--live"], None),
        ([], None),
    ],
)
def test_only_the_plain_question_takes_the_short_way(
    arguments: list[str], question: Question | None
) -> None:
    assert question_of(arguments) == question


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("named", [(), ("worker",), ("worker", "beat")])
@pytest.mark.parametrize(
    ("ages", "status"),
    [({}, 2), ({"worker": 0, "beat": 0}, 0), ({"worker": 0, "beat": 99}, None)],
    ids=["nothing runs", "all live", "beat hangs"],
)
def test_both_ways_give_one_answer(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ages: dict[str, float],
    status: int | None,
    named: tuple[str, ...],
    as_json: bool,
) -> None:
    for part, ago_s in ages.items():
        beats(folder, part, ago_s)
    now = time.time()
    monkeypatch.setattr(liveness.time, "time", lambda: now)
    monkeypatch.setattr(liveness.time, "monotonic", lambda: 0.0)
    arguments = ["health", *named, "--live", *(["--json"] if as_json else [])]
    monkeypatch.setattr(sys, "argv", ["scanherald", *arguments])
    with pytest.raises(SystemExit) as quick:
        entry.main()
    said = capsys.readouterr().out
    typed = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert (typed.stdout, typed.exit_code) == (said, quick.value.code)
    if status is None:
        status = 0 if named == ("worker",) else 2
    assert quick.value.code == status


def test_json_names_every_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beats(folder, "listener", waits_for="redis")
    assert liveness.answer(Question((), True)) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["state"] == "healthy"
    (part,) = said["parts"]
    assert set(part) == {"part", "state", "says", "do", "latency_ms"}
    assert part["part"] == "listener"


def test_the_short_way_loads_nothing_heavy(folder: Path) -> None:
    beats(folder, "worker")
    script = (
        "import sys\n"
        "sys.argv = ['scanherald', 'health', 'worker', '--live']\n"
        "from cli.entry import main\n"
        "try:\n    main()\n"
        "finally:\n    print(*sorted(sys.modules), file=sys.stderr)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith("worker     healthy")
    loaded = {name.split(".", 1)[0] for name in said.stderr.split()}
    assert loaded.isdisjoint(HEAVY)
    assert {"cli", "store", "schemas"} <= loaded


def test_everything_else_goes_to_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr("cli.main.main", lambda: asked.append(sys.argv[1:]))
    for arguments in (["health"], ["runs", "--json"]):
        monkeypatch.setattr(sys, "argv", ["scanherald", *arguments])
        entry.main()
    assert asked == [["health"], ["runs", "--json"]]


@pytest.mark.parametrize("name", ["SCANHERALD_DATA_DIR_FILE", "SCANHERALD_HEARTBEATS_DIR_FILE"])
def test_a_folder_that_a_file_names_is_read_with_the_settings(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said, folder = tmp_path / "said", tmp_path / "named"
    said.write_text(f"{folder}\n")
    monkeypatch.setenv(name, str(said))
    monkeypatch.setattr("sys.argv", ["scanherald", "health", "--live"])
    with pytest.raises(SystemExit):
        entry.main()
    assert str(folder) in capsys.readouterr().out

"""Heartbeats: what a loop says of itself, and what is read from it."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from schemas.health import State
from schemas.settings import load_settings
from store.heartbeats import (
    HOLDS_S,
    Heartbeat,
    clear_up,
    heartbeat_folder,
    is_gone,
    judge_heartbeats,
    judge_liveness,
    process_start,
    read_heartbeats,
    remove_heartbeat,
    write_heartbeat,
)
from tasks import heart as hearts
from tasks.heart import Heart
from tasks.presence import KEPT_S, Presence

NOW = 1_800_000_000.0
HOST = socket.gethostname()


@pytest.fixture
def ended() -> int:
    """The id of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def beat(part: str = "listener", pid: int | None = None, **fields: Any) -> Heartbeat:
    """A heartbeat of this process, just now."""
    pid = pid or os.getpid()
    given = {"host": HOST, "started": process_start(pid), "at": NOW, **fields}
    return Heartbeat(part, given.pop("host"), pid, **given)


def test_a_heartbeat_is_read_as_it_was_written_and_removed_on_a_clean_stop(tmp_path: Path) -> None:
    said = beat(waits_for="redis")
    write_heartbeat(tmp_path, said)
    write_heartbeat(tmp_path, beat("worker"))
    assert read_heartbeats(tmp_path, "listener") == [said]
    assert len(read_heartbeats(tmp_path)) == 2
    remove_heartbeat(tmp_path, said)
    remove_heartbeat(tmp_path, said)
    assert [found.part for found in read_heartbeats(tmp_path)] == ["worker"]


def test_files_of_others_say_nothing(tmp_path: Path) -> None:
    write_heartbeat(tmp_path, beat(host="elsewhere"))
    (tmp_path / "listener.1.x.json").write_text("{")
    (tmp_path / "listener.2.x.json").write_text('{"part": "listener"}')
    (tmp_path / "listener.3.x.json").write_text("[1]")
    (tmp_path / "other.json").write_text(json.dumps(beat("oven")._asdict()))
    assert read_heartbeats(tmp_path) == []
    assert read_heartbeats(tmp_path / "no such folder") == []


@pytest.mark.parametrize(
    ("said", "state", "words"),
    [
        ({}, State.HEALTHY, "came round 0.0 s ago"),
        ({"at": NOW - HOLDS_S}, State.HEALTHY, "came round 28.0 s ago"),
        ({"at": NOW - HOLDS_S - 1}, State.DOWN, "hangs: its loop has not come round for 29 s"),
        ({"at": NOW - 100, "holds_s": 325.0}, State.HEALTHY, "came round 100.0 s ago"),
        ({"at": NOW + 3600}, State.HEALTHY, "came round 0.0 s ago"),
        ({"waits_for": "redis"}, State.DEGRADED, "is alive and waits for redis"),
        ({"started": 1}, State.DOWN, "ended without a clean stop"),
    ],
    ids=["now", "just in time", "hung", "long task", "clock set back", "waits", "id used again"],
)
def test_a_heartbeat_is_judged_by_its_age(said: dict[str, Any], state: State, words: str) -> None:
    found = judge_heartbeats("listener", [beat(**said)], NOW)
    assert found.state is state
    assert words in found.says
    assert bool(found.do) == (state is not State.HEALTHY)


def test_a_process_that_was_killed_is_gone_at_once(ended: int) -> None:
    killed = beat(pid=ended, started=7)
    assert is_gone(killed)
    found = judge_heartbeats("worker", [killed._replace(part="worker")], NOW)
    assert found.state is State.DOWN
    assert found.do.endswith("start it: scanherald worker")


def test_waiting_for_another_part_is_as_good_as_working_to_a_liveness_probe() -> None:
    assert judge_liveness("listener", [beat(waits_for="redis")], NOW).state is State.HEALTHY


def test_no_heartbeat_is_no_process() -> None:
    found = judge_heartbeats("listener", [], NOW)
    assert (found.state, found.do) == (State.DOWN, "start it: scanherald listen")


def test_one_of_two_that_hangs_degrades_the_part(ended: int) -> None:
    hung = beat(at=NOW - 60)
    found = judge_heartbeats("listener", [beat(), hung], NOW)
    assert found.state is State.DEGRADED
    assert found.says.startswith("1 of 2 are alive: process")
    assert f"kill -9 {os.getpid()}" in found.do
    assert judge_heartbeats("listener", [hung, beat(pid=ended)], NOW).state is State.DOWN


def test_a_new_process_clears_up_after_the_dead_of_its_part(tmp_path: Path, ended: int) -> None:
    write_heartbeat(tmp_path, beat())
    write_heartbeat(tmp_path, beat(pid=ended, started=7))
    write_heartbeat(tmp_path, beat("worker", pid=ended, started=7))
    write_heartbeat(tmp_path, beat(host="old", at=NOW - 90_000))
    write_heartbeat(tmp_path, beat(host="new"))
    clear_up(tmp_path, "listener", NOW)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted(
        [
            f"listener.{os.getpid()}.{HOST}.json",
            f"listener.{os.getpid()}.new.json",
            f"worker.{ended}.{HOST}.json",
        ]
    )


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SCANHERALD_DATA_DIR": "/var/lib/scanherald"},
        {"scanherald_data_dir": "/lower"},
        {"SCANHERALD_DATA_DIR": ""},
        {"SCANHERALD_DATA_DIR": "relative", "SCANHERALD_HEARTBEATS_DIR": "/run/scanherald"},
        {"SCANHERALD_HEARTBEATS_DIR": ""},
        {"Scanherald_Heartbeats_Dir": "mixed/case"},
    ],
)
def test_the_folder_is_the_one_that_the_settings_name(
    environment: dict[str, str], clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert heartbeat_folder(os.environ) == load_settings().heartbeat_folder


# The heart


class Seconds:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def heart(parts: Any, join: Any, seconds: Seconds) -> Heart:
    return Heart("listener", parts.settings, seconds, seconds)


@pytest.fixture
def last(parts: Any) -> Callable[[], Heartbeat]:
    def last() -> Heartbeat:
        (found,) = read_heartbeats(parts.settings.heartbeat_folder)
        return found

    return last


def test_a_loop_may_beat_as_often_as_it_turns(
    heart: Heart, last: Any, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[float] = []
    really = hearts.write_heartbeat

    def counted(folder: Path, said: Heartbeat) -> None:
        written.append(said.at)
        really(folder, said)

    monkeypatch.setattr(hearts, "write_heartbeat", counted)
    for _ in range(1000):
        heart.beat()
        seconds.now += 0.01
    assert len(written) in (9, 10)
    assert last().at == written[-1]


def test_what_has_changed_is_said_at_once(heart: Heart, last: Any) -> None:
    heart.beat()
    heart.beat(waits_for="the ledger")
    assert last().waits_for == "the ledger"
    heart.beat(holds_s=300.0)
    assert (last().waits_for, last().holds_s) == (None, 300.0)


def test_a_heart_that_stops_is_forgotten(heart: Heart, parts: Any, client: Any) -> None:
    heart.beat()
    assert client.zcard("scanherald:heartbeats") == 1
    heart.stop()
    assert read_heartbeats(parts.settings.heartbeat_folder) == []
    assert client.zcard("scanherald:heartbeats") == 0


def test_a_fork_has_no_heart(heart: Heart, parts: Any, last: Any, seconds: Seconds) -> None:
    heart.beat()
    seconds.now += 10

    def child() -> None:
        heart.beat()
        heart.stop()

    forked = multiprocessing.get_context("fork").Process(target=child)
    forked.start()
    forked.join()
    assert forked.exitcode == 0
    assert last().at == NOW


def test_a_full_disk_stops_no_loop_and_is_told_once(
    heart: Heart, seconds: Seconds, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hearts, "write_heartbeat", full)
    with capture_logs() as logs:
        for _ in range(3):
            heart.beat()
            seconds.now += 2
    assert [line["event"] for line in logs] == ["heartbeat_not_written"]


def test_a_redis_that_is_away_is_asked_once_a_minute(
    heart: Heart, server: Any, last: Any, seconds: Seconds
) -> None:
    server.connected = False
    with capture_logs() as logs:
        for _ in range(119):
            heart.beat()
            seconds.now += 1
    assert [line["event"] for line in logs] == ["presence_not_noted"] * 2
    assert last().at == seconds.now - 1


# Presence


def test_everybody_sees_who_noted_himself(parts: Any, join: Any, client: Any) -> None:
    presence = Presence(parts.settings)
    presence.note("worker", "one.example", 17)
    presence.note("beat", "a host", 18)
    found = {(seen.part, seen.host, seen.pid) for seen in presence.read()}
    assert found == {("worker", "one.example", 17), ("beat", "a host", 18)}
    assert all(seen.ago_s < 60 for seen in presence.read())
    presence.forget("worker", "one.example", 17)
    assert [seen.part for seen in presence.read()] == ["beat"]
    presence.close()


def test_whoever_was_silent_for_ten_minutes_is_forgotten(
    parts: Any, join: Any, client: Any
) -> None:
    key = "scanherald:heartbeats"
    now = client.time()[0]
    client.zadd(key, {"worker 1 old": now - KEPT_S - 5, "worker 2 silent": now - 100})
    presence = Presence(parts.settings)
    (seen,) = presence.read()
    assert (seen.host, round(seen.ago_s) in range(99, 130)) == ("silent", True)
    presence.note("worker", "new", 3)
    assert client.zcard(key) == 2
    presence.close()

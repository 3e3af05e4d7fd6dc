"""What systemd hears of a part."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from schemas.settings import Settings, load_settings
from store.heartbeats import HOLDS_S
from tasks.heart import Heart
from tasks.presence import Presence
from tasks.sd_notify import notify


@pytest.fixture(params=["a path", "@an abstract name"])
def systemd(request: Any, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """What NOTIFY_SOCKET says, and the socket that hears."""
    abstract = f"scanherald-{os.getpid()}"
    is_path = request.param == "a path"
    address = str(tmp_path / "notify") if is_path else f"@{abstract}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hears:
        hears.bind(address if is_path else f"\0{abstract}")
        hears.settimeout(5)
        yield address, hears


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(Presence, "note", lambda *_: None)
    monkeypatch.setattr(Presence, "forget", lambda *_: None)
    return load_settings(data_dir=tmp_path / "data")


def heard(hears: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in hears.recv(4096).decode().splitlines())


def test_a_loop_that_came_round_is_ready_and_feeds_the_watchdog(
    systemd: tuple[str, socket.socket], settings: Settings
) -> None:
    address, hears = systemd
    heart = Heart("listener", settings.model_copy(update={"notify_socket": address}))
    heart.beat()
    said = heard(hears)
    assert said == {
        "READY": "1",
        "WATCHDOG": "1",
        "WATCHDOG_USEC": str(int(HOLDS_S * 1_000_000)),
        "STATUS": "Works",
    }
    heart.beat(waits_for="the ledger", holds_s=600.0)
    said = heard(hears)
    assert said["STATUS"] == "Waits for the ledger"
    assert said["WATCHDOG_USEC"] == "600000000"
    heart.stop()
    assert heard(hears) == {"STOPPING": "1"}


def test_without_systemd_nothing_is_said_and_nothing_fails(settings: Settings) -> None:
    notify(None, "READY=1")
    notify("", "READY=1")
    Heart("listener", settings).beat()


def test_a_systemd_that_is_gone_is_logged_once_and_stops_no_loop(
    settings: Settings, tmp_path: Path
) -> None:
    gone = settings.model_copy(update={"notify_socket": str(tmp_path / "gone")})
    heart = Heart("listener", gone)
    with capture_logs() as logs:
        heart.beat()
        heart.beat(waits_for="redis")
    assert [log["event"] for log in logs] == ["systemd_not_notified"]


def test_the_socket_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    assert load_settings().notify_socket == "/run/systemd/notify"

"""One frame of ``scanherald top``: what was found, whatever is down and however narrow it is."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cli.main import app
from cli.top import Lately, frame, span
from listener.look import Answer, BrokerGauges, Look
from schemas.errors import BrokerUnavailable, ChannelUnavailable
from schemas.notifications import ChannelKind
from schemas.runs import DeadEntry, Entry
from store.events import record_dead
from store.gauges import read_gauges
from tasks.finish import settle
from tasks.lag import StreamLag
from tasks.notifications import try_delivery
from tasks.reports import render_formats

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m[bold]:smile:"
UP = Answer(latency_s=0.002)


@pytest.fixture
def busy(make_parts: Any, record: Any, make_scan: Any, subscribe: Any, published: list[Any]) -> Any:
    """A rendered and told scan, one that waits, and a dead letter that means harm."""
    parts = make_parts(formats=("csv",))
    subscribe(parts, events=("scan.completed",))
    parts.channel(ChannelKind.WEBHOOK).script = [ChannelUnavailable("answered 503")]
    ticket = record(parts, make_scan(), type="scan.completed")
    render_formats(parts, ticket.run_id, ticket.formats)
    for planned in settle(parts, ticket.run_id, 1):
        try_delivery(parts, planned)
    record(parts, make_scan(2))
    letter = DeadEntry(Entry("scans:events", "9-0", {b"data": b"{"}), f"malformed {HOSTILE}")
    with parts.ledger.write() as connection:
        record_dead(connection, letter, parts.clock())
    return parts


def look_at(parts: Any, *, down: str = "", oldest_s: float | None = 90.0) -> tuple[Look, Lately]:
    lately = Lately()
    gauges = None
    if down != "ledger":
        with parts.ledger.read() as connection:
            gauges = read_gauges(connection, parts.clock())
            lately.ask(connection, parts.clock())
    said = Answer(error=f"{down}: refused {HOSTILE}")
    names = ("redis", "broker", "ledger", "artifacts")
    lag = StreamLag("scans:events", 7, 2, 3, oldest_s, 1)
    return (
        Look(
            at=parts.clock() + timedelta(seconds=20),
            parts={name: said if name == down else UP for name in names},
            streams=None if down == "redis" else [lag],
            broker=None
            if down == "broker"
            else BrokerGauges({"reports": 1234, "default": 0}, {"reports": 2, "default": 0}),
            ledger=gauges,
        ),
        lately,
    )


def drawn(look: Look, lately: Lately, width: int = 100, height: int | None = None) -> str:
    out = io.StringIO()
    Console(file=out, width=width, emoji=False).print(frame(look, lately, width, height))
    return out.getvalue()


def test_a_frame_shows_what_was_found(busy: Any) -> None:
    said = drawn(*look_at(busy))
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert lines[0] == "scanherald 2026-03-04 12:00:20 UTC beat none yet"
    assert lines[1] == "redis 2 ms broker 2 ms ledger 2 ms artifacts 2 ms"
    assert "scans:events 2 3 1 min 30 s 1 unfinished 1 20 s" in lines
    assert any(line.startswith("reports 1,234 2 webhook 1 0 0") for line in lines)
    assert any("dead letters 1" in line for line in lines)
    assert "events recorded 3" in lines
    assert any(line.startswith("rendered csv 1 ") for line in lines)
    assert any(line.startswith("sent by webhook 0 - - 1") for line in lines)
    assert "scans:events 9-0 20 s ago" in lines


def test_hostile_text_cannot_drive_the_terminal(busy: Any) -> None:
    for down in ("", "redis"):
        said = drawn(*look_at(busy, down=down))
        assert not [char for char in said if ord(char) < 32 and char != "\n"]
        assert "\x9b" not in said
        assert "\\x1b]0;owned\\x07" in said
        assert "[bold]:smile:" in said


@pytest.mark.parametrize("down", ["redis", "broker", "ledger", "artifacts"])
def test_a_part_that_is_down_is_a_line_and_the_rest_is_there(down: str, busy: Any) -> None:
    said = drawn(*look_at(busy, down=down))
    assert f"{down} down" in said
    assert f"\n{down}: refused" in said
    assert ("reports" in said) is (down != "broker")
    assert ("scans:events  " in said) is (down != "redis")
    assert ("dead letters" in said) is (down != "ledger")


def test_errors_that_say_the_same_are_shown_once(busy: Any) -> None:
    for number in range(3):
        letter = DeadEntry(Entry("scans:events", f"7-{number}", {b"data": b"{"}), "again")
        with busy.ledger.write() as connection:
            record_dead(connection, letter, busy.clock())
    said = drawn(*look_at(busy))
    assert said.count("  again\n") == 1
    assert "20 s ago, and 2 like it" in said


@pytest.mark.parametrize("width", [30, 60, 78, 200])
def test_no_line_is_wider_than_the_terminal(width: int, busy: Any) -> None:
    said = drawn(*look_at(busy), width=width)
    assert max(map(len, said.splitlines())) <= width
    for word in ("Streams", "Queues", "Runs", "Deliveries", "Last errors", "Last five minutes"):
        assert word in said


def test_a_usual_terminal_holds_all_but_the_timings(busy: Any) -> None:
    lines = drawn(*look_at(busy), width=80, height=24).splitlines()
    errors = lines.index(next(line for line in lines if line.startswith("Last errors")))
    assert errors + 1 + 2 * 3 <= 24


def test_one_frame_is_printed_without_a_server(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(parts.settings.data_dir))
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    parts.settings.data_dir.mkdir(exist_ok=True)
    monkeypatch.setattr("listener.look.queue_depth", _refused)
    result = CliRunner().invoke(app, ["top", "--once"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "redis down" in result.stdout
    assert "broker down" in result.stdout
    assert "artifacts" in result.stdout
    assert "hunter2" not in result.stdout


def test_without_a_terminal_only_one_frame_is_drawn(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(parts.settings.data_dir))
    result = CliRunner().invoke(app, ["top"])
    assert "--once" in str(result.exception)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "-"),
        (-3, "0 s"),
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
        (7201, "2 h"),
        (356_400, "4 d 3 h"),
    ],
)
def test_lengths_of_time_are_short(seconds: float | None, said: str) -> None:
    assert span(seconds) == said


def _refused(_: str) -> int:
    raise BrokerUnavailable("broker: refused")

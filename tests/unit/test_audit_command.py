"""``scanherald audit`` against a ledger on disk: sums, gaps, JSON and exit statuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from cli import main as front_door
from cli.audit import parse_since
from cli.main import app
from schemas import audit as audit_schema
from schemas.errors import InvalidSettings
from store import tables
from tasks import wiring
from tasks.finish import settle
from tasks.reports import render_formats

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def light(make_parts: Callable[..., Any], clock: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Parts whose ledger the command finds by its environment, on the same clock."""
    parts = make_parts(formats=("csv",))
    monkeypatch.setattr(wiring, "utc_now", clock)
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(parts.settings.data_dir))
    monkeypatch.setenv("REDIS_URL", "redis://:s3cret@127.0.0.1:1/0")
    return parts


@pytest.fixture
def audit(light: Any) -> Callable[..., tuple[int, str]]:
    """Audit the ledger alone; returns exit status and standard output."""

    def audit(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(
            app, ["audit", "--no-stream", *arguments], catch_exceptions=False
        )
        assert result.stderr == ""
        return result.exit_code, result.stdout

    return audit


@pytest.fixture
def done(light: Any, record: Any, make_scan: Any) -> None:
    ticket = record(light, make_scan())
    render_formats(light, ticket.run_id, ticket.formats)
    settle(light, ticket.run_id, 1)


def spoil(parts: Any, **values: Any) -> None:
    with parts.ledger.write() as connection:
        connection.execute(update(tables.reports).values(**values))


def test_a_clean_ledger_says_so_with_its_sums(audit: Any, done: None) -> None:
    code, said = audit()
    assert code == 0
    assert said.splitlines()[:2] == ["1 events: 1 done", "1 runs: 1 done"]
    assert said.splitlines()[2].startswith("1 reports: 1 ready, 1 artifacts read, ")
    assert said.splitlines()[-1] == "clean"


def test_a_gap_ends_in_status_1_and_is_named_with_what_to_do(
    audit: Any, light: Any, done: None
) -> None:
    spoil(light, sha256="0" * 64)
    code, said = audit()
    assert code == 1
    assert "\n1 gap\n" in said
    assert "bad artifact: report 00000000-0000-0000-0000-0000000a0001.en.csv, artifact " in said
    assert "\n  Its SHA-256 is not the one that was recorded.\n  Ask for it again " in said


def test_the_answer_as_json_has_the_sums_and_the_gaps(audit: Any, light: Any, done: None) -> None:
    spoil(light, sha256="0" * 64)
    code, said = audit("--json", "--since", "1h")
    found = json.loads(said)
    assert code == 1
    assert found["status"] == "gaps"
    assert found["since"] == "2026-03-04T11:00:00Z"
    assert found["events"]["events"] == found["events"]["done"] == 1
    assert found["gaps_total"] == len(found["gaps"]) == 1
    assert found["gaps"][0].keys() == {"kind", "what", "why", "do"}
    assert list(found) == [
        *("status", "since", "events", "runs", "reports", "deliveries", "gaps", "gaps_total")
    ]


def test_artifacts_that_are_not_read_are_not_judged(audit: Any, light: Any, done: None) -> None:
    spoil(light, sha256="0" * 64)
    code, said = audit("--no-artifacts")
    assert code == 0
    assert "1 reports: 1 ready\n" in said


def test_what_is_late_is_no_gap_until_two_sweeps_and_a_deadline_have_passed(
    audit: Any, light: Any, record: Any, make_scan: Any, clock: Any
) -> None:
    record(light, make_scan())  # to be dispatched within 60 s
    clock.forward(60 + 2 * light.settings.sweep_interval_s + light.settings.run_deadline_s)
    assert audit()[0] == 0
    clock.forward(1)
    code, said = audit()
    assert code == 1
    assert "overdue run: run 0" in said


def test_gaps_beyond_those_listed_are_counted(
    audit: Any, light: Any, record: Any, make_scan: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_schema, "GAPS_LISTED", 2)
    for number in (1, 2, 3):
        record(light, make_scan(number))
    clock.forward(3600)
    assert audit()[1].splitlines()[-1] == "… and 1 more"


def test_a_redis_that_is_away_ends_in_status_75_and_says_how_to_go_on(
    light: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["scanherald", "audit"])
    with pytest.raises(SystemExit) as caught:
        front_door.main()
    said = capsys.readouterr().err
    assert caught.value.code == 75
    assert "is it running, and is REDIS_URL right? --no-stream audits the ledger alone" in said
    assert "s3cret" not in said


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("90m", NOW - timedelta(minutes=90)),
        ("24h", NOW - timedelta(hours=24)),
        (" 7d ", NOW - timedelta(days=7)),
        ("2w", NOW - timedelta(weeks=2)),
        ("0s", NOW),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("2026-03-01T10:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("2026-03-01T10:00+02:00", datetime(2026, 3, 1, 8, tzinfo=UTC)),
        ("2026-03-01T10:00:00Z", datetime(2026, 3, 1, 10, tzinfo=UTC)),
    ],
)
def test_since_is_a_duration_or_a_time(text: str, moment: datetime) -> None:
    assert parse_since(text, NOW) == moment


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "-1h", "1.5h", "24", "h", "2026-13-01"),
        *("9999999999999d", "0001-01-01T00:00+14:00"),
    ],
)
def test_a_since_that_is_neither_says_what_would_be(text: str) -> None:
    with pytest.raises(InvalidSettings, match="neither a duration, such as 90m, 24h or 7d"):
        parse_since(text, NOW)


def test_a_since_in_the_future_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="is in the future; it is 2026-03-04 12:00 UTC"):
        parse_since("2026-03-05", NOW)

"""``scanherald violations``: what is open, since when, for eyes and for scripts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from tasks.finish import settle


@pytest.fixture
def run(make_parts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the command on the ledger of these parts; returns what it printed."""
    parts = make_parts(formats=())
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(parts.settings.data_dir))
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["violations", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    run.parts = parts  # type: ignore[attr-defined]  # for those that fill the ledger first
    return run


def listed(run: Callable[..., str], *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(*arguments, "--json"))
    return found


def test_an_empty_ledger_says_so(run: Callable[..., str]) -> None:
    assert "No violations yet." in run()
    assert "No open violations." in run("--open")
    assert listed(run) == []


def test_violations_are_listed_with_their_first_and_last_sighting(
    run: Any, record: Any, make_scan: Any
) -> None:
    for number in (1, 2):
        settle(run.parts, record(run.parts, make_scan(number)).run_id, 1)
    first = next(
        row for row in listed(run) if row["rule_id"] == "consent.third-party-before-choice"
    )
    assert first["domain"] == "shop.example"
    assert first["title"] == "Third-party cookies set before a choice"
    assert first["first_seen_at"].startswith("2026-03-04T03:00:00")
    assert first["last_seen_at"].startswith("2026-03-04T04:00:00")
    assert (first["occurrence"], first["reminders"], first["resolved_at"]) == (1, 0, None)
    assert first["rule_pack"] == "eu-baseline-2026.1"
    assert "consent.third-party-before-choice" in run()


def test_resolved_ones_and_other_domains_can_be_left_out(
    run: Any, record: Any, make_scan: Any
) -> None:
    clean = {"cookies": [{"name": "sid", "category": "necessary"}]}
    for number, fields in enumerate([{}, clean, {"domain": "other.example"}], 1):
        settle(run.parts, record(run.parts, make_scan(number, **fields)).run_id, 1)
    assert {row["domain"] for row in listed(run)} == {"shop.example", "other.example"}
    assert {row["domain"] for row in listed(run, "--open")} == {"other.example"}
    assert {row["resolved_at"] for row in listed(run, "--open")} == {None}
    assert listed(run, "--open", "--domain", "shop.example") == []
    assert len(listed(run, "--domain", "shop.example")) == 2
    assert len(listed(run, "--limit", "1")) == 1

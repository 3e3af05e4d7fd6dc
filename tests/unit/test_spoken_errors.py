"""What an error may say: never a secret, and never the judgement that killed every header."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import structlog
from sqlalchemy.exc import IntegrityError

from schemas.reports import Format
from store import runs, tables
from tasks import finish
from tasks.logs import configure_logs


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_logged_traceback_shows_no_local_variable(
    make_parts: Any, log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = logging.getLogger().handlers[:]
    level = logging.getLogger().level
    try:
        configure_logs(make_parts(log_format=log_format).settings)
        held_secret = "whsec_" + "tell-nobody"
        try:
            raise RuntimeError(f"a bug, {len(held_secret)} long")
        except RuntimeError:
            structlog.get_logger("trial").exception("crashed")
        said = capsys.readouterr().err
    finally:
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
        structlog.reset_defaults()

    assert "a bug, 17 long" in said
    assert "tell-nobody" not in said


def test_a_database_error_shows_no_bound_value(parts: Any) -> None:
    row = {"kind": None, "taken_at": parts.clock(), "figures": {"url": "https://x/?token=hidden"}}
    with pytest.raises(IntegrityError) as caught, parts.ledger.write() as connection:
        connection.execute(tables.statistics.insert().values(**row))

    assert "NOT NULL" in str(caught.value)
    assert "token=hidden" not in str(caught.value)


def test_a_scan_that_broke_every_format_is_told_without_being_judged_again(
    parts: Any, make_scan: Any, record: Any, subscribe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscribe(parts)
    ticket = record(parts, make_scan())
    with parts.ledger.write() as connection:
        run = runs.load_run(connection, ticket.run_id)
        runs.start_rendering(connection, run, list(Format), max_tries=9, now=parts.clock())
        for name in Format:
            runs.save_render_error(connection, run, name, "poison", final=True)

    def deadly(*_: Any) -> None:
        raise AssertionError("judged again")

    monkeypatch.setattr(finish, "assessed_report", deadly)
    assert len(finish.settle(parts, ticket.run_id, 1)) == 1

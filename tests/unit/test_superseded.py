"""The same scan id sent again with other content: the later word counts, and only it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from sqlalchemy import update

from schemas.reports import Format
from store import tables
from store.runs import latest_run_of_scan, load_run
from tasks.finish import finish_run, settle
from tasks.reports import assessed_report, render_formats


def test_the_earlier_run_makes_no_report_and_tells_nobody(
    parts: Any, make_scan: Any, record: Any, subscribe: Any, rows: Any
) -> None:
    subscribe(parts)
    first = record(parts, make_scan(cookies=[{"name": "old"}]), id="one")
    second = record(parts, make_scan(cookies=[{"name": "new"}]), id="two")

    assert set(render_formats(parts, first.run_id, [Format.CSV]).values()) == {"superseded"}
    assert settle(parts, first.run_id, 1) == []
    render_formats(parts, second.run_id, list(Format))
    assert settle(parts, second.run_id, 1) != []

    assert [run["state"] for run in rows(parts, "runs")] == ["done", "done"]
    assert "superseded" in rows(parts, "events")[0]["reason"]
    csv_row = next(row for row in rows(parts, "reports") if row["format"] == "csv")
    table = Path(csv_row["uri"]).read_text()
    assert "new" in table
    assert "old" not in table


def test_a_report_on_demand_is_made_of_the_later_content(
    parts: Any, make_scan: Any, record: Any, rows: Any
) -> None:
    record(parts, make_scan(cookies=[{"name": "old"}]), id="one")
    later = record(parts, make_scan(cookies=[{"name": "new"}]), id="two")

    scan_id = rows(parts, "scans")[0]["scan_id"]
    with parts.ledger.read() as connection:
        assert latest_run_of_scan(connection, scan_id) == later.run_id


def test_the_scan_before_stays_what_it_was_when_the_run_was_recorded(
    parts: Any, make_scan: Any, record: Any
) -> None:
    record(parts, make_scan(1, cookies=[{"name": "a"}]), id="before")
    ticket = record(parts, make_scan(2, cookies=[{"name": "b"}]))
    with parts.ledger.read() as connection:
        run = load_run(connection, ticket.run_id)
    frozen = assessed_report(parts, run).content_sha256
    record(parts, make_scan(1, cookies=[{"name": "z"}]), id="before again")

    from tasks import reports

    reports._assessed.clear()
    assert assessed_report(parts, run).content_sha256 == frozen


def test_a_run_that_no_key_can_settle_says_why_where_not_even_the_channels_are_known(
    make_parts: Any, make_scan: Any, record: Any, subscribe: Any, rows: Any
) -> None:
    parts = make_parts()
    subscribe(parts)
    ticket = record(parts, make_scan())
    render_formats(parts, ticket.run_id, list(Format))
    (parts.settings.data_dir / "encryption.key").write_bytes(Fernet.generate_key())
    parts._box = None
    with parts.ledger.write() as connection:  # as a release before this one wrote it
        connection.execute(update(tables.subscribers).values(kinds=None))

    finish_run.apply(([], ticket.run_id, 1))

    run = rows(parts, "runs")[0]
    assert run["state"] != "done"
    assert "fits none of the encryption keys" in run["last_error"]

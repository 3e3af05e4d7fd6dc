"""One task for all formats of a small scan: what goes wrong with one costs no other."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.exc import DataError

from schemas.errors import ArtifactsUnavailable
from schemas.notifications import ChannelKind
from schemas.reports import Format
from schemas.runs import RunTicket
from store import runs
from tasks import chords, reports
from tasks.finish import settle
from tasks.notifications import try_delivery
from tasks.reports import render_formats, render_report


def test_a_fault_around_the_formats_leaves_them_to_the_next_attempt(
    parts: Any, record: Any, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = record(parts, make_scan())
    save = runs.save_rendered

    def refuse_csv(connection: Any, run: Any, rendered: Any, now: Any) -> None:
        if any(report.format is Format.CSV for report in rendered):
            raise DataError("x", {}, Exception("bad"))
        save(connection, run, rendered, now)

    with monkeypatch.context() as patched:
        patched.setattr(reports.runs, "save_rendered", refuse_csv)
        names = [name.value for name in ticket.formats]
        said = render_report.apply((ticket.run_id, 1, names)).get()
        assert said == dict.fromkeys(names, "unfinished")
        for name in names:
            render_report.apply((ticket.run_id, 2, [name])).get()
    found = {row["format"]: row["status"] for row in rows(parts, "reports")}
    assert found == {name: "failed" if name == "csv" else "ready" for name in names}


def test_a_format_that_is_there_does_not_fail_afterwards(
    parts: Any, record: Any, make_scan: Any, rows: Any
) -> None:
    ticket = record(parts, make_scan())
    render_formats(parts, ticket.run_id, [Format.CSV])
    with parts.ledger.write() as connection:
        run = runs.load_run(connection, ticket.run_id)
        runs.save_render_error(connection, run, Format.CSV, "late", final=True)
    (report,) = rows(parts, "reports")
    assert (report["status"], report["error"]) == ("ready", None)


@pytest.mark.parametrize("formats", [(Format.PDF, Format.CSV), ()])
def test_a_body_that_breaks_has_its_run_taken_up_soon(
    parts: Any, formats: tuple[Format, ...]
) -> None:
    message = chords._message(RunTicket("r-1", 1, formats, needs_data=False, data_bytes=1))
    assert message is not None
    (broken,) = message.options["link_error"]
    assert broken["kwargs"] == {"run_id": "r-1", "attempt": 1}


def test_tickets_are_drawn_as_they_are_published_where_each_is_a_round_trip(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def draw() -> Any:
        for number in range(3):
            order.append("drawn")
            yield RunTicket(f"r-{number}", 1, (), needs_data=False)

    settings = parts.settings.model_copy(update={"celery_broker_url": "amqp://broker"})
    monkeypatch.setattr(chords.wiring, "settings", lambda: settings)
    monkeypatch.setattr(chords.Signature, "apply_async", lambda *_, **__: order.append("published"))
    chords.dispatch(draw())
    assert order == ["drawn", "published"] * 3


def test_a_store_that_signs_no_link_says_nothing_against_the_address(
    parts: Any, record: Any, make_scan: Any, rows: Any, subscribe: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def refuse(*_: Any) -> str:
        raise ArtifactsUnavailable("no key to sign with")

    subscribe(parts, kinds=(ChannelKind.WEBHOOK,))
    ticket = record(parts, make_scan())
    render_formats(parts, ticket.run_id, ticket.formats)
    monkeypatch.setattr(parts.artifacts, "folder", None)  # as of a bucket
    monkeypatch.setattr(type(parts.artifacts), "presigned", refuse)
    for delivery in settle(parts, ticket.run_id, 1):
        try_delivery(parts, delivery)
    assert {row["state"] for row in rows(parts, "deliveries")} == {"pending"}
    assert [row["failures"] for row in rows(parts, "endpoints")] in ([], [0])

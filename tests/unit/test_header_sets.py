"""How a run's formats are shared out among header tasks, and what one task of all of them owes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from kombu.exceptions import OperationalError

from schemas.errors import ArtifactsUnavailable, BrokerUnavailable
from schemas.reports import DEFAULT_FORMATS, Format
from schemas.runs import RunTicket
from tasks import chords, finish, reports
from tasks.chords import header_sets, task_ids
from tasks.finish import finish_run
from tasks.reports import render_formats, render_report

ALL = tuple(name.value for name in DEFAULT_FORMATS)
ONE_EACH = [(name,) for name in DEFAULT_FORMATS]


def ticket(attempt: int, data_bytes: int) -> RunTicket:
    return RunTicket("r", attempt, DEFAULT_FORMATS, needs_data=False, data_bytes=data_bytes)


@pytest.mark.parametrize(
    ("given", "sets"),
    [
        (ticket(1, 1000), [DEFAULT_FORMATS]),
        (ticket(1, 1001), ONE_EACH),
        (ticket(1, 0), ONE_EACH),  # nobody knows its size
        (ticket(2, 10), ONE_EACH),  # some format may have broken the first attempt
    ],
    ids=["small", "large", "unknown", "again"],
)
def test_a_small_scan_s_first_attempt_has_one_task(given: RunTicket, sets: Any) -> None:
    assert header_sets(given, 1000) == sets


def test_every_scan_has_a_task_for_each_format_where_the_setting_is_zero() -> None:
    assert header_sets(ticket(1, 1), 0) == ONE_EACH


def test_whatever_may_have_been_published_can_be_revoked() -> None:
    ids = task_ids("r", 1, ["pdf", "csv"])
    assert {"r:pdf:a1", "r:csv:a1", "r:pdf+csv:a1", "r:finish:a1", "r:fetch:a1"} == set(ids)
    assert task_ids("r", 1, []) == ["r:fetch:a1", "r:finish:a1"]


def header(run: RunTicket, *formats: str) -> dict[str, str]:
    statuses: dict[str, str] = render_report.apply((run.run_id, 1, list(formats))).get()
    return statuses


def tries(parts: Any, rows: Any) -> dict[str, int]:
    return {row["format"]: row["tries"] for row in rows(parts, "reports")}


def test_a_bug_in_one_format_leaves_the_others_of_its_task_alone(
    parts: Any, record: Any, make_scan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record(parts, make_scan())
    store = parts.artifacts.place

    def put(key: str, data: bytes) -> None:
        if key.endswith(".pdf"):
            raise ZeroDivisionError("a bug of the store's client")
        store(key, data)

    monkeypatch.setattr(parts.artifacts, "place", put)
    assert header(run, *ALL) == {"pdf": "failed", "html": "ready", "json": "ready", "csv": "ready"}


def test_a_put_that_hangs_leaves_all_of_its_task_to_an_attempt_with_a_task_each(
    parts: Any, record: Any, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record(parts, make_scan())
    store = parts.artifacts.place

    def put(key: str, data: bytes) -> None:
        if key.endswith(".pdf"):
            raise SoftTimeLimitExceeded
        store(key, data)

    monkeypatch.setattr(parts.artifacts, "place", put)
    assert header(run, *ALL) == dict.fromkeys(ALL, "unfinished")
    assert {row["status"] for row in rows(parts, "reports")} == {"pending"}
    assert header(run, "pdf") == {"pdf": "failed"}  # alone, it is the one to blame
    assert header(run, "html") == {"html": "ready"}


class Killed(BaseException):
    """As a kill, nothing in the task can catch it."""


def test_what_kills_its_worker_is_found_among_its_task_s_formats_and_costs_no_other(
    parts: Any, record: Any, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record(parts, make_scan())
    deaths = 0
    real = reports.render

    def render(report: Any, name: Format, *arguments: Any) -> bytes:
        if name is Format.HTML:
            raise Killed
        return real(report, name, *arguments)

    monkeypatch.setattr(reports, "render", render)
    statuses: dict[str, str] = {}
    while not statuses:
        try:
            statuses = render_formats(parts, run.run_id, DEFAULT_FORMATS)
        except Killed:
            deaths += 1
            assert deaths <= parts.settings.render_max_tries
    assert statuses == {"pdf": "ready", "html": "failed", "json": "ready", "csv": "ready"}
    assert deaths == parts.settings.render_max_tries
    assert tries(parts, rows)["json"] == 2


def test_a_start_that_ended_by_a_passing_fault_is_no_reason_to_go_one_by_one(
    parts: Any, record: Any, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record(parts, make_scan())

    def put(*_: Any) -> None:
        raise ArtifactsUnavailable("no space")

    with monkeypatch.context() as full:
        full.setattr(parts.artifacts, "place", put)
        assert set(header(run, *ALL).values()) == {"unfinished"}
    assert set(tries(parts, rows).values()) == {0}
    assert header(run, *ALL) == dict.fromkeys(ALL, "ready")
    assert set(tries(parts, rows).values()) == {1}


def body(run: RunTicket, *, redelivered: bool) -> None:
    """The body as the worker runs it, behind its header."""
    finish_run.push_request(delivery_info={"redelivered": redelivered})
    try:
        finish_run.run([{"pdf": "ready"}], run.run_id, 1)
    finally:
        finish_run.pop_request()


def test_a_body_is_counted_when_it_comes_back_and_given_up_in_the_end(
    parts: Any, record: Any, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record(parts, make_scan())

    def kill(*_: Any) -> None:
        raise Killed

    monkeypatch.setattr(finish, "settle", kill)
    with pytest.raises(Killed):
        body(run, redelivered=False)
    assert rows(parts, "runs")[0]["settling"] == 0
    for number in range(1, parts.settings.render_max_tries + 1):
        with pytest.raises(Killed):
            body(run, redelivered=True)
        assert rows(parts, "runs")[0]["settling"] == number
    body(run, redelivered=True)
    (ended,) = rows(parts, "runs")
    assert ended["state"] == "dead"
    assert "poison" in ended["last_error"]


def test_messages_whose_batch_failed_are_published_one_by_one(
    broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[str] = []

    def publish(self: Any, **options: Any) -> None:
        if "producer" in options:
            raise OperationalError("the connection was dead")
        published.append(self.options["task_id"])

    monkeypatch.setattr(chords.Signature, "apply_async", publish)
    chords.dispatch([replace(ticket(1, 10), run_id=name) for name in ("a", "b")])
    assert published == ["a:pdf+html+json+csv:a1", "b:pdf+html+json+csv:a1"]


def test_a_broker_that_stays_away_is_told(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish(*_: Any, **__: Any) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(chords.Signature, "apply_async", publish)
    with pytest.raises(BrokerUnavailable):
        chords.dispatch([ticket(1, 10)])

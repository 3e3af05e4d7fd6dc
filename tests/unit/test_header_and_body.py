"""The chord's two halves as the worker runs them, on a real ledger, store and renderers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import update
from structlog.testing import capture_logs

from channels.spoken import speak
from languages.language import load_language
from renderers.registry import RENDERERS, Renderer
from schemas.errors import (
    ArtifactsUnavailable,
    BrokerUnavailable,
    InvalidEvent,
    InvalidSettings,
    LedgerUnavailable,
    NotFound,
    RenderFailed,
)
from schemas.notifications import ChannelKind, Notification
from schemas.reports import DEFAULT_FORMATS, Format, Severity
from schemas.runs import RunTicket
from store import runs, tables
from store.ledger import unpack
from tasks import finish, notifications, reports
from tasks.finish import finish_run, note_chord_error, settle
from tasks.reports import render_formats, render_report
from tasks.sweep import sweep_once


def render_all(parts: Any, ticket: RunTicket) -> dict[str, str]:
    return render_formats(parts, ticket.run_id, ticket.formats)


def header(ticket: RunTicket, *formats: str, attempt: int = 1) -> dict[str, str]:
    """A header task as the worker runs it."""
    statuses: dict[str, str] = render_report.apply((ticket.run_id, attempt, list(formats))).get()
    return statuses


def told(parts: Any, rows: Any) -> dict[str, Notification]:
    """What was told, by event key."""
    return {
        row["event_key"]: msgspec.json.decode(unpack(row["content"]), type=Notification)
        for row in rows(parts, "notifications")
    }


def by_format(parts: Any, rows: Any) -> dict[str, Any]:
    return {row["format"]: row for row in rows(parts, "reports")}


def broken(error: Exception) -> Renderer:
    def render(*_: Any) -> bytes:
        raise error

    return Renderer(render, "application/pdf", ".pdf")


@pytest.fixture
def failing_pdf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENDERERS, Format.PDF, broken(ZeroDivisionError("no page")))


def test_four_formats_are_rendered_and_recorded_as_they_lie_in_the_store(
    parts: Any, record: Any, scans: list[bytes], rows: Any
) -> None:
    ticket = record(parts, scans[0])
    assert header(ticket, "pdf", "html", "json", "csv") == dict.fromkeys(
        ("pdf", "html", "json", "csv"), "ready"
    )
    found = by_format(parts, rows)
    assert set(found) == {name.value for name in DEFAULT_FORMATS}
    for row in found.values():
        data = Path(row["uri"]).read_bytes()
        assert row["status"] == "ready"
        assert row["size_bytes"] == len(data) > 0
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert parts.artifacts.get(row["artifact_key"]) == data


def test_a_second_call_renders_nothing_again(
    parts: Any, record: Any, make_scan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = record(parts, make_scan())
    render_all(parts, ticket)
    for name in Format:
        monkeypatch.setitem(RENDERERS, name, broken(AssertionError("rendered twice")))
    assert set(render_all(parts, ticket).values()) == {"ready"}


def test_a_killed_workers_format_is_rendered_again_to_the_same_bytes(
    parts: Any, record: Any, scans: list[bytes], rows: Any
) -> None:
    ticket = record(parts, scans[0])
    render_all(parts, ticket)
    first = {name: row["sha256"] for name, row in by_format(parts, rows).items()}
    other = record(parts, scans[1])
    render_all(parts, other)
    with parts.ledger.write() as connection:  # as if it had died between the put and the note
        connection.execute(update(tables.reports).values(status="pending", sha256=None))
    reports._assessed.clear()
    render_all(parts, ticket)
    scan_id = json.loads(scans[0])["scan_id"]
    again = {
        row["format"]: row["sha256"] for row in rows(parts, "reports") if row["scan_id"] == scan_id
    }
    assert again == first


@pytest.mark.parametrize(("cookies", "kept"), [(1, 1), (3, 0)])
def test_a_large_report_is_let_go_before_the_next_is_made(
    parts: Any,
    record: Any,
    make_scan: Any,
    monkeypatch: pytest.MonkeyPatch,
    cookies: int,
    kept: int,
) -> None:
    monkeypatch.setattr(reports, "ASSESSED_COOKIES", 2)
    first = record(parts, make_scan(1, cookies=[{"name": "a"}] * cookies))
    header(first, "json")
    header(first, "csv")
    assert len(reports._assessed) == 1, "the formats of one run share their Report"

    beside: list[int] = []
    whole = reports.assess

    def assess(*arguments: Any, **named: Any) -> Any:
        beside.append(len(reports._assessed))
        return whole(*arguments, **named)

    monkeypatch.setattr(reports, "assess", assess)
    header(record(parts, make_scan(2)), "json")
    assert beside == [kept]


def test_a_format_that_fails_leaves_the_other_three_and_the_message_names_it(
    parts: Any, record: Any, make_scan: Any, subscribe: Any, rows: Any, failing_pdf: None
) -> None:
    subscribe(parts, kinds=(ChannelKind.WEBHOOK,), events=("scan.completed",))
    ticket = record(parts, make_scan())
    statuses: dict[str, str] = {}
    for name in ticket.formats:
        statuses |= header(ticket, name.value)
    assert statuses == {"pdf": "failed", "html": "ready", "json": "ready", "csv": "ready"}
    assert "ZeroDivisionError: no page" in by_format(parts, rows)["pdf"]["error"]
    assert len(settle(parts, ticket.run_id, 1)) == 1
    (completed,) = (
        item for key, item in told(parts, rows).items() if key.startswith("scan.completed")
    )
    assert completed.missing_formats == ("pdf",)
    assert [link.format for link in completed.artifacts] == ["html", "json", "csv"]


def test_formats_of_one_header_task_fail_one_by_one(
    parts: Any, record: Any, make_scan: Any, failing_pdf: None
) -> None:
    ticket = record(parts, make_scan())
    assert header(ticket, "pdf", "csv") == {"pdf": "failed", "csv": "ready"}


def test_an_unexpected_crash_is_a_status_and_a_reason_and_never_raised(
    parts: Any, record: Any, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise KeyError("ours")

    ticket = record(parts, make_scan())
    monkeypatch.setattr(reports, "_render_one", crash)
    with capture_logs() as logs:
        assert header(ticket, "pdf") == {"pdf": "failed"}
    assert [line["exc_info"] for line in logs if line["event"] == "render_crashed"] == [True]
    row = by_format(parts, rows)["pdf"]
    assert (row["status"], row["error"]) == ("failed", "internal error: KeyError: 'ours'")


def test_a_run_that_nobody_knows_is_a_status_too(parts: Any) -> None:
    assert header(RunTicket("gone", 1, (), needs_data=False), "pdf") == {"pdf": "gone"}


def test_a_header_that_runs_into_the_soft_time_limit_has_failed_with_the_limit_named(
    parts: Any, record: Any, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(*_: Any, **__: Any) -> None:
        raise SoftTimeLimitExceeded

    ticket = record(parts, make_scan())
    monkeypatch.setattr(reports, "assess", hang)
    assert header(ticket, "pdf") == {"pdf": "failed"}
    assert "SCANHERALD_TASK_SOFT_TIME_LIMIT_S" in by_format(parts, rows)["pdf"]["error"]


class Outage:
    """An artifact store that is away until it is told otherwise."""

    def __init__(self, parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away = True
        self.calls = 0
        self._put = parts.artifacts.place
        monkeypatch.setattr(parts.artifacts, "place", self.put)

    def put(self, key: str, data: bytes) -> None:
        self.calls += 1
        if self.away:
            raise ArtifactsUnavailable("artifact store: no route")
        self._put(key, data)


def test_a_store_that_stays_away_leaves_the_format_pending_with_the_error(
    parts: Any, record: Any, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(parts, monkeypatch)
    ticket = record(parts, make_scan())
    assert header(ticket, "csv") == {"csv": "unfinished"}
    assert outage.calls == 1 + parts.settings.task_max_retries
    row = by_format(parts, rows)["csv"]
    assert (row["status"], row["error"]) == ("pending", "artifact store: no route")


def test_a_store_that_is_back_within_the_fast_retries_costs_nothing(
    parts: Any, record: Any, make_scan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(parts, monkeypatch)
    real = outage.put

    def put(key: str, data: bytes) -> None:
        outage.away = outage.calls < 2
        real(key, data)

    monkeypatch.setattr(parts.artifacts, "place", put)
    assert header(record(parts, make_scan()), "csv") == {"csv": "ready"}


def test_an_outage_of_the_store_is_not_taken_for_poison(
    make_parts: Any,
    record: Any,
    make_scan: Any,
    rows: Any,
    clock: Any,
    dispatched: list[RunTicket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = make_parts(formats=("csv",))
    outage = Outage(parts, monkeypatch)
    ticket = record(parts, make_scan())
    for attempt in (1, 2):
        assert header(ticket, "csv", attempt=attempt) == {"csv": "unfinished"}
        assert settle(parts, ticket.run_id, attempt) == []
        clock.forward(parts.settings.run_deadline_s + 1)
        assert sweep_once(parts)["runs"] == 1
    assert [item.attempt for item in dispatched] == [2, 3]
    outage.away = False
    assert header(ticket, "csv", attempt=3) == {"csv": "ready"}
    settle(parts, ticket.run_id, 3)
    assert rows(parts, "runs")[0]["state"] == "done"


def test_a_ledger_that_stays_away_makes_a_status_and_raises_nothing(
    parts: Any, record: Any, make_scan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def away() -> Iterator[None]:
        raise LedgerUnavailable("ledger: database is locked")
        yield

    ticket = record(parts, make_scan())
    monkeypatch.setattr(parts.ledger, "write", away)
    assert header(ticket, "csv") == {"csv": "unfinished"}


def test_starts_that_never_end_are_bounded_and_the_format_is_poison(
    make_parts: Any, record: Any, make_scan: Any, rows: Any
) -> None:
    parts = make_parts(render_max_tries=2)
    ticket = record(parts, make_scan())
    for _ in range(2):  # a worker that dies while it renders leaves just this
        with parts.ledger.write() as connection:
            run = runs.load_run(connection, ticket.run_id)
            runs.start_rendering(connection, run, [Format.PDF], max_tries=2, now=parts.clock())
    assert header(ticket, "pdf", "csv") == {"pdf": "failed", "csv": "ready"}
    assert "poison" in by_format(parts, rows)["pdf"]["error"]
    assert header(ticket, "pdf") == {"pdf": "failed"}, "and stays so"


def test_header_tasks_of_one_run_judge_the_scan_once(
    parts: Any, record: Any, make_scan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[str] = []
    real = reports.assess

    def assess(scan: Any, **options: Any) -> Any:
        judged.append(str(scan.scan_id))
        return real(scan, **options)

    monkeypatch.setattr(reports, "assess", assess)
    ticket = record(parts, make_scan())
    for name in ("html", "json", "csv"):
        header(ticket, name)
    settle(parts, ticket.run_id, 1)
    assert len(judged) == 1


def finished(parts: Any, ticket: RunTicket) -> list[Any]:
    render_all(parts, ticket)
    return settle(parts, ticket.run_id, 1)


@pytest.fixture
def light(make_parts: Callable[..., Any]) -> Any:
    """Parts that render the cheapest format alone."""
    return make_parts(formats=("csv",))


def test_the_body_settles_run_event_and_score_in_one_go(
    light: Any, record: Any, make_scan: Any, rows: Any
) -> None:
    ticket = record(light, make_scan())
    finished(light, ticket)
    (run,), (event,), (scan,) = (rows(light, name) for name in ("runs", "events", "scans"))
    assert (run["state"], run["deadline"], run["settled_at"]) == ("done", None, light.clock())
    assert event["outcome"] == "done"
    assert event["reason"].startswith("1 artifacts, 0 failed, ")
    assert 0 <= scan["score"] <= 100


def test_a_body_that_runs_again_does_nothing(
    light: Any, record: Any, make_scan: Any, subscribe: Any, rows: Any
) -> None:
    subscribe(light)
    ticket = record(light, make_scan())
    assert len(finished(light, ticket)) >= 1
    before = [dict(row) for row in rows(light, "deliveries")]
    assert settle(light, ticket.run_id, 1) == []
    assert settle(light, ticket.run_id, 2) == []
    assert [dict(row) for row in rows(light, "deliveries")] == before


def test_a_late_format_postpones_the_body_and_says_which_and_why(
    make_parts: Any, record: Any, make_scan: Any, rows: Any
) -> None:
    parts = make_parts(formats=("csv", "json"), retry_max_s=60)
    ticket = record(parts, make_scan())
    header(ticket, "csv")
    assert settle(parts, ticket.run_id, 1) == []
    (run,) = rows(parts, "runs")
    assert run["state"] == "recorded"
    assert run["last_error"] == "json: not rendered yet"
    assert (run["deadline"] - parts.clock()).total_seconds() == 60
    assert rows(parts, "notifications") == []


def test_each_postponed_attempt_waits_twice_as_long_up_to_the_deadline(
    make_parts: Any, record: Any, make_scan: Any, rows: Any, clock: Any, dispatched: Any
) -> None:
    parts = make_parts(formats=("csv",), retry_max_s=60, run_deadline_s=200, run_max_attempts=9)
    ticket = record(parts, make_scan())
    waits = []
    for attempt in (1, 2, 3, 4):
        settle(parts, ticket.run_id, attempt)
        waits.append((rows(parts, "runs")[0]["deadline"] - clock()).total_seconds())
        clock.forward(201)
        sweep_once(parts)
    assert waits == [60, 120, 200, 200]


def test_a_delivery_is_planned_for_each_channel_of_whoever_wants_the_event(
    light: Any, record: Any, make_scan: Any, subscribe: Any, rows: Any
) -> None:
    subscribe(light, "all", tuple(ChannelKind), events=("scan.completed",))
    subscribe(light, "elsewhere", domains=("*.other.example",))
    subscribe(light, "other-events", events=("scan.failed",))
    tickets = finished(light, record(light, make_scan()))
    planned = rows(light, "deliveries")
    assert {(row["subscriber_id"], row["channel"]) for row in planned} == {
        ("all", kind.value) for kind in ChannelKind
    }
    assert {ticket.delivery_id for ticket in tickets} == {row["delivery_id"] for row in planned}
    assert all((row["state"], row["tries"]) == ("pending", 0) for row in planned)


def test_a_paused_subscriber_is_suppressed_with_a_reason_and_not_started(
    light: Any, record: Any, make_scan: Any, subscribe: Any, rows: Any
) -> None:
    subscribe(light, paused=True, events=("scan.completed",))
    assert finished(light, record(light, make_scan())) == []
    (row,) = rows(light, "deliveries")
    assert (row["state"], row["reason"]) == ("suppressed", "the subscriber is paused")
    assert row["settled_at"] == light.clock()


def test_the_owner_is_told_even_where_no_subscription_matches(
    light: Any, record: Any, make_scan: Any, subscribe: Any, rows: Any
) -> None:
    narrow = {"domains": ("other.example",), "min_severity": Severity.HIGH}
    subscribe(light, "owner", user_id="u-1", **narrow)
    subscribe(light, "stranger", user_id="u-2", **narrow)
    finished(light, record(light, make_scan(), userid="u-1"))
    assert {row["subscriber_id"] for row in rows(light, "deliveries")} == {"owner"}


def test_the_same_findings_in_the_next_scan_wake_nobody_again(
    light: Any, record: Any, make_scan: Any, subscribe: Any, rows: Any
) -> None:
    subscribe(light, events=("compliance.violation", "scan.completed"))
    finished(light, record(light, make_scan(1)))
    finished(light, record(light, make_scan(2)))
    kinds = sorted(row["event_key"].split(":")[0] for row in rows(light, "deliveries"))
    assert kinds == ["compliance.violation", "scan.completed", "scan.completed"]


def test_another_run_of_the_same_event_wakes_nobody(
    light: Any, record: Any, make_scan: Any, subscribe: Any, rows: Any
) -> None:
    subscribe(light)
    finished(light, record(light, make_scan(), id="e-1"))
    before = len(rows(light, "deliveries"))
    again = record(light, make_scan(), id="e-2")
    assert finished(light, again) == []
    assert len(rows(light, "deliveries")) == before
    assert [run["state"] for run in rows(light, "runs")] == ["done", "done"]


def test_a_run_whose_scan_came_again_leaves_reports_and_messages_to_the_later_one(
    light: Any, record: Any, make_scan: Any, subscribe: Any, rows: Any
) -> None:
    subscribe(light, events=("scan.completed",))
    early = record(light, make_scan(cookies=[]), id="e-1")
    late = record(light, make_scan(), id="e-2")
    assert header(early, "csv") == {"csv": "superseded"}
    assert settle(light, early.run_id, 1) == []
    assert len(finished(light, late)) == 1
    assert [event["outcome"] for event in rows(light, "events")] == ["done", "done"]
    (report,) = rows(light, "reports")
    assert report["run_id"] == late.run_id


def test_artifact_links_lead_to_the_public_address_where_there_is_one(
    make_parts: Any, record: Any, make_scan: Any, rows: Any
) -> None:
    parts = make_parts(formats=("csv",), public_url="https://reports.example/base/")
    finished(parts, record(parts, make_scan()))
    key = rows(parts, "reports")[0]["artifact_key"]
    links = {link.uri for item in told(parts, rows).values() for link in item.artifacts}
    assert links == {f"https://reports.example/base/{key}"}


def test_artifact_links_are_paths_otherwise(
    light: Any, record: Any, make_scan: Any, rows: Any
) -> None:
    finished(light, record(light, make_scan()))
    links = {link.uri for item in told(light, rows).values() for link in item.artifacts}
    assert links == {rows(light, "reports")[0]["uri"]}
    assert all(Path(uri).is_file() for uri in links)


@pytest.mark.parametrize(
    "error",
    [ZeroDivisionError("ours"), RenderFailed("not this one")],
    ids=["a bug", "a refusal"],
)
def test_a_scan_that_cannot_be_judged_is_still_told(
    light: Any,
    record: Any,
    make_scan: Any,
    subscribe: Any,
    rows: Any,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    subscribe(light)
    monkeypatch.setattr(reports, "assess", fail)
    ticket = record(light, make_scan(), subject="shop.example")
    assert header(ticket, "csv") == {"csv": "failed"}
    assert len(settle(light, ticket.run_id, 1)) == 1
    (notification,) = told(light, rows).values()
    assert notification.missing_formats == ("csv",)
    assert notification.values["reason"] == "not_rendered"
    assert notification.title.endswith("finished, but could not be judged")
    assert rows(light, "scans")[0]["score"] is None
    assert rows(light, "runs")[0]["state"] == "done"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidSettings("rule pack x is gone"), "rules_gone"),
        (InvalidEvent("not JSON"), "unreadable"),
        (RenderFailed("a bug"), "not_judged"),
    ],
)
def test_why_a_scan_could_not_be_judged_is_a_reason_that_people_read_in_their_language(
    light: Any,
    record: Any,
    make_scan: Any,
    rows: Any,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    reason: str,
) -> None:
    def fail(*_: Any) -> None:
        raise error

    ticket = record(light, make_scan(), subject="shop.example")
    header(ticket, "csv")
    monkeypatch.setattr(finish, "assessed_report", fail)
    settle(light, ticket.run_id, 1)
    (notification,) = told(light, rows).values()
    assert notification.values["reason"] == reason
    assert notification.summary == str(error), "machines get the very words"
    german = load_language("de")
    assert speak(notification, german).summary == f"Der Grund: {german[f'reason.{reason}']}"


def test_an_event_without_reports_goes_straight_to_its_message(
    parts: Any, record: Any, subscribe: Any, rows: Any
) -> None:
    subscribe(parts)
    ticket = record(parts, b'{"scan_id":"s-1","error":"DNS"}', type="scan.failed")
    assert ticket.formats == ()
    assert len(settle(parts, ticket.run_id, 1)) == 1
    (notification,) = told(parts, rows).values()
    assert notification.summary == "DNS"


def test_the_body_task_settles_and_publishes_the_first_tries(
    light: Any, record: Any, make_scan: Any, subscribe: Any, rows: Any, published: list[Any]
) -> None:
    subscribe(light, events=("scan.completed",))
    ticket = record(light, make_scan())
    statuses = header(ticket, "csv")
    finish_run.apply(([statuses], ticket.run_id, 1)).get()
    (delivery,) = rows(light, "deliveries")
    assert published == [(delivery["delivery_id"], 1, 0.0)]


def test_a_broker_outage_after_settling_leaves_the_deliveries_to_the_sweep(
    light: Any,
    record: Any,
    make_scan: Any,
    subscribe: Any,
    rows: Any,
    clock: Any,
    published: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError("broker")

    subscribe(light, events=("scan.completed",))
    ticket = record(light, make_scan())
    header(ticket, "csv")
    with monkeypatch.context() as patched:
        patched.setattr(notifications.deliver, "apply_async", refuse)
        with pytest.raises(BrokerUnavailable):
            notifications.start_deliveries([notifications.DeliveryTicket("d", 1)])
        finish_run.apply(([], ticket.run_id, 1)).get()
    assert rows(light, "runs")[0]["state"] == "done"
    assert sweep_once(light)["deliveries"] == 0
    clock.forward(61)
    assert sweep_once(light)["deliveries"] == 1
    assert [number for _, number, _ in published] == [1]


@pytest.mark.parametrize("writable", [False, True])
def test_a_ledger_that_stays_away_leaves_the_run_to_the_sweep(
    light: Any,
    record: Any,
    make_scan: Any,
    rows: Any,
    monkeypatch: pytest.MonkeyPatch,
    writable: bool,
) -> None:
    tries: list[int] = []

    @contextmanager
    def away() -> Iterator[None]:
        tries.append(1)
        raise LedgerUnavailable("ledger: database is locked")
        yield

    ticket = record(light, make_scan())
    task = finish_run.apply
    with monkeypatch.context() as outage:
        outage.setattr(light.ledger, "read", away)
        if writable:
            task(([{"csv": "ready"}], ticket.run_id, 1)).get()
            assert len(tries) == 1 + light.settings.task_max_retries
        else:
            outage.setattr(light.ledger, "write", away)
            with pytest.raises(LedgerUnavailable):
                task(([{"csv": "ready"}], ticket.run_id, 1)).get()
    (run,) = rows(light, "runs")
    assert run["state"] == "recorded"
    assert run["last_error"] == ("ledger: database is locked" if writable else None)


def test_a_run_that_nobody_knows_fails_loudly_in_the_body(parts: Any) -> None:
    with pytest.raises(NotFound):
        settle(parts, "gone", 1)


def test_a_broken_chord_lets_the_sweep_start_the_next_attempt_at_once(
    light: Any, record: Any, make_scan: Any, rows: Any, dispatched: list[RunTicket]
) -> None:
    ticket = record(light, make_scan())
    note_chord_error.apply(("failed-task",), {"run_id": ticket.run_id, "attempt": 1}).get()
    assert sweep_once(light)["runs"] == 1
    assert [item.attempt for item in dispatched] == [2]
    (run,) = rows(light, "runs")
    assert "killed by its time limit" in run["last_error"]


def test_a_broken_chord_of_an_old_attempt_changes_nothing(
    light: Any, record: Any, make_scan: Any, clock: Any, dispatched: list[RunTicket]
) -> None:
    ticket = record(light, make_scan())
    clock.forward(61)
    sweep_once(light)
    note_chord_error.apply(("failed-task",), {"run_id": ticket.run_id, "attempt": 1}).get()
    assert sweep_once(light)["runs"] == 0


def test_a_body_that_kills_its_worker_is_given_up_and_operators_are_told(
    parts: Any,
    record: Any,
    subscribe: Any,
    rows: Any,
    published: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Killed(BaseException):
        pass

    deaths = []

    def die(*_: Any) -> None:
        deaths.append(1)
        raise Killed

    subscribe(parts, "operator", events=("operator.alert",))
    ticket = record(parts, b'{"error":"DNS"}', type="scan.failed")
    monkeypatch.setattr(finish, "settle", die)
    limit = parts.settings.render_max_tries
    for _ in range(limit):
        with pytest.raises(Killed):
            finish.finish_run.apply(([], ticket.run_id, 1)).get()
    finish.finish_run.apply(([], ticket.run_id, 1)).get()
    assert len(deaths) == limit
    (run,) = rows(parts, "runs")
    assert run["state"] == "dead"
    assert f"{limit} starts of its body or fetch never ended" in run["last_error"]
    assert len(published) == 1

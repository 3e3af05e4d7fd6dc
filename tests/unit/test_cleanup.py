"""What is older than its retention is really deleted; what is in use stays."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs
from typer.testing import CliRunner

from cli.main import app
from schemas.audit import Audit
from schemas.errors import ArtifactsUnavailable, InvalidEvent
from schemas.runs import DeadEntry, Entry
from schemas.settings import load_settings
from store import tables
from store.audit import LedgerAudit
from store.decisions import read_decision
from store.events import record_dead
from tasks import cleanup
from tasks.cleanup import Limits, cleanup_old_notifications, cleanup_old_reports
from tasks.explaining import explain
from tasks.finish import settle
from tasks.monitoring import get_notification_stats
from tasks.notifications import try_delivery
from tasks.on_demand import (
    generate_multiple_reports_async,
    generate_report_async,
    render_on_demand,
)
from tasks.reports import render_formats
from tasks.schedule import beat_schedule

DAY = 86_400
NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


def clean_reports(days: int = 30) -> dict[str, Any]:
    found: dict[str, Any] = cleanup_old_reports.apply((days,)).get()
    return found


def clean_notifications(days: int = 30) -> dict[str, Any]:
    found: dict[str, Any] = cleanup_old_notifications.apply((days,)).get()
    return found


@pytest.fixture
def light(make_parts: Any) -> Any:
    """Two formats, and nothing kept for being the newest."""
    return make_parts(formats=("csv", "json"), keep_newest_scans=0)


@pytest.fixture
def report(light: Any, record: Any, make_scan: Any, rows: Any) -> Any:
    """Render a scan's reports; returns their files."""

    def render(number: int) -> list[Path]:
        ticket = record(light, make_scan(number))
        known = {row["report_id"] for row in rows(light, "reports")}
        render_formats(light, ticket.run_id, ticket.formats)
        settle(light, ticket.run_id, 1)
        return [Path(row["uri"]) for row in rows(light, "reports") if row["report_id"] not in known]

    return render


def test_old_reports_lose_their_files_and_say_so_and_young_ones_stay(
    light: Any, report: Any, rows: Any, clock: Any
) -> None:
    old = report(1)
    clock.forward(20 * DAY)
    young = report(2)
    clock.forward(11 * DAY)
    assert all(path.exists() for path in old + young)
    size = sum(path.stat().st_size for path in old)
    assert clean_reports() == {
        "status": "completed",
        "days": 30,
        "deleted_count": 2,
        "deleted_bytes": size,
    }
    assert not any(path.exists() for path in old)
    assert all(path.exists() for path in young)
    assert {(row["status"], row["uri"]) for row in rows(light, "reports")} == {
        ("expired", None),
        *(("ready", str(path)) for path in young),
    }
    assert clean_reports()["deleted_count"] == 0


def test_a_report_is_kept_to_the_last_day_of_its_retention(report: Any, clock: Any) -> None:
    files = report(1)
    clock.forward(7 * DAY)
    assert clean_reports(7)["deleted_count"] == 0
    clock.forward(1)
    assert clean_reports(7)["deleted_count"] == len(files) == 2


def test_more_reports_than_a_batch_are_all_deleted(
    report: Any, rows: Any, light: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "BATCH", 2)
    for number in (1, 2, 3):
        report(number)
    clock.forward(31 * DAY)
    assert clean_reports()["deleted_count"] == 6
    assert [row["artifact_key"] for row in rows(light, "reports")] == [None] * 6


def test_a_file_that_is_gone_already_does_not_stop_the_cleanup(
    light: Any, report: Any, rows: Any, clock: Any
) -> None:
    for path in report(1):
        path.unlink()
    clock.forward(31 * DAY)
    assert clean_reports()["deleted_count"] == 2
    assert {row["status"] for row in rows(light, "reports")} == {"expired"}


def test_a_store_that_is_away_keeps_the_keys_for_the_next_night(
    light: Any, report: Any, rows: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise ArtifactsUnavailable("no route")

    files = report(1)
    clock.forward(31 * DAY)
    with monkeypatch.context() as patched:
        patched.setattr(light.artifacts, "delete", fail)
        with pytest.raises(ArtifactsUnavailable):
            clean_reports()
    assert {row["status"] for row in rows(light, "reports")} == {"expired"}
    assert all(row["artifact_key"] for row in rows(light, "reports"))
    assert clean_reports()["deleted_count"] == 2
    assert not any(path.exists() for path in files)
    assert not any(row["artifact_key"] for row in rows(light, "reports"))


def test_a_report_made_again_while_the_cleanup_runs_keeps_its_file(
    light: Any, record: Any, make_scan: Any, rows: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = record(light, make_scan())
    render_formats(light, ticket.run_id, ticket.formats)
    settle(light, ticket.run_id, 1)
    clock.forward(31 * DAY)
    delete = light.artifacts.delete
    scan_id = json.loads(make_scan())["scan_id"]

    def delete_one_and_make_the_other(key: str) -> None:
        delete(key)
        other = "json" if key.endswith("csv") else "csv"
        generate_multiple_reports_async.apply((scan_id, [other])).get()

    monkeypatch.setattr(light.artifacts, "delete", delete_one_and_make_the_other)
    assert clean_reports()["deleted_count"] == 1
    assert sorted(row["status"] for row in rows(light, "reports")) == ["expired", "ready"]
    (ready,) = [row for row in rows(light, "reports") if row["status"] == "ready"]
    assert Path(ready["uri"]).exists()


def test_an_old_report_that_was_made_again_is_young(
    light: Any, record: Any, make_scan: Any, rows: Any, clock: Any
) -> None:
    ticket = record(light, make_scan())
    render_formats(light, ticket.run_id, ticket.formats)
    clock.forward(31 * DAY)
    scan_id = json.loads(make_scan())["scan_id"]
    generate_multiple_reports_async.apply((scan_id, list(ticket.formats))).get()
    assert clean_reports()["deleted_count"] == 0
    assert all(Path(row["uri"]).exists() for row in rows(light, "reports"))


@pytest.mark.parametrize("days", [0, -1])
@pytest.mark.parametrize("clean", [clean_reports, clean_notifications])
def test_todays_work_is_not_deleted_by_a_slip_of_the_hand(
    parts: Any, clean: Any, days: int
) -> None:
    with pytest.raises(ValueError, match="days must be 1 or more"):
        clean(days)


def test_old_settled_deliveries_go_with_their_attempts_and_figures(
    light: Any, record: Any, subscribe: Any, rows: Any, clock: Any
) -> None:
    subscribe(light)
    event = record(light, b'{"error":"DNS"}', type="scan.failed", id="1")
    (sent,) = settle(light, event.run_id, 1)
    try_delivery(light, sent)
    waiting = record(light, b'{"error":"DNS"}', type="scan.failed", id="2")
    (pending,) = settle(light, waiting.run_id, 1)
    get_notification_stats.apply().get()
    clock.forward(31 * DAY)
    young = record(light, b'{"error":"DNS"}', type="scan.failed", id="3")
    (fresh,) = settle(light, young.run_id, 1)
    try_delivery(light, fresh)
    cleaned = clean_notifications()
    assert (cleaned["status"], cleaned["days"], cleaned["deleted_count"]) == ("completed", 30, 1)
    left = {row["delivery_id"]: row["state"] for row in rows(light, "deliveries")}
    assert left == {pending.delivery_id: "pending", fresh.delivery_id: "sent"}
    assert {row["delivery_id"] for row in rows(light, "attempts")} == {fresh.delivery_id}
    assert rows(light, "statistics") == []


def test_more_deliveries_than_a_batch_are_all_deleted(
    light: Any,
    record: Any,
    subscribe: Any,
    rows: Any,
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cleanup, "BATCH", 2)
    subscribe(light, paused=True)
    for number in range(5):
        event = record(light, b"{}", type="scan.failed", id=str(number))
        settle(light, event.run_id, 1)
    clock.forward(31 * DAY)
    assert clean_notifications()["deleted_count"] == 5
    assert rows(light, "deliveries") == []


def test_a_replay_of_a_cleaned_event_still_wakes_nobody(
    light: Any, record: Any, make_scan: Any, subscribe: Any, rows: Any, clock: Any
) -> None:
    subscribe(light, paused=True)
    first = record(light, make_scan(), id="1")
    render_formats(light, first.run_id, first.formats)
    settle(light, first.run_id, 1)
    clock.forward(31 * DAY)
    clean_notifications()
    again = record(light, make_scan(), id="2")
    render_formats(light, again.run_id, again.formats)
    assert settle(light, again.run_id, 1) == []
    assert rows(light, "deliveries") == []


# In use


def tell(parts: Any, ticket: Any) -> list[Any]:
    """Render and settle a run; returns its deliveries' tries."""
    render_formats(parts, ticket.run_id, ticket.formats)
    return settle(parts, ticket.run_id, 1)


def test_the_newest_scans_of_each_domain_keep_their_reports_however_old(
    make_parts: Any, record: Any, make_scan: Any, rows: Any, clock: Any
) -> None:
    parts = make_parts(formats=("csv",), keep_newest_scans=2)
    for number in (1, 2, 3, 4):
        tell(parts, record(parts, make_scan(number)))
    tell(parts, record(parts, make_scan(5, domain="other.example")))
    clock.forward(400 * DAY)
    assert clean_reports()["deleted_count"] == 2
    ready = [row["scan_id"][-1] for row in rows(parts, "reports") if row["status"] == "ready"]
    assert ready == ["3", "4", "5"]


def test_a_report_is_in_use_while_a_run_of_its_scan_is(
    light: Any, record: Any, make_scan: Any, rows: Any, clock: Any
) -> None:
    ticket = record(light, make_scan())
    render_formats(light, ticket.run_id, ticket.formats)
    clock.forward(1000 * DAY)
    assert clean_reports()["deleted_count"] == 0
    settle(light, ticket.run_id, 1)
    assert clean_reports()["deleted_count"] == 2


@pytest.mark.parametrize("state", ["pending", "held", "sending"])
def test_a_report_is_in_use_while_a_delivery_that_tells_of_its_scan_is(
    light: Any, record: Any, make_scan: Any, subscribe: Any, clock: Any, state: str
) -> None:
    subscribe(light)
    tell(light, record(light, make_scan()))
    with light.ledger.write() as connection:
        connection.execute(update(tables.deliveries).values(state=state))
    clock.forward(1000 * DAY)
    assert clean_reports(1)["deleted_count"] == 0
    assert clean_notifications(1)["deleted_count"] == 0
    with light.ledger.write() as connection:
        connection.execute(update(tables.deliveries).values(state="sent", settled_at=clock()))
    assert clean_reports(1)["deleted_count"] == 2


# What was said


def test_what_notifications_said_goes_with_their_last_delivery_and_their_keys_stay(
    light: Any, record: Any, subscribe: Any, rows: Any, clock: Any
) -> None:
    subscribe(light)
    sent, waiting = (
        tell(light, record(light, b'{"error":"DNS"}', type="scan.failed", id=name))[0]
        for name in ("sent", "waiting")
    )
    try_delivery(light, sent)
    clock.forward(31 * DAY)
    found = cleanup.clean_notifications(light, 30, Limits(dry_run=True))
    assert found.counts == {"deliveries": 1, "contents": 1, "replays": 0, "figures": 0}
    assert clean_notifications()["deleted_bytes"] == found.size > 0
    said = {row["event_key"]: bool(row["content"]) for row in rows(light, "notifications")}
    assert sorted(said.values()) == [False, True]
    try_delivery(light, waiting)  # what it says is there
    assert rows(light, "deliveries")[0]["state"] == "sent"


def test_why_still_answers_when_what_was_said_is_deleted(
    light: Any, record: Any, subscribe: Any, clock: Any
) -> None:
    subscribe(light)
    ticket = record(light, b'{"error":"DNS"}', type="scan.failed", id="1")
    try_delivery(light, tell(light, ticket)[0])
    clock.forward(31 * DAY)
    clean_notifications()
    with light.ledger.read() as connection:
        decision = read_decision(connection, "anna", "1")
    (news,) = decision.news
    assert news.notification.title == "(what it said has been deleted)"
    assert "delivery" not in {
        step.about for step in explain(decision, clock(), light.settings) if step.delivery_id
    }


# Scans and events


def clean_scans(parts: Any, scans: int = 0, events: int = 0, **limits: Any) -> Any:
    return cleanup.clean_scans(parts, scans, events, Limits(**limits))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first history is kept for the other tests: making one costs a second."""
    return tmp_path_factory.mktemp("history") / "data"


@pytest.fixture
def history(light: Any, record: Any, make_scan: Any, clock: Any, kept: Path) -> None:
    """A scan of one domain every day, for ten days."""
    if kept.exists():
        shutil.copytree(kept, light.settings.data_dir, dirs_exist_ok=True)
        clock.forward(10 * DAY)
        light.new_id = lambda: str(uuid.uuid4())
        return
    for number in range(1, 11):
        data = make_scan(number, timestamp_utc=clock().isoformat())
        tell(light, record(light, data, id=f"scan-{number}"))
        clock.forward(DAY)
    light.ledger.close()
    shutil.copytree(light.settings.data_dir, kept)


def with_bytes(rows: Any, parts: Any) -> list[int]:
    return [row["event_pk"] for row in rows(parts, "events") if row["payload"] is not None]


def test_scans_lose_their_bytes_but_those_that_the_next_ones_are_compared_with(
    light: Any, history: None, rows: Any, clock: Any
) -> None:
    clock.forward(400 * DAY)
    expected = clean_scans(light, 30, dry_run=True)
    cleaned = clean_scans(light, 30)
    assert (cleaned.counts, cleaned.size) == (expected.counts, expected.size)
    assert cleaned.counts == {"scans": 6}
    # three that an anomaly compares, and one that the oldest of them was compared with
    assert with_bytes(rows, light) == [7, 8, 9, 10]
    assert [row["score"] is not None for row in rows(light, "scans")] == [True] * 10
    assert clean_scans(light, 30).counts == {"scans": 0}


def test_the_scan_before_a_young_one_keeps_its_bytes_so_that_the_report_comes_out_the_same(
    light: Any, history: None, rows: Any, clock: Any
) -> None:
    reports = {row["report_id"]: row["sha256"] for row in rows(light, "reports")}
    assert clean_scans(light, 5).counts == {"scans": 4}  # recorded 10 to 7 days ago, and 6
    assert with_bytes(rows, light) == [5, 6, 7, 8, 9, 10]
    for number in (6, 7, 8, 9, 10):
        scan_id = f"00000000-0000-0000-0000-0000000a{number:04x}"
        made = generate_report_async.apply((scan_id, "json")).get()
        assert made["status"] == "completed"
    assert {row["report_id"]: row["sha256"] for row in rows(light, "reports")} == reports


def test_a_scan_without_bytes_says_why_it_is_not_rendered(
    light: Any, history: None, clock: Any
) -> None:
    clean_scans(light, 5)
    first, fifth = (f"00000000-0000-0000-0000-0000000a{number:04x}" for number in (1, 5))
    with pytest.raises(InvalidEvent, match="has been deleted, as its retention says"):
        render_on_demand(light, first)
    failures = render_on_demand(light, fifth).failures
    assert "the scan before" in next(iter(failures.values()))


def test_an_unfinished_run_keeps_its_bytes_and_those_it_is_compared_with(
    light: Any, history: None, rows: Any, clock: Any, record: Any, make_scan: Any
) -> None:
    late = record(light, make_scan(50, timestamp_utc=NOON.isoformat()), id="late")
    clock.forward(400 * DAY)
    clean_scans(light, 30)
    assert 11 in with_bytes(rows, light)
    tell(light, late)
    clean_scans(light, 30)
    assert 11 not in with_bytes(rows, light)


def test_a_record_is_reduced_to_its_identity_and_a_repeat_of_it_stays_a_repeat(
    light: Any, history: None, rows: Any, clock: Any, record: Any, make_scan: Any
) -> None:
    clock.forward(400 * DAY)
    assert clean_scans(light, 0, 365).counts == {"events": 0}  # their artifacts are there still
    clean_reports()
    expected = clean_scans(light, 30, 365, dry_run=True)
    cleaned = clean_scans(light, 30, 365)
    assert (cleaned.counts, cleaned.size) == (expected.counts, expected.size)
    assert cleaned.counts == {"events": 6, "scans": 0}
    first = rows(light, "events")[0]
    assert (first["event_id"], first["outcome"], first["payload"]) == ("scan-1", "expired", None)
    assert (first["subject"], first["payload_sha256"]) == (None, "")
    assert len(rows(light, "runs")) == len(rows(light, "scans")) == 4
    assert len(rows(light, "reports")) == 8
    assert audited(light) == ("clean", 6)
    with pytest.raises(IndexError):  # no ticket: nothing new was recorded
        record(light, make_scan(1), id="scan-1")
    assert rows(light, "events")[0]["seen"] == 2
    assert audited(light) == ("clean", 6)


def test_an_old_dead_letter_loses_its_content_and_its_reason(
    light: Any, rows: Any, clock: Any
) -> None:
    letter = DeadEntry(Entry("scans:events", "9-0", {b"data": b"{"}), "not JSON")
    with light.ledger.write() as connection:
        record_dead(connection, letter, clock())
    clock.forward(366 * DAY)
    assert clean_scans(light, 0, 365).counts == {"events": 1}
    (row,) = rows(light, "events")
    assert (row["payload"], row["outcome"], row["entry_id"]) == (None, "expired", "9-0")


def audited(parts: Any) -> tuple[str, int]:
    """The audit's word, and how many events have expired."""
    audit = Audit()
    told = LedgerAudit(
        parts.ledger,
        audit,
        since=None,
        overdue_before=NOON,
        progress=lambda _part, _done: None,
    )
    told.events()
    told.runs()
    told.reports(parts.artifacts)
    told.deliveries()
    assert audit.gaps == []
    return audit.status, audit.sums["events"]["expired"]


# Bounds


def test_a_dry_run_counts_what_the_cleanup_does_and_changes_nothing(
    light: Any, report: Any, rows: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "BATCH", 2)
    files = [path for number in (1, 2, 3) for path in report(number)]
    clock.forward(31 * DAY)
    before = {name: rows(light, name) for name in ("reports", "events", "notifications")}
    found = cleanup.clean_reports(light, 30, Limits(dry_run=True))
    assert found.counts == {"reports": 6}
    assert found.size == sum(path.stat().st_size for path in files)
    assert {name: rows(light, name) for name in before} == before
    assert all(path.exists() for path in files)
    cleaned = cleanup.clean_reports(light, 30)
    assert (cleaned.counts, cleaned.size) == (found.counts, found.size)


def test_a_cleanup_whose_time_is_out_says_so_and_the_next_one_goes_on(
    light: Any, report: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "BATCH", 2)
    for number in (1, 2, 3):
        report(number)
    clock.forward(31 * DAY)
    delete = light.artifacts.delete

    def slow(key: str) -> None:
        delete(key)
        clock.forward(100)

    monkeypatch.setattr(light.artifacts, "delete", slow)
    first = clean_reports()
    assert (first["status"], first["deleted_count"]) == ("partial", 2)
    monkeypatch.setattr(light.artifacts, "delete", delete)
    assert clean_reports()["deleted_count"] == 4


def test_beat_cleans_by_the_settings_and_what_is_kept_for_ever_has_no_entry() -> None:
    given = beat_schedule(
        load_settings(reports_retention_days=7, events_retention_days=900, scans_retention_days=0)
    )
    assert given["cleanup-old-reports"]["kwargs"] == {"days": 7}
    assert given["cleanup-old-notifications"]["kwargs"] == {"days": 30}
    assert given["cleanup-old-scans"]["kwargs"] == {"scans_days": 0, "events_days": 900}
    kept = beat_schedule(
        load_settings(
            reports_retention_days=0, notifications_retention_days=0, scans_retention_days=0
        )
    )
    assert not [name for name in kept if name.startswith("cleanup")]


# By command


@pytest.fixture
def run(light: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(light.settings.data_dir))
    monkeypatch.setenv("SCANHERALD_KEEP_NEWEST_SCANS", "0")
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr("tasks.logs.configure_logs", lambda _: None)  # the process's stay as set
    with capture_logs():
        yield lambda *arguments: CliRunner().invoke(app, ["cleanup", *arguments])


def test_the_command_counts_first_and_then_does_the_same(
    run: Any, light: Any, report: Any, rows: Any
) -> None:
    files = report(1)  # long ago, by the command's clock
    size = sum(path.stat().st_size for path in files)
    dry = json.loads(run("--dry-run", "--json").stdout)
    assert dry["dry_run"]
    found = {part["part"]: part for part in dry["parts"]}
    assert list(found) == ["orphans", "notifications", "scans", "reports"]  # events: for ever
    assert found["reports"] == {"part": "reports", "days": 30, "reports": 2, "bytes": size}
    assert all(path.exists() for path in files)
    done = json.loads(run("--json").stdout)
    assert done["parts"] == dry["parts"]
    assert not any(path.exists() for path in files)
    assert "reports older than 7 days: 0 reports, 0 bytes" in run("reports", "--days", "7").stdout


def test_the_command_refuses_what_it_cannot_mean(run: Any) -> None:
    assert "SCANHERALD_EVENTS_RETENTION_DAYS is 0" in str(run("events").exception)
    assert "--days needs a part" in str(run("--days", "3").exception)
    assert "--days needs a part" in str(run("orphans", "--days", "3").exception)
    assert run("reports", "--days", "0").exit_code == 2

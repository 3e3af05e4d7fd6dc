"""What is older than its retention is really deleted; what is in use stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ArtifactsUnavailable
from tasks import cleanup
from tasks.cleanup import cleanup_old_notifications, cleanup_old_reports
from tasks.finish import settle
from tasks.monitoring import get_notification_stats
from tasks.notifications import try_delivery
from tasks.on_demand import generate_multiple_reports_async
from tasks.reports import render_formats

DAY = 86_400


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

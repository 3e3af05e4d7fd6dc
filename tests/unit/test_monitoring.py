"""Figures and health from real records, and questions to a broker in memory."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError

from schemas.errors import ChannelUnavailable, LedgerUnavailable
from schemas.notifications import ChannelKind
from tasks import (
    get_celery_monitor,
    get_notification_stats,
    get_task_statistics,
    monitor_celery_health,
    monitor_notification_health,
)
from tasks.app import QUEUES, ROUTES
from tasks.cleanup import cleanup_old_reports
from tasks.finish import settle
from tasks.monitoring import INSPECT_TIMEOUT_S
from tasks.notifications import try_delivery
from tasks.reports import render_formats

PUBLIC = {
    "generate_report_async",
    "generate_multiple_reports_async",
    "export_scan_to_csv_async",
    "cleanup_old_reports",
    "send_notification_async",
    "send_event_notifications_async",
    "send_bulk_notifications_async",
    "cleanup_old_notifications",
    "monitor_celery_health",
    "monitor_notification_health",
    "get_notification_stats",
    "get_task_statistics",
}

STATS = {
    "worker@one": {
        "pid": 17,
        "pool": {"max-concurrency": 2},
        "total": {"generate_report_async": 5},
        "uptime": 60,
    }
}


@pytest.fixture
def workers(broker: Any, join: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the workers answer."""
    answers: dict[str, Any] = {"stats": STATS, "scheduled": {"worker@one": []}}

    def inspect(timeout: float) -> Any:
        assert timeout == INSPECT_TIMEOUT_S

        def answer(name: str) -> Any:
            if isinstance(answers[name], Exception):
                raise answers[name]
            return answers[name]

        return SimpleNamespace(stats=lambda: answer("stats"), scheduled=lambda: answer("scheduled"))

    monkeypatch.setattr(broker.control, "inspect", inspect)
    return answers


def test_workers_that_answer_are_counted(parts: Any, workers: dict[str, Any]) -> None:
    assert get_celery_monitor().get_worker_stats() == {
        "total_workers": 1,
        "workers": {
            "worker@one": {
                "pid": 17,
                "concurrency": 2,
                "total_tasks": {"generate_report_async": 5},
                "uptime_s": 60,
            }
        },
    }
    workers["stats"] = None
    assert get_celery_monitor().get_worker_stats()["total_workers"] == 0


def test_queues_are_counted_by_what_waits_in_them(parts: Any, broker: Any) -> None:
    monitor = get_celery_monitor()
    assert monitor.get_queue_stats() == {
        "queues": dict.fromkeys(QUEUES, 0),
        "total_messages": 0,
    }
    cleanup_old_reports.apply_async()
    cleanup_old_reports.apply_async(queue="reports")
    cleanup_old_reports.apply_async(queue="reports")
    assert monitor.get_queue_stats() == {
        "queues": {"default": 1, "reports": 2, "notifications": 0},
        "total_messages": 3,
    }


def test_purging_a_named_queue_purges_that_queue_only(parts: Any, broker: Any) -> None:
    monitor = get_celery_monitor()
    for queue in QUEUES:
        cleanup_old_reports.apply_async(queue=queue)
    assert monitor.purge_queue("reports") == {"queues": {"reports": 1}, "purged": 1}
    assert monitor.get_queue_stats()["queues"] == {"default": 1, "reports": 0, "notifications": 1}
    assert monitor.purge_queue() == {
        "queues": {"default": 1, "reports": 0, "notifications": 1},
        "purged": 2,
    }
    assert monitor.get_queue_stats()["total_messages"] == 0


def test_purging_a_queue_that_is_none_of_ours_is_refused(parts: Any, broker: Any) -> None:
    with pytest.raises(ValueError, match="no queue 'celery'"):
        get_celery_monitor().purge_queue("celery")


def test_the_public_tasks_are_registered_under_exactly_their_names(parts: Any, broker: Any) -> None:
    registered = get_celery_monitor().get_registered_tasks()
    assert set(registered) >= PUBLIC
    assert {name for name in registered if not name.startswith("scanherald.")} == PUBLIC
    assert set(ROUTES) <= set(registered)


def test_scheduled_tasks_are_what_workers_hold_and_beats_schedule(
    parts: Any, workers: dict[str, Any]
) -> None:
    found = get_celery_monitor().get_scheduled_tasks()
    assert found["workers"] == {"worker@one": []}
    assert set(found["beat"]) == {
        "sweep",
        "monitor-celery-health",
        "monitor-notification-health",
        "get-notification-stats",
        "get-task-statistics",
        "cleanup-old-notifications",
        "cleanup-old-scans",
        "cleanup-old-reports",
        "sweep-orphans",
        "sweep-leftovers",
    }
    registered = set(get_celery_monitor().get_registered_tasks())
    assert {entry["task"] for entry in found["beat"].values()} <= registered


def test_one_answer_holds_all_of_it(parts: Any, workers: dict[str, Any]) -> None:
    found = get_celery_monitor().get_comprehensive_status()
    assert set(found) == {"workers", "queues", "registered_tasks", "scheduled"}
    assert found["workers"]["total_workers"] == 1


def test_a_task_is_revoked_and_only_on_demand_terminated(
    parts: Any, broker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def revoke(task_id: str, *, terminate: bool) -> None:
        asked.append((task_id, terminate))

    monkeypatch.setattr(broker.control, "revoke", revoke)
    monitor = get_celery_monitor()
    assert monitor.revoke_task("t-1") == {
        "task_id": "t-1",
        "revoked": True,
        "terminated": False,
    }
    assert monitor.revoke_task("t-2", terminate=True)["terminated"] is True
    assert asked == [("t-1", False), ("t-2", True)]


def test_a_stored_result_is_celerys_word(parts: Any, broker: Any) -> None:
    broker.backend.store_result("t-1", {"deleted_count": 3}, "SUCCESS")
    broker.backend.store_result("t-2", ValueError("days must be 1 or more"), "FAILURE")
    monitor = get_celery_monitor()
    assert monitor.get_task_status("t-1") == {
        "task_id": "t-1",
        "state": "SUCCESS",
        "source": "celery",
        "result": {"deleted_count": 3},
    }
    failed = monitor.get_task_status("t-2")
    assert failed["state"] == "FAILURE"
    assert failed["result"] == "days must be 1 or more"


def test_what_celery_does_not_know_the_ledger_may(
    parts: Any, broker: Any, record: Any, subscribe: Any, published: list[Any]
) -> None:
    subscribe(parts)
    run = record(parts, b'{"error":"DNS"}', type="scan.failed")
    monitor = get_celery_monitor()
    assert monitor.get_task_status(f"{run.run_id}:finish:a1") == {
        "task_id": f"{run.run_id}:finish:a1",
        "source": "ledger",
        "kind": "run",
        "state": "recorded",
        "attempt": 1,
        "error": None,
    }
    (delivery,) = settle(parts, run.run_id, 1)
    parts.channel(ChannelKind.WEBHOOK).script = [ChannelUnavailable("503")]
    try_delivery(parts, delivery)
    found = monitor.get_task_status(f"{delivery.delivery_id}:a1")
    assert (found["kind"], found["state"], found["error"]) == ("delivery", "pending", "503")


def test_what_nobody_knows_is_pending(parts: Any, broker: Any) -> None:
    assert get_celery_monitor().get_task_status("unheard-of") == {
        "task_id": "unheard-of",
        "state": "PENDING",
        "source": "celery",
    }


def test_a_service_with_workers_is_healthy_and_its_figures_are_kept(
    parts: Any, workers: dict[str, Any], record: Any, make_scan: Any, rows: Any, clock: Any
) -> None:
    record(parts, make_scan())
    clock.forward(90)
    found = monitor_celery_health.apply().get()
    assert (found["status"], found["problems"]) == ("healthy", [])
    assert found["workers"]["total_workers"] == 1
    assert found["queues"]["total_messages"] == 0
    assert found["runs"] == {"recorded": 1}
    assert found["oldest_unfinished_run_s"] == 90.0
    assert found["ledger_ms"] >= 0
    (kept,) = rows(parts, "statistics")
    assert (kept["kind"], kept["figures"]) == ("celery_health", found)


def test_without_workers_the_service_is_unhealthy(parts: Any, workers: dict[str, Any]) -> None:
    workers["stats"] = None
    found = monitor_celery_health.apply().get()
    assert (found["status"], found["problems"]) == ("unhealthy", ["no worker answers"])


@pytest.mark.parametrize(
    "fault",
    [
        OperationalError("refused"),
        ConnectionRefusedError("refused"),
        RedisConnectionError("refused"),
    ],
    ids=["kombu's", "the system's", "the client's own"],
)
def test_a_broker_that_is_away_is_a_finding_and_no_crash(
    parts: Any, workers: dict[str, Any], rows: Any, fault: Exception
) -> None:
    workers["stats"] = fault
    found = monitor_celery_health.apply().get()
    assert found["status"] == "unhealthy"
    assert found["problems"] == [f"broker: {type(fault).__name__}: refused"]
    assert found["runs"] == {}
    assert len(rows(parts, "statistics")) == 1


def test_a_ledger_that_is_away_is_a_finding_and_no_crash(
    parts: Any, workers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> Any:
        raise LedgerUnavailable("ledger: database is locked")

    monkeypatch.setattr(parts.ledger, "read", away)
    monkeypatch.setattr(parts.ledger, "write", away)
    for task in (monitor_celery_health, monitor_notification_health):
        found = task.apply().get()
        assert (found["status"], found["problems"]) == (
            "unhealthy",
            ["ledger: database is locked"],
        )


def test_notification_health_counts_preferences_and_deliveries(
    parts: Any, record: Any, subscribe: Any, rows: Any, clock: Any
) -> None:
    subscribe(parts, "anna")
    subscribe(parts, "paul", paused=True)
    event = record(parts, b'{"error":"DNS"}', type="scan.failed")
    settle(parts, event.run_id, 1)
    found = monitor_notification_health.apply().get()
    assert found["status"] == "healthy"
    assert found["supported_channels"] == ["email", "webhook", "slack", "apprise"]
    assert "scan.failed" in found["supported_events"]
    assert found["active_preferences"] == 1
    assert found["deliveries"] == {"webhook.pending": 1, "webhook.suppressed": 1}
    assert found["overdue"] == 0
    clock.forward(301)
    late = monitor_notification_health.apply().get()
    assert (late["status"], late["overdue"]) == ("unhealthy", 1)
    assert [row["kind"] for row in rows(parts, "statistics")] == ["notification_health"] * 2


def test_notification_figures_are_those_of_the_last_day(
    parts: Any, record: Any, subscribe: Any, rows: Any, clock: Any, published: list[Any]
) -> None:
    subscribe(parts)
    for number, script in enumerate(([], [ChannelUnavailable("503")])):
        event = record(parts, b"{}", type="scan.failed", id=str(number))
        (delivery,) = settle(parts, event.run_id, 1)
        parts.channel(ChannelKind.WEBHOOK).script = list(script)
        try_delivery(parts, delivery)
    found = get_notification_stats.apply().get()
    assert found["hours"] == 24
    assert found["deliveries"] == {"webhook": {"sent": 1, "pending": 1}}
    assert found["attempts"] == {"sent": 1, "retry": 1}
    assert set(found["send_ms"]["webhook"]) == {"p50", "p95", "p99"}
    (kept,) = rows(parts, "statistics")
    assert kept["kind"] == "notifications"
    assert kept["figures"]["attempts"] == found["attempts"]
    clock.forward(25 * 3600)
    assert get_notification_stats.apply().get()["deliveries"] == {}


def test_task_statistics_count_events_runs_and_reports(
    make_parts: Any, record: Any, make_scan: Any, rows: Any, clock: Any
) -> None:
    parts = make_parts(formats=("csv",))
    record(parts, b'{"error":"DNS"}', type="scan.failed")
    clock.forward(7200)
    ticket = record(parts, make_scan())
    render_formats(parts, ticket.run_id, ticket.formats)
    settle(parts, ticket.run_id, 1)
    found = get_task_statistics.apply((1,)).get()
    assert found["hours"] == 1
    assert found["events"] == {"scan.completed": 1}
    assert found["runs"] == {"done": 1}
    assert found["scans_judged"] == 1
    assert 0 <= found["mean_score"] <= 100
    assert found["reports"]["csv"]["by_status"] == {"ready": 1}
    assert set(found["reports"]["csv"]["render_ms"]) == {"p50", "p95", "p99"}
    day = get_task_statistics.apply().get()
    assert day["events"] == {"scan.completed": 1, "scan.failed": 1}
    assert [row["figures"]["hours"] for row in rows(parts, "statistics")] == [1, 24]

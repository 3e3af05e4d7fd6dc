"""What beat starts, and when (UTC).  Each entry does real work on real records."""

from __future__ import annotations

from typing import Any

from celery.schedules import crontab

from schemas.settings import Settings

UNSTORED = {"ignore_result": True}
"""Nobody awaits these; a stored result would be a subscription in beat for each."""


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """Celery's ``beat_schedule``.  What is kept for ever has no entry."""
    schedule = {
        "sweep": _entry("scanherald.sweep", settings.sweep_interval_s),
        "monitor-celery-health": _entry("monitor_celery_health", 300.0),
        "monitor-notification-health": _entry("monitor_notification_health", 600.0),
        "get-notification-stats": _entry("get_notification_stats", crontab(minute="0")),
        "get-task-statistics": _entry("get_task_statistics", crontab(minute="0", hour="*/6")),
        "sweep-leftovers": _entry("scanherald.sweep_leftovers", crontab(minute="30", hour="3")),
        "sweep-orphans": _entry("scanherald.sweep_orphans", crontab(minute="0", hour="4")),
    }
    if days := settings.notifications_retention_days:
        schedule["cleanup-old-notifications"] = _entry(
            "cleanup_old_notifications", crontab(minute="0", hour="2"), days=days
        )
    if settings.scans_retention_days or settings.events_retention_days:
        schedule["cleanup-old-scans"] = _entry(
            "scanherald.cleanup_scans",
            crontab(minute="30", hour="2"),
            scans_days=settings.scans_retention_days,
            events_days=settings.events_retention_days,
        )
    if days := settings.reports_retention_days:
        schedule["cleanup-old-reports"] = _entry(
            "cleanup_old_reports", crontab(minute="0", hour="3"), days=days
        )
    return schedule


def _entry(task: str, schedule: Any, **arguments: int) -> dict[str, Any]:
    return {
        "task": task,
        "schedule": schedule,
        "kwargs": arguments,
        "options": dict(UNSTORED),
    }

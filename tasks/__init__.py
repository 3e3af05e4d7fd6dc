"""The Celery application and its tasks, importable by their public names."""

from tasks.app import app
from tasks.cleanup import cleanup_old_notifications, cleanup_old_reports
from tasks.direct import (
    send_bulk_notifications_async,
    send_event_notifications_async,
    send_notification_async,
)
from tasks.monitoring import (
    get_celery_monitor,
    get_notification_stats,
    get_task_statistics,
    monitor_celery_health,
    monitor_notification_health,
)
from tasks.on_demand import (
    export_scan_to_csv_async,
    generate_multiple_reports_async,
    generate_report_async,
)

celery = app  # the name that ``celery -A tasks`` finds, whatever submodules are called

__all__ = [
    "app",
    "celery",
    "cleanup_old_notifications",
    "cleanup_old_reports",
    "export_scan_to_csv_async",
    "generate_multiple_reports_async",
    "generate_report_async",
    "get_celery_monitor",
    "get_notification_stats",
    "get_task_statistics",
    "monitor_celery_health",
    "monitor_notification_health",
    "send_bulk_notifications_async",
    "send_event_notifications_async",
    "send_notification_async",
]

"""The Celery application and its settings, each with its reason.

Nothing here opens a connection.  The environment is read at the first use of
the configuration, because ``celery -A tasks`` gives us no earlier moment.
"""

from __future__ import annotations

import gc
from typing import Any

import structlog
from billiard.common import REMAP_SIGTERM
from celery import Celery
from celery.app import backends
from celery.signals import (
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
)
from kombu import Queue

from schemas.settings import Settings
from tasks import wiring
from tasks.engines import engine_settings
from tasks.logs import configure_logs
from tasks.priorities import priorities_of
from tasks.schedule import beat_schedule

log = structlog.get_logger("tasks.app")

RENDER_REPORT = "scanherald.render_report"
FINISH_RUN = "scanherald.finish_run"
RENDER_AND_FINISH = "scanherald.render_and_finish"
NOTE_CHORD_ERROR = "scanherald.note_chord_error"
FETCH_DATA = "scanherald.fetch_data"
DELIVER = "scanherald.deliver"
SWEEP = "scanherald.sweep"
SWEEP_LEFTOVERS = "scanherald.sweep_leftovers"
SWEEP_ORPHANS = "scanherald.sweep_orphans"
CLEANUP_SCANS = "scanherald.cleanup_scans"

ROUTES = {
    RENDER_REPORT: {"queue": "reports"},
    RENDER_AND_FINISH: {"queue": "reports"},
    FETCH_DATA: {"queue": "reports"},
    "generate_report_async": {"queue": "reports"},
    "generate_multiple_reports_async": {"queue": "reports"},
    "export_scan_to_csv_async": {"queue": "reports"},
    FINISH_RUN: {"queue": "notifications"},
    NOTE_CHORD_ERROR: {"queue": "notifications"},
    DELIVER: {"queue": "notifications"},
    "send_notification_async": {"queue": "notifications"},
    "send_event_notifications_async": {"queue": "notifications"},
    "send_bulk_notifications_async": {"queue": "notifications"},
}
"""Everything else (sweep, monitoring, maintenance) goes to ``default``."""

QUEUES = ("default", "reports", "notifications")


def celery_settings(settings: Settings) -> dict[str, Any]:
    """Celery's configuration for these settings."""
    priorities = priorities_of(settings.broker_url)
    return {
        **engine_settings(settings),
        # A worker starts before its broker and waits for it.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_queues": [Queue(name, max_priority=priorities.max_priority) for name in QUEUES],
        # Messages that say nothing are as urgent as those of live scans; replays ask to wait.
        "task_default_priority": priorities.live,
        "task_default_queue": "default",
        "task_routes": ROUTES,
        # A task is acknowledged when it is done, and comes back when its worker died.
        # A counter in the ledger before the work bounds how often.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # A worker takes one task ahead at most: a long report must not hold others behind it.
        "worker_prefetch_multiplier": 1,
        # A deduplicated header task would not be counted in its chord.
        "worker_deduplicate_successful_tasks": False,
        # A worker cut off from the broker stops what will be given to another one.
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        # On SIGTERM finish what is in hand for this long, then hand it back.
        "worker_soft_shutdown_timeout": 30.0,
        "task_time_limit": settings.task_time_limit_s,
        "task_soft_time_limit": settings.task_soft_time_limit_s,
        "task_track_started": False,
        "result_expires": settings.result_expires_s,
        # A result that cannot be stored now is stored a moment later, or a chord would hang.
        "result_backend_always_retry": True,
        "result_backend_max_retries": 30,
        # Only JSON: a message is data, never code.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "timezone": "UTC",
        "enable_utc": True,
        # Our log setup is the only one.
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        # Monitors see tasks when they ask for events (-E); nobody pays for it otherwise.
        "worker_send_task_events": settings.task_events,
        "task_send_sent_event": settings.task_events,
        # Both say from their own loop that it comes round: see `scanherald health`.
        "worker_consumer": "tasks.worker_heart:BeatingConsumer",
        # Two beats do no double work either, and none forgets when it ticked last.
        "beat_scheduler": "tasks.beat_heart:BeatingScheduler",
        "beat_max_loop_interval": 10,
        "beat_schedule": beat_schedule(settings),
    }


class _App(Celery):
    """Celery, but for its own look at CELERY_RESULT_BACKEND, which would win over our settings."""

    def _get_backend(self) -> Any:
        chosen = self.backend_cls or self.conf["result_backend"]
        by_url: Any = backends.by_url  # its types do not know that it gives the URL too
        backend, url = by_url(chosen, self.loader)
        return backend(app=self, url=url)


app = _App(
    "scanherald",
    events="tasks.events:PromptEvents",
    include=[
        "tasks.reports",
        "tasks.on_demand",
        "tasks.finish",
        "tasks.one_task",
        "tasks.fetch",
        "tasks.notifications",
        "tasks.direct",
        "tasks.sweep",
        "tasks.cleanup",
        "tasks.leftovers",
        "tasks.orphans",
        "tasks.monitoring",
        "tasks.task_log",
        "tasks.newer",
    ],
)
app.add_defaults(lambda: celery_settings(wiring.settings()))


def publish_only() -> None:
    """Make this process a publisher that never awaits results.

    Celery's Redis backend subscribes to every result at publish and never lets
    go: 4,000 chords held 16,000 channels and 73 MB.  A listener or beat has no
    use for that; where ``.delay(…).get()`` is called the usual backend stays.
    """
    url = str(engine_settings(wiring.settings())["result_backend"])
    kind = {"redis": "Backend", "rediss": "Backend", "sentinel": "SentinelBackend"}
    scheme = url.partition("://")[0]
    if scheme in kind:
        app.backend_cls = f"tasks.results:SubscriptionFree{kind[scheme]}+{url}"


@setup_logging.connect
def _our_logs_only(**_: Any) -> None:
    configure_logs(wiring.settings())


@worker_ready.connect
def _say_how_it_stops(**_: Any) -> None:
    """Of ``celery -A tasks worker``: Celery has read the variable before it reads us.

    ``scanherald worker`` sets it, and so does everything in deploy/.
    """
    if REMAP_SIGTERM != "SIGQUIT":
        log.warning(
            "sigterm_waits_for_every_task",
            do="start this worker with REMAP_SIGTERM=SIGQUIT in its environment",
        )


@worker_process_init.connect
def _leave_code_alone(**_: Any) -> None:
    """In a pool process: what was loaded before the fork stays, so no collection looks at it."""
    gc.freeze()


@worker_process_shutdown.connect
@worker_shutdown.connect
def _close_parts(**_: Any) -> None:
    """A pool process ends without the interpreter's own farewell, which would send its spans."""
    wiring.leave()

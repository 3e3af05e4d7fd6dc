"""Figures and health: what workers, queues, runs and deliveries are doing now."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import structlog
from celery.result import AsyncResult
from celery.states import READY_STATES, SUCCESS

from schemas.errors import BrokerUnavailable, ScanheraldError, StreamUnavailable
from schemas.events import EventType
from schemas.notifications import ChannelKind
from store import figures, runs
from store.deliveries import count_deliveries
from store.endpoints import disabled_endpoints
from tasks import wiring
from tasks.app import QUEUES, app
from tasks.lag import read_lag
from tasks.last_hours import notification_figures, task_figures
from tasks.presence import SILENT_S, Presence, Seen
from tasks.publishing import broker_faults
from tasks.queues import queue_depth
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.monitoring")

INSPECT_TIMEOUT_S = 2.0


class CeleryMonitor:
    """Questions to the broker and its workers.

    Each call may block for some seconds, and raises BrokerUnavailable.
    """

    def get_worker_stats(self) -> dict[str, Any]:
        """Workers that answer: ``total_workers``, and by name their pool and totals."""
        stats = _asked("stats")
        return {
            "total_workers": len(stats),
            "workers": {
                name: {
                    "pid": said.get("pid"),
                    "concurrency": said.get("pool", {}).get("max-concurrency"),
                    "total_tasks": said.get("total", {}),
                    "uptime_s": said.get("uptime"),
                }
                for name, said in stats.items()
            },
        }

    def get_queue_stats(self) -> dict[str, Any]:
        """Messages waiting per queue, of every priority."""
        depths = {name: queue_depth(name) for name in QUEUES}
        return {"queues": depths, "total_messages": sum(depths.values())}

    def get_task_status(self, task_id: str) -> dict[str, Any]:
        """A task's state: Celery's, or the ledger's where Celery knows nothing (any more)."""
        with broker_faults():
            result: AsyncResult[Any] = app.AsyncResult(task_id)
            state = result.state
        status: dict[str, Any] = {"task_id": task_id, "state": state, "source": "celery"}
        if state == "PENDING":
            known = self._ledger_status(task_id)
            if known is not None:
                return {"task_id": task_id, "source": "ledger", **known}
        if state in READY_STATES:
            status["result"] = result.result if state == SUCCESS else str(result.result)
        return status

    def get_active_tasks(self) -> dict[str, Any]:
        """By worker, the tasks in its hand: ``id, name, args, kwargs, time_start, worker_pid``."""
        return _asked("active")

    def get_registered_tasks(self) -> list[str]:
        """Our task names, sorted."""
        app.loader.import_default_modules()  # a process that calls tasks knows only the public ones
        return sorted(name for name in app.tasks if not name.startswith("celery."))

    def get_scheduled_tasks(self) -> dict[str, Any]:
        """Tasks with a countdown that workers hold, and beat's schedule."""
        return {
            "workers": _asked("scheduled"),
            "beat": {
                name: {"task": entry["task"], "schedule": str(entry["schedule"])}
                for name, entry in app.conf.beat_schedule.items()
            },
        }

    def get_comprehensive_status(self) -> dict[str, Any]:
        """All of it in one answer."""
        return {
            "workers": self.get_worker_stats(),
            "queues": self.get_queue_stats(),
            "registered_tasks": self.get_registered_tasks(),
            "scheduled": self.get_scheduled_tasks(),
        }

    def revoke_task(self, task_id: str, terminate: bool = False) -> dict[str, Any]:
        """Tell workers not to start a task, or with ``terminate`` to kill it at work.

        They are told, not asked: a worker that is away never learns of it.
        """
        with broker_faults():
            app.control.revoke(task_id, terminate=terminate)
        return {"task_id": task_id, "revoked": True, "terminated": terminate}

    def purge_queue(self, name: str | None = None) -> dict[str, Any]:
        """Drop the waiting messages of one queue, of every priority, or of all queues.

        What the ledger has recorded is not lost: the sweep publishes it again.
        Raises ValueError for a wrong name.
        """
        if name is not None and name not in QUEUES:
            raise ValueError(f"no queue {name!r}; there are: {', '.join(QUEUES)}")
        purged: dict[str, int] = {}
        with broker_faults(), app.connection_for_write() as connection:
            for queue in QUEUES if name is None else (name,):
                channel: Any = connection.channel()
                try:
                    purged[queue] = channel.queue_purge(queue) or 0
                except connection.channel_errors:
                    purged[queue] = 0  # nobody has used the queue yet
                finally:
                    channel.close()
        return {"queues": purged, "purged": sum(purged.values())}

    def _ledger_status(self, task_id: str) -> dict[str, Any] | None:
        parts = wiring.current()
        identity = task_id.split(":", 1)[0]
        with parts.ledger.read() as connection:
            return figures.status_of(connection, identity)


def _asked(question: str) -> dict[str, Any]:
    """What each worker that answers in time says."""
    with broker_faults():
        return getattr(app.control.inspect(timeout=INSPECT_TIMEOUT_S), question)() or {}


def get_celery_monitor() -> CeleryMonitor:
    """The monitor."""
    return CeleryMonitor()


@app.task(name="monitor_celery_health")
def monitor_celery_health() -> dict[str, Any]:
    """Workers, queues, the stream and the ledger: ``status`` is healthy or unhealthy.  Kept.

    A worker counts by its answer or by its heartbeat: a busy one of a solo pool,
    such as the one that works on this, cannot answer.
    """
    parts = wiring.current()
    problems: list[str] = []
    found: dict[str, Any] = {}
    monitor = get_celery_monitor()
    alive: list[Seen] = []
    try:
        found["stream_lag"] = _lag(parts)
        seen = _presence(parts)
        found["heartbeats"] = [one._asdict() for one in seen]
        alive = [one for one in seen if one.part == "worker" and one.ago_s < SILENT_S]
    except StreamUnavailable as error:
        problems.append(str(error))
    try:
        began = time.monotonic()
        found["queues"] = monitor.get_queue_stats()
        found["broker_ms"] = _ms_since(began)
        found["workers"] = monitor.get_worker_stats()
        if not (found["workers"]["total_workers"] or alive):
            problems.append("no worker answers")
    except BrokerUnavailable as error:
        problems.append(str(error))
    try:
        began = time.monotonic()
        with parts.ledger.read() as connection:
            found["runs"] = runs.count_runs(connection)
            oldest = runs.oldest_unsettled(connection)
        found["ledger_ms"] = _ms_since(began)
        found["oldest_unfinished_run_s"] = (
            None if oldest is None else round((parts.clock() - oldest).total_seconds(), 1)
        )
    except ScanheraldError as error:
        problems.append(str(error))
    return _report_health(parts, "celery_health", found, problems)


def _lag(parts: Wiring) -> list[dict[str, Any]]:
    settings = parts.settings
    lags = read_lag(settings.redis_url, settings.streams, settings.consumer_group, parts.clock())
    return [asdict(lag) for lag in lags]


def _presence(parts: Wiring) -> list[Seen]:
    presence = Presence(parts.settings)
    try:
        return presence.read()
    finally:
        presence.close()


def _ms_since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 1)


@app.task(name="monitor_notification_health")
def monitor_notification_health() -> dict[str, Any]:
    """Channels, events and deliveries waiting: ``status`` as in monitor_celery_health.  Kept."""
    parts = wiring.current()
    problems: list[str] = []
    found: dict[str, Any] = {
        "supported_channels": [kind.value for kind in ChannelKind],
        "supported_events": [kind.value for kind in EventType],
    }
    try:
        with parts.ledger.read() as connection:
            counts = count_deliveries(connection)
            found["active_preferences"] = figures.count_subscribers(connection)
            now = parts.clock()
            overdue = figures.overdue_deliveries(connection, now - timedelta(minutes=5))
            found["failed_last_hour"] = figures.failed_since(connection, now - timedelta(hours=1))
            found["paused_destinations"] = figures.paused_destinations(connection, now)
            found["disabled_addresses"] = len(disabled_endpoints(connection))
        found["deliveries"] = {
            f"{channel}.{state}": count for (channel, state), count in counts.items()
        }
        found["overdue"] = overdue
        if overdue:
            problems.append(f"{overdue} deliveries are overdue by more than five minutes")
    except ScanheraldError as error:
        problems.append(str(error))
    return _report_health(parts, "notification_health", found, problems)


@app.task(name="get_notification_stats")
def get_notification_stats() -> dict[str, Any]:
    """Deliveries and attempts of the last 24 hours by channel, state and outcome.  Kept."""
    parts = wiring.current()
    return _kept(parts, "notifications", notification_figures(parts, 24))


@app.task(name="get_task_statistics")
def get_task_statistics(hours: int = 24) -> dict[str, Any]:
    """Events, runs and reports of the last ``hours`` with rates and render times.  Kept."""
    parts = wiring.current()
    return _kept(parts, "tasks", task_figures(parts, hours))


def _kept(parts: Wiring, kind: str, found: dict[str, Any]) -> dict[str, Any]:
    with parts.ledger.write() as connection:
        figures.save_statistics(connection, kind, found, parts.clock())
    return found


def _report_health(
    parts: Wiring, kind: str, found: dict[str, Any], problems: list[str]
) -> dict[str, Any]:
    now = parts.clock()
    status = "unhealthy" if problems else "healthy"
    answer = {"status": status, "taken_at": now.isoformat(), "problems": problems, **found}
    log.log(30 if problems else 20, f"{kind}_checked", status=status, problems=problems)
    try:
        with parts.ledger.write() as connection:
            figures.save_statistics(connection, kind, answer, now)
    except ScanheraldError as error:
        log.warning("figures_not_kept", kind=kind, error=str(error))
    return answer

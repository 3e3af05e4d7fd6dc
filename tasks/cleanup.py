"""Nightly cleanup: what is older than its retention is deleted, batch by batch."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog

from store import retention
from store.pacing import forget_paces
from tasks import wiring
from tasks.app import app
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.cleanup")

BATCH = 200


@app.task(name="cleanup_old_reports")
def cleanup_old_reports(days: int = retention.KEPT_DAYS) -> dict[str, Any]:
    """Delete artifacts older than ``days``, and mark their reports ``expired``.

    Returns ``status, days, deleted_count``.  The mark comes first, the artifact's
    deletion second, its key's third, so that a killed cleanup leaves no report
    ``ready`` without its artifact.  Killed in between, the report is expired and names its
    key, and the next run deletes what is left.
    """
    parts = wiring.current()
    before = parts.clock() - timedelta(days=_at_least_one(days))
    deleted = 0
    while True:
        with parts.ledger.write() as connection:
            batch = retention.expire_reports(connection, before, BATCH)
        if not batch:
            break
        for report_id, key in batch:
            _delete_artifact(parts, report_id, key)
        with parts.ledger.write() as connection:
            deleted += retention.forget_artifacts(connection, [report_id for report_id, _ in batch])
    log.info("reports_cleaned", days=days, deleted=deleted)
    return {"status": "completed", "days": days, "deleted_count": deleted}


@app.task(name="cleanup_old_notifications")
def cleanup_old_notifications(days: int = retention.KEPT_DAYS) -> dict[str, Any]:
    """Delete settled deliveries, attempts and figures older than ``days``, and idle paces.

    Returns ``status, days, deleted_count``.  Event keys are kept, so a replay
    of an old event still wakes nobody.
    """
    parts = wiring.current()
    before = parts.clock() - timedelta(days=_at_least_one(days))
    deleted = 0
    while True:
        with parts.ledger.write() as connection:
            batch = retention.forget_deliveries(connection, before, BATCH)
        deleted += batch
        if batch < BATCH:
            break
    with parts.ledger.write() as connection:
        figures = retention.forget_statistics(connection, before)
        forget_paces(connection, parts.clock() - timedelta(days=1))
    log.info("notifications_cleaned", days=days, deleted=deleted, figures=figures)
    return {"status": "completed", "days": days, "deleted_count": deleted}


def _delete_artifact(parts: Wiring, report_id: str, key: str) -> None:
    """Delete it, unless it is asked for again since: then it may have been made again.

    A report made on demand between this look and the deletion, in the moment
    before its row says so, loses its artifact; the audit names it.
    """
    with parts.ledger.read() as connection:
        if not retention.is_expired(connection, report_id):
            return
    parts.artifacts.delete(key)


def _at_least_one(days: int) -> int:
    """Refuse to delete today's work by a slip of the hand."""
    if days < retention.LEAST_KEPT_DAYS:
        raise ValueError(f"days must be {retention.LEAST_KEPT_DAYS} or more, not {days}")
    return days

"""Nightly cleanup: what is older than its retention is deleted, batch by batch."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog

from store import retention
from tasks import wiring
from tasks.app import app

log = structlog.get_logger("tasks.cleanup")

BATCH = 200


@app.task(name="cleanup_old_reports")
def cleanup_old_reports(days: int = 30) -> dict[str, Any]:
    """Delete reports and artifacts older than ``days``: ``status, days, deleted_count``.

    The artifact goes first: killed in between, a row without an artifact is
    deleted by the next run, while an artifact without a row would stay for ever.
    """
    parts = wiring.current()
    before = parts.clock() - timedelta(days=_at_least_one(days))
    deleted = 0
    while True:
        with parts.ledger.read() as connection:
            batch = retention.old_reports(connection, before, BATCH)
        if not batch:
            break
        for _, key in batch:
            if key is not None:
                parts.artifacts.delete(key)
        with parts.ledger.write() as connection:
            old = [report_id for report_id, _ in batch]
            deleted += retention.forget_reports(connection, old, before)
    log.info("reports_cleaned", days=days, deleted=deleted)
    return {"status": "completed", "days": days, "deleted_count": deleted}


@app.task(name="cleanup_old_notifications")
def cleanup_old_notifications(days: int = 30) -> dict[str, Any]:
    """Delete settled deliveries, attempts and figures older than ``days``.

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
    log.info("notifications_cleaned", days=days, deleted=deleted, figures=figures)
    return {"status": "completed", "days": days, "deleted_count": deleted}


def _at_least_one(days: int) -> int:
    """Refuse to delete today's work by a slip of the hand."""
    if days < 1:
        raise ValueError(f"days must be 1 or more, not {days}")
    return days

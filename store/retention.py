"""What may be forgotten, in bounded batches; nothing that is in use."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, func, select

from schemas.runs import DeliveryState
from store.tables import attempts, deliveries, reports, statistics

SETTLED = [
    DeliveryState.SENT.value,
    DeliveryState.FAILED.value,
    DeliveryState.SUPPRESSED.value,
]


def old_reports(
    connection: Connection, before: datetime, limit: int
) -> list[tuple[str, str | None]]:
    """Settled reports last made before then: (report id, artifact key), oldest first."""
    rows = connection.execute(
        select(reports.c.report_id, reports.c.artifact_key)
        .where(
            *_last_made(before),
        )
        .order_by(reports.c.created_at)
        .limit(limit)
    )
    return list(rows)


def forget_reports(connection: Connection, report_ids: list[str], before: datetime) -> int:
    """Delete report rows whose artifacts are gone already, but for those made again since."""
    return connection.execute(
        delete(reports).where(reports.c.report_id.in_(report_ids), *_last_made(before))
    ).rowcount


def _last_made(before: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        reports.c.created_at < before,
        func.coalesce(reports.c.ready_at, reports.c.created_at) < before,
        reports.c.status != "pending",
    )


def forget_deliveries(connection: Connection, before: datetime, limit: int) -> int:
    """Delete settled deliveries from before then with their attempts; return how many.

    Their notifications stay: an event key that is forgotten would be told again.
    """
    old = list(
        connection.execute(
            select(deliveries.c.delivery_id)
            .where(deliveries.c.settled_at < before, deliveries.c.state.in_(SETTLED))
            .order_by(deliveries.c.settled_at)
            .limit(limit)
        ).scalars()
    )
    connection.execute(delete(attempts).where(attempts.c.delivery_id.in_(old)))
    connection.execute(delete(deliveries).where(deliveries.c.delivery_id.in_(old)))
    return len(old)


def forget_statistics(connection: Connection, before: datetime) -> int:
    """Delete stored figures from before then."""
    return connection.execute(delete(statistics).where(statistics.c.taken_at < before)).rowcount

"""What may be forgotten, in bounded batches; nothing that is in use."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, func, select, update

from schemas.runs import DeliveryState
from store.tables import attempts, deliveries, reports, statistics

KEPT_DAYS = 30
"""How long settled deliveries are kept, and artifacts, where the cleanup is not told otherwise."""

LEAST_KEPT_DAYS = 1
"""No cleanup forgets what is younger."""

SETTLED = [
    DeliveryState.SENT.value,
    DeliveryState.FAILED.value,
    DeliveryState.SUPPRESSED.value,
]


def expire_reports(connection: Connection, before: datetime, limit: int) -> list[tuple[str, str]]:
    """Retire settled reports last made before then: (report id, artifact key), oldest first.

    Their rows stay, ``expired``, with size and digest: they say that an artifact
    is gone on purpose.  Until ``forget_artifacts`` they keep its key, so what a
    killed cleanup left behind is returned by the next one.  A report without an
    artifact, failed for good, has nothing to retire and stays as it is.
    """
    old = connection.execute(
        select(reports.c.report_id, reports.c.artifact_key)
        .where(
            reports.c.created_at < before,
            func.coalesce(reports.c.ready_at, reports.c.created_at) < before,
            reports.c.status != "pending",
            reports.c.artifact_key.is_not(None),
        )
        .order_by(reports.c.created_at)
        .limit(limit)
        .with_for_update()  # of one that is asked for again just now, one of us waits
    ).all()
    connection.execute(
        update(reports)
        .where(reports.c.report_id.in_([report_id for report_id, _ in old]))
        .values(status="expired")
    )
    return [(report_id, key) for report_id, key in old]


def is_expired(connection: Connection, report_id: str) -> bool:
    """Whether a report is retired still, and not asked for again since."""
    return (
        connection.execute(
            select(reports.c.report_id).where(
                reports.c.report_id == report_id, reports.c.status == "expired"
            )
        ).first()
        is not None
    )


def forget_artifacts(connection: Connection, report_ids: list[str]) -> int:
    """Note that these expired reports' artifacts are deleted; return how many are."""
    return connection.execute(
        update(reports)
        .where(reports.c.report_id.in_(report_ids), reports.c.status == "expired")
        .values(artifact_key=None, uri=None)
    ).rowcount


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

"""Deliveries that an operator wants tried again, and their new start.

Undelivered is what failed, and what was never tried because its address was
disabled.  What was sent is not touched, whatever it is asked by.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, or_, select, update

from schemas.notifications import ChannelKind
from schemas.runs import DeliveryState
from store.endpoints import DISABLED, enable_endpoint
from store.tables import deliveries

_ENDED = (DeliveryState.FAILED.value, DeliveryState.SUPPRESSED.value)


def undelivered() -> ColumnElement[bool]:
    """The rows that failed or were not tried because of a disabled address."""
    return or_(
        deliveries.c.state == DeliveryState.FAILED.value,
        and_(
            deliveries.c.state == DeliveryState.SUPPRESSED.value,
            deliveries.c.reason.startswith(DISABLED, autoescape=True),
        ),
    )


def list_undelivered(
    connection: Connection,
    *,
    by: datetime,
    since: datetime | None,
    subscriber_id: str | None,
    limit: int,
) -> list[str]:
    """Ids of what was undelivered by then, the longest first; not what a digest tells of."""
    query = select(deliveries.c.delivery_id).where(
        undelivered(), deliveries.c.merged_into.is_(None), deliveries.c.settled_at <= by
    )
    if since is not None:
        query = query.where(deliveries.c.created_at >= since)
    if subscriber_id is not None:
        query = query.where(deliveries.c.subscriber_id == subscriber_id)
    ordered = query.order_by(deliveries.c.settled_at, deliveries.c.delivery_id).limit(limit)
    return list(connection.execute(ordered).scalars())


def revive_deliveries(
    connection: Connection, delivery_ids: Sequence[str], now: datetime
) -> list[str]:
    """Let deliveries that failed or were suppressed be tried, all tries anew; return which.

    Their addresses are enabled.  They are due at once: the sweep starts them, and
    they keep to the pace as all do.  Try numbers begin again at 1, which no earlier
    try can meet: it ended, or the lease it lost was longer than its task may live.
    """
    rows = connection.execute(
        update(deliveries)
        .where(
            deliveries.c.delivery_id.in_(delivery_ids),
            deliveries.c.state.in_(_ENDED),
            deliveries.c.merged_into.is_(None),
        )
        .values(
            state=DeliveryState.PENDING.value,
            tries=0,
            due_at=now,
            lease_until=None,
            slot_at=None,
            settled_at=None,
            reason=f"to be tried again, as asked for on {now:%Y-%m-%d %H:%M} UTC",
        )
        .returning(deliveries.c.delivery_id, deliveries.c.subscriber_id, deliveries.c.channel)
    ).all()
    revived = [row.delivery_id for row in rows]
    connection.execute(
        update(deliveries)
        .where(deliveries.c.merged_into.in_(revived), deliveries.c.state.in_(_ENDED))
        .values(state=DeliveryState.HELD.value, settled_at=None)
    )
    for subscriber_id, channel in sorted({(row.subscriber_id, row.channel) for row in rows}):
        enable_endpoint(connection, subscriber_id, ChannelKind(channel))
    return revived

"""Who is told what: news become one delivery per (subscriber, channel, event key)."""

from __future__ import annotations

from collections.abc import Iterable

import structlog
from sqlalchemy import Connection

from schemas.notifications import Notification
from store.deliveries import DeliveryTicket, Recipient, plan_deliveries, save_notification
from store.subscribers import list_subscribers, wants
from tasks.notifications import started_by
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.telling")


def plan(
    connection: Connection,
    parts: Wiring,
    told: Iterable[Notification],
    *,
    run_id: str | None,
    owner: str | None,
) -> tuple[list[DeliveryTicket], list[str]]:
    """Write the news, and a delivery for everyone who wants it.

    Returns the tries to start, and the event keys that were told before.
    Killed after the commit and before they are started, the sweep starts them.
    """
    now = parts.clock()
    subscribers = list_subscribers(connection, parts.box)
    tickets: list[DeliveryTicket] = []
    known: list[str] = []
    for notification in told:
        if not save_notification(connection, notification, run_id, now):
            log.info("already_told", event_key=notification.event_key)
            known.append(notification.event_key)
            continue
        recipients = [
            Recipient(
                subscriber_id=subscriber.subscriber_id,
                address=address,
                suppressed="the subscriber is paused" if subscriber.paused else None,
            )
            for subscriber in subscribers
            if wants(subscriber, notification, owner)
            for address in subscriber.channels
        ]
        tickets += plan_deliveries(
            connection,
            notification.event_key,
            recipients,
            now=now,
            started_by=started_by(parts),
            new_id=parts.new_id,
            box=parts.box,
        )
    return tickets, known

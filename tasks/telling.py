"""Who is told what: news become one delivery per (subscriber, channel, event key)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice

import structlog
from sqlalchemy import Connection

from schemas.notifications import ChannelKind, Notification, Subscriber
from store.deliveries import DeliveryTicket, Recipient, plan_deliveries, save_notification
from store.endpoints import disabled_endpoints
from store.subscribers import BATCH, match_subscribers
from tasks.holding import PAUSED, held_until
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
    replay_id: str | None = None,
) -> tuple[list[DeliveryTicket], list[str]]:
    """Write the news, and a delivery for everyone who wants it.

    Returns the tries to start, and the event keys that were told before.
    Killed after the commit and before they are started, the sweep starts them.
    """
    now = parts.clock()
    news: list[Notification] = []
    known: list[str] = []
    for notification in told:
        if save_notification(connection, notification, run_id, now):
            news.append(notification)
        else:
            log.info("already_told", event_key=notification.event_key)
            known.append(notification.event_key)
    if not news:
        return [], known
    tickets: list[DeliveryTicket] = []
    disabled = disabled_endpoints(connection)
    matches = match_subscribers(connection, news, owner, parts.box)
    while batch := list(islice(matches, BATCH)):
        for notification in news:
            tickets += plan_deliveries(
                connection,
                notification.event_key,
                [
                    recipient
                    for subscriber, wanted in batch
                    if notification in wanted
                    for recipient in recipients(subscriber, notification, now, disabled)
                ],
                now=now,
                started_by=started_by(parts),
                new_id=parts.new_id,
                box=parts.box,
                replay_id=replay_id,
            )
    return tickets, known


def recipients(
    subscriber: Subscriber,
    notification: Notification,
    now: datetime,
    disabled: Mapping[tuple[str, ChannelKind], str],
) -> Iterator[Recipient]:
    """A subscriber's addresses, each told at once, held until its time, or not at all.

    ``disabled`` are the addresses that are not used, with the reason.
    """
    hold = held_until(subscriber, notification.severity, now)
    for address in subscriber.channels:
        name = subscriber.subscriber_id
        suppressed = PAUSED if subscriber.paused else disabled.get((name, address.kind))
        yield Recipient(subscriber_id=name, address=address, suppressed=suppressed, hold=hold)

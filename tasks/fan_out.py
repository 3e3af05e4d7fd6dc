"""One notification for the users that the platform names, however many they are.

Planned and started batch by batch, each in one transaction with one look at the
ledger: ten thousand users take no more memory than two hundred.  A repeat finds
what is planned already and goes on behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, RowMapping

from schemas.crash_points import CrashPoint, crash_here
from schemas.errors import BrokerUnavailable
from schemas.notifications import Notification, Subscriber
from schemas.runs import DeliveryState
from store.deliveries import (
    DeliveryTicket,
    Recipient,
    plan_deliveries,
    planned_deliveries,
    save_notification,
)
from store.endpoints import disabled_endpoints
from store.subscribers import subscribers_of_users
from tasks.notifications import start_deliveries, started_by
from tasks.telling import recipients
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.fan_out")

BATCH_USERS = 200
"""Users of one transaction: so long, other writers of a SQLite ledger wait."""

MAX_BROKER_FAULTS = 3
"""So many batches in a row that cannot be started, and the rest is left to the sweep: each costs
seconds of the time that a task may take."""


@dataclass(frozen=True, slots=True)
class Told:
    """What came of it: users who are to be told something, and deliveries that tell them.

    Whoever is paused, or reached on disabled addresses alone, is told nothing.
    """

    users: int
    notifications: int


def tell_users(parts: Wiring, notification: Notification, user_ids: Sequence[str]) -> Told:
    """Plan and start, ``BATCH_USERS`` users at a time; the ids are distinct.

    Raises LedgerUnavailable, after which a repeat is in place.  Killed after a
    batch is planned and before it is started, the sweep starts it: the repeat
    finds it planned and leaves it alone.
    """
    users = notifications = faults = 0
    for first in range(0, len(user_ids), BATCH_USERS):
        batch = user_ids[first : first + BATCH_USERS]
        with parts.ledger.write() as connection:
            tickets, subscribers = plan_for_users(connection, parts, notification, batch)
            owners = {item.subscriber_id: item.user_id for item in subscribers}
            rows = planned_deliveries(connection, notification.event_key, list(owners))
        crash_here(CrashPoint.BULK_PLANNED)
        if faults < MAX_BROKER_FAULTS:
            faults = 0 if _start(tickets) else faults + 1
        told = [row["subscriber_id"] for row in rows if _tells(row)]
        users += len({owners[subscriber_id] for subscriber_id in told})
        notifications += len(told)
        log.info(
            "bulk_batch_planned",
            event_key=notification.event_key,
            users=first + len(batch),
            total_users=len(user_ids),
            notifications=notifications,
            new=len(tickets),
        )
    return Told(users, notifications)


def plan_for_users(
    connection: Connection, parts: Wiring, notification: Notification, user_ids: Sequence[str]
) -> tuple[list[DeliveryTicket], list[Subscriber]]:
    """Plan deliveries to these users' subscribers who want such news, at most some hundreds.

    Returns the tries to start, none for what was planned before, and the subscribers.
    """
    now = parts.clock()
    subscribers = subscribers_of_users(connection, user_ids, notification, parts.box)
    disabled = disabled_endpoints(connection)
    tickets = plan_for(
        connection,
        parts,
        notification,
        [
            recipient
            for subscriber in subscribers
            for recipient in recipients(subscriber, notification, now, disabled)
        ],
    )
    return tickets, subscribers


def plan_for(
    connection: Connection,
    parts: Wiring,
    notification: Notification,
    told: Iterable[Recipient],
) -> list[DeliveryTicket]:
    """Write the notification and its deliveries, where they are new; return the tries to start."""
    now = parts.clock()
    save_notification(connection, notification, None, now)
    return plan_deliveries(
        connection,
        notification.event_key,
        told,
        now=now,
        started_by=started_by(parts),
        new_id=parts.new_id,
        box=parts.box,
    )


def _start(tickets: list[DeliveryTicket]) -> bool:
    try:
        start_deliveries(tickets)
    except BrokerUnavailable as error:
        log.warning("deliveries_left_to_sweep", deliveries=len(tickets), error=str(error))
        return False
    return True


def _tells(row: RowMapping) -> bool:
    return bool(row["state"] != DeliveryState.SUPPRESSED.value)

"""Notifications and their deliveries: one row per (subscriber, channel, event key).

The unique row is what tells nobody twice: a replay, a second body and a second
sweep all run into it.  Each try of a delivery has a number and is leased by
``UPDATE … WHERE tries = number - 1``, so each number is sent by one worker.
Killed between the other side's answer and ``settle_sent``, the lease runs out
and the next try sends the same message under the same id: the receiver can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, desc, func, or_, select, update

from schemas.notifications import ChannelAddress, ChannelKind, Notification
from schemas.runs import DeliveryState
from store.ledger import insert, pack, plain, unpack
from store.secrets import SecretBox
from store.subscribers import find_subscriber, open_addresses, seal_addresses
from store.tables import attempts, deliveries, notifications


@dataclass(frozen=True, slots=True)
class Recipient:
    """One address to tell.  ``suppressed`` says why it is not told after all."""

    subscriber_id: str
    address: ChannelAddress
    suppressed: str | None = None
    keep_address: bool = False
    """True where no subscriber row holds the address."""


@dataclass(frozen=True, slots=True)
class DeliveryTicket:
    """One try of one delivery, to be started."""

    delivery_id: str
    number: int


def save_notification(
    connection: Connection, notification: Notification, run_id: str | None, now: datetime
) -> bool:
    """Write what happened.  False if this event key was told before."""
    statement = insert(connection, notifications).values(
        event_key=notification.event_key,
        type=notification.type.value,
        domain=plain(notification.domain, 255),
        severity=notification.severity.value,
        run_id=run_id,
        content=pack(msgspec.json.encode(notification)),
        created_at=now,
    )
    written = statement.on_conflict_do_nothing().returning(notifications.c.event_key)
    return connection.execute(written).one_or_none() is not None


def plan_deliveries(
    connection: Connection,
    event_key: str,
    recipients: Iterable[Recipient],
    *,
    now: datetime,
    started_by: datetime,
    new_id: Callable[[], str],
    box: SecretBox,
) -> list[DeliveryTicket]:
    """Write the deliveries of one notification and return those to start now.

    A delivery that exists already is left as it is.  The sweep starts what
    nobody has started by ``started_by``.
    """
    tickets: list[DeliveryTicket] = []
    for recipient in recipients:
        state = DeliveryState.SUPPRESSED if recipient.suppressed else DeliveryState.PENDING
        delivery_id = connection.execute(
            insert(connection, deliveries)
            .values(
                delivery_id=new_id(),
                subscriber_id=recipient.subscriber_id,
                channel=recipient.address.kind.value,
                event_key=event_key,
                address=seal_addresses((recipient.address,), box)
                if recipient.keep_address
                else None,
                state=state.value,
                tries=0,
                due_at=now,
                lease_until=started_by,
                reason=recipient.suppressed,
                created_at=now,
                settled_at=now if recipient.suppressed else None,
            )
            .on_conflict_do_nothing()
            .returning(deliveries.c.delivery_id)
        ).scalar_one_or_none()
        if delivery_id is not None and state is DeliveryState.PENDING:
            tickets.append(DeliveryTicket(delivery_id, 1))
    return tickets


@dataclass(frozen=True, slots=True)
class LeasedDelivery:
    """A delivery in hand.  ``address`` is None where its subscriber or channel is gone."""

    delivery_id: str
    number: int
    channel: ChannelKind
    address: ChannelAddress | None
    notification: Notification
    created_at: datetime


def lease_delivery(
    connection: Connection,
    delivery_ticket: DeliveryTicket,
    *,
    lease_until: datetime,
    box: SecretBox,
) -> LeasedDelivery | None:
    """Take one try in hand, or None if it was taken, settled or overtaken."""
    row = (
        connection.execute(
            update(deliveries)
            .where(
                deliveries.c.delivery_id == delivery_ticket.delivery_id,
                deliveries.c.tries == delivery_ticket.number - 1,
                deliveries.c.state.in_([DeliveryState.PENDING.value, DeliveryState.SENDING.value]),
            )
            .values(
                state=DeliveryState.SENDING.value,
                tries=delivery_ticket.number,
                lease_until=lease_until,
            )
            .returning(
                deliveries.c.subscriber_id,
                deliveries.c.channel,
                deliveries.c.event_key,
                deliveries.c.address,
                deliveries.c.created_at,
            )
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        return None
    content = connection.execute(
        select(notifications.c.content).where(notifications.c.event_key == row["event_key"])
    ).scalar_one()
    channel = ChannelKind(row["channel"])
    return LeasedDelivery(
        delivery_id=delivery_ticket.delivery_id,
        number=delivery_ticket.number,
        channel=channel,
        address=_address(connection, row, channel, box),
        notification=msgspec.json.decode(unpack(content), type=Notification),
        created_at=row["created_at"],
    )


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one try was: for the log of attempts.  Texts are bounded by whoever speaks."""

    number: int
    started_at: datetime
    duration_ms: float
    status_code: int | None = None
    receipt: str | None = None
    error: str | None = None


def settle_sent(connection: Connection, delivery_id: str, attempt: Attempt, now: datetime) -> None:
    """The other side has it."""
    _move(connection, delivery_id, attempt, DeliveryState.SENT, reason=None, settled_at=now)
    _log(connection, delivery_id, attempt, "sent")


def settle_failed(
    connection: Connection, delivery_id: str, attempt: Attempt, now: datetime
) -> None:
    """No further try: the attempt's error is the reason."""
    _move(
        connection,
        delivery_id,
        attempt,
        DeliveryState.FAILED,
        reason=plain(attempt.error),
        settled_at=now,
    )
    _log(connection, delivery_id, attempt, "failed")


def put_back(
    connection: Connection,
    delivery_id: str,
    attempt: Attempt,
    *,
    due_at: datetime,
    lease_until: datetime | None,
) -> None:
    """Another try at ``due_at``; by the sweep, unless a message has it until ``lease_until``."""
    _move(
        connection,
        delivery_id,
        attempt,
        DeliveryState.PENDING,
        reason=plain(attempt.error),
        due_at=due_at,
        lease_until=lease_until,
    )
    _log(connection, delivery_id, attempt, "retry")


def claim_due(
    connection: Connection, now: datetime, *, started_by: datetime, limit: int
) -> list[DeliveryTicket]:
    """Deliveries that are due and in nobody's hand, each under its next number.

    Two kinds: pending ones whose message was lost or whose time has come, and
    ones whose worker died while sending.  Of two sweeps one wins each row.
    """
    free = (
        deliveries.c.state.in_([DeliveryState.PENDING.value, DeliveryState.SENDING.value]),
        deliveries.c.due_at <= now,
        or_(deliveries.c.lease_until.is_(None), deliveries.c.lease_until <= now),
    )
    due = connection.execute(
        select(deliveries.c.delivery_id, deliveries.c.tries)
        .where(*free)
        .order_by(deliveries.c.due_at, deliveries.c.delivery_id)
        .limit(limit)
    ).all()
    return [
        DeliveryTicket(row.delivery_id, row.tries + 1)
        for row in due
        if connection.execute(
            update(deliveries)
            .where(
                deliveries.c.delivery_id == row.delivery_id, deliveries.c.tries == row.tries, *free
            )
            .values(lease_until=started_by)
        ).rowcount
    ]


def find_delivery(connection: Connection, recipient: Recipient, event_key: str) -> str:
    """The id of a planned delivery."""
    delivery_id: str = connection.execute(
        select(deliveries.c.delivery_id).where(
            deliveries.c.subscriber_id == recipient.subscriber_id,
            deliveries.c.channel == recipient.address.kind.value,
            deliveries.c.event_key == event_key,
        )
    ).scalar_one()
    return delivery_id


def delivery_result(connection: Connection, delivery_id: str) -> RowMapping:
    """A delivery's row, as the public tasks report it."""
    return (
        connection.execute(select(deliveries).where(deliveries.c.delivery_id == delivery_id))
        .mappings()
        .one()
    )


def list_deliveries(
    connection: Connection, *, limit: int, state: str | None = None
) -> list[RowMapping]:
    """The newest deliveries with their notification's type and domain; never an address."""
    query = (
        select(
            deliveries.c.delivery_id,
            deliveries.c.subscriber_id,
            deliveries.c.channel,
            deliveries.c.event_key,
            deliveries.c.state,
            deliveries.c.tries,
            deliveries.c.due_at,
            deliveries.c.reason,
            deliveries.c.created_at,
            deliveries.c.settled_at,
            notifications.c.type,
            notifications.c.domain,
            notifications.c.severity,
            notifications.c.run_id,
        )
        .join(notifications, notifications.c.event_key == deliveries.c.event_key)
        .order_by(desc(deliveries.c.created_at), deliveries.c.delivery_id)
        .limit(limit)
    )
    if state:
        query = query.where(deliveries.c.state == state)
    return list(connection.execute(query).mappings())


def count_deliveries(connection: Connection) -> dict[tuple[str, str], int]:
    """Number of deliveries by (channel, state)."""
    rows = connection.execute(
        select(deliveries.c.channel, deliveries.c.state, func.count()).group_by(
            deliveries.c.channel, deliveries.c.state
        )
    )
    return {(channel, state): count for channel, state, count in rows}


def _address(
    connection: Connection, row: RowMapping, channel: ChannelKind, box: SecretBox
) -> ChannelAddress | None:
    if row["address"] is not None:
        return open_addresses(row["address"], box)[0]
    subscriber = find_subscriber(connection, row["subscriber_id"], box)
    if subscriber is None:
        return None
    return next((address for address in subscriber.channels if address.kind is channel), None)


def _move(
    connection: Connection, delivery_id: str, attempt: Attempt, state: DeliveryState, **values: Any
) -> None:
    """Leave ``sending`` for another state, if this try still holds the delivery.

    A try whose lease ran out and was overtaken changes nothing but the log.
    """
    connection.execute(
        update(deliveries)
        .where(
            deliveries.c.delivery_id == delivery_id,
            deliveries.c.tries == attempt.number,
            deliveries.c.state == DeliveryState.SENDING.value,
        )
        .values(state=state.value, **{"lease_until": None, **values})
    )


def _log(connection: Connection, delivery_id: str, attempt: Attempt, outcome: str) -> None:
    connection.execute(
        attempts.insert().values(
            delivery_id=delivery_id,
            number=attempt.number,
            started_at=attempt.started_at,
            duration_ms=attempt.duration_ms,
            outcome=outcome,
            status_code=attempt.status_code,
            receipt=plain(attempt.receipt, 500),
            error=plain(attempt.error),
        )
    )

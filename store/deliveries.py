"""Notifications and their deliveries: one row per (subscriber, channel, event key).

The unique row is what tells nobody twice: a replay, a second body and a second
sweep all run into it.  What becomes of a delivery, try by try, is in ``tries.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, and_, desc, func, or_, select, update
from sqlalchemy.sql.dml import ReturningInsert

from schemas.events import EventType
from schemas.notifications import ChannelAddress, Hold, Notification
from schemas.runs import DeliveryState
from store.ledger import insert_for, pack, plain, unpack
from store.secrets import SecretBox
from store.subscribers import seal_addresses
from store.tables import deliveries, notifications, runs


@dataclass(frozen=True, slots=True)
class Recipient:
    """One address to tell.  ``suppressed`` says why it is not told after all."""

    subscriber_id: str
    address: ChannelAddress
    suppressed: str | None = None
    keep_address: bool = False
    """True where no subscriber row holds the address."""
    preferences: dict[str, Any] | None = None
    """Kept with such an address: what a subscriber row would say, see ``kept_preferences``."""
    hold: Hold | None = None
    """Where it waits: until then it is in the ledger alone, and no try is started."""


@dataclass(frozen=True, slots=True)
class DeliveryTicket:
    """One try of one delivery, to be started."""

    delivery_id: str
    number: int
    delay_s: float = 0.0
    """How long its turn is away."""
    is_replay: bool = False
    """Its message waits behind those of live scans."""


LOOKED_AT = 20_000
"""Of so many that are due, the oldest, a claim chooses."""


def save_notification(
    connection: Connection, notification: Notification, run_id: str | None, now: datetime
) -> bool:
    """Write what happened.  False if this event key was told before."""
    row = {
        "event_key": notification.event_key,
        "type": notification.type.value,
        "domain": plain(notification.domain, 255),
        "severity": notification.severity.value,
        "run_id": run_id,
        "content": pack(msgspec.json.encode(notification)),
        "created_at": now,
    }
    written = connection.execute(_insert_news(connection.dialect.name), row)
    return written.one_or_none() is not None


@cache
def _insert_news(dialect: str) -> ReturningInsert[Any]:
    """Built once: building costs more than executing.  Nothing for a key that is known."""
    statement = insert_for(dialect, notifications)
    return statement.on_conflict_do_nothing().returning(notifications.c.event_key)


def is_known(connection: Connection, event_key: str) -> bool:
    """Whether something was told under this event key before."""
    query = select(notifications.c.event_key).where(notifications.c.event_key == event_key)
    return connection.execute(query).first() is not None


def news_of_event(connection: Connection, event_pk: int, kind: EventType) -> list[Notification]:
    """What the runs of an event told, of one type, in the order of telling."""
    found = connection.execute(
        select(notifications.c.content)
        .join(runs, runs.c.run_id == notifications.c.run_id)
        .where(runs.c.event_pk == event_pk, notifications.c.type == kind.value)
        .order_by(notifications.c.created_at, notifications.c.event_key)
    ).scalars()
    return [
        msgspec.json.decode(unpack(content), type=Notification)
        for content in found
        if content  # else it was erased
    ]


def plan_deliveries(
    connection: Connection,
    event_key: str,
    recipients: Iterable[Recipient],
    *,
    now: datetime,
    started_by: datetime,
    new_id: Callable[[], str],
    box: SecretBox,
    replay_id: str | None = None,
) -> list[DeliveryTicket]:
    """Write the deliveries of one notification and return those to start now.

    A delivery that exists already is left as it is.  The sweep starts what
    nobody has started by ``started_by``.  ``replay_id`` is the replay that tells.
    """
    planned = [
        {
            "delivery_id": new_id(),
            "subscriber_id": recipient.subscriber_id,
            "channel": recipient.address.kind.value,
            "event_key": event_key,
            "address": seal_addresses((recipient.address,), box)
            if recipient.keep_address
            else None,
            "preferences": recipient.preferences,
            "replay_id": replay_id,
            "tries": 0,
            "created_at": now,
            **_first_state(recipient, now, started_by),
        }
        for recipient in recipients
    ]
    if not planned:
        return []
    written = set(connection.execute(_plan(connection.dialect.name), planned).scalars())
    return [
        DeliveryTicket(row["delivery_id"], 1, is_replay=replay_id is not None)
        for row in planned
        if row["delivery_id"] in written and row["state"] == DeliveryState.PENDING.value
    ]


@cache
def _plan(dialect: str) -> ReturningInsert[Any]:
    statement = insert_for(dialect, deliveries)
    return statement.on_conflict_do_nothing().returning(deliveries.c.delivery_id)


def _first_state(recipient: Recipient, now: datetime, started_by: datetime) -> dict[str, Any]:
    hold = recipient.hold
    if recipient.suppressed:
        state, reason = DeliveryState.SUPPRESSED, recipient.suppressed
    elif hold:
        state, reason = DeliveryState.HELD, hold.reason
    else:
        state, reason = DeliveryState.PENDING, None
    held = hold if state is DeliveryState.HELD else None
    return {
        "state": state.value,
        "reason": plain(reason),
        "due_at": held.until if held else now,
        "held_for": held.held_for.value if held else None,
        "held_until": held.until if held else None,
        "lease_until": None if held else started_by,
        "settled_at": now if state is DeliveryState.SUPPRESSED else None,
    }


def claim_due(
    connection: Connection,
    now: datetime,
    *,
    started_by: datetime,
    limit: int,
    ahead: timedelta = timedelta(),
) -> list[DeliveryTicket]:
    """Deliveries that are due and in nobody's hand, each under its next number.

    Pending ones whose message was lost or whose time has come, ones whose worker
    died while sending, and those whose slot at an even pace comes ``ahead``: these
    say how long to wait.  Each subscriber's first comes before anybody's second, so
    that a flood to one does not keep the others waiting.  Of two sweeps one wins
    each row, and neither waits: a row that somebody is changing just now is passed over.
    """
    until = now + ahead
    free = (
        deliveries.c.state.in_([DeliveryState.PENDING.value, DeliveryState.SENDING.value]),
        or_(
            deliveries.c.due_at <= now,
            and_(deliveries.c.slot_at.is_not(None), deliveries.c.due_at <= until),
        ),
        or_(deliveries.c.lease_until.is_(None), deliveries.c.lease_until <= now),
    )
    oldest = (
        select(deliveries.c.delivery_id, deliveries.c.subscriber_id, deliveries.c.due_at)
        .where(*free, deliveries.c.due_at <= until)
        .order_by(deliveries.c.due_at)
        .limit(LOOKED_AT)
        .subquery()
    )
    turn = func.row_number().over(
        partition_by=oldest.c.subscriber_id, order_by=(oldest.c.due_at, oldest.c.delivery_id)
    )
    chosen = connection.execute(
        select(oldest.c.delivery_id)
        .order_by(turn, oldest.c.due_at, oldest.c.delivery_id)
        .limit(limit)
    ).scalars()
    ours = (
        select(deliveries.c.delivery_id)
        .where(deliveries.c.delivery_id.in_(list(chosen)), *free)
        .with_for_update(skip_locked=True)
    )
    claimed = connection.execute(
        update(deliveries)
        .where(deliveries.c.delivery_id.in_(list(connection.execute(ours).scalars())))
        .values(lease_until=started_by + ahead)
        .returning(
            deliveries.c.delivery_id,
            deliveries.c.tries,
            deliveries.c.due_at,
            deliveries.c.replay_id,
        )
    ).all()
    return [
        DeliveryTicket(
            row.delivery_id,
            row.tries + 1,
            delay_s=max(0.0, (row.due_at - now).total_seconds()),
            is_replay=row.replay_id is not None,
        )
        for row in sorted(claimed, key=lambda row: (row.due_at, row.delivery_id))
    ]


def planned_deliveries(
    connection: Connection, event_key: str, subscriber_ids: Collection[str]
) -> list[RowMapping]:
    """The deliveries of one notification to these subscribers, by subscriber and channel.

    At most some hundreds of subscribers.
    """
    return list(
        connection.execute(
            select(
                deliveries.c.delivery_id,
                deliveries.c.subscriber_id,
                deliveries.c.channel,
                deliveries.c.state,
                deliveries.c.tries,
                deliveries.c.reason,
            )
            .where(
                deliveries.c.event_key == event_key,
                deliveries.c.subscriber_id.in_(subscriber_ids),
            )
            .order_by(deliveries.c.subscriber_id, deliveries.c.channel)
        ).mappings()
    )


_LISTED = select(
    deliveries.c.delivery_id,
    deliveries.c.subscriber_id,
    deliveries.c.channel,
    deliveries.c.event_key,
    deliveries.c.state,
    deliveries.c.tries,
    deliveries.c.due_at,
    deliveries.c.reason,
    deliveries.c.merged_into,
    deliveries.c.replay_id,
    deliveries.c.created_at,
    deliveries.c.settled_at,
    notifications.c.type,
    notifications.c.domain,
    notifications.c.severity,
    notifications.c.run_id,
).join(notifications, notifications.c.event_key == deliveries.c.event_key)


def list_deliveries(
    connection: Connection,
    *,
    limit: int,
    state: str | None = None,
    subscriber_id: str | None = None,
    domain: str | None = None,
    only: ColumnElement[bool] | None = None,
) -> list[RowMapping]:
    """The newest deliveries with their notification's type and domain; never an address."""
    conditions = [
        column == wanted
        for column, wanted in (
            (deliveries.c.state, state),
            (deliveries.c.subscriber_id, subscriber_id),
            (notifications.c.domain, domain),
        )
        if wanted is not None
    ]
    if only is not None:
        conditions.append(only)
    query = (
        _LISTED.where(*conditions)
        .order_by(desc(deliveries.c.created_at), deliveries.c.delivery_id)
        .limit(limit)
    )
    return list(connection.execute(query).mappings())


def find_listed(connection: Connection, delivery_id: str) -> RowMapping | None:
    """One delivery as ``list_deliveries`` gives it, or None."""
    query = _LISTED.where(deliveries.c.delivery_id == delivery_id)
    return connection.execute(query).mappings().one_or_none()


def count_deliveries(connection: Connection) -> dict[tuple[str, str], int]:
    """Number of deliveries by (channel, state)."""
    rows = connection.execute(
        select(deliveries.c.channel, deliveries.c.state, func.count()).group_by(
            deliveries.c.channel, deliveries.c.state
        )
    )
    return {(channel, state): count for channel, state, count in rows}

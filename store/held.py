"""Held deliveries whose time has come: told one by one, or many of them by one digest.

Everything here happens in the sweep's one transaction, and every row is moved
by its state: of two sweeps one wins each, and a sweep killed at any line has
moved none.  A digest is a delivery like any other; the rows it tells of point
to it and settle with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, case, desc, func, not_, or_, select, update

from schemas.notifications import ChannelKind, HeldFor, Notification
from schemas.reports import Severity
from schemas.runs import DeliveryState
from store.deliveries import save_notification
from store.ledger import insert, plain, unpack
from store.subscribers import BATCH, find_records, wants_still
from store.tables import deliveries, events, notifications, runs

_FOR_DIGEST = and_(
    deliveries.c.held_for == HeldFor.DIGEST.value,
    # what no subscriber row holds the address of is told by itself
    deliveries.c.address.is_(None),
)


UNWANTED = "the preferences do not ask for it any more"
"""The reason of what was held, and is not told because of a wish changed meanwhile."""


def release_held(connection: Connection, now: datetime, limit: int) -> int:
    """Let go of deliveries whose quiet time is over, the longest due first; return how many.

    What its subscriber has ceased to ask for is suppressed instead.  The others
    are pending and due, so the same sweep's ``claim_due`` starts them.
    """
    return _release(connection, or_(deliveries.c.held_for.is_(None), not_(_FOR_DIGEST)), now, limit)


@dataclass(frozen=True, slots=True)
class DueDigest:
    """What waits for one subscriber on one channel, and the latest time it was due."""

    subscriber_id: str
    channel: ChannelKind
    due_at: datetime
    members: int


def due_digests(connection: Connection, now: datetime, limit: int) -> list[DueDigest]:
    """The digests that are due, the longest due first."""
    rows = connection.execute(
        select(
            deliveries.c.subscriber_id,
            deliveries.c.channel,
            func.max(deliveries.c.due_at),
            func.count(),
        )
        .where(_FOR_DIGEST, *_waiting(now))
        .group_by(deliveries.c.subscriber_id, deliveries.c.channel)
        .order_by(func.min(deliveries.c.due_at), deliveries.c.subscriber_id, deliveries.c.channel)
        .limit(limit)
    )
    return [
        DueDigest(subscriber_id, ChannelKind(channel), due_at, count)
        for subscriber_id, channel, due_at, count in rows
    ]


def drop_unwanted(connection: Connection, due: DueDigest, now: datetime) -> int:
    """Suppress what a digest was to tell of and its subscriber has ceased to ask for."""
    return _drop(connection, and_(_FOR_DIGEST, *_of(due), *_waiting(now)), now)


def release_single(connection: Connection, due: DueDigest, now: datetime) -> int:
    """Let a digest of one go out as the notification it is."""
    whose = and_(_FOR_DIGEST, *_of(due))
    return _release(connection, whose, now, due.members)


@dataclass(frozen=True, slots=True)
class Merged:
    """What a digest tells of: how many of each severity, and the first of them in full."""

    counts: dict[Severity, int]
    listed: tuple[Notification, ...]

    @property
    def total(self) -> int:
        """How many notifications it tells of."""
        return sum(self.counts.values())


def merge_members(
    connection: Connection, due: DueDigest, digest_id: str, now: datetime, listed: int
) -> Merged:
    """Claim what waits for a digest, and say what it is: ``listed`` of them, the most severe first.

    The claim comes before the look, so two sweeps never tell of the same row.
    However many there are, no more than ``listed`` are read.
    """
    connection.execute(
        update(deliveries)
        .where(_FOR_DIGEST, *_of(due), *_waiting(now))
        .values(merged_into=digest_id, reason=plain(f"told by the digest {digest_id}"))
    )
    members = (
        select(notifications.c.severity, func.count())
        .join(deliveries, deliveries.c.event_key == notifications.c.event_key)
        .where(deliveries.c.merged_into == digest_id)
    )
    counts = connection.execute(members.group_by(notifications.c.severity)).all()
    rank = case(
        {severity.value: severity.rank for severity in Severity}, value=notifications.c.severity
    )
    first = connection.execute(
        select(notifications.c.content)
        .join(deliveries, deliveries.c.event_key == notifications.c.event_key)
        .where(deliveries.c.merged_into == digest_id)
        .order_by(desc(rank), desc(notifications.c.created_at), notifications.c.event_key)
        .limit(listed)
    ).scalars()
    return Merged(
        counts={Severity(name): count for name, count in counts},
        listed=tuple(msgspec.json.decode(unpack(content), type=Notification) for content in first),
    )


def save_digest(
    connection: Connection,
    due: DueDigest,
    digest_id: str,
    now: datetime,
    notification: Callable[[str], Notification],
) -> None:
    """Write a digest and its delivery, pending and due.  ``notification`` is given its event key.

    A row that was planned while its digest went out comes late, and makes a
    second digest of the same due time: that one's key also holds its own id.
    """
    key = f"digest:{due.subscriber_id}:{due.channel}:{due.due_at:%Y-%m-%dT%H:%MZ}"
    told = notification(key)
    if not save_notification(connection, told, None, now):
        told = notification(f"{key}:{digest_id}")
        save_notification(connection, told, None, now)
    connection.execute(
        insert(connection, deliveries).values(
            delivery_id=digest_id,
            subscriber_id=due.subscriber_id,
            channel=due.channel.value,
            event_key=told.event_key,
            state=DeliveryState.PENDING.value,
            tries=0,
            due_at=now,
            created_at=now,
        )
    )


def count_held(connection: Connection, subscriber_id: str) -> dict[str, int]:
    """How many deliveries wait for one subscriber, by what they are held for."""
    rows = connection.execute(
        select(deliveries.c.held_for, func.count())
        .where(
            deliveries.c.subscriber_id == subscriber_id,
            deliveries.c.state == DeliveryState.HELD.value,
            deliveries.c.merged_into.is_(None),
        )
        .group_by(deliveries.c.held_for)
    )
    return dict(rows.all())


def _release(connection: Connection, which: ColumnElement[bool], now: datetime, limit: int) -> int:
    due = list(
        connection.execute(
            select(deliveries.c.delivery_id)
            .where(which, *_waiting(now))
            .order_by(deliveries.c.due_at, deliveries.c.delivery_id)
            .limit(limit)
        ).scalars()
    )
    _drop(connection, deliveries.c.delivery_id.in_(due), now)
    return connection.execute(
        update(deliveries)
        .where(deliveries.c.delivery_id.in_(due), *_waiting(now))
        .values(state=DeliveryState.PENDING.value, lease_until=None)
    ).rowcount


def _drop(connection: Connection, which: ColumnElement[bool], now: datetime) -> int:
    """Suppress the rows whose subscriber's wishes have changed since and exclude them now.

    Nothing is decoded but of those whose subscriber was changed at all.
    """
    rows = (
        select(
            deliveries.c.delivery_id,
            deliveries.c.subscriber_id,
            deliveries.c.event_key,
            deliveries.c.created_at,
        )
        .where(which, deliveries.c.address.is_(None))
        .order_by(deliveries.c.delivery_id)
        .limit(BATCH)
    )
    page, dropped = rows, 0
    while found := connection.execute(page).all():
        records = find_records(connection, list({row.subscriber_id for row in found}))
        doubtful = [
            row
            for row in found
            if (record := records.get(row.subscriber_id)) is not None
            and (record.changed_at is None or record.changed_at > row.created_at)
        ]
        news = _news(connection, [row.event_key for row in doubtful])
        unwanted = [
            row.delivery_id
            for row in doubtful
            if not wants_still(
                records[row.subscriber_id].subscriber,
                news[row.event_key].notification,
                news[row.event_key].owner,
                by_run=news[row.event_key].by_run,
            )
        ]
        dropped += connection.execute(
            update(deliveries)
            .where(deliveries.c.delivery_id.in_(unwanted), *_waiting(now))
            .values(
                state=DeliveryState.SUPPRESSED.value,
                reason=UNWANTED,
                settled_at=now,
                lease_until=None,
            )
        ).rowcount
        page = rows.where(deliveries.c.delivery_id > found[-1].delivery_id)
    return dropped


@dataclass(frozen=True, slots=True)
class _News:
    notification: Notification
    by_run: bool
    owner: str | None


def _news(connection: Connection, event_keys: list[str]) -> dict[str, _News]:
    rows = connection.execute(
        select(
            notifications.c.event_key,
            notifications.c.content,
            notifications.c.run_id,
            events.c.user_id,
        )
        .outerjoin(runs, runs.c.run_id == notifications.c.run_id)
        .outerjoin(events, events.c.event_pk == runs.c.event_pk)
        .where(notifications.c.event_key.in_(event_keys))
    )
    return {
        key: _News(msgspec.json.decode(unpack(content), type=Notification), bool(run_id), owner)
        for key, content, run_id, owner in rows
    }


def _of(due: DueDigest) -> tuple[ColumnElement[bool], ...]:
    return (
        deliveries.c.subscriber_id == due.subscriber_id,
        deliveries.c.channel == due.channel.value,
    )


def _waiting(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Held, told by nothing yet, and due."""
    return (
        deliveries.c.state == DeliveryState.HELD.value,
        deliveries.c.merged_into.is_(None),
        deliveries.c.due_at <= now,
    )

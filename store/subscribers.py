"""Subscribers: who is told what, and where.  Addresses leave this file decrypted."""

from __future__ import annotations

from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, delete, select

from schemas.events import EventType
from schemas.notifications import ChannelAddress, Notification, Subscriber
from schemas.reports import Severity
from store.ledger import insert
from store.secrets import SecretBox
from store.tables import subscribers


def save_subscriber(
    connection: Connection, subscriber: Subscriber, box: SecretBox, now: datetime
) -> bool:
    """Add a subscriber, or replace the one with this id.  True if it is new."""
    known = connection.execute(
        select(subscribers.c.subscriber_id).where(
            subscribers.c.subscriber_id == subscriber.subscriber_id
        )
    ).one_or_none()
    values: dict[str, Any] = {
        "user_id": subscriber.user_id,
        "channels": seal_addresses(subscriber.channels, box),
        "preferences": {
            "events": list(subscriber.events),
            "domains": list(subscriber.domains),
            "min_severity": subscriber.min_severity.value,
        },
        "paused": subscriber.paused,
    }
    connection.execute(
        insert(connection, subscribers)
        .values(subscriber_id=subscriber.subscriber_id, created_at=now, **values)
        .on_conflict_do_update(index_elements=[subscribers.c.subscriber_id], set_=values)
    )
    return known is None


def remove_subscriber(connection: Connection, subscriber_id: str) -> bool:
    """Forget a subscriber; what was sent stays on record.  False if there was none."""
    return bool(
        connection.execute(
            delete(subscribers).where(subscribers.c.subscriber_id == subscriber_id)
        ).rowcount
    )


def list_subscribers(connection: Connection, box: SecretBox) -> list[Subscriber]:
    """All subscribers, by id."""
    rows = connection.execute(select(subscribers).order_by(subscribers.c.subscriber_id)).mappings()
    return [_subscriber(row, box) for row in rows]


def find_subscriber(
    connection: Connection, subscriber_id: str, box: SecretBox
) -> Subscriber | None:
    """One subscriber, or None."""
    row = (
        connection.execute(select(subscribers).where(subscribers.c.subscriber_id == subscriber_id))
        .mappings()
        .one_or_none()
    )
    return None if row is None else _subscriber(row, box)


def subscribers_of_user(connection: Connection, user_id: str, box: SecretBox) -> list[Subscriber]:
    """The subscribers that belong to one user of the platform."""
    rows = connection.execute(
        select(subscribers)
        .where(subscribers.c.user_id == user_id)
        .order_by(subscribers.c.subscriber_id)
    ).mappings()
    return [_subscriber(row, box) for row in rows]


def wants(subscriber: Subscriber, notification: Notification, owner: str | None) -> bool:
    """Whether a subscriber is to be told.

    The owner of a scan is told even where no subscription matches; operators'
    alerts go to nobody who did not ask for them by name.
    """
    if notification.type is EventType.OPERATOR_ALERT:
        return notification.type.value in subscriber.events
    if owner is not None and subscriber.user_id == owner:
        return True
    return (
        (not subscriber.events or notification.type.value in subscriber.events)
        and notification.severity.rank >= subscriber.min_severity.rank
        and _domain_matches(subscriber.domains, notification.domain)
    )


def seal_addresses(channels: tuple[ChannelAddress, ...], box: SecretBox) -> bytes:
    """Addresses as they are kept."""
    return box.seal(msgspec.json.encode(channels))


def open_addresses(sealed: bytes, box: SecretBox) -> tuple[ChannelAddress, ...]:
    """Undo ``seal_addresses``."""
    return msgspec.json.decode(box.open(sealed), type=tuple[ChannelAddress, ...])


def _domain_matches(globs: tuple[str, ...], domain: str | None) -> bool:
    if not globs:
        return True
    return domain is not None and any(fnmatchcase(domain.lower(), glob.lower()) for glob in globs)


def _subscriber(row: RowMapping, box: SecretBox) -> Subscriber:
    preferences = row["preferences"]
    return Subscriber(
        subscriber_id=row["subscriber_id"],
        user_id=row["user_id"],
        channels=open_addresses(row["channels"], box),
        events=tuple(preferences["events"]),
        domains=tuple(preferences["domains"]),
        min_severity=Severity(preferences["min_severity"]),
        paused=row["paused"],
    )

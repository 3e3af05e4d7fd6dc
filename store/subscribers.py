"""Subscribers: who is told what, and where.  Addresses leave this file decrypted.

Matching reads everybody's preferences, in batches, and decrypts the addresses of
those alone who are to be told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, Text, bindparam, cast, delete, select, update

from schemas.errors import InvalidSettings, PermanentError
from schemas.events import EventType
from schemas.notifications import (
    ChannelAddress,
    ChannelKind,
    Digest,
    Notification,
    QuietHours,
    Subscriber,
)
from schemas.reports import Severity
from schemas.runs import DeliveryState
from store.endpoints import enable_endpoint, forget_endpoints
from store.ledger import Ledger, insert, plain
from store.secrets import SecretBox
from store.tables import deliveries, subscribers

BATCH = 500
"""Rows of one look."""

_OPEN = [
    DeliveryState.PENDING.value,
    DeliveryState.HELD.value,
    DeliveryState.SENDING.value,
]

CLOSED = ""
"""The target of an address that no key opens.  It is planned for, and never sent to or saved."""

MAX_USER_ID = 255
"""Characters."""


class _Preferences(msgspec.Struct, frozen=True, kw_only=True):
    """The column of this name.  Rows of an earlier release lack what has a default."""

    events: tuple[str, ...]
    domains: tuple[str, ...]
    min_severity: Severity
    quiet_hours: QuietHours | None = None
    digest: Digest = Digest()
    locale: str | None = None
    attach: tuple[str, ...] = ()
    changed_at: datetime | None = None


_preferences = msgspec.json.Decoder(_Preferences)

_WILD = re.compile(r"[*?\[]")

_COLUMNS = (
    subscribers.c.subscriber_id,
    subscribers.c.user_id,
    subscribers.c.channels,
    subscribers.c.kinds,
    cast(subscribers.c.preferences, Text).label("preferences"),  # decoded here, into types
    subscribers.c.paused,
    subscribers.c.created_at,
)


def save_subscriber(
    connection: Connection, subscriber: Subscriber, box: SecretBox, now: datetime
) -> bool:
    """Add a subscriber, or replace the one with this id.  True if it is new.

    An address that is another than before starts with a clean record: what the
    old one failed at is not its fault.
    """
    known = connection.execute(
        select(subscribers.c.channels).where(
            subscribers.c.subscriber_id == subscriber.subscriber_id
        )
    ).one_or_none()
    if known is not None:
        for kind in _changed(known.channels, subscriber.channels, box):
            enable_endpoint(connection, subscriber.subscriber_id, kind)
    values: dict[str, Any] = {
        "user_id": subscriber.user_id,
        "channels": seal_addresses(subscriber.channels, box),
        "kinds": [address.kind.value for address in subscriber.channels],
        "preferences": kept_preferences(subscriber, now),
        "paused": subscriber.paused,
    }
    connection.execute(
        insert(connection, subscribers)
        .values(subscriber_id=subscriber.subscriber_id, created_at=now, **values)
        .on_conflict_do_update(index_elements=[subscribers.c.subscriber_id], set_=values)
    )
    return known is None


def kept_preferences(subscriber: Subscriber, now: datetime) -> dict[str, Any]:
    """What a row keeps of a subscriber's wishes."""
    return msgspec.to_builtins(  # type: ignore[no-any-return]  # a dict, of a struct
        _Preferences(
            events=subscriber.events,
            domains=subscriber.domains,
            min_severity=subscriber.min_severity,
            quiet_hours=subscriber.quiet_hours,
            digest=subscriber.digest,
            locale=subscriber.locale,
            attach=subscriber.attach,
            changed_at=now,
        )
    )


def _changed(
    sealed: bytes, addresses: tuple[ChannelAddress, ...], box: SecretBox
) -> list[ChannelKind]:
    """The channels whose address is another now; all of them where no key opens the old ones."""
    try:
        old = {address.kind: address.target for address in open_addresses(sealed, box)}
    except PermanentError:
        old = {}
    return [address.kind for address in addresses if old.get(address.kind) != address.target]


REMOVED = "the subscriber was removed"
"""The reason of what was not sent, or not again, because its subscriber is gone."""


def remove_subscriber(connection: Connection, subscriber_id: str, now: datetime) -> bool:
    """Forget a subscriber; what was sent stays on record.  False if there was none.

    What waits for them ends here, so that whoever is given the name next gets none
    of it.  A send that is under way may still arrive; its row says removed, its
    attempt says what came of it, and no other try is made.
    """
    forget_endpoints(connection, subscriber_id)
    connection.execute(
        update(deliveries)
        .where(
            deliveries.c.subscriber_id == subscriber_id,
            deliveries.c.address.is_(None),  # else it was never a subscriber's
            deliveries.c.state.in_(_OPEN),
        )
        .values(
            state=DeliveryState.SUPPRESSED.value,
            reason=REMOVED,
            settled_at=now,
            lease_until=None,
            slot_at=None,
        )
    )
    return bool(
        connection.execute(
            delete(subscribers).where(subscribers.c.subscriber_id == subscriber_id)
        ).rowcount
    )


def list_subscribers(connection: Connection, box: SecretBox) -> list[Subscriber]:
    """All subscribers, by id; an address that no key opens is CLOSED."""
    rows = connection.execute(select(*_COLUMNS).order_by(subscribers.c.subscriber_id)).mappings()
    return [
        msgspec.structs.replace(_subscriber(row), channels=_planned_for(row, box)) for row in rows
    ]


def find_subscriber(
    connection: Connection, subscriber_id: str, box: SecretBox
) -> Subscriber | None:
    """One subscriber, or None.  Raises InvalidSettings where no key opens the addresses."""
    row = _row(connection, subscriber_id)
    return None if row is None else _subscriber(row, box)


@dataclass(frozen=True, slots=True)
class SubscriberRecord:
    """A subscriber without addresses, and since when: what a decision is explained by."""

    subscriber: Subscriber
    created_at: datetime
    changed_at: datetime | None
    """None: not since an earlier release, which did not note it."""


def find_record(connection: Connection, subscriber_id: str) -> SubscriberRecord | None:
    """One subscriber's record, or None.  Nothing is decrypted."""
    row = _row(connection, subscriber_id)
    return None if row is None else _record(row)


def find_records(
    connection: Connection, subscriber_ids: Sequence[str]
) -> dict[str, SubscriberRecord]:
    """The records of those of these who are subscribers.  At most some hundreds."""
    rows = connection.execute(
        select(*_COLUMNS).where(subscribers.c.subscriber_id.in_(subscriber_ids))
    ).mappings()
    return {row["subscriber_id"]: _record(row) for row in rows}


def subscribers_of_users(
    connection: Connection, user_ids: Sequence[str], notification: Notification, box: SecretBox
) -> list[Subscriber]:
    """Those of these users' subscribers who want news of its type, by id.

    At most some hundreds of users.  An id that no row could hold is nobody's.
    """
    askable = [user_id for user_id in user_ids if plain(user_id, MAX_USER_ID) == user_id]
    rows = connection.execute(
        select(*_COLUMNS)
        .where(subscribers.c.user_id.in_(askable))
        .order_by(subscribers.c.subscriber_id)
    ).mappings()
    told = [(row, _subscriber(row)) for row in rows]
    return [
        msgspec.structs.replace(subscriber, channels=_planned_for(row, box))
        for row, subscriber in told
        if wants_type(subscriber, notification)
    ]


_PAGE = (
    select(*_COLUMNS)
    .where(subscribers.c.subscriber_id > bindparam("behind"))
    .order_by(subscribers.c.subscriber_id)
    .limit(BATCH)
)
"""Built once: building costs more than executing."""


def match_subscribers(
    connection: Connection, told: Sequence[Notification], owner: str | None, box: SecretBox
) -> Iterator[tuple[Subscriber, list[Notification]]]:
    """Everybody who wants any of the news, by id, with those that they want.

    Reads BATCH rows at a time: ten thousand subscribers cost no memory.
    """
    last = ""
    while True:
        rows = connection.execute(_PAGE, {"behind": last}).mappings().all()
        for row in rows:
            subscriber = _subscriber(row)
            wanted = [item for item in told if wants(subscriber, item, owner)]
            if wanted:
                yield msgspec.structs.replace(subscriber, channels=_planned_for(row, box)), wanted
        if len(rows) < BATCH:
            return
        last = rows[-1]["subscriber_id"]


def wants(subscriber: Subscriber, notification: Notification, owner: str | None) -> bool:
    """Whether a subscriber is to be told.

    The owner of a scan is told even where no subscription matches; operators'
    alerts go to nobody who did not ask for them by name.
    """
    if notification.type is EventType.OPERATOR_ALERT:
        return notification.type.value in subscriber.events
    return owns(subscriber, owner) or (
        wants_type(subscriber, notification)
        and wants_severity(subscriber, notification)
        and wants_domain(subscriber, notification)
    )


def wants_still(
    subscriber: Subscriber, notification: Notification, owner: str | None, *, by_run: bool
) -> bool:
    """Whether a subscriber who was to be told is still to be.

    A digest is theirs anyway, and what a task told them by their name they are told
    if they ask for its type: such news have no filters of domain and severity.
    """
    if notification.type is EventType.NOTIFICATION_DIGEST:
        return True
    if by_run or notification.type is EventType.OPERATOR_ALERT:
        return wants(subscriber, notification, owner)
    return wants_type(subscriber, notification)


def owns(subscriber: Subscriber, owner: str | None) -> bool:
    """Whether the scan is the subscriber's own."""
    return owner is not None and subscriber.user_id == owner


def wants_type(subscriber: Subscriber, notification: Notification) -> bool:
    """Whether the event's type is asked for."""
    return not subscriber.events or notification.type.value in subscriber.events


def wants_severity(subscriber: Subscriber, notification: Notification) -> bool:
    """Whether it is severe enough."""
    weight = notification.weighs or notification.severity
    return weight.rank >= subscriber.min_severity.rank


def wants_domain(subscriber: Subscriber, notification: Notification) -> bool:
    """Whether a glob matches; news of no domain only reaches those who asked for all."""
    if not subscriber.domains:
        return True
    if notification.domain is None:
        return False
    domain = notification.domain.lower()
    return any(_matches(glob.lower(), domain) for glob in subscriber.domains)


def seal_addresses(channels: tuple[ChannelAddress, ...], box: SecretBox) -> bytes:
    """Addresses as they are kept."""
    return box.seal(msgspec.json.encode(channels))


def _planned_for(row: RowMapping, box: SecretBox) -> tuple[ChannelAddress, ...]:
    """A row's addresses; CLOSED ones where no key opens them, so that what is planned waits.

    Raises InvalidSettings where not even their channels are known.
    """
    try:
        return open_addresses(row["channels"], box)
    except InvalidSettings as error:
        if row["kinds"] is None:  # of an earlier release, whose key was lost before this one came
            raise InvalidSettings(f"subscriber {row['subscriber_id']}: {error}") from error
        return tuple(ChannelAddress(kind=ChannelKind(kind), target=CLOSED) for kind in row["kinds"])


def note_kinds(ledger: Ledger, box: SecretBox) -> int:
    """Fill in the channels of rows that an earlier release wrote; how many.

    What no key opens is left as it is.  Safe to repeat, and beside other writers.
    """
    noted = 0
    with ledger.read() as connection:
        rows = connection.execute(
            select(subscribers.c.subscriber_id, subscribers.c.channels).where(
                subscribers.c.kinds.is_(None)
            )
        ).all()
    for subscriber_id, sealed in rows:
        if not box.opens(sealed):
            continue
        kinds = [address.kind.value for address in open_addresses(sealed, box)]
        with ledger.write() as connection:
            noted += connection.execute(
                update(subscribers)
                .where(subscribers.c.subscriber_id == subscriber_id)
                .where(subscribers.c.channels == sealed)
                .values(kinds=kinds)
            ).rowcount
    return noted


def open_addresses(sealed: bytes, box: SecretBox) -> tuple[ChannelAddress, ...]:
    """Undo ``seal_addresses``."""
    return _addresses.decode(box.open(sealed))


_addresses = msgspec.json.Decoder(tuple[ChannelAddress, ...])


def _matches(glob: str, domain: str) -> bool:
    """``fnmatchcase``, which keeps but 256 patterns compiled, with a short way for most globs."""
    end = glob.removeprefix("*")
    if _WILD.search(end):
        return fnmatchcase(domain, glob)
    return domain.endswith(end) if end != glob else domain == glob


def _row(connection: Connection, subscriber_id: str) -> RowMapping | None:
    return (
        connection.execute(select(*_COLUMNS).where(subscribers.c.subscriber_id == subscriber_id))
        .mappings()
        .one_or_none()
    )


def _record(row: RowMapping) -> SubscriberRecord:
    changed_at = _preferences.decode(row["preferences"]).changed_at
    return SubscriberRecord(_subscriber(row), row["created_at"], changed_at)


def _subscriber(row: RowMapping, box: SecretBox | None = None) -> Subscriber:
    """The subscriber of a row; without a box, without addresses."""
    preferences = _preferences.decode(row["preferences"])
    return Subscriber(
        subscriber_id=row["subscriber_id"],
        user_id=row["user_id"],
        channels=() if box is None else open_addresses(row["channels"], box),
        events=preferences.events,
        domains=preferences.domains,
        min_severity=preferences.min_severity,
        quiet_hours=preferences.quiet_hours,
        digest=preferences.digest,
        locale=preferences.locale,
        attach=preferences.attach,
        paused=row["paused"],
    )

"""Erasing one subscriber or one domain: what there is of them, page by page, and its deletion.

Names of what is found are returned before it is deleted, in the same
transaction: they are what a receipt is made of.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Text,
    cast,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)

from schemas.events import EventType
from schemas.notifications import ChannelKind, Notification
from schemas.runs import RunState
from store.events import DEAD_SOURCE
from store.in_use import UNSETTLED_RUN
from store.ledger import pack, unpack
from store.retention import reduce_events
from store.tables import (
    attempts,
    deliveries,
    endpoints,
    events,
    notifications,
    pacing,
    reports,
    runs,
    scans,
    standings,
    statistics,
    subscribers,
    violations,
)

Names = dict[str, list[str]]
"""What is or was there, by table: the names of its rows."""

ERASED = "(erased)"
"""What stands where a name was."""


@dataclass(frozen=True, slots=True)
class DomainEvent:
    """An event of a domain, and how the keys of its artifacts begin, where it brought a scan."""

    event_pk: int
    artifacts: tuple[str, ...]


def find_domain_events(
    connection: Connection, domain: str, after: int, limit: int
) -> list[DomainEvent]:
    """The events of a domain with a higher key than ``after``, in order.

    Of the domain are those that say so themselves, or whose scan does; upper and
    lower case are the same.
    """
    rows = connection.execute(
        select(events.c.event_pk, events.c.payload_sha256)
        .where(
            events.c.event_pk > after,
            or_(
                func.lower(events.c.subject) == domain.lower(),
                exists().where(
                    scans.c.event_pk == events.c.event_pk,
                    func.lower(scans.c.domain) == domain.lower(),
                ),
            ),
        )
        .order_by(events.c.event_pk)
        .limit(limit)
    ).all()
    scan_ids: dict[int, set[str]] = {row.event_pk: set() for row in rows}
    for table in (runs, scans):
        for event_pk, scan_id in connection.execute(
            select(table.c.event_pk, table.c.scan_id).where(
                table.c.event_pk.in_(scan_ids), table.c.scan_id.is_not(None)
            )
        ):
            scan_ids[event_pk].add(scan_id)
    return [
        DomainEvent(
            row.event_pk,
            # as tasks.reports.artifact_key begins, whichever run made them
            tuple(
                f"{scan_id}/{row.payload_sha256[:12]}-"
                for scan_id in sorted(scan_ids[row.event_pk])
            ),
        )
        for row in rows
    ]


def cancel_runs(connection: Connection, event_pks: Collection[int], now: datetime) -> int:
    """End these events' unfinished runs, so that no sweep starts them again; return how many.

    And retire the reports of their scans: their artifacts are deleted next.
    """
    cancelled = connection.execute(
        update(runs)
        .where(runs.c.event_pk.in_(event_pks), runs.c.state.in_(UNSETTLED_RUN))
        .values(
            state=RunState.CANCELLED.value,
            deadline=None,
            settled_at=now,
            last_error="cancelled: its domain is being erased",
        )
    ).rowcount
    connection.execute(
        update(events)
        .where(events.c.event_pk.in_(event_pks), events.c.outcome == "pending")
        .values(outcome="cancelled", reason="cancelled: its domain is being erased")
    )
    brought = select(scans.c.scan_id).where(scans.c.event_pk.in_(event_pks))
    connection.execute(
        update(reports).where(reports.c.scan_id.in_(brought)).values(status="expired")
    )
    return cancelled


def names_of_events(connection: Connection, event_pks: Collection[int]) -> Names:
    """What goes with these events."""
    brought = select(scans.c.scan_id).where(scans.c.event_pk.in_(event_pks))
    return {
        "events": [str(event_pk) for event_pk in event_pks],
        "runs": _names(connection, runs.c.run_id, runs.c.event_pk.in_(event_pks)),
        "scans": _names(connection, scans.c.scan_id, scans.c.event_pk.in_(event_pks)),
        "reports": _names(connection, reports.c.report_id, reports.c.scan_id.in_(brought)),
    }


def erase_events(connection: Connection, event_pks: Sequence[int], now: datetime) -> None:
    """Leave of events their bare identity, ``erased``; their runs, scans and reports go.

    A redelivered entry, or the same event published again, is a repeat of that.
    """
    reason = f"erased on {now:%Y-%m-%d %H:%M} UTC"
    reduce_events(connection, event_pks, outcome="erased", reason=reason)


def find_domain_news(connection: Connection, domain: str, after: str, limit: int) -> list[str]:
    """Event keys of what was told of a domain, in order."""
    return list(
        connection.execute(
            select(notifications.c.event_key)
            .where(
                notifications.c.event_key > after,
                func.lower(notifications.c.domain) == domain.lower(),
            )
            .order_by(notifications.c.event_key)
            .limit(limit)
        ).scalars()
    )


def names_of_news(connection: Connection, event_keys: Collection[str]) -> Names:
    """What goes with these notifications."""
    theirs = select(deliveries.c.delivery_id).where(deliveries.c.event_key.in_(event_keys))
    return {
        "notifications": list(event_keys),
        "deliveries": list(connection.execute(theirs).scalars()),
        "attempts": _names(connection, attempts.c.attempt_pk, attempts.c.delivery_id.in_(theirs)),
    }


def erase_news(connection: Connection, event_keys: Collection[str], domain: str) -> None:
    """Delete notifications with their keys, deliveries in any state and attempts.

    Digests that tell of them stay for what else they tell of, without their lines.
    The keys go because the violations go: what a later scan finds is new, and its
    key must not have been told before.
    """
    theirs = select(deliveries.c.delivery_id).where(deliveries.c.event_key.in_(event_keys))
    digests = select(deliveries.c.merged_into).where(
        deliveries.c.event_key.in_(event_keys), deliveries.c.merged_into.is_not(None)
    )
    told_by = select(deliveries.c.event_key).where(deliveries.c.delivery_id.in_(digests))
    _rewrite(
        connection, notifications.c.event_key.in_(told_by), lambda told: _without(told, domain)
    )
    connection.execute(delete(attempts).where(attempts.c.delivery_id.in_(theirs)))
    connection.execute(delete(deliveries).where(deliveries.c.event_key.in_(event_keys)))
    connection.execute(delete(notifications).where(notifications.c.event_key.in_(event_keys)))


def names_of_domain(connection: Connection, domain: str) -> Names:
    """What is kept of a domain by its name alone."""
    return {
        "violations": _names(
            connection, violations.c.fingerprint, func.lower(violations.c.domain) == domain.lower()
        ),
        "standings": _names(
            connection, standings.c.scan_id, func.lower(standings.c.domain) == domain.lower()
        ),
        "statistics": _names(connection, statistics.c.statistic_pk, _figures_name(domain)),
    }


def erase_domain_rows(connection: Connection, domain: str) -> None:
    """Delete what ``names_of_domain`` names."""
    for table in (violations, standings):
        connection.execute(delete(table).where(func.lower(table.c.domain) == domain.lower()))
    connection.execute(delete(statistics).where(_figures_name(domain)))


def find_dead_letters(
    connection: Connection, domain: str, after: int, limit: int
) -> tuple[list[int], int | None]:
    """Of the next dead letters those whose kept bytes name a domain; where to look on, or None.

    Nobody could decode them, so the name is looked for as it is written.
    """
    rows = connection.execute(
        select(events.c.event_pk, events.c.payload)
        .where(
            events.c.event_pk > after,
            events.c.source.startswith(DEAD_SOURCE),
            events.c.outcome == "dead",
            events.c.payload.is_not(None),
        )
        .order_by(events.c.event_pk)
        .limit(limit)
    ).all()
    wanted = domain.lower().encode()
    found = [row.event_pk for row in rows if wanted in unpack(row.payload).lower()]
    return found, rows[-1].event_pk if len(rows) == limit else None


@dataclass(frozen=True, slots=True)
class Person:
    """Whom to erase.

    ``user_id`` is their platform id, where no other subscriber has it; ``ids``
    are all names under which deliveries were made to them.
    """

    ids: tuple[str, ...]
    user_id: str | None
    is_subscriber: bool


def find_person(connection: Connection, subscriber_id: str) -> Person:
    """A subscriber's row, or only their deliveries, where the row was removed before."""
    row = connection.execute(
        select(subscribers.c.user_id).where(subscribers.c.subscriber_id == subscriber_id)
    ).one_or_none()
    user_id = None if row is None else row.user_id
    shared = user_id is not None and (
        connection.execute(
            select(subscribers.c.subscriber_id).where(
                subscribers.c.user_id == user_id, subscribers.c.subscriber_id != subscriber_id
            )
        ).first()
        is not None
    )
    if user_id is None or shared:
        return Person((subscriber_id,), None, row is not None)
    # as tasks.preferences names those who are told by their user id
    return Person((subscriber_id, f"direct:{user_id}"), user_id, True)


def erase_person(connection: Connection, person: Person) -> Names:
    """Delete all but the deliveries of a person; return what it was.

    To come first: from now on nobody plans a delivery to them.
    """
    name = person.ids[0]
    names = names_of_person(connection, person)
    connection.execute(delete(subscribers).where(subscribers.c.subscriber_id == name))
    connection.execute(delete(endpoints).where(endpoints.c.subscriber_id.in_(person.ids)))
    connection.execute(delete(pacing).where(pacing.c.pace_key.in_(_paces(person))))
    if person.user_id is not None:
        connection.execute(
            update(events).where(events.c.user_id == person.user_id).values(user_id=None)
        )
    _rewrite(
        connection,
        notifications.c.type == EventType.OPERATOR_ALERT.value,
        lambda told: _unnamed(told, name),
    )
    return names


def names_of_person(connection: Connection, person: Person) -> Names:
    """What ``erase_person`` deletes; ``owners`` are events that lose their owner's id."""
    return {
        "subscribers": _names(
            connection,
            subscribers.c.subscriber_id,
            subscribers.c.subscriber_id == person.ids[0],
        ),
        "endpoints": _names(
            connection, endpoints.c.channel, endpoints.c.subscriber_id.in_(person.ids)
        ),
        "pacing": _names(connection, pacing.c.pace_key, pacing.c.pace_key.in_(_paces(person))),
        "owners": []
        if person.user_id is None
        else _names(connection, events.c.event_pk, events.c.user_id == person.user_id),
    }


def find_deliveries_to(connection: Connection, person: Person, after: str, limit: int) -> list[str]:
    """Ids of deliveries to a person, in any state, in order."""
    return list(
        connection.execute(
            select(deliveries.c.delivery_id)
            .where(deliveries.c.subscriber_id.in_(person.ids), deliveries.c.delivery_id > after)
            .order_by(deliveries.c.delivery_id)
            .limit(limit)
        ).scalars()
    )


def names_of_deliveries(connection: Connection, delivery_ids: Collection[str]) -> Names:
    """What goes with these deliveries of one person: their digests' and their own news, too."""
    own = _own_news(delivery_ids)
    return {
        "deliveries": list(delivery_ids),
        "attempts": _names(
            connection, attempts.c.attempt_pk, attempts.c.delivery_id.in_(delivery_ids)
        ),
        "notifications": _names(connection, notifications.c.event_key, own),
        "pacing": _names(
            connection, pacing.c.pace_key, pacing.c.pace_key.in_(_destinations(delivery_ids))
        ),
    }


def erase_deliveries(connection: Connection, delivery_ids: Collection[str]) -> None:
    """Delete deliveries in any state, with what was said to this person alone.

    Of that, a digest's key is theirs, and goes; the key of what the platform asked
    to be told is its own, and stays, without content: it is told once.
    """
    keys = list(
        connection.execute(
            select(notifications.c.event_key).where(_own_news(delivery_ids))
        ).scalars()
    )
    connection.execute(delete(pacing).where(pacing.c.pace_key.in_(_destinations(delivery_ids))))
    connection.execute(delete(attempts).where(attempts.c.delivery_id.in_(delivery_ids)))
    connection.execute(delete(deliveries).where(deliveries.c.delivery_id.in_(delivery_ids)))
    connection.execute(
        delete(notifications).where(
            notifications.c.event_key.in_(keys),
            notifications.c.type == EventType.NOTIFICATION_DIGEST.value,
        )
    )
    connection.execute(
        update(notifications).where(notifications.c.event_key.in_(keys)).values(content=b"")
    )


def _own_news(delivery_ids: Collection[str]) -> ColumnElement[bool]:
    """News of no run and no alert, of which these are the only deliveries."""
    theirs = deliveries.alias("theirs")
    others = deliveries.alias("others")
    return (
        notifications.c.run_id.is_(None)
        & (notifications.c.type != EventType.OPERATOR_ALERT.value)
        & exists().where(
            theirs.c.event_key == notifications.c.event_key,
            theirs.c.delivery_id.in_(delivery_ids),
        )
        & ~exists().where(
            others.c.event_key == notifications.c.event_key,
            others.c.delivery_id.not_in(delivery_ids),
        )
    )


def _destinations(delivery_ids: Collection[str]) -> Select[Any]:
    """The pace keys of hosts that these deliveries went to: a host may be a person's own.

    Whoever else sends there gets a new row.  The mail server is everybody's.
    """
    return select(deliveries.c.destination).where(
        deliveries.c.delivery_id.in_(delivery_ids),
        deliveries.c.destination.is_not(None),
        deliveries.c.destination.not_like("smtp:%"),
    )


def _paces(person: Person) -> list[str]:
    return [f"subscriber:{name}:{kind.value}" for name in person.ids for kind in ChannelKind]


def _figures_name(domain: str) -> ColumnElement[bool]:
    return func.lower(cast(statistics.c.figures, Text)).contains(domain.lower(), autoescape=True)


def _rewrite(
    connection: Connection,
    which: ColumnElement[bool],
    change: Callable[[Notification], Notification],
) -> None:
    """Say something else in these notifications, where ``change`` does."""
    rows = connection.execute(
        select(notifications.c.event_key, notifications.c.content).where(which)
    ).all()
    for event_key, content in rows:
        if not content:
            continue
        told = msgspec.json.decode(unpack(content), type=Notification)
        changed = change(told)
        if changed != told:
            connection.execute(
                update(notifications)
                .where(notifications.c.event_key == event_key)
                .values(content=pack(msgspec.json.encode(changed)))
            )


def _without(told: Notification, domain: str) -> Notification:
    lines = tuple(line for line in told.lines if (line.domain or "").lower() != domain.lower())
    return msgspec.structs.replace(told, lines=lines)


def _unnamed(told: Notification, name: str) -> Notification:
    """An alert of addresses that says of one subscriber only that there was one."""
    known = [str(item) for item in told.data.get("such_as", ())]
    such_as = [ERASED if item.startswith(f"{name} (") else item for item in known]
    if such_as == known:
        return told
    facts = tuple(
        msgspec.structs.replace(fact, value=", ".join(such_as)) if fact.label == "such_as" else fact
        for fact in told.facts
    )
    return msgspec.structs.replace(told, facts=facts, data={**told.data, "such_as": such_as})


def _names(
    connection: Connection, column: ColumnElement[object], which: ColumnElement[bool]
) -> list[str]:
    found = connection.execute(select(column).where(which).order_by(column)).scalars()
    return [str(name) for name in found]

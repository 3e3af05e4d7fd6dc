"""What the ledger knows of who was told of something: the facts of one decision.

Read-only.  What is asked for may be an event key, a scan, a run, or an event by
its own id or that of its entry.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import Connection, RowMapping, func, or_, select

from schemas.errors import NotFound
from schemas.events import EventType
from schemas.notifications import Notification
from schemas.reports import Severity
from schemas.runs import RunState
from schemas.violations import Violation
from store.in_use import SETTLED_DELIVERY
from store.ledger import unpack
from store.subscribers import SubscriberRecord, find_record
from store.tables import attempts, deliveries, events, notifications, runs, scans, standings
from store.violations import violations_of

MAX_RUNS = 20
"""A scan may have been replayed often; the newest runs say enough."""

_TOLD_BEFORE = re.compile(r"told before: (.+)")


@dataclass(frozen=True, slots=True)
class DeliveryFacts:
    """A delivery, its tries, and the digest that tells of it."""

    row: RowMapping
    tries: Sequence[RowMapping]
    digest: DeliveryFacts | None = None


@dataclass(frozen=True, slots=True)
class NewsFacts:
    """One notification, when it was told, whose scan it was, and one subscriber's deliveries."""

    notification: Notification
    told_at: datetime
    by_run: bool
    owner: str | None
    deliveries: Sequence[DeliveryFacts]
    complete: bool = True
    """A settled delivery as old as the news is on record, so none of it has been forgotten."""


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """A scan, and the violations of its domain as they are now."""

    scan_id: str
    domain: str
    finished_at: datetime
    """As violations take it: not after it was recorded."""
    score: int | None
    """None: not judged, or held because inconclusive."""
    settled_at: datetime | None
    """When the first of its runs was done; None: none is."""
    newest_scan_id: str | None
    """Which the domain's violations follow."""
    newest_finished_at: datetime | None
    violations: Sequence[Violation]


@dataclass(frozen=True, slots=True)
class Decision:
    """All that bears on whether one subscriber was told of what was asked for."""

    subscriber_id: str
    record: SubscriberRecord | None
    runs: Sequence[RowMapping]
    news: Sequence[NewsFacts]
    scan: ScanFacts | None = None
    """Of the newest run, where that is of one."""


def read_decision(connection: Connection, subscriber_id: str, asked: str) -> Decision:
    """The facts.  Raises NotFound if neither the subscriber nor what is asked for is known."""
    record = find_record(connection, subscriber_id)
    if record is None and not _was_ever_told(connection, subscriber_id):
        raise NotFound(f"no subscriber {subscriber_id!r}; see: scanherald subscribers list")
    found = _runs(connection, asked)
    keys = _event_keys(connection, asked, found)
    if not found and not keys:
        raise NotFound(
            f"no event key, scan, run, event or entry {asked!r}; see: scanherald runs, "
            "scanherald deliveries --json"
        )
    return Decision(
        subscriber_id,
        record,
        found,
        [_news(connection, subscriber_id, key) for key in keys],
        _scan(connection, found),
    )


def _was_ever_told(connection: Connection, subscriber_id: str) -> bool:
    query = select(deliveries.c.delivery_id).where(deliveries.c.subscriber_id == subscriber_id)
    return connection.execute(query.limit(1)).first() is not None


def _runs(connection: Connection, asked: str) -> list[RowMapping]:
    """The runs that are meant, oldest first."""
    query = (
        select(
            runs.c.run_id,
            runs.c.scan_id,
            runs.c.kind,
            runs.c.state,
            runs.c.created_at,
            runs.c.settled_at,
            runs.c.last_error,
            events.c.type,
            events.c.user_id,
            events.c.reason,
        )
        .join(events, events.c.event_pk == runs.c.event_pk)
        .where(
            or_(
                runs.c.run_id == asked,
                runs.c.scan_id == asked,
                events.c.event_id == asked,
                events.c.entry_id == asked,
            )
        )
        .order_by(runs.c.created_at.desc(), runs.c.run_id)
        .limit(MAX_RUNS)
    )
    return list(connection.execute(query).mappings())[::-1]


def _event_keys(connection: Connection, asked: str, found: Sequence[RowMapping]) -> list[str]:
    """The keys of what was told, by these runs or, as they say, before them."""
    told = connection.execute(
        select(notifications.c.event_key)
        .where(
            or_(
                notifications.c.event_key == asked,
                notifications.c.run_id.in_([row["run_id"] for row in found]),
            )
        )
        .order_by(notifications.c.created_at, notifications.c.event_key)
    ).scalars()
    keys = list(told)
    said = [
        match[1].split(", ") for row in found if (match := _TOLD_BEFORE.search(row["reason"] or ""))
    ]
    before = [key for named in said for key in named if key not in keys]
    known = connection.execute(
        select(notifications.c.event_key).where(notifications.c.event_key.in_(before))
    ).scalars()
    return [*keys, *known]


def _news(connection: Connection, subscriber_id: str, event_key: str) -> NewsFacts:
    row = (
        connection.execute(
            select(
                notifications.c.content,
                notifications.c.created_at,
                notifications.c.run_id,
                notifications.c.type,
                notifications.c.domain,
                notifications.c.severity,
                events.c.user_id,
            )
            .outerjoin(runs, runs.c.run_id == notifications.c.run_id)
            .outerjoin(events, events.c.event_pk == runs.c.event_pk)
            .where(notifications.c.event_key == event_key)
        )
        .mappings()
        .one()
    )
    planned = connection.execute(
        select(*_COLUMNS)
        .where(deliveries.c.event_key == event_key, deliveries.c.subscriber_id == subscriber_id)
        .order_by(deliveries.c.channel)
    ).mappings()
    return NewsFacts(
        notification=_said(row, event_key),
        told_at=row["created_at"],
        by_run=row["run_id"] is not None,
        owner=row["user_id"],
        deliveries=[_facts(connection, delivery) for delivery in planned],
        complete=_is_complete(connection, row["created_at"]),
    )


def _is_complete(connection: Connection, told_at: datetime) -> bool:
    """Whether no cleanup can have forgotten a delivery of that time: it takes the oldest first."""
    older = select(deliveries.c.delivery_id).where(
        deliveries.c.state.in_(SETTLED_DELIVERY), deliveries.c.settled_at <= told_at
    )
    return connection.execute(older.limit(1)).first() is not None


def _scan(connection: Connection, found: Sequence[RowMapping]) -> ScanFacts | None:
    scan_id = found[-1]["scan_id"] if found else None
    if scan_id is None or found[-1]["type"] != EventType.SCAN_COMPLETED:
        return None
    row = connection.execute(
        select(
            scans.c.domain,
            scans.c.finished_at,
            scans.c.recorded_at,
            scans.c.score,
            standings.c.scan_id.label("newest"),
            standings.c.finished_at.label("newest_finished_at"),
        )
        .outerjoin(standings, standings.c.domain == scans.c.domain)
        .where(scans.c.scan_id == scan_id)
    ).one_or_none()
    if row is None:
        return None
    settled_at = connection.execute(
        select(func.min(runs.c.settled_at)).where(
            runs.c.scan_id == scan_id, runs.c.state == RunState.DONE.value
        )
    ).scalar_one()
    return ScanFacts(
        scan_id,
        row.domain,
        min(row.finished_at, row.recorded_at),
        row.score,
        settled_at,
        row.newest,
        row.newest_finished_at,
        violations_of(connection, row.domain),
    )


def _said(row: RowMapping, event_key: str) -> Notification:
    """What was told; of one whose content cleanup has deleted, what its row says still."""
    if row["content"]:
        return msgspec.json.decode(unpack(row["content"]), type=Notification)
    return Notification(
        event_key=event_key,
        type=EventType(row["type"]),
        occurred_at=row["created_at"],
        domain=row["domain"],
        scan_id=None,
        severity=Severity(row["severity"]),
        title="(what it said has been deleted)",
        summary="",
    )


def _facts(connection: Connection, delivery: RowMapping) -> DeliveryFacts:
    digest = None
    if delivery["merged_into"] is not None:
        told_by = (
            connection.execute(
                select(*_COLUMNS).where(deliveries.c.delivery_id == delivery["merged_into"])
            )
            .mappings()
            .one_or_none()
        )
        digest = None if told_by is None else _facts(connection, told_by)
    made = connection.execute(
        select(attempts)
        .where(attempts.c.delivery_id == delivery["delivery_id"])
        .order_by(attempts.c.attempt_pk)
    ).mappings()
    return DeliveryFacts(delivery, list(made), digest)


_COLUMNS = [column for column in deliveries.c if column.name != "address"]
"""An address is nobody's business here."""

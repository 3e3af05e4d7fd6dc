"""Violations in the ledger: one row per domain and rule, and whose turn it is to change them.

``take_turn`` moves a domain's standing forward by compare-and-set and holds it
until the transaction ends: of two scans of one domain that are settled at once,
the second waits, then sees what the first has written.  An older scan, a late
one, a replay and a superseded one get no turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, and_, bindparam, desc, or_, select
from sqlalchemy.sql.dml import ReturningInsert

from schemas.violations import Sighting, Violation
from store.ledger import Insert, insert_for, pack, unpack
from store.tables import scans, standings, violations

# The statements of every run's way are built once: building costs more than executing.

_SCAN = select(scans.c.domain, scans.c.finished_at, scans.c.recorded_at).where(
    scans.c.scan_id == bindparam("of_scan"), scans.c.event_pk == bindparam("of_event")
)
_OF_DOMAIN = (
    select(violations)
    .where(violations.c.domain == bindparam("this"))
    .order_by(violations.c.fingerprint)
)


def take_turn(connection: Connection, scan_id: str, event_pk: int) -> datetime | None:
    """Make this scan the newest that its domain's violations follow; the time it finished.

    None where it gets no turn: a later scan of the domain had one, or this very
    event, or the scan came again in a later event.  A scan that says it finished
    after it was recorded is taken at that time: a scanner's wrong clock must not
    shut out every scan to come.
    """
    scan = connection.execute(_SCAN, {"of_scan": scan_id, "of_event": event_pk}).one_or_none()
    if scan is None:
        return None
    finished_at = min(scan.finished_at, scan.recorded_at)
    turn = {
        "domain": scan.domain,
        "scan_id": scan_id,
        "event_pk": event_pk,
        "finished_at": finished_at,
    }
    moved = connection.execute(_move_on(connection.dialect.name), turn).one_or_none()
    return None if moved is None else finished_at


@cache
def _move_on(dialect: str) -> ReturningInsert[Any]:
    """Make a scan its domain's newest, unless a later one is, or this event."""
    statement = insert_for(dialect, standings)
    known, given = standings.c, statement.excluded
    later = or_(
        known.finished_at < given.finished_at,
        and_(known.finished_at == given.finished_at, known.scan_id < given.scan_id),
    )
    return statement.on_conflict_do_update(
        index_elements=[known.domain],
        set_={name: given[name] for name in ("scan_id", "event_pk", "finished_at")},
        where=or_(
            and_(known.scan_id == given.scan_id, known.event_pk < given.event_pk),
            and_(known.scan_id != given.scan_id, later),
        ),
    ).returning(known.domain)


def violations_of(connection: Connection, domain: str) -> list[Violation]:
    """All that a domain ever had, open and resolved; at most one for each rule."""
    rows = connection.execute(_OF_DOMAIN, {"this": domain}).mappings()
    return [_violation(row) for row in rows]


def save_violations(connection: Connection, changed: Iterable[Violation]) -> None:
    """Write violations as they are now.  To be called by whoever has the domain's turn."""
    rows = [
        {
            "domain": violation.domain,
            "fingerprint": violation.fingerprint,
            "occurrence": violation.occurrence,
            "content": pack(msgspec.json.encode(violation.sighting)),
            "first_seen_at": violation.first_seen_at,
            "last_seen_at": violation.last_seen_at,
            "last_told_at": violation.last_told_at,
            "reminders": violation.reminders,
            "resolved_at": violation.resolved_at,
        }
        for violation in changed
    ]
    if rows:
        connection.execute(_save(connection.dialect.name), rows)


@cache
def _save(dialect: str) -> Insert:
    statement = insert_for(dialect, violations)
    identity = (violations.c.domain, violations.c.fingerprint)
    return statement.on_conflict_do_update(
        index_elements=identity,
        set_={
            column.name: statement.excluded[column.name]
            for column in violations.c
            if column not in identity
        },
    )


def list_violations(
    connection: Connection, *, limit: int, domain: str | None = None, open_only: bool = False
) -> list[Violation]:
    """Violations of all domains or one, last seen first."""
    query = select(violations).order_by(
        desc(violations.c.last_seen_at), violations.c.domain, violations.c.fingerprint
    )
    if domain is not None:
        query = query.where(violations.c.domain == domain)
    if open_only:
        query = query.where(violations.c.resolved_at.is_(None))
    return [_violation(row) for row in connection.execute(query.limit(limit)).mappings()]


def _violation(row: RowMapping) -> Violation:
    return Violation(
        domain=row["domain"],
        occurrence=row["occurrence"],
        sighting=msgspec.json.decode(unpack(row["content"]), type=Sighting),
        first_seen_at=row["first_seen_at"],
        last_seen_at=row["last_seen_at"],
        last_told_at=row["last_told_at"],
        reminders=row["reminders"],
        resolved_at=row["resolved_at"],
    )

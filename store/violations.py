"""Violations in the ledger: one row per domain and rule, and whose turn it is to change them.

``take_turn`` moves a domain's standing forward by compare-and-set and holds it
until the transaction ends: of two scans of one domain that are settled at once,
the second waits, then sees what the first has written.  An older scan, a late
one, a replay and a superseded one get no turn.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec
from sqlalchemy import Connection, RowMapping, and_, desc, or_, select

from schemas.violations import Sighting, Violation
from store.ledger import insert, pack, unpack
from store.tables import scans, standings, violations


def take_turn(connection: Connection, scan_id: str, event_pk: int) -> datetime | None:
    """Make this scan the newest that its domain's violations follow; the time it finished.

    None where it gets no turn: a later scan of the domain had one, or this very
    event, or the scan came again in a later event.  A scan that says it finished
    after it was recorded is taken at that time: a scanner's wrong clock must not
    shut out every scan to come.
    """
    scan = connection.execute(
        select(scans.c.domain, scans.c.finished_at, scans.c.recorded_at).where(
            scans.c.scan_id == scan_id, scans.c.event_pk == event_pk
        )
    ).one_or_none()
    if scan is None:
        return None
    finished_at = min(scan.finished_at, scan.recorded_at)
    known = standings.c
    later = or_(
        known.finished_at < finished_at,
        and_(known.finished_at == finished_at, known.scan_id < scan_id),
    )
    values = {"scan_id": scan_id, "event_pk": event_pk, "finished_at": finished_at}
    moved = connection.execute(
        insert(connection, standings)
        .values(domain=scan.domain, **values)
        .on_conflict_do_update(
            index_elements=[known.domain],
            set_=values,
            where=or_(
                and_(known.scan_id == scan_id, known.event_pk < event_pk),
                and_(known.scan_id != scan_id, later),
            ),
        )
        .returning(known.domain)
    ).one_or_none()
    return None if moved is None else finished_at


def violations_of(connection: Connection, domain: str) -> list[Violation]:
    """All that a domain ever had, open and resolved; at most one for each rule."""
    rows = connection.execute(
        select(violations).where(violations.c.domain == domain).order_by(violations.c.fingerprint)
    ).mappings()
    return [_violation(row) for row in rows]


def save_violations(connection: Connection, changed: Iterable[Violation]) -> None:
    """Write violations as they are now.  To be called by whoever has the domain's turn."""
    for violation in changed:
        values = {
            "occurrence": violation.occurrence,
            "content": pack(msgspec.json.encode(violation.sighting)),
            "first_seen_at": violation.first_seen_at,
            "last_seen_at": violation.last_seen_at,
            "last_told_at": violation.last_told_at,
            "reminders": violation.reminders,
            "resolved_at": violation.resolved_at,
        }
        connection.execute(
            insert(connection, violations)
            .values(domain=violation.domain, fingerprint=violation.fingerprint, **values)
            .on_conflict_do_update(
                index_elements=[violations.c.domain, violations.c.fingerprint], set_=values
            )
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

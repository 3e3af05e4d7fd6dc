"""Walks recorded scans page by page: for whoever looks at many of them again.

Read-only.  Memory stays flat and no transaction lasts: a page holds names, and
the bytes of one scan are read when its turn comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    and_,
    desc,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
)

from schemas.runs import FrozenInputs
from store.ledger import Ledger, unpack
from store.tables import events, runs, scans

PAGE = 500
"""Scans of one look."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which scans: finished from ``since`` to ``until``, both included, of domains like a glob.

    The latest of each domain among those, or with ``every`` all of them.
    """

    since: datetime | None = None
    until: datetime | None = None
    domain: str | None = None
    every: bool = False


@dataclass(frozen=True, slots=True)
class RecordedScan:
    """A scan, and the inputs that its report is made of.

    ``data`` is None where its bytes are gone, ``inputs`` (of its newest run) where
    no run ever asked for its report.
    """

    scan_id: str
    domain: str
    finished_at: datetime
    data: bytes | None
    data_sha256: str
    inputs: FrozenInputs | None


def walk_scans(ledger: Ledger, selection: Selection, *, page: int = PAGE) -> Iterator[RecordedScan]:
    """Each selected scan, by domain, then the oldest first.  Raises LedgerUnavailable.

    What is recorded meanwhile may be met or not; nothing is met twice.
    """
    # One scan of each domain: a new one of a domain that is done must not bring it back.
    key = [scans.c.domain, scans.c.finished_at, scans.c.scan_id][: 3 if selection.every else 1]
    query = _selected(selection).order_by(*key).limit(page)
    wanted = query
    while True:
        with ledger.read() as connection:
            rows = connection.execute(wanted).mappings().all()
        for row in rows:
            if _is_like(row["domain"], selection.domain):
                found = read_scan(ledger, row["scan_id"], row["event_pk"])
                if found is not None:
                    yield found
        if len(rows) < page:
            return
        last = [literal(rows[-1][column.name], column.type) for column in key]
        wanted = query.where(tuple_(*key) > tuple_(*last))


def count_scans(ledger: Ledger, selection: Selection) -> int | None:
    """How many scans are selected; None where only the walk can tell.  Raises LedgerUnavailable."""
    if selection.domain is not None:
        return None
    counted = scans.c.scan_id if selection.every else scans.c.domain.distinct()
    with ledger.read() as connection:
        return connection.execute(
            select(func.count(counted)).where(*_in_time(scans, selection))
        ).scalar_one()


def read_scan(ledger: Ledger, scan_id: str, event_pk: int) -> RecordedScan | None:
    """The scan that an event brought, or None if there is no such event.

    Raises LedgerUnavailable.
    """
    with ledger.read() as connection:
        row = connection.execute(
            select(
                events.c.subject,
                events.c.occurred_at,
                events.c.payload,
                events.c.payload_sha256,
                runs.c.inputs,
            )
            .outerjoin(runs, runs.c.event_pk == events.c.event_pk)
            .where(events.c.event_pk == event_pk)
            .order_by(desc(runs.c.created_at), desc(runs.c.run_id))
            .limit(1)
        ).one_or_none()
    if row is None:
        return None
    return RecordedScan(
        scan_id=scan_id,
        domain=row.subject,
        finished_at=row.occurred_at,
        data=None if row.payload is None else unpack(row.payload),
        data_sha256=row.payload_sha256,
        inputs=None if row.inputs is None else msgspec.convert(row.inputs, FrozenInputs),
    )


def _selected(selection: Selection) -> Select[Any]:
    query = select(scans.c.scan_id, scans.c.event_pk, scans.c.domain, scans.c.finished_at).where(
        *_in_time(scans, selection)
    )
    if selection.every:
        return query
    later = scans.alias("later")
    return query.where(
        ~exists().where(
            later.c.domain == scans.c.domain,
            *_in_time(later, selection),
            or_(
                later.c.finished_at > scans.c.finished_at,
                and_(
                    later.c.finished_at == scans.c.finished_at,
                    later.c.scan_id < scans.c.scan_id,  # as the scan before is chosen
                ),
            ),
        )
    )


def _in_time(table: FromClause, selection: Selection) -> list[ColumnElement[bool]]:
    bounds = []
    if selection.since is not None:
        bounds.append(table.c.finished_at >= selection.since)
    if selection.until is not None:
        bounds.append(table.c.finished_at <= selection.until)
    return bounds


def _is_like(domain: str, glob: str | None) -> bool:
    return glob is None or fnmatchcase(domain.lower(), glob.lower())

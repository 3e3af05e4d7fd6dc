"""The scans before a scan, by the ids that its run has frozen: what the ledger says of them now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, select

from store.tables import scans


@dataclass(frozen=True, slots=True)
class EarlierScan:
    """A recorded scan by its newest event; ``score`` is None where it is held or not judged yet."""

    event_pk: int
    cookie_count: int
    score: int | None


def find_scans(connection: Connection, scan_ids: Iterable[str]) -> dict[str, EarlierScan]:
    """The scans with these ids, those that are there."""
    rows = connection.execute(
        select(scans.c.scan_id, scans.c.event_pk, scans.c.cookie_count, scans.c.score).where(
            scans.c.scan_id.in_(list(scan_ids))
        )
    )
    return {row.scan_id: EarlierScan(row.event_pk, row.cookie_count, row.score) for row in rows}

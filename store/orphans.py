"""What the ledger says of artifacts: which are named, and which reports need theirs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, or_, select, update

from store.tables import reports, scans

LOST = "its artifact was not in the store"
"""How the error begins of a report that is ``expired`` because its artifact was gone."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A report that names an artifact.  Not ``is_ready``: it was not in the store before."""

    report_id: str
    artifact_key: str
    is_ready: bool


def ready_reports(connection: Connection, *, after: str, limit: int) -> list[Ready]:
    """Reports whose artifact should be in the store, or was missed there, by id."""
    rows = connection.execute(
        select(reports.c.report_id, reports.c.artifact_key, reports.c.status)
        .where(
            reports.c.report_id > after,
            reports.c.artifact_key.is_not(None),
            or_(
                reports.c.status == "ready",
                (reports.c.status == "expired") & reports.c.error.startswith(LOST),
            ),
        )
        .order_by(reports.c.report_id)
        .limit(limit)
    )
    return [Ready(row.report_id, row.artifact_key, row.status == "ready") for row in rows]


def mark_lost(connection: Connection, lost: Iterable[Ready], why: str) -> None:
    """Say of reports that their artifact is not there, unless they were made again since."""
    for row in lost:
        connection.execute(
            update(reports)
            .where(
                reports.c.report_id == row.report_id,
                reports.c.artifact_key == row.artifact_key,
                reports.c.status == "ready",
            )
            .values(status="expired", error=why)
        )


def restore_found(connection: Connection, found: Iterable[Ready]) -> None:
    """Say of reports that their artifact is there again."""
    for row in found:
        connection.execute(
            update(reports)
            .where(
                reports.c.report_id == row.report_id,
                reports.c.artifact_key == row.artifact_key,
                reports.c.status == "expired",
                reports.c.error.startswith(LOST),
            )
            .values(status="ready", error=None)
        )


def reports_of_scans(
    connection: Connection, scan_ids: Collection[str]
) -> tuple[set[str], set[str]]:
    """The artifacts that reports of these scans name, and those of the scans that are known."""
    if not scan_ids:
        return set(), set()
    named = connection.execute(
        select(reports.c.artifact_key).where(
            reports.c.scan_id.in_(scan_ids), reports.c.artifact_key.is_not(None)
        )
    ).scalars()
    known = connection.execute(
        select(scans.c.scan_id).where(scans.c.scan_id.in_(scan_ids))
    ).scalars()
    return set(named), set(known)

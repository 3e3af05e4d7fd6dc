"""Orphans: artifacts that no report names, and reports whose artifact is gone.

Both come of crashes and of people: a worker killed between the store's put and
the ledger's note, whose format was never asked for again; a scan that was sent
again, whose first report nobody names any more; a file that somebody deleted.
Beat looks nightly, within a bound of time; ``scanherald cleanup orphans`` does
by hand what is left.  Killed anywhere, the next look finds the rest.
"""

from __future__ import annotations

import re
from datetime import timedelta

import structlog

from schemas.errors import ArtifactsUnavailable
from store.artifacts import Listed
from store.chores import read_position, save_position
from store.orphans import LOST, Ready, mark_lost, ready_reports, reports_of_scans, restore_found
from tasks import wiring
from tasks.app import SWEEP_ORPHANS, app
from tasks.cleanup import BATCH, THOROUGH, Cleaned, Limits, within_a_task
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.orphans")

SURELY_NOTED = timedelta(days=1)
"""No task lives as long between its put and its note."""

OURS = re.compile(
    r"(?P<scan>[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})/[0-9a-f]{12}-[0-9a-f]{12}/report\.[^/]+"
)
"""How our keys look; whatever else lies in the store is somebody else's."""

FEW = 20
"""So many artifacts may be gone by themselves; if all of more are, the store is another one."""


@app.task(name=SWEEP_ORPHANS)
def sweep_orphans() -> dict[str, object]:
    """Delete artifacts without a report, and mark reports without their artifact.

    Returns ``status`` and the counts of ``clean_orphans``.  Raises ArtifactsUnavailable.
    """
    parts = wiring.current()
    cleaned = clean_orphans(parts, within_a_task(parts))
    log.info("orphans_swept", **cleaned.counts, bytes=cleaned.size, finished=cleaned.finished)
    return {"status": "completed" if cleaned.finished else "partial", **cleaned.counts}


def clean_orphans(parts: Wiring, limits: Limits = THOROUGH, *, all_lost: bool = False) -> Cleaned:
    """Both searches: counts ``artifacts`` deleted, ``lost`` and ``found`` reports, ``foreign``.

    ``foreign`` are objects that are not named as ours, and stay.  Raises
    ArtifactsUnavailable, also where so many artifacts are gone that the store
    must be another one, unless ``all_lost`` says that they are; LedgerUnavailable.
    """
    cleaned = Cleaned(dict.fromkeys(("artifacts", "lost", "found", "foreign"), 0))
    # first: an empty store that was mounted by mistake is noticed here
    _find_lost(parts, limits, cleaned, all_lost=all_lost)
    _delete_unnamed(parts, limits, cleaned)
    return cleaned


def _find_lost(parts: Wiring, limits: Limits, cleaned: Cleaned, *, all_lost: bool) -> None:
    """Look for each report's artifact; within a bound of time, going on from night to night.

    A report that is ``ready`` without its artifact becomes ``expired`` and says
    why, so that it can be asked for again.  It keeps naming the artifact: one that
    is there again, because its disk is, makes it ``ready`` again.
    """
    looked = 0
    position = ""
    if limits.until is not None:
        with parts.ledger.read() as connection:
            position = read_position(connection, SWEEP_ORPHANS)
    half = None if limits.until is None else (parts.monotonic() + limits.until) / 2
    while half is None or parts.monotonic() < half:
        with parts.ledger.read() as connection:
            page = ready_reports(connection, after=position, limit=BATCH)
        there = {row.report_id: parts.artifacts.is_there(row.artifact_key) for row in page}
        lost = [row for row in page if row.is_ready and not there[row.report_id]]
        found = [row for row in page if not row.is_ready and there[row.report_id]]
        if len(lost) > FEW and not any(there.values()) and not all_lost:
            raise ArtifactsUnavailable(
                f"none of {len(lost)} artifacts is in the store: is ARTIFACTS_URL the right one, "
                "and its disk mounted? If they are really gone: scanherald cleanup orphans --lost"
            )
        cleaned.counts["lost"] += len(lost)
        cleaned.counts["found"] += len(found)
        position = page[-1].report_id if len(page) == BATCH else ""
        if not limits.dry_run:
            _note(parts, lost, found, position if limits.until is not None else None)
        looked += len(page)
        limits.progress("reports", looked)
        if not position:
            return
    cleaned.finished = False


def _note(parts: Wiring, lost: list[Ready], found: list[Ready], position: str | None) -> None:
    day = f"{parts.clock():%Y-%m-%d}"
    with parts.ledger.write() as connection:
        mark_lost(connection, lost, f"{LOST} on {day}; ask for it again")
        restore_found(connection, found)
        if position is not None:
            save_position(connection, SWEEP_ORPHANS, position)
    for row in lost:
        log.warning("artifact_lost", report_id=row.report_id)


def _delete_unnamed(parts: Wiring, limits: Limits, cleaned: Cleaned) -> None:
    """Delete what no report names: old enough to be no put that is not noted yet.

    The artifact of a known scan that was sent again, or run again under other
    inputs, is what yesterday's messages link: it lives as long as reports do.
    """
    now, kept_days = parts.clock(), parts.settings.reports_retention_days
    old = now - SURELY_NOTED
    very_old = now - max(SURELY_NOTED, timedelta(days=kept_days)) if kept_days else None
    looked = 0
    for page in parts.artifacts.list_all():
        ours = [(match["scan"], item) for item in page if (match := OURS.fullmatch(item.key))]
        cleaned.counts["foreign"] += len(page) - len(ours)
        candidates = [(scan_id, item) for scan_id, item in ours if item.put_at < old]
        with parts.ledger.read() as connection:
            named, known = reports_of_scans(connection, {scan_id for scan_id, _ in candidates})
        orphans = [
            item
            for scan_id, item in candidates
            if item.key not in named
            and (scan_id not in known or (very_old is not None and item.put_at < very_old))
        ]
        _delete(parts, orphans, limits, cleaned)
        looked += len(page)
        limits.progress("artifacts", looked)
        if limits.until is not None and parts.monotonic() >= limits.until:
            cleaned.finished = False
            return


def _delete(parts: Wiring, orphans: list[Listed], limits: Limits, cleaned: Cleaned) -> None:
    """A report that is made again at this moment, for the same bytes, loses them: the next
    look for lost ones says so."""
    if not orphans:
        return
    if not limits.dry_run:
        parts.artifacts.delete_many([item.key for item in orphans])
    cleaned.counts["artifacts"] += len(orphans)
    cleaned.size += sum(item.size for item in orphans)

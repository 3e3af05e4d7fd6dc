"""Cleanup: what is older than its retention is deleted, batch by batch; nothing in use.

What is in use is said in ``store/in_use.py``.  A batch is searched for beside all
writers and asked again in the short transaction that deletes it.  Killed between
any two the rest is as old the next night: a repeat is harmless anywhere.  Beat
starts each part at night, within a bound of time; ``scanherald cleanup`` does the
same by hand, without one, and can only count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Connection

from store import retention
from store.named_scans import NamedScans
from store.pacing import forget_paces
from store.retention import Old
from tasks import wiring
from tasks.app import CLEANUP_SCANS, app
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.cleanup")

BATCH = 500
"""Rows of one transaction."""

IDLE_PACES_KEPT = timedelta(days=1)

Progress = Callable[[str, int], None]
"""Told the part that is under way and how much of it is done."""


@dataclass(slots=True)
class Cleaned:
    """What a cleanup deleted, or would: numbers by kind, and the bytes of it.

    ``finished`` is false where its time was out first: the next one goes on.
    """

    counts: dict[str, int] = field(default_factory=dict)
    size: int = 0
    finished: bool = True


@dataclass(frozen=True, slots=True)
class Limits:
    """How a cleanup goes about it.

    ``dry_run`` finds and counts and changes nothing.  ``until`` is when to stop,
    by ``parts.monotonic``; None: when all is done.
    """

    dry_run: bool = False
    until: float | None = None
    progress: Progress = lambda _part, _done: None


THOROUGH = Limits()


@app.task(name="cleanup_old_reports")
def cleanup_old_reports(days: int = 30) -> dict[str, Any]:
    """Delete artifacts older than ``days``, and mark their reports ``expired``.

    Returns ``status, days, deleted_count``, and ``deleted_bytes``; the status is
    ``completed``, or ``partial`` where its time was out and the next night goes on.
    """
    parts = wiring.current()
    cleaned = clean_reports(parts, days, within_a_task(parts))
    return _answer("reports", days, cleaned, "reports")


@app.task(name="cleanup_old_notifications")
def cleanup_old_notifications(days: int = 30) -> dict[str, Any]:
    """Delete settled deliveries, attempts, contents, replays and figures older than ``days``.

    Returns as ``cleanup_old_reports`` does; the count is that of deliveries.  Event
    keys are kept, so a replay of an old event still wakes nobody.
    """
    parts = wiring.current()
    cleaned = clean_notifications(parts, days, within_a_task(parts))
    return _answer("notifications", days, cleaned, "deliveries")


@app.task(name=CLEANUP_SCANS)
def cleanup_scans(scans_days: int, events_days: int) -> dict[str, Any]:
    """Delete scans' bytes, and reduce whole records to their identity; 0 days: never.

    Returns ``status, deleted_bytes`` and the counts of ``clean_scans``.
    """
    parts = wiring.current()
    cleaned = clean_scans(parts, scans_days, events_days, within_a_task(parts))
    log.info("scans_cleaned", **cleaned.counts, bytes=cleaned.size, finished=cleaned.finished)
    return {"status": _status(cleaned), **cleaned.counts, "deleted_bytes": cleaned.size}


def clean_reports(parts: Wiring, days: int, limits: Limits = THOROUGH) -> Cleaned:
    """Delete artifacts older than ``days``: counts ``reports``.

    The mark comes first, the artifact's deletion second, its key's third, so that
    a killed cleanup leaves no report ``ready`` without its artifact.  Killed in
    between, the report is expired and names its key, and the next run deletes
    what is left.  Raises LedgerUnavailable, ArtifactsUnavailable.
    """
    before = _before(parts, days)

    def find(connection: Connection, **page: Any) -> list[Old]:
        keep = parts.settings.keep_newest_scans
        return retention.find_old_reports(connection, before, keep_newest=keep, **page)

    def expire(connection: Connection, batch: Sequence[Old]) -> int:
        retention.expire_reports(connection, [old.key for old in batch])
        return 0

    def delete(batch: Sequence[Old]) -> int:
        return _delete_artifacts(parts, batch)

    cleaned = Cleaned()
    _each_batch(parts, cleaned, limits, "reports", find, expire, delete)
    return cleaned


def clean_notifications(parts: Wiring, days: int, limits: Limits = THOROUGH) -> Cleaned:
    """Delete what was told before: counts ``deliveries``, ``contents``, ``replays``, ``figures``.

    Raises LedgerUnavailable.
    """
    before = _before(parts, days)
    cleaned = Cleaned()
    _each_batch(
        parts,
        cleaned,
        limits,
        "deliveries",
        lambda connection, **page: retention.find_old_deliveries(connection, before, **page),
        lambda connection, batch: retention.delete_deliveries(
            connection, [old.key for old in batch]
        ),
    )
    _each_batch(
        parts,
        cleaned,
        limits,
        "contents",
        lambda connection, **page: retention.find_old_contents(connection, before, **page),
        lambda connection, batch: retention.forget_contents(connection, [old.key for old in batch]),
    )
    _each_batch(
        parts,
        cleaned,
        limits,
        "replays",
        lambda connection, **page: retention.find_old_replays(connection, before, **page),
        lambda connection, batch: retention.delete_replays(connection, [old.key for old in batch]),
    )
    if limits.dry_run:
        with parts.ledger.read() as connection:
            cleaned.counts["figures"] = retention.count_statistics(connection, before)
        return cleaned
    with parts.ledger.write() as connection:
        cleaned.counts["figures"] = retention.forget_statistics(connection, before)
        forget_paces(connection, parts.clock() - IDLE_PACES_KEPT)
    return cleaned


def clean_scans(
    parts: Wiring,
    scans_days: int,
    events_days: int,
    limits: Limits = THOROUGH,
    *,
    reduced_after: int = 0,
) -> Cleaned:
    """Reduce old records and delete scans' bytes: counts ``events``, ``scans``; 0 days: never.

    What is, or would be, reduced is not counted among the scans: here, or by another
    call with ``reduced_after`` days.  Raises LedgerUnavailable.
    """
    keep, cleaned = parts.settings.keep_newest_scans, Cleaned()
    reduced_after = events_days or reduced_after
    gone = _named_since(parts, reduced_after) if reduced_after else None
    if events_days and gone is not None:
        today = parts.clock()
        _each_batch(
            parts,
            cleaned,
            limits,
            "events",
            _kept_up(
                parts, [gone], partial(retention.find_old_events, keep_newest=keep, named=gone)
            ),
            lambda connection, batch: retention.reduce_events(
                connection,
                [old.key for old in batch],
                outcome="expired",
                reason=f"its record was deleted on {today:%Y-%m-%d}, after {events_days} days",
            ),
        )
    if scans_days:
        named = _named_since(parts, scans_days)
        _each_batch(
            parts,
            cleaned,
            limits,
            "scans",
            _kept_up(
                parts,
                [named] if gone is None else [named, gone],
                partial(retention.find_old_scans, keep_newest=keep, named=named, gone=gone),
            ),
            lambda connection, batch: retention.forget_bytes(
                connection, [old.key for old in batch]
            ),
        )
    return cleaned


def within_a_task(parts: Wiring) -> Limits:
    """Stop well before the task's own limit: the next night goes on."""
    return Limits(until=parts.monotonic() + 0.7 * parts.settings.task_soft_time_limit_s)


def _each_batch(
    parts: Wiring,
    cleaned: Cleaned,
    limits: Limits,
    part: str,
    find: Callable[..., list[Old]],
    forget: Callable[[Connection, Sequence[Old]], int],
    afterwards: Callable[[Sequence[Old]], int] | None = None,
) -> None:
    """Find and forget, batch by batch; ``afterwards`` is what cannot be in the transaction.

    ``find`` takes a connection and ``after, limit, among``.
    """
    after = None
    cleaned.counts[part] = 0
    while True:
        if limits.until is not None and parts.monotonic() >= limits.until:
            cleaned.finished = False
            return
        with parts.ledger.read() as connection:
            page = batch = find(connection, after=after, limit=BATCH, among=None)
        if not page:
            return
        done = len(page)
        if not limits.dry_run:
            with parts.ledger.write() as connection:
                keys = [old.key for old in page]
                batch = find(connection, after=None, limit=BATCH, among=keys)
                done = forget(connection, batch) if batch else 0
        if afterwards is not None and not limits.dry_run:
            done = afterwards(batch)
        cleaned.counts[part] += done
        cleaned.size += sum(old.size for old in batch)
        limits.progress(part, cleaned.counts[part])
        if len(page) < BATCH:
            return
        after = page[-1].position


def _named_since(parts: Wiring, days: int) -> NamedScans:
    with parts.ledger.read() as connection:
        return NamedScans(connection, _before(parts, days), parts.clock())


def _kept_up(
    parts: Wiring, named: Sequence[NamedScans], find: Callable[..., list[Old]]
) -> Callable[..., list[Old]]:
    """Before it is asked again in the transaction that deletes, see what was named since."""

    def found(connection: Connection, *, among: Sequence[Any] | None, **page: Any) -> list[Old]:
        if among is not None:
            for names in named:
                names.keep_up(connection, parts.clock())
        return find(connection, among=among, **page)

    return found


def _delete_artifacts(parts: Wiring, batch: Sequence[Old]) -> int:
    """Delete what is retired still: what is asked for again since may have been made again.

    A report made on demand between this look and the deletion, in the moment
    before its row says so, loses its artifact; the search for orphans finds it.
    """
    deleted = 0
    for first in range(0, len(batch), parts.artifacts.bulk):
        several = batch[first : first + parts.artifacts.bulk]
        with parts.ledger.read() as connection:
            retired = retention.still_expired(connection, [old.key for old in several])
        parts.artifacts.delete_many([old.place for old in several if old.key in retired])
        deleted += len(retired)
    with parts.ledger.write() as connection:
        return min(deleted, retention.forget_artifacts(connection, [old.key for old in batch]))


def _before(parts: Wiring, days: int) -> datetime:
    """The moment so many days ago.  Refuses to delete today's work by a slip of the hand."""
    if days < retention.LEAST_KEPT_DAYS:
        raise ValueError(f"days must be {retention.LEAST_KEPT_DAYS} or more, not {days}")
    return parts.clock() - timedelta(days=days)


def _answer(part: str, days: int, cleaned: Cleaned, counted: str) -> dict[str, Any]:
    log.info(
        f"{part}_cleaned",
        days=days,
        **cleaned.counts,
        bytes=cleaned.size,
        finished=cleaned.finished,
    )
    return {
        "status": _status(cleaned),
        "days": days,
        "deleted_count": cleaned.counts[counted],
        "deleted_bytes": cleaned.size,
    }


def _status(cleaned: Cleaned) -> str:
    return "completed" if cleaned.finished else "partial"

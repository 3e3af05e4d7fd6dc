"""Digests: one message for what a subscriber wanted to hear of together.

The sweep calls ``release_due``; what comes out is pending and due, and goes the
way of every delivery.  A subscriber who is in a quiet time again by then is not
disturbed: a delivery looks at the clock before each of its tries.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial

import structlog
from sqlalchemy import Connection

from schemas.events import EventType
from schemas.notifications import DigestLine, Notification
from schemas.reports import Severity
from store.held import (
    DueDigest,
    Merged,
    drop_unwanted,
    due_digests,
    merge_members,
    release_held,
    release_single,
    save_digest,
)
from tasks.derive import whole
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.digests")

LISTED = 20
"""Notifications that a digest lists; the others it counts."""
MAX_TITLE_BYTES = 200


def release_due(connection: Connection, parts: Wiring, now: datetime, limit: int) -> None:
    """Let go of whatever waited until now, in the sweep's own transaction."""
    released = release_held(connection, now, limit)
    digests = 0
    for due in due_digests(connection, now, limit):
        members = due.members - drop_unwanted(connection, due, now)
        if members == 1:
            released += release_single(connection, due, now)
            continue
        digest_id = parts.new_id()
        merged = merge_members(connection, due, digest_id, now, LISTED)
        if merged.total:  # else nobody wants them any more, or another sweep was there first
            told = partial(digest, merged=merged, due=due, now=now)
            save_digest(connection, due, digest_id, now, told)
            digests += 1
    if released or digests:
        log.info("held_released", deliveries=released, digests=digests)


def digest(event_key: str, merged: Merged, due: DueDigest, now: datetime) -> Notification:
    """What is told of many notifications at once: how many, and the most severe of them."""
    lines = tuple(_line(notification) for notification in merged.listed)
    more = merged.total - len(lines)
    counts = {severity.value: merged.counts.get(severity, 0) for severity in Severity}
    return Notification(
        event_key=event_key,
        type=EventType.NOTIFICATION_DIGEST,
        occurred_at=now,
        domain=None,
        scan_id=None,
        severity=max(merged.counts, key=lambda severity: severity.rank),
        title=f"Digest: {merged.total} notifications",
        summary=", ".join(f"{counts[severity.value]} {severity}" for severity in reversed(Severity))
        + (f"; and {more} more than are listed" if more else ""),
        variant=EventType.NOTIFICATION_DIGEST.value,
        values={"notifications": merged.total, **counts, "more": more},
        lines=lines,
        data={"due_at": due.due_at.isoformat(), "total": merged.total, **counts, "more": more},
    )


def _line(told: Notification) -> DigestLine:
    return DigestLine(
        occurred_at=told.occurred_at,
        type=told.type,
        domain=told.domain,
        severity=told.severity,
        title=whole(told.title, MAX_TITLE_BYTES),
        variant=told.variant,
        values=told.values,
        link=next((artifact.uri for artifact in told.artifacts), None),
    )

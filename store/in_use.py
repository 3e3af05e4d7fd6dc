"""What is in use, and therefore deleted by no cleanup, said in one place.

A **run** is in use until it is settled, ``done``, ``dead`` or ``cancelled``.

A **delivery** is in use until it is settled, ``sent``, ``failed`` or
``suppressed``: one that is due, held for quiet hours or a digest, told by a
digest that is under way, or under a worker's lease, is not.

An **artifact** is in use while it is being made; while a run of its scan is in
use, for its body may link it; while a delivery that tells of its scan is in use,
for the message links or attaches it; and while its scan is one of the newest of
its domain (``SCANHERALD_KEEP_NEWEST_SCANS``).

A **scan's bytes** are in use while a run of their event is; while the scan is
one of the newest of its domain, because the next one is compared with the scan
before it, anomalies with two more, and the oldest of those with one before it;
while it is one of the newest that have a score, because what has none since may
not be trusted; and while a run whose own bytes are young names them among the scans
before: without them its report could not be made again as it was.

An **event's record** is in use while its bytes are by the rules above, while an
artifact of its scan is left, or while a delivery that tells of it is in use.

What a **notification** says is in use while any delivery of it is on record.
Its event key is in use for ever: a key that is forgotten would be told again.

These are conditions for a WHERE, so that they hold in the transaction that deletes;
but for the names in young runs, which would be looked up again for every row.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, literal, or_, select, true

from schemas.runs import DeliveryState, RunState
from store.tables import deliveries, events, notifications, reports, runs, scans

COMPARED = 3
"""Scans of a domain that the next one may be compared with."""
SCORED = 2
"""Of those with a score, however many have come since: the one compared with, and one before it."""

UNSETTLED_RUN = [RunState.RECORDED.value, RunState.DISPATCHED.value]
SETTLED_DELIVERY = [
    DeliveryState.SENT.value,
    DeliveryState.FAILED.value,
    DeliveryState.SUPPRESSED.value,
]


def artifact_in_use(keep_newest: int) -> ColumnElement[bool]:
    """Of a row of ``reports``."""
    return or_(
        reports.c.status == "pending",
        exists().where(runs.c.scan_id == reports.c.scan_id, runs.c.state.in_(UNSETTLED_RUN)),
        _told_by_unsettled(runs.c.scan_id == reports.c.scan_id),
        exists().where(scans.c.scan_id == reports.c.scan_id, _among_newest(keep_newest)),
    )


def bytes_in_use(keep_newest: int) -> ColumnElement[bool]:
    """Of a row of ``events``, but for what young runs name: see ``named_scans.py``."""
    return or_(
        _unsettled_run(),
        exists().where(
            scans.c.event_pk == events.c.event_pk,
            or_(_among_newest(max(COMPARED, keep_newest) + 1), _among_newest_scored(SCORED)),
        ),
    )


def record_in_use(keep_newest: int) -> ColumnElement[bool]:
    """Of a row of ``events``, but for what young runs name."""
    return or_(
        bytes_in_use(keep_newest),
        exists(
            select(literal(1))
            .select_from(scans)
            .join(reports, reports.c.scan_id == scans.c.scan_id)
            .where(scans.c.event_pk == events.c.event_pk, reports.c.artifact_key.is_not(None))
            .correlate(events)
        ),
        _told_by_unsettled(runs.c.event_pk == events.c.event_pk),
    )


def content_in_use(young: datetime | None = None) -> ColumnElement[bool]:
    """Of a row of ``notifications``: a delivery of it is on record.

    With ``young`` only such as were not settled before then: those that will be
    left once older ones are deleted.
    """
    kept: ColumnElement[bool] = true()
    if young is not None:
        kept = or_(deliveries.c.state.not_in(SETTLED_DELIVERY), deliveries.c.settled_at >= young)
    return exists().where(deliveries.c.event_key == notifications.c.event_key, kept)


def _unsettled_run() -> ColumnElement[bool]:
    return exists().where(runs.c.event_pk == events.c.event_pk, runs.c.state.in_(UNSETTLED_RUN))


def _told_by_unsettled(whose: ColumnElement[bool]) -> ColumnElement[bool]:
    """A delivery of what a run told is not settled; a digest that tells of it holds it, too."""
    query: Any = (
        select(literal(1))
        .select_from(runs)
        .join(notifications, notifications.c.run_id == runs.c.run_id)
        .join(deliveries, deliveries.c.event_key == notifications.c.event_key)
        .where(whose, deliveries.c.state.not_in(SETTLED_DELIVERY))
        .correlate(reports, events)
    )
    return exists(query)


def _among_newest_scored(keep: int) -> ColumnElement[bool]:
    return and_(scans.c.score.is_not(None), _among_newest(keep, scored=True))


def _among_newest(keep: int, *, scored: bool = False) -> ColumnElement[bool]:
    """A row of ``scans`` has fewer than ``keep`` later ones in its domain, or such with a score."""
    if keep < 1:
        return ~true()
    later = scans.alias("newer")
    as_many = (
        select(literal(1))
        .where(
            later.c.domain == scans.c.domain,
            later.c.finished_at >= scans.c.finished_at,  # where the index begins to be read
            or_(
                later.c.finished_at > scans.c.finished_at,
                and_(
                    later.c.finished_at == scans.c.finished_at,
                    later.c.scan_id < scans.c.scan_id,  # as the scan before is chosen
                ),
            ),
            *([later.c.score.is_not(None)] if scored else []),
        )
        .limit(1)
        .offset(keep - 1)
        .correlate(scans)
    )
    return ~exists(as_many)

"""The scans before a scan: which its report may be compared with, and what became of them.

Scans of one domain may come out of order, by several streams and to several
listeners.  So a run freezes what it is compared with twice: when it is recorded,
and again when its first format is begun, for scans that came in between.  From
then on nothing moves it: its formats, its news and a replay all say the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, desc, exists, or_, select, update

from schemas.reports import HistoryPoint
from schemas.runs import EarlierEvent, FrozenInputs, RunState
from store.tables import events, reports, runs, scans

SCANS_SINCE = 5
"""How many scans a run freezes, as what its own may be compared with, after the last scored one."""

HISTORY_POINTS = 24
"""How many earlier scores of its domain a report shows."""


@dataclass(frozen=True, slots=True)
class ThisScan:
    """The scan whose earlier ones are asked for.

    Of two that finished at one moment neither is before the other.
    """

    scan_id: str
    domain: str
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class EarlierScan:
    """A recorded scan by its newest event; ``score`` is None where it is held or not judged yet."""

    event_pk: int
    cookie_count: int
    score: int | None


# The statements of every run's way are built once: building costs more than executing.

_EARLIER = (
    select(
        scans.c.scan_id,
        scans.c.event_pk,
        scans.c.finished_at,
        scans.c.score,
        events.c.payload.is_not(None).label("has_bytes"),
    )
    .join(events, events.c.event_pk == scans.c.event_pk)
    .where(
        scans.c.domain == bindparam("of_domain"),
        scans.c.finished_at < bindparam("moment"),
        scans.c.scan_id != bindparam("this"),
    )
    .order_by(desc(scans.c.finished_at), scans.c.scan_id)
)
_LATEST = _EARLIER.limit(HISTORY_POINTS)
_LAST_SCORED = _EARLIER.where(scans.c.score.is_not(None)).limit(1)

_NOT_SETTLED = (
    select(runs.c.inputs, runs.c.event_pk, runs.c.scan_id)
    .where(
        runs.c.run_id == bindparam("this"),
        runs.c.scan_id.is_not(None),
        runs.c.state.in_((RunState.RECORDED.value, RunState.DISPATCHED.value)),
    )
    .with_for_update()
)

_other = runs.alias("other")
_UNUSED_SCAN = select(scans.c.domain, scans.c.finished_at).where(
    scans.c.scan_id == bindparam("of_scan"),
    scans.c.event_pk == bindparam("of_event"),
    ~or_(
        exists().where(reports.c.run_id == bindparam("this")),
        exists().where(
            _other.c.event_pk == bindparam("of_event"), _other.c.run_id != bindparam("this")
        ),
    ),
)
"""The scan of a run of which nothing has been made yet, and whose event had no other run."""


def with_earlier(connection: Connection, inputs: FrozenInputs, this: ThisScan) -> FrozenInputs:
    """The inputs, with the scans of the domain that finished before this one, as recorded by now.

    In whichever order they were recorded.
    """
    asked = {"of_domain": this.domain, "moment": this.finished_at, "this": this.scan_id}
    before = connection.execute(_LATEST, asked).all()
    return msgspec.structs.replace(
        inputs,
        previous_scan_id=before[0].scan_id if before else None,
        previous_event_pk=before[0].event_pk if before else None,
        earlier=_comparable(connection, before, asked),
        history=tuple(
            HistoryPoint(scan_id=row.scan_id, finished_at=row.finished_at, score=row.score)
            for row in reversed(before)
        ),
    )


def freeze_again(connection: Connection, run_id: str) -> None:
    """Freeze once more what a run is compared with, if nothing has been made of it yet.

    To be called in the transaction that begins a format, before the run is read.  The
    run's row is held until that ends: of two formats that begin at once the second
    waits, and finds the first one's.  A run of an event that another run had before,
    such as a replay's, keeps what that one was compared with.
    """
    row = connection.execute(_NOT_SETTLED, {"this": run_id}).one_or_none()
    if row is None:
        return
    # a statement of its own: it must see what was committed while we waited for the row
    scan = connection.execute(
        _UNUSED_SCAN, {"of_scan": row.scan_id, "of_event": row.event_pk, "this": run_id}
    ).one_or_none()
    if scan is None:
        return
    frozen = msgspec.convert(row.inputs, FrozenInputs)
    inputs = with_earlier(connection, frozen, ThisScan(row.scan_id, scan.domain, scan.finished_at))
    if inputs != frozen:
        connection.execute(
            update(runs).where(runs.c.run_id == run_id).values(inputs=msgspec.to_builtins(inputs))
        )


_WITH_IDS = select(scans.c.scan_id, scans.c.event_pk, scans.c.cookie_count, scans.c.score).where(
    scans.c.scan_id.in_(bindparam("ids", expanding=True))
)


def find_scans(connection: Connection, scan_ids: Iterable[str]) -> dict[str, EarlierScan]:
    """The recorded scans with these ids, those that are there, as the ledger knows them now."""
    asked = list(scan_ids)
    rows = connection.execute(_WITH_IDS, {"ids": asked}) if asked else ()
    return {row.scan_id: EarlierScan(row.event_pk, row.cookie_count, row.score) for row in rows}


def _comparable(
    connection: Connection, before: Sequence[Any], asked: dict[str, Any]
) -> tuple[EarlierEvent, ...]:
    """The last scan with a score, however many had none since, and the latest of those.

    Some of them may not be judged yet: which can be trusted is for the judgement.  A
    cleanup keeps the bytes of these; what it has deleted cannot be compared with.
    """
    since = list(itertools.takewhile(lambda row: row.score is None, before))
    scored = before[len(since) : len(since) + 1]
    if len(since) == HISTORY_POINTS:
        scored = connection.execute(_LAST_SCORED, asked).all()
    return tuple(
        EarlierEvent(row.scan_id, row.event_pk, row.finished_at)
        for row in reversed([*since[:SCANS_SINCE], *scored])
        if row.has_bytes
    )

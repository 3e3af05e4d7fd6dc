"""What may be forgotten, in bounded batches; nothing that is in use (``in_use.py``).

Each ``find_…`` names what is old and not in use, from a position on, so that a
dry run counts by the very query that deletes.  Whoever deletes asks again in the
transaction that deletes, ``among`` what was found: the search may take long, and
other writers of a SQLite ledger would wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    delete,
    exists,
    false,
    func,
    literal,
    select,
    tuple_,
    update,
)

from store.in_use import (
    SETTLED_DELIVERY,
    UNSETTLED_RUN,
    artifact_in_use,
    bytes_in_use,
    content_in_use,
    record_in_use,
)
from store.named_scans import NamedScans
from store.tables import (
    attempts,
    deliveries,
    events,
    notifications,
    replays,
    reports,
    runs,
    scans,
    statistics,
)

LEAST_KEPT_DAYS = 1
"""No cleanup forgets what is younger."""

SETTLED_OUTCOME = ("done", "dead", "cancelled", "discarded")


@dataclass(frozen=True, slots=True)
class Old:
    """One thing that may go: its key, its bytes, and ``position``, where to look on from.

    ``place`` is an artifact's key in the store.
    """

    key: Any
    size: int
    position: tuple[Any, ...]
    place: str = ""


def find_old_reports(
    connection: Connection,
    before: datetime,
    *,
    keep_newest: int,
    after: tuple[Any, ...] | None,
    limit: int,
    among: Collection[Any] | None = None,
) -> list[Old]:
    """Reports with an artifact last made before then, oldest first.

    What a killed cleanup left behind is among them: it is ``expired`` and names
    its artifact still.
    """
    query = select(
        reports.c.report_id, reports.c.artifact_key, reports.c.size_bytes, reports.c.created_at
    ).where(
        reports.c.created_at < before,
        func.coalesce(reports.c.ready_at, reports.c.created_at) < before,
        reports.c.artifact_key.is_not(None),
        ~artifact_in_use(keep_newest),
        *_among(reports.c.report_id, among),
    )
    rows = connection.execute(
        _page(query, (reports.c.created_at, reports.c.report_id), after, limit)
    )
    return [
        Old(row.report_id, row.size_bytes or 0, (row.created_at, row.report_id), row.artifact_key)
        for row in rows
    ]


def expire_reports(connection: Connection, report_ids: Collection[str]) -> None:
    """Retire reports, before their artifacts are deleted.

    Their rows stay, ``expired``, with size and digest: they say that an artifact
    is gone on purpose.
    """
    connection.execute(
        update(reports)
        .where(reports.c.report_id.in_(report_ids), reports.c.status != "pending")
        .values(status="expired")
    )


def still_expired(connection: Connection, report_ids: Collection[str]) -> set[str]:
    """Those that are retired still, and not asked for again since."""
    return set(
        connection.execute(
            select(reports.c.report_id).where(
                reports.c.report_id.in_(report_ids), reports.c.status == "expired"
            )
        ).scalars()
    )


def forget_artifacts(connection: Connection, report_ids: Collection[str]) -> int:
    """Note that these expired reports' artifacts are deleted; return how many are."""
    return connection.execute(
        update(reports)
        .where(reports.c.report_id.in_(report_ids), reports.c.status == "expired")
        .values(artifact_key=None, uri=None)
    ).rowcount


def find_old_deliveries(
    connection: Connection,
    before: datetime,
    *,
    after: tuple[Any, ...] | None,
    limit: int,
    among: Collection[Any] | None = None,
) -> list[Old]:
    """Deliveries settled before then, the longest first."""
    query = select(deliveries.c.delivery_id, deliveries.c.settled_at).where(
        deliveries.c.settled_at < before,
        deliveries.c.state.in_(SETTLED_DELIVERY),
        *_among(deliveries.c.delivery_id, among),
    )
    rows = connection.execute(
        _page(query, (deliveries.c.settled_at, deliveries.c.delivery_id), after, limit)
    )
    return [Old(row.delivery_id, 0, (row.settled_at, row.delivery_id)) for row in rows]


def delete_deliveries(connection: Connection, delivery_ids: Collection[str]) -> int:
    """Delete settled deliveries with their attempts; return how many.  Notifications stay."""
    settled = list(
        connection.execute(
            select(deliveries.c.delivery_id)
            .where(
                deliveries.c.delivery_id.in_(delivery_ids), deliveries.c.state.in_(SETTLED_DELIVERY)
            )
            .with_for_update()  # of one that is to be tried again just now, one of us waits
        ).scalars()
    )
    connection.execute(delete(attempts).where(attempts.c.delivery_id.in_(settled)))
    return connection.execute(
        delete(deliveries).where(deliveries.c.delivery_id.in_(settled))
    ).rowcount


def find_old_contents(
    connection: Connection,
    before: datetime,
    *,
    after: tuple[Any, ...] | None,
    limit: int,
    among: Collection[Any] | None = None,
) -> list[Old]:
    """Notifications made before then of which no younger delivery is on record."""
    query = select(
        notifications.c.event_key,
        func.length(notifications.c.content).label("size"),
        notifications.c.created_at,
    ).where(
        notifications.c.created_at < before,
        func.length(notifications.c.content) > 0,
        ~content_in_use(before),
        *_among(notifications.c.event_key, among),
    )
    rows = connection.execute(
        _page(query, (notifications.c.created_at, notifications.c.event_key), after, limit)
    )
    return [Old(row.event_key, row.size, (row.created_at, row.event_key)) for row in rows]


def forget_contents(connection: Connection, event_keys: Collection[str]) -> int:
    """Delete what notifications said; return of how many.

    Their rows stay: an event key that is forgotten would be told again.
    """
    return connection.execute(
        update(notifications)
        .where(notifications.c.event_key.in_(event_keys), ~content_in_use())
        .values(content=b"")
    ).rowcount


def find_old_scans(
    connection: Connection,
    *,
    keep_newest: int,
    named: NamedScans,
    gone: NamedScans | None,
    after: tuple[Any, ...] | None,
    limit: int,
    among: Collection[Any] | None = None,
) -> list[Old]:
    """Events whose scan's bytes were recorded before ``named.young``, oldest first.

    Not those whose whole record is old by ``gone``: they are ``find_old_events``'s.
    """
    goes = false() if gone is None else and_(*_old_record(gone.young, keep_newest))
    query = select(
        events.c.event_pk, func.length(events.c.payload).label("size"), goes.label("goes")
    ).where(
        events.c.type == "scan.completed",
        events.c.payload.is_not(None),
        events.c.recorded_at < named.young,
        ~bytes_in_use(keep_newest),
        *_among(events.c.event_pk, among),
    )
    return _unnamed(
        connection,
        query,
        lambda row: row.event_pk in named or (row.goes and row.event_pk not in (gone or ())),
        after,
        limit,
    )


def forget_bytes(connection: Connection, event_pks: Collection[int]) -> int:
    """Delete events' bytes; return of how many.  Size and digest stay."""
    return connection.execute(
        update(events).where(events.c.event_pk.in_(event_pks)).values(payload=None)
    ).rowcount


def find_old_events(
    connection: Connection,
    *,
    keep_newest: int,
    named: NamedScans,
    after: tuple[Any, ...] | None,
    limit: int,
    among: Collection[Any] | None = None,
) -> list[Old]:
    """Events, dead letters among them, recorded before ``named.young``, oldest first."""
    query = select(
        events.c.event_pk, func.coalesce(func.length(events.c.payload), 0).label("size")
    ).where(*_old_record(named.young, keep_newest), *_among(events.c.event_pk, among))
    return _unnamed(connection, query, lambda row: row.event_pk in named, after, limit)


def reduce_events(
    connection: Connection, event_pks: Sequence[int], *, outcome: str, reason: str
) -> int:
    """Leave of events their bare identity; their runs, scans and reports go.  Returns how many.

    The identity (source and id, stream and entry id, when it was recorded) stays:
    an entry that is read again, or published again, finds it and is a repeat, not
    a new event that comes back to life; and the audit knows the entry.
    """
    brought = select(scans.c.scan_id).where(scans.c.event_pk.in_(event_pks))
    connection.execute(delete(reports).where(reports.c.scan_id.in_(brought)))
    connection.execute(delete(scans).where(scans.c.event_pk.in_(event_pks)))
    connection.execute(delete(runs).where(runs.c.event_pk.in_(event_pks)))
    return connection.execute(
        update(events)
        .where(events.c.event_pk.in_(event_pks))
        .values(
            subject=None,
            user_id=None,
            occurred_at=None,
            traceparent=None,
            dataref=None,
            payload=None,
            payload_size=0,
            payload_sha256="",
            outcome=outcome,
            reason=reason,
        )
    ).rowcount


def find_old_replays(
    connection: Connection,
    before: datetime,
    *,
    after: tuple[Any, ...] | None,
    limit: int,
    among: Collection[Any] | None = None,
) -> list[Old]:
    """Replays that nobody has moved on since then, and of which nothing is unfinished.

    A driver says every few seconds that it lives.  Of their runs and deliveries the
    replay's id stays.
    """
    unfinished = exists().where(
        runs.c.replay_id == replays.c.replay_id, runs.c.state.in_(UNSETTLED_RUN)
    )
    untold = exists().where(
        deliveries.c.replay_id == replays.c.replay_id,
        deliveries.c.state.not_in(SETTLED_DELIVERY),
    )
    query = select(replays.c.replay_id, replays.c.created_at).where(
        replays.c.updated_at < before, ~unfinished, ~untold, *_among(replays.c.replay_id, among)
    )
    rows = connection.execute(
        _page(query, (replays.c.created_at, replays.c.replay_id), after, limit)
    )
    return [Old(row.replay_id, 0, (row.created_at, row.replay_id)) for row in rows]


def delete_replays(connection: Connection, replay_ids: Collection[str]) -> int:
    """Delete what was asked for and what came of it; return how many."""
    return connection.execute(delete(replays).where(replays.c.replay_id.in_(replay_ids))).rowcount


def count_statistics(connection: Connection, before: datetime) -> int:
    """How many stored figures are from before then."""
    return connection.execute(
        select(func.count()).select_from(statistics).where(statistics.c.taken_at < before)
    ).scalar_one()


def forget_statistics(connection: Connection, before: datetime) -> int:
    """Delete stored figures from before then."""
    return connection.execute(delete(statistics).where(statistics.c.taken_at < before)).rowcount


def _old_record(before: datetime, keep_newest: int) -> tuple[ColumnElement[bool], ...]:
    return (
        events.c.outcome.in_(SETTLED_OUTCOME),
        events.c.recorded_at < before,
        ~record_in_use(keep_newest),
    )


def _among(key: ColumnElement[Any], keys: Collection[Any] | None) -> list[ColumnElement[bool]]:
    return [] if keys is None else [key.in_(keys)]


def _unnamed(
    connection: Connection,
    query: Select[Any],
    kept: Callable[[Row[Any]], bool],
    after: tuple[Any, ...] | None,
    limit: int,
) -> list[Old]:
    """A page of events without those that are kept for what only memory knows."""
    found: list[Old] = []
    while True:
        rows = connection.execute(_page(query, (events.c.event_pk,), after, limit)).all()
        found += [Old(row.event_pk, row.size, (row.event_pk,)) for row in rows if not kept(row)]
        if len(rows) < limit or len(found) >= limit:
            return found[:limit]
        after = (rows[-1].event_pk,)


def _page(
    query: Select[Any],
    key: tuple[ColumnElement[Any], ...],
    after: tuple[Any, ...] | None,
    limit: int,
) -> Select[Any]:
    if after is not None:
        last = [literal(value, column.type) for value, column in zip(after, key, strict=True)]
        query = query.where(tuple_(*key) > tuple_(*last))
    return query.order_by(*key).limit(limit)

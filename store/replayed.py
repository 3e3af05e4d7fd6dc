"""The events that a replay walks over, what the ledger knows of each, and their new runs.

Reads come in pages and hold no payload: a page costs the same whatever its
scans weigh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

import msgspec
from sqlalchemy import ColumnElement, Connection, RowMapping, exists, func, or_, select

from schemas.events import Event, EventType
from schemas.replays import Selection
from schemas.reports import Format
from schemas.runs import FrozenInputs, RunState, RunTicket
from store.events import DEAD_SOURCE, read_payload
from store.ledger import insert
from store.tables import events, reports, runs, scans

PAGE = 200
"""Events of one look."""


@dataclass(frozen=True, slots=True)
class Known:
    """An event in the ledger, as a replay has to see it.

    ``inputs`` and ``formats`` are None and empty where no run ever worked on it.
    ``formats`` are those of all its runs, ``ready`` those whose report is there,
    made by a run of this very event in the language of its newest run.
    """

    event_pk: int
    type: EventType
    scan_id: str | None
    inputs: FrozenInputs | None
    formats: tuple[Format, ...]
    ready: frozenset[Format]
    has_data: bool
    needs_data: bool
    in_flight: bool
    superseded: bool
    in_this_replay: bool


def page_of_archive(
    connection: Connection, selection: Selection, after: int, limit: int = PAGE
) -> tuple[list[int], int | None]:
    """Numbers of selected events after this one, and the last that was looked at, if any was."""
    query = (
        select(events.c.event_pk, events.c.subject)
        .where(
            events.c.event_pk > after,
            events.c.type.is_not(None),
            ~events.c.source.startswith(DEAD_SOURCE),
            *_bounds(selection),
        )
        .order_by(events.c.event_pk)
        .limit(limit)
    )
    rows = connection.execute(query).all()
    chosen = [
        row.event_pk
        for row in rows
        if is_like(row.subject, selection.domain)
        and _has_status(connection, row.event_pk, selection.status)
    ]
    return chosen, rows[-1].event_pk if rows else None


def newest_event(connection: Connection) -> int:
    """The number of the newest event; 0 in an empty ledger."""
    return connection.execute(select(func.max(events.c.event_pk))).scalar_one() or 0


def matches(selection: Selection, event: Event) -> bool:
    """Whether a decoded event is one of the selected; times and numbers are not asked here."""
    return (
        (selection.type is None or event.type.value == selection.type)
        and is_like(event.domain, selection.domain)
        and (selection.scan_id is None or _scan_id(event) == selection.scan_id)
        and (selection.status is None or _status(event.data) == selection.status)
    )


def is_like(domain: str | None, glob: str | None) -> bool:
    """Whether a domain is like a glob, in any case of letters."""
    return glob is None or fnmatchcase((domain or "").lower(), glob.lower())


def find_known(connection: Connection, wanted: Sequence[Event]) -> list[int | None]:
    """For each event its number in the ledger, by its identity or by its scan; None: unknown.

    A scan that another event brought counts as known: the ledger's word stands,
    and what comes from a file must not supersede it.
    """
    by_source: dict[str, set[str]] = {}
    for event in wanted:
        by_source.setdefault(event.source, set()).add(event.event_id)
    identities: dict[tuple[str, str], int] = {}
    for source, event_ids in by_source.items():  # SQLite finds pairs by a scan of all
        rows = connection.execute(
            select(events.c.event_id, events.c.event_pk).where(
                events.c.source == source, events.c.event_id.in_(event_ids)
            )
        )
        identities |= {(source, row.event_id): row.event_pk for row in rows}
    scan_ids = {str(event.scan.scan_id) for event in wanted if event.scan is not None}
    by_scan = dict(
        connection.execute(
            select(scans.c.scan_id, scans.c.event_pk).where(scans.c.scan_id.in_(scan_ids))
        ).all()
    )
    return [
        identities.get((event.source, event.event_id))
        or (by_scan.get(str(event.scan.scan_id)) if event.scan is not None else None)
        for event in wanted
    ]


def has_identity(connection: Connection, event: Event) -> bool:
    """Whether the ledger knows the event by its own identity."""
    return (
        connection.execute(
            select(events.c.event_pk).where(
                events.c.source == event.source, events.c.event_id == event.event_id
            )
        ).first()
        is not None
    )


def look_up(
    connection: Connection, event_pks: Iterable[int], replay_id: str | None
) -> dict[int, Known]:
    """What the ledger knows of these events, at most some hundreds."""
    wanted = list(event_pks)
    if not wanted:
        return {}
    found = connection.execute(
        select(
            events.c.event_pk,
            events.c.type,
            events.c.dataref,
            events.c.payload_size,
            events.c.payload.is_not(None).label("has_data"),
        ).where(events.c.event_pk.in_(wanted))
    ).mappings()
    by_event: dict[int, list[RowMapping]] = {}
    for run in connection.execute(
        select(
            runs.c.event_pk,
            runs.c.run_id,
            runs.c.scan_id,
            runs.c.replay_id,
            runs.c.state,
            runs.c.formats,
            runs.c.inputs,
            scans.c.event_pk.label("scan_event_pk"),
        )
        .outerjoin(scans, scans.c.scan_id == runs.c.scan_id)
        .where(runs.c.event_pk.in_(wanted))
        .order_by(runs.c.created_at, runs.c.run_id)
    ).mappings():
        by_event.setdefault(run["event_pk"], []).append(run)
    ready = _ready(connection, wanted)
    return {
        event["event_pk"]: _known(event, by_event.get(event["event_pk"], []), ready, replay_id)
        for event in found
    }


def insert_replay_run(
    connection: Connection,
    known: Known,
    formats: tuple[Format, ...],
    *,
    replay_id: str,
    now: datetime,
    dispatch_by: datetime,
    new_id: Callable[[], str],
) -> RunTicket | None:
    """A new run of a known event, under the frozen inputs of its newest one: the same bytes.

    None if this replay has a run of it already.  A sweep dispatches it if nobody
    has by ``dispatch_by``.  Two replays that ask for one event in the same moment
    may each get a run; both make the same bytes under the same keys.
    """
    run_id = new_id()
    written = connection.execute(
        insert(connection, runs)
        .values(
            run_id=run_id,
            event_pk=known.event_pk,
            scan_id=known.scan_id,
            kind="replay",
            replay_id=replay_id,
            state=RunState.RECORDED.value,
            attempt=1,
            deadline=dispatch_by,
            formats=[name.value for name in formats],
            inputs=msgspec.to_builtins(known.inputs),
            created_at=now,
        )
        .on_conflict_do_nothing(index_elements=[runs.c.replay_id, runs.c.event_pk])
        .returning(runs.c.run_id)
    ).one_or_none()
    if written is None:
        return None
    return RunTicket(run_id, 1, formats, needs_data=known.needs_data, is_replay=True)


def newest_run(connection: Connection, event_pk: int) -> str | None:
    """The id of an event's newest run, or None."""
    run_id: str | None = connection.execute(
        select(runs.c.run_id)
        .where(runs.c.event_pk == event_pk)
        .order_by(runs.c.created_at.desc(), runs.c.run_id.desc())
        .limit(1)
    ).scalar_one_or_none()
    return run_id


def _bounds(selection: Selection) -> Iterator[ColumnElement[bool]]:
    if selection.last_event is not None:
        yield events.c.event_pk <= selection.last_event
    if selection.since is not None:
        yield events.c.recorded_at >= selection.since
    if selection.until is not None:
        yield events.c.recorded_at <= selection.until
    if selection.type is not None:
        yield events.c.type == selection.type
    if selection.scan_id is not None:
        yield or_(
            exists().where(
                runs.c.event_pk == events.c.event_pk, runs.c.scan_id == selection.scan_id
            ),
            # what has no scan result of its own, such as scan.failed
            events.c.event_id.in_(
                [f"{kind}:{selection.scan_id}" for kind in EventType if kind.startswith("scan.")]
            ),
        )


class _Said(msgspec.Struct):
    """What is asked of an event's data here."""

    status: str | None = None
    scan_id: str | None = None


_said = msgspec.json.Decoder(_Said)


def _read(data: bytes) -> _Said:
    try:
        return _said.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Said()


def _status(data: bytes) -> str | None:
    return _read(data).status


def _scan_id(event: Event) -> str | None:
    return str(event.scan.scan_id) if event.scan is not None else _read(event.data).scan_id


def _has_status(connection: Connection, event_pk: int, status: str | None) -> bool:
    if status is None:
        return True
    data = read_payload(connection, event_pk)
    return data is not None and _status(data) == status


def _ready(connection: Connection, event_pks: Sequence[int]) -> dict[int, set[tuple[str, Format]]]:
    """By event: (language, format) of the reports that its own runs have made."""
    rows = connection.execute(
        select(runs.c.event_pk, reports.c.language, reports.c.format)
        .join(reports, reports.c.run_id == runs.c.run_id)
        .where(runs.c.event_pk.in_(event_pks), reports.c.status == "ready")
    )
    ready: dict[int, set[tuple[str, Format]]] = {}
    for row in rows:
        ready.setdefault(row.event_pk, set()).add((row.language, Format(row.format)))
    return ready


def _known(
    event: RowMapping,
    its_runs: Sequence[RowMapping],
    ready: Mapping[int, set[tuple[str, Format]]],
    replay_id: str | None,
) -> Known:
    newest = its_runs[-1] if its_runs else None
    inputs = None if newest is None else msgspec.convert(newest["inputs"], FrozenInputs)
    made = ready.get(event["event_pk"], set())
    return Known(
        event_pk=event["event_pk"],
        type=EventType(event["type"]),
        scan_id=None if newest is None else newest["scan_id"],
        inputs=inputs,
        formats=tuple(dict.fromkeys(Format(name) for run in its_runs for name in run["formats"])),
        ready=frozenset(name for language, name in made if inputs and language == inputs.language),
        has_data=event["has_data"],
        needs_data=event["dataref"] is not None and not event["payload_size"],
        in_flight=any(run["state"] in (RunState.RECORDED, RunState.DISPATCHED) for run in its_runs),
        superseded=newest is not None and newest["scan_event_pk"] not in (None, event["event_pk"]),
        in_this_replay=replay_id is not None
        and any(run["replay_id"] == replay_id for run in its_runs),
    )

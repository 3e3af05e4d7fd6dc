"""RECORD: the transaction by which the ledger takes over the promise for an entry.

Everything of a batch is written in one transaction, before any entry of it is
acknowledged.  Killed before the commit, nothing is in the ledger and the
entries stay pending: they are read again.  Killed after it, the entries are
read again too, and their identity, which is unique, makes the repeat a count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import msgspec
import structlog
from sqlalchemy import Connection, RowMapping, delete, desc, func, select, update
from sqlalchemy.sql.dml import ReturningInsert

from schemas.events import Event, EventType
from schemas.presentation import PLAIN, Presentation
from schemas.reports import Format
from schemas.runs import (
    DeadEntry,
    DecodedEntry,
    Entry,
    FrozenInputs,
    RunState,
    RunTicket,
)
from schemas.scans import Scan, ScanOutline
from store.earlier_scans import ThisScan, with_earlier
from store.ledger import Insert, insert, insert_for, pack, plain, unpack
from store.presentations import ensure_presentation
from store.tables import events, runs, scans

log = structlog.get_logger("store.events")

DEAD_ENTRY_BYTES = 64 * 1024
"""How much of an undecodable entry is kept for whoever looks into it."""

DEAD_SOURCE = "redis\t"
"""Starts the source of dead letters.  No event's source may hold a control character, so
no scanner can send an identity that makes a dead letter look recorded, or a repeat of it."""


@dataclass(frozen=True, slots=True)
class RunDefaults:
    """What a new run is given by the settings."""

    formats: tuple[Format, ...]
    language: str
    rule_pack: str
    rule_pack_sha256: str | None = None
    domain_languages: tuple[tuple[str, str], ...] = ()
    """Globs of domains with the language of their runs; the first that matches wins."""
    presentation: Presentation = PLAIN

    def language_of(self, domain: str | None) -> str:
        """The language of a run of this domain."""
        name = (domain or "").lower()
        for glob, language in self.domain_languages:
            if fnmatchcase(name, glob.lower()):
                return language
        return self.language


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """What one RECORD did.  ``tickets`` are the runs to dispatch now."""

    tickets: tuple[RunTicket, ...]
    new: int
    repeats: int
    dead: int


def record_batch(
    connection: Connection,
    decoded: Sequence[DecodedEntry],
    dead: Sequence[DeadEntry],
    *,
    defaults: RunDefaults,
    now: datetime,
    dispatch_by: datetime,
    new_id: Callable[[], str],
) -> BatchRecord:
    """Write a batch: events, scans, runs, dead letters.  Safe to repeat.

    A sweep dispatches the new runs if nobody has by ``dispatch_by``.
    """
    presentation = ensure_presentation(connection, defaults.presentation, now) if decoded else None
    # Two listeners may record the same events, or the same scans, in another order: rows are
    # taken in one order, an event's run before the event as everywhere, or each could wait for
    # the other for ever.
    by_identity = sorted(range(len(decoded)), key=lambda place: _identity(decoded[place].event))
    inserted = _insert_events(connection, [decoded[place] for place in by_identity], now)
    event_pks = {  # of two with one identity the first is new, the other its repeat
        place: inserted.pop(_identity(decoded[place].event), None) for place in by_identity
    }
    repeats = [decoded[place] for place in by_identity if event_pks[place] is None]
    tickets = _recorded_but_never_dispatched(connection, repeats)
    for item in repeats:
        _count_repeat(connection, item)
    new = [
        (item.event, pk)
        for place, item in enumerate(decoded)
        if (pk := event_pks[place]) is not None
    ]
    found = [
        _scan_row(pk, event.scan, event.time, now) for event, pk in new if event.scan is not None
    ]
    if found:
        found.sort(key=lambda row: row["scan_id"])
        connection.execute(_scan_upsert(connection.dialect.name), found)
    begun = [
        _begin_run(
            connection,
            event_pk,
            event,
            defaults,
            presentation,
            formats=defaults.formats if event.type is EventType.SCAN_COMPLETED else (),
            replay_id=None,
            now=now,
            dispatch_by=dispatch_by,
            new_id=new_id,
        )
        for event, event_pk in new
    ]
    if begun:
        connection.execute(_RUN_INSERT, [row for _, row in begun])
        tickets += [ticket for ticket, _ in begun]
    buried = sum(record_dead(connection, letter, now) for letter in dead)
    return BatchRecord(tuple(tickets), len(new), len(repeats), buried)


def record_for_replay(
    connection: Connection,
    item: DecodedEntry,
    *,
    formats: tuple[Format, ...],
    replay_id: str,
    defaults: RunDefaults,
    now: datetime,
    dispatch_by: datetime,
    new_id: Callable[[], str],
) -> RunTicket | None:
    """RECORD one event that a replay brings, with a run of that replay.

    None if the ledger has got to know it meanwhile: then it is a repeat, and counted.
    """
    presentation = ensure_presentation(connection, defaults.presentation, now)
    event_pk = _insert_events(connection, [item], now).get(_identity(item.event))
    if event_pk is None:
        _count_repeat(connection, item)
        return None
    scan = item.event.scan
    if scan is not None:
        row = _scan_row(event_pk, scan, item.event.time, now)
        connection.execute(_scan_upsert(connection.dialect.name), row)
    begun, run = _begin_run(
        connection,
        event_pk,
        item.event,
        defaults,
        presentation,
        formats=formats,
        replay_id=replay_id,
        now=now,
        dispatch_by=dispatch_by,
        new_id=new_id,
    )
    connection.execute(_RUN_INSERT, run)
    return begun


def record_dead(connection: Connection, letter: DeadEntry, now: datetime) -> bool:
    """Write one dead letter.  False if it was there already."""
    share = DEAD_ENTRY_BYTES // max(1, len(letter.entry.fields))
    raw = msgspec.json.encode(
        {
            key[:256].decode("utf-8", "backslashreplace"): value[:share].decode(
                "utf-8", "backslashreplace"
            )
            for key, value in list(letter.entry.fields.items())[:64]
        }
    )
    size, digest = raw_size_and_digest(letter.entry.fields)
    statement = insert(connection, events).values(
        source=f"{DEAD_SOURCE}{letter.entry.stream}",
        event_id=letter.entry.entry_id,
        stream=letter.entry.stream,
        entry_id=letter.entry.entry_id,
        payload=pack(raw),
        payload_size=size,
        payload_sha256=digest,
        outcome="dead",
        reason=plain(letter.reason),
        seen=1,
        recorded_at=now,
    )
    written = statement.on_conflict_do_nothing().returning(events.c.event_pk)
    return connection.execute(written).one_or_none() is not None


def bury(connection: Connection, letter: DeadEntry, now: datetime) -> int:
    """Write a suspect's dead letter before looking at it; returns which look this is, from 1."""
    if record_dead(connection, letter, now):
        return 1
    looks: int = connection.execute(
        update(events)
        .where(
            events.c.source == f"{DEAD_SOURCE}{letter.entry.stream}",
            events.c.event_id == letter.entry.entry_id,
        )
        .values(seen=events.c.seen + 1)
        .returning(events.c.seen)
    ).scalar_one()
    return looks


def is_known(connection: Connection, entry: Entry) -> bool:
    """Whether this very entry is in the ledger, as an event or as a dead letter."""
    return (
        connection.execute(
            select(events.c.event_pk).where(
                events.c.stream == entry.stream, events.c.entry_id == entry.entry_id
            )
        ).first()
        is not None
    )


def exhume(connection: Connection, entry: Entry) -> None:
    """Take back the dead letter of an entry that turned out to be sound."""
    connection.execute(
        delete(events).where(
            events.c.source == f"{DEAD_SOURCE}{entry.stream}",
            events.c.event_id == entry.entry_id,
            events.c.outcome == "dead",
        )
    )


def store_fetched_scan(
    connection: Connection,
    run_id: str,
    event_pk: int,
    data: bytes,
    scan: Scan | None,
    *,
    defaults: RunDefaults,
    now: datetime,
    is_replay: bool = False,
) -> None:
    """Give an event the data its dataref pointed to, and its run what follows from it."""
    # rows are taken in the order of everywhere: run, event, scan
    connection.execute(select(runs.c.run_id).where(runs.c.run_id == run_id).with_for_update())
    connection.execute(
        update(events)
        .where(events.c.event_pk == event_pk)
        .values(
            payload=pack(data),
            payload_size=len(data),
            payload_sha256=hashlib.sha256(data).hexdigest(),
        )
    )
    if scan is None:
        return
    row = connection.execute(
        select(events.c.occurred_at).where(events.c.event_pk == event_pk)
    ).one()
    presentation = ensure_presentation(connection, defaults.presentation, now)
    outline = scan.outline
    connection.execute(
        _scan_upsert(connection.dialect.name), _scan_row(event_pk, outline, row.occurred_at, now)
    )
    inputs = _defaults_of(defaults, scan.domain, presentation)
    inputs = with_earlier(connection, inputs, _this_scan(outline, row.occurred_at, now))
    connection.execute(
        update(events)
        .where(events.c.event_pk == event_pk)
        .values(subject=scan.domain, occurred_at=scan.finished_at or row.occurred_at)
    )
    connection.execute(
        update(runs)
        .where(runs.c.run_id == run_id)
        .values(
            scan_id=str(scan.scan_id),
            inputs=msgspec.to_builtins(inputs),
            # a replay's run keeps those that it was asked for
            **({} if is_replay else {"formats": list(defaults.formats)}),
        )
    )


def list_dead_letters(connection: Connection, limit: int) -> list[RowMapping]:
    """The newest dead letters: event_pk, stream, entry_id, type, subject, reason, size, time."""
    return list(
        connection.execute(
            select(
                events.c.event_pk,
                events.c.stream,
                events.c.entry_id,
                events.c.source,
                events.c.event_id,
                events.c.type,
                events.c.subject,
                events.c.reason,
                events.c.payload_size,
                events.c.payload_sha256,
                events.c.seen,
                events.c.recorded_at,
            )
            .where(events.c.outcome == "dead")
            .order_by(desc(events.c.event_pk))
            .limit(limit)
        ).mappings()
    )


def read_payload(connection: Connection, event_pk: int) -> bytes | None:
    """An event's kept bytes, or None if there is no such event or it has none."""
    payload = connection.execute(
        select(events.c.payload).where(events.c.event_pk == event_pk)
    ).scalar_one_or_none()
    return None if payload is None else unpack(payload)


def count_dead_letters_since(connection: Connection, since: datetime) -> int:
    """Number of entries set aside since then."""
    return connection.execute(
        select(func.count())
        .select_from(events)
        .where(
            events.c.outcome == "dead",
            events.c.recorded_at >= since,
            events.c.source.startswith(DEAD_SOURCE),
        )
    ).scalar_one()


def count_outcomes(connection: Connection) -> dict[str, int]:
    """Number of events by outcome."""
    rows = connection.execute(select(events.c.outcome, func.count()).group_by(events.c.outcome))
    return dict(rows.all())


# Built once: to build a statement takes longer than to run it.
_RUN_INSERT = runs.insert()


@cache
def _event_insert(dialect: str) -> ReturningInsert[Any]:
    """New events, whose keys are returned; nothing for one that is known."""
    statement = insert_for(dialect, events).on_conflict_do_nothing()
    return statement.returning(events.c.source, events.c.event_id, events.c.event_pk)


@cache
def _scan_upsert(dialect: str) -> Insert:
    """A scan id that comes again in another event replaces the scan: the later word counts."""
    statement = insert_for(dialect, scans)
    replaced = ("event_pk", "domain", "scan_mode", "finished_at", "cookie_count", "score",
                "recorded_at")  # fmt: skip
    return statement.on_conflict_do_update(
        index_elements=[scans.c.scan_id],
        set_={name: statement.excluded[name] for name in replaced},
    )


def _insert_events(
    connection: Connection, items: Sequence[DecodedEntry], now: datetime
) -> dict[tuple[str, str], int]:
    """The keys of new events by their identity; a repeat has none.  In the order given."""
    if not items:
        return {}
    rows = connection.execute(
        _event_insert(connection.dialect.name), [_event_row(item, now) for item in items]
    )
    return {(source, event_id): event_pk for source, event_id, event_pk in rows}


def _event_row(item: DecodedEntry, now: datetime) -> dict[str, Any]:
    event = item.event
    return {
        "source": event.source,
        "event_id": event.event_id,
        "stream": item.entry.stream,
        "entry_id": item.entry.entry_id,
        "type": event.type.value,
        "subject": event.domain,
        "user_id": event.userid,
        "occurred_at": (event.scan.finished_at if event.scan else None) or event.time or now,
        "traceparent": event.traceparent,
        "dataref": plain(event.dataref, 8192),
        "payload": pack(event.data) if event.data else None,
        "payload_size": len(event.data),
        "payload_sha256": hashlib.sha256(event.data).hexdigest(),
        "outcome": "pending",
        "seen": 1,
        "recorded_at": now,
    }


def _count_repeat(connection: Connection, item: DecodedEntry) -> None:
    known = connection.execute(
        update(events)
        .where(*_same_identity(item.event))
        .values(seen=events.c.seen + 1)
        .returning(events.c.event_pk, events.c.payload_sha256, events.c.dataref)
    ).one()
    is_comparable = known.dataref is None and known.payload_sha256  # "": its record is gone
    if is_comparable and known.payload_sha256 != hashlib.sha256(item.event.data).hexdigest():
        # The contract says that a repeat is the same event: the first word stands.
        log.warning(
            "repeat_differs",
            stream=item.entry.stream,
            entry_id=item.entry.entry_id,
            event_pk=known.event_pk,
        )


def _begin_run(
    connection: Connection,
    event_pk: int,
    event: Event,
    defaults: RunDefaults,
    presentation: str | None,
    *,
    formats: tuple[Format, ...],
    replay_id: str | None,
    now: datetime,
    dispatch_by: datetime,
    new_id: Callable[[], str],
) -> tuple[RunTicket, dict[str, Any]]:
    """A new run's ticket, and its row, which is yet to be written."""
    inputs = _freeze(connection, event, defaults, presentation, now)
    ticket = RunTicket(
        run_id=new_id(),
        attempt=1,
        formats=formats,
        needs_data=event.dataref is not None,
        is_replay=replay_id is not None,
        data_bytes=len(event.data),
    )
    return ticket, {
        "run_id": ticket.run_id,
        "event_pk": event_pk,
        "scan_id": str(event.scan.scan_id) if event.scan else None,
        "kind": "live" if replay_id is None else "replay",
        "replay_id": replay_id,
        "state": RunState.RECORDED.value,
        "attempt": ticket.attempt,
        "deadline": dispatch_by,
        "formats": list(ticket.formats),
        "inputs": msgspec.to_builtins(inputs),
        "created_at": now,
    }


def _freeze(
    connection: Connection,
    event: Event,
    defaults: RunDefaults,
    presentation: str | None,
    now: datetime,
) -> FrozenInputs:
    inputs = _defaults_of(defaults, event.domain, presentation)
    if event.scan is None:
        return inputs
    return with_earlier(connection, inputs, _this_scan(event.scan, event.time, now))


def _defaults_of(
    defaults: RunDefaults, domain: str | None, presentation: str | None
) -> FrozenInputs:
    return FrozenInputs(
        language=defaults.language_of(domain),
        rule_pack=defaults.rule_pack,
        rule_pack_sha256=defaults.rule_pack_sha256,
        presentation=presentation,
    )


def _this_scan(scan: ScanOutline, event_time: datetime | None, now: datetime) -> ThisScan:
    return ThisScan(str(scan.scan_id), scan.domain, scan.finished_at or event_time or now)


def _scan_row(
    event_pk: int, scan: ScanOutline, event_time: datetime | None, now: datetime
) -> dict[str, Any]:
    this = _this_scan(scan, event_time, now)
    return {
        "scan_id": this.scan_id,
        "event_pk": event_pk,
        "domain": this.domain,
        "scan_mode": plain(scan.scan_mode, 64),
        "finished_at": this.finished_at,
        "cookie_count": scan.cookie_count,
        "score": None,
        "recorded_at": now,
    }


def foresee_inputs(
    connection: Connection, event: Event, defaults: RunDefaults, now: datetime
) -> FrozenInputs:
    """What a run of this event would be frozen with, were it recorded now.  Writes nothing."""
    return _freeze(connection, event, defaults, None, now)


def _recorded_but_never_dispatched(
    connection: Connection, repeats: Sequence[DecodedEntry]
) -> list[RunTicket]:
    """The runs of entries that came back because their listener died before dispatching.

    The attempt rises, so that ids are not reused should the dead listener have
    published a part.  A repeat published by the scanner is another entry and is left alone.
    """
    undispatched = runs.c.state == RunState.RECORDED.value, runs.c.replay_id.is_(None)
    found: dict[str, DecodedEntry] = {}
    for item in repeats:
        of_entry = (
            select(runs.c.run_id)
            .join(events, events.c.event_pk == runs.c.event_pk)
            .where(
                *undispatched,
                *_same_identity(item.event),
                events.c.stream == item.entry.stream,
                events.c.entry_id == item.entry.entry_id,
            )
        )
        found |= dict.fromkeys(connection.execute(of_entry).scalars(), item)
    tickets: list[RunTicket] = []
    for run_id, item in sorted(found.items(), key=lambda pair: pair[0]):
        row = (
            connection.execute(
                update(runs)
                .where(runs.c.run_id == run_id, *undispatched)
                .values(attempt=runs.c.attempt + 1)
                .returning(runs.c.run_id, runs.c.attempt, runs.c.formats)
            )
            .mappings()
            .one_or_none()
        )
        if row is not None:
            needs_data = item.event.dataref is not None and not item.event.data
            tickets.append(ticket(row, needs_data=needs_data))
    return tickets


def ticket(row: RowMapping | Mapping[str, Any], *, needs_data: bool) -> RunTicket:
    """A run's row as a ticket."""
    return RunTicket(
        run_id=row["run_id"],
        attempt=row["attempt"],
        formats=tuple(Format(name) for name in row["formats"]),
        needs_data=needs_data,
        is_replay=row.get("replay_id") is not None,
    )


def _identity(event: Event) -> tuple[str, str]:
    return event.source, event.event_id


def _same_identity(event: Event) -> tuple[Any, Any]:
    return events.c.source == event.source, events.c.event_id == event.event_id


def raw_size_and_digest(fields: Mapping[bytes, bytes]) -> tuple[int, str]:
    """Bytes and SHA-256 of an entry's fields, in their order."""
    digest = hashlib.sha256()
    size = 0
    for key, value in fields.items():
        digest.update(key)
        digest.update(value)
        size += len(key) + len(value)
    return size, digest.hexdigest()

"""Runs and the reports they make: every change of state, and what a crash leaves.

``recorded → dispatched → done``, or ``dead`` with a reason, or ``cancelled`` (see
``cancelling.py``).  A run changes state by compare-and-set, so of two workers
that try one wins.  Only the sweep raises an attempt, by
``UPDATE … WHERE attempt = ?``: of two sweeps one wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    bindparam,
    case,
    desc,
    exists,
    func,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert

from schemas.errors import NotFound
from schemas.events import EventType
from schemas.reports import Format
from schemas.runs import FrozenInputs, Run, RunState, RunTicket
from store.events import ticket
from store.ledger import insert, insert_for, plain, unpack
from store.tables import events, replays, reports, runs, scans

_UNSETTLED = (RunState.RECORDED.value, RunState.DISPATCHED.value)
_REVIVABLE = (RunState.DEAD.value, RunState.CANCELLED.value)


def mark_dispatched(
    connection: Connection, tickets: Iterable[RunTicket], deadline: datetime
) -> None:
    """Note that these attempts were published.

    Killed before this, a run stays ``recorded`` and the sweep publishes it again
    under the next attempt; the artifacts and deliveries of both are the same rows.
    """
    given = [
        {"of_run": ticket.run_id, "of_attempt": ticket.attempt, "next_deadline": deadline}
        for ticket in sorted(tickets, key=lambda ticket: ticket.run_id)
    ]
    if given:
        connection.execute(_MARK_DISPATCHED, given)


# The statements of every run's way are built once: building costs more than executing.

_MARK_DISPATCHED = (
    update(runs)
    .where(
        runs.c.run_id == bindparam("of_run"),
        runs.c.attempt == bindparam("of_attempt"),
        runs.c.state == RunState.RECORDED.value,
    )
    .values(state=RunState.DISPATCHED.value, deadline=bindparam("next_deadline"))
)


_LOADED = (
    select(
        runs.c.run_id,
        runs.c.event_pk,
        runs.c.scan_id,
        runs.c.replay_id,
        runs.c.state,
        runs.c.attempt,
        runs.c.formats,
        runs.c.inputs,
        events.c.type,
        events.c.source,
        events.c.event_id,
        events.c.subject,
        events.c.user_id,
        events.c.occurred_at,
        events.c.dataref,
        events.c.traceparent,
        events.c.payload,
        events.c.payload_size,
        events.c.payload_sha256,
        scans.c.event_pk.label("scan_event_pk"),
        replays.c.tells,
    )
    .join(events, events.c.event_pk == runs.c.event_pk)
    .outerjoin(scans, scans.c.scan_id == runs.c.scan_id)
    .outerjoin(replays, replays.c.replay_id == runs.c.replay_id)
    .where(runs.c.run_id == bindparam("this"))
)


def load_run(connection: Connection, run_id: str) -> Run:
    """A run with its event.  Raises NotFound."""
    row = connection.execute(_LOADED, {"this": run_id}).mappings().one_or_none()
    if row is None:
        raise NotFound(f"no run {run_id}")
    return Run(
        run_id=row["run_id"],
        attempt=row["attempt"],
        state=RunState(row["state"]),
        formats=tuple(Format(name) for name in row["formats"]),
        inputs=msgspec.convert(row["inputs"], FrozenInputs),
        scan_id=row["scan_id"],
        event_pk=row["event_pk"],
        event_type=EventType(row["type"]),
        source=row["source"],
        event_id=row["event_id"],
        subject=row["subject"],
        user_id=row["user_id"],
        occurred_at=row["occurred_at"],
        dataref=row["dataref"],
        traceparent=row["traceparent"],
        data=unpack(row["payload"]) if row["payload"] is not None else b"",
        data_sha256=row["payload_sha256"],
        superseded=row["scan_event_pk"] not in (None, row["event_pk"]),
        data_deleted=row["payload"] is None and row["payload_size"] > 0,
        replay_id=row["replay_id"],
        tells=row["replay_id"] is None or bool(row["tells"]),
    )


def formats_of_event(connection: Connection, event_pk: int) -> tuple[Format, ...]:
    """All formats that any run of an event was to make, as they were first asked for."""
    rows = connection.execute(
        select(runs.c.formats)
        .where(runs.c.event_pk == event_pk)
        .order_by(runs.c.created_at, runs.c.run_id)
    ).scalars()
    return tuple(dict.fromkeys(Format(name) for names in rows for name in names))


def latest_run_of_scan(connection: Connection, scan_id: str) -> str:
    """The id of the newest run of a scan, a dead one only where all are.  Raises NotFound."""
    run_id: str | None = connection.execute(
        select(runs.c.run_id)
        .join(scans, scans.c.event_pk == runs.c.event_pk)  # not a run that was superseded
        .where(scans.c.scan_id == scan_id)
        .order_by(
            case((runs.c.state == RunState.DEAD.value, 1), else_=0),
            desc(runs.c.created_at),
            desc(runs.c.run_id),
        )
        .limit(1)
    ).scalar_one_or_none()
    if run_id is None:
        raise NotFound(f"no scan {scan_id} in the ledger; publish its scan.completed event first")
    return run_id


def is_recorded(connection: Connection, run_id: str) -> bool:
    """Whether there is such a run; if so, it stays until the transaction ends.

    To be asked before an artifact is noted: a run may be erased while it is rendered.
    """
    return connection.execute(_RECORDED, {"this": run_id}).first() is not None


_RECORDED = (
    select(runs.c.run_id).where(runs.c.run_id == bindparam("this")).with_for_update(read=True)
)


@dataclass(frozen=True, slots=True)
class RenderStart:
    """What ``start_rendering`` decided: formats to render now, and how each stands."""

    wanted: tuple[Format, ...]
    poisoned: tuple[Format, ...]
    statuses: dict[Format, str]


def has_unended_start(connection: Connection, run: Run, formats: Sequence[Format]) -> bool:
    """Whether this run started to render one of these formats and never said how it ended."""
    begun = connection.execute(_UNENDED, {"scan": run.scan_id, "run": run.run_id,
                                          "spoken": run.inputs.language}).scalars()  # fmt: skip
    return not set(formats).isdisjoint(map(Format, begun))


_UNENDED = select(reports.c.format).where(
    reports.c.scan_id == bindparam("scan"),
    reports.c.language == bindparam("spoken"),
    reports.c.run_id == bindparam("run"),
    reports.c.status == "pending",
    reports.c.tries > 0,
)


def start_rendering(
    connection: Connection,
    run: Run,
    formats: Sequence[Format],
    *,
    max_tries: int,
    now: datetime,
) -> RenderStart:
    """Count a start of rendering per format, before the work.

    The count is what bounds a poison scan: a worker that dies while rendering
    comes back here, and after ``max_tries`` starts the format has failed.
    A format that this run has made already is not wanted again.  Rows are taken in one
    order, or two runs of one scan could wait for each other for ever.
    """
    connection.execute(_NOTE_STARTED, {"this": run.run_id})
    given = [
        {
            "report_id": report_id(run, name),
            "scan_id": run.scan_id,
            "format": name.value,
            "language": run.inputs.language,
            "run_id": run.run_id,
            "tries": 1,
            "status": "pending",
            "created_at": now,
        }
        for name in sorted(set(formats))
    ]
    begun = connection.execute(_start(connection.dialect.name), given) if given else ()
    rows = {Format(row.format): row for row in begun}
    statuses = {name: str(row.status) for name, row in rows.items()}
    poisoned = tuple(
        name for name in formats if statuses[name] == "pending" and rows[name].tries > max_tries
    )
    for name in poisoned:
        reason = f"given up as poison: {max_tries} starts of rendering never ended"
        save_render_error(connection, run, name, reason, final=True)
        statuses[name] = "failed"
    wanted = tuple(name for name in formats if statuses[name] == "pending")
    return RenderStart(wanted, poisoned, statuses)


_NOTE_STARTED = (
    update(runs)
    .where(runs.c.run_id == bindparam("this"), runs.c.state.in_(_UNSETTLED))
    .values(started_attempt=runs.c.attempt)
)


@cache
def _start(dialect: str) -> ReturningInsert[Any]:
    """Begin reports, or count one more start of theirs."""
    statement = insert_for(dialect, reports)
    given = statement.excluded
    # one that has expired meanwhile is made again, whichever run had made it
    same_run = and_(reports.c.run_id == given.run_id, reports.c.status != "expired")
    return statement.on_conflict_do_update(
        index_elements=[reports.c.scan_id, reports.c.format, reports.c.language],
        set_={
            "tries": case((same_run, reports.c.tries + 1), else_=1),
            "status": case((same_run, reports.c.status), else_="pending"),
            "run_id": given.run_id,
        },
    ).returning(reports.c.format, reports.c.tries, reports.c.status)


@dataclass(frozen=True, slots=True)
class RenderedReport:
    """One rendered artifact, already in the store."""

    format: Format
    artifact_key: str
    uri: str
    size_bytes: int
    sha256: str
    rule_pack: str
    content_sha256: str
    """Of the Report that it shows."""
    render_ms: float


def save_rendered(
    connection: Connection, run: Run, rendered: Iterable[RenderedReport], now: datetime
) -> None:
    """Note artifacts that are in the store.

    Killed between the store's put and this, the format is still ``pending`` and
    is rendered again: the same bytes over the same key.
    """
    made = [
        {
            **_ready(report, now),
            "replay_id": run.replay_id,
            **_identity(run, report.format),
        }
        for report in sorted(rendered, key=lambda report: report.format)
    ]
    if made:
        connection.execute(_UPDATE_REPORT, made)


_UPDATE_REPORT = update(reports).where(
    reports.c.scan_id == bindparam("of_scan"),
    reports.c.format == bindparam("of_format"),
    reports.c.language == bindparam("of_language"),
    reports.c.run_id == bindparam("of_run"),
)
"""Sets the columns that it is executed with."""


def _identity(run: Run, name: Format) -> dict[str, Any]:
    """Which report ``_UPDATE_REPORT`` means."""
    return {
        "of_scan": run.scan_id,
        "of_format": name.value,
        "of_language": run.inputs.language,
        "of_run": run.run_id,
    }


def _ready(report: RenderedReport, now: datetime) -> dict[str, Any]:
    return {
        "status": "ready",
        "artifact_key": report.artifact_key,
        "uri": report.uri,
        "size_bytes": report.size_bytes,
        "sha256": report.sha256,
        "rule_pack": report.rule_pack,
        "content_sha256": report.content_sha256,
        "render_ms": report.render_ms,
        "error": None,
        "ready_at": now,
    }


def save_render_error(
    connection: Connection, run: Run, name: Format, error: str, *, final: bool
) -> None:
    """Note why a format is not there.  ``final``: it failed for good and blocks nothing.

    One that is there meanwhile stays.
    """
    values: dict[str, Any] = {"error": plain(error)}
    if final:
        values["status"] = "failed"
    connection.execute(
        _UPDATE_REPORT.where(reports.c.status == "pending"), values | _identity(run, name)
    )


def forgive_starts(connection: Connection, run: Run, formats: Sequence[Format]) -> None:
    """Begin the count of starts again: what ended them was a passing fault, no poison."""
    for name in sorted(formats):
        connection.execute(_UPDATE_REPORT, {"tries": 0, **_identity(run, name)})


def report_id(run: Run, name: Format) -> str:
    """The identity of a report: its scan, language and format."""
    return f"{run.scan_id}.{run.inputs.language}.{name.value}"


def save_on_demand(
    connection: Connection, run: Run, rendered: Iterable[RenderedReport], now: datetime
) -> None:
    """Note artifacts made outside a run's attempts, whatever was there before."""
    for report in rendered:
        values = {**_ready(report, now), "run_id": run.run_id, "replay_id": None}
        connection.execute(
            insert(connection, reports)
            .values(
                report_id=report_id(run, report.format),
                scan_id=run.scan_id,
                format=report.format.value,
                language=run.inputs.language,
                tries=0,
                created_at=now,
                **values,
            )
            .on_conflict_do_update(
                index_elements=[reports.c.scan_id, reports.c.format, reports.c.language],
                set_=values,
            )
        )


def reports_of_run(connection: Connection, run: Run) -> dict[Format, RowMapping]:
    """The report rows of a run's scan in the run's language, by format."""
    rows = connection.execute(
        _OF_SCAN, {"scan": run.scan_id, "spoken": run.inputs.language}
    ).mappings()
    return {Format(row["format"]): row for row in rows}


_OF_SCAN = select(reports).where(
    reports.c.scan_id == bindparam("scan"), reports.c.language == bindparam("spoken")
)


def settle_done(
    connection: Connection, run: Run, now: datetime, *, score: int | None, summary: str
) -> bool:
    """Settle a run.  False if another worker has, or it is dead: then do nothing more.

    In one transaction with the deliveries it plans: killed before the commit,
    the run is unfinished and the sweep starts its next attempt; after it, the
    deliveries are there and the sweep starts those that nobody has started.
    Rows are taken in the order of everywhere: run, event, scan.
    """
    if not connection.execute(_SETTLE_DONE, {"this": run.run_id, "now": now}).rowcount:
        return False
    ended = {"of_event": run.event_pk, "why": plain(summary)}
    if run.replay_id is None:
        connection.execute(_NOTE_OUTCOME, ended)
    else:  # it ends what was not ended; what is on record of a live run's end stays
        ended["why"] = plain(f"{summary}, by replay {run.replay_id}")
        connection.execute(_NOTE_OUTCOME.where(events.c.outcome != "done"), ended)
    if run.scan_id is not None and (score is not None or run.replay_id is None):
        scored = {"of_scan": run.scan_id, "of_event": run.event_pk, "points": score}
        connection.execute(_SAVE_SCORE, scored)
    return True


_SETTLE_DONE = (
    update(runs)
    .where(runs.c.run_id == bindparam("this"), runs.c.state.in_(_UNSETTLED))
    .values(state=RunState.DONE.value, settled_at=bindparam("now"), deadline=None, last_error=None)
)
_SAVE_SCORE = (
    update(scans)
    .where(scans.c.scan_id == bindparam("of_scan"), scans.c.event_pk == bindparam("of_event"))
    .values(score=bindparam("points"))
)


def note_outcome(connection: Connection, run: Run, summary: str) -> None:
    """Say in the ledger what became of a live run's event, which is settled."""
    connection.execute(_NOTE_OUTCOME, {"of_event": run.event_pk, "why": plain(summary)})


_NOTE_OUTCOME = (
    update(events)
    .where(events.c.event_pk == bindparam("of_event"))
    .values(outcome="done", reason=bindparam("why"))
)


def settle_dead(connection: Connection, run_id: str, reason: str, now: datetime) -> bool:
    """Give a run up, with a reason.  False if it was settled already.

    Its event is dead with it, unless another run of the event has made what
    there was to make, or still may: a replay's end undoes nothing.
    """
    event_pk = connection.execute(
        update(runs)
        .where(runs.c.run_id == run_id, runs.c.state.in_(_UNSETTLED))
        .values(state=RunState.DEAD.value, settled_at=now, deadline=None, last_error=plain(reason))
        .returning(runs.c.event_pk)
    ).scalar_one_or_none()
    if event_pk is None:
        return False
    alive = exists().where(
        runs.c.event_pk == event_pk, runs.c.state.in_((*_UNSETTLED, RunState.DONE.value))
    )
    connection.execute(
        update(events)
        .where(events.c.event_pk == event_pk, ~alive)
        .values(outcome="dead", reason=plain(reason))
    )
    return True


def begin_work(connection: Connection, run_id: str) -> int:
    """Count a start of the body or of a fetch, before the work; returns which start this is.

    The counts bound what kills its worker: within one attempt the message comes
    back at once, and nothing else would end that.  0 for a run that is settled.
    """
    begun: int | None = connection.execute(
        update(runs)
        .where(runs.c.run_id == run_id, runs.c.state.in_(_UNSETTLED))
        .values(started_attempt=runs.c.attempt, settling=runs.c.settling + 1)
        .returning(runs.c.settling)
    ).scalar_one_or_none()
    return begun or 0


def forgive_work(connection: Connection, run_id: str) -> None:
    """Begin the count of ``begin_work`` again: it ended, be it by a passing fault."""
    connection.execute(update(runs).where(runs.c.run_id == run_id).values(settling=0))


def count_dead_since(connection: Connection, since: datetime) -> int:
    """Number of runs given up since then."""
    return connection.execute(
        select(func.count())
        .select_from(runs)
        .where(runs.c.state == RunState.DEAD.value, runs.c.settled_at >= since)
    ).scalar_one()


def postpone(
    connection: Connection, run_id: str, attempt: int, error: str, deadline: datetime
) -> None:
    """Note why an attempt did not finish; the sweep starts the next one after ``deadline``."""
    connection.execute(
        update(runs)
        .where(runs.c.run_id == run_id, runs.c.attempt == attempt, runs.c.state.in_(_UNSETTLED))
        .values(last_error=plain(error), deadline=deadline, started_attempt=attempt, settling=0)
    )


@dataclass(frozen=True, slots=True)
class Sweepings:
    """What a sweep found: attempts to dispatch now, and runs that are dead after too many."""

    tickets: tuple[RunTicket, ...]
    dead: tuple[str, ...]


def claim_unfinished(
    connection: Connection,
    now: datetime,
    *,
    next_deadline: datetime,
    max_attempts: int,
    limit: int,
    spare_waiting_replays: bool = False,
) -> Sweepings:
    """Take up runs past their deadline under their next attempt.

    ``spare_waiting_replays``: not a replay's run that was published and that no
    worker has begun.  While live scans come, it waits behind them as long as they
    do; published again at each deadline, its messages would fill the queue.

    Only attempts that a worker began count towards ``max_attempts``: a run that
    waits behind a broken broker or a long queue is late, not poisonous.

    Killed after the commit and before publishing, they wait for the next
    deadline.  A run that somebody is changing just now is passed over: of two sweeps
    one takes it, neither waits for the other, and a minute later there is the next.
    """
    overdue: tuple[ColumnElement[bool], ...] = (
        runs.c.state.in_(_UNSETTLED),
        runs.c.deadline <= now,
    )
    if spare_waiting_replays:
        waits = and_(
            runs.c.replay_id.is_not(None),
            runs.c.state == RunState.DISPATCHED.value,
            runs.c.started_attempt < runs.c.attempt,
        )
        overdue += (~waits,)
    found = connection.execute(
        select(
            runs.c.run_id,
            runs.c.attempt,
            runs.c.started_attempt,
            runs.c.starts,
            runs.c.formats,
            runs.c.replay_id,
            runs.c.last_error,
            events.c.dataref,
            events.c.payload_size,
        )
        .join(events, events.c.event_pk == runs.c.event_pk)
        .where(*overdue)
        .order_by(runs.c.deadline, runs.c.run_id)
        .limit(limit)
        .with_for_update(of=runs, skip_locked=True)
    ).mappings()
    tickets: list[RunTicket] = []
    dead: list[str] = []
    for row in found.all():
        starts = row["starts"] + (row["started_attempt"] == row["attempt"])
        if starts >= max_attempts:
            last = row["last_error"] or "no attempt reported an error: its workers died or hung"
            if settle_dead(
                connection, row["run_id"], f"gave up after {max_attempts} attempts: {last}", now
            ):
                dead.append(row["run_id"])
            continue
        claimed = connection.execute(
            update(runs)
            .where(
                runs.c.run_id == row["run_id"],
                runs.c.attempt == row["attempt"],
                *overdue,
            )
            .values(
                attempt=row["attempt"] + 1,
                starts=starts,
                state=RunState.DISPATCHED.value,
                deadline=next_deadline,
            )
        ).rowcount
        if claimed:
            needs_data = row["dataref"] is not None and not row["payload_size"]
            tickets.append(ticket({**row, "attempt": row["attempt"] + 1}, needs_data=needs_data))
    return Sweepings(tuple(tickets), tuple(dead))


def revive(connection: Connection, run_ids: Sequence[str], now: datetime) -> list[str]:
    """Give dead or cancelled runs another life, all counts begun again; return which had ended so.

    They are overdue at once: the sweep dispatches their next attempt, as many at
    a time as the queues have room for.
    """
    revived: list[str] = []
    for run_id in run_ids:
        event_pk = connection.execute(
            update(runs)
            .where(runs.c.run_id == run_id, runs.c.state.in_(_REVIVABLE))
            .values(
                state=RunState.RECORDED.value,
                started_attempt=0,
                starts=0,
                settling=0,
                deadline=now,
                settled_at=None,
            )
            .returning(runs.c.event_pk)
        ).scalar_one_or_none()
        if event_pk is None:
            continue
        connection.execute(
            update(reports)
            .where(reports.c.run_id == run_id, reports.c.status.in_(("failed", "pending")))
            .values(status="pending", tries=0, error=None)
        )
        connection.execute(
            update(events)
            .where(events.c.event_pk == event_pk, events.c.outcome.in_(("dead", "cancelled")))
            .values(outcome="pending", reason=f"taken up again on {now:%Y-%m-%d %H:%M} UTC")
        )
        revived.append(run_id)
    return revived


def dead_runs(connection: Connection, by: datetime, limit: int) -> list[str]:
    """Ids of runs that were dead by then, the longest dead first."""
    return list(
        connection.execute(
            select(runs.c.run_id)
            .where(runs.c.state == RunState.DEAD.value, runs.c.settled_at <= by)
            .order_by(runs.c.settled_at, runs.c.run_id)
            .limit(limit)
        ).scalars()
    )


def list_runs(
    connection: Connection, *, limit: int, state: str | None = None, domain: str | None = None
) -> list[RowMapping]:
    """The newest runs with their event's type, subject and outcome."""
    query = (
        select(
            runs.c.run_id,
            runs.c.scan_id,
            runs.c.kind,
            runs.c.replay_id,
            runs.c.state,
            runs.c.attempt,
            runs.c.last_error,
            runs.c.created_at,
            runs.c.settled_at,
            events.c.type,
            events.c.subject,
            scans.c.score,
            scans.c.cookie_count,
        )
        .join(events, events.c.event_pk == runs.c.event_pk)
        .outerjoin(scans, scans.c.scan_id == runs.c.scan_id)
        .order_by(desc(runs.c.created_at), desc(events.c.event_pk))
        .limit(limit)
    )
    if state:
        query = query.where(runs.c.state == state)
    if domain:
        query = query.where(events.c.subject == domain)
    return list(connection.execute(query).mappings())


def list_reports(
    connection: Connection, *, limit: int, scan_id: str | None = None, domain: str | None = None
) -> list[RowMapping]:
    """The newest reports with their scan's domain and score."""
    query = (
        select(reports, scans.c.domain, scans.c.score)
        .outerjoin(scans, scans.c.scan_id == reports.c.scan_id)
        .order_by(desc(reports.c.created_at), reports.c.scan_id, reports.c.format)
        .limit(limit)
    )
    if scan_id:
        query = query.where(reports.c.scan_id == scan_id)
    if domain:
        query = query.where(scans.c.domain == domain)
    return list(connection.execute(query).mappings())


def count_runs(connection: Connection) -> dict[str, int]:
    """Number of runs by state."""
    rows = connection.execute(select(runs.c.state, func.count()).group_by(runs.c.state))
    return dict(rows.all())


def oldest_unsettled(connection: Connection) -> datetime | None:
    """When the oldest unfinished run was recorded; not a replay's, which waits for live ones."""
    oldest: datetime | None = connection.execute(
        select(func.min(runs.c.created_at)).where(
            runs.c.state.in_(_UNSETTLED), runs.c.replay_id.is_(None)
        )
    ).scalar_one()
    return oldest


def find_artifact_key(connection: Connection, scan_id: str, sha256: str) -> str | None:
    """Where the artifact with this digest lies, if it is still there."""
    key: str | None = connection.execute(
        select(reports.c.artifact_key).where(
            reports.c.scan_id == scan_id, reports.c.sha256 == sha256, reports.c.status == "ready"
        )
    ).scalar()
    return key

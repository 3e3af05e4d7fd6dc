"""What monitors ask of the ledger at every look: cheap with a million rows.

What is open is counted by an index on its state, so it costs what the backlog is
long, not the ledger.  What has ended is counted by an index alone, and seldom.
What happened lately is read from a bounded window of an index on time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, and_, desc, func, literal, null, or_, select

from schemas.runs import DeliveryState, RunState
from store.events import DEAD_SOURCE
from store.figures import OUTCOMES
from store.tables import attempts, deliveries, endpoints, events, reports, runs, statistics

BEAT_TRACE = "celery_health"
"""The kind of statistics that only a task of beat's writes, every five minutes."""

_UNFINISHED = (RunState.RECORDED.value, RunState.DISPATCHED.value)
_WAITING = (DeliveryState.PENDING.value, DeliveryState.HELD.value, DeliveryState.SENDING.value)
_ENDED = (DeliveryState.SENT.value, DeliveryState.FAILED.value, DeliveryState.SUPPRESSED.value)


@dataclass(frozen=True, slots=True)
class LedgerGauges:
    """What is open in the ledger now.  Times are None where there is nothing."""

    runs: dict[str, int]
    """Unfinished and dead ones, by state."""
    oldest_unfinished: datetime | None
    """Of live ones: a replay's runs wait behind them, as long as that takes."""
    dead_letters: int
    deliveries: dict[tuple[str, str], int]
    """Those that are not settled, by channel and state."""
    oldest_due: datetime | None
    disabled_addresses: dict[str, int]
    """By channel."""
    beat_ticked: datetime | None


def read_gauges(connection: Connection, now: datetime) -> LedgerGauges:
    """One look."""
    waiting = connection.execute(
        select(deliveries.c.channel, deliveries.c.state, func.count())
        .where(deliveries.c.state.in_(_WAITING))
        .group_by(deliveries.c.channel, deliveries.c.state)
    )
    disabled = connection.execute(
        select(endpoints.c.channel, func.count())
        .where(endpoints.c.disabled_at.is_not(None))
        .group_by(endpoints.c.channel)
    )
    return LedgerGauges(
        runs=_count(connection, [*_UNFINISHED, RunState.DEAD.value]),
        oldest_unfinished=connection.execute(
            select(func.min(runs.c.created_at)).where(
                runs.c.state.in_(_UNFINISHED), runs.c.replay_id.is_(None)
            )
        ).scalar_one(),
        dead_letters=connection.execute(
            select(func.count())
            .select_from(events)
            .where(events.c.outcome == "dead", events.c.source.startswith(DEAD_SOURCE))
        ).scalar_one(),
        deliveries={(channel, state): count for channel, state, count in waiting},
        oldest_due=connection.execute(
            select(func.min(deliveries.c.due_at)).where(
                deliveries.c.state == DeliveryState.PENDING.value, deliveries.c.due_at <= now
            )
        ).scalar_one(),
        disabled_addresses=dict(disabled.all()),
        beat_ticked=connection.execute(
            select(func.max(statistics.c.taken_at)).where(statistics.c.kind == BEAT_TRACE)
        ).scalar_one(),
    )


@dataclass(frozen=True, slots=True)
class EndedCounts:
    """What has ended and is still in the ledger."""

    runs: dict[str, int]
    """By state: done, cancelled."""
    deliveries: dict[str, int]
    """By state: sent, failed, suppressed."""


def count_ended(connection: Connection) -> EndedCounts:
    """Count by an index alone: some 70 ms for a million rows of each, so not at every look."""
    ended = connection.execute(
        select(deliveries.c.state, func.count())
        .where(deliveries.c.state.in_(_ENDED))
        .group_by(deliveries.c.state)
    )
    found: dict[str, int] = dict(ended.all())
    return EndedCounts(
        runs=_count(connection, [RunState.DONE.value, RunState.CANCELLED.value]),
        deliveries={state: found.get(state, 0) for state in _ENDED},
    )


def _count(connection: Connection, states: list[str]) -> dict[str, int]:
    rows = connection.execute(
        select(runs.c.state, func.count()).where(runs.c.state.in_(states)).group_by(runs.c.state)
    )
    found: dict[str, int] = dict(rows.all())
    return {state: found.get(state, 0) for state in states}


def renderings_since(
    connection: Connection, since: datetime, ready_since: datetime
) -> list[RowMapping]:
    """Reports first asked for since then: those ready since ``ready_since``, and all failed ones.

    One that is rendered again keeps the time it was first asked for.
    """
    return list(
        connection.execute(
            select(
                reports.c.report_id,
                reports.c.run_id,
                reports.c.format,
                reports.c.status,
                reports.c.render_ms,
            ).where(
                reports.c.created_at >= since,
                or_(
                    and_(reports.c.status == "ready", reports.c.ready_at >= ready_since),
                    reports.c.status == "failed",
                ),
            )
        ).mappings()
    )


def newest_attempt(connection: Connection) -> int:
    """The key of the try that was written last; 0 while there is none."""
    return connection.execute(select(func.max(attempts.c.attempt_pk))).scalar_one() or 0


def attempts_after(connection: Connection, attempt_pk: int) -> list[RowMapping]:
    """Tries of deliveries that were written after this one, with channel and time in ms."""
    return list(
        connection.execute(
            select(
                attempts.c.attempt_pk,
                attempts.c.started_at,
                attempts.c.outcome,
                attempts.c.duration_ms,
                deliveries.c.channel,
            )
            .join(deliveries, deliveries.c.delivery_id == attempts.c.delivery_id)
            .where(attempts.c.attempt_pk > attempt_pk)
        ).mappings()
    )


@dataclass(frozen=True, slots=True)
class Totals:
    """How many of one kind ended so, and how long they took, in ms."""

    name: str
    outcome: str
    count: int
    mean_ms: float | None
    longest_ms: float | None


def render_totals(connection: Connection, since: datetime) -> list[Totals]:
    """Reports first asked for since then, by format and status."""
    rows = connection.execute(
        select(
            reports.c.format,
            reports.c.status,
            func.count(),
            func.avg(reports.c.render_ms),
            func.max(reports.c.render_ms),
        )
        .where(reports.c.created_at >= since)
        .group_by(reports.c.format, reports.c.status)
    )
    return [Totals(*row) for row in rows]


def attempt_totals(connection: Connection, since: datetime) -> list[Totals]:
    """Tries of deliveries that began since then, by channel and outcome."""
    rows = connection.execute(
        select(
            deliveries.c.channel,
            attempts.c.outcome,
            func.count(),
            func.avg(attempts.c.duration_ms),
            func.max(attempts.c.duration_ms),
        )
        .join(deliveries, deliveries.c.delivery_id == attempts.c.delivery_id)
        .where(attempts.c.started_at >= since)
        .group_by(deliveries.c.channel, attempts.c.outcome)
    )
    return [Totals(*row) for row in rows]


def events_since(connection: Connection, since: datetime) -> dict[str, int]:
    """Events recorded since then, by every outcome that there is."""
    return {
        outcome: connection.execute(
            select(func.count())
            .select_from(events)
            .where(events.c.outcome == outcome, events.c.recorded_at >= since)
        ).scalar_one()
        for outcome in OUTCOMES
    }


def last_errors(connection: Connection, limit: int) -> list[RowMapping]:
    """The newest of what went wrong: ``at``, ``what``, ``identity``, ``error``.

    Dead letters and dead runs, unfinished runs that have failed once, and failed
    deliveries.  Each kind is read from its end of an index.
    """
    dead = (
        select(
            func.coalesce(runs.c.settled_at, events.c.recorded_at).label("at"),
            events.c.stream.label("what"),
            func.coalesce(runs.c.run_id, events.c.entry_id).label("identity"),
            events.c.reason.label("error"),
            runs.c.run_id,
        )
        .outerjoin(runs, runs.c.event_pk == events.c.event_pk)
        .where(events.c.outcome == "dead")
        .order_by(desc(events.c.recorded_at))
        .limit(limit)
    )
    late = (
        select(
            runs.c.created_at.label("at"),
            literal("run").label("what"),
            runs.c.run_id.label("identity"),
            runs.c.last_error.label("error"),
            null().label("run_id"),
        )
        .where(runs.c.state.in_(_UNFINISHED), runs.c.last_error.is_not(None))
        .order_by(desc(runs.c.deadline))
        .limit(limit)
    )
    failed = (
        select(
            func.coalesce(deliveries.c.settled_at, deliveries.c.due_at).label("at"),
            deliveries.c.channel.label("what"),
            deliveries.c.delivery_id.label("identity"),
            deliveries.c.reason.label("error"),
            null().label("run_id"),
        )
        .where(deliveries.c.state == DeliveryState.FAILED.value)
        .order_by(desc(deliveries.c.due_at))
        .limit(limit)
    )
    found = [row for query in (dead, late, failed) for row in connection.execute(query).mappings()]
    return sorted(found, key=lambda row: row["at"], reverse=True)[:limit]

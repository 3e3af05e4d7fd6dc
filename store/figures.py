"""Figures about the ledger's records, and the ones kept for later."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, insert, or_, select

from schemas.runs import DeliveryState
from store.tables import (
    attempts,
    deliveries,
    events,
    pacing,
    reports,
    runs,
    scans,
    statistics,
    subscribers,
)

PERCENTS = (50, 95, 99)
OUTCOMES = ("pending", "done", "dead", "cancelled", "discarded", "expired", "erased")


def save_statistics(
    connection: Connection, kind: str, figures: dict[str, Any], now: datetime
) -> None:
    """Keep figures of one kind."""
    connection.execute(insert(statistics).values(kind=kind, taken_at=now, figures=figures))


def activity_since(connection: Connection, since: datetime) -> dict[str, Any]:
    """Events, runs and reports since then: counts by state, and times by format in ms."""
    by_state = connection.execute(
        select(runs.c.state, func.count()).where(runs.c.created_at >= since).group_by(runs.c.state)
    )
    by_type = connection.execute(
        select(events.c.type, func.count())
        .where(recorded_since(since), events.c.type.is_not(None))
        .group_by(events.c.type)
    )
    dead = connection.execute(
        select(func.count())
        .select_from(events)
        .where(events.c.recorded_at >= since, events.c.outcome == "dead")
    ).scalar_one()
    judged = connection.execute(
        select(func.count(), func.avg(scans.c.score)).where(
            scans.c.recorded_at >= since, scans.c.score.is_not(None)
        )
    ).one()
    return {
        "runs": dict(by_state.all()),
        "events": dict(by_type.all()),
        "dead_events": dead,
        "scans_judged": judged[0],
        "mean_score": None if judged[1] is None else round(float(judged[1]), 1),
        "reports": _reports(connection, since),
    }


def recorded_since(since: datetime) -> ColumnElement[bool]:
    """Events recorded since then: all outcomes are named, because their index begins with one."""
    return and_(events.c.outcome.in_(OUTCOMES), events.c.recorded_at >= since)


def delivery_figures(connection: Connection, since: datetime) -> dict[str, Any]:
    """Deliveries by channel and state, attempts by outcome, and times by channel in ms."""
    states: dict[str, dict[str, int]] = {}
    for channel, state, count in connection.execute(
        select(deliveries.c.channel, deliveries.c.state, func.count())
        .where(deliveries.c.created_at >= since)
        .group_by(deliveries.c.channel, deliveries.c.state)
    ):
        states.setdefault(channel, {})[state] = count
    outcomes = connection.execute(
        select(attempts.c.outcome, func.count())
        .where(attempts.c.started_at >= since)
        .group_by(attempts.c.outcome)
    )
    sent = (
        select(deliveries.c.channel.label("kind"), attempts.c.duration_ms.label("spent"))
        .join(deliveries, deliveries.c.delivery_id == attempts.c.delivery_id)
        .where(attempts.c.started_at >= since, attempts.c.outcome == "sent")
    )
    return {
        "deliveries": states,
        "attempts": dict(outcomes.all()),
        "send_ms": percentiles(connection, sent),
    }


def percentiles(
    connection: Connection, measured: Select[tuple[str, float]]
) -> dict[str, dict[str, float]]:
    """p50, p95 and p99 by nearest rank of what is ``spent``, for each ``kind``.

    The database counts and sorts, on disk where memory does not suffice, and three
    numbers per kind come back: no process ever holds the values, however many.
    """
    rows = measured.subquery()
    counts = connection.execute(
        select(rows.c.kind, func.count(rows.c.spent)).group_by(rows.c.kind)
    ).all()
    ranks = {
        (kind, percent): math.ceil(count * percent / 100)
        for kind, count in counts
        for percent in PERCENTS
        if count
    }
    if not ranks:
        return {}
    ordered = (
        select(
            rows.c.kind,
            rows.c.spent,
            func.row_number().over(partition_by=rows.c.kind, order_by=rows.c.spent).label("rank"),
        )
        .where(rows.c.spent.is_not(None))
        .subquery()
    )
    wanted = [
        and_(ordered.c.kind == kind, ordered.c.rank == rank) for (kind, _), rank in ranks.items()
    ]
    found = {
        (kind, rank): float(spent)
        for kind, spent, rank in connection.execute(
            select(ordered.c.kind, ordered.c.spent, ordered.c.rank).where(or_(*wanted))
        )
    }
    answer: dict[str, dict[str, float]] = {}
    for (kind, percent), rank in sorted(ranks.items()):
        answer.setdefault(kind, {})[f"p{percent}"] = round(found[kind, rank], 1)
    return answer


def _reports(connection: Connection, since: datetime) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, status, count in connection.execute(
        select(reports.c.format, reports.c.status, func.count())
        .where(reports.c.created_at >= since)
        .group_by(reports.c.format, reports.c.status)
    ):
        made.setdefault(name, {"by_status": {}})["by_status"][status] = count
    rendered = select(reports.c.format.label("kind"), reports.c.render_ms.label("spent")).where(
        reports.c.created_at >= since, reports.c.render_ms.is_not(None)
    )
    for name, times in percentiles(connection, rendered).items():
        made[name]["render_ms"] = times
    return made


def failed_since(connection: Connection, since: datetime) -> int:
    """Deliveries that failed for good since then."""
    return connection.execute(
        select(func.count())
        .select_from(deliveries)
        .where(
            deliveries.c.state == DeliveryState.FAILED.value,
            deliveries.c.settled_at >= since,
        )
    ).scalar_one()


def paused_destinations(connection: Connection, now: datetime) -> int:
    """Destinations that do not answer, to which nothing is sent for now."""
    return connection.execute(
        select(func.count()).select_from(pacing).where(pacing.c.closed_until > now)
    ).scalar_one()


def count_subscribers(connection: Connection) -> int:
    """Subscribers that are not paused."""
    return connection.execute(
        select(func.count()).select_from(subscribers).where(subscribers.c.paused.is_(False))
    ).scalar_one()


def overdue_deliveries(connection: Connection, before: datetime) -> int:
    """Deliveries that should have been tried before then and were not."""
    return connection.execute(
        select(func.count())
        .select_from(deliveries)
        .where(deliveries.c.state.in_(["pending", "sending"]), deliveries.c.due_at < before)
    ).scalar_one()


def status_of(connection: Connection, identity: str) -> dict[str, Any] | None:
    """What the ledger says of a run or a delivery by its id, or None if it knows neither."""
    run = connection.execute(
        select(runs.c.state, runs.c.attempt, runs.c.last_error).where(runs.c.run_id == identity)
    ).one_or_none()
    if run is not None:
        return {"kind": "run", "state": run[0], "attempt": run[1], "error": run[2]}
    delivery = connection.execute(
        select(deliveries.c.state, deliveries.c.tries, deliveries.c.reason).where(
            deliveries.c.delivery_id == identity
        )
    ).one_or_none()
    if delivery is not None:
        return {
            "kind": "delivery",
            "state": delivery[0],
            "attempt": delivery[1],
            "error": delivery[2],
        }
    return None

"""Figures about the ledger's records, and the ones kept for later."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select

from store.tables import attempts, deliveries, events, reports, runs, scans, statistics, subscribers


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
        .where(events.c.recorded_at >= since, events.c.type.is_not(None))
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
    durations: dict[str, list[float]] = {}
    for channel, spent in connection.execute(
        select(deliveries.c.channel, attempts.c.duration_ms)
        .join(deliveries, deliveries.c.delivery_id == attempts.c.delivery_id)
        .where(attempts.c.started_at >= since, attempts.c.outcome == "sent")
    ):
        durations.setdefault(channel, []).append(spent)
    return {
        "deliveries": states,
        "attempts": dict(outcomes.all()),
        "send_ms": {channel: percentiles(values) for channel, values in durations.items()},
    }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 by nearest rank; of no values, nothing."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {
        f"p{percent}": round(ordered[math.ceil(len(ordered) * percent / 100) - 1], 1)
        for percent in (50, 95, 99)
    }


def _reports(connection: Connection, since: datetime) -> dict[str, Any]:
    counts: dict[str, dict[str, int]] = {}
    durations: dict[str, list[float]] = {}
    for name, status, spent in connection.execute(
        select(reports.c.format, reports.c.status, reports.c.render_ms).where(
            reports.c.created_at >= since
        )
    ):
        counts.setdefault(name, {}).setdefault(status, 0)
        counts[name][status] += 1
        if spent is not None:
            durations.setdefault(name, []).append(spent)
    return {
        name: {"by_status": by_status, "render_ms": percentiles(durations[name])}
        if name in durations
        else {"by_status": by_status}
        for name, by_status in counts.items()
    }


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

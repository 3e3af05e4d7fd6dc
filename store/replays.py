"""Replays in the ledger: how far each is, who drives it, and what came of it.

A driver moves a replay on by compare-and-set on its name and step, in the
transaction that records the runs of a batch.  Killed before the commit, neither
the runs nor the step are there, and the batch is selected again; killed after
it, both are, and the sweep dispatches the runs that were not.  Of two drivers
of one replay the one that came later goes on, and the other one's next
transaction is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, and_, desc, func, or_, select, update

from schemas.errors import NotFound
from schemas.replays import (
    Counts,
    Failure,
    Replay,
    ReplayRequest,
    ReplaySource,
    ReplayState,
    Selection,
)
from schemas.reports import Format
from schemas.runs import DeliveryState, RunState
from store.ledger import plain
from store.tables import deliveries, notifications, replays, reports, runs

FAILURES_KEPT = 100
"""Failures that a replay keeps by name; all of them are counted."""

_UNSETTLED = (RunState.RECORDED.value, RunState.DISPATCHED.value)


def create_replay(
    connection: Connection, replay_id: str, request: ReplayRequest, driver: str, now: datetime
) -> None:
    """Write a new replay, at its beginning."""
    connection.execute(
        replays.insert().values(
            replay_id=replay_id,
            source=request.source.value,
            selection=msgspec.to_builtins(request.selection),
            renders=request.renders,
            tells=request.tells,
            formats=None if request.formats is None else list(request.formats),
            force=request.force,
            rate=request.rate,
            in_flight=request.in_flight,
            state=ReplayState.RUNNING.value,
            driver=driver,
            step=0,
            selected=0,
            new=0,
            started=0,
            skipped={},
            failed=0,
            failures=[],
            created_at=now,
            updated_at=now,
        )
    )


def load_replay(connection: Connection, replay_id: str) -> Replay:
    """A replay.  Raises NotFound."""
    row = (
        connection.execute(select(replays).where(replays.c.replay_id == replay_id))
        .mappings()
        .one_or_none()
    )
    if row is None:
        raise NotFound(f"no replay {replay_id}; see: scanherald replays")
    return _replay(row)


def take_over(connection: Connection, replay_id: str, driver: str, now: datetime) -> Replay:
    """Make this driver the one that moves a replay on.  Raises NotFound."""
    connection.execute(
        update(replays)
        .where(replays.c.replay_id == replay_id, replays.c.state != ReplayState.DONE.value)
        .values(
            driver=driver,
            state=ReplayState.RUNNING.value,
            reason=None,
            finished_at=None,
            updated_at=now,
        )
    )
    return load_replay(connection, replay_id)


def advance(
    connection: Connection,
    replay: Replay,
    *,
    checkpoint: dict[str, Any] | None,
    counts: Counts,
    failures: Sequence[Failure],
    now: datetime,
) -> bool:
    """Move a replay on by one step.  False if it is not at ``replay.step`` under this driver.

    To be called in the transaction that records what the step brings.
    """
    moved = connection.execute(
        update(replays)
        .where(
            replays.c.replay_id == replay.replay_id,
            replays.c.driver == replay.driver,
            replays.c.step == replay.step,
            replays.c.state == ReplayState.RUNNING.value,
        )
        .values(
            step=replay.step + 1,
            checkpoint=checkpoint,
            selected=counts.selected,
            new=counts.new,
            started=counts.started,
            skipped=counts.skipped,
            failed=counts.failed,
            failures=[
                {"name": plain(item.name, 500), "reason": plain(item.reason, 500)}
                for item in failures[:FAILURES_KEPT]
            ],
            updated_at=now,
        )
    ).rowcount
    return bool(moved)


def end_replay(
    connection: Connection, replay: Replay, state: ReplayState, reason: str | None, now: datetime
) -> bool:
    """Note how a driver's work on a replay ended.

    False if another driver has taken it over, or it was cancelled.
    """
    return bool(
        connection.execute(
            update(replays)
            .where(
                replays.c.replay_id == replay.replay_id,
                replays.c.driver == replay.driver,
                replays.c.state == ReplayState.RUNNING.value,
            )
            .values(state=state.value, reason=plain(reason), updated_at=now, finished_at=now)
        ).rowcount
    )


def cancel_replay(connection: Connection, replay_id: str, reason: str, now: datetime) -> None:
    """End a replay whoever drives it: its next step is refused.  Raises NotFound.

    One that has selected all stays done; what is in flight is cancelled run by run.
    """
    load_replay(connection, replay_id)
    connection.execute(
        update(replays)
        .where(replays.c.replay_id == replay_id, replays.c.state != ReplayState.DONE.value)
        .values(
            state=ReplayState.CANCELLED.value,
            reason=plain(f"cancelled: {reason}"),
            updated_at=now,
            finished_at=now,
        )
    )


def touch(connection: Connection, replay: Replay, now: datetime) -> None:
    """Say that the driver lives, while it waits."""
    connection.execute(
        update(replays)
        .where(replays.c.replay_id == replay.replay_id, replays.c.driver == replay.driver)
        .values(updated_at=now)
    )


def count_unsettled(connection: Connection) -> int:
    """Runs of all replays that are not settled: together they fill the queue of reports."""
    return connection.execute(
        select(func.count())
        .select_from(runs)
        .where(runs.c.state.in_(_UNSETTLED), runs.c.replay_id.is_not(None))
    ).scalar_one()


def count_in_flight(connection: Connection, replay_id: str) -> int:
    """Runs of a replay that are not settled, or whose news nobody has tried to send yet.

    A delivery that failed once waits for its own retry, and holds up nothing.
    """
    unsettled = connection.execute(
        select(func.count())
        .select_from(runs)
        .where(runs.c.replay_id == replay_id, runs.c.state.in_(_UNSETTLED))
    ).scalar_one()
    untried = connection.execute(
        select(func.count(notifications.c.run_id.distinct()))
        .select_from(deliveries)
        .join(notifications, notifications.c.event_key == deliveries.c.event_key)
        .where(
            deliveries.c.replay_id == replay_id,
            or_(
                deliveries.c.state == DeliveryState.SENDING.value,
                and_(deliveries.c.state == DeliveryState.PENDING.value, deliveries.c.tries == 0),
            ),
        )
    ).scalar_one()
    return int(unsettled + untried)


def list_replays(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """The newest replays with what came of them, as ``describe`` gives each."""
    rows = connection.execute(
        select(replays).order_by(desc(replays.c.created_at), replays.c.replay_id).limit(limit)
    ).mappings()
    return [describe(connection, _replay(row)) for row in rows]


def describe(connection: Connection, replay: Replay) -> dict[str, Any]:
    """A replay for people and scripts: what was asked for, the counts, and what came of it.

    ``runs``, ``reports`` and ``deliveries`` are counts by state.  A report that
    another run has made again since is that run's.
    """
    request, counts = replay.request, replay.counts
    only = [name for name, on in (("reports", request.renders), ("notify", request.tells)) if on]
    return {
        "replay_id": replay.replay_id,
        "source": request.source.value,
        "selection": msgspec.to_builtins(request.selection),
        "only": only,
        "formats": None if request.formats is None else list(request.formats),
        "force": request.force,
        "rate": request.rate,
        "in_flight_cap": request.in_flight,
        "state": replay.state.value,
        "reason": replay.reason,
        "checkpoint": replay.checkpoint,
        "selected": counts.selected,
        "new": counts.new,
        "started": counts.started,
        "skipped": counts.skipped,
        "failed": counts.failed,
        "failures": [{"name": item.name, "reason": item.reason} for item in replay.failures],
        "runs": _runs_by_outcome(connection, replay.replay_id),
        "reports": _count_by(connection, reports, reports.c.status, replay.replay_id),
        "deliveries": _count_by(connection, deliveries, deliveries.c.state, replay.replay_id),
        "created_at": replay.created_at,
        "updated_at": replay.updated_at,
        "finished_at": replay.finished_at,
    }


def _runs_by_outcome(connection: Connection, replay_id: str) -> dict[str, int]:
    states = _count_by(connection, runs, runs.c.state, replay_id)
    return {
        "done": states.get(RunState.DONE.value, 0),
        "dead": states.get(RunState.DEAD.value, 0),
        "cancelled": states.get(RunState.CANCELLED.value, 0),
        "unfinished": sum(states.get(name, 0) for name in _UNSETTLED),
    }


def _count_by(connection: Connection, table: Any, column: Any, replay_id: str) -> dict[str, int]:
    rows = connection.execute(
        select(column, func.count()).where(table.c.replay_id == replay_id).group_by(column)
    )
    return dict(rows.all())


def _replay(row: RowMapping) -> Replay:
    formats = row["formats"]
    return Replay(
        replay_id=row["replay_id"],
        request=ReplayRequest(
            source=ReplaySource(row["source"]),
            selection=msgspec.convert(row["selection"], Selection),
            renders=row["renders"],
            tells=row["tells"],
            formats=None if formats is None else tuple(Format(name) for name in formats),
            force=row["force"],
            rate=row["rate"],
            in_flight=row["in_flight"],
        ),
        state=ReplayState(row["state"]),
        reason=row["reason"],
        driver=row["driver"],
        step=row["step"],
        checkpoint=row["checkpoint"],
        counts=Counts(
            selected=row["selected"],
            new=row["new"],
            started=row["started"],
            failed=row["failed"],
            skipped=dict(row["skipped"]),
        ),
        failures=tuple(Failure(item["name"], item["reason"]) for item in row["failures"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        finished_at=row["finished_at"],
    )

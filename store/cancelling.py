"""Runs that an operator wants no more of: settled as ``cancelled``, with a reason.

One transaction per run.  Against a worker that settles the run at this moment
the state decides: ``UPDATE … WHERE state`` lets one of the two win.  If the
worker does, the run is done, and what it planned is suppressed as far as nobody
has begun to send it.  If the cancelling does, the worker's body finds the run
settled and plans nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    exists,
    func,
    or_,
    select,
    update,
)

from schemas.runs import DeliveryState, RunState
from store.ledger import plain
from store.tables import deliveries, events, notifications, reports, runs

UNSETTLED = (RunState.RECORDED.value, RunState.DISPATCHED.value)
_ENDS = (RunState.DONE.value, RunState.DEAD.value)
UNSENT = (DeliveryState.PENDING.value, DeliveryState.HELD.value)


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What cancelling one run did.

    ``attempt`` is the one whose tasks may be at work, None where the run had been
    settled before.  ``suppressed`` deliveries are not sent any more; those
    ``in_hand`` were with a worker, or part of a digest, and are left to it.
    """

    run_id: str
    attempt: int | None
    formats: tuple[str, ...]
    suppressed: int
    in_hand: int

    @property
    def did_something(self) -> bool:
        """False where there was nothing left to cancel."""
        return self.attempt is not None or self.suppressed > 0


def cancel_run(connection: Connection, run_id: str, reason: str, now: datetime) -> Cancelled | None:
    """Cancel a run, or what is unsent of one that is done.  None if there is no such run."""
    why = plain(f"cancelled: {reason}") or "cancelled"
    stopped = connection.execute(
        update(runs)
        .where(runs.c.run_id == run_id, runs.c.state.in_(UNSETTLED))
        .values(state=RunState.CANCELLED.value, settled_at=now, deadline=None, last_error=why)
        .returning(runs.c.attempt, runs.c.formats, runs.c.event_pk)
    ).one_or_none()
    if stopped is None:
        if not connection.execute(select(exists().where(runs.c.run_id == run_id))).scalar_one():
            return None
        told = select(notifications.c.event_key).where(notifications.c.run_id == run_id)
        theirs = deliveries.c.event_key.in_(told)
        return Cancelled(run_id, None, (), *_suppress(connection, theirs, why, now))
    connection.execute(
        update(reports)
        .where(reports.c.run_id == run_id, reports.c.status == "pending")
        .values(status="failed", error=why)
    )
    _settle_event(connection, stopped.event_pk, why)
    return Cancelled(run_id, stopped.attempt, tuple(stopped.formats), 0, 0)


def unsettled_of_replay(connection: Connection, replay_id: str) -> list[str]:
    """Ids of a replay's runs that are not settled, oldest first."""
    return list(
        connection.execute(
            select(runs.c.run_id)
            .where(runs.c.replay_id == replay_id, runs.c.state.in_(UNSETTLED))
            .order_by(runs.c.created_at, runs.c.run_id)
        ).scalars()
    )


def cancel_news_of_replay(
    connection: Connection, replay_id: str, reason: str, now: datetime
) -> tuple[int, int]:
    """Suppress what a replay tells and nobody has begun to send: (how many, how many are left)."""
    why = plain(f"cancelled: {reason}") or "cancelled"
    return _suppress(connection, deliveries.c.replay_id == replay_id, why, now)


def list_cancellable(
    connection: Connection, *, after: tuple[datetime, str] | None, limit: int
) -> list[RowMapping]:
    """Runs that are unfinished, or done with something unsent: run_id, subject, created_at.

    Oldest first, after the given (created_at, run_id): a page of ``limit``.
    """
    unsent = exists().where(
        notifications.c.run_id == runs.c.run_id,
        deliveries.c.event_key == notifications.c.event_key,
        *_unsent(),
    )
    query = (
        select(runs.c.run_id, runs.c.created_at, runs.c.state, events.c.subject)
        .join(events, events.c.event_pk == runs.c.event_pk)
        .where(or_(runs.c.state.in_(UNSETTLED), and_(runs.c.state == RunState.DONE.value, unsent)))
        .order_by(runs.c.created_at, runs.c.run_id)
        .limit(limit)
    )
    if after is not None:
        created_at, run_id = after
        query = query.where(
            or_(
                runs.c.created_at > created_at,
                and_(runs.c.created_at == created_at, runs.c.run_id > run_id),
            )
        )
    return list(connection.execute(query).mappings())


def _suppress(
    connection: Connection, which: ColumnElement[bool], why: str, now: datetime
) -> tuple[int, int]:
    """Suppress of these what nobody has begun to send: (how many, how many are left)."""
    suppressed = connection.execute(
        update(deliveries)
        .where(which, *_unsent())
        .values(state=DeliveryState.SUPPRESSED.value, reason=why, settled_at=now, lease_until=None)
    ).rowcount
    in_hand = connection.execute(
        select(func.count())
        .select_from(deliveries)
        .where(
            which,
            or_(
                deliveries.c.state == DeliveryState.SENDING.value,
                and_(
                    deliveries.c.state == DeliveryState.HELD.value,
                    deliveries.c.merged_into.is_not(None),
                ),
            ),
        )
    ).scalar_one()
    return suppressed, in_hand


def _unsent() -> tuple[ColumnElement[bool], ...]:
    """Waiting in the ledger or for a worker.  What a digest tells of is the digest's."""
    return (deliveries.c.state.in_(UNSENT), deliveries.c.merged_into.is_(None))


def _settle_event(connection: Connection, event_pk: int, why: str) -> None:
    """What became of the event: what its other runs make of it, or this."""
    states = set(
        connection.execute(select(runs.c.state).where(runs.c.event_pk == event_pk)).scalars()
    )
    if states & set(UNSETTLED):
        return  # another run of it goes on, and will say
    is_event = events.c.event_pk == event_pk
    outcome, reason = "cancelled", plain(why)
    # It was reported before, or has died, and a replay of it was cancelled.
    if before := next((state for state in _ENDS if state in states), None):
        said = connection.execute(select(events.c.reason).where(is_event)).scalar_one()
        outcome, reason = before, plain(f"{said or before}; a replay was {why}")
    connection.execute(update(events).where(is_event).values(outcome=outcome, reason=reason))

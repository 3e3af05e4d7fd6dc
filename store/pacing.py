"""An even pace per key, and which destinations do not answer: rows that all workers share.

A key is a destination or one subscriber's channel.  Its row holds when the next
send would be due if all came evenly (GCRA, the leaky bucket without a queue).  A
send that comes too early is given the next free slot, and the row moves on: ten
thousand sends at once get ten thousand slots, and none has to ask again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Float, bindparam, case, delete, update
from sqlalchemy.sql.dml import ReturningInsert

from store.ledger import insert_for
from store.tables import pacing


@dataclass(frozen=True, slots=True)
class Pace:
    """One send of ``key`` every ``interval_s``, after at most ``burst`` at once.

    With an ``interval_s`` of 0 the key is looked at and not moved on.
    """

    key: str
    interval_s: float
    burst: int


@dataclass(frozen=True, slots=True)
class Slot:
    """When a key's send may go: at once if ``at`` is not after now.

    ``failures`` sends in a row had no answer; nothing goes before ``closed_until``.
    """

    at: datetime
    failures: int
    closed_until: datetime | None


def reserve(connection: Connection, pace: Pace, now: datetime) -> Slot:
    """Take the next slot of a key, in one statement.

    The row stays locked until the transaction ends, so two workers never get one
    slot, nor both see the same number of sends under way.  The slot of a worker
    that dies is lost: the pace is a little slower then, never faster.
    """
    row = connection.execute(
        _reserve(connection.dialect.name),
        {"key": pace.key, "now": now.timestamp(), "interval": pace.interval_s},
    ).one()
    if not pace.interval_s:
        return Slot(now, row.failures, row.closed_until)
    allowed_at = datetime.fromtimestamp(row.next_at - pace.interval_s * pace.burst, UTC)
    return Slot(max(now, allowed_at), row.failures, row.closed_until)


def note_answer(connection: Connection, key: str) -> None:
    """The destination answered, whatever it said: it is open."""
    connection.execute(_ANSWERED, {"key": key})


def note_silence(
    connection: Connection, key: str, closed_until: Callable[[int], datetime | None]
) -> datetime | None:
    """The destination did not answer.  Returns until when it is closed for that, if it is.

    ``closed_until`` is asked with the number of failures in a row.
    """
    failures = connection.execute(
        update(pacing)
        .where(pacing.c.pace_key == key)
        .values(failures=pacing.c.failures + 1)
        .returning(pacing.c.failures)
    ).scalar_one_or_none()
    until = closed_until(failures or 1)
    if until is not None:
        close(connection, key, until)
    return until


def close(connection: Connection, key: str, until: datetime) -> None:
    """Send nothing there before ``until``; slots are given from then on."""
    moment = until.timestamp()
    connection.execute(
        update(pacing)
        .where(pacing.c.pace_key == key)
        .values(
            closed_until=until,
            next_at=case((pacing.c.next_at > moment, pacing.c.next_at), else_=moment),
        )
    )


def forget_paces(connection: Connection, before: datetime) -> int:
    """Delete the rows of keys that were idle and well since then; return how many."""
    return connection.execute(
        delete(pacing).where(pacing.c.next_at < before.timestamp(), pacing.c.failures == 0)
    ).rowcount


_ANSWERED = (
    update(pacing)
    .where(pacing.c.pace_key == bindparam("key"), pacing.c.failures > 0)
    .values(failures=0, closed_until=None)
)


@cache
def _reserve(dialect: str) -> ReturningInsert[Any]:
    """Built once: every delivery's way leads here."""
    now, interval = bindparam("now", type_=Float), bindparam("interval", type_=Float)
    statement = insert_for(dialect, pacing).values(
        pace_key=bindparam("key"), next_at=now + interval
    )
    return statement.on_conflict_do_update(
        index_elements=[pacing.c.pace_key],
        set_={"next_at": case((pacing.c.next_at > now, pacing.c.next_at), else_=now) + interval},
    ).returning(pacing.c.next_at, pacing.c.failures, pacing.c.closed_until)

"""Periodic chores: when a beat started each last, and where one of several nights goes on.

A tick is claimed in one transaction that locks its row, so of two beats at once
one starts the chore.  Killed between the claim and the publishing, that one tick
is lost: the sweep comes again in a minute, the cleanup the next night, and what
they do then is all that is due, whatever was missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from sqlalchemy import Connection, or_, select

from store.ledger import insert
from store.tables import chores

NO_CLOCK_DIFFERS_SO = timedelta(hours=1)
"""A tick from further in the future is a wrong clock's, and must not stop the chore until then."""


def last_ticks(connection: Connection, names: Iterable[str], now: datetime) -> dict[str, datetime]:
    """When each of these was started last.  One never heard of counts from ``now``."""
    wanted = list(names)
    for name in wanted:
        connection.execute(
            insert(connection, chores)
            .values(name=name, ticked_at=now)
            .on_conflict_do_update(
                index_elements=[chores.c.name],
                set_={"ticked_at": now},
                where=or_(
                    chores.c.ticked_at.is_(None), chores.c.ticked_at > now + NO_CLOCK_DIFFERS_SO
                ),
            )
        )
    rows = connection.execute(
        select(chores.c.name, chores.c.ticked_at).where(chores.c.name.in_(wanted))
    )
    return dict(rows.all())


def claim_tick(
    connection: Connection, name: str, now: datetime, is_due: Callable[[datetime], bool]
) -> datetime | None:
    """Claim a chore's tick.  None: it is ours; else when another beat started it.

    ``is_due`` says whether a chore that was started then is due again.
    """
    last: datetime | None = connection.execute(
        select(chores.c.ticked_at).where(chores.c.name == name).with_for_update()
    ).scalar_one_or_none()
    if last is not None and last <= now + NO_CLOCK_DIFFERS_SO and not is_due(last):
        return last
    connection.execute(
        insert(connection, chores)
        .values(name=name, ticked_at=now)
        .on_conflict_do_update(index_elements=[chores.c.name], set_={"ticked_at": now})
    )
    return None


def read_position(connection: Connection, name: str) -> str:
    """Where a chore goes on; empty: at the beginning."""
    return (
        connection.execute(
            select(chores.c.position).where(chores.c.name == name)
        ).scalar_one_or_none()
        or ""
    )


def save_position(connection: Connection, name: str, position: str) -> None:
    """Note where a chore goes on the next time."""
    connection.execute(
        insert(connection, chores)
        .values(name=name, position=position)
        .on_conflict_do_update(index_elements=[chores.c.name], set_={"position": position})
    )

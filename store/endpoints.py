"""The health of subscribers' addresses: failing since when, and disabled for what reason.

One row per (subscriber, channel) that has ever failed.  A disabled address is sent
nothing: what is planned for it is suppressed, what was waiting fails, each with the
reason, and operators are told once.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    update,
)

from schemas.notifications import ChannelKind
from schemas.runs import DeliveryState
from store.ledger import insert, plain
from store.tables import deliveries, endpoints

MIN_FAILURES = 3
"""Fewer than so many disable no address, however long ago the first of them was."""

DISABLED = "the address is disabled: "
"""How the reason begins of whatever was not sent to a disabled address."""


def endpoint_refusal(
    connection: Connection, subscriber_id: str, channel: ChannelKind
) -> str | None:
    """Why this address is not to be used, or None: what a delivery to it is suppressed for."""
    reason = connection.execute(
        select(endpoints.c.reason).where(
            _is(subscriber_id, channel), endpoints.c.disabled_at.is_not(None)
        )
    ).scalar_one_or_none()
    return None if reason is None else f"{DISABLED}{reason}"


def disabled_endpoints(connection: Connection) -> dict[tuple[str, ChannelKind], str]:
    """Every disabled address by (subscriber id, channel), with the reason as above."""
    return {
        (subscriber_id, ChannelKind(channel)): f"{DISABLED}{reason}"
        for subscriber_id, channel, reason in connection.execute(_DISABLED)
    }


_DISABLED = select(endpoints.c.subscriber_id, endpoints.c.channel, endpoints.c.reason).where(
    endpoints.c.disabled_at.is_not(None)
)


def find_endpoint(
    connection: Connection, subscriber_id: str, channel: ChannelKind
) -> RowMapping | None:
    """The row of an address, or None where it never failed."""
    return (
        connection.execute(select(endpoints).where(_is(subscriber_id, channel)))
        .mappings()
        .one_or_none()
    )


def note_good(connection: Connection, subscriber_id: str, channel: ChannelKind) -> None:
    """The address took a message: whatever failed before it is over."""
    connection.execute(_GOOD, {"whose": subscriber_id, "on": channel.value})


def note_failure(
    connection: Connection,
    subscriber_id: str,
    channel: ChannelKind,
    *,
    now: datetime,
    max_failing: timedelta,
    max_gap: timedelta,
    gone: bool,
    may_pass: bool = False,
) -> str | None:
    """The address failed.  Disables it if it is ``gone`` or has failed for too long.

    For too long is ``max_failing``, in at least ``MIN_FAILURES`` of which none came
    more than ``max_gap`` after the one before: what failed long ago and was not asked
    since has not failed since.  A failure that ``may_pass`` is noted and disables
    nothing.  Returns the reason if it is disabled now.
    """
    known, moment = endpoints.c, literal(now, endpoints.c.failing_since.type)
    begins = or_(
        known.failing_since.is_(None),
        func.coalesce(known.last_failed_at, known.failing_since) < now - max_gap,
    )
    row = connection.execute(
        insert(connection, endpoints)
        .values(
            subscriber_id=subscriber_id,
            channel=channel.value,
            failing_since=now,
            last_failed_at=now,
            failures=1,
        )
        .on_conflict_do_update(
            index_elements=[known.subscriber_id, known.channel],
            set_={
                "failing_since": case((begins, moment), else_=known.failing_since),
                "last_failed_at": moment,
                "failures": case((begins, 1), else_=known.failures + 1),
            },
        )
        .returning(known.failing_since, known.failures)
    ).one()
    if gone:
        reason = "it said that it is gone for good (410)"
    elif may_pass or row.failures < MIN_FAILURES:
        return None
    elif now - row.failing_since >= max_failing:
        reason = f"nothing could be delivered since {row.failing_since:%Y-%m-%d %H:%M} UTC"
    else:
        return None
    connection.execute(
        update(endpoints)
        .where(_is(subscriber_id, channel), endpoints.c.disabled_at.is_(None))
        .values(disabled_at=now, reason=plain(reason), ended_at=None, told_at=None)
    )
    return f"{DISABLED}{reason}"


def enable_endpoint(connection: Connection, subscriber_id: str, channel: ChannelKind) -> bool:
    """Use an address again, as if it had never failed.  False if it was not disabled."""
    was = endpoint_refusal(connection, subscriber_id, channel)
    connection.execute(
        update(endpoints)
        .where(_is(subscriber_id, channel))
        .values(failing_since=None, disabled_at=None, reason=None, ended_at=None, told_at=None)
    )
    return was is not None


def forget_endpoints(connection: Connection, subscriber_id: str) -> None:
    """The subscriber is no more: whoever takes the name starts with a clean record."""
    connection.execute(delete(endpoints).where(endpoints.c.subscriber_id == subscriber_id))


def unended_endpoints(connection: Connection, limit: int) -> list[tuple[str, ChannelKind, str]]:
    """Disabled addresses for which deliveries may wait still: (subscriber, channel, reason)."""
    rows = connection.execute(
        select(endpoints.c.subscriber_id, endpoints.c.channel, endpoints.c.reason)
        .where(
            endpoints.c.disabled_at.is_not(None),
            endpoints.c.ended_at.is_(None),
            endpoints.c.told_at.is_(None),
        )
        .order_by(endpoints.c.disabled_at, endpoints.c.subscriber_id, endpoints.c.channel)
        .limit(limit)
    )
    return [
        (subscriber_id, ChannelKind(channel), f"{DISABLED}{reason}")
        for subscriber_id, channel, reason in rows
    ]


def note_ended(
    connection: Connection, subscriber_id: str, channel: ChannelKind, now: datetime
) -> None:
    """What waited for a disabled address is settled.  Not if it was enabled meanwhile."""
    connection.execute(
        update(endpoints)
        .where(_is(subscriber_id, channel), endpoints.c.disabled_at.is_not(None))
        .values(ended_at=now)
    )


def untold_endpoints(connection: Connection) -> list[tuple[str, ChannelKind]]:
    """Disabled addresses that nothing waits for and operators have not been told of."""
    rows = connection.execute(
        select(endpoints.c.subscriber_id, endpoints.c.channel)
        .where(_UNTOLD)
        .order_by(endpoints.c.disabled_at, endpoints.c.subscriber_id, endpoints.c.channel)
    )
    return [(subscriber_id, ChannelKind(channel)) for subscriber_id, channel in rows]


def note_told(
    connection: Connection, told: Iterable[tuple[str, ChannelKind]], now: datetime
) -> None:
    """Operators are told of these addresses.  Not of one that was enabled meanwhile."""
    values = [{"whose": name, "on": channel.value, "now": now} for name, channel in told]
    if values:
        connection.execute(_TOLD, values)


def fail_waiting(
    connection: Connection,
    subscriber_id: str,
    channel: ChannelKind,
    *,
    reason: str,
    now: datetime,
    limit: int,
) -> int:
    """End at most ``limit`` deliveries that wait for a disabled address; return how many.

    One in a worker's hand is left to it, and one that a digest tells of to its digest.
    """
    waiting = list(
        connection.execute(
            select(deliveries.c.delivery_id)
            .where(
                deliveries.c.subscriber_id == subscriber_id,
                deliveries.c.channel == channel.value,
                deliveries.c.state.in_([DeliveryState.PENDING.value, DeliveryState.HELD.value]),
                deliveries.c.merged_into.is_(None),
                deliveries.c.address.is_(None),
            )
            .order_by(deliveries.c.delivery_id)
            .limit(limit)
        ).scalars()
    )
    ended = {
        "state": DeliveryState.FAILED.value,
        "reason": plain(reason),
        "lease_until": None,
        "settled_at": now,
    }
    connection.execute(
        update(deliveries)
        .where(
            deliveries.c.delivery_id.in_(waiting),
            deliveries.c.state.in_([DeliveryState.PENDING.value, DeliveryState.HELD.value]),
        )
        .values(**ended)
    )
    connection.execute(
        update(deliveries)
        .where(
            deliveries.c.merged_into.in_(waiting), deliveries.c.state == DeliveryState.HELD.value
        )
        .values(**ended)
    )
    return len(waiting)


def _is(subscriber_id: str, channel: ChannelKind) -> ColumnElement[bool]:
    return and_(endpoints.c.subscriber_id == subscriber_id, endpoints.c.channel == channel.value)


_UNTOLD = and_(
    endpoints.c.disabled_at.is_not(None),
    endpoints.c.ended_at.is_not(None),
    endpoints.c.told_at.is_(None),
)

_TOLD = (
    update(endpoints)
    .where(
        endpoints.c.subscriber_id == bindparam("whose"),
        endpoints.c.channel == bindparam("on"),
        _UNTOLD,
    )
    .values(told_at=bindparam("now"))
)

_GOOD = (
    update(endpoints)
    .where(
        endpoints.c.subscriber_id == bindparam("whose"),
        endpoints.c.channel == bindparam("on"),
        endpoints.c.failing_since.is_not(None),
    )
    .values(failing_since=None)
)
"""Built once: every good answer leads here."""

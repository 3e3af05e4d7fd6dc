"""One try of a delivery in the ledger: found, leased or put off, and settled.

A delivery's tries are numbered, and each is taken by ``UPDATE … WHERE tries =
number - 1``, so a number is sent by one worker.  Killed between the other side's
answer and ``settle_sent``, the lease runs out and the next try sends the same
message under the same id: the receiver can tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    Connection,
    RowMapping,
    Text,
    and_,
    bindparam,
    cast,
    exists,
    func,
    or_,
    select,
    update,
)

from schemas.errors import InvalidSettings
from schemas.events import EventType
from schemas.notifications import (
    ChannelAddress,
    ChannelKind,
    Hold,
    Notification,
    QuietHours,
)
from schemas.runs import DeliveryState
from store.deliveries import DeliveryTicket
from store.endpoints import DISABLED
from store.ledger import plain, unpack
from store.secrets import SecretBox
from store.subscribers import open_addresses
from store.tables import attempts, deliveries, endpoints, notifications, subscribers

# The statements of every delivery's way are built once: building costs more than executing.

_NEXT = and_(
    deliveries.c.delivery_id == bindparam("this"),
    deliveries.c.tries == bindparam("before"),
    or_(
        deliveries.c.state == DeliveryState.PENDING.value,
        deliveries.c.state == DeliveryState.SENDING.value,
    ),
)
"""The delivery is waiting for a try, or the worker of the try before is gone."""


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A delivery whose try has come, with all that a send needs.

    ``address`` is None where its subscriber or channel is gone.  ``disabled`` is
    why its address is not to be used.  ``has_endpoint``: a subscriber row holds the
    address, so its health is known.
    """

    delivery_id: str
    number: int
    subscriber_id: str
    channel: ChannelKind
    address: ChannelAddress | None
    notification: Notification
    created_at: datetime
    slot_at: datetime | None
    """Its turn at an even pace, where one is reserved."""
    has_endpoint: bool
    is_replay: bool = False
    is_failing: bool = False
    """Its address's last answer was not good."""
    closed: str | None = None
    """Why its address cannot be read now; then ``address`` is None, too."""
    disabled: str | None = None
    paused: bool = False
    quiet_hours: QuietHours | None = None
    locale: str | None = None
    attach: tuple[str, ...] = ()

    @property
    def is_digest(self) -> bool:
        """Whether other deliveries are told by it, and end with it."""
        return self.notification.type is EventType.NOTIFICATION_DIGEST

    @property
    def ticket(self) -> DeliveryTicket:
        """This try."""
        return DeliveryTicket(self.delivery_id, self.number, is_replay=self.is_replay)


class _Wishes(msgspec.Struct, frozen=True):
    """Of a subscriber's preferences, what a send depends on."""

    quiet_hours: QuietHours | None = None
    locale: str | None = None
    attach: tuple[str, ...] = ()


CLOSED_REASON = "the address cannot be read: "
"""How the reason begins of what waits for the key of its address."""

_wishes = msgspec.json.Decoder(_Wishes)
_notification = msgspec.json.Decoder(Notification)

_FOUND = (
    select(
        deliveries.c.subscriber_id,
        deliveries.c.channel,
        deliveries.c.address,
        deliveries.c.created_at,
        deliveries.c.slot_at,
        deliveries.c.replay_id,
        notifications.c.content,
        subscribers.c.channels,
        cast(  # as text, for it is decoded here, into types
            func.coalesce(subscribers.c.preferences, deliveries.c.preferences), Text
        ).label("preferences"),
        subscribers.c.paused,
        endpoints.c.failing_since,
        endpoints.c.disabled_at,
        endpoints.c.reason.label("disabled_for"),
    )
    .join(notifications, notifications.c.event_key == deliveries.c.event_key)
    .outerjoin(
        subscribers,
        and_(
            subscribers.c.subscriber_id == deliveries.c.subscriber_id,
            # an address that was passed along has its own wishes, whoever is called like it
            deliveries.c.address.is_(None),
        ),
    )
    .outerjoin(
        endpoints,
        and_(
            endpoints.c.subscriber_id == deliveries.c.subscriber_id,
            endpoints.c.channel == deliveries.c.channel,
        ),
    )
    .where(_NEXT)
)

_LEASE = (
    update(deliveries)
    .where(_NEXT)
    .values(
        state=DeliveryState.SENDING.value,
        tries=bindparam("number"),
        lease_until=bindparam("until"),
        destination=bindparam("to"),
        slot_at=None,
    )
)

_UNDER_WAY = select(func.count(), func.min(deliveries.c.lease_until)).where(
    deliveries.c.state == DeliveryState.SENDING.value,
    deliveries.c.destination == bindparam("to"),
    deliveries.c.lease_until > bindparam("beyond"),
)

_ENDED: dict[str, Any] = {
    "state": bindparam("ended"),
    "reason": bindparam("why"),
    "settled_at": bindparam("now"),
    "lease_until": None,
}

_IN_HAND = and_(
    deliveries.c.delivery_id == bindparam("this"),
    deliveries.c.tries == bindparam("number"),
    deliveries.c.state == DeliveryState.SENDING.value,
)
"""The try still holds the delivery."""

_END_IN_HAND = update(deliveries).where(_IN_HAND).values(_ENDED)
_END_UNTRIED = update(deliveries).where(_NEXT).values(_ENDED)
_END_MEMBERS = (
    update(deliveries)
    .where(
        deliveries.c.merged_into == bindparam("this"),
        deliveries.c.state == DeliveryState.HELD.value,
    )
    .values(_ENDED)
)

_LOGGED = (
    "delivery_id",
    "number",
    "started_at",
    "duration_ms",
    "outcome",
    "status_code",
    "receipt",
    "error",
)
_LOG = (
    attempts.insert()
    .inline()
    .from_select(
        _LOGGED,
        select(*(bindparam(name, type_=attempts.c[name].type) for name in _LOGGED)).where(
            exists().where(deliveries.c.delivery_id == bindparam("delivery_id"))
        ),
    )
)
"""Of a delivery that was erased while a worker had it in hand, no try is noted."""


def find_due(connection: Connection, ticket: DeliveryTicket, box: SecretBox) -> DueDelivery | None:
    """The delivery of a try, or None if the try was taken, settled or overtaken."""
    row = connection.execute(_FOUND, _next(ticket)).mappings().one_or_none()
    if row is None:
        return None
    channel = ChannelKind(row["channel"])
    has_endpoint = row["address"] is None
    wishes = _wishes.decode(row["preferences"]) if row["preferences"] else _Wishes()
    address, closed = None, None
    try:
        address = _address(row, channel, box)
    except InvalidSettings as error:
        closed = f"{CLOSED_REASON}{error}"
    return DueDelivery(
        delivery_id=ticket.delivery_id,
        number=ticket.number,
        subscriber_id=row["subscriber_id"],
        channel=channel,
        address=address,
        closed=closed,
        notification=_notification.decode(unpack(row["content"])),
        created_at=row["created_at"],
        slot_at=row["slot_at"],
        has_endpoint=has_endpoint,
        is_replay=row["replay_id"] is not None,
        is_failing=has_endpoint and row["failing_since"] is not None,
        disabled=f"{DISABLED}{row['disabled_for']}"
        if has_endpoint and row["disabled_at"]
        else None,
        paused=bool(row["paused"]),
        quiet_hours=wishes.quiet_hours,
        locale=wishes.locale,
        attach=wishes.attach,
    )


def lease(
    connection: Connection,
    ticket: DeliveryTicket,
    *,
    lease_until: datetime,
    destination: str | None = None,
) -> bool:
    """Take the try in hand.  False if somebody was faster."""
    values = {"number": ticket.number, "until": lease_until, "to": destination}
    return bool(connection.execute(_LEASE, {**_next(ticket), **values}).rowcount)


def look_under_way(
    connection: Connection, destination: str, leased_beyond: datetime
) -> tuple[int, datetime | None]:
    """Sends to a destination that workers have in hand, by leases that end after then.

    Returns how many, and the end of the first one's lease.
    """
    count, first = connection.execute(
        _UNDER_WAY, {"to": destination, "beyond": leased_beyond}
    ).one()
    return count, first


def put_off(
    connection: Connection,
    ticket: DeliveryTicket,
    *,
    slot_at: datetime,
    lease_until: datetime | None,
    reason: str,
) -> bool:
    """Leave the try, uncounted and unlogged, for its turn at ``slot_at``.

    By the sweep, unless a message has it until ``lease_until``.  False if somebody
    else took the try.
    """
    return bool(
        connection.execute(
            update(deliveries)
            .where(_NEXT)
            .values(
                state=DeliveryState.PENDING.value,
                due_at=slot_at,
                slot_at=slot_at,
                lease_until=lease_until,
                reason=plain(reason),
            ),
            _next(ticket),
        ).rowcount
    )


def wait_for_key(
    connection: Connection, ticket: DeliveryTicket, *, due_at: datetime, reason: str
) -> None:
    """Leave the try, uncounted and unlogged, to the sweep: nobody can read where it goes."""
    connection.execute(
        update(deliveries)
        .where(_NEXT)
        .values(
            state=DeliveryState.PENDING.value,
            due_at=due_at,
            slot_at=None,  # when the key is back all of them ask for a turn
            lease_until=None,
            reason=plain(reason),
        ),
        _next(ticket),
    )


def count_closed(connection: Connection) -> int:
    """Deliveries that wait for the key of their address."""
    return connection.execute(
        select(func.count())
        .select_from(deliveries)
        .where(
            deliveries.c.state == DeliveryState.PENDING.value,
            deliveries.c.reason.startswith(CLOSED_REASON, autoescape=True),
        )
    ).scalar_one()


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one try was: for the log of attempts.  Texts are bounded by whoever speaks."""

    number: int
    started_at: datetime
    duration_ms: float
    status_code: int | None = None
    receipt: str | None = None
    error: str | None = None


def settle_sent(
    connection: Connection,
    delivery_id: str,
    attempt: Attempt,
    now: datetime,
    *,
    is_digest: bool = True,
) -> None:
    """The other side has it.  What is known to be no digest has no others to end with it."""
    _end(connection, delivery_id, attempt, DeliveryState.SENT, None, now, is_digest=is_digest)
    _log(connection, delivery_id, attempt, "sent")


def settle_failed(
    connection: Connection,
    delivery_id: str,
    attempt: Attempt,
    now: datetime,
    reason: str | None = None,
) -> None:
    """No further try: for ``reason``, else the attempt's error is the reason."""
    _end(connection, delivery_id, attempt, DeliveryState.FAILED, reason or attempt.error, now)
    _log(connection, delivery_id, attempt, "failed")


def suppress_untried(
    connection: Connection, ticket: DeliveryTicket, reason: str, now: datetime
) -> None:
    """No try is made, because its subscriber does not want it: for ``reason``."""
    _end_untried(connection, ticket, DeliveryState.SUPPRESSED, reason, now)


def fail_untried(
    connection: Connection, ticket: DeliveryTicket, reason: str, now: datetime
) -> None:
    """No try is made: the delivery fails for ``reason``."""
    _end_untried(connection, ticket, DeliveryState.FAILED, reason, now)


def hold_back(connection: Connection, ticket: DeliveryTicket, hold: Hold) -> None:
    """Leave the try, uncounted and unlogged, until its subscriber may be told."""
    connection.execute(
        update(deliveries)
        .where(_NEXT)
        .values(
            state=DeliveryState.HELD.value,
            due_at=hold.until,
            held_for=hold.held_for.value,
            held_until=hold.until,
            reason=plain(hold.reason),
            slot_at=None,
            lease_until=None,
        ),
        _next(ticket),
    )


def _end_untried(
    connection: Connection,
    ticket: DeliveryTicket,
    state: DeliveryState,
    reason: str,
    now: datetime,
) -> None:
    values = {"ended": state.value, "why": plain(reason), "now": now}
    if connection.execute(_END_UNTRIED, {**_next(ticket), **values}).rowcount:
        connection.execute(_END_MEMBERS, {"this": ticket.delivery_id, **values})


def put_back(
    connection: Connection,
    delivery_id: str,
    attempt: Attempt,
    *,
    due_at: datetime,
    lease_until: datetime | None,
) -> None:
    """Another try at ``due_at``; by the sweep, unless a message has it until ``lease_until``."""
    connection.execute(
        update(deliveries)
        .where(_IN_HAND)
        .values(
            state=DeliveryState.PENDING.value,
            reason=plain(attempt.error),
            due_at=due_at,
            lease_until=lease_until,
        ),
        {"this": delivery_id, "number": attempt.number},
    )
    _log(connection, delivery_id, attempt, "retry")


def list_attempts(connection: Connection, delivery_id: str) -> list[RowMapping]:
    """The tries of a delivery that were made, oldest first, with their receipts."""
    return list(
        connection.execute(
            select(
                attempts.c.number,
                attempts.c.started_at,
                attempts.c.duration_ms,
                attempts.c.outcome,
                attempts.c.status_code,
                attempts.c.receipt,
                attempts.c.error,
            )
            .where(attempts.c.delivery_id == delivery_id)
            .order_by(attempts.c.attempt_pk)
        ).mappings()
    )


def _next(ticket: DeliveryTicket) -> dict[str, Any]:
    return {"this": ticket.delivery_id, "before": ticket.number - 1}


def _address(row: RowMapping, channel: ChannelKind, box: SecretBox) -> ChannelAddress | None:
    sealed = row["address"] if row["address"] is not None else row["channels"]
    if sealed is None:
        return None
    found = open_addresses(sealed, box)
    return next((address for address in found if address.kind is channel), None)


def _end(
    connection: Connection,
    delivery_id: str,
    attempt: Attempt,
    state: DeliveryState,
    reason: str | None,
    now: datetime,
    *,
    is_digest: bool = True,
) -> None:
    """Settle a try, and with it what the delivery told of as a digest.

    A try whose lease ran out and was overtaken changes nothing but the log.
    """
    values = {"this": delivery_id, "ended": state.value, "why": plain(reason), "now": now}
    ended = connection.execute(_END_IN_HAND, {"number": attempt.number, **values}).rowcount
    if ended and is_digest:
        connection.execute(_END_MEMBERS, values)


def _log(connection: Connection, delivery_id: str, attempt: Attempt, outcome: str) -> None:
    connection.execute(
        _LOG,
        {
            "delivery_id": delivery_id,
            "number": attempt.number,
            "started_at": attempt.started_at,
            "duration_ms": attempt.duration_ms,
            "outcome": outcome,
            "status_code": attempt.status_code,
            "receipt": plain(attempt.receipt, 500),
            "error": plain(attempt.error),
        },
    )

"""Deliveries: one message, one subscriber, one channel, one try at a time.

The stop after ``finish.finish_run``; the next is a channel's ``send``.  A try is
leased in the ledger before the send and settled after it, in one transaction
each.  Killed in between, the lease runs out, the sweep starts the next try, and
the receiver can tell the repeat by its unchanged id.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

import msgspec
import structlog
from celery import Task
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Connection
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from schemas.crash_points import CrashPoint, crash_here
from schemas.errors import (
    ArtifactsUnavailable,
    BrokerUnavailable,
    ChannelUnavailable,
    DeliveryRejected,
    InvalidSettings,
    LedgerUnavailable,
    PermanentError,
    TransientError,
)
from schemas.notifications import ChannelAddress, ChannelKind, Message, Receipt
from store.deliveries import DeliveryTicket
from store.endpoints import note_failure, note_good
from store.tries import (
    Attempt,
    DueDelivery,
    fail_untried,
    find_due,
    hold_back,
    lease,
    put_back,
    put_off,
    settle_failed,
    settle_sent,
    suppress_untried,
    wait_for_key,
)
from tasks import wiring
from tasks.app import DELIVER, app
from tasks.attaching import attach
from tasks.holding import PAUSED, quiet_until
from tasks.linking import with_links
from tasks.pace import Destination, ahead_s, destination_of, find_turn, note_outcome
from tasks.priorities import priorities_of
from tasks.publishing import broker_faults
from tasks.retry import GiveUp, decide, last_number, longest_gap
from tasks.retrying import retry_soon
from tasks.tracing import SpanKind
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.notifications")

GONE = 410
"""The answer by which an address says that it is no more."""

PUBLISHED_AT_ONCE = 100
"""Messages of one round trip to the broker."""

SETTLE_TRIES = 8
"""How often a worker tries to note what it has sent: some 20 s, well below the lease."""


def started_by(parts: Wiring, delay_s: float = 0.0) -> datetime:
    """Until then a published delivery is left to its message."""
    return parts.clock() + timedelta(seconds=delay_s + parts.settings.starting_grace_s)


def start_deliveries(tickets: Iterable[DeliveryTicket], delay_s: float = 0.0) -> None:
    """Publish tries.  Raises BrokerUnavailable; the ledger has them, the sweep starts them."""
    waiting = iter(tickets)
    while batch := list(islice(waiting, PUBLISHED_AT_ONCE)):
        try:
            _publish_together(batch, delay_s)
        except BrokerUnavailable:
            # What became of them is unknown, and publishing retries single messages alone.  A
            # try that is published twice is made once.
            for ticket in batch:
                with broker_faults():
                    _publish(ticket, delay_s)


def _publish_together(tickets: list[DeliveryTicket], delay_s: float) -> None:
    """Publish in one round trip, where the broker can.  Raises BrokerUnavailable."""
    with (
        broker_faults(),
        app.producer_or_acquire() as producer,
        producer.batch(PUBLISHED_AT_ONCE),
    ):
        for ticket in tickets:
            _publish(ticket, delay_s, producer=producer, retry=False)


def _publish(ticket: DeliveryTicket, delay_s: float, **options: Any) -> None:
    deliver.apply_async(
        (ticket.delivery_id, ticket.number),
        task_id=f"{ticket.delivery_id}:a{ticket.number}",
        countdown=delay_s + ticket.delay_s,
        priority=priorities_of(app.conf.broker_url).of(is_replay=ticket.is_replay),
        # else the task that publishes keeps a result of each, and returns them with its own
        add_to_parent=False,
        **options,
    )


@app.task(name=DELIVER, bind=True, ignore_result=True)
def deliver(self: Task[..., Any], delivery_id: str, number: int) -> None:
    """Make the ``number``-th try of a delivery."""
    parts = wiring.current()
    try:
        try_delivery(parts, DeliveryTicket(delivery_id, number))
    except TransientError as error:
        # Only the ledger's own faults come here; the channel's are settled in it.
        raise retry_soon(self, error, parts) from error


def try_delivery(parts: Wiring, ticket: DeliveryTicket) -> None:
    """Lease, send, settle.  A try that is taken or settled already is left alone.

    Raises LedgerUnavailable: before the send nothing happened; after it the
    lease runs out and the next try repeats the message under its id.
    """
    taken = _take(parts, ticket)
    if taken is None:
        return
    crash_here(CrashPoint.DELIVERY_LEASED)
    started_at, began = parts.clock(), parts.monotonic()
    try:
        receipt = _send(parts, taken)
    except (PermanentError, TransientError) as error:
        _settle_error(parts, taken, error, started_at, parts.monotonic() - began)
        return
    except SoftTimeLimitExceeded:
        hung = ChannelUnavailable("the send took longer than a task may take")
        _settle_error(parts, taken, hung, started_at, parts.monotonic() - began)
        return
    attempt = Attempt(
        number=ticket.number,
        started_at=started_at,
        duration_ms=(parts.monotonic() - began) * 1000,
        status_code=receipt.status_code,
        receipt=receipt.text,
    )
    crash_here(CrashPoint.DELIVERY_SENT)
    _settle_patiently(parts, taken, attempt)
    crash_here(CrashPoint.DELIVERY_SETTLED)
    log.info("delivery_sent", **taken.ids, status_code=receipt.status_code)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A delivery in this worker's hand."""

    delivery: DueDelivery
    address: ChannelAddress
    destination: Destination
    was_silent: bool

    @property
    def ids(self) -> dict[str, str | int]:
        """What the log says of it."""
        return _ids(self.delivery)


def _ids(delivery: DueDelivery) -> dict[str, str | int]:
    return {
        "delivery_id": delivery.delivery_id,
        "channel": delivery.channel.value,
        "number": delivery.number,
    }


def _take(parts: Wiring, ticket: DeliveryTicket) -> _Taken | None:
    """Take a try in hand, in one transaction with all that may stand against it.

    Put off and killed before its message is published, the sweep starts it once
    that message is overdue.
    """
    now = parts.clock()
    with parts.ledger.write() as connection:
        delivery = find_due(connection, ticket, parts.box)
        if delivery is None:
            log.info("delivery_not_ours", delivery_id=ticket.delivery_id, number=ticket.number)
            return None
        address = delivery.address
        refusal = _refusal(parts, delivery)
        if refusal is None and delivery.closed is not None:
            _wait_for_key(connection, parts, delivery, delivery.closed)
            return None
        if refusal is not None or address is None:
            refusal = refusal or "the subscriber or its channel was removed"
            fail_untried(connection, ticket, refusal, now)
            log.error("delivery_failed", **_ids(delivery), error=refusal)
            return None
        lease_until = now + timedelta(seconds=parts.settings.delivery_lease_s)
        if _is_unwanted(connection, delivery, now):
            return None
        destination = destination_of(address, parts.settings)
        turn = find_turn(connection, delivery, destination, parts.settings, now)
        if turn.wait_until is None:
            if lease(connection, ticket, lease_until=lease_until, destination=destination.host):
                return _Taken(delivery, address, destination, turn.was_silent)
            return None  # taken by somebody else since we looked
        delay_s = max(0.0, (turn.wait_until - now).total_seconds())
        soon = delay_s <= ahead_s(parts.settings)
        put_off(
            connection,
            ticket,
            slot_at=turn.wait_until,
            lease_until=started_by(parts, delay_s) if soon else None,
            reason=turn.reason,
        )
    crash_here(CrashPoint.DELIVERY_PUT_OFF)
    log.info("delivery_put_off", **_ids(delivery), delay_s=round(delay_s, 1), reason=turn.reason)
    if soon:
        _start_again(delivery.ticket, delay_s)
    return None


def _wait_for_key(
    connection: Connection, parts: Wiring, delivery: DueDelivery, reason: str
) -> None:
    """Look again later, until an address that only failed would be disabled, too.

    The key may come back, or the address be given anew.
    """
    now, settings = parts.clock(), parts.settings
    log.error("delivery_closed", **_ids(delivery), error=reason)
    if now - delivery.created_at > timedelta(seconds=settings.endpoint_max_failing_s):
        fail_untried(connection, delivery.ticket, reason, now)
        return
    due_at = now + timedelta(seconds=settings.silence_max_s)
    wait_for_key(connection, delivery.ticket, due_at=due_at, reason=reason)


def _is_unwanted(connection: Connection, delivery: DueDelivery, now: datetime) -> bool:
    """Settle or hold what its subscriber does not want to be told, or not now.

    Asked before every try: it may have been planned, put back or queued since.
    """
    if delivery.paused and delivery.has_endpoint:
        suppress_untried(connection, delivery.ticket, PAUSED, now)
        log.info("delivery_suppressed", **_ids(delivery), reason=PAUSED)
        return True
    hold = quiet_until(delivery.quiet_hours, delivery.notification.severity, now)
    if hold is not None:
        hold_back(connection, delivery.ticket, hold)
        log.info("delivery_held", **_ids(delivery), until=hold.until.isoformat())
        return True
    return False


def _refusal(parts: Wiring, delivery: DueDelivery) -> str | None:
    """Why no try is made at all, or None."""
    if delivery.number > last_number(parts.settings):
        # Only tries that never ended lead here: a message that kills its worker is bounded too.
        return "given up as poison: a worker died or hung in its tries"
    return delivery.disabled


def _send(parts: Wiring, taken: _Taken) -> Receipt:
    delivery = taken.delivery
    news = with_links(parts, delivery.notification)
    with parts.tracer.span(
        f"deliver {delivery.channel}", news.traceparent, SpanKind.CLIENT, **_ids(delivery)
    ) as span:
        message = Message(
            message_id=delivery.delivery_id,
            # the receiver goes on from this try; no more than a header depends on it
            notification=msgspec.structs.replace(news, traceparent=span.traceparent),
            address=taken.address,
            subscriber_id=delivery.subscriber_id,
            language=delivery.locale or parts.settings.language,
        )
        return parts.channel(delivery.channel).send(attach(parts, message, delivery.attach))


def _settle_patiently(parts: Wiring, taken: _Taken, attempt: Attempt) -> None:
    """Note the send, waiting a while for a ledger that is away.

    Given up too early, the lease runs out and the message is sent again; the
    receiver could tell by its id, but need not have to.
    """
    delivery = taken.delivery
    for again in Retrying(
        retry=retry_if_exception_type(LedgerUnavailable),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_attempt(SETTLE_TRIES),
        sleep=parts.sleep,
        reraise=True,
    ):
        with again, parts.ledger.write() as connection:
            now = parts.clock()
            note_outcome(
                connection,
                taken.destination,
                None,
                was_silent=taken.was_silent,
                now=now,
                held_s=attempt.duration_ms / 1000,
                settings=parts.settings,
            )
            if delivery.is_failing:
                # A failure that another worker has noted since stays until the next good answer.
                note_good(connection, delivery.subscriber_id, delivery.channel)
            settle_sent(
                connection, delivery.delivery_id, attempt, now, is_digest=delivery.is_digest
            )


def _settle_error(
    parts: Wiring,
    taken: _Taken,
    error: PermanentError | TransientError,
    started_at: datetime,
    held_s: float,
) -> None:
    """Note a failed try, what it says of its address and destination, and what follows."""
    delivery = taken.delivery
    attempt = Attempt(
        number=delivery.number,
        started_at=started_at,
        duration_ms=held_s * 1000,
        status_code=getattr(error, "status_code", None),
        receipt=getattr(error, "receipt", None),
        error=str(error),
    )
    decision = decide(error, delivery.number, parts.settings, parts.jitter)
    with parts.ledger.write() as connection:
        now = parts.clock()
        closed_until = note_outcome(
            connection,
            taken.destination,
            error,
            was_silent=taken.was_silent,
            now=now,
            held_s=held_s,
            settings=parts.settings,
        )
        disabled = _note_failure(connection, parts, delivery, error, now)
        if disabled is not None or isinstance(decision, GiveUp):
            settle_failed(connection, delivery.delivery_id, attempt, now, _joined(error, disabled))
        else:
            put_back(
                connection,
                delivery.delivery_id,
                attempt,
                due_at=now + timedelta(seconds=decision.delay_s),
                lease_until=started_by(parts, decision.delay_s) if decision.soon else None,
            )
    if closed_until is not None:
        log.warning("destination_closed", **taken.ids, until=closed_until.isoformat())
    if disabled is not None:
        log.error("endpoint_disabled", **taken.ids, reason=disabled)
    if disabled is not None or isinstance(decision, GiveUp):
        log.error("delivery_failed", **taken.ids, error=str(error))
        return
    crash_here(CrashPoint.DELIVERY_PUT_BACK)
    log.warning(
        "delivery_put_back", **taken.ids, delay_s=round(decision.delay_s, 1), error=str(error)
    )
    if decision.soon:
        again = DeliveryTicket(
            delivery.delivery_id, delivery.number + 1, is_replay=delivery.is_replay
        )
        _start_again(again, decision.delay_s)


def _note_failure(
    connection: Connection,
    parts: Wiring,
    delivery: DueDelivery,
    error: PermanentError | TransientError,
    now: datetime,
) -> str | None:
    """What the failure says of the subscriber's address; the reason if it is disabled for it."""
    if not delivery.has_endpoint or not _blames_address(delivery.channel, error):
        return None
    return note_failure(
        connection,
        delivery.subscriber_id,
        delivery.channel,
        now=now,
        max_failing=timedelta(seconds=parts.settings.endpoint_max_failing_s),
        max_gap=longest_gap(parts.settings),
        gone=getattr(error, "status_code", None) == GONE,
        # what has not been tried again yet may have met a moment's fault
        may_pass=isinstance(error, TransientError) and delivery.number == 1,
    )


def _blames_address(channel: ChannelKind, error: PermanentError | TransientError) -> bool:
    """Whether a failure speaks against the address.

    The mail server is the operator's: its outage says nothing about a mailbox, nor does
    what it will not take from us, only its refusal of one does.  Nor does our own store,
    which was asked for an attachment or a link.
    """
    if isinstance(error, ArtifactsUnavailable | LedgerUnavailable | InvalidSettings):
        return False
    if channel is not ChannelKind.EMAIL:
        return True
    return isinstance(error, DeliveryRejected) and error.of_mailbox


def _joined(error: Exception, disabled: str | None) -> str:
    return str(error) if disabled is None else f"{error}; {disabled}"


def _start_again(ticket: DeliveryTicket, delay_s: float) -> None:
    try:
        start_deliveries([ticket], delay_s)
    except BrokerUnavailable as error:
        log.warning("retry_left_to_sweep", delivery_id=ticket.delivery_id, error=str(error))

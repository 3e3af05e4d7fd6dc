"""Deliveries: one message, one subscriber, one channel, one try at a time.

The stop after ``finish.finish_run``; the next is a channel's ``send``.  A try is
leased in the ledger before the send and settled after it.  Killed in between,
the lease runs out, the sweep starts the next try, and the receiver can tell the
repeat by its unchanged id.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import structlog
from celery import Task
from celery.exceptions import SoftTimeLimitExceeded
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from schemas.crash_points import CrashPoint, crash_here
from schemas.errors import (
    BrokerUnavailable,
    ChannelUnavailable,
    DeliveryRejected,
    InvalidEvent,
    LedgerUnavailable,
    PermanentError,
    TransientError,
)
from schemas.events import EventType, published_type
from schemas.notifications import ChannelAddress, ChannelKind, Message, Notification, Receipt
from schemas.reports import Severity
from schemas.runs import DeliveryState
from store.deliveries import (
    Attempt,
    DeliveryTicket,
    LeasedDelivery,
    Recipient,
    delivery_result,
    find_delivery,
    lease_delivery,
    plan_deliveries,
    put_back,
    save_notification,
    settle_failed,
    settle_sent,
)
from store.subscribers import subscribers_of_user
from tasks import wiring
from tasks.app import DELIVER, app
from tasks.derive import MAX_TEXT_BYTES, SEVERITY_OF, bounded, whole
from tasks.publishing import broker_faults
from tasks.retry import GiveUp, decide, last_number
from tasks.retrying import retry_soon
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.notifications")

SETTLE_TRIES = 8
"""How often a worker tries to note what it has sent: some 20 s, well below the lease."""


def started_by(parts: Wiring, delay_s: float = 0.0) -> datetime:
    """Until then a published delivery is left to its message."""
    return parts.clock() + timedelta(seconds=delay_s + parts.settings.starting_grace_s)


def start_deliveries(tickets: Iterable[DeliveryTicket], delay_s: float = 0.0) -> None:
    """Publish tries.  Raises BrokerUnavailable; the ledger has them, the sweep starts them."""
    for ticket in tickets:
        with broker_faults():
            deliver.apply_async(
                (ticket.delivery_id, ticket.number),
                task_id=f"{ticket.delivery_id}:a{ticket.number}",
                countdown=delay_s,
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
    lease_until = parts.clock() + timedelta(seconds=parts.settings.delivery_lease_s)
    with parts.ledger.write() as connection:
        leased = lease_delivery(connection, ticket, lease_until=lease_until, box=parts.box)
    if leased is None:
        log.info("delivery_not_ours", delivery_id=ticket.delivery_id, number=ticket.number)
        return
    crash_here(CrashPoint.DELIVERY_LEASED)
    started_at, began = parts.clock(), time.monotonic()
    try:
        receipt = _send(parts, leased)
    except (PermanentError, TransientError) as error:
        _settle_error(parts, leased, error, started_at, (time.monotonic() - began) * 1000)
        return
    except SoftTimeLimitExceeded:
        hung = ChannelUnavailable("the send took longer than a task may take")
        _settle_error(parts, leased, hung, started_at, (time.monotonic() - began) * 1000)
        return
    attempt = Attempt(
        number=leased.number,
        started_at=started_at,
        duration_ms=(time.monotonic() - began) * 1000,
        status_code=receipt.status_code,
        receipt=receipt.text,
    )
    crash_here(CrashPoint.DELIVERY_SENT)
    _settle_patiently(parts, leased.delivery_id, attempt)
    crash_here(CrashPoint.DELIVERY_SETTLED)
    log.info(
        "delivery_sent",
        delivery_id=leased.delivery_id,
        channel=leased.channel.value,
        number=leased.number,
        status_code=receipt.status_code,
    )


def _settle_patiently(parts: Wiring, delivery_id: str, attempt: Attempt) -> None:
    """Note the send, waiting a while for a ledger that is away.

    Given up too early, the lease runs out and the message is sent again; the
    receiver could tell by its id, but need not have to.
    """
    for again in Retrying(
        retry=retry_if_exception_type(LedgerUnavailable),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        stop=stop_after_attempt(SETTLE_TRIES),
        sleep=parts.sleep,
        reraise=True,
    ):
        with again, parts.ledger.write() as connection:
            settle_sent(connection, delivery_id, attempt, parts.clock())


def _send(parts: Wiring, leased: LeasedDelivery) -> Receipt:
    if leased.number > last_number(parts.settings):
        # Only tries that never ended lead here: a message that kills its worker is bounded too.
        raise DeliveryRejected("given up as poison: a worker died or hung in its tries")
    if leased.address is None:
        raise DeliveryRejected("the subscriber or its channel was removed")
    message = Message(
        message_id=leased.delivery_id, notification=leased.notification, address=leased.address
    )
    return parts.channel(leased.channel).send(message)


def _settle_error(
    parts: Wiring,
    leased: LeasedDelivery,
    error: PermanentError | TransientError,
    started_at: datetime,
    duration_ms: float,
) -> None:
    attempt = Attempt(
        number=leased.number,
        started_at=started_at,
        duration_ms=duration_ms,
        status_code=getattr(error, "status_code", None),
        receipt=getattr(error, "receipt", None),
        error=str(error),
    )
    decision = decide(error, leased.number, parts.settings, parts.jitter)
    now = parts.clock()
    if isinstance(decision, GiveUp):
        with parts.ledger.write() as connection:
            settle_failed(connection, leased.delivery_id, attempt, now)
        log.error(
            "delivery_failed",
            delivery_id=leased.delivery_id,
            channel=leased.channel.value,
            number=leased.number,
            error=str(error),
        )
        return
    with parts.ledger.write() as connection:
        put_back(
            connection,
            leased.delivery_id,
            attempt,
            due_at=now + timedelta(seconds=decision.delay_s),
            lease_until=started_by(parts, decision.delay_s) if decision.soon else None,
        )
    crash_here(CrashPoint.DELIVERY_PUT_BACK)
    log.warning(
        "delivery_put_back",
        delivery_id=leased.delivery_id,
        channel=leased.channel.value,
        number=leased.number,
        delay_s=round(decision.delay_s, 1),
        error=str(error),
    )
    if decision.soon:
        try:
            start_deliveries(
                [DeliveryTicket(leased.delivery_id, leased.number + 1)], decision.delay_s
            )
        except BrokerUnavailable as fault:
            log.warning("retry_left_to_sweep", delivery_id=leased.delivery_id, error=str(fault))


@app.task(name="send_notification_async", bind=True)
def send_notification_async(
    self: Task[..., Any], notification_data: dict[str, Any], preferences_data: dict[str, Any]
) -> dict[str, Any]:
    """Send one notification to the addresses in the preferences, and say what became of it.

    ``notification_data``: ``event`` (or ``event_type``), ``data``, and optionally
    ``notification_id``, ``user_id``, ``channel``, ``subject``/``title``, ``message``.
    ``preferences_data``: ``email_address``/``email``, ``webhook_url`` with
    ``webhook_secret``, ``slack_webhook_url``; the channel named in the
    notification is used, else the first address there is.

    Returns ``notification_id, status, success, retry_count, error``; status is
    that of the delivery.  A passing fault is tried again by the usual schedule.
    """
    parts = wiring.current()
    address = _preferred_address(preferences_data, notification_data.get("channel"))
    notification_id = str(notification_data.get("notification_id") or self.request.id)
    event = notification_data.get("event") or notification_data.get("event_type")
    notification = _direct_notification(
        str(event),
        dict(notification_data.get("data") or {}),
        f"direct:{whole(notification_id, 200)}",
        parts.clock(),
        title=notification_data.get("subject") or notification_data.get("title"),
        summary=notification_data.get("message"),
    )
    user = str(notification_data.get("user_id") or preferences_data.get("user_id") or "unknown")
    recipient = Recipient(f"direct:{whole(user, 200)}", address, keep_address=True)
    try:
        delivery_id = _plan_and_try(parts, notification, [recipient])[0]
    except TransientError as error:
        raise retry_soon(self, error, parts) from error
    with parts.ledger.read() as connection:
        row = delivery_result(connection, delivery_id)
    return {
        "notification_id": notification_id,
        "status": row["state"],
        "success": row["state"] == DeliveryState.SENT.value,
        "retry_count": max(0, row["tries"] - 1),
        "error": row["reason"],
    }


@app.task(name="send_event_notifications_async", bind=True)
def send_event_notifications_async(
    self: Task[..., Any], event: str, data: dict[str, Any], user_id: str
) -> dict[str, Any]:
    """Tell one user's subscribers of an event now.

    Returns ``event, user_id, notifications_sent, notifications``; a channel that
    fails for now is tried again by the usual schedule and counted as not sent.
    """
    parts = wiring.current()
    try:
        told = _tell_user(parts, event, data, user_id, f"task:{self.request.id}", inline=True)
    except TransientError as error:
        raise retry_soon(self, error, parts) from error
    return {
        "event": event,
        "user_id": user_id,
        "notifications_sent": sum(1 for item in told if item["status"] == "sent"),
        "notifications": told,
    }


@app.task(name="send_bulk_notifications_async", bind=True)
def send_bulk_notifications_async(
    self: Task[..., Any], event: str, data: dict[str, Any], user_ids: list[str]
) -> dict[str, Any]:
    """Plan one event's deliveries for many users and start them as tasks of their own.

    Returns ``event, total_users, successful_users, failed_users, total_notifications``;
    a user without a subscriber counts as failed.  A repeat plans nothing twice.
    """
    parts = wiring.current()
    _known_event(event)
    successful = total = 0
    for user_id in user_ids:
        try:
            told = _tell_user(parts, event, data, user_id, f"task:{self.request.id}", inline=False)
        except TransientError as error:
            raise retry_soon(self, error, parts) from error
        successful += bool(told)
        total += len(told)
    return {
        "event": event,
        "total_users": len(user_ids),
        "successful_users": successful,
        "failed_users": len(user_ids) - successful,
        "total_notifications": total,
    }


def _tell_user(
    parts: Wiring, event: str, data: dict[str, Any], user_id: str, key: str, *, inline: bool
) -> list[dict[str, Any]]:
    notification = _direct_notification(
        event, data, f"{event}:{key}:{whole(user_id, 200)}", parts.clock()
    )
    with parts.ledger.read() as connection:
        subscribers = subscribers_of_user(connection, user_id, parts.box)
    recipients = [
        Recipient(
            subscriber.subscriber_id,
            address,
            suppressed="the subscriber is paused" if subscriber.paused else None,
        )
        for subscriber in subscribers
        if not subscriber.events or notification.type.value in subscriber.events
        for address in subscriber.channels
    ]
    if inline:
        delivery_ids = _plan_and_try(parts, notification, recipients)
    else:
        delivery_ids = _plan_and_start(parts, notification, recipients)
    with parts.ledger.read() as connection:
        rows = [delivery_result(connection, delivery_id) for delivery_id in delivery_ids]
    return [
        {
            "notification_id": row["delivery_id"],
            "channel": row["channel"],
            "status": row["state"],
        }
        for row in rows
    ]


def _plan_and_try(
    parts: Wiring, notification: Notification, recipients: list[Recipient]
) -> list[str]:
    """Plan deliveries and make the first try of each here; a repeat makes none."""
    delivery_ids, tickets = _plan(parts, notification, recipients)
    for ticket in tickets:
        try_delivery(parts, ticket)
    return delivery_ids


def _plan_and_start(
    parts: Wiring, notification: Notification, recipients: list[Recipient]
) -> list[str]:
    delivery_ids, tickets = _plan(parts, notification, recipients)
    try:
        start_deliveries(tickets)
    except BrokerUnavailable as error:
        log.warning("deliveries_left_to_sweep", error=str(error))
    return delivery_ids


def _plan(
    parts: Wiring, notification: Notification, recipients: list[Recipient]
) -> tuple[list[str], list[DeliveryTicket]]:
    now = parts.clock()
    with parts.ledger.write() as connection:
        save_notification(connection, notification, None, now)
        tickets = plan_deliveries(
            connection,
            notification.event_key,
            recipients,
            now=now,
            started_by=started_by(parts),
            new_id=parts.new_id,
            box=parts.box,
        )
        delivery_ids = [
            find_delivery(connection, recipient, notification.event_key) for recipient in recipients
        ]
    return delivery_ids, tickets


def _direct_notification(
    event: str,
    data: dict[str, Any],
    event_key: str,
    now: datetime,
    title: Any = None,
    summary: Any = None,
) -> Notification:
    """A notification that the platform asks for by task.  Raises InvalidEvent."""
    kind = _known_event(event)
    domain = data.get("domain")
    scan_id = data.get("scan_id")
    said = summary or data.get("message") or data.get("error") or ""
    about = f": {domain}" if domain else ""
    return Notification(
        event_key=event_key,
        type=kind,
        occurred_at=now,
        domain=whole(str(domain), 253) if domain else None,
        scan_id=whole(str(scan_id), 64) if scan_id else None,
        severity=SEVERITY_OF.get(kind, Severity.INFO),
        title=whole(str(title or f"{kind.value}{about}"), MAX_TEXT_BYTES),
        summary=whole(str(said), MAX_TEXT_BYTES),
        data=bounded(data),
    )


def _known_event(event: str) -> EventType:
    try:
        return published_type(event)
    except ValueError as error:
        raise InvalidEvent(f"event {error}") from error


ADDRESS_KEYS: Mapping[ChannelKind, tuple[str, ...]] = {
    ChannelKind.EMAIL: ("email_address", "email"),
    ChannelKind.WEBHOOK: ("webhook_url",),
    ChannelKind.SLACK: ("slack_webhook_url", "slack_url"),
}


def _preferred_address(preferences: dict[str, Any], channel: Any) -> ChannelAddress:
    """The address to use.  Raises InvalidEvent where there is none, or no such channel."""
    if channel and channel not in ADDRESS_KEYS:
        raise InvalidEvent(f"channel {channel!r} is not one of: {', '.join(ChannelKind)}")
    kinds = [ChannelKind(channel)] if channel else list(ChannelKind)
    for kind in kinds:
        for key in ADDRESS_KEYS[kind]:
            if preferences.get(key):
                return ChannelAddress(
                    kind=kind,
                    target=str(preferences[key]),
                    secret=preferences.get("webhook_secret")
                    if kind is ChannelKind.WEBHOOK
                    else None,
                )
    wanted = ", ".join(key for kind in kinds for key in ADDRESS_KEYS[kind])
    raise InvalidEvent(f"the preferences hold no address; expected one of: {wanted}")

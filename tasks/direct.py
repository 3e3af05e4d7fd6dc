"""Notifications that the platform asks for by task, beside those that events make.

The public tasks, under the names the platform calls today.  They plan
deliveries like any other, so retries, receipts and "never twice" are the same.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import structlog
from celery import Task
from sqlalchemy import RowMapping

from schemas.errors import InvalidEvent, TooLarge, TransientError
from schemas.events import EventType, published_type
from schemas.notifications import Notification, Subscriber
from schemas.reports import Severity
from schemas.runs import DeliveryState
from schemas.settings import environment_name
from store.deliveries import (
    DeliveryTicket,
    Recipient,
    planned_deliveries,
    save_notification,
)
from store.secrets import SecretBox
from store.subscribers import kept_preferences, wants_severity, wants_type
from tasks import wiring
from tasks.app import app
from tasks.derive import MAX_TEXT_BYTES, REPORTED, SEVERITY_OF, TITLES, bounded, whole
from tasks.fan_out import plan_for, plan_for_users, tell_users
from tasks.notifications import try_delivery
from tasks.preferences import NOBODY, read_preferences
from tasks.retrying import retry_soon
from tasks.telling import recipients
from tasks.wiring import Wiring

log = structlog.get_logger("tasks.direct")


@app.task(name="send_notification_async", bind=True)
def send_notification_async(
    self: Task[..., Any], notification_data: dict[str, Any], preferences_data: dict[str, Any]
) -> dict[str, Any]:
    """Send one notification to the address in the preferences, and say what became of it.

    ``notification_data``: ``event`` (or ``event_type``), ``data``, and optionally
    ``notification_id``, ``user_id``, ``channel``, ``subject``/``title``,
    ``message``, ``severity``.  Without words of its own it is told in the
    language of the preferences.

    ``preferences_data``: ``email_address``/``email``, ``webhook_url`` with
    ``webhook_secret``, ``slack_webhook_url``, ``apprise_url``; the channel named in the
    notification is used, else the first address there is.  Wishes, as a
    subscriber has them: ``language``/``locale``; ``quiet_hours`` (``start``,
    ``end``, ``time_zone``/``timezone``); ``min_severity``;
    ``enabled_events``/``events``; ``enabled``.  Other keys are left aside.

    A ``notification_id`` is one message for one user at one address, told once; for
    another user or address it is another message.

    Returns ``notification_id, status, success, retry_count, error``; status is
    that of the delivery: ``sent``, ``pending`` (a passing fault, tried again by
    the usual schedule), ``held`` until the quiet hours end, ``failed``, or
    ``suppressed``, by the preferences or because it was told so long ago that its
    delivery has been deleted.  Raises InvalidEvent that names the key.
    """
    parts = wiring.current()
    subscriber = read_preferences(
        preferences_data,
        channel=notification_data.get("channel"),
        user_id=notification_data.get("user_id"),
    )
    notification_id = str(notification_data.get("notification_id") or self.request.id)
    subscriber = _told_apart(subscriber, parts.box)
    notification = _direct_notification(
        notification_data.get("event") or notification_data.get("event_type"),
        notification_data.get("data"),
        _direct_key(subscriber, notification_id, parts.box),
        parts.clock(),
        title=notification_data.get("subject") or notification_data.get("title"),
        summary=notification_data.get("message"),
        severity=notification_data.get("severity"),
    )
    try:
        row = _tell_directly(parts, notification, subscriber)
    except TransientError as error:
        raise retry_soon(self, error, parts) from error
    if row is None:
        return {
            "notification_id": notification_id,
            "status": DeliveryState.SUPPRESSED.value,
            "success": False,
            "retry_count": 0,
            "error": "it was told before; what became of it is no longer on record",
        }
    held = row["state"] == DeliveryState.HELD.value
    return {
        "notification_id": notification_id,
        "status": row["state"],
        "success": row["state"] == DeliveryState.SENT.value,
        "retry_count": max(0, row["tries"] - 1),
        "error": None if held else row["reason"],
    }


@app.task(name="send_event_notifications_async", bind=True)
def send_event_notifications_async(
    self: Task[..., Any], event: str, data: dict[str, Any], user_id: str
) -> dict[str, Any]:
    """Tell one user's subscribers of an event now.

    Returns ``event, user_id, notifications_sent, notifications``; a channel that
    fails for now is tried again by the usual schedule and counted as not sent, and
    so is what the subscriber's quiet hours or digest hold.
    """
    parts = wiring.current()
    key = f"{event}:task:{self.request.id}"
    notification = _direct_notification(event, data, key, parts.clock())
    (user,) = _distinct([user_id], 1)
    try:
        told = _tell_user(parts, notification, user)
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

    The message carries all ids, some 40 bytes each; ``SCANHERALD_BULK_MAX_USERS``
    bounds their number.  An id that is named twice is one user.

    Returns ``event, total_users, successful_users, failed_users, total_notifications``,
    of distinct users and of deliveries that are planned, held ones included; a user
    without a subscriber to tell counts as failed.  A repeat plans nothing twice and
    returns the same.  Raises InvalidEvent, or its child TooLarge.
    """
    parts = wiring.current()
    key = f"{event}:task:{self.request.id}"
    notification = _direct_notification(event, data, key, parts.clock())
    users = _distinct(user_ids, parts.settings.bulk_max_users)
    try:
        told = tell_users(parts, notification, users)
    except TransientError as error:
        raise retry_soon(self, error, parts) from error
    log.info("bulk_planned", event_key=key, users=len(users), notifications=told.notifications)
    return {
        "event": event,
        "total_users": len(users),
        "successful_users": told.users,
        "failed_users": len(users) - told.users,
        "total_notifications": told.notifications,
    }


def _told_apart(subscriber: Subscriber, box: SecretBox) -> Subscriber:
    """Somebody whom nobody named, by the address: two of them are no one subscriber."""
    if subscriber.subscriber_id != NOBODY:
        return subscriber
    (address,) = subscriber.channels
    digest = box.digest(address.kind, address.target)
    return msgspec.structs.replace(subscriber, subscriber_id=f"{NOBODY}:{digest}")


def _direct_key(subscriber: Subscriber, notification_id: str, box: SecretBox) -> str:
    """The event key of one message for one user at one address, whoever reuses its id."""
    (address,) = subscriber.channels
    digest = box.digest(subscriber.subscriber_id, address.kind, address.target, notification_id)
    return f"direct:{whole(notification_id, 200)}:{digest}"


def _tell_directly(
    parts: Wiring, notification: Notification, subscriber: Subscriber
) -> RowMapping | None:
    """Plan the delivery to an address that no row holds, try it here, return its row.

    None where it was told before and has been deleted since: a notification and its
    delivery are written together, and the notification stays.
    """
    now = parts.clock()
    unwanted = _unwanted(subscriber, notification)
    told: list[Recipient] = [
        replace(
            recipient,
            suppressed=recipient.suppressed or unwanted,
            keep_address=True,
            preferences=kept_preferences(subscriber, now),
        )
        for recipient in recipients(subscriber, notification, now, {})
    ]
    tickets: list[DeliveryTicket] = []
    with parts.ledger.write() as connection:
        if save_notification(connection, notification, None, now):
            tickets = plan_for(connection, parts, notification, told)
    for ticket in tickets:
        try_delivery(parts, ticket)
    with parts.ledger.read() as connection:
        rows = planned_deliveries(connection, notification.event_key, [subscriber.subscriber_id])
    return next(iter(rows), None)


def _unwanted(subscriber: Subscriber, notification: Notification) -> str | None:
    """Why the preferences do not ask for it, or None."""
    if not wants_type(subscriber, notification):
        return f"the preferences do not ask for {notification.type}"
    if not wants_severity(subscriber, notification):
        return f"the preferences ask for nothing below {subscriber.min_severity}"
    return None


def _tell_user(parts: Wiring, notification: Notification, user_id: str) -> list[dict[str, Any]]:
    """Plan deliveries and make the first try of each here; a repeat makes none."""
    with parts.ledger.write() as connection:
        tickets, subscribers = plan_for_users(connection, parts, notification, [user_id])
    for ticket in tickets:
        try_delivery(parts, ticket)
    told = [subscriber.subscriber_id for subscriber in subscribers]
    with parts.ledger.read() as connection:
        rows = planned_deliveries(connection, notification.event_key, told)
    return [
        {
            "notification_id": row["delivery_id"],
            "channel": row["channel"],
            "status": row["state"],
        }
        for row in rows
    ]


def _direct_notification(
    event: Any,
    data: Any,
    event_key: str,
    now: datetime,
    *,
    title: Any = None,
    summary: Any = None,
    severity: Any = None,
) -> Notification:
    """A notification that the platform asks for by task.  Raises InvalidEvent."""
    kind = _known_event(event)
    if data is not None and not isinstance(data, dict):
        raise InvalidEvent("data is not an object")
    data = data or {}
    domain = whole(str(data["domain"]), 253) if data.get("domain") else None
    scan_id = whole(str(data["scan_id"]), 64) if data.get("scan_id") else None
    said = whole(str(data.get("message") or data.get("error") or ""), MAX_TEXT_BYTES)
    about = f" for {domain}" if domain else ""
    own_words = bool(title or summary)
    return Notification(
        event_key=event_key,
        type=kind,
        occurred_at=now,
        domain=domain,
        scan_id=scan_id,
        severity=_severity(severity) or SEVERITY_OF[kind],
        title=whole(str(title or f"{TITLES[kind]}{about}"), MAX_TEXT_BYTES),
        summary=whole(str(summary or said), MAX_TEXT_BYTES),
        variant="" if own_words else REPORTED.get(kind, kind.value),
        values={} if own_words else {"domain": domain or "", "said": said},
        data=bounded(data),
    )


def _known_event(event: Any) -> EventType:
    try:
        return published_type(str(event))
    except ValueError as error:
        raise InvalidEvent(f"event {error}") from error


def _severity(name: Any) -> Severity | None:
    if not name:
        return None
    if name not in list(Severity):
        raise InvalidEvent(f"severity {name!r} is not one of: {', '.join(Severity)}")
    return Severity(name)


def _distinct(user_ids: Any, most: int) -> list[str]:
    """The users, each once, in the order they were named.  Raises InvalidEvent."""
    if not isinstance(user_ids, list | tuple):
        raise InvalidEvent("user_ids is not a list")
    if len(user_ids) > most:
        raise TooLarge(
            f"user_ids names {len(user_ids)} users, more than {most} "
            f"({environment_name('bulk_max_users')}); share them out among several calls"
        )
    for number, user_id in enumerate(user_ids, 1):
        if not isinstance(user_id, str | int):
            raise InvalidEvent(f"user_ids item {number} is neither a text nor a number")
    return list(dict.fromkeys(map(str, user_ids)))

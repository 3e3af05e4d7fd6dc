"""What subscribers are told, who they are, and where they are reached.

A ``Notification`` is what happened, once per event key; a ``Message`` is that
notification on its way to one address.  A channel turns a Message into what its
other side expects and answers with a ``Receipt``.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from schemas.events import EventType
from schemas.reports import Severity

MAX_RECEIPT_CHARS = 500
"""What we keep of the other side's answer."""


class ChannelKind(StrEnum):
    """The ways to the outside."""

    EMAIL = "email"
    WEBHOOK = "webhook"
    SLACK = "slack"


class ArtifactLink(msgspec.Struct, frozen=True, kw_only=True):
    """One rendered report, as a notification names it."""

    format: str
    uri: str
    size_bytes: int
    sha256: str


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A labelled value shown in a message, such as ``Score: 71``."""

    label: str
    value: str


class FindingSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A finding in one line."""

    rule_id: str
    severity: Severity
    title: str
    count: int


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """What happened: the same for everyone who is told.

    ``event_key`` is its identity (``scan.completed:<scan>``); strings are bounded
    but hostile, every channel escapes at its border.
    """

    event_key: str
    type: EventType
    occurred_at: datetime
    domain: str | None
    scan_id: str | None
    severity: Severity
    title: str
    summary: str
    facts: tuple[Fact, ...] = ()
    findings: tuple[FindingSummary, ...] = ()
    artifacts: tuple[ArtifactLink, ...] = ()
    missing_formats: tuple[str, ...] = ()
    """Formats that failed to render: never silently absent."""
    data: dict[str, Any] = {}
    """Bounded extra data of events that the scanner made, for the webhook's body."""
    traceparent: str | None = None


class ChannelAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where one subscriber is reached on one channel.

    ``target`` is an e-mail address or a URL; ``secret`` signs webhooks (``whsec_…``).
    Both are secrets in logs; Slack's URL is one by nature.
    """

    kind: ChannelKind
    target: str
    secret: str | None = None


class Subscriber(msgspec.Struct, frozen=True, kw_only=True):
    """A person or system to tell."""

    subscriber_id: str
    user_id: str | None = None
    channels: tuple[ChannelAddress, ...] = ()
    events: tuple[str, ...] = ()
    """Event types wanted; empty means all."""
    domains: tuple[str, ...] = ()
    """Globs such as ``*.example.org``; empty means all."""
    min_severity: Severity = Severity.INFO
    paused: bool = False


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One notification for one address.

    ``message_id`` stays the same in every attempt: it is the ``webhook-id``, and
    the left side of the ``Message-ID``, so a receiver can tell a repeat.
    """

    message_id: str
    notification: Notification
    address: ChannelAddress


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What the other side answered to an accepted message, bounded to MAX_RECEIPT_CHARS."""

    status_code: int | None
    text: str

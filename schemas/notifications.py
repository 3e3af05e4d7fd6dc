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


VALUES = {
    "domain": "the host; empty where the event names none",
    "score": "0 to 100",
    "cookies": "how many there are",
    "before_consent": "how many of the cookies were there before a choice",
    "findings": "how many rules found something",
    "rules": "how many rules this message is about",
    "evidence": "pieces of evidence of these rules",
    "since": "the day on which the oldest of these was first seen, YYYY-MM-DD, UTC",
    "reason": "why, one of REASONS",
    "said": "error or message of the event itself, in the scanner's words; may be empty",
    "total": "how many in this hour",
    "notifications": "how many notifications a digest tells of",
    "high": "how many of them are of high severity",
    "medium": "how many are of medium severity",
    "low": "how many are of low severity",
    "info": "how many are for information",
    "more": "how many of them a digest has no room to list",
}
"""What a Notification's ``values`` hold, by name; numbers are numbers."""

VARIANTS: dict[str, tuple[str, ...]] = {
    "scan.started": ("domain", "said"),
    "scan.completed": ("domain", "score", "cookies", "before_consent", "findings"),
    "scan.completed.held": ("domain", "cookies", "before_consent", "findings"),
    "scan.completed.unjudged": ("domain", "reason"),
    "scan.completed.sample": ("domain", "score", "cookies", "before_consent", "findings"),
    "scan.completed.reported": ("domain", "said"),
    "scan.failed": ("domain", "said"),
    "compliance.violation": ("domain", "rules", "evidence"),
    "compliance.violation.reminder": ("domain", "rules", "evidence", "since"),
    "compliance.violation.resolved": ("domain", "rules", "since"),
    "compliance.violation.reported": ("domain", "said"),
    "anomaly.detected": ("domain",),
    "anomaly.detected.reported": ("domain", "said"),
    "schedule.created": ("domain", "said"),
    "schedule.updated": ("domain", "said"),
    "schedule.failed": ("domain", "said"),
    "operator.alert.runs_dead": ("total",),
    "operator.alert.entries_trimmed": ("total",),
    "operator.alert.entries_refused": ("total",),
    "operator.alert.endpoints_disabled": ("total",),
    "notification.digest": ("notifications", "high", "medium", "low", "info", "more"),
}
"""Each kind of news that people are told in their language, with the names of its ``VALUES``.

``held``: the scan is inconclusive, so there is no score.  ``unjudged``: it has no
report at all.  ``sample``: a test of the command line.  ``reported``: a scanner
said so, not our rules.
"""

REASONS = {
    "not_rendered": "no format could be rendered",
    "rules_gone": "the rule pack that was to judge it is missing or was changed",
    "unreadable": "the scan result cannot be read",
    "not_judged": "an error, which the operator finds in the log",
}
"""Why there is no report, as people are told in their language; an earlier release wrote a text."""

FACTS = {
    "score": 'digits, or "held" where the scan is inconclusive',
    "cookies": "digits",
    "before_consent": "digits",
    "third_party": "digits: cookies of third parties",
    "findings": "digits",
    "rule_pack": "id and version",
    "drift_added": "digits: cookies that are new since the scan before",
    "drift_removed": "digits",
    "drift_changed": "digits: properties of cookies that differ",
    "new_cookies": "digits (the first names): cookies that neither of the two scans before had",
    "removed_cookies": "digits (the first names): cookies that two scans in a row miss",
    "score_change": "the score before and now: 80 → 70",
    "new_third_parties": "digits (the first names): those that no earlier scan of the domain had",
    "first_seen": "YYYY-MM-DD, UTC",
    "in_this_hour": "digits",
    "such_as": "names, the first of many",
}
"""The labels of a Notification's facts, which people read in their language; and their values."""


PASSED_ALONG = "direct:"
"""Begins the name of whoever the platform passes an address along for; no subscriber has one."""


class ChannelKind(StrEnum):
    """The ways to the outside."""

    EMAIL = "email"
    WEBHOOK = "webhook"
    SLACK = "slack"
    APPRISE = "apprise"


class ArtifactLink(msgspec.Struct, frozen=True, kw_only=True):
    """One rendered report, as a notification names it."""

    format: str
    uri: str
    size_bytes: int
    sha256: str


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A labelled value shown in a message; ``label`` is one of ``FACTS`` where it is ours."""

    label: str
    value: str


class FindingSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A finding in one line."""

    rule_id: str
    severity: Severity
    title: str
    count: int


class DigestLine(msgspec.Struct, frozen=True, kw_only=True):
    """One of the notifications that a digest tells of."""

    occurred_at: datetime
    type: EventType
    domain: str | None
    severity: Severity
    title: str
    variant: str = ""
    values: dict[str, str | int | float] = {}
    link: str | None = None
    """Its first report that a reader can open."""


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
    weighs: Severity | None = None
    """How severe the news counts for who is told, where that is more than ``severity``: whoever
    hears of a violation's start hears of its end, which itself is no alarm."""
    title: str
    """In English: what a webhook says, and a channel without a text of its own for ``variant``."""
    summary: str
    variant: str = ""
    """Names the texts by which people are told, such as ``scan.completed.held``; none where the
    title is somebody's own wording."""
    values: dict[str, str | int | float] = {}
    """What those texts are filled with, see ``VARIANTS``."""
    facts: tuple[Fact, ...] = ()
    findings: tuple[FindingSummary, ...] = ()
    artifacts: tuple[ArtifactLink, ...] = ()
    missing_formats: tuple[str, ...] = ()
    """Formats that failed to render: never silently absent."""
    lines: tuple[DigestLine, ...] = ()
    """What a digest tells of, the most severe first; those it has no room for are counted."""
    data: dict[str, Any] = {}
    """Bounded extra data of events that the scanner made, for the webhook's body."""
    traceparent: str | None = None


class Attachment(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that travels with a message."""

    file_name: str
    content_type: str
    data: bytes


class ChannelAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where one subscriber is reached on one channel.

    ``target`` is an e-mail address or a URL; ``secret`` signs webhooks (``whsec_…``).
    Both are secrets in logs; Slack's URL and Apprise's are such by nature.
    """

    kind: ChannelKind
    target: str
    secret: str | None = None


class QuietHours(msgspec.Struct, frozen=True, kw_only=True):
    """When a subscriber is left alone, by the clock of their own time zone.

    From ``start`` to ``end`` (``HH:MM``), across midnight where the end is the
    earlier; what comes meanwhile waits until the end.
    """

    start: str
    end: str
    time_zone: str
    """IANA name, such as ``Europe/Berlin``."""
    passing: Severity | None = Severity.HIGH
    """What is at least this severe is told at once; None: nothing is."""


class DigestRhythm(StrEnum):
    """How often a subscriber wants to be told."""

    IMMEDIATE = "immediate"
    HOURLY = "hourly"
    DAILY = "daily"


class Digest(msgspec.Struct, frozen=True, kw_only=True):
    """Collects what is less severe than ``below`` into one message per hour or day."""

    rhythm: DigestRhythm = DigestRhythm.IMMEDIATE
    below: Severity = Severity.HIGH
    at: str = "08:00"
    """Of the daily one, ``HH:MM`` in ``time_zone``."""
    time_zone: str = "UTC"


class HeldFor(StrEnum):
    """By which of a subscriber's wishes a delivery waits."""

    QUIET_HOURS = "quiet_hours"
    DIGEST = "digest"


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery waits by its subscriber's wish until ``until``; ``reason`` says so to people."""

    until: datetime
    held_for: HeldFor
    reason: str


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
    quiet_hours: QuietHours | None = None
    digest: Digest = Digest()
    locale: str | None = None
    """Language of messages; that of the settings where it is not said."""
    attach: tuple[str, ...] = ()
    """Formats that e-mails carry along, below a size limit; links otherwise."""
    paused: bool = False


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One notification for one address.

    ``message_id`` stays the same in every attempt: it is the ``webhook-id``, and
    the left side of the ``Message-ID``, so a receiver can tell a repeat.
    """

    message_id: str
    notification: Notification
    address: ChannelAddress
    language: str = "en"
    subscriber_id: str = ""
    """Who is told; an e-mail's link to unsubscribe names them."""
    attachments: tuple[Attachment, ...] = ()
    """For channels that can carry any; the others have the links."""
    too_large: tuple[str, ...] = ()
    """Formats that the subscriber wants attached and that stay links."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What the other side answered to an accepted message, bounded to MAX_RECEIPT_CHARS."""

    status_code: int | None
    text: str

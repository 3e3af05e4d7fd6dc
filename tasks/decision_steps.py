"""One step of an explanation: what ``why`` shows, and what scripts sort."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec


class Verdict(StrEnum):
    """What a step does to the message."""

    LETS_THROUGH = "yes"
    STOPS = "no"
    WAITS = "waits"
    NOTE = "note"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a decision, for people to read and scripts to sort."""

    about: str
    """run, violation, news, subscriber, owner, events, domain, severity, delivery, held, attempt,
    digest or state."""
    verdict: Verdict
    text: str
    event_key: str | None = None
    delivery_id: str | None = None
    at: datetime | None = None


def time_words(moment: datetime | None) -> str:
    """A time as every step says it."""
    return "an unknown time" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"

"""What a notification says to people, in their language.

Channels that people read take the notification from here: title, summary,
labels and findings are of the reader's language, everything else is as it was.
The webhook, which machines read, does not pass here.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time

import msgspec

from languages.language import Language, load_language
from schemas.errors import InvalidSettings
from schemas.notifications import (
    FACTS,
    REASONS,
    VARIANTS,
    DigestLine,
    Fact,
    FindingSummary,
    Notification,
)

FALLBACK = "en"

_COUNTED = re.compile(r"([0-9]{1,15})((?: \(.*\))?)", re.DOTALL)
"""A count, and perhaps the first names of those that are counted."""

Values = dict[str, str | int | float]


def language_of(code: str) -> Language:
    """The language of a reader; English where its catalogue is gone: nobody goes untold for it."""
    try:
        return load_language(code)
    except InvalidSettings:
        return load_language(FALLBACK)


def speak(notification: Notification, t: Language) -> Notification:
    """``notification`` as it is told in the language ``t``.

    Without a variant, title and summary are somebody's own wording and stay.
    """
    title, summary = _sentences(
        notification.variant,
        notification.values,
        (notification.title, notification.summary),
        t,
    )
    return msgspec.structs.replace(
        notification,
        title=title,
        summary=summary,
        facts=tuple(_fact(fact, t) for fact in notification.facts),
        findings=tuple(_finding(finding, t) for finding in notification.findings),
        lines=tuple(_line(line, t) for line in notification.lines),
    )


def _sentences(
    variant: str, values: Values, as_it_is: tuple[str, str], t: Language
) -> tuple[str, str]:
    names = VARIANTS.get(variant)
    if names is None or not set(names) <= set(values):
        # Nobody's variant, or one that an earlier release wrote with other values.
        return as_it_is
    shown = {name: _shown(name, values[name], t) for name in names}
    title = t.say(f"message.{variant}.title", **shown)
    if "said" in names:
        domain = values["domain"]
        told = t.say("labelled", label=title, value=domain) if domain else title
        return told, str(values["said"])
    return title, t.say(f"message.{variant}.summary", **shown)


def _shown(name: str, value: str | float, t: Language) -> str | float:
    """A value as a reader writes it; ``say`` writes the numbers."""
    if name == "since":
        return _day(str(value), t)
    return t[f"reason.{value}"] if name == "reason" and value in REASONS else value


def _fact(fact: Fact, t: Language) -> Fact:
    if fact.label not in FACTS:
        return fact
    return Fact(label=t[f"fact.{fact.label}"], value=_value(fact, t))


def _value(fact: Fact, t: Language) -> str:
    """A fact's value as a reader writes it: a state, a day, or digits and what follows them."""
    if fact.label == "score" and fact.value == "held":
        return t["held"]
    if fact.label == "first_seen":
        return _day(fact.value, t)
    counted = _COUNTED.fullmatch(fact.value)
    return t.number(int(counted[1])) + counted[2] if counted else fact.value


def _day(value: str, t: Language) -> str:
    try:
        return t.day(datetime.combine(date.fromisoformat(value), time(), UTC))
    except ValueError:
        return value


def _finding(finding: FindingSummary, t: Language) -> FindingSummary:
    return msgspec.structs.replace(finding, title=t.translate(finding.title))


def _line(line: DigestLine, t: Language) -> DigestLine:
    title, _ = _sentences(line.variant, line.values, (line.title, ""), t)
    return msgspec.structs.replace(line, title=title)

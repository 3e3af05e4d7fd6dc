"""How long a cookie lives, read from whatever a scanner wrote.

Facts: a month is a twelfth of 365.25 days, so that "2 years" is exactly 24
months and "365 days" is under 13.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

DAY = 86_400
MONTH = 2_629_800
YEAR = 12 * MONTH

MAX_SECONDS = 10**12
"""About 31,700 years: longer lifetimes are taken as this, so that every reader can hold them."""

_UNITS = {
    "s": 1, "sec": 1, "second": 1,
    "m": 60, "min": 60, "minute": 60,
    "h": 3600, "hr": 3600, "hour": 3600,
    "d": DAY, "day": DAY,
    "w": 7 * DAY, "week": 7 * DAY,
    "mo": MONTH, "month": MONTH,
    "y": YEAR, "yr": YEAR, "year": YEAR,
}  # fmt: skip
_SESSION_WORDS = frozenset({"session", "session cookie", "end of session", "browser session"})
_LONGEST_TEXT = 64
"""No stated lifetime is longer; hostile text is neither searched nor remembered."""

_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]*)(?:,? (?:and )?|$)")


@dataclass(frozen=True, slots=True)
class Duration:
    """``seconds`` is None for session cookies and where the text could not be read."""

    text: str | None
    seconds: int | None
    is_session: bool


def read_duration(value: str | float | None) -> Duration:
    """Read a scanner's duration: words, a number of seconds, or nothing.  Never raises."""
    if value is None:
        return Duration(None, None, is_session=False)
    if not isinstance(value, str):
        return Duration(f"{value:.15g} s", _bounded(float(value)), is_session=False)
    if len(value) > _LONGEST_TEXT:
        return Duration(value if value.strip() else None, None, is_session=False)
    return _read_words(value)


@lru_cache(maxsize=1024)
def _read_words(text: str) -> Duration:
    words = " ".join(text.split()).lower()
    if words in _SESSION_WORDS:
        return Duration(text, None, is_session=True)
    return Duration(text if words else None, _seconds(words), is_session=False)


def _seconds(words: str) -> int | None:
    total = 0.0
    position = 0
    while position < len(words):
        part = _PART.match(words, position)
        if part is None:
            return None
        number, unit = part.groups()
        factor = _UNITS.get(unit) or _UNITS.get(unit.removesuffix("s")) if unit else 1
        if factor is None or (not unit and part.span() != (0, len(words))):
            return None
        total += float(number) * factor
        position = part.end()
    return _bounded(total) if words else None


def _bounded(seconds: float) -> int | None:
    return int(min(seconds, MAX_SECONDS)) if seconds >= 0 else None

"""From a scanner's words to the inventory: one table maps categories to five, one reads parties.

Every string is bounded here on its way into the Report; nothing is dropped but
what the bounds name, and what they cut is counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from compliance.durations import read_duration
from schemas.reports import Category, InventoryCookie, Party, StorageKey
from schemas.scans import Cookie, Storages, cut

MAX_IAB_PURPOSES = 50
"""IAB TCF knows fewer than twenty purposes and features; more is noise."""

_WORDS: dict[Category, str] = {
    Category.NECESSARY: "necessary strictlynecessary strictlynecessarycookies essential required "
    "mandatory technical security needed necessarycookies essentials strictlyrequired",
    Category.FUNCTIONAL: "functional functionality preferences preference personalization "
    "personalisation functionalcookies preferencecookies functionalitycookies comfort convenience",
    Category.ANALYTICS: "analytics analytical analytic statistics statistic statistical "
    "performance measurement audiencemeasurement performancecookies analyticscookies "
    "statisticscookies webanalytics analyticalcookies measure",
    Category.ADVERTISING: "advertising advertisement advertisements ads ad marketing targeting "
    "social socialmedia socialnetworking tracking retargeting targetingcookies marketingcookies "
    "advertisingcookies socialmediacookies advertiser targetingadvertising",
}
CATEGORIES: dict[str, Category] = {
    word: category for category, words in _WORDS.items() for word in words.split()
}
"""Scanners' words, without case, spaces and punctuation.  Any other word is unclassified."""

_PARTIES = {
    "firstparty": Party.FIRST, "first": Party.FIRST, "1stparty": Party.FIRST,
    "thirdparty": Party.THIRD, "third": Party.THIRD, "3rdparty": Party.THIRD,
}  # fmt: skip

_LONGEST_WORD = 64
"""No word of a table is longer; hostile text is neither searched nor remembered."""


@dataclass(slots=True)
class StringBound:
    """Cuts strings to ``limit`` bytes of UTF-8 and counts how many it cut."""

    limit: int
    cuts: int = 0

    def __call__(self, text: str) -> str:
        """The text, cut and marked where it is too long."""
        if len(text) * 4 <= self.limit:
            return text  # nearly all of them
        bounded = cut(text, self.limit)
        if bounded is not text:
            self.cuts += 1
        return bounded

    def optional(self, text: str | None) -> str | None:
        """The bounded text; None where the source said nothing or only blanks."""
        if not text or text.isspace():
            return None
        return text if len(text) * 4 <= self.limit else self(text)


def category_of(word: str | None) -> Category:
    """One of the five, whatever case, spaces, hyphens and underscores the word came with."""
    return CATEGORIES.get(_letters_of(word), Category.UNCLASSIFIED)


def party_of(word: str | None) -> Party:
    """First or third where the scanner says so, else unknown."""
    return _PARTIES.get(_letters_of(word), Party.UNKNOWN)


def _letters_of(word: str | None) -> str:
    return "" if word is None or len(word) > _LONGEST_WORD else _letters(word)


@lru_cache(maxsize=1024)
def _letters(word: str) -> str:
    return "".join(char for char in word.lower() if char.isalnum())


def list_cookies(cookies: Iterable[Cookie], bound: StringBound) -> list[InventoryCookie]:
    """The inventory of ``cookies``, numbered from 1, not judged yet."""
    return [_entry(number, cookie, bound) for number, cookie in enumerate(cookies, 1)]


def _entry(number: int, cookie: Cookie, bound: StringBound) -> InventoryCookie:
    duration = read_duration(cookie.cookie_duration)
    after = cookie.set_after_accept
    purposes = cookie.iab_purposes
    return InventoryCookie(
        number=number,
        name=bound(cookie.name),
        domain=bound(cookie.domain or ""),
        path=bound(cookie.path or ""),
        party=party_of(cookie.cookie_type),
        category=category_of(cookie.category),
        category_sent=bound.optional(cookie.category),
        purpose=bound.optional(cookie.description),
        vendor=bound.optional(cookie.vendor),
        duration=bound.optional(duration.text),
        duration_seconds=duration.seconds,
        is_session=duration.is_session,
        size_bytes=cookie.size,
        secure=cookie.secure,
        http_only=cookie.http_only,
        same_site=bound.optional(cookie.same_site),
        before_consent=None if after is None else not after,
        iab_purposes=tuple([bound(str(purpose)) for purpose in purposes[:MAX_IAB_PURPOSES]])
        if purposes
        else (),
        classified_by=bound.optional(cookie.source),
        ml_confidence=cookie.ml_confidence,
        needs_review=cookie.requires_review is True,
        rule_ids=(),
    )


def list_storage_keys(storages: Storages | None, bound: StringBound) -> list[StorageKey]:
    """Every key of the web storage with the size of its value; values never leave the scan."""
    if storages is None:
        return []
    areas = (
        ("localStorage", storages.local_storage),
        ("sessionStorage", storages.session_storage),
    )
    return [
        StorageKey(area=area, key=bound(key), value_size=_text_size(value))
        for area, values in areas
        for key, value in (values or {}).items()
    ]


def _text_size(value: Any) -> int:
    """Characters of all texts and numbers in a JSON value.

    Walks with its own stack: a value may be nested as deep as its decoder allowed.
    """
    size = 0
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif item is not None:
            size += len(item if isinstance(item, str) else str(item))
    return size

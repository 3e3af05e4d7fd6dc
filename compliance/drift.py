"""Drift: what changed between two inventories of the same domain.

A cookie is the same cookie where name, domain and path agree; a browser may
hold several of them, so both sides are multisets.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from schemas.reports import CookieChange, CookieRef, InventoryCookie

_Key: TypeAlias = tuple[str, str, str]
_Values: TypeAlias = tuple[str, ...]

FIELDS = ("category", "duration", "party", "secure", "http_only", "same_site")
"""Properties whose change is worth telling."""


@dataclass(frozen=True, slots=True)
class CookieDrift:
    """Added, removed and changed cookies, each by name, domain and path."""

    added: tuple[CookieRef, ...]
    removed: tuple[CookieRef, ...]
    changed: tuple[CookieChange, ...]


def compare(before: Iterable[InventoryCookie], now: Iterable[InventoryCookie]) -> CookieDrift:
    """What changed from ``before`` to ``now``.

    Linear but for one sort; the order depends on the cookies alone, not on the
    order they were sent in.
    """
    old, new = _by_key(before), _by_key(now)
    added: list[CookieRef] = []
    removed: list[CookieRef] = []
    changed: list[CookieChange] = []
    for key in sorted(old.keys() | new.keys()):
        reference = CookieRef(name=key[0], domain=key[1], path=key[2])
        gone, come = _unmatched(old.get(key, Counter()), new.get(key, Counter()))
        pairs = min(len(gone), len(come))
        for was, became in zip(gone, come, strict=False):
            changed += [
                CookieChange(cookie=reference, field=field, before=a, after=b)
                for field, a, b in zip(FIELDS, was, became, strict=True)
                if a != b
            ]
        added += [reference] * (len(come) - pairs)
        removed += [reference] * (len(gone) - pairs)
    return CookieDrift(tuple(added), tuple(removed), tuple(changed))


def _by_key(cookies: Iterable[InventoryCookie]) -> dict[_Key, Counter[_Values]]:
    found: dict[_Key, Counter[_Values]] = defaultdict(Counter)
    for cookie in cookies:
        found[cookie.name, cookie.domain, cookie.path][_values(cookie)] += 1
    return found


def _values(cookie: InventoryCookie) -> _Values:
    return tuple(_text(getattr(cookie, field)) for field in FIELDS)


def _text(value: object) -> str:
    """A value as a reader sees it; empty where the source did not say."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case _:
            return str(value)


def _unmatched(old: Counter[_Values], new: Counter[_Values]) -> tuple[list[_Values], list[_Values]]:
    """What is left on either side once identical cookies are paired."""
    return sorted((old - new).elements()), sorted((new - old).elements())

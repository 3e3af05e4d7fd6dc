"""Exemption reasoning for cookies that are declared necessary.

Source: WP29 Opinion 04/2012 (WP 194).  Only what the scan observed counts:
who set the cookie, how long it lives, whether a purpose is stated.
"""

from __future__ import annotations

from collections.abc import Iterator

from compliance.durations import MONTH
from languages.language import Language
from schemas.reports import Category, Exemption, InventoryCookie, Party

LONG_LIFE_SECONDS = 13 * MONTH


def reason_exemptions(cookies: list[InventoryCookie], texts: Language) -> tuple[Exemption, ...]:
    """One verdict, ``plausible`` or ``questionable``, for each cookie declared necessary."""
    return tuple(
        _exemption(cookie, texts) for cookie in cookies if cookie.category is Category.NECESSARY
    )


def _exemption(cookie: InventoryCookie, texts: Language) -> Exemption:
    doubts = [texts[f"exemption.{doubt}"] for doubt in _doubts(cookie)]
    return Exemption(
        cookie_number=cookie.number,
        name=cookie.name,
        verdict="questionable" if doubts else "plausible",
        reason="; ".join(doubts) or texts["exemption.plausible"],
    )


def _doubts(cookie: InventoryCookie) -> Iterator[str]:
    if cookie.party is Party.THIRD:
        yield "third_party"
    if (cookie.duration_seconds or 0) > LONG_LIFE_SECONDS:
        yield "long_life"
    if cookie.purpose is None:
        yield "no_purpose"

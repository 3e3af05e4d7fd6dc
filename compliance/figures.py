"""The figures of a report: totals, the consent table, lifetimes, third parties."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence

from compliance.durations import DAY, MONTH
from languages.language import Language
from schemas.reports import (
    Category,
    ConsentCount,
    Count,
    Finding,
    InventoryCookie,
    Lifetime,
    Party,
    Severity,
    ThirdParty,
    Totals,
)

_BUCKETS = (
    ("day", DAY),
    ("month", 30 * DAY),
    ("half_year", 6 * MONTH),
    ("thirteen", 13 * MONTH),
    ("twenty_four", 24 * MONTH),
)
_NAMES = (*(name for name, _ in _BUCKETS), "longer")
_LIMITS = tuple(limit for _, limit in _BUCKETS)
_LABELS = ("session", *_NAMES, "unknown")


def sum_up(
    cookies: Sequence[InventoryCookie], storage_keys: int, findings: Sequence[Finding]
) -> Totals:
    """The figures of the first page."""
    parties = [cookie.party for cookie in cookies]
    categories = [cookie.category for cookie in cookies]
    severities = [finding.severity for finding in findings]
    return Totals(
        cookies=len(cookies),
        storage_keys=storage_keys,
        first_party=parties.count(Party.FIRST),
        third_party=parties.count(Party.THIRD),
        unknown_party=parties.count(Party.UNKNOWN),
        before_consent=sum(cookie.before_consent is True for cookie in cookies),
        session=sum(cookie.is_session for cookie in cookies),
        categories=tuple(Count(label=word, count=categories.count(word)) for word in Category),
        severities=tuple(
            Count(label=word, count=severities.count(word)) for word in reversed(Severity)
        ),
    )


def count_consent(cookies: Sequence[InventoryCookie]) -> tuple[ConsentCount, ...]:
    """For every category, how many cookies were set before and after a choice."""
    return tuple(_consent(category, cookies) for category in Category)


def _consent(category: Category, cookies: Sequence[InventoryCookie]) -> ConsentCount:
    before = [cookie.before_consent for cookie in cookies if cookie.category is category]
    return ConsentCount(
        category=category,
        before=before.count(True),
        after=before.count(False),
        unknown=before.count(None),
    )


def count_lifetimes(cookies: Sequence[InventoryCookie], texts: Language) -> tuple[Lifetime, ...]:
    """A histogram from session to over 24 months, every bar named."""
    counts = Counter(_bucket(cookie) for cookie in cookies)
    return tuple(Lifetime(label=texts[f"lifetime.{name}"], count=counts[name]) for name in _LABELS)


def _bucket(cookie: InventoryCookie) -> str:
    if cookie.is_session:
        return "session"
    if cookie.duration_seconds is None:
        return "unknown"
    return _NAMES[bisect_left(_LIMITS, cookie.duration_seconds)]


def list_third_parties(cookies: Sequence[InventoryCookie]) -> tuple[ThirdParty, ...]:
    """Third-party domains with their vendors, most cookies first, then by domain."""
    counts: Counter[str] = Counter()
    vendors: dict[str, set[str]] = defaultdict(set)
    for cookie in cookies:
        if cookie.party is not Party.THIRD:
            continue
        domain = cookie.domain.lstrip(".").lower()
        counts[domain] += 1
        if cookie.vendor is not None:
            vendors[domain].add(cookie.vendor)
    return tuple(
        ThirdParty(domain=domain, vendors=tuple(sorted(vendors[domain])), cookies=count)
        for domain, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )

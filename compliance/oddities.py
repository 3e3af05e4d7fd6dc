"""Which cookies and third parties are odd beside earlier scans: sets of names, nothing else.

A cookie that flickers is no news: it is new where neither of the two scans
before had it, and removed where two scans in a row miss it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

from compliance.assess import Bounds
from compliance.inventory import StringBound
from schemas.reports import Report
from schemas.scans import Scan

Key: TypeAlias = tuple[str, str, str]
"""Name, domain and path, bounded: the same cookie across scans."""


def keys_in(scan: Scan, bounds: Bounds) -> frozenset[Key]:
    """The cookies of a scan, as a report of it would show them."""
    bound = StringBound(bounds.max_string_bytes)
    return frozenset(
        (bound(cookie.name), bound(cookie.domain or ""), bound(cookie.path or ""))
        for cookie in (scan.cookies or ())[: bounds.max_cookies]
    )


def list_added(report: Report, older: frozenset[Key]) -> list[Key]:
    """Cookies that neither the scan before has nor the ``older`` one."""
    added = {(cookie.name, cookie.domain, cookie.path) for cookie in report.drift.added}
    return sorted(added - older)


def list_removed(report: Report, before: frozenset[Key], older: frozenset[Key]) -> list[Key]:
    """Cookies of the ``older`` scan that are missing in the one after it and in this one.

    Empty where the scan before held less than half of what this one holds: it did
    not look, so its silence is no second word.
    """
    shown = {(cookie.name, cookie.domain, cookie.path) for cookie in report.cookies}
    if 2 * len(before) < len(shown):
        return []
    return sorted(older - before - shown)


def list_newcomers(report: Report) -> list[str]:
    """Third-party domains of which the scan before had no cookie."""
    added = Counter(_host(cookie.domain) for cookie in report.drift.added)
    return sorted(
        party.domain for party in report.third_parties if added[party.domain] >= party.cookies
    )


def hosts_of(keys: Iterable[Key]) -> set[str]:
    """The domains of cookies, spelled as third parties are."""
    return {_host(domain) for _, domain, _ in keys}


def _host(domain: str) -> str:
    return domain.lstrip(".").lower()

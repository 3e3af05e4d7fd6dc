"""Limits: what keeps a report from being the whole truth.

An empty or broken scan must not be praised: limits marked inconclusive hold the
score.  Missing details are told and do not hold it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compliance.falls import Since, cookies_of, find_falls, pages_visited, storage_keys_of
from languages.language import Language
from schemas.reports import InventoryCookie, Limit
from schemas.scans import Scan

SUCCESS_WORDS = frozenset({"success", "successful", "succeeded", "completed", "complete", "done",
                           "finished", "ok"})  # fmt: skip
"""A scanner's words for a scan that worked; no word at all is taken as one of them."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What of the scan made it into the report, and what the bounds left out."""

    cookies: Sequence[InventoryCookie]
    cookies_sent: int
    storage_shown: int
    storage_sent: int
    pages_shown: int
    pages_sent: int
    strings_cut: int
    max_string_bytes: int
    status: str | None
    error: str | None


def find_limits(
    scan: Scan, shown: Shown, previous: Scan | None, since: Since, texts: Language
) -> tuple[Limit, ...]:
    """Every limit of this scan, those that hold the score first."""
    holding = [
        *_failures(scan, shown.status, shown.error),
        *find_falls(scan, previous, since),
        *_too_many(shown),
    ]
    partial = [*_gaps(scan, shown), *_unknowns(shown)]
    return tuple(
        Limit(code=code, text=texts.say(f"limit.{code}", **values), inconclusive=holds)
        for limits, holds in ((holding, True), (partial, False))
        for code, values in limits
    )


def has_failed(scan: Scan) -> bool:
    """Whether a scan shows by itself that it did not see the site."""
    status, error = (text if text and text.strip() else None for text in (scan.status, scan.error))
    return next(_failures(scan, status, error), None) is not None


_Found = Iterator[tuple[str, dict[str, object]]]


def _failures(scan: Scan, status: str | None, error: str | None) -> _Found:
    if status is not None and status.strip().lower() not in SUCCESS_WORDS:
        yield "scan_status", {"status": status}
    if error is not None:
        yield "scan_error", {"error": error}
    pages = pages_visited(scan)
    if pages == 0:
        yield "no_pages", {}
    elif pages is None and not cookies_of(scan) and not storage_keys_of(scan):
        yield "empty_scan", {}


def _too_many(shown: Shown) -> _Found:
    if shown.cookies_sent > len(shown.cookies):
        yield "cookies_cut", {"sent": shown.cookies_sent, "shown": len(shown.cookies)}


def _gaps(scan: Scan, shown: Shown) -> _Found:
    if pages_visited(scan) and not shown.cookies_sent and not shown.storage_sent:
        yield "nothing_found", {}
    if shown.storage_sent > shown.storage_shown:
        yield "storage_cut", {"sent": shown.storage_sent, "shown": shown.storage_shown}
    if shown.pages_sent > shown.pages_shown:
        yield "pages_cut", {"sent": shown.pages_sent, "shown": shown.pages_shown}
    if shown.strings_cut:
        yield "strings_cut", {"count": shown.strings_cut, "limit": shown.max_string_bytes}


def _unknowns(shown: Shown) -> _Found:
    total = len(shown.cookies)
    consent = sum(cookie.before_consent is None for cookie in shown.cookies)
    if consent:
        yield "consent_unknown", {"count": consent, "total": total}
    flags = sum(cookie.secure is None or cookie.http_only is None for cookie in shown.cookies)
    if flags:
        yield "flags_unknown", {"count": flags, "total": total}
    if shown.storage_sent:
        yield "storage_moment", {}

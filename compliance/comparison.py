"""Which earlier scan a scan is compared with: the latest that can be trusted.

A scanner that is shut out sees a block page in place of the site.  Compared with
each other, two such scans would look like a site that has mended everything; so
inconclusive ones are passed over.  Pure: the earlier scans are those that the run
has frozen, and each is judged by the ones before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from compliance.falls import NOTHING_BETWEEN, Since, cookies_of, find_falls
from compliance.limits import has_failed
from schemas.scans import Scan


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier scan of the domain, and when it finished by the ledger's word."""

    scan: Scan
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class Comparison:
    """The scan to compare with, None for a first one, and what came between."""

    previous: Scan | None = None
    since: Since = NOTHING_BETWEEN


def choose_comparison(
    earlier: Iterable[Earlier], finished_at: datetime, *, max_cookies: int
) -> Comparison:
    """Choose among ``earlier`` scans, oldest first, for one that finished at ``finished_at``.

    Where none can be trusted, the one before.  Holds at most three scans at a time.
    """
    chosen, trusted, since = None, False, NOTHING_BETWEEN
    for item in earlier:
        scan, before = item.scan, _compared(chosen, since, item.finished_at)
        failed = has_failed(scan) or cookies_of(scan) > max_cookies
        conclusive = not failed and not find_falls(scan, before.previous, before.since)
        if conclusive or not trusted:
            chosen, trusted, since = item, conclusive, NOTHING_BETWEEN
        elif failed:
            since = replace(since, skipped=since.skipped + 1)
        else:
            since = replace(
                since, skipped=since.skipped + 1, fallen=since.fallen + 1, last_fallen=scan
            )
    return _compared(chosen, since, finished_at)


def _compared(chosen: Earlier | None, since: Since, finished_at: datetime) -> Comparison:
    if chosen is None:
        return Comparison()
    return Comparison(chosen.scan, replace(since, lasted=finished_at - chosen.finished_at))

"""Falls: a scan that saw much less of a site than the one it is compared with.

The site may have shrunk, or the scanner was shown a block page.  So a fall holds
the score until other scans bear it out, and the less a scan saw, the more of them:
a scanner that is shut out is shut out for days.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from compliance.modes import is_narrow
from schemas.scans import Scan

FALL_MIN_COOKIES = 10
"""A fall in cookies is judged where the scan before held at least so many."""

DEEP_FALL_SCANS = 3
DEEP_FALL_LASTS = timedelta(days=7)
"""Where all or most of a site is gone it takes so many scans in a row to believe it, the last of
them so long after the scan that they fell from."""

Fall: TypeAlias = tuple[str, dict[str, object]]
"""The code of a limit, and what its text names."""


@dataclass(frozen=True, slots=True)
class Since:
    """What came between the scan that one is compared with and that one: nothing to be trusted."""

    skipped: int = 0
    """Scans, failed and fallen ones."""
    fallen: int = 0
    """Those that had not failed, and saw much less."""
    last_fallen: Scan | None = None
    lasted: timedelta = timedelta()
    """From the one scan to the other."""


NOTHING_BETWEEN = Since()


def pages_visited(scan: Scan) -> int | None:
    """How many pages the scan says it visited; None where it does not say."""
    if scan.page_count is None and scan.pages_visited is None:
        return None
    return max(scan.page_count or 0, len(scan.pages_visited or ()))


def cookies_of(scan: Scan) -> int:
    """How many cookies the scan holds."""
    return len(scan.cookies or ())


def storage_keys_of(scan: Scan) -> int:
    """How many storage keys the scan holds."""
    if scan.storages is None:
        return 0
    return len(scan.storages.local_storage or ()) + len(scan.storages.session_storage or ())


def find_falls(scan: Scan, previous: Scan | None, since: Since) -> list[Fall]:
    """In what the scan fell below ``previous`` so that nobody should believe it yet."""
    if previous is None:
        return []
    falls = list(_falls(scan, previous))
    return [] if falls and _is_borne_out(scan, previous, since) else falls


def _falls(scan: Scan, previous: Scan) -> Iterator[Fall]:
    if _pages_fell(scan, previous):
        yield "pages_fell", {"now": pages_visited(scan), "before": pages_visited(previous)}
    now, before = cookies_of(scan), cookies_of(previous)
    if before >= FALL_MIN_COOKIES and _halved(now, before):
        yield "cookies_fell", {"now": now, "before": before}
    elif _nothing_left(scan, previous):
        yield "nothing_left", {"cookies": before, "keys": storage_keys_of(previous)}


def _is_borne_out(scan: Scan, previous: Scan, since: Since) -> bool:
    """Whether scans since have shown the same smaller site, often and long enough."""
    if since.last_fallen is None or any(_falls(scan, since.last_fallen)):
        return False
    if not _is_deep(scan, previous):
        return True
    return since.fallen + 1 >= DEEP_FALL_SCANS and since.lasted >= DEEP_FALL_LASTS


def _is_deep(scan: Scan, previous: Scan) -> bool:
    """Whether it is what a block page would look like: nothing, or few pages and few cookies.

    A quick scan sees few pages of what a wider one saw, and is no such sign.
    """
    if _nothing_left(scan, previous):
        return True
    narrower = is_narrow(scan.scan_mode) and not is_narrow(previous.scan_mode)
    fewer = _halved(cookies_of(scan), cookies_of(previous))
    return fewer and _pages_fell(scan, previous) and not narrower


def _nothing_left(scan: Scan, previous: Scan) -> bool:
    found, before = (cookies_of(each) + storage_keys_of(each) for each in (scan, previous))
    return not found and before > 0


def _pages_fell(scan: Scan, previous: Scan) -> bool:
    pages, before = pages_visited(scan), pages_visited(previous)
    return pages is not None and before is not None and _halved(pages, before)


def _halved(now: int, before: int) -> bool:
    return now * 2 < before

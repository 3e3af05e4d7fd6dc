"""Which earlier scan is compared with, and when a site that shows less is believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from compliance.comparison import Comparison, Earlier, choose_comparison
from compliance.falls import find_falls
from schemas.scans import Scan

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def scan(cookies: int = 40, pages: int = 20, **fields: Any) -> Scan:
    base = {"scan_id": UUID(int=0), "domain": "shop.example", "status": "success"}
    found = [{"name": f"c{number}"} for number in range(cookies)]
    return msgspec.convert({**base, "page_count": pages, "cookies": found, **fields}, Scan)


FULL = scan()
BLOCKED = scan(0, 1)
CHALLENGED = scan(1, 1)
"""A block page that sets a cookie of its own."""
FAILED = scan(0, 0, status="failed")
FEWER = scan(4)
QUICK = scan(4, 1, scan_mode="quick")


def compare(*earlier: Scan, every: timedelta = DAY, max_cookies: int = 1000) -> Comparison:
    """What a scan is compared with that follows these, one every so often."""
    times = [NOON + number * every for number in range(len(earlier) + 1)]
    return choose_comparison(
        [Earlier(item, at) for item, at in zip(earlier, times, strict=False)],
        times[-1],
        max_cookies=max_cookies,
    )


def held(now: Scan, *earlier: Scan, every: timedelta = DAY) -> bool:
    compared = compare(*earlier, every=every)
    return bool(find_falls(now, compared.previous, compared.since))


def test_a_first_scan_is_compared_with_nothing() -> None:
    assert compare() == Comparison()


@pytest.mark.parametrize(
    "between",
    [(BLOCKED,), (BLOCKED, BLOCKED), (FAILED,), (FAILED, BLOCKED, FAILED), (CHALLENGED,) * 3],
    ids=["blocked", "blocked twice", "failed", "both", "challenged"],
)
def test_scans_that_cannot_be_trusted_are_passed_over(between: tuple[Scan, ...]) -> None:
    compared = compare(scan(39), FULL, *between)
    assert compared.previous == FULL
    assert compared.since.skipped == len(between)


def test_a_scan_with_more_cookies_than_are_judged_is_passed_over() -> None:
    compared = compare(FULL, scan(41), max_cookies=40)
    assert (compared.previous, compared.since.skipped) == (FULL, 1)


def test_where_none_can_be_trusted_it_is_the_one_before() -> None:
    worse, last = scan(3, error="timeout"), scan(5, error="timeout")
    compared = compare(worse, last)
    assert (compared.previous, compared.since.skipped) == (last, 0)


@pytest.mark.parametrize("blocked", [BLOCKED, CHALLENGED], ids=["nothing", "a cookie of its own"])
@pytest.mark.parametrize("every", [timedelta(hours=1), DAY], ids=["hourly", "daily"])
def test_a_scanner_that_stays_shut_out_is_not_believed_for_days(
    blocked: Scan, every: timedelta
) -> None:
    for times in range(6):
        assert held(blocked, FULL, *[blocked] * times, every=every)
    for times in range(3):
        assert held(blocked, FULL, *[FAILED, blocked] * times, every=every)


def test_a_scan_of_a_small_site_that_finds_nothing_is_not_believed_either() -> None:
    small, nothing = scan(2, 2), scan(0, 2)
    assert held(nothing, small)
    assert held(nothing, small, nothing)


def test_what_three_scans_in_a_row_show_for_a_week_is_the_site() -> None:
    one_page = scan(2, 1)
    assert held(one_page, FULL, *[one_page] * 5), "six days after the last"
    assert not held(one_page, FULL, *[one_page] * 6)
    assert held(one_page, FULL, one_page, every=30 * DAY), "a second scan, however late"
    assert not held(one_page, FULL, one_page, one_page, every=30 * DAY)
    settled = compare(FULL, *[one_page] * 8)
    assert (settled.previous, settled.since.skipped) == (one_page, 0)


def test_fewer_cookies_on_as_many_pages_are_believed_at_the_second_scan() -> None:
    assert held(FEWER, FULL)
    assert not held(FEWER, FULL, FEWER)
    assert held(scan(1), FULL, scan(19)), "a further fall bears nothing out"
    assert held(FEWER, FULL, FAILED)


def test_a_quick_scan_after_a_wide_one_is_believed_at_the_second_one() -> None:
    assert held(QUICK, FULL)
    assert not held(QUICK, FULL, QUICK)
    assert held(scan(0, 1, scan_mode="quick"), FULL, scan(0, 1, scan_mode="quick"))


def test_a_site_that_is_seen_again_is_compared_with_what_it_was() -> None:
    assert not held(FULL, FULL, BLOCKED, BLOCKED)
    assert compare(FULL, BLOCKED, FULL).since.skipped == 0

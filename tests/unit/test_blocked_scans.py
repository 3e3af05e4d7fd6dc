"""A scanner that is shut out: nobody is told that the site is clean, and nothing is forgotten."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from schemas.notifications import Notification
from schemas.reports import Report
from store.ledger import unpack
from store.runs import load_run
from tasks import reports
from tasks.finish import settle
from tasks.reports import assessed_report

DAY = 86_400.0


def cookies(count: int) -> list[dict[str, Any]]:
    return [
        {
            "name": f"c{number}",
            "domain": ".ads.example",
            "category": "advertising",
            "cookie_type": "Third Party",
            "set_after_accept": False,
        }
        for number in range(count)
    ]


BLOCKED = {"cookies": [], "page_count": 1}
CHALLENGED = {"cookies": [{"name": "challenge", "category": "necessary"}], "page_count": 1}
FAILED = {"cookies": [], "page_count": 0, "status": "failed", "error": "timeout"}


class Site:
    """One domain, scanned once a day."""

    def __init__(self, parts: Any, record: Any, rows: Any, clock: Any, make_scan: Any) -> None:
        self.parts = parts
        self._rows = rows
        self._clock = clock
        self._record = record
        self._make_scan = make_scan
        self._number = 0

    def record(self, **fields: Any) -> str:
        """Record a scan; return its run's id."""
        self._number += 1
        self._clock.forward(DAY)
        fields = {"timestamp_utc": self._clock().isoformat(), **fields}
        ticket = self._record(self.parts, self._make_scan(self._number, **fields))
        return str(ticket.run_id)

    def scan(self, **fields: Any) -> list[str]:
        """Record and settle a scan; return the variants of what is told of it."""
        run_id = self.record(**fields)
        settle(self.parts, run_id, 1)
        return sorted(item.variant for item in self.news(run_id))

    def news(self, run_id: str) -> list[Notification]:
        """What was told of a run."""
        return [
            msgspec.json.decode(unpack(row["content"]), type=Notification)
            for row in self._rows(self.parts, "notifications")
            if row["run_id"] == run_id
        ]

    def report(self, run_id: str) -> Report:
        """The report of a run, judged anew."""
        reports._assessed = OrderedDict()  # it is put back when the test is over
        with self.parts.ledger.read() as connection:
            run = load_run(connection, run_id)
        return assessed_report(self.parts, run)


@pytest.fixture
def site(
    make_parts: Callable[..., Any], record: Any, rows: Any, clock: Any, make_scan: Any
) -> Site:
    return Site(make_parts(formats=()), record, rows, clock, make_scan)


HELD = ["scan.completed.held"]


@pytest.mark.parametrize(
    "blocked",
    [[BLOCKED] * 5, [CHALLENGED] * 5, [FAILED, BLOCKED], [BLOCKED, FAILED, BLOCKED]],
    ids=["in a row", "with a cookie of their own", "after a failed one", "around a failed one"],
)
@pytest.mark.parametrize("count", [40, 9], ids=["a big site", "a small site"])
def test_blocked_scans_end_no_violation_and_are_never_praised(
    site: Site, blocked: list[dict[str, Any]], count: int
) -> None:
    assert "compliance.violation" in site.scan(cookies=cookies(count), page_count=20)
    for fields in blocked:
        assert site.scan(**fields) == HELD
    assert site.scan(cookies=cookies(count), page_count=20) == ["scan.completed"]


def test_one_scan_that_finds_nothing_on_a_small_site_resolves_nothing(site: Site) -> None:
    site.scan(cookies=cookies(2), page_count=2)
    assert site.scan(cookies=[], page_count=2) == HELD


def test_a_site_that_has_become_small_gets_its_score_again(site: Site) -> None:
    site.scan(cookies=cookies(40), page_count=20)
    told = [site.scan(cookies=[], page_count=1) for _ in range(8)]
    assert told[:6] == [HELD] * 6, "within a week"
    assert told[6] == ["anomaly.detected", "compliance.violation.resolved", "scan.completed"]
    assert told[7] == ["scan.completed"]


def test_a_site_that_was_mended_is_praised_by_the_second_scan(site: Site) -> None:
    site.scan(cookies=cookies(40), page_count=20)
    mended = {"cookies": [{"name": "sid", "category": "necessary"}], "page_count": 20}
    assert site.scan(**mended) == HELD
    assert "compliance.violation.resolved" in site.scan(**mended)


def test_scans_of_one_batch_are_judged_alike_whenever_the_others_are(site: Site) -> None:
    first = site.record(cookies=cookies(40), page_count=20)
    blocked = [site.record(**BLOCKED) for _ in range(3)]
    last = site.record(cookies=cookies(41), page_count=20)
    before = [site.report(run_id) for run_id in (*blocked, last)]
    assert [report.inconclusive for report in before] == [True, True, True, False]
    for run_id in (last, *reversed(blocked), first):
        settle(site.parts, run_id, 1)
    assert [site.report(run_id) for run_id in (*blocked, last)] == before
    drift = before[-1].drift
    assert (len(drift.added), len(drift.removed), drift.skipped) == (1, 0, 3)


def test_after_a_long_outage_it_is_still_the_last_good_scan_that_counts(site: Site) -> None:
    site.scan(cookies=cookies(40), page_count=20)
    for _ in range(30):
        site.scan(**FAILED)
    assert site.scan(**BLOCKED) == HELD
    run_id = site.record(cookies=cookies(40), page_count=20)
    drift = site.report(run_id).drift
    assert (drift.added, drift.removed) == ((), ())


def test_a_run_recorded_before_there_were_several_is_judged_as_it_was(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.earlier_scans._comparable", lambda *_: ())
    site.scan(cookies=cookies(40), page_count=20)
    site.scan(**FAILED)
    report = site.report(site.record(**CHALLENGED))
    assert not report.inconclusive
    assert json.loads(msgspec.json.encode(report.drift))["skipped"] == 0

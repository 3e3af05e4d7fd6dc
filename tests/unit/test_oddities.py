"""Odd scans beside the earlier ones of their domain: what makes an anomaly, and tells it once."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from schemas.notifications import FACTS, Notification
from schemas.reports import HistoryPoint, Report
from store import tables
from store.ledger import pack, unpack
from store.runs import load_run
from tasks import oddities, reports
from tasks.finish import settle
from tasks.oddities import MAX_NAME_BYTES, NAMED, find_oddities

FEW = 3
"""The thresholds of these tests."""


class Site:
    """One domain, scanned once a day; a scan's facts are those of its anomaly."""

    def __init__(self, parts: Any, record: Any, rows: Any, clock: Any) -> None:
        self.parts = parts
        self.rows = rows
        self._clock = clock
        self._record = record
        self._numbers = count(1)

    def record(self, names: str | list[Any], **fields: Any) -> str:
        """Record a scan with these cookies: letters, or whole cookies; return its run's id."""
        number = next(self._numbers)
        self._clock.forward(86_400)
        cookies = [cookie(name) if isinstance(name, str) else name for name in names]
        data = {
            "scan_id": str(uuid.UUID(int=0xC0000 + number)),
            "domain": "shop.example",
            "timestamp_utc": self._clock().isoformat(),
            "status": "success",
            "page_count": 5,
            "cookies": cookies,
            **fields,
        }
        return str(self._record(self.parts, json.dumps(data).encode()).run_id)

    def scan(self, names: str | list[Any], **fields: Any) -> dict[str, str]:
        """Record and settle a scan; return what was told to be odd about it."""
        return self.settle(self.record(names, **fields))

    def settle(self, run_id: str) -> dict[str, str]:
        """Settle a run; return what was told to be odd about its scan."""
        settle(self.parts, run_id, 1)
        told = [
            msgspec.json.decode(unpack(row["content"]), type=Notification)
            for row in self.rows(self.parts, "notifications")
            if row["type"] == "anomaly.detected" and row["run_id"] == run_id
        ]
        assert len(told) <= 1
        facts = {fact.label: fact.value for item in told for fact in item.facts}
        assert facts.keys() <= FACTS.keys()
        return facts


def cookie(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "domain": "shop.example", "category": "necessary", **fields}


def thirds(*hosts: str) -> list[dict[str, Any]]:
    return [cookie("x", domain=f".{host}.example", cookie_type="Third Party") for host in hosts]


@pytest.fixture
def make_site(
    make_parts: Callable[..., Any], record: Any, rows: Any, clock: Any
) -> Callable[..., Site]:
    def make(**settings: Any) -> Site:
        few = {
            "anomaly_added_cookies": FEW,
            "anomaly_removed_cookies": FEW,
            "anomaly_new_third_parties": FEW,
            "anomaly_score_drop": 101,
        }
        return Site(make_parts(formats=(), **{**few, **settings}), record, rows, clock)

    return make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


def test_a_first_scan_is_not_odd_however_many_cookies_it_has(site: Site) -> None:
    assert site.scan("abcdefghijklm") == {}


# New cookies


@pytest.mark.parametrize(("now", "odd"), [("abcd", {}), ("abcde", {"new_cookies": "3 (c, d, e)"})])
def test_many_new_cookies_are_odd(site: Site, now: str, odd: dict[str, str]) -> None:
    site.scan("ab")
    assert site.scan(now) == odd


def test_new_cookies_are_told_once_and_not_by_the_next_scan(site: Site) -> None:
    site.scan("ab")
    assert site.scan("abcdef") != {}
    assert site.scan("abcdef") == {}
    assert site.scan("abcdefg") == {}


def test_cookies_that_one_scan_missed_are_not_new_when_they_are_back(site: Site) -> None:
    site.scan("abcdef")
    site.scan("abc")
    assert site.scan("abcdef") == {}


def test_cookies_that_two_scans_missed_are_new_when_they_are_back(site: Site) -> None:
    site.scan("abcdef")
    site.scan("abc")
    site.scan("abc")
    assert site.scan("abcdef") == {"new_cookies": "3 (d, e, f)"}


# Removed cookies


def test_cookies_are_removed_when_two_scans_in_a_row_miss_them(site: Site) -> None:
    site.scan("abcdef")
    assert site.scan("abc") == {}, "one scan may have missed them"
    assert site.scan("abc") == {"removed_cookies": "3 (d, e, f)"}
    assert site.scan("abc") == {}, "told once"
    assert site.scan("abc") == {}


def test_fewer_than_the_threshold_are_not_odd(site: Site) -> None:
    site.scan("abcdef")
    site.scan("abcd")
    assert site.scan("abcd") == {}


def test_a_cookie_that_is_back_was_not_removed(site: Site) -> None:
    site.scan("abcdef")
    site.scan("abc")
    assert site.scan("abcd") == {}


def test_a_scan_that_saw_hardly_anything_is_no_second_witness(site: Site) -> None:
    site.scan("abcdef")
    site.scan("", page_count=0, error="blocked")
    assert site.scan("abc") == {}


def test_a_great_removal_is_told_by_the_scan_that_confirms_it(site: Site) -> None:
    site.scan("abcdefghijkl")
    assert site.scan("ab") == {}, "inconclusive: it fell by more than half"
    assert site.scan("ab") == {"removed_cookies": "10 (c, d, e, f, g, …)"}


# Third parties


def test_third_parties_that_the_domain_never_had_are_odd(make_site: Callable[..., Site]) -> None:
    site = make_site(anomaly_added_cookies=99)
    site.scan("a")
    assert site.scan(["a", *thirds("x", "y")]) == {}
    odd = {"new_third_parties": "3 (p.example, q.example, r.example)"}
    assert site.scan(["a", *thirds("x", "y", "p", "q", "r")]) == odd
    assert site.scan(["a", *thirds("x", "y", "p", "q", "r")]) == {}


def test_third_parties_that_come_and_go_are_odd_once(make_site: Callable[..., Site]) -> None:
    site = make_site(anomaly_added_cookies=99, anomaly_removed_cookies=99)
    site.scan("a")
    assert site.scan(["a", *thirds("x", "y", "z")]) != {}
    for _ in range(4):
        site.scan("a")
    assert site.scan(["a", *thirds("x", "y", "z")]) == {}


def test_another_cookie_of_a_known_third_party_makes_no_new_one(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(anomaly_added_cookies=99)
    known = thirds("x", "y", "z")
    site.scan(known)
    assert site.scan([*known, *({**item, "name": "other"} for item in known)]) == {}


def test_earlier_scans_are_read_only_where_their_number_could_pass(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    whole = oddities.read_payload

    def counted(connection: Any, event_pk: int) -> Any:
        read.append(event_pk)
        return whole(connection, event_pk)

    monkeypatch.setattr(oddities, "read_payload", counted)
    site = make_site()
    for _ in range(5):
        site.scan("ab")
    assert read == []


# Scores


def judged(site: Site, score: int | None, *history: int | None) -> list[Any]:
    """What is odd about a scan with this score after those."""
    run_id = site.record("a")
    with site.parts.ledger.read() as connection:
        run = load_run(connection, run_id)
    points = tuple(
        HistoryPoint(
            scan_id=f"s{n}", finished_at=site.parts.clock() + timedelta(days=n), score=before
        )
        for n, before in enumerate(history)
    )
    inputs = msgspec.structs.replace(run.inputs, history=points)
    report: Report = reports.assessed_report(site.parts, run)
    scored = msgspec.structs.replace(
        report, score=msgspec.structs.replace(report.score, value=score)
    )
    earlier = type(run)(
        **{**{name: getattr(run, name) for name in run.__slots__}, "inputs": inputs}
    )
    return find_oddities(site.parts, earlier, scored)


@pytest.mark.parametrize(
    ("before", "now", "odd"),
    [
        ((80,), 71, False),
        ((80,), 70, True),
        ((80, None), 70, True),
        ((80, 75), 70, False),
        ((80,), None, False),
        ((None,), 10, False),
        ((), 10, False),
        ((50,), 90, False),
    ],
    ids=[
        "a small fall",
        "a fall of the threshold",
        "held scores are skipped",
        "only the last score counts",
        "a held score falls nowhere",
        "no score before",
        "no history",
        "a rise",
    ],
)
def test_a_fall_of_the_score_is_odd(
    make_site: Callable[..., Site], before: tuple[int | None, ...], now: int | None, odd: bool
) -> None:
    facts = judged(make_site(anomaly_score_drop=10), now, *before)
    assert [(fact.label, fact.value) for fact in facts] == (
        [("score_change", "80 → 70")] if odd else []
    )


def worse() -> list[dict[str, Any]]:
    return [
        cookie("ads", category="advertising", cookie_type="Third Party", set_after_accept=False)
    ]


def test_a_fall_is_told_once_though_the_score_stays_low(make_site: Callable[..., Site]) -> None:
    site = make_site(anomaly_score_drop=5)
    site.scan("a")
    assert list(site.scan(["a", *worse()])) == ["score_change"]
    assert site.scan(["a", *worse()]) == {}


def test_a_score_that_came_after_the_scan_was_recorded_counts(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(anomaly_score_drop=5)
    site.scan("a")
    fallen = site.record(["a", *worse()])
    later = site.record(["a", *worse()])
    assert list(site.settle(fallen)) == ["score_change"]
    assert site.settle(later) == {}


# Whatever else


def test_an_inconclusive_scan_is_not_odd(site: Site) -> None:
    site.scan("ab")
    assert site.scan("abcdefgh", status="failed") == {}


def test_a_scan_that_arrives_late_changes_nothing_for_those_recorded_before(site: Site) -> None:
    site.scan("ab")
    waiting = site.record("abcdef")
    late = (site.parts.clock() - timedelta(hours=1)).isoformat()
    site.scan("abcdef", timestamp_utc=late)
    assert "new_cookies" in site.settle(waiting)


def test_earlier_bytes_that_are_gone_or_broken_take_nothing_along(site: Site) -> None:
    for fate in (pack(b"{"), None):
        site.scan("abcdef")
        site.scan("abc")
        run_id = site.record("abcxyz")
        with site.parts.ledger.read() as connection:  # the report is made, the bytes go
            reports.assessed_report(site.parts, load_run(connection, run_id))
        with site.parts.ledger.write() as connection:
            connection.execute(update(tables.events).values(payload=fate))
        settle(site.parts, run_id, 1)
    assert {row["state"] for row in site.rows(site.parts, "runs")} == {"done"}


def test_a_fact_names_a_few_of_many_each_cut_and_none_without_a_name(site: Site) -> None:
    site.scan("a")
    long = [cookie("é" * 900 + str(number)) for number in range(9)]
    value = site.scan(["a", cookie(" "), *long])["new_cookies"]
    assert value.startswith("10 (é")
    assert value.endswith(", …)")
    assert len(value.encode()) <= NAMED * (MAX_NAME_BYTES + 2) + 20
    assert oddities._numbered(["", " "]) == "2"

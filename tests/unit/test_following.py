"""Scans of a domain one after the other, settled as the worker does: who is told what, once."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from compliance.rules import load_pack
from schemas.notifications import Notification
from store import tables
from store.ledger import unpack
from store.runs import load_run
from store.violations import list_violations
from tasks import finish, reports
from tasks.finish import settle
from tasks.violations import follow_violations

DAY = 86_400.0
BEFORE_CHOICE = "consent.advertising-before-choice"
THIRD_PARTY = "consent.third-party-before-choice"
BOTH = {BEFORE_CHOICE, THIRD_PARTY}

ADVERTISING = {
    "name": "_ads",
    "domain": "shop.example",
    "category": "advertising",
    "cookie_type": "First Party",
    "set_after_accept": False,
}
ELSEWHERE = {
    "name": "_else",
    "domain": "else.example",
    "category": "necessary",
    "cookie_type": "Third Party",
    "set_after_accept": False,
}
HARMLESS = {"name": "sid", "domain": "shop.example", "category": "necessary"}
"""On every page: a scan that finds nothing at all would be held."""
SINNERS = {BEFORE_CHOICE: ADVERTISING, THIRD_PARTY: ELSEWHERE}
"""A cookie for each rule."""


class Site:
    """One domain that is scanned now and then."""

    def __init__(self, parts: Any, record: Any, rows: Any, clock: Any) -> None:
        self.parts = parts
        self.clock = clock
        self._record = record
        self._rows = rows
        self._numbers = count(1)
        self._known: set[str] = set()

    def scan(
        self,
        *rules: str,
        finished: datetime | None = None,
        scan_id: str | None = None,
        **fields: Any,
    ) -> str:
        """Record a scan that finds these rules' cookies; return its run's id."""
        number = next(self._numbers)
        data = {
            "scan_id": scan_id or str(uuid.UUID(int=0xB0000 + number)),
            "domain": "shop.example",
            "timestamp_utc": (finished or self.clock()).isoformat(),
            "status": "success",
            "page_count": 3,
            "cookies": [HARMLESS, *(SINNERS[rule] for rule in rules)],
            **fields,
        }
        ticket = self._record(self.parts, json.dumps(data).encode(), id=f"event-{number}")
        return str(ticket.run_id)

    def settled(self, *rules: str, **options: Any) -> list[Notification]:
        """Record and settle a scan; return the violations' news."""
        settle(self.parts, self.scan(*rules, **options), 1)
        return self.news()

    def news(self) -> list[Notification]:
        """News of violations since the last look."""
        fresh = [
            row
            for row in self._rows(self.parts, "notifications")
            if row["type"] == "compliance.violation" and row["event_key"] not in self._known
        ]
        self._known |= {row["event_key"] for row in fresh}
        found = [msgspec.json.decode(unpack(row["content"]), type=Notification) for row in fresh]
        return sorted(found, key=lambda item: item.variant)

    def open_rules(self) -> set[str]:
        """Rules whose violations are open."""
        with self.parts.ledger.read() as connection:
            found = list_violations(connection, limit=100, open_only=True)
        return {item.sighting.rule_id for item in found}

    def replay(self, run_id: str) -> list[Notification]:
        """Settle a run once more, as a replay does: another run of the same event."""
        with self.parts.ledger.write() as connection:
            connection.execute(
                update(tables.runs)
                .where(tables.runs.c.run_id == run_id)
                .values(state="recorded", deadline=self.clock())
            )
        settle(self.parts, run_id, 1)
        return self.news()


@pytest.fixture
def light(make_parts: Callable[..., Any]) -> Any:
    """Parts that render nothing: news needs no artifacts."""
    return make_parts(formats=())


@pytest.fixture
def site(light: Any, record: Any, rows: Any, clock: Any) -> Site:
    return Site(light, record, rows, clock)


def variants(news: list[Notification]) -> list[str]:
    return [item.variant.removeprefix("compliance.violation") for item in news]


def rules_in(item: Notification) -> set[str]:
    return {finding.rule_id for finding in item.findings}


def test_a_violation_is_told_once_then_reminded_of_then_resolved_then_told_as_new_again(
    site: Site, subscribe: Any, rows: Any
) -> None:
    subscribe(site.parts, events=("compliance.violation",))
    told: list[tuple[int, list[str]]] = []
    for day, found in (
        (0, BOTH),
        (1, BOTH),
        (6, BOTH),
        (8, BOTH),
        (9, BOTH),
        (10, set()),
        (11, set()),
        (12, {THIRD_PARTY}),
        (13, {THIRD_PARTY}),
        (20, {THIRD_PARTY}),
    ):
        site.clock.now = site.clock.now.replace(day=4) + timedelta(days=day)
        told.append((day, variants(site.settled(*found))))
    assert [item for item in told if item[1]] == [
        (0, [""]),
        (8, [".reminder"]),
        (10, [".resolved"]),
        (12, [""]),
        (20, [".reminder"]),
    ]
    assert len(rows(site.parts, "deliveries")) == 5
    found = {row["occurrence"] for row in rows(site.parts, "violations")}
    assert found == {1, 2}


def test_a_rule_that_comes_to_others_is_told_alone(site: Site) -> None:
    site.settled(THIRD_PARTY)
    (news,) = site.settled(*BOTH)
    assert rules_in(news) == {BEFORE_CHOICE}
    assert news.findings[0].title == "Advertising cookies set before a choice"


def test_what_began_and_what_ended_in_one_scan_are_two_messages(site: Site) -> None:
    site.settled(THIRD_PARTY)
    began, ended = site.settled(BEFORE_CHOICE)
    assert (began.variant, rules_in(began)) == ("compliance.violation", {BEFORE_CHOICE})
    assert (ended.variant, rules_in(ended)) == ("compliance.violation.resolved", {THIRD_PARTY})


def test_the_news_is_in_english_whatever_the_reports_language(
    make_parts: Any, record: Any, rows: Any, clock: Any
) -> None:
    site = Site(make_parts(formats=(), language="de"), record, rows, clock)
    (news,) = site.settled(THIRD_PARTY)
    assert [item.title for item in news.findings] == ["Third-party cookies set before a choice"]


@pytest.mark.parametrize("days", [400, 4000])
def test_without_a_reminder_interval_nobody_is_reminded(
    make_parts: Any, record: Any, rows: Any, clock: Any, days: int
) -> None:
    site = Site(make_parts(formats=(), violation_reminder_s=0), record, rows, clock)
    site.settled(THIRD_PARTY)
    clock.forward(days * DAY)
    assert site.settled(THIRD_PARTY) == []


INCONCLUSIVE = ({"status": "failed"}, {"error": "timeout"}, {"page_count": 0})


@pytest.mark.parametrize("fields", INCONCLUSIVE, ids=str)
def test_an_inconclusive_scan_neither_opens_nor_resolves(
    site: Site, fields: dict[str, Any]
) -> None:
    assert site.settled(THIRD_PARTY, **fields) == []
    site.settled(THIRD_PARTY)
    site.clock.forward(DAY)
    assert site.settled(**fields) == []
    assert site.settled(BEFORE_CHOICE, **fields) == []
    assert site.open_rules() == {THIRD_PARTY}


def test_a_fall_of_cookies_resolves_only_when_the_next_scan_confirms_it(site: Site) -> None:
    site.settled(THIRD_PARTY, cookies=[{**ELSEWHERE, "name": f"c{n}"} for n in range(30)])
    site.clock.forward(DAY)
    assert site.settled() == []
    site.clock.forward(DAY)
    assert variants(site.settled()) == [".resolved"]


def test_scans_that_arrive_late_change_nothing(site: Site) -> None:
    site.clock.forward(10 * DAY)
    site.settled(THIRD_PARTY)
    week_ago = site.clock() - timedelta(days=7)
    assert site.settled(finished=week_ago) == []
    assert site.settled(*BOTH, finished=week_ago) == []
    assert site.open_rules() == {THIRD_PARTY}
    site.clock.forward(DAY)
    site.settled()
    assert site.settled(*BOTH, finished=week_ago) == [], "nor after the end"
    assert site.open_rules() == set()


def test_a_backfill_tells_nobody_of_what_is_long_mended(site: Site) -> None:
    site.settled()
    for days in range(30, 0, -1):
        finished = site.clock() - timedelta(days=days)
        assert site.settled(*BOTH, finished=finished) == []


def test_a_replay_tells_nobody_and_moves_nothing_however_late_it_is(site: Site, rows: Any) -> None:
    first, second = site.scan(THIRD_PARTY), None
    settle(site.parts, first, 1)
    site.clock.forward(DAY)
    second = site.scan(*BOTH)
    settle(site.parts, second, 1)
    site.news()
    before = rows(site.parts, "violations")
    site.clock.forward(30 * DAY)
    for run_id in (second, first, second):
        assert site.replay(run_id) == []
    assert rows(site.parts, "violations") == before


def test_a_scan_sent_again_with_other_content_has_the_later_word(site: Site) -> None:
    scan_id = str(uuid.uuid4())
    finished = site.clock()
    assert variants(site.settled(scan_id=scan_id, finished=finished)) == []
    assert variants(site.settled(THIRD_PARTY, scan_id=scan_id, finished=finished)) == [""]
    again = site.settled(BEFORE_CHOICE, scan_id=scan_id, finished=finished - timedelta(minutes=1))
    assert variants(again) == ["", ".resolved"]


def test_a_superseded_run_changes_nothing(site: Site) -> None:
    scan_id = str(uuid.uuid4())
    early = site.scan(*BOTH, scan_id=scan_id)
    late = site.scan(THIRD_PARTY, scan_id=scan_id)
    settle(site.parts, late, 1)
    settle(site.parts, early, 1)
    assert site.open_rules() == {THIRD_PARTY}


def test_a_run_that_is_superseded_while_it_is_settled_changes_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_id = str(uuid.uuid4())
    early = site.scan(*BOTH, scan_id=scan_id)
    whole = finish.find_oddities

    def overtaken(*arguments: Any) -> Any:
        site.scan(THIRD_PARTY, scan_id=scan_id)
        return whole(*arguments)

    monkeypatch.setattr(finish, "find_oddities", overtaken)
    settle(site.parts, early, 1)
    assert site.open_rules() == set()


def test_of_two_scans_that_finished_at_once_the_order_of_arrival_does_not_count(
    site: Site,
) -> None:
    first, second = sorted(str(uuid.uuid4()) for _ in range(2))
    assert variants(site.settled(THIRD_PARTY, scan_id=second)) == [""]
    assert site.settled(BEFORE_CHOICE, scan_id=first) == []


def test_a_scan_from_the_future_does_not_shut_out_those_to_come(site: Site) -> None:
    site.settled(THIRD_PARTY, finished=site.clock() + timedelta(days=40_000))
    site.clock.forward(60)
    assert variants(site.settled()) == [".resolved"]


def test_a_quick_scan_opens_and_a_deep_one_resolves(site: Site) -> None:
    assert variants(site.settled(THIRD_PARTY, scan_mode="quick")) == [""]
    site.clock.forward(60)
    assert site.settled(THIRD_PARTY, scan_mode="deep") == []
    site.clock.forward(60)
    assert site.settled(scan_mode="quick") == []
    site.clock.forward(60)
    assert variants(site.settled(scan_mode="deep")) == [".resolved"]


def test_a_change_of_the_law_resolves_nothing(
    make_parts: Any, record: Any, rows: Any, clock: Any, tmp_path: Path
) -> None:
    mild = load_pack("eu-baseline")
    other = msgspec.structs.replace(
        mild, id="acme", version="1", rules=tuple(r for r in mild.rules if r.id != THIRD_PARTY)
    )
    (tmp_path / "acme-1.json").write_bytes(msgspec.json.encode(other))
    site = Site(make_parts(formats=()), record, rows, clock)
    site.settled(*BOTH)
    clock.forward(60)
    site.parts = make_parts(formats=(), rule_pack="acme", rule_packs_dir=tmp_path)
    assert [rules_in(item) for item in site.settled()] == [{BEFORE_CHOICE}]
    assert site.open_rules() == {THIRD_PARTY}


def test_domains_do_not_know_each_other(site: Site) -> None:
    site.settled(THIRD_PARTY)
    assert variants(site.settled(THIRD_PARTY, domain="other.example")) == [""]
    site.clock.forward(60)
    assert variants(site.settled(domain="other.example")) == [".resolved"]
    assert site.open_rules() == {THIRD_PARTY}


def test_a_body_that_dies_before_its_commit_leaves_violations_as_they_were(
    site: Site, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any) -> None:
        raise Killed

    run_id = site.scan(THIRD_PARTY)
    with monkeypatch.context() as patched:
        patched.setattr(finish, "crash_here", die)
        with pytest.raises(Killed):
            settle(site.parts, run_id, 1)
    assert rows(site.parts, "violations") == rows(site.parts, "standings") == []
    settle(site.parts, run_id, 2)
    assert variants(site.news()) == [""]


def test_a_forgotten_delivery_is_no_reason_to_tell_again(site: Site) -> None:
    site.settled(THIRD_PARTY)
    with site.parts.ledger.write() as connection:
        connection.execute(delete(tables.deliveries))
    site.clock.forward(60)
    assert site.settled(THIRD_PARTY) == []


def test_of_scans_settled_at_once_each_violation_is_told_by_one(site: Site) -> None:
    runs = [site.scan(THIRD_PARTY) for _ in range(8)]
    for number, run_id in enumerate(runs):  # judged before, so that all meet in the transaction
        with site.parts.ledger.read() as connection:
            reports.assessed_report(site.parts, load_run(connection, run_id))
        site.clock.forward(number)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda run_id: settle(site.parts, run_id, 1), runs))
    assert variants(site.news()) == [""]


def test_an_inconclusive_report_does_not_take_a_turn(site: Site, rows: Any) -> None:
    settle(site.parts, site.scan(status="failed"), 1)
    assert rows(site.parts, "standings") == []


def test_a_run_without_a_scan_has_no_violations(site: Site, record: Any) -> None:
    run_id = site.scan(THIRD_PARTY)
    with site.parts.ledger.read() as connection:
        run = load_run(connection, run_id)
    report = reports.assessed_report(site.parts, run)
    nobodys = type(run)(**{**{name: getattr(run, name) for name in run.__slots__}, "scan_id": None})
    with site.parts.ledger.write() as connection:
        assert follow_violations(connection, site.parts, nobodys, report, ()) == []


EVENTS = st.tuples(
    st.sampled_from(["scan", "scan", "scan", "inconclusive", "late", "again", "replay", "pair"]),
    st.sets(st.sampled_from(sorted(BOTH))),
    st.integers(1, 90),
)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(EVENTS, min_size=1, max_size=12))
def test_whatever_arrives_no_occurrence_is_told_twice_and_none_is_missed(
    light: Any, record: Any, rows: Any, clock: Any, history: list[tuple[str, set[str], int]]
) -> None:
    for name in ("deliveries", "notifications", "violations", "standings", "reports", "runs"):
        with light.ledger.write() as connection:
            connection.execute(delete(getattr(tables, name)))
    for name in ("scans", "events"):
        with light.ledger.write() as connection:
            connection.execute(delete(getattr(tables, name)))
    site = Site(light, record, rows, clock)
    settled: list[str] = []
    standing: set[str] = set()
    begun: Counter[str] = Counter()
    told: Counter[tuple[str, str]] = Counter()
    for kind, found, hours in history:
        clock.forward(hours * 3600)
        new: set[str] = set()
        ended: set[str] = set()
        match kind:
            case "scan" | "again":
                run_id = site.scan(*found)
                settle(site.parts, run_id, 1)
                if kind == "again":
                    settle(site.parts, run_id, 1)
                settled.append(run_id)
                new, ended, standing = found - standing, standing - found, set(found)
            case "pair":
                runs = [site.scan(*found), site.scan(*found)]
                with ThreadPoolExecutor(2) as pool:
                    list(pool.map(lambda run_id: settle(light, run_id, 1), runs))
                new, ended, standing = found - standing, standing - found, set(found)
            case "inconclusive":
                settle(site.parts, site.scan(*found, status="failed"), 1)
            case "late" if settled:
                finished = clock() - timedelta(days=3000)
                settle(site.parts, site.scan(*found, finished=finished), 1)
            case "replay" if settled:
                assert site.replay(settled[-1]) == []
        news = site.news()
        begun.update(new)
        for item in news:
            told.update((item.variant, rule) for rule in rules_in(item))
        assert {rule for item in news if not variants([item])[0] for rule in rules_in(item)} == new
        gone = [rules_in(item) for item in news if item.variant.endswith(".resolved")]
        assert set().union(*gone) == ended
        assert site.open_rules() == standing
    for rule in BOTH:
        assert told["compliance.violation", rule] == begun[rule]

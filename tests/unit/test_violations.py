"""A violation from its start to its end: what each scan changes, and what is told of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.assess import Bounds, assess
from compliance.rules import RulePack, load_pack
from compliance.violations import Changes, Look, follow
from schemas.events import EventType
from schemas.notifications import FACTS, VARIANTS
from schemas.reports import Finding, Report, Severity
from schemas.runs import FrozenInputs, Run, RunState
from schemas.scans import decode_scan
from schemas.violations import Sighting, Violation, fingerprint_of
from tasks.derive import MAX_FINDINGS
from tasks.violations import derive_violations

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
WEEK_S = 7 * 86_400.0
DOMAIN = "shop.example"
REPORT = assess(
    decode_scan(b'{"scan_id":"3176b0cd-199b-5ec6-b280-ec5c6e92338a","domain":"shop.example"}'),
    scan_sha256="0" * 64,
    pack=load_pack("eu-baseline"),
    bounds=Bounds(100, 8192),
)
SCAN_ID = REPORT.identity.scan_id


def change(model: Any, **values: Any) -> Any:
    return msgspec.structs.replace(model, **values)


def pack(*rules: str, version: str = "2026.1", name: str = "eu-baseline") -> RulePack:
    """A pack with these rules; what they look for does not matter here."""
    template = load_pack("eu-baseline").rules[0]
    made = tuple(change(template, id=rule, title=f"English {rule}") for rule in rules)
    return RulePack(id=name, version=version, title="of a test", rules=made)


def finding(rule_id: str, severity: Severity = Severity.HIGH, count: int = 1) -> Finding:
    return Finding(
        rule_id=rule_id,
        severity=severity,
        title=f"Titel {rule_id}",
        explanation="",
        action="",
        source="",
        source_url=None,
        scope=None,
        count=count,
        evidence=(),
    )


def report(*found: Finding | str, mode: str | None = None) -> Report:
    findings = tuple(finding(item) if isinstance(item, str) else item for item in found)
    identity = change(REPORT.identity, scan_mode=mode)
    return change(REPORT, findings=findings, identity=identity)


def look(*found: Finding | str, at: datetime = NOON, **options: Any) -> Look:
    return Look(
        report=report(*found, mode=options.get("mode")),
        pack=options.get("pack") or pack("a", "b", "c"),
        finished_at=options.get("finished_at", at - HOUR),
        now=at,
        severity=options.get("severity", Severity.HIGH),
        remind_after_s=options.get("remind_after_s", WEEK_S),
    )


def known(rule_id: str = "a", **values: Any) -> Violation:
    sighting: dict[str, Any] = {
        "rule_id": rule_id,
        "severity": Severity.HIGH,
        "title": f"English {rule_id}",
        "count": 1,
        "scan_id": SCAN_ID,
        "rule_pack": "eu-baseline",
        "rule_pack_version": "2026.1",
        "wide": True,
    }
    sighting |= {name: values.pop(name) for name in list(values) if name in sighting}
    whole: dict[str, Any] = {
        "domain": DOMAIN,
        "occurrence": 1,
        "first_seen_at": NOON - 3 * DAY,
        "last_seen_at": NOON - DAY,
        "last_told_at": NOON - 3 * DAY,
    }
    return Violation(sighting=Sighting(**sighting), **{**whole, **values})


def fate(changes: Changes) -> str:
    """What became of the one violation."""
    told = {
        name: getattr(changes, name)
        for name in ("new", "reminded", "resolved", "seen")
        if getattr(changes, name)
    }
    assert len(changes.all) <= 1
    return next(iter(told), "untouched")


# Transitions


@pytest.mark.parametrize(
    ("before", "after", "becomes"),
    [
        (None, look("a"), "new"),
        (None, look(finding("a", Severity.MEDIUM)), "untouched"),
        (None, look(finding("a", Severity.MEDIUM), severity=Severity.MEDIUM), "new"),
        (known(), look("a"), "seen"),
        (known(), look(finding("a", Severity.LOW)), "seen"),
        (known(last_told_at=NOON - 7 * DAY), look("a"), "reminded"),
        (known(last_told_at=NOON - 7 * DAY + HOUR), look("a"), "seen"),
        (known(last_told_at=NOON - 900 * DAY), look("a", remind_after_s=0), "seen"),
        (known(last_told_at=NOON - 900 * DAY), look("a", remind_after_s=1e300), "seen"),
        (known(last_told_at=NOON + DAY), look("a"), "seen"),
        (known(last_told_at=NOON - 9 * DAY), look(finding("a", Severity.LOW)), "seen"),
        (known(), look(), "resolved"),
        (known(), look(pack=pack("a", version="2026.2")), "resolved"),
        (known(), look(pack=pack("a", version="2026.10")), "resolved"),
        (known(), look(pack=pack("a", version="2025.9")), "untouched"),
        (known(rule_pack_version="2026.10"), look(pack=pack("a", version="2026.9")), "untouched"),
        (known(), look(pack=pack("b", version="2026.2")), "untouched"),
        (known(), look(pack=pack("b", name="acme")), "untouched"),
        (known(), look(pack=pack("a", name="acme", version="1")), "resolved"),
        (known(), look(mode="quick"), "untouched"),
        (known(), look(mode=" Realtime "), "untouched"),
        (known(), look(mode="deep"), "resolved"),
        (known(), look(mode="scheduled"), "resolved"),
        (known(), look("a", mode="quick"), "seen"),
        (known(wide=False), look(mode="quick"), "resolved"),
        (known(wide=False), look(mode="deep"), "resolved"),
        (known(resolved_at=NOON - DAY), look(), "untouched"),
        (known(resolved_at=NOON - DAY), look("a"), "new"),
        (known(resolved_at=NOON - DAY), look("a", mode="quick"), "new"),
        (known(resolved_at=NOON - DAY), look(finding("a", Severity.LOW)), "untouched"),
    ],
    ids=[
        "first found",
        "found, not serious",
        "serious is what the setting says",
        "found again",
        "found again, by now less serious",
        "found again when a reminder is due",
        "found again an hour before one is due",
        "no reminders by setting",
        "reminders beyond all time",
        "told by a clock that ran ahead",
        "no reminder of what is not serious any more",
        "gone",
        "gone by a newer version",
        "gone by a newer version, counted by numbers",
        "not found by an older version",
        "not found by an older version, counted by numbers",
        "the newer version has no such rule",
        "another pack has no such rule",
        "another pack has the rule",
        "not found by a quick scan",
        "not found by a realtime scan, however it is spelled",
        "gone by a deep scan",
        "gone by a scheduled scan",
        "found by a quick scan",
        "gone by a quick scan where only quick ones found it",
        "gone by a deep scan where only quick ones found it",
        "gone before and still",
        "back again",
        "back again by a quick scan",
        "back again, not serious",
    ],
)
def test_what_a_scan_makes_of_a_violation(
    before: Violation | None, after: Look, becomes: str
) -> None:
    assert fate(follow([before] if before else [], after)) == becomes


def test_a_new_violation_begins_with_its_scan_and_is_told_now() -> None:
    (begun,) = follow([], look(finding("a", count=4))).new
    assert begun == Violation(
        domain=DOMAIN,
        occurrence=1,
        sighting=Sighting(
            rule_id="a",
            severity=Severity.HIGH,
            title="English a",
            count=4,
            scan_id=SCAN_ID,
            rule_pack="eu-baseline",
            rule_pack_version="2026.1",
            wide=True,
        ),
        first_seen_at=NOON - HOUR,
        last_seen_at=NOON - HOUR,
        last_told_at=NOON,
    )


def test_a_violation_that_is_seen_again_moves_its_last_sighting_alone() -> None:
    before = known()
    (seen,) = follow([before], look(finding("a", count=9))).seen
    assert seen.sighting.count == 9
    assert seen == change(before, last_seen_at=NOON - HOUR, sighting=seen.sighting)


def test_a_reminder_counts_itself_and_begins_the_wait_anew() -> None:
    before = known(last_told_at=NOON - 8 * DAY, reminders=2)
    (reminded,) = follow([before], look("a")).reminded
    assert (reminded.reminders, reminded.last_told_at) == (3, NOON)
    assert reminded.first_seen_at == before.first_seen_at
    assert fate(follow([reminded], look("a", at=NOON + 6 * DAY))) == "seen"
    assert fate(follow([reminded], look("a", at=NOON + 7 * DAY))) == "reminded"


def test_a_violation_that_comes_back_is_another_occurrence_from_its_start() -> None:
    (ended,) = follow([known(reminders=3)], look()).resolved
    assert ended.resolved_at == NOON - HOUR
    (begun,) = follow([ended], look("a", at=NOON + DAY)).new
    assert (begun.occurrence, begun.reminders, begun.resolved_at) == (2, 0, None)
    assert begun.first_seen_at == NOON + DAY - HOUR


def test_an_occurrence_remembers_its_newest_version_and_its_widest_scan() -> None:
    newer = pack("a", version="2026.10")
    (violation,) = follow([], look("a", pack=newer)).new
    (violation,) = follow([violation], look("a", mode="quick", pack=pack("a"))).seen
    assert violation.sighting.rule_pack_version == "2026.10"
    assert fate(follow([violation], look(pack=pack("a")))) == "untouched"
    assert fate(follow([violation], look(mode="quick", pack=newer))) == "untouched"
    assert fate(follow([violation], look(pack=newer))) == "resolved"


def test_violations_of_one_scan_are_followed_each_by_itself() -> None:
    before = [known("a"), known("b"), known("d", resolved_at=NOON)]
    changes = follow(before, look("b", "c", "d", pack=pack("a", "b", "c", "d")))
    assert [item.sighting.rule_id for item in changes.new] == ["d", "c"]
    assert [item.sighting.rule_id for item in changes.seen] == ["b"]
    assert [item.sighting.rule_id for item in changes.resolved] == ["a"]


def test_a_fingerprint_is_that_of_domain_and_rule() -> None:
    prints = {fingerprint_of(domain, rule) for domain in ("x", "y") for rule in ("a", "b")}
    assert len(prints) == 4
    assert known("a").fingerprint == fingerprint_of(DOMAIN, "a")
    assert all(len(item) == 64 for item in prints)


# News

RUN = Run(
    run_id="run-1",
    attempt=1,
    state=RunState.DISPATCHED,
    formats=(),
    inputs=FrozenInputs(language="de", rule_pack="eu-baseline"),
    scan_id=SCAN_ID,
    event_pk=1,
    event_type=EventType.SCAN_COMPLETED,
    source="",
    event_id="event-1",
    subject=DOMAIN,
    user_id=None,
    occurred_at=NOON,
    dataref=None,
    traceparent="00-aa-bb-01",
    data=b"{}",
    data_sha256="",
    superseded=False,
)


def told(changes: Changes) -> dict[str, Any]:
    """News by variant."""
    news = derive_violations(RUN, changes, ())
    for item in news:
        assert set(item.values) == set(VARIANTS[item.variant])
        assert {fact.label for fact in item.facts} <= FACTS.keys()
        assert item.type is EventType.COMPLIANCE_VIOLATION
        assert item.event_key.startswith(f"compliance.violation:{DOMAIN}:")
        assert item.traceparent == "00-aa-bb-01"
    return {item.variant: item for item in news}


def test_nothing_is_told_where_nothing_began_or_ended() -> None:
    assert told(Changes(seen=(known(),))) == {}


def test_several_new_violations_are_one_message_worst_first() -> None:
    mild = known("b", severity=Severity.MEDIUM, count=3)
    news = told(Changes(new=(mild, known("a", count=2))))["compliance.violation"]
    assert [item.rule_id for item in news.findings] == ["a", "b"]
    assert [item.title for item in news.findings] == ["English a", "English b"]
    assert news.severity is Severity.HIGH
    assert news.values == {"domain": DOMAIN, "rules": 2, "evidence": 5}
    assert news.title == "Consent findings on shop.example: 2 rules"
    assert news.summary.startswith("5 pieces of evidence")


def test_a_reminder_says_since_when() -> None:
    old = known("a", first_seen_at=NOON - 40 * DAY, reminders=1)
    news = told(Changes(reminded=(known("b", reminders=1), old)))["compliance.violation.reminder"]
    assert news.values == {"domain": DOMAIN, "rules": 2, "evidence": 2, "since": "2026-01-23"}
    assert news.severity is Severity.HIGH
    assert news.title == "Consent findings still on shop.example: 2 rules"


def test_an_end_is_told_for_information() -> None:
    news = told(Changes(resolved=(known(),)))["compliance.violation.resolved"]
    assert news.severity is Severity.INFO
    assert news.title == "Consent findings gone from shop.example: 1 rule"
    assert [item.rule_id for item in news.findings] == ["a"]


def test_a_message_of_violations_lists_a_bounded_number_of_them() -> None:
    many = tuple(known(f"r{number:03}") for number in range(50))
    news = told(Changes(new=many))["compliance.violation"]
    assert len(news.findings) == MAX_FINDINGS
    assert news.values["rules"] == 50


def test_braces_in_a_domain_are_no_placeholders() -> None:
    news = derive_violations(RUN, Changes(new=(known(domain="{evidence}"),)), ())
    assert news[0].title == "Consent findings on {evidence}: 1 rule"


def key(*violations: Violation, kind: str = "new") -> str:
    (news,) = derive_violations(RUN, Changes(**{kind: violations}), ())
    return str(news.event_key)


def test_an_event_key_names_the_violations_with_their_occurrence_and_reminder() -> None:
    a, b = known("a"), known("b")
    assert key(a, b) == key(b, a), "order does not count"
    assert key(a) == key(change(a, last_seen_at=NOON, last_told_at=NOON)), "nor when"
    keys = [
        key(a),
        key(b),
        key(a, b),
        key(change(a, occurrence=2)),
        key(change(a, domain="other.example")),
        key(a, kind="resolved"),
        key(change(a, occurrence=2), kind="resolved"),
        key(change(a, reminders=1), kind="reminded"),
        key(change(a, reminders=2), kind="reminded"),
        key(change(a, reminders=1, occurrence=2), kind="reminded"),
    ]
    assert len(set(keys)) == len(keys)


# Any history

RULES = ("a", "b", "c")
looks = st.tuples(
    st.sets(st.sampled_from(RULES)),
    st.sampled_from(["quick", "deep", None]),
    st.sampled_from(["2026.1", "2026.2"]),
    st.integers(0, 10),
)


@settings(deadline=None, max_examples=300)
@given(st.lists(looks, max_size=25))
def test_no_occurrence_is_ever_told_twice_and_none_is_missed(
    history: list[tuple[set[str], str | None, str, int]],
) -> None:
    ledger: dict[str, Violation] = {}
    keys: list[str] = []
    now = NOON
    for found, mode, version, days in history:
        now += HOUR + days * DAY
        was_open = {rule for rule, item in ledger.items() if item.resolved_at is None}
        seen = look(*sorted(found), at=now, mode=mode, pack=pack(*RULES, version=version))
        changes = follow(ledger.values(), seen)
        keys += [news.event_key for news in derive_violations(RUN, changes, ())]
        ledger |= {item.sighting.rule_id: item for item in changes.all}

        assert {item.sighting.rule_id for item in changes.new} == found - was_open
        assert {item.sighting.rule_id for item in changes.resolved} <= was_open - found
        again = changes.seen + changes.reminded
        assert {item.sighting.rule_id for item in again} == was_open & found
        assert {rule for rule, item in ledger.items() if item.resolved_at is None} >= found
    assert len(keys) == len(set(keys))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.sets(st.sampled_from(RULES)), st.integers(0, 10)), max_size=25))
def test_by_one_kind_of_scan_a_violation_is_open_exactly_while_it_is_found(
    history: list[tuple[set[str], int]],
) -> None:
    ledger: dict[str, Violation] = {}
    begun = dict.fromkeys(RULES, 0)
    last: set[str] = set()
    told_at: dict[str, datetime] = {}
    now = NOON
    for found, days in history:
        now += HOUR + days * DAY
        changes = follow(ledger.values(), look(*sorted(found), at=now))
        ledger |= {item.sighting.rule_id: item for item in changes.all}
        for rule in found - last:
            begun[rule] += 1
        due = {rule for rule in found & last if now - told_at[rule] >= 7 * DAY}
        assert {item.sighting.rule_id for item in changes.reminded} == due
        assert {item.sighting.rule_id for item in changes.resolved} == last - found
        told_at |= dict.fromkeys((found - last) | due, now)
        last = found
        assert {rule: item.occurrence for rule, item in ledger.items()} == {
            rule: count for rule, count in begun.items() if count
        }

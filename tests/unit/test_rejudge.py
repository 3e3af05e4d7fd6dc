"""What changes by law and what by the site: the comparison, and judging recorded scans again."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from compliance.assess import Bounds, assess
from compliance.judging import MAX_EVIDENCE
from compliance.rejudge import ChangeKind, LawSummary, compare_judgements, compare_scans
from compliance.rules import PACKS, RulePack, decode_pack, load_pack
from schemas.reports import Report, Severity
from schemas.scans import decode_scan
from store import tables
from store.recorded_scans import Selection
from store.runs import load_run
from tasks import rejudge as rejudging
from tasks.rejudge import Rejudged, Skipped, rejudge
from tasks.reports import assessed_report

BASELINE = load_pack("eu-baseline")
BOUNDS = Bounds(max_cookies=1000, max_string_bytes=8192)
LATEST = Selection()
EVERY = Selection(every=True)


def pack_of(**rules: dict[str, Any] | None) -> RulePack:
    """The shipped pack as acme 2026.2, with rules changed by the last part of their id."""
    pack = json.loads((PACKS / "eu-baseline-2026.1.json").read_bytes())
    kept = []
    for rule in pack["rules"]:
        change = rules.get(rule["id"].rpartition(".")[2].replace("-", "_"), {})
        if change is not None:
            kept.append({**rule, **change})
    raw = {**pack, "id": "acme", "version": "2026.2", "rules": kept}
    return decode_pack(json.dumps(raw).encode(), path="acme")


SESSION = {"when": {"type": "session"}}
STRICTER = pack_of(
    advertising_before_choice=None,
    third_party_before_choice={"severity": "medium"},
    necessary_session_readable=SESSION,
    incomplete_description={"when": {"type": "missing", "field": "purpose"}},
)


def judged(
    data: bytes, pack: RulePack, previous: bytes | None = None, language: str = "en"
) -> Report:
    return assess(
        decode_scan(data),
        scan_sha256=str(hash(data)),
        pack=pack,
        previous=None if previous is None else decode_scan(previous),
        language=language,
        bounds=BOUNDS,
    )


# The comparison


def test_each_way_in_which_a_rule_can_change_is_told(make_scan: Callable[..., bytes]) -> None:
    data = make_scan()
    change = compare_judgements(judged(data, BASELINE), judged(data, STRICTER))
    told = {
        pair.rule_id: (
            pair.kinds,
            (pair.severity_before, pair.severity_after),
            (pair.count_before, pair.count_after),
        )
        for pair in change.findings
    }
    low, medium, high = Severity.LOW, Severity.MEDIUM, Severity.HIGH
    assert told == {
        "consent.advertising-before-choice": ((ChangeKind.VANISHED,), (high, None), (1, 0)),
        "consent.third-party-before-choice": ((ChangeKind.SEVERITY,), (high, medium), (1, 1)),
        "security.necessary-session-readable": ((ChangeKind.APPEARED,), (None, low), (0, 1)),
        "transparency.incomplete-description": ((), (low, low), (2, 2)),
    }
    assert (change.score_before, change.score_after, change.points) == (89, 95, 6)
    assert "transparency.incomplete-description" not in {pair.rule_id for pair in change.changed}


def test_a_count_that_differs_is_told_with_a_severity_that_does(
    make_scan: Callable[..., bytes],
) -> None:
    looser = {"severity": "info", "when": {"type": "category", "any_of": ["necessary"]}}
    data = make_scan()
    change = compare_judgements(
        judged(data, BASELINE), judged(data, pack_of(incomplete_description=looser))
    )
    (pair,) = change.changed
    assert pair.kinds == (ChangeKind.SEVERITY, ChangeKind.COUNT)
    assert (pair.count_before, pair.count_after) == (2, 1)


def test_as_many_cookies_but_others_are_a_change(make_scan: Callable[..., bytes]) -> None:
    necessary = {"when": {"type": "category", "any_of": ["necessary"]}}
    data = make_scan()
    change = compare_judgements(
        judged(data, BASELINE), judged(data, pack_of(advertising_before_choice=necessary))
    )
    (pair,) = change.changed
    assert (pair.rule_id, pair.kinds) == (
        "consent.advertising-before-choice",
        (ChangeKind.EVIDENCE,),
    )
    assert change.points == 0


def test_the_same_pack_changes_nothing(make_scan: Callable[..., bytes]) -> None:
    change = compare_judgements(judged(make_scan(), BASELINE), judged(make_scan(), BASELINE))
    assert change.changed == ()
    assert change.points == 0


def test_a_held_score_stays_held_and_changes_by_no_points(make_scan: Callable[..., bytes]) -> None:
    data = make_scan(status="failed")
    change = compare_judgements(judged(data, BASELINE), judged(data, STRICTER))
    assert (change.score_before, change.score_after, change.points) == (None, None, None)
    assert change.changed


def test_judgements_of_two_scans_are_not_compared_by_law(make_scan: Callable[..., bytes]) -> None:
    one, other = judged(make_scan(1), BASELINE), judged(make_scan(2), BASELINE)
    with pytest.raises(ValueError, match="the same scan"):
        compare_judgements(one, other)
    resent = judged(make_scan(1, cookies=[]), BASELINE)
    with pytest.raises(ValueError, match="the same scan"):
        compare_judgements(one, resent)
    elsewhere = judged(make_scan(1), BASELINE, previous=make_scan(0))
    with pytest.raises(ValueError, match="the same scan"):
        compare_judgements(one, elsewhere)


def test_scans_are_compared_by_site_under_one_pack_alone(make_scan: Callable[..., bytes]) -> None:
    before, now = judged(make_scan(1), BASELINE), judged(make_scan(2, cookies=[]), BASELINE)
    change = compare_scans(before, now)
    assert {pair.kinds for pair in change.findings} == {(ChangeKind.VANISHED,)}
    with pytest.raises(ValueError, match="one domain, judged by one pack"):
        compare_scans(before, judged(make_scan(2), STRICTER))
    with pytest.raises(ValueError, match="one domain, judged by one pack"):
        compare_scans(before, judged(make_scan(2, domain="other.example"), BASELINE))


def test_the_same_cookies_in_another_order_are_no_change_by_site(
    make_scan: Callable[..., bytes],
) -> None:
    scan = json.loads(make_scan(2))
    scan["cookies"].reverse()
    change = compare_scans(
        judged(make_scan(1), BASELINE), judged(json.dumps(scan).encode(), BASELINE)
    )
    assert change.changed == ()


def test_another_language_of_the_report_is_no_change_and_other_keys_beyond_the_evidence_are(
    make_scan: Callable[..., bytes],
) -> None:
    def keys(last: str) -> bytes:
        names = [f"key-{number}" for number in range(MAX_EVIDENCE + 5)]
        return make_scan(storages={"localStorage": dict.fromkeys([*names, last], "v")})

    before, french = judged(keys("a"), BASELINE), judged(keys("a"), BASELINE, language="fr")
    assert before.findings[0].title != french.findings[0].title
    assert compare_scans(before, french).changed == ()
    changed = compare_scans(before, judged(keys("b"), BASELINE)).changed
    assert [(pair.rule_id, pair.kinds) for pair in changed] == [
        ("storage.keys-present", (ChangeKind.EVIDENCE,))
    ]


def test_a_summary_adds_up_scans_rules_and_points(make_scan: Callable[..., bytes]) -> None:
    summary = LawSummary()
    assert summary.mean is None
    for data in (make_scan(1), make_scan(2, cookies=[]), make_scan(3, status="failed")):
        summary.add(compare_judgements(judged(data, BASELINE), judged(data, STRICTER)))
    assert (summary.scans, summary.changed, summary.rescored, summary.scored) == (3, 2, 1, 2)
    assert summary.mean == 3.0
    assert summary.rules["consent.advertising-before-choice"] == {ChangeKind.VANISHED: 2}


# Recorded scans


@pytest.fixture
def again(parts: Any) -> Callable[..., list[Any]]:
    """Judge what is recorded again."""

    def again(selection: Selection = LATEST, *, by_site: bool = False) -> list[Any]:
        return list(rejudge(parts.ledger, parts.settings, STRICTER, selection, by_site=by_site))

    return again


def test_what_is_shown_equals_what_the_reports_say(
    parts: Any, record: Any, make_scan: Any, monkeypatch: pytest.MonkeyPatch, again: Any
) -> None:
    seen: list[Report] = []

    def keep(before: Report, after: Report) -> Any:
        seen.extend((before, after))
        return compare_judgements(before, after)

    record(parts, make_scan(1))
    ticket = record(parts, make_scan(2, cookies=[]))
    monkeypatch.setattr(rejudging, "compare_judgements", keep)
    (judged_again,) = again()
    with parts.ledger.read() as connection:
        run = load_run(connection, ticket.run_id)
    was, now = seen
    assert was == assessed_report(parts, run)
    assert (now.identity.rule_pack, now.identity.rule_pack_version) == ("acme", "2026.2")
    assert now.drift == was.drift
    assert now.drift.compared_with is not None
    assert judged_again.judged_by == "eu-baseline-2026.1"
    assert judged_again.law == compare_judgements(was, now)


def test_a_change_by_law_and_one_by_the_site_are_told_apart(
    parts: Any, record: Any, make_scan: Any, again: Any
) -> None:
    cookies = json.loads(make_scan())["cookies"]
    record(parts, make_scan(1, cookies=cookies[:1]))
    record(parts, make_scan(2, cookies=cookies))
    (found,) = again(by_site=True)
    law = {pair.rule_id: pair.kinds for pair in found.law.changed}
    site = {pair.rule_id: pair.kinds for pair in found.site.changed}
    # The new cookie is the site's doing, and so is no change by law; what the new pack dropped
    # is missing from both scans, and so is no change by the site.
    assert law["consent.advertising-before-choice"] == (ChangeKind.VANISHED,)
    assert "consent.advertising-before-choice" not in site
    assert site["transparency.incomplete-description"] == (ChangeKind.COUNT,)
    assert "transparency.incomplete-description" not in law


def test_the_scan_before_is_judged_with_its_own_scan_before(
    parts: Any, record: Any, make_scan: Any, again: Any
) -> None:
    cookie = json.loads(make_scan())["cookies"][0]
    many = [{**cookie, "name": f"c{number}"} for number in range(12)]
    record(parts, make_scan(1, cookies=many, status="failed"))
    for number in (2, 3):
        record(parts, make_scan(number, cookies=many[:2], status="failed"))
    (found,) = again(by_site=True)
    assert found.site.score_before is None
    assert len(found.site.changed) == 0, "nothing to be trusted before: the one before it"


def test_a_scan_is_set_beside_the_last_one_that_can_be_trusted(
    parts: Any, record: Any, make_scan: Any, again: Any
) -> None:
    cookie = json.loads(make_scan())["cookies"][0]
    many = [{**cookie, "name": f"c{number}"} for number in range(12)]
    for number, cookies in enumerate((many, many[:2], many), 1):
        record(parts, make_scan(number, cookies=cookies))
    (found,) = again(by_site=True)
    assert found.site.score_before is not None
    assert found.site.changed == (), "the same site as two scans before"


def test_without_a_scan_before_nothing_is_said_of_the_site(
    parts: Any, record: Any, make_scan: Any, again: Any
) -> None:
    record(parts, make_scan())
    (found,) = again(by_site=True)
    assert isinstance(found, Rejudged)
    assert found.site is None


def test_a_scan_is_judged_before_by_the_pack_that_its_run_froze(
    make_parts: Any, record: Any, make_scan: Any, tmp_path: Path
) -> None:
    (tmp_path / "acme-2026.2.json").write_bytes(msgspec.json.encode(STRICTER))
    record(make_parts(), make_scan(1))
    parts = make_parts(rule_pack="acme", rule_packs_dir=tmp_path)
    record(parts, make_scan(2))
    found = list(rejudge(parts.ledger, parts.settings, BASELINE, EVERY, by_site=False))
    assert [item.judged_by for item in found] == ["eu-baseline-2026.1", "acme-2026.2"]
    assert found[0].law.changed == ()
    assert found[1].law.points == -6


def test_publishing_a_recorded_scan_under_another_id_judges_it_by_the_new_pack(
    make_parts: Any, record: Any, make_scan: Any, tmp_path: Path
) -> None:
    (tmp_path / "acme-2026.2.json").write_bytes(msgspec.json.encode(STRICTER))
    record(make_parts(), make_scan(1))
    parts = make_parts(rule_pack="acme", rule_packs_dir=tmp_path)
    ticket = record(parts, make_scan(1), id="again-1")
    with parts.ledger.read() as connection:
        run = load_run(connection, ticket.run_id)
    assert not run.superseded
    report = assessed_report(parts, run)
    assert (report.identity.rule_pack, report.identity.rule_pack_version) == ("acme", "2026.2")


def test_a_scan_whose_data_is_gone_or_whose_pack_is_unknown_is_skipped_and_says_why(
    parts: Any, record: Any, make_scan: Any, again: Any
) -> None:
    for number, domain in enumerate(("a.example", "b.example", "c.example"), 1):
        record(parts, make_scan(number, domain=domain))
    with parts.ledger.write() as connection:
        connection.execute(
            update(tables.events).where(tables.events.c.subject == "a.example").values(payload=None)
        )
        connection.execute(
            update(tables.runs)
            .where(tables.runs.c.event_pk == 2)
            .values(inputs={"language": "en", "rule_pack": "eu-baseline-2019.1"})
        )
    gone, unknown, sound = again()
    assert isinstance(gone, Skipped)
    assert gone.reason == "its data has been deleted"
    assert isinstance(unknown, Skipped)
    assert "it was judged by eu-baseline-2019.1: " in unknown.reason
    assert "is not known; known packs: eu-baseline" in unknown.reason
    assert isinstance(sound, Rejudged)


def test_a_scan_that_breaks_our_judgement_does_not_end_the_walk(
    parts: Any, record: Any, make_scan: Any, again: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fragile(scan: Any, **inputs: Any) -> Report:
        if scan.domain == "a.example":
            raise RecursionError("too deep")
        return assess(scan, **inputs)

    record(parts, make_scan(1, domain="a.example"))
    record(parts, make_scan(2, domain="b.example"))
    monkeypatch.setattr(rejudging, "assess", fragile)
    broken, sound = again()
    assert broken.reason == "it cannot be judged: RecursionError"
    assert isinstance(sound, Rejudged)


def test_judging_again_writes_nothing(
    parts: Any, record: Any, make_scan: Any, again: Any, rows: Any, clock: Any
) -> None:
    record(parts, make_scan(1))
    record(parts, make_scan(2))

    def everything() -> dict[str, Any]:
        return {name: rows(parts, name) for name in tables.metadata.tables}

    before = everything()
    clock.forward(timedelta(hours=1).total_seconds())
    assert len(again(EVERY, by_site=True)) == 2
    assert everything() == before

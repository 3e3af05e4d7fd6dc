"""From a settled run to what there is to tell."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from schemas.events import PUBLISHED, EventType
from schemas.notifications import ArtifactLink
from schemas.reports import CookieRef, Drift, Finding, HistoryPoint, Report, Severity
from schemas.runs import FrozenInputs, Run, RunState
from schemas.scans import CUT_MARK, decode_scan
from schemas.settings import load_settings
from tasks.derive import (
    MAX_FINDINGS,
    MAX_TEXT_BYTES,
    bounded,
    derive_from_event,
    derive_from_report,
    derive_without_report,
)

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
LINK = ArtifactLink(format="pdf", uri="/r.pdf", size_bytes=1, sha256="0" * 64)


@pytest.fixture
def settings(clean_environment: None) -> Any:
    return load_settings(anomaly_added_cookies=3, anomaly_score_drop=10, data_dir="unused")


@pytest.fixture
def report(make_scan: Any) -> Report:
    """Judged from a scan; findings and drift are the tests' own."""
    judged = assess(
        decode_scan(make_scan()),
        scan_sha256="0" * 64,
        pack=load_pack("eu-baseline"),
        bounds=Bounds(100, 8192),
    )
    return change(judged, findings=())


def change(model: Any, **values: Any) -> Any:
    return msgspec.structs.replace(model, **values)


def run(**values: Any) -> Run:
    known: dict[str, Any] = {
        "run_id": "run-1",
        "attempt": 1,
        "state": RunState.DISPATCHED,
        "formats": (),
        "inputs": FrozenInputs(language="en", rule_pack="eu-baseline"),
        "scan_id": "scan-1",
        "event_pk": 1,
        "event_type": EventType.SCAN_COMPLETED,
        "source": "",
        "event_id": "event-1",
        "subject": "shop.example",
        "user_id": None,
        "occurred_at": NOON,
        "dataref": None,
        "traceparent": "00-aa-bb-01",
        "data": b"{}",
        "data_sha256": "",
        "superseded": False,
    }
    return Run(**{**known, **values})


def finding(rule_id: str, severity: Severity = Severity.HIGH, count: int = 1) -> Finding:
    return Finding(
        rule_id=rule_id,
        severity=severity,
        title=f"title of {rule_id}",
        explanation="",
        action="",
        source="",
        source_url=None,
        scope=None,
        count=count,
        evidence=(),
    )


def told(report: Report, settings: Any, **options: Any) -> dict[EventType, Any]:
    notifications = derive_from_report(
        run(), report, options.get("artifacts", ()), options.get("missing", ()), settings
    )
    assert len({item.event_key for item in notifications}) == len(notifications)
    return {item.type: item for item in notifications}


def test_a_quiet_scan_tells_that_it_is_complete_and_nothing_else(
    report: Report, settings: Any
) -> None:
    found = told(report, settings, artifacts=(LINK,))
    assert list(found) == [EventType.SCAN_COMPLETED]
    completed = found[EventType.SCAN_COMPLETED]
    assert completed.event_key == f"scan.completed:{report.identity.scan_id}"
    assert completed.severity is Severity.INFO
    assert completed.artifacts == (LINK,)
    assert completed.traceparent == "00-aa-bb-01"
    assert completed.occurred_at == NOON


def test_missing_formats_are_named(report: Report, settings: Any) -> None:
    found = told(report, settings, missing=("pdf", "csv"))
    assert found[EventType.SCAN_COMPLETED].missing_formats == ("pdf", "csv")


def test_the_score_is_told_in_title_and_facts(report: Report, settings: Any) -> None:
    known = change(report, score=change(report.score, value=71))
    completed = told(known, settings)[EventType.SCAN_COMPLETED]
    assert completed.title == "Scan of shop.example finished: score 71"
    assert {fact.label: fact.value for fact in completed.facts}["Score"] == "71 of 100"


def test_a_held_score_is_told_as_held(report: Report, settings: Any) -> None:
    held = change(report, score=change(report.score, value=None), inconclusive=True)
    completed = told(held, settings)[EventType.SCAN_COMPLETED]
    assert completed.title == "Scan of shop.example finished: inconclusive, score held"
    assert {fact.label: fact.value for fact in completed.facts}["Score"] == "held: inconclusive"


def test_what_changed_since_the_scan_before_is_a_fact_only_where_there_was_one(
    report: Report, settings: Any
) -> None:
    label = "Since the scan before"
    first = told(report, settings)[EventType.SCAN_COMPLETED]
    assert label not in {fact.label for fact in first.facts}
    changed = change(report, drift=drift(added=2, removed=1))
    later = told(changed, settings)[EventType.SCAN_COMPLETED]
    assert {fact.label: fact.value for fact in later.facts}[label] == "2 new, 1 gone, 0 changed"


def test_serious_findings_make_one_violation_with_the_worst_severity(
    report: Report, clean_environment: None
) -> None:
    settings = load_settings(violation_severity="medium", data_dir="unused")
    findings = (
        finding("a", Severity.HIGH, 2),
        finding("b", Severity.MEDIUM, 3),
        finding("c", Severity.LOW),
    )
    violation = told(change(report, findings=findings), settings)[EventType.COMPLIANCE_VIOLATION]
    assert violation.severity is Severity.HIGH
    assert [item.rule_id for item in violation.findings] == ["a", "b"]
    assert violation.title == "Consent findings on shop.example: 2 rules"
    assert violation.summary.startswith("5 pieces of evidence")


def test_findings_below_the_threshold_make_no_violation(report: Report, settings: Any) -> None:
    mild = change(report, findings=(finding("a", Severity.MEDIUM),))
    found = told(mild, settings)
    assert EventType.COMPLIANCE_VIOLATION not in found
    assert found[EventType.SCAN_COMPLETED].severity is Severity.MEDIUM


def violation_key(report: Report, settings: Any, *rules: str, count: int = 1) -> str:
    findings = tuple(finding(rule, count=count) for rule in rules)
    key = told(change(report, findings=findings), settings)[EventType.COMPLIANCE_VIOLATION]
    return str(key.event_key)


def test_a_violations_key_names_the_domain_and_the_set_of_rules_alone(
    report: Report, settings: Any
) -> None:
    key = violation_key(report, settings, "a", "b")
    assert key.startswith("compliance.violation:shop.example:")
    assert key == violation_key(report, settings, "b", "a"), "order does not count"
    assert key == violation_key(report, settings, "a", "b", count=9), "nor how much evidence"
    other_scan = change(report, identity=change(report.identity, scan_id="another"))
    assert key == violation_key(other_scan, settings, "a", "b"), "nor which scan"


def test_another_set_of_rules_or_another_domain_is_another_violation(
    report: Report, settings: Any
) -> None:
    elsewhere = change(report, identity=change(report.identity, domain="b.example"))
    keys = {
        violation_key(report, settings, "a", "b"),
        violation_key(report, settings, "a"),
        violation_key(report, settings, "a", "b", "c"),
        violation_key(elsewhere, settings, "a", "b"),
    }
    assert len(keys) == 4


def drift(added: int = 0, removed: int = 0) -> Drift:
    refs = tuple(CookieRef(name=f"c{n}", domain="d", path="/") for n in range(max(added, removed)))
    return Drift(
        compared_with="scan-0",
        compared_finished_at=NOON,
        added=refs[:added],
        removed=refs[:removed],
        changed=(),
    )


def history(*scores: int | None) -> tuple[HistoryPoint, ...]:
    return tuple(
        HistoryPoint(scan_id=f"s{n}", finished_at=NOON + timedelta(days=n), score=score)
        for n, score in enumerate(scores)
    )


@pytest.mark.parametrize(("added", "odd"), [(2, False), (3, True)])
def test_many_new_cookies_are_an_anomaly(
    report: Report, settings: Any, added: int, odd: bool
) -> None:
    found = told(change(report, drift=drift(added=added)), settings)
    assert (EventType.ANOMALY_DETECTED in found) is odd


def test_a_first_scan_is_no_anomaly_however_many_cookies_it_has(
    report: Report, settings: Any
) -> None:
    first = change(report, drift=change(drift(added=50), compared_with=None))
    assert EventType.ANOMALY_DETECTED not in told(first, settings)


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
def test_a_fall_of_the_score_is_an_anomaly(
    report: Report, settings: Any, before: tuple[int | None, ...], now: int | None, odd: bool
) -> None:
    later = change(report, score=change(report.score, value=now), history=history(*before))
    found = told(later, settings)
    assert (EventType.ANOMALY_DETECTED in found) is odd
    if odd:
        anomaly = found[EventType.ANOMALY_DETECTED]
        assert anomaly.event_key == f"anomaly.detected:{report.identity.scan_id}"
        assert [fact.value for fact in anomaly.facts] == ["80 → 70"]


def test_a_message_lists_a_bounded_number_of_findings(report: Report, settings: Any) -> None:
    many = change(report, findings=tuple(finding(f"r{n:03}") for n in range(50)))
    for notification in told(many, settings).values():
        assert len(notification.findings) == MAX_FINDINGS


def test_a_scan_that_cannot_be_judged_is_told_with_its_reason() -> None:
    (notification,) = derive_without_report(run(), ("pdf",), "x" * 5000)
    assert notification.event_key == "scan.completed:scan-1"
    assert notification.title == "Scan of shop.example finished, but could not be judged"
    assert notification.missing_formats == ("pdf",)
    assert len(notification.summary.encode()) <= MAX_TEXT_BYTES


@pytest.mark.parametrize("kind", [kind for kind in PUBLISHED if kind != EventType.SCAN_COMPLETED])
def test_every_event_a_scanner_makes_is_told_as_it_came(kind: EventType) -> None:
    data = b'{"scan_id":"scan-7","error":"DNS","n":3}'
    (notification,) = derive_from_event(run(event_type=kind, data=data))
    assert notification.type is kind
    assert notification.scan_id == "scan-7"
    assert notification.summary == "DNS"
    assert notification.title.endswith(" for shop.example")
    assert notification.data == {"scan_id": "scan-7", "error": "DNS", "n": 3}


def test_an_events_key_is_its_identity_of_source_and_id() -> None:
    def key(**values: Any) -> str:
        return derive_from_event(run(event_type=EventType.SCAN_FAILED, **values))[0].event_key

    assert key().startswith("scan.failed:")
    assert key() == key(run_id="another run", data=b'{"error":"told otherwise"}')
    assert len({key(), key(event_id="2"), key(source="s"), key(source="s", event_id="2")}) == 4


def test_an_event_without_data_or_domain_is_told_too() -> None:
    (notification,) = derive_from_event(
        run(event_type=EventType.SCHEDULE_FAILED, data=b"", subject=None)
    )
    assert (notification.title, notification.summary) == ("Schedule failed", "")
    assert notification.data == {}


def test_an_events_data_is_bounded_to_its_first_plain_values() -> None:
    kept = bounded(
        {
            "long": "é" * 5000,
            "k" * 5000: 1,
            "nested": {"a": 1},
            "listed": [1],
            "null": None,
            "yes": True,
            **{f"n{n}": n for n in range(100)},
        }
    )
    assert len(kept) <= 20
    assert kept["long"].endswith(CUT_MARK)
    assert len(kept["long"].encode()) <= MAX_TEXT_BYTES
    assert all(len(key.encode()) <= 100 for key in kept)
    assert "nested" not in kept
    assert "listed" not in kept
    assert kept["null"] is None
    assert kept["yes"] is True


def test_half_of_a_surrogate_pair_does_not_keep_an_event_from_being_told() -> None:
    assert msgspec.json.encode(bounded({"a\ud800": "b\udfff"})) == b'{"a?":"b?"}'

"""From a settled run to what there is to tell."""

from __future__ import annotations

import ast
import inspect
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from schemas.events import PUBLISHED, EventType
from schemas.notifications import FACTS, VALUES, VARIANTS, ArtifactLink, Fact
from schemas.reports import CookieRef, Drift, Finding, Report, Severity
from schemas.runs import FrozenInputs, Run, RunState
from schemas.scans import CUT_MARK, decode_scan
from tasks import alerts
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
PACK = load_pack("eu-baseline")


@pytest.fixture
def report(make_scan: Any) -> Report:
    """Judged from a scan; findings and drift are the tests' own."""
    judged = assess(
        decode_scan(make_scan()),
        scan_sha256="0" * 64,
        pack=PACK,
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


def told(report: Report, **options: Any) -> dict[EventType, Any]:
    notifications = derive_from_report(
        run(),
        report,
        PACK,
        options.get("artifacts", ()),
        options.get("missing", ()),
        options.get("oddities", ()),
    )
    assert len({item.event_key for item in notifications}) == len(notifications)
    for notification in notifications:
        speaks_of_the_table(notification)
    return {item.type: item for item in notifications}


def speaks_of_the_table(notification: Any) -> None:
    """The texts in four languages are written for these variants, values and facts."""
    assert tuple(sorted(notification.values)) == tuple(sorted(VARIANTS[notification.variant]))
    assert notification.variant.startswith(notification.type.value)
    assert {fact.label for fact in notification.facts} <= FACTS.keys()


def facts(notification: Any) -> dict[str, str]:
    return {fact.label: fact.value for fact in notification.facts}


def test_a_quiet_scan_tells_that_it_is_complete_and_nothing_else(report: Report) -> None:
    found = told(report, artifacts=(LINK,))
    assert list(found) == [EventType.SCAN_COMPLETED]
    completed = found[EventType.SCAN_COMPLETED]
    assert completed.event_key == f"scan.completed:{report.identity.scan_id}"
    assert completed.severity is Severity.INFO
    assert completed.artifacts == (LINK,)
    assert completed.traceparent == "00-aa-bb-01"
    assert completed.occurred_at == NOON


def test_missing_formats_are_named(report: Report) -> None:
    found = told(report, missing=("pdf", "csv"))
    assert found[EventType.SCAN_COMPLETED].missing_formats == ("pdf", "csv")


def test_the_score_is_told_in_title_values_and_facts(report: Report) -> None:
    known = change(report, score=change(report.score, value=71))
    completed = told(known)[EventType.SCAN_COMPLETED]
    assert completed.title == "Scan of shop.example finished: score 71"
    assert completed.variant == "scan.completed"
    assert completed.values == {
        "domain": "shop.example",
        "score": 71,
        "cookies": 2,
        "before_consent": 2,
        "findings": 0,
    }
    assert facts(completed)["score"] == "71"


def test_a_held_score_is_told_as_held(report: Report) -> None:
    held = change(report, score=change(report.score, value=None), inconclusive=True)
    completed = told(held)[EventType.SCAN_COMPLETED]
    assert completed.title == "Scan of shop.example finished: inconclusive, score held"
    assert completed.variant == "scan.completed.held"
    assert facts(completed)["score"] == "held"


def test_what_changed_since_the_scan_before_is_told_only_where_there_was_one(
    report: Report,
) -> None:
    first = facts(told(report)[EventType.SCAN_COMPLETED])
    assert not first.keys() & {"drift_added", "drift_removed", "drift_changed"}
    changed = change(report, drift=drift(added=2, removed=1))
    later = facts(told(changed)[EventType.SCAN_COMPLETED])
    drifts = ("drift_added", "drift_removed", "drift_changed")
    assert [later[name] for name in drifts] == ["2", "1", "0"]


def test_the_worst_finding_is_how_severe_a_completed_scan_is(report: Report) -> None:
    mild = change(report, findings=(finding("a", Severity.MEDIUM), finding("b", Severity.LOW)))
    found = told(mild)
    assert list(found) == [EventType.SCAN_COMPLETED]
    assert found[EventType.SCAN_COMPLETED].severity is Severity.MEDIUM


def test_findings_are_told_by_the_packs_own_titles_whatever_the_reports_language(
    make_scan: Any,
) -> None:
    german = assess(
        decode_scan(make_scan()),
        scan_sha256="0" * 64,
        pack=PACK,
        bounds=Bounds(100, 8192),
        language="de",
    )
    own = {rule.id: rule.title for rule in PACK.rules}
    completed = told(german)[EventType.SCAN_COMPLETED]
    assert completed.findings
    for item in completed.findings:
        assert item.title == own[item.rule_id]
    assert {item.title for item in completed.findings} != {item.title for item in german.findings}


def test_a_finding_of_a_rule_that_the_pack_does_not_have_keeps_the_reports_title(
    report: Report,
) -> None:
    completed = told(change(report, findings=(finding("x"),)))[EventType.SCAN_COMPLETED]
    assert [item.title for item in completed.findings] == ["title of x"]


def drift(added: int = 0, removed: int = 0) -> Drift:
    refs = tuple(CookieRef(name=f"c{n}", domain="d", path="/") for n in range(max(added, removed)))
    return Drift(
        compared_with="scan-0",
        compared_finished_at=NOON,
        skipped=0,
        added=refs[:added],
        removed=refs[:removed],
        changed=(),
    )


def test_oddities_make_one_anomaly_of_the_scan(report: Report) -> None:
    odd = (Fact(label="new_cookies", value="30"), Fact(label="score_change", value="80 → 70"))
    anomaly = told(report, oddities=odd, artifacts=(LINK,))[EventType.ANOMALY_DETECTED]
    assert anomaly.event_key == f"anomaly.detected:{report.identity.scan_id}"
    assert anomaly.facts == odd
    assert anomaly.severity is Severity.MEDIUM
    assert anomaly.artifacts == (LINK,)


def test_a_message_lists_a_bounded_number_of_findings(report: Report) -> None:
    many = change(report, findings=tuple(finding(f"r{n:03}") for n in range(50)))
    assert len(told(many)[EventType.SCAN_COMPLETED].findings) == MAX_FINDINGS


def test_a_scan_that_cannot_be_judged_is_told_with_its_reason() -> None:
    (notification,) = derive_without_report(run(), ("pdf",), "unreadable", "x" * 5000)
    assert notification.event_key == "scan.completed:scan-1"
    assert notification.title == "Scan of shop.example finished, but could not be judged"
    assert notification.missing_formats == ("pdf",)
    assert notification.variant == "scan.completed.unjudged"
    assert notification.values == {"domain": "shop.example", "reason": "unreadable"}
    assert len(notification.summary.encode()) <= MAX_TEXT_BYTES
    speaks_of_the_table(notification)


@pytest.mark.parametrize("kind", [kind for kind in PUBLISHED if kind != EventType.SCAN_COMPLETED])
def test_every_event_a_scanner_makes_is_told_as_it_came(kind: EventType) -> None:
    data = b'{"scan_id":"scan-7","error":"DNS","n":3}'
    (notification,) = derive_from_event(run(event_type=kind, data=data))
    assert notification.type is kind
    assert notification.scan_id == "scan-7"
    assert notification.summary == "DNS"
    assert notification.title.endswith(" for shop.example")
    assert notification.values == {"domain": "shop.example", "said": "DNS"}
    speaks_of_the_table(notification)
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
    assert notification.values == {"domain": "", "said": ""}
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


def test_every_variant_is_of_a_type_and_takes_values_that_the_table_explains() -> None:
    kinds = tuple(kind.value for kind in EventType)
    for variant, names in VARIANTS.items():
        assert variant.startswith(kinds)
        assert set(names) <= VALUES.keys()
    assert VALUES.keys() == {name for names in VARIANTS.values() for name in names}


@pytest.mark.parametrize(
    ("kind", "variant"),
    [
        (EventType.COMPLIANCE_VIOLATION, "compliance.violation.reported"),
        (EventType.ANOMALY_DETECTED, "anomaly.detected.reported"),
        (EventType.SCAN_FAILED, "scan.failed"),
    ],
)
def test_what_a_scanner_reports_is_told_apart_from_what_we_found(
    kind: EventType, variant: str
) -> None:
    (notification,) = derive_from_event(run(event_type=kind))
    assert notification.variant == variant


def test_every_alert_has_a_variant_and_facts_of_the_table() -> None:
    named: dict[str, set[str]] = {"kind": set(), "label": set()}
    for node in ast.walk(ast.parse(inspect.getsource(alerts))):
        if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            named.setdefault(str(node.arg), set()).add(str(node.value.value))
    assert len(named["kind"]) >= 3
    assert {f"operator.alert.{kind}" for kind in named["kind"]} <= VARIANTS.keys()
    assert named["label"] <= FACTS.keys()

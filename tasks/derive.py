"""From a settled run to what there is to tell: pure, no clock, no ledger.

A scan makes ``scan.completed``, and ``anomaly.detected`` where it is odd; its
violations have a file of their own; any other event is told as it came.  Event
keys are derived, so the same facts are told once.  Titles and summaries are
English; people are told in their language by ``variant`` and ``values``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from compliance.rules import RulePack
from schemas.events import EventType
from schemas.notifications import ArtifactLink, Fact, FindingSummary, Notification
from schemas.reports import Report, Severity
from schemas.runs import Run
from schemas.scans import cut

MAX_FINDINGS = 20
"""Findings a message lists; the report has them all."""
MAX_TEXT_BYTES = 500

SEVERITY_OF = {
    EventType.SCAN_STARTED: Severity.INFO,
    EventType.SCAN_COMPLETED: Severity.INFO,
    EventType.SCAN_FAILED: Severity.MEDIUM,
    EventType.COMPLIANCE_VIOLATION: Severity.HIGH,
    EventType.ANOMALY_DETECTED: Severity.MEDIUM,
    EventType.SCHEDULE_CREATED: Severity.INFO,
    EventType.SCHEDULE_UPDATED: Severity.INFO,
    EventType.SCHEDULE_FAILED: Severity.MEDIUM,
}
"""Of events that a scanner makes."""

TITLES = {
    EventType.SCAN_STARTED: "Scan started",
    EventType.SCAN_COMPLETED: "Scan finished",
    EventType.SCAN_FAILED: "Scan failed",
    EventType.COMPLIANCE_VIOLATION: "Consent finding reported",
    EventType.ANOMALY_DETECTED: "Anomaly reported",
    EventType.SCHEDULE_CREATED: "Schedule created",
    EventType.SCHEDULE_UPDATED: "Schedule updated",
    EventType.SCHEDULE_FAILED: "Schedule failed",
}

REPORTED = {
    EventType.SCAN_COMPLETED: "scan.completed.reported",
    EventType.COMPLIANCE_VIOLATION: "compliance.violation.reported",
    EventType.ANOMALY_DETECTED: "anomaly.detected.reported",
}
"""Variants of what a scanner says and we might have derived ourselves; others are their type."""


def derive_from_report(
    run: Run,
    report: Report,
    pack: RulePack,
    artifacts: tuple[ArtifactLink, ...],
    missing: tuple[str, ...],
    oddities: Sequence[Fact] = (),
) -> list[Notification]:
    """What a judged scan has to tell beside its violations: that it came, and what is odd.

    ``pack`` is the one that judged it; its titles of findings are told, because
    those of the report are in the run's language, whoever reads the news.
    """
    told = [_completed(run, report, pack, artifacts, missing)]
    if oddities:
        told.append(_anomaly(run, report, oddities, artifacts))
    return told


def derive_without_report(
    run: Run, missing: tuple[str, ...], reason: str, said: str
) -> list[Notification]:
    """What is told of a scan that could not be judged: that it came, and what is missing.

    ``reason`` is one of REASONS, for people; ``said`` is what went wrong, in English.
    """
    return [
        Notification(
            event_key=f"{EventType.SCAN_COMPLETED}:{run.scan_id}",
            type=EventType.SCAN_COMPLETED,
            occurred_at=run.occurred_at,
            domain=run.subject,
            scan_id=run.scan_id,
            severity=Severity.MEDIUM,
            title=f"Scan of {_short(run.subject)} finished, but could not be judged",
            summary=_short(said),
            variant="scan.completed.unjudged",
            values={"domain": _short(run.subject), "reason": reason},
            missing_formats=missing,
            traceparent=run.traceparent,
        )
    ]


def derive_from_event(run: Run) -> list[Notification]:
    """An event that is not a scan result, told as it came."""
    data: dict[str, Any] = msgspec.json.decode(run.data) if run.data else {}
    domain = run.subject
    error = data.get("error") or data.get("message") or ""
    said = _short(error if isinstance(error, str) else str(error))
    about = f" for {_short(domain)}" if domain else ""
    return [
        Notification(
            event_key=f"{run.event_type}:{_digest(run.source, run.event_id)}",
            type=run.event_type,
            occurred_at=run.occurred_at,
            domain=domain,
            scan_id=_short(data["scan_id"]) if isinstance(data.get("scan_id"), str) else None,
            severity=SEVERITY_OF[run.event_type],
            title=f"{TITLES[run.event_type]}{about}",
            summary=said,
            variant=REPORTED.get(run.event_type, run.event_type.value),
            values={"domain": _short(domain), "said": said},
            data=bounded(data),
            traceparent=run.traceparent,
        )
    ]


def bounded(data: dict[str, Any]) -> dict[str, Any]:
    """The first plain values of an event's data, each cut: enough to recognise it by."""
    kept: dict[str, Any] = {}
    for key, value in list(data.items())[:20]:
        if isinstance(value, str):
            kept[whole(key, 100)] = _short(value)
        elif value is None or isinstance(value, bool | int | float):
            kept[whole(key, 100)] = value
    return kept


def whole(text: str, limit: int) -> str:
    """Bound a text to ``limit`` bytes; half of a surrogate pair, which JSON refuses, becomes ?."""
    return cut(text.encode("utf-8", "replace").decode(), limit)


def _completed(
    run: Run,
    report: Report,
    pack: RulePack,
    artifacts: tuple[ArtifactLink, ...],
    missing: tuple[str, ...],
) -> Notification:
    score, totals, found = report.score.value, report.totals, len(report.findings)
    domain = _short(report.identity.domain)
    values: dict[str, str | int | float] = {
        "domain": domain,
        "cookies": totals.cookies,
        "before_consent": totals.before_consent,
        "findings": found,
    }
    facts = {
        "score": "held" if score is None else str(score),
        "cookies": str(totals.cookies),
        "before_consent": str(totals.before_consent),
        "third_party": str(totals.third_party),
        "findings": str(found),
        "rule_pack": f"{report.identity.rule_pack} {report.identity.rule_pack_version}",
    }
    drift = report.drift
    if drift.compared_with is not None:
        facts["drift_added"] = str(len(drift.added))
        facts["drift_removed"] = str(len(drift.removed))
        facts["drift_changed"] = str(len(drift.changed))
    return Notification(
        event_key=f"{EventType.SCAN_COMPLETED}:{report.identity.scan_id}",
        type=EventType.SCAN_COMPLETED,
        occurred_at=run.occurred_at,
        domain=report.identity.domain,
        scan_id=report.identity.scan_id,
        severity=report.findings[0].severity if report.findings else Severity.INFO,
        title=f"Scan of {domain} finished: "
        + ("inconclusive, score held" if score is None else f"score {score}"),
        summary=f"{totals.cookies} cookies, {totals.before_consent} of them before "
        f"a choice, {found} findings.",
        variant="scan.completed.held" if score is None else "scan.completed",
        values=values if score is None else {**values, "score": score},
        facts=tuple(Fact(label=label, value=value) for label, value in facts.items()),
        findings=tuple(
            FindingSummary(
                rule_id=finding.rule_id,
                severity=finding.severity,
                title=pack.title_of(finding.rule_id) or finding.title,
                count=finding.count,
            )
            for finding in report.findings[:MAX_FINDINGS]
        ),
        artifacts=artifacts,
        missing_formats=missing,
        traceparent=run.traceparent,
    )


def _anomaly(
    run: Run, report: Report, oddities: Sequence[Fact], artifacts: tuple[ArtifactLink, ...]
) -> Notification:
    domain = _short(report.identity.domain)
    return Notification(
        event_key=f"{EventType.ANOMALY_DETECTED}:{report.identity.scan_id}",
        type=EventType.ANOMALY_DETECTED,
        occurred_at=run.occurred_at,
        domain=report.identity.domain,
        scan_id=report.identity.scan_id,
        severity=Severity.MEDIUM,
        title=f"Unusual change on {domain}",
        summary="The scan differs from earlier ones by more than the set thresholds.",
        variant="anomaly.detected",
        values={"domain": domain},
        facts=tuple(oddities),
        artifacts=artifacts,
        traceparent=run.traceparent,
    )


def _short(text: str | None) -> str:
    return whole(text or "", MAX_TEXT_BYTES)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

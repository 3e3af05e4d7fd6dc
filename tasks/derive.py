"""From a settled run to what there is to tell: pure, no clock, no ledger.

A scan makes ``scan.completed``, and where its report says so
``compliance.violation`` and ``anomaly.detected``; any other event is told as it
came.  Event keys are derived, so the same facts are told once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.events import EventType
from schemas.notifications import ArtifactLink, Fact, FindingSummary, Notification
from schemas.reports import Finding, Report, Severity
from schemas.runs import Run
from schemas.scans import cut
from schemas.settings import Settings

MAX_FINDINGS = 20
"""Findings a message lists; the report has them all."""
MAX_TEXT_BYTES = 500

SEVERITY_OF = {
    EventType.SCAN_STARTED: Severity.INFO,
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
    EventType.SCAN_FAILED: "Scan failed",
    EventType.COMPLIANCE_VIOLATION: "Consent finding reported",
    EventType.ANOMALY_DETECTED: "Anomaly reported",
    EventType.SCHEDULE_CREATED: "Schedule created",
    EventType.SCHEDULE_UPDATED: "Schedule updated",
    EventType.SCHEDULE_FAILED: "Schedule failed",
}


def derive_from_report(
    run: Run,
    report: Report,
    artifacts: tuple[ArtifactLink, ...],
    missing: tuple[str, ...],
    settings: Settings,
) -> list[Notification]:
    """What a judged scan has to tell."""
    told = [_completed(run, report, artifacts, missing)]
    serious = [
        finding
        for finding in report.findings
        if finding.severity.rank >= settings.violation_severity.rank
    ]
    if serious:
        told.append(_violation(run, report, serious, artifacts))
    oddities = _oddities(report, settings)
    if oddities:
        told.append(_anomaly(run, report, oddities, artifacts))
    return told


def derive_without_report(run: Run, missing: tuple[str, ...], reason: str) -> list[Notification]:
    """What is told of a scan that could not be judged: that it came, and what is missing."""
    return [
        Notification(
            event_key=f"{EventType.SCAN_COMPLETED}:{run.scan_id}",
            type=EventType.SCAN_COMPLETED,
            occurred_at=run.occurred_at,
            domain=run.subject,
            scan_id=run.scan_id,
            severity=Severity.MEDIUM,
            title=f"Scan of {_short(run.subject)} finished, but could not be judged",
            summary=_short(reason),
            missing_formats=missing,
            traceparent=run.traceparent,
        )
    ]


def derive_from_event(run: Run) -> list[Notification]:
    """An event that is not a scan result, told as it came."""
    data: dict[str, Any] = msgspec.json.decode(run.data) if run.data else {}
    domain = run.subject
    said = data.get("error") or data.get("message") or ""
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
            summary=_short(said if isinstance(said, str) else str(said)),
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
    run: Run, report: Report, artifacts: tuple[ArtifactLink, ...], missing: tuple[str, ...]
) -> Notification:
    score = report.score.value
    domain = _short(report.identity.domain)
    held = score is None
    facts = [
        Fact(label="Score", value="held: inconclusive" if held else f"{score} of 100"),
        Fact(label="Cookies", value=str(report.totals.cookies)),
        Fact(label="Before consent", value=str(report.totals.before_consent)),
        Fact(label="Third party", value=str(report.totals.third_party)),
        Fact(label="Findings", value=str(len(report.findings))),
        Fact(
            label="Rule pack",
            value=f"{report.identity.rule_pack} {report.identity.rule_pack_version}",
        ),
    ]
    drift = report.drift
    if drift.compared_with is not None:
        facts.append(
            Fact(
                label="Since the scan before",
                value=f"{len(drift.added)} new, {len(drift.removed)} gone, "
                f"{len(drift.changed)} changed",
            )
        )
    worst = report.findings[0].severity if report.findings else Severity.INFO
    return Notification(
        event_key=f"{EventType.SCAN_COMPLETED}:{report.identity.scan_id}",
        type=EventType.SCAN_COMPLETED,
        occurred_at=run.occurred_at,
        domain=report.identity.domain,
        scan_id=report.identity.scan_id,
        severity=worst,
        title=f"Scan of {domain} finished: "
        + ("inconclusive, score held" if held else f"score {score}"),
        summary=f"{report.totals.cookies} cookies, {report.totals.before_consent} of them before "
        f"a choice, {len(report.findings)} findings.",
        facts=tuple(facts),
        findings=_summaries(report.findings),
        artifacts=artifacts,
        missing_formats=missing,
        traceparent=run.traceparent,
    )


def _violation(
    run: Run, report: Report, serious: Sequence[Finding], artifacts: tuple[ArtifactLink, ...]
) -> Notification:
    """Once per domain and set of rules: the same findings in the next scan wake nobody."""
    domain = _short(report.identity.domain)
    fingerprint = _digest(*sorted(finding.rule_id for finding in serious))
    pieces = sum(finding.count for finding in serious)
    return Notification(
        event_key=f"{EventType.COMPLIANCE_VIOLATION}:{report.identity.domain}:{fingerprint}",
        type=EventType.COMPLIANCE_VIOLATION,
        occurred_at=run.occurred_at,
        domain=report.identity.domain,
        scan_id=report.identity.scan_id,
        severity=max((finding.severity for finding in serious), key=lambda item: item.rank),
        title=f"Consent findings on {domain}: {len(serious)} "
        + ("rule" if len(serious) == 1 else "rules"),
        summary=f"{pieces} pieces of evidence; the report names each cookie, the rule, its source "
        "and what to do.",
        findings=_summaries(serious),
        artifacts=artifacts,
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
        summary="The scan differs from the one before by more than the set thresholds.",
        facts=tuple(oddities),
        artifacts=artifacts,
        traceparent=run.traceparent,
    )


def _oddities(report: Report, settings: Settings) -> list[Fact]:
    found: list[Fact] = []
    if report.drift.compared_with is not None:
        added = len(report.drift.added)
        if added >= settings.anomaly_added_cookies:
            found.append(Fact(label="New cookies", value=str(added)))
    scores = [point.score for point in report.history if point.score is not None]
    before = scores[-1] if scores else None
    score = report.score.value
    if before is not None and score is not None and before - score >= settings.anomaly_score_drop:
        found.append(Fact(label="Score", value=f"{before} → {score}"))
    return found


def _summaries(findings: Sequence[Finding]) -> tuple[FindingSummary, ...]:
    return tuple(
        FindingSummary(
            rule_id=finding.rule_id,
            severity=finding.severity,
            title=finding.title,
            count=finding.count,
        )
        for finding in findings[:MAX_FINDINGS]
    )


def _short(text: str | None) -> str:
    return whole(text or "", MAX_TEXT_BYTES)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

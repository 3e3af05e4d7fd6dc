"""Violations, told once: what a settled scan changes in them, and the news of it.

A part of the body's transaction.  A violation, its news and its deliveries are
written together with the end of the run or not at all: killed before the
commit, the next attempt finds the violations as they were and derives the same
news; killed after it, the run is done and the sweep starts the deliveries.  Of
two scans of one domain that are settled at once, ``take_turn`` lets one after
the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import structlog
from sqlalchemy import Connection

from compliance.violations import Changes, Look, follow
from schemas.events import EventType
from schemas.notifications import VARIANTS, ArtifactLink, Fact, FindingSummary, Notification
from schemas.reports import Report, Severity
from schemas.runs import Run
from schemas.violations import Violation
from store.violations import save_violations, take_turn, violations_of
from tasks.derive import MAX_FINDINGS, MAX_TEXT_BYTES, whole
from tasks.wiring import Wiring, frozen_pack

log = structlog.get_logger("tasks.violations")

NEW = "compliance.violation"
REMINDER = "compliance.violation.reminder"
RESOLVED = "compliance.violation.resolved"

_TEXTS = {
    NEW: (
        "Consent findings on {domain}: {counted}",
        "{evidence} pieces of evidence; the report names each cookie, the rule, its source and "
        "what to do.",
    ),
    REMINDER: (
        "Consent findings still on {domain}: {counted}",
        "{evidence} pieces of evidence; first seen on {since}, and found again by this scan.",
    ),
    RESOLVED: (
        "Consent findings gone from {domain}: {counted}",
        "First seen on {since}; this scan does not find them any more.",
    ),
}
"""Title and summary, in English."""


def follow_violations(
    connection: Connection,
    parts: Wiring,
    run: Run,
    report: Report,
    artifacts: tuple[ArtifactLink, ...],
) -> list[Notification]:
    """Move the domain's violations on by one settled scan, and return what there is to tell.

    An inconclusive scan moves nothing: it may have seen a block page in place of
    the site, or half of it.  Nor does one that gets no turn.  Raises PermanentError
    where its rule pack is gone.
    """
    if report.inconclusive or run.scan_id is None:
        return []
    finished_at = take_turn(connection, run.scan_id, run.event_pk)
    if finished_at is None:
        log.info("violations_not_followed", run_id=run.run_id, scan_id=run.scan_id)
        return []
    look = Look(
        report=report,
        pack=frozen_pack(parts, run.inputs),
        finished_at=finished_at,
        now=parts.clock(),
        severity=parts.settings.violation_severity,
        remind_after_s=parts.settings.violation_reminder_s,
    )
    changes = follow(violations_of(connection, report.identity.domain), look)
    save_violations(connection, changes.all)
    return derive_violations(run, changes, artifacts)


def derive_violations(
    run: Run, changes: Changes, artifacts: tuple[ArtifactLink, ...]
) -> list[Notification]:
    """One message for those that began, one for those still there, one for those that ended.

    Its event key is derived from every violation in it, with its occurrence and
    the number of its reminder: no two changes share a key, and a repeat has the same.
    """
    kinds = ((NEW, changes.new), (REMINDER, changes.reminded), (RESOLVED, changes.resolved))
    return [_news(run, variant, told, artifacts) for variant, told in kinds if told]


def _news(
    run: Run, variant: str, told: Sequence[Violation], artifacts: tuple[ArtifactLink, ...]
) -> Notification:
    sightings = sorted(
        (violation.sighting for violation in told),
        key=lambda sighting: (-sighting.severity.rank, -sighting.count, sighting.rule_id),
    )
    known: dict[str, str | int | float] = {
        "domain": whole(told[0].domain, MAX_TEXT_BYTES),
        "rules": len(told),
        "evidence": sum(sighting.count for sighting in sightings),
        "since": min(violation.first_seen_at for violation in told).date().isoformat(),
    }
    title, summary = _TEXTS[variant]
    counted = f"{len(told)} " + ("rule" if len(told) == 1 else "rules")
    return Notification(
        event_key=f"{EventType.COMPLIANCE_VIOLATION}:{told[0].domain}:{_identity(variant, told)}",
        type=EventType.COMPLIANCE_VIOLATION,
        occurred_at=run.occurred_at,
        domain=told[0].domain,
        scan_id=run.scan_id,
        severity=Severity.INFO if variant == RESOLVED else sightings[0].severity,
        weighs=sightings[0].severity if variant == RESOLVED else None,
        title=title.format(counted=counted, **known),
        summary=summary.format(**known),
        variant=variant,
        values={name: known[name] for name in VARIANTS[variant]},
        facts=() if variant == NEW else (Fact(label="first_seen", value=str(known["since"])),),
        findings=tuple(
            FindingSummary(
                rule_id=sighting.rule_id,
                severity=sighting.severity,
                title=sighting.title,
                count=sighting.count,
            )
            for sighting in sightings[:MAX_FINDINGS]
        ),
        artifacts=artifacts,
        traceparent=run.traceparent,
    )


def _identity(variant: str, told: Sequence[Violation]) -> str:
    each = sorted(
        f"{violation.fingerprint} {violation.occurrence} {violation.reminders}"
        for violation in told
    )
    return hashlib.sha256("\n".join([variant, *each]).encode()).hexdigest()[:32]

"""What a scan changed in its domain's violations, and why it told nothing of the others.

Pure.  The ledger keeps of a violation what it is now, not each step on the way: where
a later scan has had its say since, the present state is told as such.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from schemas.settings import Settings
from schemas.violations import Violation
from store.decisions import ScanFacts
from tasks.decision_steps import Step, Verdict, time_words

_NO_SAY = {
    "scan.completed.held": "the scan is inconclusive",
    "scan.completed.unjudged": "the scan could not be judged",
}


def violation_steps(scan: ScanFacts, variant: str | None, settings: Settings) -> Iterator[Step]:
    """One step for each violation of the scan's domain, or why the scan has no say.

    ``variant`` is that of the news that the scan has made; nothing is said of a scan
    whose run is not done.
    """
    if scan.settled_at is None:
        return
    if scan.score is None:
        why = _NO_SAY.get(variant or "", "the scan has no score")
        known = sum(1 for violation in scan.violations if violation.resolved_at is None)
        yield _note(
            f"{why}: it has no say on violations; the {known} open ones of {scan.domain} "
            "stay as they are"
        )
        return
    if scan.newest_scan_id not in (None, scan.scan_id):
        yield _note(
            f"violations of {scan.domain} follow a newer scan, {scan.newest_scan_id} of "
            f"{time_words(scan.newest_finished_at)}: this one came late, or that one came since; "
            "what follows is their present state"
        )
    if not scan.violations:
        yield _note(
            f"no violation of {scan.domain} is on record: no conclusive scan has found anything "
            f"of severity {settings.violation_severity} or more"
        )
    for violation in scan.violations:
        yield _note(f"{_name(violation)}: {_story(violation, scan, settings)}")


def _name(violation: Violation) -> str:
    again = f", occurrence {violation.occurrence}" if violation.occurrence > 1 else ""
    return f"{violation.sighting.rule_id}{again}"


def _story(violation: Violation, scan: ScanFacts, settings: Settings) -> str:
    told = f"told at {time_words(violation.last_told_at)}"
    if violation.resolved_at is not None:
        if violation.resolved_at == scan.finished_at:
            return f"this scan does not find it any more; its end was {told}"
        return f"it ended at {time_words(violation.resolved_at)}, {told}; no news of it"
    since = f"known since {time_words(violation.first_seen_at)}"
    if violation.first_seen_at > scan.finished_at:
        return f"it began after this scan, at {time_words(violation.first_seen_at)}"
    if violation.sighting.scan_id != scan.scan_id:
        if violation.last_seen_at < scan.finished_at:
            return (
                f"{since} and not found by this scan, which does not end it: a quick scan, or "
                f"another rule pack or version, looked; last {told}"
            )
        return f"{since} and found by later scans; last {told}"
    if scan.settled_at is not None and violation.last_told_at >= scan.settled_at:
        if violation.first_seen_at == scan.finished_at:
            return f"it began with this scan, {told}"
        return f"{since}, found again and {told} as reminder {violation.reminders}"
    return f"{since} and last {told}; found again, silent: {_next(violation, settings)}"


def _next(violation: Violation, settings: Settings) -> str:
    if violation.sighting.severity.rank < settings.violation_severity.rank:
        return f"it is of severity {violation.sighting.severity} by now"
    if not settings.violation_reminder_s:
        return "reminders are off (SCANHERALD_VIOLATION_REMINDER_S)"
    due = violation.last_told_at + timedelta(seconds=settings.violation_reminder_s)
    return f"a scan that finds it from {time_words(due)} on reminds"


def _note(text: str) -> Step:
    return Step(about="violation", verdict=Verdict.NOTE, text=text)

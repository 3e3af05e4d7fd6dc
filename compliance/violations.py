"""What one more scan makes of a domain's violations: found, found again, gone, or not asked.

Pure: the time is passed in.  Whether the scan may speak at all (conclusive, and
newer than the last one that spoke) is decided before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import msgspec

from compliance.modes import is_narrow
from compliance.rules import RulePack, version_order
from schemas.reports import Finding, Report, Severity
from schemas.violations import Sighting, Violation


@dataclass(frozen=True, slots=True)
class Look:
    """One scan's report as violations see it."""

    report: Report
    pack: RulePack
    """Which judged it."""
    finished_at: datetime
    now: datetime
    severity: Severity
    """Findings from here on are violations."""
    remind_after_s: float
    """A violation that is still found is told again after so long; 0: never."""

    @property
    def is_wide(self) -> bool:
        """Whether it looked at more than a quick scan does."""
        return not is_narrow(self.report.identity.scan_mode)


@dataclass(frozen=True, slots=True)
class Changes:
    """Violations as they are after a look; nobody is told of those only ``seen`` again."""

    new: tuple[Violation, ...] = ()
    reminded: tuple[Violation, ...] = ()
    resolved: tuple[Violation, ...] = ()
    seen: tuple[Violation, ...] = ()

    @property
    def all(self) -> tuple[Violation, ...]:
        """Whatever differs from what was known."""
        return self.new + self.reminded + self.resolved + self.seen


def follow(known: Iterable[Violation], look: Look) -> Changes:
    """What a look changes in all that its domain's violations were.

    A rule that still finds something, but by now below the severity, keeps its
    violation open and silent: a milder rule is no better site.
    """
    found = {finding.rule_id: finding for finding in look.report.findings}
    before = {violation.sighting.rule_id: violation for violation in known}
    new: list[Violation] = []
    reminded: list[Violation] = []
    resolved: list[Violation] = []
    seen: list[Violation] = []
    for rule_id in [*before, *(rule_id for rule_id in found if rule_id not in before)]:
        violation, finding = before.get(rule_id), found.get(rule_id)
        is_open = violation is not None and violation.resolved_at is None
        serious = finding is not None and finding.severity.rank >= look.severity.rank
        if violation is not None and is_open and finding is not None:
            if serious and _is_due(violation, look):
                reminded.append(_seen_again(violation, finding, look, told=True))
            else:
                seen.append(_seen_again(violation, finding, look, told=False))
        elif violation is not None and is_open and _is_gone(violation.sighting, look):
            resolved.append(_ended(violation, look))
        elif not is_open and finding is not None and serious:
            new.append(_begun(finding, look, violation.occurrence + 1 if violation else 1))
    return Changes(tuple(new), tuple(reminded), tuple(resolved), tuple(seen))


def _is_due(violation: Violation, look: Look) -> bool:
    """Whether it is time to remind; an old scan that was sent again shows nothing of today."""
    if look.finished_at <= violation.last_seen_at:
        return False
    return 0 < look.remind_after_s <= (look.now - violation.last_told_at).total_seconds()


def _is_gone(last: Sighting, look: Look) -> bool:
    """Whether a look that did not find it could have.

    Not by a pack that has no such rule, or an older version: that is another law,
    not another site.  Nor by a quick look where a wider one has found it.
    """
    asked = any(rule.id == last.rule_id for rule in look.pack.rules)
    older = look.pack.id == last.rule_pack and (
        version_order(look.pack.name) < version_order(f"{last.rule_pack}-{last.rule_pack_version}")
    )
    return asked and not older and (look.is_wide or not last.wide)


def _begun(finding: Finding, look: Look, occurrence: int) -> Violation:
    return Violation(
        domain=look.report.identity.domain,
        occurrence=occurrence,
        sighting=_sighting(finding, look),
        first_seen_at=look.finished_at,
        last_seen_at=look.finished_at,
        last_told_at=look.now,
    )


def _seen_again(violation: Violation, finding: Finding, look: Look, *, told: bool) -> Violation:
    last, sighting = violation.sighting, _sighting(finding, look)
    newest = sighting.rule_pack_version
    if sighting.rule_pack == last.rule_pack:
        versions = (last.rule_pack_version, newest)
        newest = max(versions, key=lambda version: version_order(f"-{version}"))
    return msgspec.structs.replace(
        violation,
        sighting=msgspec.structs.replace(
            sighting, rule_pack_version=newest, wide=sighting.wide or last.wide
        ),
        last_seen_at=look.finished_at,
        last_told_at=look.now if told else violation.last_told_at,
        reminders=violation.reminders + told,
    )


def _ended(violation: Violation, look: Look) -> Violation:
    return msgspec.structs.replace(violation, resolved_at=look.finished_at, last_told_at=look.now)


def _sighting(finding: Finding, look: Look) -> Sighting:
    return Sighting(
        rule_id=finding.rule_id,
        severity=finding.severity,
        title=look.pack.title_of(finding.rule_id) or finding.title,
        count=finding.count,
        scan_id=look.report.identity.scan_id,
        rule_pack=look.pack.id,
        rule_pack_version=look.pack.version,
        wide=look.is_wide,
    )

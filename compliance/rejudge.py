"""A change of the law apart from a change of the site.

``compare_judgements`` sets two Reports of one scan side by side, judged by two
packs: whatever differs is the packs' doing.  ``compare_scans`` does the same for
two scans judged by one pack: whatever differs is the site's.  Both are pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import StrEnum

from schemas.reports import Finding, Identity, Report, Severity


class ChangeKind(StrEnum):
    """What became of one rule's finding."""

    APPEARED = "appeared"
    VANISHED = "vanished"
    SEVERITY = "severity"
    COUNT = "count"
    EVIDENCE = "evidence"
    """As many pieces of evidence as before, but others."""


@dataclass(frozen=True, slots=True)
class FindingPair:
    """One rule's finding before and after; no severity and a count of 0 where there is none.

    ``kinds`` is empty where both agree; else appeared or vanished alone, or severity
    and one of count and evidence, or either.
    """

    rule_id: str
    kinds: tuple[ChangeKind, ...]
    severity_before: Severity | None
    severity_after: Severity | None
    count_before: int
    count_after: int


@dataclass(frozen=True, slots=True)
class Change:
    """Two scores, 0 to 100 or None where held, and every finding of either side, by rule id."""

    score_before: int | None
    score_after: int | None
    findings: tuple[FindingPair, ...]

    @property
    def changed(self) -> tuple[FindingPair, ...]:
        """The findings that differ."""
        return tuple(pair for pair in self.findings if pair.kinds)

    @property
    def points(self) -> int | None:
        """What the score gained (or lost, below 0); None where it is held on either side."""
        if self.score_before is None or self.score_after is None:
            return None
        return self.score_after - self.score_before


class LawChange(Change):
    """What another pack makes of the same scan."""


class SiteChange(Change):
    """What the same pack makes of the scan before and of this one."""


def compare_judgements(before: Report, after: Report) -> LawChange:
    """What changed by law: ``before`` and ``after`` judge one scan, each by its pack.

    Raises ValueError unless both were made of the same bytes, compared with the
    same scan before: then a difference would not be the law's alone.
    """
    same = (before.identity.scan_id, before.identity.scan_sha256, before.drift.compared_with)
    if same != (after.identity.scan_id, after.identity.scan_sha256, after.drift.compared_with):
        raise ValueError("these are not two judgements of the same scan")
    return LawChange(before.score.value, after.score.value, _pairs(before, after))


def compare_scans(before: Report, after: Report) -> SiteChange:
    """What changed by the site: two scans of one domain, both judged by the same pack.

    Raises ValueError for two domains or two packs.
    """
    if _judge_of(before.identity) != _judge_of(after.identity):
        raise ValueError("these are not two scans of one domain, judged by one pack")
    return SiteChange(before.score.value, after.score.value, _pairs(before, after))


def _judge_of(identity: Identity) -> tuple[str, str, str]:
    return identity.domain, identity.rule_pack, identity.rule_pack_version


def _pairs(before: Report, after: Report) -> tuple[FindingPair, ...]:
    old = {finding.rule_id: finding for finding in before.findings}
    new = {finding.rule_id: finding for finding in after.findings}
    pairs = []
    for rule_id in sorted(old.keys() | new.keys()):
        was, became = old.get(rule_id), new.get(rule_id)
        pairs.append(
            FindingPair(
                rule_id=rule_id,
                kinds=_kinds(was, became, before, after),
                severity_before=was.severity if was else None,
                severity_after=became.severity if became else None,
                count_before=was.count if was else 0,
                count_after=became.count if became else 0,
            )
        )
    return tuple(pairs)


def _kinds(
    was: Finding | None, became: Finding | None, before: Report, after: Report
) -> tuple[ChangeKind, ...]:
    if was is None:
        return (ChangeKind.APPEARED,)
    if became is None:
        return (ChangeKind.VANISHED,)
    kinds = []
    if was.severity is not became.severity:
        kinds.append(ChangeKind.SEVERITY)
    if was.count != became.count:
        kinds.append(ChangeKind.COUNT)
    elif _evidence(before, was) != _evidence(after, became):
        kinds.append(ChangeKind.EVIDENCE)
    return tuple(kinds)


def _evidence(report: Report, finding: Finding) -> Counter[tuple[str, ...]]:
    """What a finding names, without its numbers: two scans send the same cookies in any order.

    Never its labels: they are of the report's language, and only of the first.  A rule
    on storage names every key.
    """
    if any(piece.cookie_number is None for piece in finding.evidence):
        return Counter((key.area, key.key) for key in report.storages)
    cookies = (cookie for cookie in report.cookies if finding.rule_id in cookie.rule_ids)
    return Counter((cookie.name, cookie.domain, cookie.path) for cookie in cookies)


@dataclass(slots=True)
class LawSummary:
    """Changes by law added up; its size depends on the rules, never on the scans."""

    scans: int = 0
    changed: int = 0
    """Scans with at least one finding that differs."""
    rescored: int = 0
    """Scans whose score differs."""
    scored: int = 0
    """Scans with a score on both sides."""
    points: int = 0
    """What all their scores gained, or lost, together."""
    rules: dict[str, Counter[ChangeKind]] = field(default_factory=lambda: defaultdict(Counter))
    """For every rule that changed anywhere, in how many scans it did so in which way."""

    def add(self, change: LawChange) -> None:
        """Count one scan."""
        self.scans += 1
        self.changed += bool(change.changed)
        for pair in change.changed:
            self.rules[pair.rule_id].update(pair.kinds)
        if change.points is not None:
            self.scored += 1
            self.rescored += change.points != 0
            self.points += change.points

    @property
    def mean(self) -> float | None:
        """Mean change of the score over scans that have one on both sides, in points."""
        return self.points / self.scored if self.scored else None

"""The score: one published formula over the findings, so that anyone can follow it by hand.

``docs/score.md`` explains it with a worked example.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from schemas.reports import Finding, Score, ScoreTerm, Severity

WEIGHTS = {Severity.HIGH: 30, Severity.MEDIUM: 15, Severity.LOW: 5, Severity.INFO: 0}
"""The most that one finding of a severity can take off."""

HALF_COUNT = 5
"""So many pieces of evidence take off half of the weight."""


def points_of(severity: Severity, count: int) -> float:
    """What a finding takes off: rises with ``count``, below the severity's weight."""
    return round(WEIGHTS[severity] * count / (count + HALF_COUNT), 2)


def compute_score(findings: Iterable[Finding], *, inconclusive: bool, formula: str) -> Score:
    """100 less the points of all findings, rounded half up, at least 0.

    The value is held (None) where the scan is inconclusive; the terms still show.
    """
    terms = tuple(
        ScoreTerm(
            rule_id=finding.rule_id,
            severity=finding.severity,
            count=finding.count,
            points=points_of(finding.severity, finding.count),
        )
        for finding in findings
    )
    left = 100 - math.fsum(term.points for term in terms)
    value = None if inconclusive else max(0, math.floor(left + 0.5))
    return Score(value=value, formula=formula, terms=terms)

"""Where the marks of the HTML page's charts stand.

Places are percentages of the chart's width, so that a chart fills a phone and a
sheet of paper alike while its letters keep their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from renderers.wording import MAX_HISTORY
from schemas.reports import ConsentCount, Report

HISTORY_HEIGHT = 120
"""Pixels from score 0 up to score 100."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One piece of a stacked bar, in per cent of the chart's width."""

    kind: str
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Point:
    """A score at its moment: per cent across, pixels down; ``score`` is None where it was held."""

    x: float
    y: float
    score: int | None
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class Curve:
    """The score history as a line; it is broken where a score was held."""

    points: Sequence[Point]
    segments: Sequence[tuple[Point, Point]]

    def say(self, word: Callable[[int | None], str]) -> str:
        """The scores in words, oldest first."""
        return ", ".join(word(point.score) for point in self.points)


def consent_bars(consent: Sequence[ConsentCount]) -> list[list[Bar]]:
    """For each category its pieces before, after and unknown; the longest bar fills the width."""
    most = max((row.before + row.after + row.unknown for row in consent), default=0) or 1
    return [
        _stack([("before", row.before), ("after", row.after), ("unknown", row.unknown)], most)
        for row in consent
    ]


def _stack(counts: Iterable[tuple[str, int]], most: int) -> list[Bar]:
    bars: list[Bar] = []
    x = 0.0
    for kind, count in counts:
        width = 100 * count / most
        if count:
            bars.append(Bar(kind, round(x, 2), round(width, 2)))
        x += width
    return bars


def score_curve(report: Report) -> Curve | None:
    """The earlier scores and this one in time; None where fewer than two are known."""
    scores = [(point.finished_at, point.score) for point in report.history[-MAX_HISTORY:]]
    if report.identity.finished_at is not None:
        scores.append((report.identity.finished_at, report.score.value))
    scores.sort(key=lambda score: score[0])
    if sum(value is not None for _, value in scores) < 2:
        return None
    first, span = scores[0][0], (scores[-1][0] - scores[0][0]).total_seconds()
    points = [
        Point(
            x=round(96 * (when - first).total_seconds() / span, 2) + 2 if span else 50,
            y=round(HISTORY_HEIGHT * (1 - (value or 0) / 100), 1),
            score=value,
            finished_at=when,
        )
        for when, value in scores
    ]
    segments = [
        (before, after)
        for before, after in pairwise(points)
        if before.score is not None and after.score is not None
    ]
    return Curve(points, segments)

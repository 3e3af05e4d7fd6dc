"""What an audit answers: sums that must add up, and the gaps by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GAPS_LISTED = 1000
"""Gaps kept whole; further ones are counted, for a lost disk makes millions of them."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Something unaccounted for.  ``what`` names it by its ids; the texts are sentences."""

    kind: str
    what: Mapping[str, str]
    why: str
    do: str


@dataclass(slots=True)
class Audit:
    """Sums by part (``stream``, ``events``, ``runs``, …) and name, and the first gaps."""

    sums: dict[str, dict[str, int]] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    gaps_total: int = 0

    def begin(self, part: str, *names: str) -> dict[str, int]:
        """The sums of a part, all named, at nought."""
        return self.sums.setdefault(part, dict.fromkeys(names, 0))

    def add(self, gap: Gap) -> None:
        """Count a gap, and keep it while there is room."""
        self.gaps_total += 1
        if len(self.gaps) < GAPS_LISTED:
            self.gaps.append(gap)

    @property
    def status(self) -> str:
        """``clean`` or ``gaps``."""
        return "gaps" if self.gaps_total else "clean"

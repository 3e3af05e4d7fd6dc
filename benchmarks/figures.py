"""Figures: ratios of one run with their targets, as a table, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from rich.table import Table

from benchmarks.render import Target


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    ``ours`` and ``other`` are the two measured values, with their unit; ``figure``
    is what is made of them, most often a ratio.  ``told`` are facts beside it, such
    as CPU seconds and peak memory.
    """

    part: str
    name: str
    ours: float | None
    other: float | None
    unit: str
    figure: float | None = None
    figure_unit: str = "×"
    target: Target | None = None
    told: dict[str, object] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """ok, miss, or nothing where there is no target."""
        if self.target is None or self.figure is None:
            return ""
        return "ok" if self.target.holds(self.figure) else "miss"

    def as_json(self) -> dict[str, object]:
        """All of it, for a machine."""
        return {**asdict(self), "verdict": self.verdict}

    def cells(self) -> tuple[str, ...]:
        """The columns of ``HEAD``."""
        return (
            self.part,
            self.name,
            number(self.ours),
            number(self.other),
            self.unit,
            f"{number(self.figure)} {self.figure_unit}" if self.figure is not None else "",
            "" if self.target is None else str(self.target),
            self.verdict,
            ", ".join(f"{name} {_told(value)}" for name, value in self.told.items()),
        )


HEAD = ("part", "what", "ours", "beside", "unit", "figure", "target", "", "beside it")
NUMBERS = ("ours", "beside", "figure", "target")


def draw_table(figures: Sequence[Figure]) -> Table:
    """All figures for a terminal."""
    table = Table(title="Ratios within this run", box=None, header_style="bold", pad_edge=False)
    for title in HEAD:
        table.add_column(
            title,
            justify="right" if title in NUMBERS else "left",
            no_wrap=title != "beside it",
            overflow="fold",
        )
    for place, figure in enumerate(figures):
        table.add_row(
            *figure.cells(),
            style="bold red" if figure.verdict == "miss" else None,
            end_section=place + 1 < len(figures) and figures[place + 1].part != figure.part,
        )
    return table


def as_markdown(figures: Iterable[Figure]) -> str:
    """The same table for RESULTS.md."""
    lines = [
        "| " + " | ".join(HEAD) + " |",
        "|" + "|".join("---:" if title in NUMBERS else "---" for title in HEAD) + "|",
    ]
    lines += ["| " + " | ".join(figure.cells()) + " |" for figure in figures]
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Three digits that count, thousands whole."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _told(value: object) -> str:
    return number(value) if isinstance(value, int | float) else str(value)

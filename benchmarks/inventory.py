"""What floors and peers draw: texts made ready outside of every timing, and the font for them.

A floor that gets its texts for nothing is the lowest there can be.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

import renderers
from renderers.registry import render
from schemas.reports import Format, InventoryCookie, Report

Cell: TypeAlias = str | tuple[str, ...]
"""A text, or several that stand one below the other."""

FONT_FILE = Path(renderers.__file__).parent / "fonts" / "DejaVuSans.ttf"
"""The font of our own PDF's running text."""

UNKNOWN = "–"


@dataclass(frozen=True, slots=True)
class Table:
    """A long table: its head, the columns' shares of the width, the type size, the rows."""

    head: tuple[str, ...]
    shares: tuple[float, ...]
    size: float
    rows: list[tuple[Cell, ...]]


@dataclass(frozen=True, slots=True)
class Summary:
    """Page one in a few lines, and a chart of cookies by category."""

    title: str
    lines: tuple[str, ...]
    bars: tuple[tuple[str, int], ...]


def summarise(report: Report) -> Summary:
    """The summary page that every floor and every peer begins with."""
    totals = report.totals
    return Summary(
        title=f"Cookie scan report: {report.identity.domain}",
        lines=(
            f"Scan {report.identity.scan_id}",
            f"Score {report.score.value} of 100",
            f"{totals.cookies:,} cookies, {totals.before_consent:,} before consent, "
            f"{totals.third_party:,} third-party, {totals.session:,} session",
            *(f"{finding.severity}: {finding.title} ({finding.count:,})"
              for finding in report.findings),
        ),
        bars=tuple((count.label, count.count) for count in totals.categories),
    )  # fmt: skip


def eight_columns(report: Report) -> Table:
    """The bare inventory: eight texts of every cookie."""
    return Table(
        head=("Name", "Domain", "Path", "Category", "Vendor", "Lifetime", "Size", "Flags"),
        shares=(150, 140, 110, 80, 100, 70, 40, 92),
        size=7,
        rows=[
            (
                cookie.name,
                cookie.domain,
                cookie.path,
                str(cookie.category),
                cookie.vendor or UNKNOWN,
                cookie.duration or UNKNOWN,
                _text(cookie.size_bytes),
                _flags(cookie),
            )
            for cookie in report.cookies
        ],
    )


def _flags(cookie: InventoryCookie) -> str:
    flags = (
        ("Secure", cookie.secure), ("HttpOnly", cookie.http_only),
        (cookie.same_site, cookie.same_site),
    )  # fmt: skip
    return " ".join(str(word) for word, holds in flags if holds) or UNKNOWN


def our_columns(report: Report) -> Table:
    """The inventory with the columns and texts of our own PDF, overheard while it is drawn.

    Raises LookupError where no renderer draws a table of all the cookies.
    """
    with _overheard_tables() as tables:
        render(report, Format.PDF)
    whole = [table for table in tables if len(table.rows) == len(report.cookies)]
    if not whole:
        raise LookupError("the PDF renderer no longer draws its inventory by draw_table")
    return max(whole, key=lambda table: len(table.head))


@contextmanager
def _overheard_tables() -> Iterator[list[Table]]:
    tables: list[Table] = []

    def draw_table(
        _sheet: object, columns: Sequence[Any], rows: Iterable[Sequence[Any]], size: float = 7.5,
        **_more: object,
    ) -> None:  # fmt: skip
        tables.append(
            Table(
                head=tuple(column.title for column in columns),
                shares=tuple(column.share for column in columns),
                size=size,
                rows=[
                    tuple(column.read(value) for column, value in zip(columns, row, strict=True))
                    for row in rows
                ],
            )
        )

    patches = [
        mock.patch.object(module, "draw_table", draw_table)
        for name, module in sys.modules.items()
        if name.startswith("renderers.") and hasattr(module, "draw_table")
    ]
    for patch in patches:
        patch.start()
    try:
        yield tables
    finally:
        for patch in patches:
            patch.stop()


def all_texts(report: Report) -> list[tuple[str, ...]]:
    """Every text that our HTML page shows of a cookie, each for a cell of its own."""
    numbers = {finding.rule_id: str(place) for place, finding in enumerate(report.findings, 1)}
    return [
        (
            str(cookie.number),
            cookie.name,
            cookie.domain,
            cookie.path,
            str(cookie.party),
            str(cookie.category),
            cookie.category_sent or UNKNOWN,
            cookie.purpose or UNKNOWN,
            cookie.vendor or UNKNOWN,
            cookie.duration or UNKNOWN,
            _text(cookie.duration_seconds),
            _text(cookie.size_bytes),
            _text(cookie.secure),
            _text(cookie.http_only),
            cookie.same_site or UNKNOWN,
            _text(cookie.before_consent),
            cookie.classified_by or UNKNOWN,
            ", ".join(numbers[rule_id] for rule_id in cookie.rule_ids),
        )
        for cookie in report.cookies
    ]


def _text(value: object) -> str:
    return UNKNOWN if value is None else str(value)

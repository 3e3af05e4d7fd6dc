"""Long tables on the sheet: one text object per page, the head row repeated, nothing lost.

A row that does not fit goes to the next page; a row taller than a page is
continued there line by line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from renderers.fonts import Typeface
from renderers.pdf_sheet import FOOT, INK, NAVY, RULE, WASH, Sheet

Cell: TypeAlias = str | Sequence[str]
"""A text, or several that stand one below the other."""

_Lines: TypeAlias = Sequence[str]

_MEMO_ENTRIES = 4096
_MEMO_CHARS = 200


@dataclass(frozen=True, slots=True)
class Column:
    """A column's title and its share of the table's width."""

    title: str
    share: float
    right: bool = False


def draw_table(
    sheet: Sheet, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, size: float = 7.5
) -> None:
    """Draw ``rows`` from the cursor down, over as many pages as they take.  Linear in the text."""
    table = _Table(sheet, columns, size)
    for row in rows:
        table.add(row)
    table.close()


class _Wrapped:
    """A column's cells as lines.  Short texts repeat a lot and are wrapped once."""

    def __init__(self, face: Typeface, size: float, width: float) -> None:
        self._face = face
        self._size = size
        self._width = width
        self._memo: dict[str, list[str]] = {}

    def lines(self, cell: Cell) -> list[str]:
        if isinstance(cell, str):
            return self._text_lines(cell)
        return [line for text in cell for line in self._text_lines(text)]

    def _text_lines(self, text: str) -> list[str]:
        known = self._memo.get(text)
        if known is not None:
            return known
        lines = self._face.wrap(self._face.show(text), self._size, self._width)
        if len(text) <= _MEMO_CHARS:
            if len(self._memo) >= _MEMO_ENTRIES:
                self._memo.clear()
            self._memo[text] = lines
        return lines


class _Table:
    """A table while it is drawn: the open page's text object and its separators."""

    def __init__(self, sheet: Sheet, columns: Sequence[Column], size: float) -> None:
        self._sheet = sheet
        self._columns = columns
        self._size = size
        self._leading = size * 1.28
        self._pad = size * 0.42
        gap = size * 0.9
        total = sum(column.share for column in columns)
        widths = [column.share / total * sheet.text_width for column in columns]
        self._ends = [sheet.margin + sum(widths[: place + 1]) for place in range(len(widths))]
        self._starts = [end - width for end, width in zip(self._ends, widths, strict=True)]
        self._inner = [width - gap for width in widths]
        self._gap = gap
        self._cells = [_Wrapped(sheet.regular, size, width) for width in self._inner]
        self._head = [
            sheet.bold.wrap(sheet.bold.show(column.title), size, width)
            for column, width in zip(columns, self._inner, strict=True)
        ]
        self._open()

    def add(self, row: Sequence[Cell]) -> None:
        """Draw one row, going to the next page where it does not fit."""
        lines = [wrapped.lines(cell) for wrapped, cell in zip(self._cells, row, strict=True)]
        height = max(map(len, lines))
        if height > self._lines_left() and (height <= self._page_lines or self._lines_left() < 3):
            self._turn()
        done = 0
        while height - done > self._lines_left():
            take = self._lines_left()
            self._place([cell[done : done + take] for cell in lines], take)
            done += take
            self._turn()
        self._place([cell[done:] for cell in lines] if done else lines, height - done)

    def close(self) -> None:
        """Put the open page's text and separators on the canvas."""
        canvas = self._sheet.canvas
        canvas.drawText(self._text)
        canvas.setStrokeColor(RULE)
        canvas.setLineWidth(0.4)
        canvas.lines(self._separators)
        self._sheet.y -= 4

    def _open(self) -> None:
        sheet = self._sheet
        titled = any(column.title for column in self._columns)
        head_lines = max(map(len, self._head)) if titled else 0
        head_height = head_lines * self._leading + 2 * self._pad if titled else 0
        sheet.ensure(head_height + 3 * self._leading)
        if titled:
            sheet.box(sheet.margin, sheet.y - head_height, sheet.text_width, head_height, WASH)
        text = sheet.canvas.beginText()
        text.setFillColor(NAVY)
        text.setFont(sheet.bold.name, self._size, self._leading)
        self._text = text
        self._separators: list[tuple[float, float, float, float]] = []
        self._write_cells(self._head, sheet.bold)
        sheet.y -= head_height
        text.setFillColor(INK)
        text.setFont(sheet.regular.name, self._size, self._leading)
        self._page_lines = self._lines_at(sheet.height - sheet.margin - head_height)

    def _turn(self) -> None:
        self.close()
        self._sheet.next_page()
        self._open()

    def _lines_left(self) -> int:
        return self._lines_at(self._sheet.y)

    def _lines_at(self, y: float) -> int:
        return int((y - FOOT - 12 - 2 * self._pad) / self._leading)

    def _place(self, lines: Sequence[_Lines], height: int) -> None:
        sheet = self._sheet
        self._write_cells(lines, sheet.regular)
        sheet.y -= height * self._leading + 2 * self._pad
        self._separators.append((sheet.margin, sheet.y, sheet.margin + sheet.text_width, sheet.y))

    def _write_cells(self, lines: Sequence[_Lines], face: Typeface) -> None:
        text = self._text
        top = self._sheet.y - self._pad - self._size * 0.95
        for place, cell in enumerate(lines):
            if self._columns[place].right:
                end = self._ends[place] - self._gap / 2
                for row, line in enumerate(cell):
                    x = end - face.width(line, self._size)
                    text.setTextOrigin(x, top - row * self._leading)
                    text.textLine(line)
            elif cell:
                text.setTextOrigin(self._starts[place] + self._gap / 2, top)
                for line in cell:
                    text.textLine(line)

"""Long tables on the sheet: one text object per page, the head row repeated, nothing lost.

A row that does not fit goes to the next page; a row taller than a page is
continued there line by line.  Values repeat a lot in a scan, so each column
remembers the operators of those that it has shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from renderers.pdf_inks import INK, RULE, WASH, Ink
from renderers.pdf_sheet import FOOT, Sheet
from renderers.typeface import Typeface

Cell: TypeAlias = str | tuple[str, ...]
"""A text, or several that stand one below the other."""

_MEMO_ENTRIES = 4096
_MEMO_CHARS = 1200


def as_it_is(value: Any) -> Cell:
    """The text of a column whose values are texts."""
    return value  # type: ignore[no-any-return]  # the caller's rows hold texts there


@dataclass(frozen=True, slots=True)
class Column:
    """A column's title, its share of the table's width, and how its values read.

    Values are hashable, and equal ones read the same.
    """

    title: str
    share: float
    right: bool = False
    read: Callable[[Any], Cell] = as_it_is


def draw_table(
    sheet: Sheet, columns: Sequence[Column], rows: Iterable[Sequence[Any]], *, size: float = 7.5
) -> None:
    """Draw ``rows`` from the cursor down, over as many pages as they take.  Linear in the text."""
    table = _Table(sheet, columns, size)
    for row in rows:
        table.add(row)
    table.close()


class _Block:
    """A cell's lines as operators, each ending where the next begins."""

    __slots__ = ("height", "joined", "lines", "x")

    def __init__(self, x: str, lines: list[str]) -> None:
        self.x = x
        self.lines = lines
        self.height = len(lines)
        self.joined = " T* ".join(lines)

    def part(self, start: int, end: int) -> str:
        """The operators of some of the lines."""
        return " T* ".join(self.lines[start:end])


class _Setter:
    """Sets the cells of one column, by value."""

    def __init__(self, sheet: Sheet, face: Typeface, size: float, column: Column, end: float,
                 width: float, gap: float) -> None:  # fmt: skip
        self._show = sheet.text.line
        self._face = face
        self._size = size
        self._column = column
        self._width = width - gap
        x = end - gap / 2 if column.right else end - width + gap / 2
        self._x = f"1 0 0 1 {x:.2f} "
        self.known: dict[Any, _Block] = {}

    def set(self, value: Any) -> _Block:
        """The block of a value, remembered unless it is very long."""
        block = self.lay(self._column.read(value))
        if len(block.joined) <= _MEMO_CHARS:
            if len(self.known) >= _MEMO_ENTRIES:
                self.known.clear()
            self.known[value] = block
        return block

    def lay(self, cell: Cell) -> _Block:
        """The block of a text."""
        face, size, show = self._face, self._size, self._show
        lines: list[str] = []
        for text in (cell,) if isinstance(cell, str) else cell:
            if not text:
                continue
            lines += face.wrap(face.show(text), size, self._width)
        if not self._column.right:
            return _Block(self._x, [show(face, line, size) for line in lines])
        return _Block(self._x, [self._ending_here(line) for line in lines])

    def _ending_here(self, line: str) -> str:
        """Operators of a line that ends at the column's edge and goes back there."""
        width = f"{self._face.width(line, self._size):.2f}"
        return f"-{width} 0 Td {self._show(self._face, line, self._size)} {width} 0 Td"


class _Table:
    """A table while it is drawn: the open page's text and its separators."""

    def __init__(self, sheet: Sheet, columns: Sequence[Column], size: float) -> None:
        self._sheet = sheet
        self._titled = any(column.title for column in columns)
        self._size = size
        self._leading = size * 1.28
        self._pad = size * 0.42
        setters = self._setters(sheet.regular, columns)
        self._columns = [(setter.known.get, setter.set) for setter in setters]
        self._head = [
            setter.lay(column.title)
            for setter, column in zip(self._setters(sheet.bold, columns), columns, strict=True)
        ]
        self._open()

    def _setters(self, face: Typeface, columns: Sequence[Column]) -> list[_Setter]:
        total = sum(column.share for column in columns)
        setters: list[_Setter] = []
        end = self._sheet.margin
        for column in columns:
            width = column.share / total * self._sheet.text_width
            end += width
            setters.append(
                _Setter(self._sheet, face, self._size, column, end, width, self._size * 0.9)
            )
        return setters

    def add(self, row: Sequence[Any]) -> None:
        """Draw one row, going to the next page where it does not fit."""
        blocks = [
            known(value) or set_(value)
            for (known, set_), value in zip(self._columns, row, strict=True)
        ]
        height = max([1, *[block.height for block in blocks]])
        left = self._lines_left()
        if height > left and (height <= self._page_lines or left < 3):
            self._turn()
            left = self._lines_left()
        if height <= left:
            top = self._top()
            self._text += [f"{block.x}{top}{block.joined}" for block in blocks]
            self._advance(height)
        else:
            self._continue(blocks, height)

    def _continue(self, blocks: Sequence[_Block], height: int) -> None:
        done = 0
        while done < height:
            take = min(self._lines_left(), height - done)
            top = self._top()
            self._text += [
                f"{block.x}{top}{block.part(done, done + take)}"
                for block in blocks
                if done < block.height
            ]
            self._advance(take)
            done += take
            if done < height:
                self._turn()

    def close(self) -> None:
        """Put the open page's text and separators on the sheet."""
        sheet = self._sheet
        left, right = f"{sheet.margin:.2f}", f"{sheet.margin + sheet.text_width:.2f}"
        sheet.put("\n".join([*self._text, "ET", f"{RULE} RG 0.4 w"]))
        sheet.put("\n".join([f"{left} {y:.2f} m {right} {y:.2f} l" for y in self._separators]))
        sheet.put("S")
        sheet.y -= 4

    def _open(self) -> None:
        sheet = self._sheet
        head_lines = max(block.height for block in self._head) if self._titled else 0
        head_height = head_lines * self._leading + 2 * self._pad if self._titled else 0
        sheet.ensure(head_height + 3 * self._leading)
        if self._titled:
            sheet.box(sheet.margin, sheet.y - head_height, sheet.text_width, head_height, WASH)
            top = self._top()
            sheet.put(self._begin(sheet.bold, sheet.accent.head))
            sheet.put("\n".join([f"{block.x}{top}{block.joined}" for block in self._head]))
            sheet.put("ET")
        self._text = [self._begin(sheet.regular, INK)]
        self._separators: list[float] = []
        sheet.y -= head_height
        self._page_lines = self._lines_at(sheet.height - sheet.margin - head_height)

    def _begin(self, face: Typeface, ink: Ink) -> str:
        return f"BT {ink} rg {self._sheet.select(face, self._size)} {self._leading:.3f} TL"

    def _turn(self) -> None:
        self.close()
        self._sheet.next_page()
        self._open()

    def _lines_left(self) -> int:
        return self._lines_at(self._sheet.y)

    def _lines_at(self, y: float) -> int:
        return int((y - FOOT - 12 - 2 * self._pad) / self._leading)

    def _top(self) -> str:
        return f"{self._sheet.y - self._pad - self._size * 0.95:.2f} Tm "

    def _advance(self, lines: int) -> None:
        self._sheet.y -= lines * self._leading + 2 * self._pad
        self._separators.append(self._sheet.y)

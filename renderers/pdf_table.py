"""Long tables on the sheet: one text object per page, the head row repeated, nothing lost.

A row that does not fit goes to the next page; a row taller than a page is
continued there line by line.  Values repeat a lot in a scan, so each column
remembers the operators of those that it has shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from renderers.pdf_inks import INK, RULE, WASH, Ink
from renderers.pdf_sheet import FOOT, Sheet
from renderers.pdf_text import show_ascii
from renderers.typeface import Typeface, measure, wrap_plain

Cell: TypeAlias = str | tuple[str, ...]
"""A text, or several that stand one below the other, at the left."""

_MEMO_ENTRIES = 4096
_MEMO_CHARS = 1200
_KNOWN_BLOCKS = 2048
_KNOWN_CHARS = 400
"""ASCII looks the same in every document, and known cookies stand in report after report: their
cells are set once per process and take two megabytes at most."""


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
        self.joined = lines[0] if self.height == 1 else " T* ".join(lines)

    def part(self, start: int, end: int) -> str:
        """The operators of some of the lines."""
        return " T* ".join(self.lines[start:end])


class _Shape(NamedTuple):
    """Where a column's texts stand and how: all that decides on a text's block."""

    face: str
    size: float
    width: float
    edge: float
    """The left edge of the texts, or the right one where they end there."""
    right: bool

    def block(self, shown: list[str], widths: Iterable[float]) -> _Block:
        """The block of lines, by the operators that show each and the points that each takes."""
        edge = f"{self.edge:.2f}"
        if not self.right:
            return _Block(f"1 0 0 1 {edge} ", shown)
        told = [f"{width:.2f}" for width in widths]
        if len(shown) == 1:
            return _Block(f"1 0 0 1 {float(edge) - float(told[0]):.2f} ", shown)
        # Each line ends at the edge and goes back there.
        ending = [
            f"-{width} 0 Td {line} {width} 0 Td" for width, line in zip(told, shown, strict=True)
        ]
        return _Block(f"1 0 0 1 {edge} ", ending)


def _ascii_block(shape: _Shape, text: str) -> _Block:
    face, size = shape.face, shape.size
    lines = wrap_plain(face, text, shape.width * 1000 / size)
    widths = (measure(face, line) * size / 1000 for line in lines)
    return shape.block([show_ascii(line) for line in lines], widths)


_known_block = lru_cache(_KNOWN_BLOCKS)(_ascii_block)


class _Setter:
    """Sets the cells of one column, by value."""

    def __init__(self, sheet: Sheet, face: Typeface, shape: _Shape, column: Column) -> None:
        self._show = sheet.text.line
        self._face = face
        self._shape = shape
        self._read = column.read
        self.known: dict[Any, _Block] = {}

    def set(self, value: Any) -> _Block:
        """The block of a value, remembered unless it is very long."""
        block = self.lay(self._read(value))
        if len(block.joined) <= _MEMO_CHARS:
            if len(self.known) >= _MEMO_ENTRIES:
                self.known.clear()
            self.known[value] = block
        return block

    def lay(self, cell: Cell) -> _Block:
        """The block of a cell."""
        if isinstance(cell, str):
            return self._lay_text(cell)
        blocks = [self._lay_text(text) for text in cell]
        return _Block(blocks[0].x, [line for block in blocks for line in block.lines])

    def _lay_text(self, text: str) -> _Block:
        shape = self._shape
        if not text:
            return shape.block([], ())
        if text.isascii() and text.isprintable():
            make = _known_block if len(text) <= _KNOWN_CHARS else _ascii_block
            return make(shape, text)
        face, show, size = self._face, self._show, shape.size
        lines = face.wrap(face.show(text), size, shape.width)
        widths = (face.width(line, size) for line in lines)
        return shape.block([show(face, line, size) for line in lines], widths)


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
        gap = self._size * 0.9
        setters: list[_Setter] = []
        end = self._sheet.margin
        for column in columns:
            width = column.share / total * self._sheet.text_width
            end += width
            edge = end - gap / 2 if column.right else end - width + gap / 2
            shape = _Shape(face.name, self._size, width - gap, edge, column.right)
            setters.append(_Setter(self._sheet, face, shape, column))
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

"""The floor of the PDF: a summary with a chart and one bare table, nothing else.

Drawn on reportlab's canvas with one text object per page.  A cell is wrapped and
encoded once per document and then costs a look-up; fonts are loaded once per
process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TypeAlias, cast

from reportlab import rl_config
from reportlab.lib.pagesizes import A4
from reportlab.lib.rl_accel import escapePDF
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.pdfdoc import PDFDocument
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.pdfgen.textobject import PDFTextObject

from benchmarks.inventory import FONT_FILE, Cell, Summary, Table

FONT = "FloorSans"
MARGIN = 30.0
GAP = 4.0


@cache
def load_font() -> TTFont:
    """The font of our own PDF, under a name of its own; takes about 30 ms once."""
    rl_config.useA85 = 0
    font = TTFont(FONT, str(FONT_FILE), asciiReadable=1)
    # reportlab keeps one font for a face: under the same name ours and this would be one.
    font.face.name = FONT.encode()
    pdfmetrics.registerFont(font)
    return font


def draw_pdf(summary: Summary, table: Table, *, by_calls: bool = False) -> bytes:
    """The same bytes for the same texts; the font is embedded as a subset.

    Writes PDF operators, the fastest way.  ``by_calls`` has reportlab place and
    encode every line instead, the way its manual shows.
    """
    font = load_font()
    out = BytesIO()
    canvas = Canvas(out, pagesize=A4, invariant=1, pageCompression=1)
    _draw_summary(canvas, summary)
    canvas.showPage()
    _draw_table(canvas, font, table, _place_by_calls if by_calls else _place_by_operators)
    canvas.save()
    return out.getvalue()


def _draw_summary(canvas: Canvas, summary: Summary) -> None:
    y = A4[1] - 60
    canvas.setFont(FONT, 18)
    canvas.drawString(MARGIN, y, summary.title)
    canvas.setFont(FONT, 9)
    for line in summary.lines:
        y -= 14
        canvas.drawString(MARGIN, y, line)
    most = max((count for _, count in summary.bars), default=0) or 1
    for label, count in summary.bars:
        y -= 18
        canvas.drawString(MARGIN, y, label)
        canvas.rect(MARGIN + 90, y - 2, 300 * count / most, 11, stroke=0, fill=1)
        canvas.drawString(MARGIN + 96 + 300 * count / most, y, str(count))


def _draw_table(canvas: Canvas, font: TTFont, table: Table, place: _Place) -> None:
    width, height = A4[1], A4[0]
    leading = table.size * 1.2
    unit = (width - 2 * MARGIN) / sum(table.shares)
    widths = [share * unit for share in table.shares]
    lefts = [f"{MARGIN + sum(widths[:column]):.2f}" for column in range(len(widths))]
    columns = [_Cells(canvas, font, table.size, room - GAP) for room in widths]
    head = [cells[title] for cells, title in zip(columns, table.head, strict=True)]
    text: PDFTextObject | None = None
    y = 0.0
    page = 1
    for row in table.rows:
        wrapped = [cells[cell] for cells, cell in zip(columns, row, strict=True)]
        step = max([cell.count for cell in wrapped]) * leading + 2
        if text is None or y - step < MARGIN:
            if text is not None:
                canvas.drawText(text)
                canvas.showPage()
            page += 1
            canvas.setPageSize((width, height))
            text = canvas.beginText()
            text.setFont(FONT, table.size, leading)
            text.setTextOrigin(MARGIN, 15)
            text.textLine(f"Page {page}")
            y = height - MARGIN - table.size
            place(text, head, lefts, y)
            y -= max(cell.count for cell in head) * leading + 2
        place(text, wrapped, lefts, y)
        y -= step
    if text is not None:
        canvas.drawText(text)
        canvas.showPage()


def _place_by_operators(
    text: PDFTextObject, cells: list[_Wrapped], lefts: list[str], y: float
) -> None:
    down = f" {y:.2f} Tm "
    # Past the API: asking it for every line costs four times as much.
    text._code.extend(  # type: ignore[attr-defined]
        [f"1 0 0 1 {left}{down}{cell.operators}" for left, cell in zip(lefts, cells, strict=True)]
    )


def _place_by_calls(text: PDFTextObject, cells: list[_Wrapped], lefts: list[str], y: float) -> None:
    for left, cell in zip(lefts, cells, strict=True):
        text.setTextOrigin(float(left), y)
        for line in cell.lines:
            text.textLine(line)


_Place: TypeAlias = Callable[[PDFTextObject, list["_Wrapped"], list[str], float], None]


@dataclass(frozen=True, slots=True)
class _Wrapped:
    """A cell that was wrapped and encoded before."""

    lines: list[str]
    operators: str
    count: int


def _select(canvas: Canvas, font: TTFont, subset: int, size: float) -> str:
    return f"{font.getSubsetInternalName(subset, _document(canvas))} {size} Tf"


def _document(canvas: Canvas) -> PDFDocument:
    return cast(PDFDocument, canvas._doc)  # type: ignore[attr-defined]


class _Cells(dict[Cell, _Wrapped]):
    """A column's cells: their lines, and the operators that draw them.

    Each begins and ends in the font's first subset.  What a character is encoded
    to stays the same within a document, so what is kept here stays right.
    """

    def __init__(self, canvas: Canvas, font: TTFont, size: float, width: float) -> None:
        super().__init__()
        self._canvas = canvas
        self._font = font
        self._size = size
        self._width = width

    def __missing__(self, cell: Cell) -> _Wrapped:
        texts = (cell,) if isinstance(cell, str) else cell
        lines = [line for text in texts for line in self._wrap(text)]
        wrapped = self[cell] = _Wrapped(lines, "".join(map(self._encode, lines)), len(lines))
        return wrapped

    def _encode(self, line: str) -> str:
        if line.isascii():
            return f"({escapePDF(line)}) Tj T*"
        parts = []
        for subset, codes in self._font.splitString(line, _document(self._canvas)):
            shown = f"({escapePDF(codes)}) Tj"
            if subset:
                there = _select(self._canvas, self._font, subset, self._size)
                back = _select(self._canvas, self._font, 0, self._size)
                shown = f" {there} {shown} {back} "
            parts.append(shown)
        return "".join([*parts, " T*"])

    def _wrap(self, text: str) -> list[str]:
        measure = self._font.stringWidth
        size, width = self._size, self._width
        if measure(text, size) <= width:
            return [text]
        space = measure(" ", size)
        lines: list[str] = []
        line: list[str] = []
        used = -space
        for word in text.split(" "):
            wide = measure(word, size)
            if used + space + wide <= width:
                line.append(word)
                used += space + wide
                continue
            if line:
                lines.append(" ".join(line))
            while wide > width:
                end = self._fitting(word)
                lines.append(word[:end])
                word = word[end:]
                wide = measure(word, size)
            line, used = [word], wide
        lines.append(" ".join(line))
        return lines

    def _fitting(self, word: str) -> int:
        used = 0.0
        for place, char in enumerate(word):
            used += self._font.stringWidth(char, self._size)
            if used > self._width:
                return max(place, 1)
        return len(word)

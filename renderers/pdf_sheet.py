"""The paper: a reportlab canvas with a cursor, page furniture and a few ways to write.

Everything is drawn on the canvas; no markup parser ever sees scan data.
"""

from __future__ import annotations

from io import BytesIO
from typing import Final

from reportlab.lib.colors import Color, HexColor
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from renderers.fonts import BOLD, REGULAR, Typeface
from renderers.visible import prose
from renderers.wording import Words
from schemas.reports import Severity

INK: Final = HexColor("#1b2433")
NAVY: Final = HexColor("#16243f")
GREY: Final = HexColor("#5d6778")
PALE: Final = HexColor("#c9d3e4")
RULE: Final = HexColor("#d5dae3")
WASH: Final = HexColor("#f1f4f8")
WHITE: Final = HexColor("#ffffff")
BEFORE: Final = HexColor("#c2541b")
AFTER: Final = HexColor("#5b7db1")
UNSTATED: Final = HexColor("#b9c0cc")
SEVERITY_INK: Final = {
    Severity.HIGH: HexColor("#b3261e"),
    Severity.MEDIUM: HexColor("#a85f00"),
    Severity.LOW: HexColor("#2f5f8f"),
    Severity.INFO: HexColor("#5d6778"),
}

MARGIN = 48.0
WIDE_MARGIN = 30.0
FOOT = 40.0
_PAGE_COUNT = "page-count"


class Sheet:
    """One PDF document while it is drawn; ``close`` returns its bytes.

    ``y`` is the cursor: the base of the space already used, from the top down.
    """

    def __init__(self, *, title: str, subject: str, footer: str, language: str, t: Words) -> None:
        self._buffer = BytesIO()
        self.regular = Typeface(REGULAR)
        self.bold = Typeface(BOLD)
        self.canvas = Canvas(
            self._buffer, pagesize=A4, invariant=1, pageCompression=1, lang=language
        )
        self.canvas.setTitle(self.bold.show(title))
        self.canvas.setAuthor("scanherald")
        self.canvas.setCreator("scanherald")
        self.canvas.setSubject(self.regular.show(subject))
        self.t = t
        self._footer = footer
        self._page = 0
        self._start_page(wide=False)

    @property
    def text_width(self) -> float:
        """Points between the margins."""
        return self.width - 2 * self.margin

    def next_page(self) -> None:
        """Go to the top of a fresh page of the same shape."""
        self.turn(wide=self.wide)

    def turn(self, *, wide: bool) -> None:
        """Go to the top of a fresh page, upright or ``wide``."""
        self.canvas.showPage()
        self._start_page(wide=wide)

    def ensure(self, height: float) -> None:
        """Go to a fresh page where less than ``height`` points are left."""
        if self.y - height < FOOT + 12:
            self.next_page()

    def _start_page(self, *, wide: bool) -> None:
        self.wide = wide
        self.width, self.height = (A4[1], A4[0]) if wide else A4
        self.margin = WIDE_MARGIN if wide else MARGIN
        self.y = self.height - self.margin
        self.canvas.setPageSize((self.width, self.height))
        self._page += 1
        self.canvas.setStrokeColor(RULE)
        self.canvas.setLineWidth(0.5)
        self.canvas.line(self.margin, FOOT, self.width - self.margin, FOOT)
        place = f"{self.t['page']} {self._page} {self.t['of']} "
        place_width = self.regular.width(place, 7)
        self.write(self.margin, FOOT - 11, place, 7, ink=GREY)
        # The number of pages is drawn when it is known: every page refers to one form.
        self.canvas.saveState()
        self.canvas.translate(self.margin + place_width, FOOT - 11)
        self.canvas.doForm(_PAGE_COUNT)
        self.canvas.restoreState()
        room = self.text_width - place_width - 50
        end = self.width - self.margin
        self.write(end, FOOT - 11, self._shorten(self._footer, 7, room), 7, ink=GREY, right=True)

    def _shorten(self, text: str, size: float, width: float) -> str:
        lines = self.regular.wrap(self.regular.show(text), size, width)
        return lines[0] if len(lines) == 1 else lines[0][:-1] + "…"

    def write(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        *,
        bold: bool = False,
        ink: Color = INK,
        right: bool = False,
    ) -> None:
        """One line of text at a point; ``right`` ends it there instead."""
        face = self.bold if bold else self.regular
        shown = face.show(text)
        self.canvas.setFont(face.name, size)
        self.canvas.setFillColor(ink)
        self.canvas.drawString(x - face.width(shown, size) if right else x, y, shown)

    def paragraph(
        self,
        text: str,
        size: float = 9,
        *,
        bold: bool = False,
        ink: Color = INK,
        indent: float = 0,
        width: float | None = None,
        leading: float = 1.42,
        after: float = 4,
        most: int | None = None,
    ) -> None:
        """Running text from the cursor down, over pages where needed.

        ``most`` cuts it to so many lines, with an ellipsis.
        """
        face = self.bold if bold else self.regular
        room = width if width is not None else self.text_width - indent
        lines = face.wrap(face.show(prose(text)), size, room)
        if most is not None and len(lines) > most:
            lines = [*lines[: most - 1], lines[most - 1][:-2] + "…"]
        step = size * leading
        for line in lines:
            self.ensure(step)
            self.y -= step
            self.canvas.setFont(face.name, size)
            self.canvas.setFillColor(ink)
            self.canvas.drawString(self.margin + indent, self.y, line)
        self.y -= after

    def section(self, title: str, intro: str | None = None, *, need: float = 110) -> None:
        """A section's head with its bookmark; never alone at the foot of a page."""
        if self.y < self.height - self.margin - 1:
            self.y -= 18
        self.ensure(need)
        self.bookmark(title, level=0)
        self.y -= 14
        self.write(self.margin, self.y, title, 14, bold=True, ink=NAVY)
        self.y -= 7
        self.canvas.setStrokeColor(NAVY)
        self.canvas.setLineWidth(1)
        self.canvas.line(self.margin, self.y, self.margin + 36, self.y)
        self.y -= 4
        if intro:
            self.paragraph(intro, 8.5, ink=GREY, after=6)
        else:
            self.y -= 6

    def bookmark(self, title: str, *, level: int) -> None:
        """An outline entry that leads to the cursor."""
        key = f"p{self._page}y{self.y:.0f}l{level}"
        self.canvas.bookmarkPage(key, fit="XYZ", left=0, top=self.y + 14, zoom=0)
        self.canvas.addOutlineEntry(self.regular.show(title), key, level=level, closed=level == 0)

    def box(self, x: float, y: float, width: float, height: float, fill: Color) -> None:
        """A filled rectangle; ``y`` is its foot."""
        self.canvas.setFillColor(fill)
        self.canvas.rect(x, y, width, height, stroke=0, fill=1)

    def close(self) -> bytes:
        """Finish the last page and give the document."""
        self.canvas.beginForm(_PAGE_COUNT, 0, -4, 60, 12)
        self.write(0, 0, str(self._page), 7, ink=GREY)
        self.canvas.endForm()
        self.canvas.showPage()
        self.canvas.save()
        return self._buffer.getvalue()

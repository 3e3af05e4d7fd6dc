"""The paper: a reportlab document with a cursor, page furniture and a few ways to write.

reportlab keeps the document (pages, fonts, links, outline); what stands on a
page is written as operators here.  No markup parser ever sees scan data.
"""

from __future__ import annotations

import hashlib
from io import BytesIO
from typing import Any

from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from languages.language import Language
from renderers.fonts import BOLD, REGULAR
from renderers.pdf_file import Bookmark, Page, PdfFile
from renderers.pdf_inks import GREY, INK, LINK, RULE, Ink, accent_of
from renderers.pdf_text import PdfText
from renderers.typeface import Typeface
from renderers.visible import prose
from schemas.presentation import Presentation

MARGIN = 48.0
WIDE_MARGIN = 30.0
FOOT = 40.0

_MARKS = "‘’“”„–—…•‹›"
"""Beside a language's own letters, what texts in any language often have."""


class Sheet:
    """One PDF document while it is drawn; ``close`` returns its bytes.

    ``y`` is the cursor: the base of the space already used, from the top down.
    """

    def __init__(
        self, *, title: str, subject: str, footer: str, t: Language, presentation: Presentation
    ) -> None:
        self.regular = Typeface(REGULAR)
        self.bold = Typeface(BOLD)
        canvas: Any = Canvas  # its types leave out what is needed here
        self._canvas = canvas(
            BytesIO(),
            pagesize=A4,
            invariant=1,
            pageCompression=1,
            lang=t.code,
            initialFontName=REGULAR,
        )
        # reportlab's date and document id follow SOURCE_DATE_EPOCH; same inputs, same bytes.
        self._canvas._doc._timeStamp.YMDhms = (2000, 1, 1, 0, 0, 0)
        self._canvas._doc.signature = hashlib.md5(b"scanherald", usedforsecurity=False)
        letters = _MARKS + t.letters
        self.text = PdfText(self._canvas._doc, (self.regular, self.bold), letters)
        self._selected: dict[tuple[str, float], str] = {}
        self._canvas.setTitle(self.bold.show(title))
        self._canvas.setAuthor(self.regular.show(presentation.organisation) or "scanherald")
        self._canvas.setCreator("scanherald")
        self._canvas.setSubject(self.regular.show(subject))
        self.t = t
        self.presentation = presentation
        self.accent = accent_of(presentation.accent)
        self._logo = ImageReader(BytesIO(presentation.logo)) if presentation.logo else None
        self._footer = self._shortened(footer)
        self._imprint = self._shortened(presentation.footer)
        self._pages: list[Page] = []

    @property
    def text_width(self) -> float:
        """Points between the margins."""
        return self.width - 2 * self.margin

    @property
    def at_top(self) -> bool:
        """Whether nothing stands on this page yet."""
        return self.y >= self.height - self.margin - 1

    def next_page(self) -> None:
        """Go to the top of a fresh page of the same shape."""
        self.turn(wide=self.wide)

    def turn(self, *, wide: bool = False, furnished: bool = True) -> None:
        """Go to the top of a fresh page, upright or ``wide``; ``furnished`` with its foot."""
        self.wide = wide
        self.width, self.height = (A4[1], A4[0]) if wide else A4
        self.margin = WIDE_MARGIN if wide else MARGIN
        self.y = self.height - self.margin
        page = Page(self.width, self.height)
        self._pages.append(page)
        self._page = page
        self.put = page.operators.append
        if furnished:
            self._foot()

    def ensure(self, height: float) -> None:
        """Go to a fresh page where less than ``height`` points are left."""
        if self.y - height < FOOT + 12:
            self.next_page()

    def _foot(self) -> None:
        end = self.width - self.margin
        self.rule(self.margin, FOOT, end, FOOT, RULE, 0.5)
        self.write_line(end, FOOT - 11, self._footer, 7, ink=GREY, right=True)
        if self._imprint:
            self.write_line(self.margin, FOOT - 21, self._imprint, 7, ink=GREY)
        self._page.numbers.append(("", self.margin, FOOT - 11))

    def _shortened(self, text: str) -> str:
        """One line that fits the foot of an upright page."""
        room = A4[0] - 2 * MARGIN - 100
        return self.regular.clip(self.regular.show(prose(text)), 7, room)[0]

    def select(self, face: Typeface, size: float) -> str:
        """The operator that chooses a face."""
        key = (face.name, size)
        known = self._selected.get(key)
        if known is None:
            known = self._selected[key] = self.text.select(face, size)
        return known

    def write(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        *,
        bold: bool = False,
        ink: Ink = INK,
        right: bool = False,
    ) -> None:
        """One line of text at a point; ``right`` ends it there instead."""
        shown = (self.bold if bold else self.regular).show(text)
        self.write_line(x, y, shown, size, bold=bold, ink=ink, right=right)

    def write_line(
        self,
        x: float,
        y: float,
        line: str,
        size: float,
        *,
        bold: bool = False,
        ink: Ink = INK,
        right: bool = False,
    ) -> None:
        """Like ``write``, of a line that ``Typeface.wrap`` gave.

        It is visible already and may begin with a mark of direction of our own,
        which ``write`` would take for the data's and show.
        """
        face = self.bold if bold else self.regular
        start = x - face.width(line, size) if right else x
        self.put(
            f"BT {ink} rg {self.select(face, size)} {start:.2f} {y:.2f} Td "
            f"{self.text.line(face, line, size)} ET"
        )

    def paragraph(
        self,
        text: str,
        size: float = 9,
        *,
        bold: bool = False,
        ink: Ink = INK,
        indent: float = 0,
        width: float | None = None,
        leading: float = 1.42,
        after: float = 4,
        most: int | None = None,
        url: str = "",
    ) -> None:
        """Running text from the cursor down, over pages where needed.

        ``most`` cuts it to so many lines, with an ellipsis.  An https ``url``, of
        a rule's source and never of a scan, makes a link of it.
        """
        face = self.bold if bold else self.regular
        room = width if width is not None else self.text_width - indent
        shown = face.show(prose(text))
        lines = face.wrap(shown, size, room) if most is None else face.clip(shown, size, room, most)
        step = size * leading
        for line in lines:
            self.ensure(step)
            self.y -= step
            x = self.margin + indent
            linked = url.startswith("https://")
            self.write_line(x, self.y, line, size, bold=bold, ink=LINK if linked else ink)
            if linked:
                box = (x, self.y - 2, x + face.width(line, size), self.y + size)
                self._page.links.append((url, box))
        self.y -= after

    def section(self, key: str, title: str, intro: str | None = None, *, need: float = 110) -> None:
        """A section's head with its bookmark ``key``; never alone at the foot of a page."""
        if not self.at_top:
            self.y -= 18
        self.ensure(need)
        self.bookmark(key, title, level=0)
        self.y -= 14
        self.write(self.margin, self.y, title, 14, bold=True, ink=self.accent.head)
        self.y -= 7
        self.rule(self.margin, self.y, self.margin + 36, self.y, self.accent.head, 1)
        self.y -= 4
        if intro:
            self.paragraph(intro, 8.5, ink=GREY, after=6)
        else:
            self.y -= 6

    def bookmark(self, key: str, title: str, *, level: int) -> None:
        """A place that links lead to by ``key``, with an outline entry: the cursor."""
        mark = Bookmark(key, self.regular.show(title), level, self.y + 14)
        self._page.bookmarks.append(mark)

    def link(self, key: str, y: float, height: float) -> None:
        """Make a strip of the page, from margin to margin, lead to the bookmark ``key``."""
        self._page.links.append((key, (self.margin, y, self.width - self.margin, y + height)))

    def page_number_of(self, key: str, x: float, y: float) -> None:
        """The page of the bookmark ``key``, which may come later, ending at ``x``."""
        self._page.numbers.append((key, x, y))

    def box(self, x: float, y: float, width: float, height: float, fill: Ink) -> None:
        """A filled rectangle; ``y`` is its foot."""
        self.put(f"{fill} rg {x:.2f} {y:.2f} {width:.2f} {height:.2f} re f")

    def rule(
        self, x: float, y: float, to_x: float, to_y: float, stroke: Ink, thickness: float
    ) -> None:
        """A straight line."""
        self.put(f"{stroke} RG {thickness:g} w {x:.2f} {y:.2f} m {to_x:.2f} {to_y:.2f} l S")

    def logo(self, x: float, y: float, width: float, height: float) -> None:
        """The organisation's logo, if there is one, within a box whose foot is ``y``."""
        self._page.logos.append((x, y, width, height))

    def close(self) -> bytes:
        """Number the pages and give the document."""
        place_of = {
            mark.key: place for place, page in enumerate(self._pages, 1) for mark in page.bookmarks
        }
        file = PdfFile(self._canvas._doc, self._pages)
        for place, page in enumerate(self._pages):
            self.put = page.operators.append
            for key, x, y in page.numbers:
                if key:
                    self.write(x, y, str(place_of[key]), 8.5, right=True)
                else:
                    told = f"{self.t['page']} {place + 1} {self.t['of']} {len(self._pages)}"
                    self.write(x, y, told, 7, ink=GREY)
            pictures = self._draw_logos(page)
            drawn = "\n".join(page.operators).encode("ascii")
            page.operators.clear()  # a long report is held once
            file.write_page(place, page, drawn, pictures)
        return file.close()

    def _draw_logos(self, page: Page) -> str:
        """Have reportlab draw the images of a page: the dictionary of their names."""
        if self._logo is None or not page.logos:
            return ""
        canvas = self._canvas
        for x, y, width, height in page.logos:
            canvas.drawImage(self._logo, x, y, width, height, mask="auto", preserveAspectRatio=True)
        page.operators += canvas._code
        canvas._code.clear()
        names: bytes = canvas._doc.xobjDict(canvas._formsinuse).format(canvas._doc)
        return names.decode("ascii")

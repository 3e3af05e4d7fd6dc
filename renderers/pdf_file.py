"""The PDF file around the drawn pages: their links, the outline, the page objects.

reportlab numbers the objects and writes the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from reportlab.pdfbase.pdfdoc import BasicFonts

from renderers.pdf_objects import Document, Ready, add, literal, reference, reserve, stream

Box: TypeAlias = tuple[float, float, float, float]
"""Left, foot, right, top."""

_LEVEL = 3
"""Of compression: a tenth less time for the whole report than by default, 6 % more bytes."""


@dataclass(slots=True)
class Bookmark:
    """A place that links and an outline entry lead to."""

    key: str
    title: str
    level: int
    """0, or 1 for what belongs to the last one of level 0."""
    top: float
    """From the foot of the page."""


@dataclass(slots=True)
class Page:
    """One page until the file is written: only then are all page numbers known."""

    width: float
    height: float
    operators: list[str] = field(default_factory=list)
    links: list[tuple[str, Box]] = field(default_factory=list)
    """Keys of bookmarks, or https addresses, with the part of the page that leads there."""
    bookmarks: list[Bookmark] = field(default_factory=list)
    logos: list[Box] = field(default_factory=list)
    """Each: left, foot, width, height."""
    numbers: list[tuple[str, float, float]] = field(default_factory=list)
    """Keys of bookmarks whose page is told here, each with the point where it ends."""


class _Outline(Ready):
    """The root of the outline, as reportlab's document wants to find it."""

    ready = 1

    def prepare(self, _document: Document, _canvas: Any) -> None:
        """Nothing is left to do."""


class PdfFile:
    """The pages of one document, numbered from the start so that links may lead forward."""

    def __init__(self, document: Document, pages: Sequence[Page]) -> None:
        self._document = document
        self._objects = [Ready() for _ in pages]
        self._targets: dict[str, str] = {}
        for page, made in zip(pages, self._objects, strict=True):
            document.addPage(made)
            number = document.objectcounter
            for mark in page.bookmarks:
                self._targets[mark.key] = f"[{number} 0 R /XYZ 0 {mark.top:.2f} 0]"
        self._tree = reference(document, document.Pages)
        self._fonts = reference(document, document.idToObject[BasicFonts])
        self._write_outline([mark for page in pages for mark in page.bookmarks])

    def write_page(self, place: int, page: Page, drawn: bytes, pictures: str) -> None:
        """Give the page at ``place`` its content; ``pictures`` is a dictionary of images or empty.

        Its contents go compressed and its operators away: a long report is held once.
        """
        document = self._document
        contents = add(document, stream(drawn, _LEVEL))
        notes = " ".join(f"{add(document, note.encode('ascii'))} 0 R" for note in self._notes(page))
        self._objects[place].content = (
            f"<< /Type /Page /Parent {self._tree} "
            f"/MediaBox [0 0 {page.width:.4f} {page.height:.4f}] /Contents {contents} 0 R "
            f"/Resources << /Font {self._fonts} /ProcSet [/PDF /Text /ImageB /ImageC /ImageI]"
            f"{f' /XObject {pictures}' if pictures else ''} >>"
            f"{f' /Annots [{notes}]' if notes else ''} >>"
        ).encode("ascii")

    def close(self) -> bytes:
        """The whole file, fonts included."""
        made: bytes = self._document.GetPDFData(None)
        return made

    def _notes(self, page: Page) -> Iterable[str]:
        for target, (left, foot, right, top) in page.links:
            leads = (
                f"/A << /Type /Action /S /URI /URI {literal(target)} >>"
                if target.startswith("https://")
                else f"/Dest {self._targets[target]}"
            )
            yield (
                f"<< /Type /Annot /Subtype /Link /Border [0 0 0] "
                f"/Rect [{left:.2f} {foot:.2f} {right:.2f} {top:.2f}] {leads} >>"
            )

    def _write_outline(self, marks: Sequence[Bookmark]) -> None:
        """The outline; what stands below a section is folded."""
        document = self._document
        root = _Outline()
        top = reserve(document, root)
        entries = {reserve(document, entry): (entry, mark) for mark in marks if (entry := Ready())}
        families: dict[int, list[int]] = {top: []}
        for number, (_, mark) in entries.items():
            parent = families[top][-1] if mark.level else top
            families.setdefault(parent, []).append(number)
        for parent, family in families.items():
            for before, number, after in zip((0, *family), family, (*family[1:], 0), strict=False):
                entry, mark = entries[number]
                entry.content = (
                    f"<< /Title {literal(mark.title)} /Parent {parent} 0 R "
                    f"/Dest {self._targets[mark.key]}"
                    f"{f' /Prev {before} 0 R' if before else ''}"
                    f"{f' /Next {after} 0 R' if after else ''}"
                    f"{_ends(families[number], -1) if number in families else ''} >>"
                ).encode("ascii")
        root.content = f"<< /Type /Outlines{_ends(families[top], 1)} >>".encode("ascii")
        document.Outlines = document.Catalog.Outlines = root


def _ends(family: Sequence[int], sign: int) -> str:
    return f" /First {family[0]} 0 R /Last {family[-1]} 0 R /Count {sign * len(family)}"

"""Shaped runs in the PDF: fonts addressed by glyph, and the text that they stand for.

reportlab embeds characters; what HarfBuzz has shaped is glyphs.  So each font
of a shaped run becomes a composite font of its own (Identity-H), embedded as
HarfBuzz's subset of the glyphs that were drawn.  Readers, search and copying
get the text by a ToUnicode map, and by /ActualText where a glyph stands for
other characters than it did before.  All state is one document's, so the bytes
do not depend on what was drawn before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from operator import attrgetter

import uharfbuzz as hb
from reportlab.pdfbase import pdfdoc
from reportlab.pdfbase.pdfdoc import PDFArray, PDFDictionary, PDFName, PDFStream

from renderers.fonts import FontFile, font_file
from renderers.pdf_objects import Document
from renderers.shaping import Glyph, GlyphRun

_DROPPED = tuple(
    int.from_bytes(tag.encode("ascii"), "big")
    for tag in ("GSUB", "GPOS", "GDEF", "kern", "name", "OS/2", "cmap", "post", "gasp", "DSIG")
)
"""Tables that a composite font's reader has no use for."""

_SYMBOLIC = 4
_CODES_PER_BLOCK = 100
"""A CMap holds at most so many entries in one block (Adobe Technical Note 5014)."""


class GlyphFonts:
    """The composite fonts of one document, by font file."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._fonts: dict[str, _GlyphFont] = {}

    def code(self, run: GlyphRun, size: float) -> str:
        """PDF operators that draw ``run`` at the current point and go on behind it."""
        font = self._fonts.get(run.font)
        if font is None:
            font = self._fonts[run.font] = _GlyphFont(font_file(run.font), len(self._fonts))
            self._document.delayedFonts.append(font)
        return font.code(run, size)


class _GlyphFont:
    """One font file in one document: the glyphs drawn so far and what they mean."""

    def __init__(self, file: FontFile, place: int) -> None:
        self._file = file
        self._name = f"G{place}"
        # A subset's tag is six capitals, unlike any other of the document.
        self._base_font = f"GLYPH{chr(ord('A') + place)}+{file.name}"
        self._meaning: dict[int, str] = {}
        self._widths: dict[int, int] = {}

    def code(self, run: GlyphRun, size: float) -> str:
        pen = _Pen(size)
        told = True
        read: list[str] = []
        for glyph, text in _meanings(run):
            told &= self._learn(glyph, text) and not glyph.y_offset
            read.append(text)
            pen.draw(glyph, self._width(glyph.glyph_id))
        pen.end()
        shown = f"/{self._name} {size:g} Tf {' '.join(pen.parts)}"
        if run.right_to_left or (told and "".join(read) == run.text):
            return shown
        actual = run.text.encode("utf-16-be").hex().upper()
        return f"/Span <</ActualText <FEFF{actual}>>> BDC {shown} EMC"

    def _learn(self, glyph: Glyph, text: str) -> bool:
        """Note what a glyph stands for; whether a reader will take it for just that."""
        known = self._meaning.setdefault(glyph.glyph_id, text)
        return bool(text) and known == text

    def _width(self, glyph_id: int) -> int:
        width = self._widths.get(glyph_id)
        if width is None:
            advance = self._file.font.get_glyph_h_advance(glyph_id)
            width = self._widths[glyph_id] = round(advance * self._file.scale)
        return width

    def addObjects(self, document: Document) -> None:
        """Put the font into the document; reportlab calls this when it is saved."""
        to_unicode = _stream(document, _to_unicode(self._meaning))
        font = PDFDictionary({
            "Type": PDFName("Font"),
            "Subtype": PDFName("Type0"),
            "BaseFont": PDFName(self._base_font),
            "Encoding": PDFName("Identity-H"),
            "DescendantFonts": PDFArray([self._descendant(document)]),
            "ToUnicode": document.Reference(to_unicode, f"toUnicode:{self._base_font}"),
        })  # fmt: skip
        fonts = document.idToObject[pdfdoc.BasicFonts].dict
        fonts[self._name] = document.Reference(font, f"font:{self._base_font}")

    def _descendant(self, document: Document) -> object:
        widths: list[object] = []
        for glyph_id in sorted(self._widths):
            widths += [glyph_id, PDFArray([self._widths[glyph_id]])]
        descendant = PDFDictionary({
            "Type": PDFName("Font"),
            "Subtype": PDFName("CIDFontType2"),
            "BaseFont": PDFName(self._base_font),
            "CIDSystemInfo": PDFDictionary({
                "Registry": pdfdoc.PDFString("Adobe"),
                "Ordering": pdfdoc.PDFString("Identity"),
                "Supplement": 0,
            }),
            "FontDescriptor": document.Reference(
                self._descriptor(document), f"descriptor:{self._base_font}"
            ),
            "DW": 1000,
            "W": PDFArray(widths),
            "CIDToGIDMap": PDFName("Identity"),
        })  # fmt: skip
        return document.Reference(descendant, f"cidFont:{self._base_font}")

    def _descriptor(self, document: Document) -> PDFDictionary:
        data = self._subset()
        embedded = _stream(document, data)
        embedded.dictionary["Length1"] = len(data)
        scale = self._file.scale
        extents = self._file.font.get_font_extents("ltr")
        ascent, descent = round(extents.ascender * scale), round(extents.descender * scale)
        return PDFDictionary({
            "Type": PDFName("FontDescriptor"),
            "FontName": PDFName(self._base_font),
            "Flags": _SYMBOLIC,
            "FontBBox": PDFArray([-1000, descent, 2000, ascent]),
            "ItalicAngle": 0,
            "Ascent": ascent,
            "Descent": descent,
            "CapHeight": ascent,
            "StemV": 80,
            "FontFile2": document.Reference(embedded, f"fontFile:{self._base_font}"),
        })  # fmt: skip

    def _subset(self) -> bytes:
        """The drawn glyphs under their own numbers, as a TrueType file."""
        wanted = hb.SubsetInput()
        wanted.flags = (
            hb.SubsetFlags.RETAIN_GIDS
            | hb.SubsetFlags.NO_HINTING
            | hb.SubsetFlags.NO_LAYOUT_CLOSURE
            | hb.SubsetFlags.NOTDEF_OUTLINE
        )
        wanted.glyph_set.update(self._widths)
        wanted.drop_table_tag_set.update(_DROPPED)
        return bytes(hb.subset(self._file.face, wanted).blob.data)


class _Pen:
    """Draws glyphs by TJ operators: moves between them, and rises for marks."""

    def __init__(self, size: float) -> None:
        self.parts: list[str] = []
        self._size = size
        self._line: list[str] = []
        self._rise = 0
        self._behind = 0.0
        """How far the next glyph's place lies beyond the current point."""

    def draw(self, glyph: Glyph, width: int) -> None:
        """One glyph; ``width`` is how far it moves the point by itself."""
        rise = round(glyph.y_offset)
        if rise != self._rise:
            self.flush()
            self._rise = rise
            self.parts.append(f"{rise * self._size / 1000:.3f} Ts")
        self._behind += glyph.x_offset
        self._move()
        self._line.append(f"<{glyph.glyph_id:04X}>")
        self._behind += glyph.advance - width - glyph.x_offset

    def _move(self) -> None:
        if whole := round(self._behind):
            self._line.append(f"{-whole}")
            self._behind -= whole

    def flush(self) -> None:
        """Put what is drawn so far into an operator of its own."""
        if self._line:
            self.parts.append(f"[{''.join(self._line)}] TJ")
            self._line = []

    def end(self) -> None:
        """Leave the point behind the last glyph, on the line."""
        self._move()
        self.flush()
        if self._rise:
            self.parts.append("0 Ts")


def _meanings(run: GlyphRun) -> Iterator[tuple[Glyph, str]]:
    """Each glyph with the characters that it stands for; none where another glyph has them.

    A cluster is the least that glyphs and characters have in common: paired
    where it has as many of the one as of the other, else its widest glyph, the
    letter among its marks, has all.  Both are in visual order: readers (PDFium,
    Poppler and MuPDF alike) take what stands on a page for that, and turn around
    what runs from right to left, the several characters of one glyph too.
    """
    starts = sorted({glyph.cluster for glyph in run.glyphs})
    ends = dict(pairwise([*starts, len(run.text)]))
    for start, group in groupby(run.glyphs, attrgetter("cluster")):
        glyphs = list(group)
        text = run.text[start : ends[start]]
        if run.right_to_left:
            text = text[::-1]
        if len(glyphs) == len(text):
            yield from zip(glyphs, _paired(glyphs, text, font_file(run.font)), strict=True)
            continue
        widest = max(glyphs, key=attrgetter("advance"))
        for glyph in glyphs:
            yield glyph, text if glyph is widest else ""


def _paired(glyphs: Sequence[Glyph], text: str, file: FontFile) -> Iterator[str]:
    """A character for each glyph: its own where it shows one of them, else the next that is left.

    HarfBuzz may put the marks of a letter in another order than the text has.
    """
    left = list(text)
    own: list[str | None] = []
    for glyph in glyphs:
        found = next((c for c in left if file.nominal(c) == glyph.glyph_id), None)
        if found is not None:
            left.remove(found)
        own.append(found)
    return (left.pop(0) if char is None else char for char in own)


def _stream(document: Document, content: bytes) -> PDFStream:
    stream = PDFStream(content=content)
    if document.compression:
        stream.filters = [pdfdoc.PDFZCompress]
    return stream


def _to_unicode(meaning: dict[int, str]) -> bytes:
    entries = [
        f"<{glyph_id:04X}> <{text.encode('utf-16-be').hex().upper()}>"
        for glyph_id, text in sorted(meaning.items())
        if text
    ]
    blocks = [
        entries[place : place + _CODES_PER_BLOCK]
        for place in range(0, len(entries), _CODES_PER_BLOCK)
    ]
    lines = [
        "/CIDInit /ProcSet findresource begin",
        "12 dict begin",
        "begincmap",
        "/CIDSystemInfo <</Registry (Adobe) /Ordering (UCS) /Supplement 0>> def",
        "/CMapName /Adobe-Identity-UCS def",
        "/CMapType 2 def",
        "1 begincodespacerange",
        "<0000> <FFFF>",
        "endcodespacerange",
    ]
    for block in blocks:
        lines += [f"{len(block)} beginbfchar", *block, "endbfchar"]
    lines += ["endcmap", "CMapName currentdict /CMap defineresource pop", "end", "end"]
    return "\n".join(lines).encode("ascii")

"""How a text face is embedded: subsets of one byte per character, made once per process.

reportlab chooses the characters' codes and cuts the font.  Most reports need the
same characters, so what it cut is remembered, compressed and as ready bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from reportlab.lib.rl_accel import fp_str
from reportlab.pdfbase.pdfdoc import BasicFonts
from reportlab.pdfbase.ttfonts import SUBSETN, TTFont, makeToUnicodeCMap

from renderers.pdf_objects import Document, Ready, add, stream

_LEVEL = 6
"""Of compression: packed once for many reports, so the bytes count and not the time."""
_KNOWN_SUBSETS = 24
"""Each takes some 25 kB."""

_SYMBOLIC, _NONSYMBOLIC = 4, 32
"""Flags of a font descriptor: a subset's codes are its own, no standard encoding."""


class TextFace(TTFont):
    """A text face, which reportlab asks to embed itself when a document is saved."""

    def addObjects(self, doc: Document) -> None:
        """Put every subset that the document uses into it."""
        fonts = doc.idToObject[BasicFonts].dict
        for place, subset in enumerate(self.state[doc].subsets):
            name = self.getSubsetInternalName(place, doc)[1:]
            cut = _cut(self, place, tuple(subset))
            file, to_unicode = add(doc, cut.file), add(doc, cut.to_unicode)
            descriptor = add(doc, (cut.descriptor % file).encode("ascii"))
            font = Ready()
            font.content = (cut.font % (name, descriptor, to_unicode)).encode("ascii")
            fonts[name] = doc.Reference(font, name)
        del self.state[doc]


@dataclass(frozen=True, slots=True)
class _Cut:
    """A subset as objects of a PDF; %d and %s stand for what each document numbers."""

    file: bytes
    to_unicode: bytes
    descriptor: str
    font: str


@lru_cache(_KNOWN_SUBSETS)
def _cut(font: TTFont, place: int, subset: tuple[int, ...]) -> _Cut:
    face = font.face
    # A subset's tag is six capitals, unlike any other of the document.
    base_font = b"".join((SUBSETN(place), b"+", face.name, face.subfontNameX)).decode("ascii")
    file = face.makeSubset(subset)
    bounds = fp_str(*face.bbox)
    widths = fp_str(*map(face.getCharWidth, subset))
    return _Cut(
        file=stream(file, _LEVEL, f" /Length1 {len(file)}"),
        to_unicode=stream(makeToUnicodeCMap(base_font, subset).encode("ascii"), _LEVEL),
        descriptor=(
            f"<< /Type /FontDescriptor /FontName /{base_font} "
            f"/Flags {face.flags & ~_NONSYMBOLIC | _SYMBOLIC} /FontBBox [{bounds}] "
            f"/ItalicAngle {fp_str(face.italicAngle)} /Ascent {fp_str(face.ascent)} "
            f"/Descent {fp_str(face.descent)} /CapHeight {fp_str(face.capHeight)} "
            f"/StemV {fp_str(face.stemV)} /MissingWidth {fp_str(face.defaultWidth)} "
            f"/FontFile2 %d 0 R >>"
        ),
        font=(
            f"<< /Type /Font /Subtype /TrueType /Name /%s /BaseFont /{base_font} "
            f"/FirstChar 0 /LastChar {len(subset) - 1} /Widths [{widths}] "
            f"/FontDescriptor %d 0 R /ToUnicode %d 0 R >>"
        ),
    )

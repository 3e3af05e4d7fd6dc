"""Lines of text as PDF operators: the one place that knows how characters become bytes.

The text face is embedded by reportlab with one byte per character; printable
ASCII keeps its own codes, so most lines are copied as they stand.  Everything
else is drawn by glyph (``pdf_glyphs``).
"""

from __future__ import annotations

from collections.abc import Iterable

from reportlab.lib.rl_accel import escapePDF

from renderers.fonts import text_face
from renderers.pdf_faces import TextFace
from renderers.pdf_glyphs import GlyphFonts
from renderers.pdf_objects import ESCAPED, Document
from renderers.shaping import GlyphRun
from renderers.typeface import Typeface

_ASCII = {code: chr(code).translate(ESCAPED) for code in range(0x20, 0x7F)}


class PdfText:
    """The text of one document."""

    def __init__(self, document: Document, faces: Iterable[Typeface], letters: str) -> None:
        """``letters`` are likely to be drawn: with codes of their own from the start, the fonts
        of most documents are the same, and cut once per process."""
        self._document = document
        self._codes = {face.name: _Codes(text_face(face.name), document) for face in faces}
        for face in faces:
            "".join(filter(face.is_plain, letters)).translate(self._codes[face.name])
        self._glyphs = GlyphFonts(document)

    def select(self, face: Typeface, size: float) -> str:
        """The operator that chooses a face, as ``line`` expects to find it."""
        return f"{self._name(face, 0)} {size:g} Tf"

    def line(self, face: Typeface, text: str, size: float) -> str:
        """Operators that show ``text`` at the current point; ``face`` is selected before and after.

        The text is shown as it is given: ``Typeface.show`` has made it visible.
        """
        if text.isascii():
            return show_ascii(text)
        if face.is_plain(text):
            return self._plain(face, text, size)
        return " ".join(
            f"{self._glyphs.code(run, size)} {self.select(face, size)}"
            if isinstance(run, GlyphRun)
            else self._plain(face, run.text, size)
            for run in face.runs(text)
        )

    def _plain(self, face: Typeface, text: str, size: float) -> str:
        codes = self._codes[face.name]
        shown = text.translate(codes)
        if codes.elsewhere.isdisjoint(text):
            return f"({shown}) Tj"
        parts: list[str] = []
        selected = 0
        for subset, shown in codes.split(text):
            if subset != selected:
                parts.append(f"{self._name(face, subset)} {size:g} Tf")
                selected = subset
            parts.append(f"({shown}) Tj")
        if selected:
            parts.append(self.select(face, size))
        return " ".join(parts)

    def _name(self, face: Typeface, subset: int) -> str:
        name: str = text_face(face.name).getSubsetInternalName(subset, self._document)
        return name


def show_ascii(text: str) -> str:
    """The operator that shows visible ASCII, the same in every document."""
    if "(" in text or ")" in text or "\\" in text:
        text = text.translate(ESCAPED)
    return f"({text}) Tj"


class _Codes(dict[int, str]):
    """What stands in a string for each character of a face, by code point: a byte, escaped.

    Fills as it is used.  reportlab gives the bytes, in subsets of 256.
    """

    def __init__(self, font: TextFace, document: Document) -> None:
        super().__init__(_ASCII)
        self._font = font
        self._document = document
        self.elsewhere: set[str] = set()
        """Characters that the first subset does not have."""

    def __missing__(self, code: int) -> str:
        ((subset, shown),) = self.split(chr(code))
        if subset:
            self.elsewhere.add(chr(code))
        self[code] = shown
        return shown

    def split(self, text: str) -> list[tuple[int, str]]:
        """Pieces of one subset each, with its number."""
        pieces = self._font.splitString(text, self._document)
        return [(subset, escapePDF(codes)) for subset, codes in pieces]

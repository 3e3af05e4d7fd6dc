"""Lines of text as PDF operators: the one place that knows how characters become bytes.

The text face is embedded by reportlab with one byte per character; printable
ASCII keeps its own codes, so most lines are copied as they stand.  Everything
else is drawn by glyph (``pdf_glyphs``).
"""

from __future__ import annotations

from collections.abc import Iterable

from reportlab.lib.rl_accel import escapePDF

from renderers.fonts import text_face
from renderers.pdf_glyphs import GlyphFonts
from renderers.pdf_objects import Document
from renderers.shaping import GlyphRun
from renderers.typeface import Typeface

_ESCAPED = str.maketrans({"\\": "\\\\", "(": "\\(", ")": "\\)"})


class PdfText:
    """The text of one document."""

    def __init__(self, document: Document, faces: Iterable[Typeface], letters: str) -> None:
        """``letters`` are likely to be drawn: with codes of their own from the start, the fonts
        of most documents are the same, and cut once per process."""
        self._document = document
        for face in faces:
            plain = "".join(filter(face.is_plain, letters))
            text_face(face.name).splitString(plain, document)
        self._glyphs = GlyphFonts(document)

    def select(self, face: Typeface, size: float) -> str:
        """The operator that chooses a face, as ``line`` expects to find it."""
        return f"{self._name(face, 0)} {size:g} Tf"

    def line(self, face: Typeface, text: str, size: float) -> str:
        """Operators that show ``text`` at the current point; ``face`` is selected before and after.

        The text is shown as it is given: ``Typeface.show`` has made it visible.
        """
        if text.isascii():
            return f"({text.translate(_ESCAPED)}) Tj"
        if face.is_plain(text):
            return self._plain(face, text, size)
        return " ".join(
            f"{self._glyphs.code(run, size)} {self.select(face, size)}"
            if isinstance(run, GlyphRun)
            else self._plain(face, run.text, size)
            for run in face.runs(text)
        )

    def _plain(self, face: Typeface, text: str, size: float) -> str:
        parts: list[str] = []
        selected = 0
        for subset, codes in text_face(face.name).splitString(text, self._document):
            if subset != selected:
                parts.append(f"{self._name(face, subset)} {size:g} Tf")
                selected = subset
            parts.append(f"({escapePDF(codes)}) Tj")
        if selected:
            parts.append(self.select(face, size))
        return " ".join(parts)

    def _name(self, face: Typeface, subset: int) -> str:
        name: str = text_face(face.name).getSubsetInternalName(subset, self._document)
        return name

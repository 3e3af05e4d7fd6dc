"""Type in the PDF: two embedded fonts, registered once per process, measured once per document.

A character the font cannot draw is shown as a visible mark, never as a black box
or a blank.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from reportlab import rl_config
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont, TTFontFace

from renderers.visible import Marks, visible

FOLDER = Path(__file__).parent / "fonts"
REGULAR = "DejaVuSans"
BOLD = "DejaVuSans-Bold"

_JOINTS = frozenset("/-_.,;:&?=›")
"""Where a long word is broken rather than anywhere."""


@cache
def register_fonts() -> None:
    """Load both fonts into reportlab; the first call takes about 50 ms."""
    # ASCII85 wraps binary streams in text: a third more bytes and pure cost.
    rl_config.useA85 = 0
    for name in (REGULAR, BOLD):
        pdfmetrics.registerFont(_loaded(name))


@cache
def _loaded(name: str) -> TTFont:
    return _AsciiFirst(name, str(FOLDER / f"{name}.ttf"), asciiReadable=1)


class _AsciiFirst(TTFont):
    """A font that encodes printable ASCII at once.

    With ``asciiReadable`` these characters keep their own codes in the first
    subset of every document, so nothing has to be looked up or assigned.
    """

    def splitString(
        self, text: str, doc: object, encoding: str = "utf-8"
    ) -> list[tuple[int, bytes]]:
        if text.isascii() and text.isprintable() and text and doc in self.state:
            return [(0, text.encode("ascii"))]
        return super().splitString(text, doc, encoding)


class _Widths(dict[str, float]):
    """Thousandths of the type size by character."""

    def __init__(self, by_code: dict[int, float], default: float) -> None:
        super().__init__()
        self._by_code = by_code
        self._default = default

    def __missing__(self, char: str) -> float:
        width = self._by_code.get(ord(char), self._default)
        self[char] = width
        return width


class Typeface:
    """One font in one document: makes text visible, measures and wraps it.

    Memoises widths only: which bytes a character becomes depends on the
    document's font subsets and is left to reportlab.
    """

    def __init__(self, name: str) -> None:
        register_fonts()
        self.name = name
        face: TTFontFace = _loaded(name).face
        # reportlab writes a wrong ToUnicode entry beyond the basic plane: such a character would
        # be drawn, and copied or searched as another.
        self._marks = Marks({code for code in face.charToGlyph if code <= 0xFFFF})
        self._widths = _Widths(face.charWidths, face.defaultWidth)

    def show(self, text: str) -> str:
        """``text`` as this font can draw it."""
        return visible(text, self._marks)

    def width(self, text: str, size: float) -> float:
        """Points that ``text`` takes at ``size``."""
        return sum(map(self._widths.__getitem__, text)) * size / 1000

    def wrap(self, text: str, size: float, width: float) -> list[str]:
        """Lines of at most ``width`` points: broken at spaces, within longer words anywhere.

        No character but the spaces at the breaks is lost.  Linear in the text.
        """
        limit = width * 1000 / size
        measure = self._widths.__getitem__
        if sum(map(measure, text)) <= limit:
            return [text]
        space = measure(" ")
        lines: list[str] = []
        line: list[str] = []
        used = 0.0
        for word in text.split(" "):
            wide = sum(map(measure, word))
            if line and used + space + wide <= limit:
                line.append(word)
                used += space + wide
                continue
            if line:
                lines.append(" ".join(line))
            if wide > limit:
                *full, word = self._break(word, limit)
                lines += full
                wide = sum(map(measure, word))
            line, used = [word], wide
        lines.append(" ".join(line))
        return lines

    def _break(self, word: str, limit: float) -> list[str]:
        pieces: list[str] = []
        start, joint, used = 0, 0, 0.0
        for place, char in enumerate(word):
            wide = self._widths[char]
            if used + wide > limit and place > start:
                # A joint late in the line reads better; looking back is bounded by the line.
                end = joint if joint - start > (place - start) * 0.7 else place
                pieces.append(word[start:end])
                start, used = end, sum(map(self._widths.__getitem__, word[end:place]))
            used += wide
            if char in _JOINTS:
                joint = place + 1
        pieces.append(word[start:])
        return pieces

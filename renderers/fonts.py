"""The fonts of the PDF: which file draws which character.

All are static TrueType outlines, which is what a PDF embeds; ``fonts/README.md``
has their origin, licence and digest.  One text face, regular and bold, draws
Latin, Greek, Cyrillic, Hebrew and symbols; the others take over, in order,
where it has no glyph.  A file is opened at first need, once per process.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

import uharfbuzz as hb
from reportlab import rl_config
from reportlab.pdfbase import pdfmetrics

from renderers.pdf_faces import TextFace

FOLDER = Path(__file__).parent / "fonts"
REGULAR = "DejaVuSans"
BOLD = "DejaVuSans-Bold"

ARABIC = "NotoSansArabic-Regular"
_ARABIC_BLOCKS = (range(0x0600, 0x0900), range(0xFB50, 0xFE00), range(0xFE70, 0xFF00))

FALLBACKS = (
    "DroidSansFallbackFull",  # Chinese and Japanese
    "NanumGothicCoding",  # Korean
    *(
        f"NotoSans{script}-Regular"
        for script in (
            "Devanagari", "Thai", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu",
            "Kannada", "Malayalam", "Sinhala", "Khmer", "Myanmar", "Ethiopic",
        )
    ),
    "NotoEmoji-Regular",
    "NotoSansSymbols2-Regular",
)  # fmt: skip


class FontFile:
    """One font file as HarfBuzz sees it: coverage, advances, shaping, subsets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.face = hb.Face(hb.Blob.from_file_path(str(FOLDER / f"{name}.ttf")))
        self.font = hb.Font(self.face)
        self.scale = 1000 / self.face.upem
        """Thousandths of the type size per font unit."""

    def nominal(self, char: str) -> int:
        """The glyph of a character by itself; 0 where there is none."""
        return self.font.get_nominal_glyph(ord(char)) or 0

    def covers(self, char: str) -> bool:
        """Whether it draws ``char``: some fonts have empty glyphs for what they lack."""
        glyph_id = self.nominal(char)
        if not glyph_id:
            return False
        extents = self.font.get_glyph_extents(glyph_id)
        return char.isspace() or bool(extents and (extents.width or extents.height))


@cache
def font_file(name: str) -> FontFile:
    """The file of this name, opened once per process."""
    return FontFile(name)


@lru_cache(32_768)
def font_for(char: str, first: str) -> str | None:
    """The font that draws ``char``: ``first``, else a fallback; None where no font can.

    Arabic is one font's, whatever the text face knows of it: a word whose
    letters come from two would fall apart.
    """
    candidates = (ARABIC, first, *FALLBACKS) if is_arabic(char) else (first, *FALLBACKS)
    return next((name for name in candidates if font_file(name).covers(char)), None)


def is_arabic(char: str) -> bool:
    """Whether the character stands in one of the Arabic blocks."""
    return any(ord(char) in block for block in _ARABIC_BLOCKS)


@cache
def text_face(name: str) -> TextFace:
    """A text face as reportlab embeds it, one byte per character; the first call takes 30 ms."""
    # ASCII85 wraps binary streams in text: a third more bytes and pure cost.
    rl_config.useA85 = 0
    font = TextFace(name, str(FOLDER / f"{name}.ttf"), asciiReadable=1, shapable=False)
    pdfmetrics.registerFont(font)
    return font

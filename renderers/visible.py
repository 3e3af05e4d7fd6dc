"""Hostile text made harmless to the eye: what a reader cannot see is shown as a mark.

Bidirectional overrides, control characters, zero-width and blank letters can
make one cookie name look like another; ``‹U+202E›`` cannot.
"""

from __future__ import annotations

from collections.abc import Container

_BLANK_LETTERS = frozenset(
    [
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        *range(0x180B, 0x1810),
        *range(0xFE00, 0xFE10),
        *range(0xE0100, 0xE01F0),
    ]
)
"""Printable by Unicode's word, yet drawn as nothing."""

_BLANKS = frozenset(map(chr, _BLANK_LETTERS))


def mark(code: int) -> str:
    """The visible mark of a code point."""
    return f"‹U+{code:04X}›"


def is_hidden(code: int) -> bool:
    """Whether a reader would not see this code point, or would see others in the wrong order."""
    return code in _BLANK_LETTERS or not chr(code).isprintable()


def is_visible(text: str) -> bool:
    """Whether no code point of ``text`` is hidden."""
    return text.isprintable() and (text.isascii() or _BLANKS.isdisjoint(text))


class Marks(dict[int, int | str]):
    """A table for ``str.translate``: hidden code points, and those without a glyph, to marks.

    Fills as it is used; make one for each document, so that it stays small.
    """

    def __init__(self, glyphs: Container[int] | None = None) -> None:
        super().__init__()
        self._glyphs = glyphs

    def __missing__(self, code: int) -> int | str:
        drawn = self._glyphs is None or code in self._glyphs
        shown = code if drawn and not is_hidden(code) else mark(code)
        self[code] = shown
        return shown


def visible(text: str, marks: Marks) -> str:
    """``text`` with every hidden code point as its mark."""
    if text.isascii() and text.isprintable():
        return text
    return text.translate(marks)


def prose(text: str) -> str:
    """Running text: line breaks and other white space become single spaces."""
    return " ".join(text.split())

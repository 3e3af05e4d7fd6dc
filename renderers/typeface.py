"""Type in one document: makes text visible, measures it and breaks it into lines.

A character that no font can draw is shown as a visible mark, never as a black
box or a blank.  Memos live as long as the document and hold widths and shapes
only; which bytes stand for them is ``pdf_text``'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from unicodedata import combining

from renderers.fonts import font_for, text_face
from renderers.shaping import (
    GlyphRun,
    Run,
    base_direction,
    is_bidirectional,
    is_mark,
    is_plain,
    shape_line,
)
from renderers.visible import Marks, visible

_JOINTS = frozenset("/-_.,;:&?=›")
"""Where a long word is broken rather than anywhere."""

_WIDE = "\u1100-\u11ff\u2e80-\ua4cf\uac00-\ud7af\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef" + (
    "\U00020000-\U0003fffd"
)
_WIDE_OR_WORD = re.compile(f"[{_WIDE}][、。，．！？；：）」』】〉》]*|[^{_WIDE}]+")
"""Between Chinese, Japanese and Korean characters a line may end, but not before a full stop."""

ELLIPSIS = "…"

_VIRAMA = 9
"""Combining class of the sign that joins two consonants of an Indic script into one."""

_KNOWN_LINES = 2048
_KNOWN_CHARS = 400


class _Widths(dict[str, float]):
    """Thousandths of the type size by character of the text face."""

    def __init__(self, by_code: dict[int, float], default: float) -> None:
        super().__init__()
        self._by_code = by_code
        self._default = default

    def __missing__(self, char: str) -> float:
        width = self._by_code.get(ord(char), self._default)
        self[char] = width
        return width


class _Drawn:
    """The code points that a face or one of its fallbacks can draw."""

    def __init__(self, face: str) -> None:
        self._face = face

    def __contains__(self, code: object) -> bool:
        return isinstance(code, int) and font_for(chr(code), self._face) is not None


class Typeface:
    """One text face, with its fallbacks, in one document."""

    def __init__(self, name: str) -> None:
        self.name = name
        face = text_face(name).face
        self._marks = Marks(_Drawn(name))
        self._widths = _Widths(face.charWidths, face.defaultWidth)
        self._plain: set[str] = set()
        self._shaped: dict[str, list[Run]] = {}

    def show(self, text: str) -> str:
        """``text`` as the fonts can draw it."""
        return visible(text, self._marks)

    def is_plain(self, text: str) -> bool:
        """Whether the text face draws all of ``text`` as it stands."""
        if text.isascii():
            return True
        new = set(text) - self._plain
        if all(is_plain(char, self.name) for char in new):
            self._plain |= new
            return True
        return False

    def runs(self, line: str) -> list[Run]:
        """The runs of a line that is not plain, in the order they are drawn."""
        known = self._shaped.get(line)
        if known is not None:
            return known
        runs = shape_line(line, self.name)
        if len(line) <= _KNOWN_CHARS:
            if len(self._shaped) >= _KNOWN_LINES:
                self._shaped.clear()
            self._shaped[line] = runs
        return runs

    def width(self, text: str, size: float) -> float:
        """Points that ``text`` takes at ``size``."""
        return self._measure(text) * size / 1000

    def wrap(self, text: str, size: float, width: float) -> list[str]:
        """Lines of at most ``width`` points: broken at spaces, within longer words anywhere.

        No character but the spaces at the breaks is lost; the lines of a text
        that runs from right to left in part begin with a mark of the whole
        text's direction.  Linear in the text.
        """
        limit = width * 1000 / size
        if self.is_plain(text):
            return self._wrap_plain(text, limit)
        direction = base_direction(text) if is_bidirectional(text) else ""
        return [direction + line for line in self._wrap_shaped(text, limit)]

    def clip(self, text: str, size: float, width: float, most: int = 1) -> list[str]:
        """The first ``most`` lines of ``wrap``; the last ends in an ellipsis if more followed."""
        lines = self.wrap(text, size, width)
        if len(lines) <= most:
            return lines
        room = width - self.width(ELLIPSIS, size)
        return [*lines[: most - 1], self.wrap(lines[most - 1], size, room)[0] + ELLIPSIS]

    def _measure(self, text: str) -> float:
        if self.is_plain(text):
            return sum(map(self._widths.__getitem__, text))
        return sum(
            run.width if isinstance(run, GlyphRun) else self._measure(run.text)
            for run in self.runs(text)
        )

    def _wrap_plain(self, text: str, limit: float) -> list[str]:
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

    def _wrap_shaped(self, text: str, limit: float) -> Iterator[str]:
        space = self._widths[" "]
        line: str | None = None
        used = 0.0
        for glue, word in _words(text):
            between = space if glue else 0.0
            wide = self._measure(word)
            if line is not None and used + between + wide <= limit:
                line += glue + word
                used += between + wide
                continue
            if line is not None:
                yield line
            if wide > limit:
                *full, word = self._break_shaped(word, limit)
                yield from full
                wide = self._measure(word)
            line, used = word, wide
        yield line or ""

    def _break_shaped(self, word: str, limit: float) -> Iterator[str]:
        """Pieces of a word that is longer than a line, whole syllables each.

        Measured syllable by syllable: letters that join take less room, so a
        piece may end early and never runs over.
        """
        piece, used = "", 0.0
        for syllable in _syllables(word):
            wide = self._measure(syllable)
            if piece and used + wide > limit:
                yield piece
                piece, used = "", 0.0
            piece += syllable
            used += wide
        yield piece


def _words(text: str) -> Iterator[tuple[str, str]]:
    """Pieces between which a line may end, each with the space before it, if any."""
    for place, word in enumerate(text.split(" ")):
        glue = " " if place else ""
        for piece in _WIDE_OR_WORD.findall(word) or [""]:
            yield glue, piece
            glue = ""


def _syllables(word: str) -> Iterator[str]:
    """Letters with the marks they carry; consonants that a virama joins stay together."""
    start = 0
    for place in range(1, len(word)):
        if not is_mark(word[place]) and _combining(word[place - 1]) != _VIRAMA:
            yield word[start:place]
            start = place
    yield word[start:]


@lru_cache(4096)
def _combining(char: str) -> int:
    return combining(char)

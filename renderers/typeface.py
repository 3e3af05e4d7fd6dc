"""Type in one document: makes text visible, measures it and breaks it into lines.

A character that no font can draw is shown as a visible mark, never as a black
box or a blank.  Memos hold widths, shapes and broken lines only, which are the
same in every document; which bytes stand for them is ``pdf_text``'s.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import accumulate
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


_KNOWN_TEXTS = 2048
_TEXT_CHARS = range(40, 400)
"""The texts of rule packs and of well-known cookies stand in report after report: broken into
lines once per process, they take a few megabytes at most."""


class _Widths(dict[str, float]):
    """Thousandths of the type size by character of a text face; as many as it has glyphs."""

    def __init__(self, face: str) -> None:
        super().__init__()
        self._face = text_face(face).face

    def __missing__(self, char: str) -> float:
        width: float = self._face.charWidths.get(ord(char), self._face.defaultWidth)
        self[char] = width
        return width


@cache
def _widths_of(face: str) -> _Widths:
    return _Widths(face)


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
        self._marks = Marks(_Drawn(name))
        self._widths = _widths_of(name)
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
        if text.isascii() or self.is_plain(text):
            if len(text) in _TEXT_CHARS:
                return list(_wrap_known(self.name, text, limit))
            return wrap_plain(self.name, text, limit)
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


def measure(face: str, text: str) -> float:
    """Thousandths of the type size that ``text`` takes, which ``face`` draws as it stands."""
    return sum(map(_widths_of(face).__getitem__, text))


def wrap_plain(face: str, text: str, limit: float) -> list[str]:
    """Like ``Typeface.wrap``, of a text that ``face`` draws as it stands; nothing is remembered.

    ``limit`` is in thousandths of the type size.
    """
    widths = _widths_of(face)
    reach = list(accumulate(map(widths.__getitem__, text)))
    lines: list[str] = []
    start, before = 0, 0.0
    while (end := bisect_right(reach, before + limit, start)) < len(text):
        stop = end if text[end] == " " else text.rfind(" ", start, end)
        if stop < 0:
            word_end = text.find(" ", start)
            if word_end < 0:
                word_end = len(text)
            *full, rest = _break(text[start:word_end], limit, widths)
            lines += full
            start = word_end - len(rest)
            before = reach[start - 1] if start else 0.0
            # What is left of the word stands, even a letter that is wider than the line.
            end = max(bisect_right(reach, before + limit, start), word_end)
            if end == len(text):
                break
            stop = end if text[end] == " " else text.rfind(" ", start, end)
        lines.append(text[start:stop])
        start, before = stop + 1, reach[stop]
    lines.append(text[start:])
    return lines


@lru_cache(_KNOWN_TEXTS)
def _wrap_known(face: str, text: str, limit: float) -> tuple[str, ...]:
    return tuple(wrap_plain(face, text, limit))


def _break(word: str, limit: float, widths: _Widths) -> list[str]:
    pieces: list[str] = []
    start, joint, used = 0, 0, 0.0
    for place, char in enumerate(word):
        wide = widths[char]
        if used + wide > limit and place > start:
            # A joint late in the line reads better; looking back is bounded by the line.
            end = joint if joint - start > (place - start) * 0.7 else place
            pieces.append(word[start:end])
            start, used = end, sum(map(widths.__getitem__, word[end:place]))
        used += wide
        if char in _JOINTS:
            joint = place + 1
    pieces.append(word[start:])
    return pieces


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

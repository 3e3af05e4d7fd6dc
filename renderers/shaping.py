"""From a line of any script to runs that can be drawn from left to right.

The Unicode bidirectional algorithm gives each character its level, the fonts'
coverage cuts the line into runs of one font, and HarfBuzz turns a run into
glyphs.  Text that needs none of this stays a plain run.

No directional control of the data ever gets here: the reader sees them as
marks.  A line may begin with one of our own, which fixes its base direction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from unicodedata import bidirectional, category

import uharfbuzz as hb
from bidi import algorithm

from renderers.fonts import FontFile, font_file, font_for, is_arabic

LEFT_TO_RIGHT = "\u200e"
RIGHT_TO_LEFT = "\u200f"
DIRECTIONS = LEFT_TO_RIGHT + RIGHT_TO_LEFT

_RIGHTWARD = frozenset({"R", "AL", "AN"})


@dataclass(frozen=True, slots=True)
class Glyph:
    """One glyph of a shaped run, in visual order; lengths in thousandths of the type size."""

    glyph_id: int
    cluster: int
    """Place in the run's text of the first character that it stands for."""
    advance: float
    x_offset: float
    y_offset: float


@dataclass(frozen=True, slots=True)
class PlainRun:
    """Characters that the text face draws as they stand."""

    text: str


@dataclass(frozen=True, slots=True)
class GlyphRun:
    """A piece of one font and one direction, shaped."""

    text: str
    """In logical order, as it is read."""
    font: str
    right_to_left: bool
    glyphs: tuple[Glyph, ...]

    @property
    def width(self) -> float:
        """Thousandths of the type size."""
        return sum(glyph.advance for glyph in self.glyphs)


Run = PlainRun | GlyphRun


@lru_cache(32_768)
def is_plain(char: str, face: str) -> bool:
    """Whether ``face`` draws the character by itself: no shaping, no reordering, no fallback.

    Beyond the basic plane reportlab writes a wrong character code into the
    document, so such characters go the other way too.
    """
    return (
        char <= "\uffff"
        and font_file(face).covers(char)
        and not is_arabic(char)
        and not is_mark(char)
        and bidirectional(char) not in _RIGHTWARD
    )


def is_mark(char: str) -> bool:
    """Whether the character stands on or around the one before it."""
    return char > "\u02ff" and category(char).startswith("M")


def is_bidirectional(text: str) -> bool:
    """Whether any character runs from right to left."""
    return any(bidirectional(char) in _RIGHTWARD for char in text)


def base_direction(text: str) -> str:
    """The mark of the direction that ``text`` begins with, by its first strong character."""
    return RIGHT_TO_LEFT if algorithm.get_base_level(text) else LEFT_TO_RIGHT


def shape_line(line: str, face: str) -> list[Run]:
    """The runs of ``line`` in the order they are drawn, from left to right."""
    levels = _levels(line)
    pieces: list[tuple[int, Run]] = []
    start = 0
    for (level, font, plain), group in groupby(_keys(line, levels, face)):
        end = start + sum(1 for _ in group)
        text = line[start:end].strip(DIRECTIONS)
        if text:
            run = PlainRun(text) if plain else _shaped(text, font, right_to_left=level % 2 == 1)
            pieces.append((level, run))
        start = end
    return _in_visual_order(pieces)


def _levels(line: str) -> Sequence[int]:
    if not is_bidirectional(line):
        return [0] * len(line)
    storage = algorithm.get_empty_storage()
    base = algorithm.get_base_level(line)
    storage["base_level"], storage["base_dir"] = base, ("L", "R")[base]
    algorithm.get_embedding_levels(line, storage)
    algorithm.explicit_embed_and_overrides(storage)
    algorithm.resolve_weak_types(storage)
    algorithm.resolve_neutral_types(storage, False)
    algorithm.resolve_implicit_levels(storage, False)
    return [char["level"] for char in storage["chars"]]


_Key = tuple[int, str, bool]


def _keys(line: str, levels: Sequence[int], face: str) -> Iterable[_Key]:
    """For each character: level, font, whether it is plain.

    A combining mark or a sign behind a letter stays with the font before it
    where that has it, so that HarfBuzz sees words whole; a letter that carries a
    mark goes to HarfBuzz with it.  A space is the text face's, so that a line is
    as wide as its words and spaces.
    """
    font = face
    in_word = False
    for char, level, follows in zip(line, levels, line[1:] + " ", strict=True):
        own = font_for(char, face) or face
        if char.isalpha():
            font, in_word = own, True
        elif char == " " or not (in_word and font_file(font).covers(char)):
            font, in_word = own, False
        plain = level % 2 == 0 and font == face and is_plain(char, face) and not is_mark(follows)
        yield level, font, plain


def _shaped(text: str, name: str, *, right_to_left: bool) -> GlyphRun:
    return GlyphRun(text, name, right_to_left, shape(font_file(name), text, right_to_left))


def shape(file: FontFile, text: str, right_to_left: bool) -> tuple[Glyph, ...]:
    """HarfBuzz's glyphs for a piece of one script, in visual order."""
    buffer = hb.Buffer()
    buffer.add_str(text)
    buffer.guess_segment_properties()
    buffer.direction = "rtl" if right_to_left else "ltr"
    hb.shape(file.font, buffer)
    scale = file.scale
    return tuple(
        Glyph(
            info.codepoint,
            info.cluster,
            place.x_advance * scale,
            place.x_offset * scale,
            place.y_offset * scale,
        )
        for info, place in zip(buffer.glyph_infos, buffer.glyph_positions, strict=True)
    )


def _in_visual_order(pieces: Sequence[tuple[int, Run]]) -> list[Run]:
    """Rule L2 on whole runs: from the highest level down to the lowest odd one, turn around."""
    ordered = list(pieces)
    odd = [level for level, _ in ordered if level % 2]
    if not odd:
        return [run for _, run in ordered]
    for floor in range(max(level for level, _ in ordered), min(odd) - 1, -1):
        ordered = _turned(ordered, floor)
    return [run for _, run in ordered]


def _turned(pieces: Sequence[tuple[int, Run]], floor: int) -> list[tuple[int, Run]]:
    """Each unbroken stretch of levels from ``floor`` on, back to front."""

    def is_high(piece: tuple[int, Run]) -> bool:
        return piece[0] >= floor

    turned: list[tuple[int, Run]] = []
    for high, group in groupby(pieces, is_high):
        stretch = list(group)
        turned += stretch[::-1] if high else stretch
    return turned

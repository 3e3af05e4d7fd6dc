"""Lines of any script become runs in the order they are drawn, and wrap without losing anything."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from renderers.fonts import ARABIC, FALLBACKS, FOLDER, REGULAR, font_file, font_for
from renderers.shaping import (
    DIRECTIONS,
    LEFT_TO_RIGHT,
    RIGHT_TO_LEFT,
    GlyphRun,
    PlainRun,
    base_direction,
    is_plain,
    shape_line,
)
from renderers.typeface import Typeface
from tests.scripts import POINTED, SENTENCES


def texts(line: str) -> list[str]:
    return [run.text for run in shape_line(line, REGULAR)]


def test_latin_needs_no_shaping():
    assert shape_line("plain text", REGULAR) == [PlainRun("plain text")]
    assert all(is_plain(char, REGULAR) for char in "Straße Ελλάδα Привет → ★")


@pytest.mark.parametrize("char", ["א", "ا", "ी", "ก", "中", "🍪", "\u0301", "\U0001d4b3"])
def test_what_reorders_joins_stacks_or_has_another_font_is_shaped(char):
    assert not is_plain(char, REGULAR)


def test_a_letter_goes_to_the_shaper_with_the_mark_it_carries():
    assert texts("xe\u0301y") == ["x", "e\u0301", "y"]


def test_words_from_right_to_left_stand_from_right_to_left_in_a_line():
    line = "abc \u05d0\u05d1 12 \u05d2\u05d3 def"
    drawn = texts(line)
    assert drawn[0].strip() == "abc"
    assert drawn[-1].strip() == "def"
    assert drawn.index("12") > 0
    hebrew = [text.strip() for text in drawn if any("\u0590" < c < "\u0600" for c in text)]
    assert hebrew == ["\u05d2\u05d3", "\u05d0\u05d1"]


def test_a_mark_of_direction_decides_the_line_and_is_not_drawn():
    left = texts(LEFT_TO_RIGHT + "\u05d0 a")
    right = texts(RIGHT_TO_LEFT + "\u05d0 a")
    assert [text.strip() for text in left] == ["\u05d0", "a"] or left[0].startswith("\u05d0")
    assert right[0].strip() == "a"
    assert not any(mark in text for mark in DIRECTIONS for text in left + right)


@pytest.mark.parametrize(("text", "mark"), [("abc א", LEFT_TO_RIGHT), ("12 אב c", RIGHT_TO_LEFT)])
def test_the_first_strong_character_gives_the_base_direction(text, mark):
    assert base_direction(text) == mark


def test_arabic_letters_join():
    (run,) = shape_line("بيت", REGULAR)
    assert isinstance(run, GlyphRun)
    file = font_file(run.font)
    assert run.font == ARABIC
    assert run.right_to_left
    assert not {glyph.glyph_id for glyph in run.glyphs} & {file.nominal(char) for char in "بي"}


def test_devanagari_puts_the_short_i_before_its_consonant():
    (run,) = shape_line("कि", REGULAR)
    assert isinstance(run, GlyphRun)
    assert run.glyphs[-1].glyph_id == font_file(run.font).nominal("क")


@pytest.mark.parametrize("script", SENTENCES)
def test_every_sentence_has_a_font_for_every_character(script):
    assert all(font_for(char, REGULAR) for char in SENTENCES[script] if char != " ")


def test_a_font_with_an_empty_glyph_does_not_draw_it():
    assert not font_file(REGULAR).covers("\u3164")
    assert font_for("\U0001d4b3", REGULAR) is None


words = st.sampled_from([word for text in [*SENTENCES.values(), *POINTED.values()]
                         for word in text.split()])  # fmt: skip


@example("මෙම يحفظ", 29.5)  # two fonts with spaces of their own
@given(st.lists(words, min_size=1, max_size=30).map(" ".join), st.floats(20, 150))
def test_lines_of_mixed_scripts_lose_nothing_but_spaces_and_fit(text, width):
    face = Typeface(REGULAR)
    lines = [line.strip(DIRECTIONS) for line in face.wrap(text, 6, width)]
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(face.width(line, 6) <= width * 1.02 for line in lines)


def test_the_fonts_are_those_of_their_page():
    page = (FOLDER / "README.md").read_text("utf-8")
    told = dict(re.findall(r"^\| (\S+\.ttf) \|.*`([0-9a-f]{16})…`", page, re.MULTILINE))
    files = {path.name: path for path in FOLDER.glob("*.ttf")}
    assert set(told) == set(files)
    assert {f"{name}.ttf" for name in (REGULAR, ARABIC, *FALLBACKS)} <= set(files)
    for name, path in files.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(told[name])

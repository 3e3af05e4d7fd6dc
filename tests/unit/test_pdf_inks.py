"""An accent colours the PDF and never makes its text unreadable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderers.pdf_inks import NAVY, WHITE, accent_of, ink

colours = st.integers(0, 0xFFFFFF).map(lambda value: f"#{value:06x}")


def channels(operand: str) -> list[float]:
    return [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in map(float, operand.split())
    ]


def contrast(one: str, other: str) -> float:
    lights = sorted(
        0.2126 * red + 0.7152 * green + 0.0722 * blue
        for red, green, blue in (channels(one), channels(other))
    )
    return (lights[1] + 0.05) / (lights[0] + 0.05)


@given(colours)
def test_text_on_the_band_and_titles_on_white_can_be_read(colour):
    accent = accent_of(colour)
    assert contrast(accent.on_band, accent.band) >= 4.4
    assert contrast(accent.head, WHITE) >= 4.4


def test_our_own_navy_is_used_without_an_accent():
    assert accent_of("") == accent_of(NAVY)


@pytest.mark.parametrize(("colour", "operand"), [("#000000", "0 0 0"), ("#ff8000", "1 0.502 0")])
def test_a_colour_becomes_an_operand(colour, operand):
    assert ink(colour) == operand

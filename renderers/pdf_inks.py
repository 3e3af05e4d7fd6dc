"""Colours of the PDF, as its operators take them; an accent is checked for contrast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from schemas.reports import Severity

Ink: TypeAlias = str
"""Red, green and blue from 0 to 1, as an operand."""


def ink(colour: str) -> Ink:
    """``#rrggbb`` as an operand."""
    return " ".join(f"{channel / 255:.3g}" for channel in _channels(colour))


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


INK: Final = ink("#1b2433")
GREY: Final = ink("#5d6778")
RULE: Final = ink("#d5dae3")
WASH: Final = ink("#f1f4f8")
WHITE: Final = ink("#ffffff")
LINK: Final = ink("#2f5f8f")
BEFORE: Final = ink("#c2541b")
AFTER: Final = ink("#5b7db1")
UNSTATED: Final = ink("#b9c0cc")
SEVERITY_INK: Final = {
    Severity.HIGH: ink("#b3261e"),
    Severity.MEDIUM: ink("#a85f00"),
    Severity.LOW: ink("#2f5f8f"),
    Severity.INFO: ink("#5d6778"),
}

NAVY: Final = "#16243f"
_READABLE = 4.5
"""Contrast that WCAG 2 (1.4.3) asks of text."""


@dataclass(frozen=True, slots=True)
class Accent:
    """The colour of an organisation, and what can be read on it."""

    band: Ink
    """Of filled areas."""
    on_band: Ink
    soft_on_band: Ink
    head: Ink
    """Of titles on white: the accent, or ours where it would be too pale."""


def accent_of(colour: str) -> Accent:
    """The inks that go with ``colour`` (``#rrggbb``); with our own where it is empty."""
    band = colour or NAVY
    dark = _contrast(band, "#ffffff") >= _contrast(band, "#000000")
    return Accent(
        band=ink(band),
        on_band=WHITE if dark else ink("#000000"),
        soft_on_band=ink("#c9d3e4") if band == NAVY else WHITE if dark else ink("#000000"),
        head=ink(band) if _contrast(band, "#ffffff") >= _READABLE else ink(NAVY),
    )


def _contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio, 1 to 21."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in (value / 255 for value in _channels(colour))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

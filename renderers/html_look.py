"""How the HTML page looks: our style, then the operator's colour and stylesheet, and the policy.

The content security policy allows exactly this style and our own script, by
hash, so that even an escaping fault could not run scan data.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from markupsafe import Markup

from schemas.errors import RenderFailed
from schemas.presentation import Presentation

TEMPLATES = Path(__file__).parent / "templates"

_IMAGES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\Z")
_END_OF_STYLE = re.compile(r"</style", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Look:
    """A page's style, script, logo and the policy that allows them and nothing else."""

    style: Markup
    script: Markup
    policy: str
    logo: str
    """A ``data:`` URI, or empty."""


@lru_cache(maxsize=8)
def compose_look(presentation: Presentation) -> Look:
    """The look of every page with this presentation.

    Raises RenderFailed that names what in the presentation cannot be used.
    """
    style = _read("report.css") + _accent(presentation.accent) + _own(presentation.stylesheet)
    script = _read("report.js")
    logo = _logo(presentation.logo)
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        f"{'img-src data:; ' if logo else ''}base-uri 'none'; form-action 'none'"
    )
    return Look(
        style=Markup(style),  # noqa: S704 - ours and the operator's, checked; not data
        script=Markup(script),  # noqa: S704 - our own file, not data
        policy=policy,
        logo=logo,
    )


def text_on(colour: str) -> str:
    """Black or white, whichever reads better on ``colour``; at least 4.5 to 1 on any."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    # Relative luminance as WCAG 2 defines it.
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in channels
    )
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#ffffff" if 1.05 / (luminance + 0.05) >= (luminance + 0.05) / 0.05 else "#000000"


@cache
def _read(name: str) -> str:
    return (TEMPLATES / name).read_text("utf-8")


def _accent(colour: str) -> str:
    if not colour:
        return ""
    if not _COLOUR.match(colour):
        raise RenderFailed(f"accent {colour!r} is no colour; write it as #rrggbb")
    return f":root {{ --band: {colour}; --on-band: {text_on(colour)}; }}\n"


def _own(stylesheet: str) -> str:
    if _END_OF_STYLE.search(stylesheet):
        raise RenderFailed("the stylesheet holds </style, which would end it; remove it")
    # A browser hashes what it parsed: line ends and NUL as HTML reads them.
    return re.sub(r"\r\n?", "\n", stylesheet).replace("\0", "\ufffd")


def _logo(image: bytes) -> str:
    if not image:
        return ""
    for magic, kind in _IMAGES.items():
        if image.startswith(magic):
            return f"data:{kind};base64,{base64.b64encode(image).decode()}"
    raise RenderFailed("the logo is neither PNG nor JPEG")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"

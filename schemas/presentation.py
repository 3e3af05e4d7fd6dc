"""How a report looks, whatever it says: the organisation that hands it on, its colours, its shape.

Read from the operator's file once, frozen by content with every run, and given
to the renderers beside the Report: a report rendered again looks the same.
"""

from __future__ import annotations

import hashlib

import msgspec


class Presentation(msgspec.Struct, frozen=True, kw_only=True):
    """All of it by value, so that its digest is its identity."""

    organisation: str = ""
    """Named on the cover, in the masthead and as the document's author."""
    footer: str = ""
    """One line at the foot of every page."""
    accent: str = ""
    """``#rrggbb``; our own navy when empty."""
    cover: bool = False
    """Whether the PDF begins with a cover; else page one carries the masthead."""
    logo: bytes = b""
    """PNG or JPEG; none when empty."""
    html_template: str = ""
    """Source of a jinja2 template in place of ours; it runs in a sandbox."""
    stylesheet: str = ""
    """CSS after our own in the HTML report."""
    csv_bom: bool = False
    """Whether CSV begins with a byte order mark, by which some spreadsheets know UTF-8."""


PLAIN = Presentation()
"""Without a brand: what is rendered when the operator says nothing."""

_encoder = msgspec.json.Encoder(order="deterministic")


def encode_presentation(presentation: Presentation) -> bytes:
    """Canonical JSON; the logo in base64."""
    return _encoder.encode(presentation)


def presentation_digest(presentation: Presentation) -> str:
    """SHA-256 (hex) of the canonical JSON."""
    return hashlib.sha256(encode_presentation(presentation)).hexdigest()

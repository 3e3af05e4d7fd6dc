"""How much of a site a scan looks at, by the scanner's word for its mode."""

from __future__ import annotations

NARROW_MODES = frozenset({"quick", "realtime"})
"""Scans that look at part of a site: what they find is there, what they miss may still be."""


def is_narrow(scan_mode: str | None) -> bool:
    """Whether a scan of this mode looks at part of a site; of any other word, and none, not."""
    return (scan_mode or "").strip().lower() in NARROW_MODES

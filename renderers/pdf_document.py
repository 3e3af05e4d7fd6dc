"""The PDF report: what a compliance officer signs, a developer works through, an auditor checks.

Page one says it all; the contents lead to the sections behind it, which hold
every cookie and every reason.  Cost and memory grow linearly with the scan.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from languages.language import load_language
from renderers.pdf_front import draw_contents, draw_cover, draw_front
from renderers.pdf_sections import (
    draw_consent,
    draw_drift,
    draw_exemptions,
    draw_findings,
    draw_history,
    draw_identity,
    draw_inventory,
    draw_lifetimes,
    draw_limits,
    draw_score,
    draw_storages,
    draw_third_parties,
)
from renderers.pdf_sheet import Sheet
from renderers.wording import title_line, verdict_line
from schemas.presentation import PLAIN, Presentation
from schemas.reports import Report

SECTIONS: dict[str, Callable[[Sheet, Report], None]] = {
    "findings": draw_findings,
    "consent": draw_consent,
    "inventory": draw_inventory,
    "storages": draw_storages,
    "exemptions": draw_exemptions,
    "lifetimes": draw_lifetimes,
    "third_parties": draw_third_parties,
    "drift": draw_drift,
    "history": draw_history,
    "limits": draw_limits,
    "score": draw_score,
    "identity": draw_identity,
}
"""What stands behind page one, in this order; the key names the section's title and bookmark."""


_one_at_a_time = threading.Lock()
"""reportlab reads a font's file by one position for all threads: two at once cut each other's."""


def render_pdf(report: Report, presentation: Presentation = PLAIN) -> bytes:
    """A4, embedded fonts, outline, links and page numbers; the same inputs give the same bytes."""
    with _one_at_a_time:
        return _draw(report, presentation)


def _draw(report: Report, presentation: Presentation) -> bytes:
    t = load_language(report.language)
    sheet = Sheet(
        title=title_line(report, t),
        subject=verdict_line(report, t),
        footer=f"{t['scan']} {report.identity.scan_id}  ·  {report.identity.domain}",
        t=t,
        presentation=presentation,
    )
    if presentation.cover:
        draw_cover(sheet, report)
    draw_front(sheet, report)
    draw_contents(sheet, report, tuple(SECTIONS))
    for draw in SECTIONS.values():
        draw(sheet, report)
    return sheet.close()

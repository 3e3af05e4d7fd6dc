"""The HTML report: one self-contained page that asks the network for nothing.

Here the page's values are gathered; how they stand is the template's matter.
"""

from __future__ import annotations

import io
from html import escape
from itertools import accumulate, islice
from typing import Any

from markupsafe import Markup

from languages.language import Language, load_language
from renderers import wording
from renderers.html_charts import HISTORY_HEIGHT, consent_bars, score_curve
from renderers.html_look import compose_look
from renderers.html_rows import InventoryRows, isolate, link_evidence
from renderers.html_template import render_pieces
from renderers.visible import Marks, visible
from schemas.presentation import PLAIN, Presentation
from schemas.reports import Report

MAX_TITLE = 70
"""Characters of a page's title: what a browser's tab and a search result show."""

PIECES_AT_ONCE = 16
"""Most have a few characters, the inventory's some 30 kB."""

SECTIONS = (
    ("verdict", "section.verdict"),
    ("identity", "section.identity"),
    ("consent", "section.consent"),
    ("findings", "section.findings"),
    ("inventory", "section.inventory"),
    ("storages", "section.storages"),
    ("exemptions", "section.exemptions"),
    ("lifetimes", "section.lifetimes"),
    ("third", "section.third_parties"),
    ("drift", "section.drift"),
    ("limits", "section.limits"),
    ("score", "section.score"),
)
"""Each section's name in the page and the key of its title, in the order of the page."""


def render_html(report: Report, presentation: Presentation = PLAIN) -> bytes:
    """One UTF-8 page for screen and paper; the same Report gives the same bytes.

    Raises RenderFailed that names what of the presentation cannot be used.
    """
    out = io.BytesIO()
    pieces = render_pieces(presentation.html_template, _context(report, presentation))
    # A few at a time: one by one takes longer, and all at once took 100 MB beside a page of
    # 50,000 cookies.
    while some := list(islice(pieces, PIECES_AT_ONCE)):
        out.write("".join(some).encode("utf-8"))
    return out.getvalue()


def _context(report: Report, presentation: Presentation) -> dict[str, Any]:
    """All that a template sees, ours and the operator's alike."""
    t = load_language(report.language)
    look = compose_look(presentation)
    marks = Marks()
    return {
        "report": report,
        "t": t,
        "title": _title(report, t),
        "organisation": presentation.organisation,
        "footer": presentation.footer,
        "logo": look.logo,
        "style": look.style,
        "script": look.script,
        "policy": look.policy,
        "sections": [(name, t[key]) for name, key in SECTIONS],
        "verdict": wording.verdict_line(report, t),
        "identity": wording.identity_rows(report, t),
        "rows": InventoryRows(report, t),
        "score_word": lambda score: t["held"] if score is None else str(score),
        "bars": consent_bars(report.consent),
        "curve": score_curve(report),
        "curve_height": HISTORY_HEIGHT,
        "max_changes": wording.MAX_CHANGES,
        "max_history": wording.MAX_HISTORY,
        "isolate": lambda text: Markup(isolate(text, marks)),  # noqa: S704 - it escapes
        "linked_evidence": lambda finding: Markup(link_evidence(finding, marks)),  # noqa: S704
        "moment": lambda value: wording.moment(value, t),
        "points": lambda term: wording.points(term, t),
        "change_values": lambda change: wording.change_values(change, t),
    }


def _title(report: Report, t: Language) -> str:
    title = visible(wording.title_line(report, t), Marks())
    # Counted as written in the page, where "<" takes four characters.
    if len(escape(title)) <= MAX_TITLE:
        return title
    lengths = accumulate(len(escape(char)) for char in title)
    return title[: sum(length < MAX_TITLE for length in lengths)] + "…"

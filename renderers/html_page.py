"""The HTML report: one self-contained page that asks the network for nothing.

Its content security policy allows this page's own style and script by hash and
nothing else, so that even an escaping fault could not run scan data.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from renderers import wording
from renderers.visible import Marks, prose, visible
from schemas.reports import ConsentCount, Report

TEMPLATES = Path(__file__).parent / "templates"
CHART_WIDTH = 420


@dataclass(frozen=True, slots=True)
class Bar:
    """One piece of a stacked bar, in the chart's units."""

    kind: str
    x: float
    width: float


def render_html(report: Report) -> bytes:
    """One UTF-8 page for screen and paper; the same Report gives the same bytes."""
    page = _page()
    t = wording.words(report.language)
    pieces = page.template.generate(
        report=report,
        t=t,
        verdict=wording.verdict_line(report, t),
        identity=wording.identity_rows(report, t),
        numbers=wording.finding_numbers(report),
        bars=_bars(report.consent),
        most_lifetimes=max((bar.count for bar in report.lifetimes), default=0) or 1,
        chart_width=CHART_WIDTH,
        style=page.style,
        script=page.script,
        policy=page.policy,
        w=wording,
    )
    # Some at a time: the pieces of 50,000 cookies, joined at once, took 100 MB beside the page.
    out = io.BytesIO()
    while some := list(islice(pieces, 1000)):
        out.write("".join(some).encode("utf-8"))
    return out.getvalue()


@dataclass(frozen=True, slots=True)
class _Page:
    """What every page shares: the compiled template and its own style and script."""

    template: Template
    style: Markup
    script: Markup
    policy: str


@cache
def _page() -> _Page:
    """Compiled once per process."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_make_visible,
    )
    environment.filters["prose"] = prose
    style = (TEMPLATES / "report.css").read_text("utf-8")
    script = (TEMPLATES / "report.js").read_text("utf-8")
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return _Page(
        template=environment.get_template("report.html.j2"),
        style=Markup(style),  # noqa: S704 - our own file, not data
        script=Markup(script),  # noqa: S704 - our own file, not data
        policy=policy,
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _make_visible(value: Any) -> Any:
    """Marks what a reader would not see, in everything the template prints."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return value if value.isprintable() and value.isascii() else visible(value, Marks())
    return value


def _bars(consent: Sequence[ConsentCount]) -> list[list[Bar]]:
    """The consent chart: for each category its pieces before, after and unknown."""
    most = max((row.before + row.after + row.unknown for row in consent), default=0) or 1
    return [_row_bars(row, CHART_WIDTH / most) for row in consent]


def _row_bars(row: ConsentCount, unit: float) -> list[Bar]:
    bars: list[Bar] = []
    x = 0.0
    for kind in ("before", "after", "unknown"):
        width = getattr(row, kind) * unit
        bars.append(Bar(kind, round(x, 2), round(width, 2)))
        x += width
    return bars

"""Every format we can render, in a plain dict: a new format is one file and one line here.

The stop between a Report and the artifact store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from languages.language import load_language
from renderers.csv_table import render_csv
from renderers.fonts import BOLD, REGULAR, font_file, text_face
from renderers.html_look import compose_look
from renderers.html_page import render_html
from renderers.html_template import our_template
from renderers.json_document import render_json
from renderers.pdf_document import render_pdf
from renderers.xlsx_workbook import render_xlsx
from schemas.errors import RenderFailed, ScanheraldError
from schemas.presentation import PLAIN, Presentation
from schemas.reports import Format, Report


@dataclass(frozen=True, slots=True)
class Renderer:
    """How one format is made.

    ``render`` is pure: the same Report and Presentation give the same bytes.
    """

    render: Callable[[Report, Presentation], bytes]
    content_type: str
    suffix: str


RENDERERS: dict[Format, Renderer] = {
    Format.PDF: Renderer(render_pdf, "application/pdf", ".pdf"),
    Format.HTML: Renderer(render_html, "text/html; charset=utf-8", ".html"),
    Format.JSON: Renderer(render_json, "application/json", ".json"),
    Format.CSV: Renderer(render_csv, "text/csv; charset=utf-8; header=present", ".csv"),
    Format.XLSX: Renderer(
        render_xlsx, "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", ".xlsx"
    ),
}


def load_ahead(language: str) -> None:
    """Read and compile what every report in ``language`` needs: texts, fonts, template, style.

    For a process that forks others: each of them would do it at its first report, in a
    sixth of a second and with memory of its own.  Reads package data only; opens nothing
    that a fork could not share.  Safe to repeat.  Raises InvalidSettings as load_language does.
    """
    load_language(language).number(1)  # the first number reads the locale's own data
    for name in (REGULAR, BOLD):
        text_face(name)
        font_file(name)
    compose_look(PLAIN)
    our_template()


def render(report: Report, format: Format, presentation: Presentation = PLAIN) -> bytes:
    """The bytes of ``report`` in ``format``, looking like ``presentation``; safe to repeat, no I/O.

    Raises RenderFailed, chained to its cause, whatever a renderer stumbles over.
    """
    try:
        return RENDERERS[format].render(report, presentation)
    except ScanheraldError:
        raise
    except Exception as error:
        # Whatever a library stumbles over, the other formats go on.
        raise RenderFailed(
            f"{format} report of scan {report.identity.scan_id} failed: "
            f"{type(error).__name__}: {error}"
        ) from error

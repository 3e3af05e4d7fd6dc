"""The first pages of the PDF: the cover where one is wanted, page one, the contents.

Page one has domain, score, verdict, figures, a chart and the findings in brief.
"""

from __future__ import annotations

from collections.abc import Sequence

from renderers.pdf_inks import (
    AFTER,
    BEFORE,
    GREY,
    INK,
    RULE,
    SEVERITY_INK,
    UNSTATED,
    WASH,
    WHITE,
)
from renderers.pdf_sheet import MARGIN, Sheet
from renderers.visible import prose
from renderers.wording import moment, verdict_line
from schemas.reports import ConsentCount, Report, Severity

MAX_DOMAIN_SIZE = 27.0
MIN_DOMAIN_SIZE = 13.0
MAX_DOMAIN_LINES = 8
HELD_REASONS = 3
"""Limits that page one repeats; the section on limits has all."""


def draw_cover(sheet: Sheet, report: Report) -> None:
    """A page of its own for whoever hands the report on: logo, domain, date, organisation."""
    t, accent = sheet.t, sheet.accent
    sheet.turn(furnished=False)
    sheet.logo(MARGIN, sheet.height - 130, 200, 64)
    band = 250.0
    foot = sheet.height / 2 - 70
    sheet.box(0, foot, sheet.width, band, accent.band)
    y = foot + band - 52
    sheet.write(MARGIN, y, t["report"].upper(), 9, bold=True, ink=accent.soft_on_band)
    y -= 14
    lines, size = _domain_lines(sheet, report, 34.0)
    for line in lines:
        y -= size * 1.2
        sheet.write_line(MARGIN, y, line, size, bold=True, ink=accent.on_band)
    finished = report.identity.finished_at
    if finished is not None:
        sheet.write(MARGIN, y - 30, t.day(finished), 11, ink=accent.on_band)
    sheet.y = foot - 36
    if sheet.presentation.organisation:
        sheet.paragraph(sheet.presentation.organisation, 14, bold=True, ink=accent.head, after=8)
    sheet.paragraph(verdict_line(report, t), 11, ink=GREY, after=0)
    sheet.y = 96
    sheet.paragraph(f"{t['scan']} {report.identity.scan_id}", 8, ink=GREY, after=2)
    if sheet.presentation.footer:
        sheet.paragraph(sheet.presentation.footer, 8, ink=GREY, after=0, most=2)


def draw_front(sheet: Sheet, report: Report) -> None:
    """Draw page one, and more where the findings in brief take more."""
    sheet.turn()
    sheet.bookmark("verdict", sheet.t["section.verdict"], level=0)
    _masthead(sheet, report)
    _verdict(sheet, report)
    if report.inconclusive:
        _held(sheet, report)
    _severities(sheet, report)
    _consent_chart(sheet, report.consent)
    _findings_in_brief(sheet, report)
    sheet.y -= 6
    sheet.paragraph(sheet.t["notice"], 7.5, ink=GREY)


def draw_contents(sheet: Sheet, report: Report, sections: Sequence[str]) -> None:
    """Where to find what, each line a link; the sections begin on the next page."""
    t = sheet.t
    sheet.next_page()
    sheet.section("contents", t["section.contents"])
    _entry(sheet, "verdict", t["section.verdict"])
    for key in sections:
        _entry(sheet, key, t[f"section.{key}"])
        if key == "findings":
            for place, finding in enumerate(report.findings, 1):
                _entry(sheet, f"finding-{place}", finding.title, number=place)
    sheet.next_page()


def _entry(sheet: Sheet, key: str, title: str, number: int | None = None) -> None:
    height = 17.0 if number is None else 14.0
    sheet.ensure(height)
    sheet.y -= height
    end = sheet.width - MARGIN
    sheet.rule(MARGIN, sheet.y, end, sheet.y, RULE, 0.3)
    indent = 0.0 if number is None else 26.0
    if number is not None:
        sheet.write(MARGIN + 18, sheet.y + 3.5, str(number), 8.5, ink=GREY, right=True)
    face = sheet.regular if number is not None else sheet.bold
    room = sheet.text_width - indent - 40
    (shown,) = face.clip(face.show(prose(title)), 8.5, room)
    sheet.write_line(MARGIN + indent, sheet.y + 3.5, shown, 8.5, bold=number is None)
    sheet.page_number_of(key, end, sheet.y + 3.5)
    sheet.link(key, sheet.y, height)


def _domain_lines(sheet: Sheet, report: Report, most: float) -> tuple[list[str], float]:
    """The domain as large as it fits, at most ``most`` points, over lines where it must.

    A name of hidden characters is many times its length in marks: it is cut here, for it
    would fill the page, and stands whole among the facts of the scan.
    """
    domain = sheet.bold.show(report.identity.domain)
    wide = sheet.bold.width(domain, 1)
    size = max(MIN_DOMAIN_SIZE, min(most, sheet.text_width / max(wide, 1)))
    return sheet.bold.clip(domain, size, sheet.text_width, MAX_DOMAIN_LINES), size


def _masthead(sheet: Sheet, report: Report) -> None:
    t, accent = sheet.t, sheet.accent
    lines, size = _domain_lines(sheet, report, MAX_DOMAIN_SIZE)
    height = 92 + len(lines) * size * 1.2
    sheet.box(0, sheet.height - height, sheet.width, height, accent.band)
    y = sheet.height - 44
    kind = t["report"].upper()
    sheet.write(MARGIN, y, kind, 8, bold=True, ink=accent.soft_on_band)
    _sender(sheet, y, room=sheet.text_width - sheet.bold.width(kind, 8) - 24)
    y -= 12
    for line in lines:
        y -= size * 1.2
        sheet.write_line(MARGIN, y, line, size, bold=True, ink=accent.on_band)
    facts = f"{t['scan']} {report.identity.scan_id}   ·   {t['finished']} " + moment(
        report.identity.finished_at, t
    )
    sheet.write(MARGIN, y - 20, facts, 8.5, ink=accent.soft_on_band)
    sheet.y = sheet.height - height - 20


def _sender(sheet: Sheet, y: float, room: float) -> None:
    """Logo on a white tag, or the organisation's name, at the right of the masthead."""
    end = sheet.width - MARGIN
    if sheet.presentation.logo:
        sheet.box(end - 116, y - 16, 116, 40, WHITE)
        sheet.logo(end - 110, y - 12, 104, 32)
    elif sheet.presentation.organisation:
        face = sheet.regular
        (name,) = face.clip(face.show(prose(sheet.presentation.organisation)), 8.5, room)
        sheet.write_line(end, y, name, 8.5, ink=sheet.accent.on_band, right=True)


def _verdict(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    top = sheet.y
    left = 166.0
    sheet.write(MARGIN, top - 10, t["score"], 9, bold=True, ink=GREY)
    if report.score.value is None:
        held = sheet.bold.show(t["held"])
        size = min(34, (left - 24) / sheet.bold.width(held, 1))
        sheet.write(MARGIN, top - 52, held, size, bold=True, ink=SEVERITY_INK[Severity.MEDIUM])
        sheet.write(MARGIN, top - 68, t["inconclusive"], 9, ink=GREY)
    else:
        shown = str(report.score.value)
        sheet.write(MARGIN - 2, top - 60, shown, 54, bold=True, ink=sheet.accent.head)
        sheet.write(MARGIN + sheet.bold.width(shown, 54) + 4, top - 60, t["of_100"], 9, ink=GREY)
        sheet.box(MARGIN, top - 76, left - 32, 4, RULE)
        sheet.box(MARGIN, top - 76, (left - 32) * report.score.value / 100, 4, sheet.accent.head)
    sheet.paragraph(
        verdict_line(report, t),
        11.5,
        indent=left,
        leading=1.4,
        after=6,
        bold=True,
        ink=sheet.accent.head,
    )
    _figures(sheet, report, MARGIN + left, sheet.text_width - left)
    sheet.y = min(sheet.y, top - 84) - 16


def _figures(sheet: Sheet, report: Report, x: float, width: float) -> None:
    totals = report.totals
    t = sheet.t
    figures = (
        (t["cookies"], totals.cookies),
        (t["before_consent"], totals.before_consent),
        (t["third_party_cookies"], totals.third_party),
        (t["session_cookies"], totals.session),
        (t["storage_keys"], totals.storage_keys),
    )
    step = width / len(figures)
    for place, (label, value) in enumerate(figures):
        sheet.write(x + place * step, sheet.y - 20, t.number(value), 15, bold=True)
        sheet.write(x + place * step, sheet.y - 31, label, 7, ink=GREY)
    sheet.y -= 34


def _held(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    holding = [limit for limit in report.limits if limit.inconclusive][:HELD_REASONS]
    top = sheet.y
    sheet.paragraph(t["inconclusive_text"], 8.5, bold=True, indent=12, after=2)
    for limit in holding:
        sheet.paragraph(limit.text, 8.5, indent=12, after=1, most=2)
    sheet.box(MARGIN, sheet.y - 1, 3, top - sheet.y - 2, SEVERITY_INK[Severity.MEDIUM])
    sheet.y -= 14


def _severities(sheet: Sheet, report: Report) -> None:
    gap = 8.0
    counts = report.totals.severities
    width = (sheet.text_width - gap * (len(counts) - 1)) / len(counts)
    foot = sheet.y - 36
    for place, count in enumerate(counts):
        ink = SEVERITY_INK[Severity(count.label)]
        x = MARGIN + place * (width + gap)
        sheet.box(x, foot, width, 36, WASH)
        sheet.box(x, foot, 3, 36, ink)
        sheet.write(x + 12, foot + 12, sheet.t.number(count.count), 17, bold=True, ink=ink)
        label = sheet.t[f"severity.{count.label}"]
        sheet.write(x + width - 10, foot + 14, label, 8.5, ink=GREY, right=True)
    sheet.y = foot - 20


def _consent_chart(sheet: Sheet, consent: Sequence[ConsentCount]) -> None:
    t = sheet.t
    sheet.y -= 10
    sheet.write(MARGIN, sheet.y, t["chart"], 10, bold=True, ink=sheet.accent.head)
    keys = (
        (t["legend_before"], BEFORE), (t["legend_after"], AFTER), (t["legend_unknown"], UNSTATED)
    )  # fmt: skip
    sheet.y -= 17
    x = MARGIN
    for label, ink in keys:
        sheet.box(x, sheet.y - 0.5, 7, 7, ink)
        sheet.write(x + 11, sheet.y, label, 7.5, ink=GREY)
        x += 24 + sheet.regular.width(label, 7.5)
    left, right = MARGIN + 78, 130.0
    room = sheet.text_width - 78 - right
    most = max((row.before + row.after + row.unknown for row in consent), default=0) or 1
    sheet.y -= 6
    for row in consent:
        sheet.y -= 17
        sheet.write(MARGIN, sheet.y + 2.5, t[f"category.{row.category}"], 8.5)
        x = left
        for count, ink in ((row.before, BEFORE), (row.after, AFTER), (row.unknown, UNSTATED)):
            width = room * count / most
            if count:
                sheet.box(x, sheet.y, max(width, 1), 11, ink)
            x += width
        parts = [(row.before, t["before"]), (row.after, t["after"]), (row.unknown, t["unknown"])]
        said = " · ".join(f"{t.number(count)} {word}" for count, word in parts if count) or "0"
        sheet.write(x + 6, sheet.y + 2.5, said, 7.5, ink=GREY)
    sheet.y -= 12


def _findings_in_brief(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    sheet.y -= 16
    sheet.write(MARGIN, sheet.y, t["findings"], 10, bold=True, ink=sheet.accent.head)
    sheet.y -= 6
    if not report.findings:
        sheet.paragraph(t["no_findings"])
    end = sheet.width - MARGIN
    for place, finding in enumerate(report.findings, 1):
        sheet.ensure(15)
        sheet.y -= 15
        ink = SEVERITY_INK[finding.severity]
        sheet.write(MARGIN + 12, sheet.y + 3.5, str(place), 8.5, ink=GREY, right=True)
        sheet.write(
            MARGIN + 22, sheet.y + 3.5, t[f"severity.{finding.severity}"], 8.5, bold=True, ink=ink
        )
        (title,) = sheet.regular.clip(
            sheet.regular.show(prose(finding.title)), 8.5, sheet.text_width - 130
        )
        sheet.write_line(MARGIN + 76, sheet.y + 3.5, title, 8.5, ink=INK)
        sheet.write(end, sheet.y + 3.5, t.number(finding.count), 8.5, bold=True, right=True)
        sheet.rule(MARGIN, sheet.y, end, sheet.y, RULE, 0.4)
        sheet.link(f"finding-{place}", sheet.y, 15)

"""Page one of the PDF: domain, score, verdict, figures, a chart, the findings in brief."""

from __future__ import annotations

from collections.abc import Sequence

from renderers.pdf_sheet import (
    AFTER,
    BEFORE,
    GREY,
    INK,
    MARGIN,
    NAVY,
    PALE,
    RULE,
    SEVERITY_INK,
    UNSTATED,
    WASH,
    WHITE,
    Sheet,
)
from renderers.visible import prose
from renderers.wording import moment, verdict_line
from schemas.reports import ConsentCount, Report, Severity

MAX_DOMAIN_SIZE = 27.0
MIN_DOMAIN_SIZE = 13.0
HELD_REASONS = 3
"""Limits that page one repeats; the section on limits has all."""


def draw_front(sheet: Sheet, report: Report) -> None:
    """Draw page one on a fresh sheet."""
    _masthead(sheet, report)
    _verdict(sheet, report)
    if report.inconclusive:
        _held(sheet, report)
    _severities(sheet, report)
    _consent_chart(sheet, report.consent)
    _findings_in_brief(sheet, report)
    sheet.y -= 6
    sheet.paragraph(sheet.t["notice"], 7.5, ink=GREY)


def _masthead(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    domain = sheet.bold.show(report.identity.domain)
    wide = sheet.bold.width(domain, 1)
    size = max(MIN_DOMAIN_SIZE, min(MAX_DOMAIN_SIZE, sheet.text_width / max(wide, 1)))
    lines = sheet.bold.wrap(domain, size, sheet.text_width)
    height = 92 + len(lines) * size * 1.2
    sheet.box(0, sheet.height - height, sheet.width, height, NAVY)
    y = sheet.height - 44
    sheet.write(MARGIN, y, t["report"].upper(), 8, bold=True, ink=PALE)
    y -= 12
    for line in lines:
        y -= size * 1.2
        sheet.write(MARGIN, y, line, size, bold=True, ink=WHITE)
    facts = f"{t['scan']} {report.identity.scan_id}   ·   {t['finished']} " + moment(
        report.identity.finished_at, t
    )
    sheet.write(MARGIN, y - 20, facts, 8.5, ink=PALE)
    sheet.y = sheet.height - height - 20


def _verdict(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    top = sheet.y
    left = 142.0
    sheet.write(MARGIN, top - 10, t["score"], 9, bold=True, ink=GREY)
    if report.score.value is None:
        sheet.write(MARGIN, top - 52, t["held"], 34, bold=True, ink=SEVERITY_INK[Severity.MEDIUM])
        sheet.write(MARGIN, top - 68, t["inconclusive"], 9, ink=GREY)
    else:
        shown = str(report.score.value)
        sheet.write(MARGIN - 2, top - 60, shown, 54, bold=True, ink=NAVY)
        sheet.write(MARGIN + sheet.bold.width(shown, 54) + 4, top - 60, t["of_100"], 9, ink=GREY)
        sheet.box(MARGIN, top - 76, left - 32, 4, RULE)
        sheet.box(MARGIN, top - 76, (left - 32) * report.score.value / 100, 4, NAVY)
    sheet.paragraph(
        verdict_line(report, t), 11.5, indent=left, leading=1.4, after=6, bold=True, ink=NAVY
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
        sheet.write(x + place * step, sheet.y - 20, f"{value:,}", 15, bold=True)
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
        sheet.write(x + 12, foot + 12, f"{count.count:,}", 17, bold=True, ink=ink)
        label = sheet.t[f"severity.{count.label}"]
        sheet.write(x + width - 10, foot + 14, label, 8.5, ink=GREY, right=True)
    sheet.y = foot - 20


def _consent_chart(sheet: Sheet, consent: Sequence[ConsentCount]) -> None:
    t = sheet.t
    sheet.y -= 10
    sheet.write(MARGIN, sheet.y, t["chart"], 10, bold=True, ink=NAVY)
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
        said = " · ".join(f"{count:,} {word}" for count, word in parts if count) or "0"
        sheet.write(x + 6, sheet.y + 2.5, said, 7.5, ink=GREY)
    sheet.y -= 12


def _findings_in_brief(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    sheet.y -= 16
    sheet.write(MARGIN, sheet.y, t["findings"], 10, bold=True, ink=NAVY)
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
        title = sheet.regular.wrap(
            sheet.regular.show(prose(finding.title)), 8.5, sheet.text_width - 130
        )
        sheet.write(MARGIN + 76, sheet.y + 3.5, title[0], 8.5, ink=INK)
        sheet.write(end, sheet.y + 3.5, f"{finding.count:,}", 8.5, bold=True, right=True)
        sheet.canvas.setStrokeColor(RULE)
        sheet.canvas.setLineWidth(0.4)
        sheet.canvas.line(MARGIN, sheet.y, end, sheet.y)

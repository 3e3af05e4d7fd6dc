"""The PDF report: what a compliance officer signs, a developer works through, an auditor checks.

Page one says it all; the sections behind it hold every cookie and every reason.
Drawn on the canvas: cost and memory grow linearly with the scan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from renderers.pdf_front import draw_front
from renderers.pdf_sheet import AFTER, GREY, MARGIN, NAVY, SEVERITY_INK, Sheet
from renderers.pdf_table import Cell, Column, draw_table
from renderers.visible import prose
from renderers.wording import (
    MAX_CHANGES,
    MAX_HISTORY,
    Words,
    category_lines,
    classification,
    consent_word,
    finding_numbers,
    identity_rows,
    moment,
    number,
    points,
    tri,
    verdict_line,
    words,
)
from schemas.reports import CookieRef, Finding, InventoryCookie, Report


def render_pdf(report: Report) -> bytes:
    """A4, embedded fonts, outline and page numbers; the same Report gives the same bytes."""
    t = words(report.language)
    sheet = Sheet(
        title=f"{t['report']}: {report.identity.domain}",
        subject=verdict_line(report, t),
        footer=f"{t['scan']} {report.identity.scan_id}  ·  {report.identity.domain}",
        language=report.language,
        t=t,
    )
    sheet.bookmark(t["section.verdict"], level=0)
    draw_front(sheet, report)
    sheet.next_page()
    for draw in (
        _findings,
        _consent,
        _inventory,
        _storages,
        _exemptions,
        _lifetimes,
        _third_parties,
        _drift,
        _history,
        _limits,
        _score,
        _identity,
    ):
        draw(sheet, report)
    return sheet.close()


def _findings(sheet: Sheet, report: Report) -> None:
    sheet.section(sheet.t["section.findings"])
    if not report.findings:
        sheet.paragraph(sheet.t["no_findings"])
    for place, finding in enumerate(report.findings, 1):
        _finding(sheet, place, finding)


def _finding(sheet: Sheet, place: int, finding: Finding) -> None:
    t = sheet.t
    ink = SEVERITY_INK[finding.severity]
    sheet.ensure(112)
    sheet.bookmark(f"{place}  {finding.title}", level=1)
    sheet.write(MARGIN, sheet.y - 15.6, str(place), 11, bold=True, ink=ink)
    sheet.paragraph(finding.title, 11, bold=True, indent=24, after=1, ink=NAVY)
    kind = f"{t[f'severity.{finding.severity}']}   ·   {finding.count:,}   ·   {finding.rule_id}"
    sheet.paragraph(kind, 8, indent=24, ink=ink, after=3)
    sheet.paragraph(finding.explanation, 9, indent=24)
    labelled = [(t["action"], finding.action), (t["rests_on"], finding.source)]
    if finding.source_url:
        labelled.append(("", finding.source_url))
    if finding.scope:
        labelled.append((t["scope"], finding.scope))
    labelled.append((t["evidence"], _evidence(sheet, finding)))
    sheet.y -= 2
    for label, text in labelled:
        sheet.ensure(12)
        sheet.write(MARGIN + 24, sheet.y - 11.36, label, 8, bold=True, ink=GREY)
        sheet.paragraph(text, 8, indent=96, after=3 if label != t["rests_on"] else 1)
    sheet.y -= 14


def _evidence(sheet: Sheet, finding: Finding) -> str:
    t = sheet.t
    labels = []
    for item in finding.evidence:
        # Labels name things: white space in them is shown, not folded like in running text.
        label = sheet.regular.show(item.label)
        place = item.cookie_number
        labels.append(label if place is None else f"{place} {label}")
    more = finding.count - len(labels)
    if more > 0:
        labels.append(t["more_evidence"].format(count=more))
    return ", ".join(labels)


def _consent(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    sheet.section(t["section.consent"], t["intro.consent"])
    columns = (
        Column(t["category"], 4), Column(t["legend_before"], 2, True),
        Column(t["legend_after"], 2, True), Column(t["legend_unknown"], 2, True),
        Column(t["total"], 2, True),
    )  # fmt: skip
    rows = [
        [t[f"category.{row.category}"], *_numbers(row.before, row.after, row.unknown)]
        for row in report.consent
    ]
    total = _numbers(*(
        sum(getattr(row, moment) for row in report.consent)
        for moment in ("before", "after", "unknown")
    ))  # fmt: skip
    draw_table(sheet, columns, [*rows, [t["total"], *total]], size=8.5)


def _numbers(*counts: int) -> list[str]:
    return [f"{count:,}" for count in (*counts, sum(counts))]


def _inventory(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    sheet.turn(wide=True)
    sheet.section(t["section.inventory"], t["intro.inventory"])
    if report.cookies:
        columns = (
            Column("#", 27, True), Column(t["name"], 98), Column(t["domain_path"], 84),
            Column(t["party"], 33), Column(t["category"], 62), Column(t["purpose"], 172),
            Column(t["vendor"], 54), Column(t["lifetime"], 44), Column(t["size"], 32, True),
            Column(t["flags"], 66), Column(t["set"], 32), Column(t["classified"], 60),
            Column(t["findings"], 40),
        )  # fmt: skip
        draw_table(sheet, columns, _inventory_rows(report, t), size=6.2)
    else:
        sheet.paragraph(t["none"])
    sheet.turn(wide=False)


def _inventory_rows(report: Report, t: Words) -> Iterator[Sequence[Cell]]:
    numbers = finding_numbers(report)
    for cookie in report.cookies:
        yield (
            str(cookie.number),
            cookie.name or t["empty_name"],
            [cookie.domain or t["dash"], cookie.path or t["dash"]],
            t[f"party.{cookie.party}"],
            category_lines(cookie, t),
            prose(cookie.purpose) if cookie.purpose else t["dash"],
            cookie.vendor or t["dash"],
            cookie.duration or t["dash"],
            number(cookie.size_bytes, t),
            _flags(cookie, t),
            consent_word(cookie.before_consent, t),
            classification(cookie, t),
            ", ".join(str(numbers[rule_id]) for rule_id in cookie.rule_ids),
        )


def _flags(cookie: InventoryCookie, t: Words) -> str:
    flags = (tri(cookie.secure, t), tri(cookie.http_only, t), cookie.same_site or t["dash"])
    return " · ".join(flags)


def _storages(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    sheet.section(t["section.storages"], t["intro.storages"])
    if not report.storages:
        sheet.paragraph(t["none"])
        return
    columns = (Column(t["area"], 3), Column(t["key"], 9), Column(t["characters"], 2, True))
    rows = ([key.area, key.key, f"{key.value_size:,}"] for key in report.storages)
    draw_table(sheet, columns, rows)


def _exemptions(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    sheet.section(t["section.exemptions"], t["intro.exemptions"])
    if not report.exemptions:
        sheet.paragraph(t["none"])
        return
    columns = (
        Column("#", 1, True), Column(t["name"], 5), Column(t["assessment"], 2.6),
        Column(t["reason"], 8),
    )  # fmt: skip
    rows = (
        [
            str(item.cookie_number),
            item.name or t["empty_name"],
            t[f"verdict.{item.verdict}"],
            item.reason,
        ]
        for item in report.exemptions
    )
    draw_table(sheet, columns, rows)


def _lifetimes(sheet: Sheet, report: Report) -> None:
    sheet.section(sheet.t["section.lifetimes"], sheet.t["intro.lifetimes"], need=190)
    most = max((bar.count for bar in report.lifetimes), default=0) or 1
    left = MARGIN + 130
    room = sheet.text_width - 130 - 50
    for bar in report.lifetimes:
        sheet.y -= 16
        sheet.write(MARGIN, sheet.y + 2.5, bar.label, 8.5)
        width = room * bar.count / most
        if bar.count:
            sheet.box(left, sheet.y, max(width, 1), 11, AFTER)
        sheet.write(left + width + 6, sheet.y + 2.5, f"{bar.count:,}", 8, ink=GREY)
    sheet.y -= 6


def _third_parties(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    sheet.section(t["section.third_parties"], t["intro.third_parties"])
    if not report.third_parties:
        sheet.paragraph(t["none"])
        return
    columns = (Column(t["domain"], 5), Column(t["vendors"], 6), Column(t["cookies"], 2, True))
    rows = (
        [party.domain or t["not_stated"], ", ".join(party.vendors) or t["dash"],
         f"{party.cookies:,}"]
        for party in report.third_parties
    )  # fmt: skip
    draw_table(sheet, columns, rows)


def _drift(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    drift = report.drift
    sheet.section(t["section.drift"])
    if drift.compared_with is None:
        sheet.paragraph(t["drift.first"])
        return
    finished = moment(drift.compared_finished_at, t)
    sheet.paragraph(t["drift.compared"].format(scan=drift.compared_with, finished=finished))
    if not (drift.added or drift.removed or drift.changed):
        sheet.paragraph(t["drift.none"])
    for title, references in (("added", drift.added), ("removed", drift.removed)):
        if references:
            _references(sheet, t[f"drift.{title}"], references)
    if drift.changed:
        sheet.ensure(60)
        sheet.paragraph(f"{t['drift.changed']}: {len(drift.changed):,}", 9, bold=True, after=3)
        columns = (
            Column(t["name"], 4), Column(t["domain"], 4), Column(t["field"], 2),
            Column(t["was"], 2.5), Column(t["is"], 2.5),
        )  # fmt: skip
        rows = (
            [
                change.cookie.name or t["empty_name"],
                [change.cookie.domain or t["dash"], change.cookie.path or t["dash"]],
                t[f"field.{change.field}"],
                change.before or t["dash"],
                change.after or t["dash"],
            ]
            for change in drift.changed[:MAX_CHANGES]
        )
        draw_table(sheet, columns, rows)
        _more(sheet, len(drift.changed))


def _references(sheet: Sheet, title: str, references: Sequence[CookieRef]) -> None:
    t = sheet.t
    sheet.ensure(60)
    sheet.paragraph(f"{title}: {len(references):,}", 9, bold=True, after=3)
    columns = (Column(t["name"], 5), Column(t["domain"], 5), Column(t["path"], 4))
    rows = (
        [cookie.name or t["empty_name"], cookie.domain or t["dash"], cookie.path or t["dash"]]
        for cookie in references[:MAX_CHANGES]
    )
    draw_table(sheet, columns, rows)
    _more(sheet, len(references))


def _more(sheet: Sheet, count: int) -> None:
    if count > MAX_CHANGES:
        sheet.paragraph(
            sheet.t["drift.more"].format(count=count - MAX_CHANGES), 8, ink=GREY, after=8
        )
    else:
        sheet.y -= 8


def _history(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    sheet.section(t["section.history"])
    if not report.history:
        sheet.paragraph(t["history.none"])
        return
    columns = (Column(t["finished_at"], 4), Column(t["scan_id"], 6), Column(t["score"], 2, True))
    rows = (
        [
            moment(point.finished_at, t),
            point.scan_id,
            t["held"] if point.score is None else str(point.score),
        ]
        for point in report.history[-MAX_HISTORY:]
    )
    draw_table(sheet, columns, rows)


def _limits(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    sheet.section(t["section.limits"])
    if not report.limits:
        sheet.paragraph(t["limits.none"])
    for limit in report.limits:
        holds = f" ({t['holds_score']})" if limit.inconclusive else ""
        sheet.ensure(14)
        sheet.write(MARGIN, sheet.y - 9.5, "•", 9, bold=True, ink=GREY)
        sheet.paragraph(f"{limit.text}{holds}", 9, indent=12)


def _score(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    sheet.section(t["section.score"], f"{t['formula']}: {report.score.formula}")
    if not report.score.terms:
        sheet.paragraph(t["no_findings"])
        return
    columns = (
        Column(t["finding"], 7), Column(t["severity"], 3), Column(t["count"], 2, True),
        Column(t["points"], 2, True),
    )  # fmt: skip
    rows = (
        [term.rule_id, t[f"severity.{term.severity}"], f"{term.count:,}", points(term)]
        for term in report.score.terms
    )
    draw_table(sheet, columns, rows)


def _identity(sheet: Sheet, report: Report) -> None:
    t = sheet.t
    sheet.section(t["section.identity"], need=200)
    columns = (Column("", 4), Column("", 10))
    draw_table(sheet, columns, identity_rows(report, t), size=8)
    if report.identity.pages:
        sheet.y -= 8
        sheet.ensure(50)
        rows = ([page] for page in report.identity.pages)
        draw_table(sheet, [Column(t["pages"], 1)], rows)
    sheet.y -= 6
    sheet.paragraph(t["notice"], 7.5, ink=GREY)

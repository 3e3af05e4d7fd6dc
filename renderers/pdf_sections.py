"""The sections of the PDF behind page one, from the findings to the identity of the scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from languages.language import Language
from renderers.pdf_inks import AFTER, GREY, RULE, SEVERITY_INK
from renderers.pdf_sheet import MARGIN, Sheet
from renderers.pdf_table import Column, draw_table
from renderers.visible import prose
from renderers.wording import (
    MAX_CHANGES,
    MAX_HISTORY,
    category_lines,
    change_values,
    classification,
    consent_word,
    finding_numbers,
    identity_rows,
    moment,
    number,
    points,
    tri,
)
from schemas.reports import Category, CookieRef, Finding, HistoryPoint, InventoryCookie, Report


def _section(sheet: Sheet, key: str, intro: str | None = None, *, need: float = 110) -> None:
    """A section of the contents: ``key`` names its title and its bookmark."""
    sheet.section(key, sheet.t[f"section.{key}"], intro, need=need)


def draw_findings(sheet: Sheet, report: Report) -> None:
    """Every finding with its rule, evidence and action, worst first."""
    _section(sheet, "findings")
    if not report.findings:
        sheet.paragraph(sheet.t["no_findings"])
    for place, finding in enumerate(report.findings, 1):
        _finding(sheet, place, finding)


def _finding(sheet: Sheet, place: int, finding: Finding) -> None:
    t = sheet.t
    ink = SEVERITY_INK[finding.severity]
    sheet.ensure(112)
    sheet.bookmark(f"finding-{place}", f"{place}  {finding.title}", level=1)
    sheet.write(MARGIN, sheet.y - 15.6, str(place), 11, bold=True, ink=ink)
    sheet.paragraph(finding.title, 11, bold=True, indent=24, after=1, ink=sheet.accent.head)
    severity = t[f"severity.{finding.severity}"]
    kind = f"{severity}   ·   {t.number(finding.count)}   ·   {finding.rule_id}"
    sheet.paragraph(kind, 8, indent=24, ink=ink, after=3)
    sheet.paragraph(finding.explanation, 9, indent=24)
    sheet.y -= 2
    _labelled(sheet, t["action"], finding.action)
    _labelled(sheet, t["rests_on"], finding.source, after=1 if finding.source_url else 3)
    if finding.source_url:
        sheet.paragraph(finding.source_url, 8, indent=96, after=3, url=finding.source_url)
    if finding.scope:
        _labelled(sheet, t["scope"], finding.scope)
    _labelled(sheet, t["evidence"], _evidence(sheet, finding))
    sheet.y -= 14


def _labelled(sheet: Sheet, label: str, text: str, *, after: float = 3) -> None:
    sheet.ensure(12)
    sheet.write(MARGIN + 24, sheet.y - 11.36, label, 8, bold=True, ink=GREY)
    sheet.paragraph(text, 8, indent=96, after=after)


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
        labels.append(t.say("more_evidence", count=more))
    return ", ".join(labels)


def draw_consent(sheet: Sheet, report: Report) -> None:
    """What was there before a choice and what after."""
    t = sheet.t
    _section(sheet, "consent", t["intro.consent"])
    columns = (
        Column(t["category"], 4), Column(t["legend_before"], 2, True),
        Column(t["legend_after"], 2, True), Column(t["legend_unknown"], 2, True),
        Column(t["total"], 2, True),
    )  # fmt: skip
    rows = [
        [t[f"category.{row.category}"], *_numbers(t, row.before, row.after, row.unknown)]
        for row in report.consent
    ]
    total = _numbers(t, *(
        sum(getattr(row, moment) for row in report.consent)
        for moment in ("before", "after", "unknown")
    ))  # fmt: skip
    draw_table(sheet, columns, [*rows, [t["total"], *total]], size=8.5)


def _numbers(t: Language, *counts: int) -> list[str]:
    return [t.number(count) for count in (*counts, sum(counts))]


def draw_inventory(sheet: Sheet, report: Report) -> None:
    """Every cookie, on wide pages."""
    t = sheet.t
    sheet.turn(wide=True)
    _section(sheet, "inventory", t["intro.inventory"])
    if report.cookies:
        rows = map(_inventory_row, report.cookies)
        draw_table(sheet, _inventory_columns(finding_numbers(report), t), rows, size=6.2)
    else:
        sheet.paragraph(t["none"])
    sheet.turn()


def _inventory_row(cookie: InventoryCookie) -> tuple[Any, ...]:
    """A cookie's values, grouped by the column that reads them."""
    return (
        cookie.number,
        cookie.name,
        (cookie.domain, cookie.path),
        cookie.party,
        (cookie.category, cookie.category_sent),
        cookie.purpose,
        cookie.vendor,
        cookie.duration,
        cookie.size_bytes,
        (cookie.secure, cookie.http_only, cookie.same_site),
        cookie.before_consent,
        (cookie.classified_by, cookie.ml_confidence, cookie.iab_purposes, cookie.needs_review),
        cookie.rule_ids,
    )


def _inventory_columns(numbers: Mapping[str, int], t: Language) -> tuple[Column, ...]:
    dash = t["dash"]

    def stated(text: str | None) -> str:
        return text or dash

    def place(values: tuple[str, str]) -> tuple[str, ...]:
        return stated(values[0]), stated(values[1])

    def flags(values: tuple[bool | None, bool | None, str | None]) -> str:
        secure, http_only, same_site = values
        return " · ".join((tri(secure, t), tri(http_only, t), stated(same_site)))

    def category(values: tuple[Category, str | None]) -> tuple[str, ...]:
        return category_lines(values[0], values[1], t)

    def classified(
        values: tuple[str | None, float | None, tuple[str, ...], bool],
    ) -> tuple[str, ...]:
        return classification(values[0], values[1], values[2], values[3], t)

    return (
        Column("#", 27, True, read=str),
        Column(t["name"], 96, read=lambda name: name or t["empty_name"]),
        Column(t["domain_path"], 82, read=place),
        Column(t["party"], 45, read=lambda party: t[f"party.{party}"]),
        Column(t["category"], 62, read=category),
        Column(t["purpose"], 152, read=lambda purpose: prose(purpose or dash)),
        Column(t["vendor"], 54, read=stated),
        Column(t["lifetime"], 44, read=stated),
        Column(t["size"], 35, True, read=lambda size: number(size, t)),
        Column(t["flags"], 68, read=flags),
        Column(t["set"], 38, read=lambda before: consent_word(before, t)),
        Column(t["classified"], 60, read=classified),
        Column(t["findings"], 41, read=lambda ids: ", ".join(str(numbers[one]) for one in ids)),
    )


def draw_storages(sheet: Sheet, report: Report) -> None:
    """The keys of the web storage, never their values."""
    t = sheet.t
    _section(sheet, "storages", t["intro.storages"])
    if not report.storages:
        sheet.paragraph(t["none"])
        return
    columns = (Column(t["area"], 3), Column(t["key"], 9), Column(t["characters"], 2, True))
    rows = ([key.area, key.key, t.number(key.value_size)] for key in report.storages)
    draw_table(sheet, columns, rows)


def draw_exemptions(sheet: Sheet, report: Report) -> None:
    """Why cookies declared necessary may or may not be exempt."""
    t = sheet.t
    _section(sheet, "exemptions", t["intro.exemptions"])
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


def draw_lifetimes(sheet: Sheet, report: Report) -> None:
    """How long the cookies live, with the scope of the rule on it."""
    _section(sheet, "lifetimes", sheet.t["intro.lifetimes"], need=190)
    most = max((bar.count for bar in report.lifetimes), default=0) or 1
    left = MARGIN + 130
    room = sheet.text_width - 130 - 50
    for bar in report.lifetimes:
        sheet.y -= 16
        sheet.write(MARGIN, sheet.y + 2.5, bar.label, 8.5)
        width = room * bar.count / most
        if bar.count:
            sheet.box(left, sheet.y, max(width, 1), 11, AFTER)
        sheet.write(left + width + 6, sheet.y + 2.5, sheet.t.number(bar.count), 8, ink=GREY)
    sheet.y -= 6


def draw_third_parties(sheet: Sheet, report: Report) -> None:
    """Who else sets cookies here."""
    t = sheet.t
    _section(sheet, "third_parties", t["intro.third_parties"])
    if not report.third_parties:
        sheet.paragraph(t["none"])
        return
    columns = (Column(t["domain"], 5), Column(t["vendors"], 6), Column(t["cookies"], 2, True))
    rows = (
        [party.domain or t["not_stated"], ", ".join(party.vendors) or t["dash"],
         t.number(party.cookies)]
        for party in report.third_parties
    )  # fmt: skip
    draw_table(sheet, columns, rows)


def draw_drift(sheet: Sheet, report: Report) -> None:
    """What changed since the scan before."""
    t = sheet.t
    drift = report.drift
    _section(sheet, "drift")
    if drift.compared_with is None:
        sheet.paragraph(t["drift.first"])
        return
    finished = moment(drift.compared_finished_at, t)
    sheet.paragraph(t.say("drift.compared", scan=drift.compared_with, finished=finished))
    if drift.skipped:
        sheet.paragraph(t.say("drift.skipped", count=drift.skipped))
    if not (drift.added or drift.removed or drift.changed):
        sheet.paragraph(t["drift.none"])
    for title, references in (("added", drift.added), ("removed", drift.removed)):
        if references:
            _references(sheet, t[f"drift.{title}"], references)
    if drift.changed:
        sheet.ensure(60)
        title = t.say("labelled", label=t["drift.changed"], value=len(drift.changed))
        sheet.paragraph(title, 9, bold=True, after=3)
        columns = (
            Column(t["name"], 4), Column(t["domain"], 4), Column(t["field"], 2),
            Column(t["was"], 2.5), Column(t["is"], 2.5),
        )  # fmt: skip
        rows = (
            (
                change.cookie.name or t["empty_name"],
                (change.cookie.domain or t["dash"], change.cookie.path or t["dash"]),
                t[f"field.{change.field}"],
                *(value or t["dash"] for value in change_values(change, t)),
            )
            for change in drift.changed[:MAX_CHANGES]
        )
        draw_table(sheet, columns, rows)
        _more(sheet, len(drift.changed))


def _references(sheet: Sheet, title: str, references: Sequence[CookieRef]) -> None:
    t = sheet.t
    sheet.ensure(60)
    said = t.say("labelled", label=title, value=len(references))
    sheet.paragraph(said, 9, bold=True, after=3)
    columns = (Column(t["name"], 5), Column(t["domain"], 5), Column(t["path"], 4))
    rows = (
        [cookie.name or t["empty_name"], cookie.domain or t["dash"], cookie.path or t["dash"]]
        for cookie in references[:MAX_CHANGES]
    )
    draw_table(sheet, columns, rows)
    _more(sheet, len(references))


def _more(sheet: Sheet, count: int) -> None:
    if count > MAX_CHANGES:
        sheet.paragraph(sheet.t.say("drift.more", count=count - MAX_CHANGES), 8, ink=GREY, after=8)
    else:
        sheet.y -= 8


def draw_history(sheet: Sheet, report: Report) -> None:
    """Earlier scores of the domain."""
    t = sheet.t
    _section(sheet, "history")
    if not report.history:
        sheet.paragraph(t["history.none"])
        return
    if report.score.value is not None:
        _history_chart(sheet, report.history, report.score.value)
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


def _history_chart(sheet: Sheet, history: Sequence[HistoryPoint], now: int) -> None:
    """The scores of the domain from left to right, this scan's last; held ones are left out."""
    scores = [point.score for point in history[-MAX_HISTORY:] if point.score is not None]
    scores.append(now)
    if len(scores) < 2:
        return
    height = 64.0
    sheet.ensure(height + 60)
    foot = sheet.y - height
    left, right = MARGIN + 24, sheet.width - MARGIN - 24
    for mark in (0, 50, 100):
        y = foot + height * mark / 100
        sheet.rule(left, y, right, y, RULE, 0.4)
        sheet.write(left - 6, y - 2.5, str(mark), 7, ink=GREY, right=True)
    step = (right - left) / (len(scores) - 1)
    places = [(left + n * step, foot + height * score / 100) for n, score in enumerate(scores)]
    for (x, y), (to_x, to_y) in pairwise(places):
        sheet.rule(x, y, to_x, to_y, AFTER, 1.2)
    for (x, y), score in zip(places, scores, strict=True):
        sheet.box(x - 1.8, y - 1.8, 3.6, 3.6, AFTER)
        if len(scores) <= 12:
            sheet.write(x + 3, y + 4, str(score), 7)
    sheet.y = foot - 14


def draw_limits(sheet: Sheet, report: Report) -> None:
    """What keeps this report from being the whole truth."""
    t = sheet.t
    _section(sheet, "limits")
    if not report.limits:
        sheet.paragraph(t["limits.none"])
    for limit in report.limits:
        holds = f" ({t['holds_score']})" if limit.inconclusive else ""
        sheet.ensure(14)
        sheet.write(MARGIN, sheet.y - 9.5, "•", 9, bold=True, ink=GREY)
        sheet.paragraph(f"{limit.text}{holds}", 9, indent=12)


def draw_score(sheet: Sheet, report: Report) -> None:
    """The formula, and what each finding took off."""
    t = sheet.t
    _section(sheet, "score", t.say("labelled", label=t["formula"], value=report.score.formula))
    if not report.score.terms:
        sheet.paragraph(t["no_findings"])
        return
    columns = (
        Column(t["finding"], 7), Column(t["severity"], 3), Column(t["count"], 2, True),
        Column(t["points"], 2, True),
    )  # fmt: skip
    rows = (
        [term.rule_id, t[f"severity.{term.severity}"], t.number(term.count), points(term, t)]
        for term in report.score.terms
    )
    draw_table(sheet, columns, rows)


def draw_identity(sheet: Sheet, report: Report) -> None:
    """Which scan this is, how it was made, and the digests to check it by."""
    t = sheet.t
    _section(sheet, "identity", need=200)
    columns = (Column("", 4), Column("", 10))
    draw_table(sheet, columns, identity_rows(report, t), size=8)
    if report.identity.pages:
        sheet.y -= 8
        sheet.ensure(50)
        rows = ([page] for page in report.identity.pages)
        draw_table(sheet, [Column(t["pages"], 1)], rows)
    sheet.y -= 6
    sheet.paragraph(t["notice"], 7.5, ink=GREY)

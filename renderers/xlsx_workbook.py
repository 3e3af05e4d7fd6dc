"""The workbook (XLSX): what a spreadsheet can sort, filter and count, sheet by sheet.

It says what the pages say, in the report's language.  Every text goes through
one door, ``_Sheet._write_text``: it lands in a cell as a text and nothing else,
never as a formula, a link or markup of the file.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat
from typing import Any, NamedTuple, TypeAlias

from xlsxwriter import Workbook  # type: ignore[import-untyped] # annotated, but says so nowhere

from languages.language import Language, load_language
from renderers import wording
from renderers.visible import Marks, prose, visible
from schemas.presentation import PLAIN, Presentation
from schemas.reports import CookieRef, Finding, InventoryCookie, Report
from schemas.scans import CUT_MARK

MAX_ROWS = 1_048_576
"""Rows of a sheet; what a table has beyond them is counted in its last one."""

MAX_TEXT = 32_767
"""UTF-16 units of a cell; a longer text is cut and marked."""

INVENTORY = {
    "number": ("cookie_number", 7), "name": ("name", 28), "domain": ("domain", 26),
    "path": ("path", 12), "party": ("party", 10), "category": ("category", 15),
    "category_sent": ("category_sent", 16), "purpose": ("purpose", 40), "vendor": ("vendor", 20),
    "duration": ("lifetime", 12), "duration_seconds": ("duration_seconds", 13),
    "is_session": ("session", 10), "size_bytes": ("size_bytes", 10), "secure": ("secure", 10),
    "http_only": ("http_only", 11), "same_site": ("same_site", 11),
    "before_consent": ("before_consent", 11), "iab_purposes": ("iab_purposes", 11),
    "classified_by": ("classified", 16), "ml_confidence": ("confidence_share", 13),
    "needs_review": ("review", 10), "rule_ids": ("rule_ids", 36),
}  # fmt: skip
"""Every field of the inventory with the text of its head and its width in characters."""

_OPTIONS = {
    "in_memory": True,
    "strings_to_formulas": False,
    "strings_to_urls": False,
    "strings_to_numbers": False,
}
_OLDEST = datetime(1980, 1, 1, tzinfo=UTC)
_A4 = 9
_LINE = 16
"""Points; LibreOffice does not find the height of a row by itself."""
_MAX_LINES = 10
_NAVY = "#16243f"
_FOOTER = 120
"""Characters of the printed footer: escaped, it stays within the format's 255 units."""

_Cell: TypeAlias = str | float | None
"""What a cell shows; None leaves it empty: the source did not say."""

_Format: TypeAlias = Any
"""XlsxWriter's own word for how a cell looks."""


class _Column(NamedTuple):
    title: str
    width: int
    wrapped: bool = False


def render_xlsx(report: Report, presentation: Presentation = PLAIN) -> bytes:
    """Seven sheets, the summary first; the same Report and Presentation give the same bytes."""
    out = io.BytesIO()
    t = load_language(report.language)
    with Workbook(out, _OPTIONS) as workbook:
        workbook.set_properties(_list_properties(report, presentation, t))
        book = _Book(workbook, _make_styles(workbook, presentation), Marks(), presentation, t)
        _add_summary(book, report)
        _add_findings(book, report)
        _add_inventory(book, report)
        _add_storages(book, report)
        _add_exemptions(book, report)
        _add_third_parties(book, report)
        _add_changes(book, report)
    return out.getvalue()


def _list_properties(report: Report, presentation: Presentation, t: Language) -> dict[str, Any]:
    finished = report.identity.finished_at
    return {
        "title": visible(wording.title_line(report, t), Marks()),
        "author": visible(presentation.organisation, Marks()),
        "company": visible(presentation.organisation, Marks()),
        # Left out, it would be the clock's; a year of fewer than four digits is none to a reader.
        "created": finished if finished and finished > _OLDEST else _OLDEST,
    }


@dataclass(frozen=True, slots=True)
class _Styles:
    """How cells look.

    Those of texts mark them as typed with an apostrophe (``quote_prefix``): one that
    looks like a formula is still a text when somebody edits its cell.
    """

    number: _Format
    plain: _Format
    wrapped: _Format
    title: _Format
    section: _Format
    head: _Format
    number_head: _Format
    run: _Format


def _make_styles(workbook: Any, presentation: Presentation) -> _Styles:
    accent = presentation.accent or _NAVY
    text = {"quote_prefix": True, "valign": "top", "align": "left", "indent": 1}
    head = {"bold": True, "bg_color": accent, "font_color": _ink_on(accent), "text_wrap": True}
    return _Styles(
        number=workbook.add_format({"valign": "top"}),
        plain=workbook.add_format(text),
        wrapped=workbook.add_format({**text, "text_wrap": True}),
        title=workbook.add_format({**text, "bold": True, "font_size": 16}),
        section=workbook.add_format({**text, "bold": True, "font_size": 12, "bottom": 1}),
        head=workbook.add_format({**text, **head}),
        number_head=workbook.add_format({**text, **head, "align": "right", "indent": 0}),
        run=workbook.add_format(),
    )


def _ink_on(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#ffffff" if 299 * red + 587 * green + 114 * blue < 150_000 else "#000000"


@dataclass(slots=True)
class _Sheet:
    """One sheet, written from the top."""

    page: Any
    styles: _Styles
    marks: Marks
    row: int = 0

    def add_row(self, cells: Iterable[_Cell], styles: Iterable[_Format] = ()) -> None:
        """One row; numbers as numbers, empty texts and None as empty cells."""
        shown = zip(cells, styles or repeat(self.styles.plain), strict=False)
        for place, (cell, style) in enumerate(shown):
            if isinstance(cell, str):
                self._write_text(place, cell, style)
            elif cell is not None:
                self.page.write_number(self.row, place, cell, self.styles.number)
        self.row += 1

    def add_head(self, texts: Sequence[str], numbers: Sequence[str] = ()) -> None:
        """The head of a table: of its columns of text, then of those of numbers."""
        styles = [self.styles.head] * len(texts) + [self.styles.number_head] * len(numbers)
        self.add_row([*texts, *numbers], styles)

    def add_section(self, title: str, columns: int = 6) -> None:
        """An empty row and a title with a rule below it."""
        self.row += 1
        for place in range(1, columns):
            self.page.write_blank(self.row, place, None, self.styles.section)
        self.add_row([title], [self.styles.section])

    def _write_text(self, place: int, text: str, style: _Format) -> None:
        shown = _fit(visible(text, self.marks))
        if shown.startswith("<r>") and shown.endswith("</r>"):
            # XlsxWriter takes such a text for its own markup and writes it unescaped.
            runs = (shown[:1], self.styles.run, shown[1:])
            self.page.write_rich_string(self.row, place, *runs, style)
        elif shown:
            self.page.write_string(self.row, place, shown, style)


def _fit(text: str) -> str:
    """``text`` if a cell holds it, else its start and a mark."""
    if len(text) * 2 <= MAX_TEXT:
        return text
    raw = text.encode("utf-16-le")
    if len(raw) <= MAX_TEXT * 2:
        return text
    return raw[: (MAX_TEXT - len(CUT_MARK)) * 2].decode("utf-16-le", "ignore") + CUT_MARK


@dataclass(frozen=True, slots=True)
class _Book:
    """What all sheets share."""

    workbook: Any
    styles: _Styles
    marks: Marks
    presentation: Presentation
    t: Language

    def add_sheet(self, name: str, widths: Iterable[int]) -> _Sheet:
        """A sheet that prints on landscape pages, one wide, footer and page number below."""
        page = self.workbook.add_worksheet(self.t[f"sheet.{name}"])
        for place, width in enumerate(widths):
            page.set_column(place, place, width)
        page.set_landscape()
        page.set_paper(_A4)
        page.fit_to_pages(1, 0)
        page.set_footer(f"&L{_escape_footer(self.presentation.footer, self.marks)}&R&P / &N")
        page.ignore_errors({"number_stored_as_text": f"A1:XFD{MAX_ROWS}"})
        return _Sheet(page, self.styles, self.marks)

    def add_table(
        self,
        name: str,
        columns: Sequence[_Column],
        rows: Sequence[Any],
        cells: Callable[[Any], Iterable[_Cell]],
    ) -> None:
        """A sheet that is one table: a frozen head with filters, ``cells`` of each of ``rows``."""
        sheet = self.add_sheet(name, [column.width for column in columns])
        styles = [
            self.styles.wrapped if column.wrapped else self.styles.plain for column in columns
        ]
        fitting = len(rows) if len(rows) < MAX_ROWS else MAX_ROWS - 2
        sheet.page.set_row(0, 2 * _LINE)
        sheet.add_head([column.title for column in columns])
        for row in rows[:fitting]:
            if self.styles.wrapped in styles:
                sheet.page.set_row(sheet.row, _height(cells(row), columns))
            sheet.add_row(cells(row), styles)
        if fitting < len(rows):
            sheet.add_row([self.t.say("drift.more", count=len(rows) - fitting)])
        sheet.page.freeze_panes(1, 0)
        sheet.page.repeat_rows(0)
        sheet.page.autofilter(0, 0, fitting, len(columns) - 1)
        sheet.page.print_area(0, 0, sheet.row - 1, len(columns) - 1)


def _height(cells: Iterable[_Cell], columns: Sequence[_Column]) -> int:
    lines = (
        1 + len(cell) // column.width
        for cell, column in zip(cells, columns, strict=False)
        if column.wrapped and isinstance(cell, str)
    )
    return _LINE * min(max(lines, default=1), _MAX_LINES)


def _escape_footer(text: str, marks: Marks) -> str:
    shown = visible(prose(text), marks)
    if len(shown) > _FOOTER:
        shown = shown[: _FOOTER - 1] + "…"
    # XlsxWriter counts every "&G" as a picture, escaped or not: part them.
    return shown.replace("&G", "& G").replace("&[", "& [").replace("&", "&&")


def _add_summary(book: _Book, report: Report) -> None:
    t = book.t
    sheet = book.add_sheet("summary", [36, *[16] * 5])
    if book.presentation.organisation:
        sheet.add_row([book.presentation.organisation])
    sheet.page.set_row(sheet.row, 2 * _LINE)
    sheet.add_row([wording.title_line(report, t)], [book.styles.title])
    sheet.add_row([wording.verdict_line(report, t)])
    _add_figures(sheet, report, t)
    sheet.add_section(t["section.identity"])
    for pair in wording.identity_rows(report, t):
        sheet.add_row(pair)
    _add_consent(sheet, report, t)
    sheet.add_section(t["section.lifetimes"])
    for lifetime in report.lifetimes:
        sheet.add_row([lifetime.label, lifetime.count])
    _add_score(sheet, report, t)
    sheet.add_section(t["section.limits"])
    for limit in report.limits:
        held = f" ({t['holds_score']})" if limit.inconclusive else ""
        sheet.add_row([f"{prose(limit.text)}{held}"])
    if not report.limits:
        sheet.add_row([t["limits.none"]])
    if report.identity.pages:
        sheet.add_section(t["pages"])
    for page in report.identity.pages:
        sheet.add_row([page])
    sheet.add_row([])
    sheet.add_row([t["notice"]])
    sheet.add_row([book.presentation.footer])


def _add_figures(sheet: _Sheet, report: Report, t: Language) -> None:
    totals, score = report.totals, report.score.value
    sheet.add_section(t["section.verdict"])
    sheet.add_row([t["score"], t["held"] if score is None else score])
    if report.inconclusive:
        sheet.add_row([t["inconclusive"], t["inconclusive_text"]])
    sheet.add_row([t["cookies"], totals.cookies])
    sheet.add_row([t["before_consent"], totals.before_consent])
    sheet.add_row([t["third_party_cookies"], totals.third_party])
    sheet.add_row([t["session_cookies"], totals.session])
    sheet.add_row([t["storage_keys"], totals.storage_keys])
    for item in totals.severities:
        severity = t[f"severity.{item.label}"]
        label = t.say("labelled", label=t["findings"], value=severity)
        sheet.add_row([label, item.count])


def _add_consent(sheet: _Sheet, report: Report, t: Language) -> None:
    sheet.add_section(t["section.consent"])
    kinds = ("legend_before", "legend_after", "legend_unknown", "total")
    sheet.add_head([t["category"]], [t[kind] for kind in kinds])
    for row in report.consent:
        counts = (row.before, row.after, row.unknown)
        sheet.add_row([t[f"category.{row.category}"], *counts, sum(counts)])


def _add_score(sheet: _Sheet, report: Report, t: Language) -> None:
    sheet.add_section(t["section.score"])
    sheet.add_row([t["formula"], report.score.formula])
    sheet.add_head([t["finding"], t["severity"]], [t["count"], t["points"]])
    for term in report.score.terms:
        sheet.add_row([term.rule_id, t[f"severity.{term.severity}"], term.count, -term.points])
    sheet.add_section(t["section.history"])
    for point in report.history:
        shown = t["held"] if point.score is None else point.score
        sheet.add_row([wording.moment(point.finished_at, t), shown, point.scan_id])
    if not report.history:
        sheet.add_row([t["history.none"]])


def _add_findings(book: _Book, report: Report) -> None:
    t = book.t
    numbers = wording.finding_numbers(report)
    columns = [
        _Column("#", 5),
        _Column(t["severity"], 10),
        _Column(t["rule_id"], 26, wrapped=True),
        _Column(t["finding"], 28, wrapped=True),
        _Column(t["explanation"], 44, wrapped=True),
        _Column(t["action"], 40, wrapped=True),
        _Column(t["rests_on"], 30, wrapped=True),
        _Column(t["source_url"], 26, wrapped=True),
        _Column(t["scope"], 30, wrapped=True),
        _Column(t["count"], 8),
        _Column(t["evidence"], 50, wrapped=True),
    ]

    def cells(finding: Finding) -> Sequence[_Cell]:
        labels = [item.label for item in finding.evidence]
        if more := finding.count - len(labels):
            labels.append(t.say("more_evidence", count=more))
        return (
            numbers[finding.rule_id],
            t[f"severity.{finding.severity}"],
            finding.rule_id,
            finding.title,
            finding.explanation,
            finding.action,
            finding.source,
            finding.source_url,
            finding.scope,
            finding.count,
            ", ".join(labels),
        )

    book.add_table("findings", columns, report.findings, cells)


def _add_inventory(book: _Book, report: Report) -> None:
    t = book.t
    words = {True: t["yes"], False: t["no"], None: None}

    def cells(cookie: InventoryCookie) -> Sequence[_Cell]:
        return (
            cookie.number,
            cookie.name or t["empty_name"],
            cookie.domain,
            cookie.path,
            t[f"party.{cookie.party}"],
            t[f"category.{cookie.category}"],
            cookie.category_sent,
            cookie.purpose and prose(cookie.purpose),
            cookie.vendor,
            cookie.duration,
            cookie.duration_seconds,
            words[cookie.is_session],
            cookie.size_bytes,
            words[cookie.secure],
            words[cookie.http_only],
            cookie.same_site,
            words[cookie.before_consent],
            ", ".join(cookie.iab_purposes),
            cookie.classified_by,
            cookie.ml_confidence,
            words[cookie.needs_review],
            " ".join(cookie.rule_ids),
        )

    columns = [_Column(t[key], width) for key, width in INVENTORY.values()]
    book.add_table("inventory", columns, report.cookies, cells)


def _add_storages(book: _Book, report: Report) -> None:
    t = book.t
    columns = [_Column(t["area"], 18), _Column(t["key"], 60), _Column(t["characters"], 12)]
    book.add_table(
        "storages", columns, report.storages, lambda key: (key.area, key.key, key.value_size)
    )


def _add_exemptions(book: _Book, report: Report) -> None:
    t = book.t
    columns = [
        _Column(t["cookie_number"], 7),
        _Column(t["name"], 30),
        _Column(t["assessment"], 14),
        _Column(t["reason"], 90),
    ]
    book.add_table(
        "exemptions",
        columns,
        report.exemptions,
        lambda item: (
            item.cookie_number,
            item.name or t["empty_name"],
            t[f"verdict.{item.verdict}"],
            item.reason,
        ),
    )


def _add_third_parties(book: _Book, report: Report) -> None:
    t = book.t
    columns = [_Column(t["domain"], 40), _Column(t["vendors"], 60), _Column(t["cookies"], 10)]
    book.add_table(
        "third_parties",
        columns,
        report.third_parties,
        lambda party: (party.domain, ", ".join(party.vendors), party.cookies),
    )


def _add_changes(book: _Book, report: Report) -> None:
    t, drift = book.t, report.drift
    titles = ("change", "name", "domain", "path", "field", "was", "is")
    widths = (12, 30, 26, 14, 14, 24, 24)
    columns = [_Column(t[key], width) for key, width in zip(titles, widths, strict=True)]

    def named(cookie: CookieRef) -> tuple[str, str, str]:
        return (cookie.name or t["empty_name"], cookie.domain, cookie.path)

    rows: list[tuple[str, ...]] = [
        *((t["change.added"], *named(cookie)) for cookie in drift.added),
        *((t["change.removed"], *named(cookie)) for cookie in drift.removed),
        *(
            (t["change.changed"], *named(change.cookie), t[f"field.{change.field}"],
             *wording.change_values(change, t))
            for change in drift.changed
        ),
    ]  # fmt: skip
    book.add_table("changes", columns, rows, tuple)

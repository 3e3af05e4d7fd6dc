"""The workbook, sheet by sheet."""

from __future__ import annotations

import io
import re
import zipfile
from datetime import UTC, datetime
from xml.etree import ElementTree

import msgspec
import openpyxl
import pytest

from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from languages.language import known_languages, load_language
from renderers import xlsx_workbook
from renderers.csv_table import COLUMNS
from renderers.xlsx_workbook import INVENTORY, MAX_TEXT, render_xlsx
from schemas.presentation import PLAIN, Presentation
from schemas.reports import HistoryPoint, Report
from schemas.scans import CUT_MARK, Scan

SHEETS = ("summary", "findings", "inventory", "storages", "exemptions", "third_parties", "changes")


def scan(*cookies: dict, **fields) -> Scan:
    base = {
        "scan_id": "5b8ff6a2-4c1e-4d6b-9d1c-0a4f2f6f3a11", "domain": "example.org",
        "timestamp_utc": "2026-03-04T12:30:00Z", "status": "success", "page_count": 3,
    }  # fmt: skip
    return msgspec.convert({**base, **fields, "cookies": list(cookies)}, Scan)


def report_of(*cookies: dict, language: str = "en", previous=None, history=(), **fields) -> Report:
    return assess(
        scan(*cookies, **fields),
        scan_sha256="ab" * 32,
        pack=load_pack("eu-baseline"),
        previous=previous,
        history=history,
        language=language,
        bounds=Bounds(max_cookies=50_000, max_string_bytes=8192),
    )


def opened(report: Report, presentation: Presentation = PLAIN):
    return openpyxl.load_workbook(io.BytesIO(render_xlsx(report, presentation)))


def values(sheet) -> list[list]:
    return [list(row) for row in sheet.iter_rows(values_only=True)]


def name_cell(name: str):
    return opened(report_of({"name": name}))["Inventory"]["B2"]


TRACKER = {
    "name": "_ga", "domain": ".ads.example", "path": "/", "cookie_type": "Third Party",
    "category": "Marketing", "cookie_duration": "2 years", "size": 30, "secure": False,
    "http_only": None, "same_site": "Lax", "set_after_accept": False, "vendor": "Ads Ltd",
    "description": "to follow\nyou", "iab_purposes": [1, 2], "source": "cmp",
    "ml_confidence": 0.25, "requires_review": True,
}  # fmt: skip


@pytest.mark.parametrize("code", known_languages())
def test_the_sheets_are_named_in_the_language_of_the_report(code):
    t = load_language(code)
    names = [t[f"sheet.{name}"] for name in SHEETS]
    assert opened(report_of(TRACKER, language=code)).sheetnames == names
    for name in names:
        assert 0 < len(name) <= 31
        assert not re.search(r"[\[\]:*?/\\]|^'|'$", name)


def test_every_column_of_the_table_is_in_the_inventory_under_a_readable_head():
    assert tuple(INVENTORY) == COLUMNS
    heads = values(opened(report_of())["Inventory"])
    assert heads == [
        ["No.", "Name", "Domain", "Path", "Party", "Category", "Category as sent", "Purpose",
         "Vendor", "Lifetime", "Lifetime in seconds", "Session", "Size in bytes", "Secure",
         "HttpOnly", "SameSite", "Before consent", "IAB purposes", "Classified by", "Confidence",
         "Needs review", "Rule ids"]
    ]  # fmt: skip


def test_numbers_are_numbers_truths_are_words_and_the_unknown_is_empty():
    report = report_of(TRACKER, {"name": "bare"})
    _, row, bare = values(opened(report)["Inventory"])
    assert row == [
        1, "_ga", ".ads.example", "/", "third", "Advertising", "Marketing", "to follow you",
        "Ads Ltd", "2 years", 63115200, "no", 30, "no", None, "Lax", "yes", "1, 2", "cmp", 0.25,
        "yes", " ".join(report.cookies[0].rule_ids),
    ]  # fmt: skip
    assert len(report.cookies[0].rule_ids) > 1
    assert bare[:6] == [2, "bare", None, None, "unknown", "Unclassified"]
    assert bare[10:20] == [None, "no", *[None] * 8]


def test_the_workbook_speaks_german():
    sheet = opened(report_of(TRACKER, language="de")).worksheets[2]
    row = dict(zip(*values(sheet), strict=True))
    t = load_language("de")
    assert row[t["category"]] == t["category.advertising"] != "Advertising"
    assert row[t["secure"]] == t["no"] == "nein"


def test_the_head_stays_in_sight_and_filters_every_row():
    workbook = opened(report_of(*[{"name": f"c{number}"} for number in range(30)]))
    for sheet in workbook.worksheets[1:]:
        assert sheet.freeze_panes == "A2"
        assert sheet.auto_filter.ref.startswith("A1:")
        assert sheet.print_title_rows == "$1:$1"
    assert workbook["Inventory"].auto_filter.ref == "A1:V31"


def test_a_finding_says_what_was_found_what_to_do_and_on_what_it_rests():
    report = report_of(TRACKER)
    heads, *rows = values(opened(report)["Findings"])
    assert len(rows) == len(report.findings) > 2
    first, row = report.findings[0], dict(zip(heads, rows[0], strict=True))
    assert row == {
        "#": 1, "Severity": "High", "Rule id": first.rule_id, "Finding": first.title,
        "Explanation": first.explanation, "What to do": first.action, "Rule": first.source,
        "Web address": first.source_url, "Scope": first.scope, "Count": first.count,
        "Evidence": "_ga (.ads.example)",
    }  # fmt: skip


def test_evidence_that_is_not_listed_is_counted():
    cookies = [{**TRACKER, "name": f"c{number}"} for number in range(130)]
    heads, first, *_ = values(opened(report_of(*cookies))["Findings"])
    evidence = first[heads.index("Evidence")]
    assert "c99 (.ads.example), and 30 more" in evidence


def test_the_summary_says_what_page_one_says():
    previous = datetime(2026, 2, 1, tzinfo=UTC)
    history = [HistoryPoint(scan_id="before", finished_at=previous, score=71)]
    report = report_of(TRACKER, history=history, pages_visited=["https://example.org/"])
    rows = values(opened(report)["Summary"])
    told = {row[0]: row[1:] for row in rows if row[0] is not None}
    assert rows[0][0] == "Cookie scan report: example.org"
    assert "Set before a choice: 1 cookie." in rows[1][0]
    assert told["Score"][0] == report.score.value
    assert told["Cookies"][0] == 1
    assert told["Findings: High"][0] == report.totals.severities[0].count
    assert told["Advertising"][:4] == [1, 0, 0, 1]
    assert told["SHA-256 of the scan result"][0] == "ab" * 32
    assert told["Formula"][0] == report.score.formula
    assert [row[1:3] for row in rows if str(row[0]).startswith("1 Feb 2026")] == [[71, "before"]]
    assert "https://example.org/" in told
    assert load_language("en")["notice"] in told
    assert all(limit.text in told for limit in report.limits)


def test_an_inconclusive_scan_holds_its_score_and_says_why():
    report = report_of(page_count=0, status="failed")
    rows = values(opened(report)["Summary"])
    told = {row[0]: row[1] for row in rows}
    assert told["Score"] == "held"
    assert told["Inconclusive"].startswith("This scan is not sound")
    assert any(str(row[0]).endswith("(holds the score)") for row in rows)


def test_changes_third_parties_storage_and_exemptions_have_their_sheets():
    needed = {"name": "sid", "domain": "example.org", "path": "/", "category": "necessary"}
    previous = scan({**needed, "secure": True}, {"name": "gone", "domain": "example.org"})
    workbook = opened(
        report_of(
            {**needed, "secure": False},
            TRACKER,
            previous=previous,
            storages={"localStorage": {"k": "four"}},
        )
    )
    assert values(workbook["Changes"])[1:] == [
        ["added", "_ga", ".ads.example", "/", None, None, None],
        ["removed", "gone", "example.org", None, None, None, None],
        ["changed", "sid", "example.org", "/", "Secure", "yes", "no"],
    ]
    assert values(workbook["Third parties"])[1:] == [["ads.example", "Ads Ltd", 1]]
    assert values(workbook["Storage keys"])[1:] == [["localStorage", "k", 4]]
    assert values(workbook["Exemptions"])[1][:3] == [1, "sid", "questionable"]


@pytest.mark.parametrize("text", ["=1+1", "{=1+1}", "+1", "@SUM(A1)", "https://x.example/", "12"])
def test_a_text_is_a_text_and_stays_one_when_its_cell_is_edited(text):
    cell = name_cell(text)
    assert (cell.value, cell.data_type, cell.hyperlink) == (text, "s", None)
    assert cell.quotePrefix


@pytest.mark.parametrize(
    "text",
    ["<r></r>", "<r><t>x</t></r>", "<r>&unclosed</r>", "<r></si></sst></r>", "<R>x</R>", "<r>",
     "&lt;", "_x0041_", "]]>", ' lead and "trail" '],
)  # fmt: skip
def test_markup_of_the_file_format_is_only_text(text):
    assert name_cell(text).value == text


def test_a_text_longer_than_a_cell_is_cut_and_marked():
    shown = name_cell("\x00" * 8192).value  # eight characters each, once they can be seen
    assert len(shown) == MAX_TEXT
    assert shown.startswith("‹U+0000›" * 4000)
    assert shown.endswith(CUT_MARK)


def test_the_cut_counts_as_spreadsheets_count_and_splits_no_character():
    cookie = {"name": "n", "iab_purposes": ["a" + "🍪" * 2000] * 50}
    sheet = opened(report_of(cookie))["Inventory"]
    shown = sheet["R2"].value
    assert MAX_TEXT - 1 <= len(shown.encode("utf-16-le")) // 2 <= MAX_TEXT
    assert shown.endswith(f"🍪{CUT_MARK}")


def test_rows_beyond_a_sheet_are_counted_in_its_last_one(monkeypatch):
    report = report_of(*[{"name": f"c{number}"} for number in range(10)])
    monkeypatch.setattr(xlsx_workbook, "MAX_ROWS", 11)
    assert len(values(opened(report)["Inventory"])) == 11
    monkeypatch.setattr(xlsx_workbook, "MAX_ROWS", 10)
    rows = values(opened(report)["Inventory"])
    assert len(rows) == 10
    assert [row[1] for row in rows[1:-1]] == [f"c{number}" for number in range(8)]
    assert rows[-1][0] == "and 2 more; the JSON report lists all"


@pytest.mark.parametrize(
    ("finished", "created"),
    [
        ("2026-03-04T12:30:00Z", datetime(2026, 3, 4, 12, 30)),
        ("2026-03-04T12:30:00+02:00", datetime(2026, 3, 4, 10, 30)),
        (None, datetime(1980, 1, 1)),
        ("0001-01-01T00:00:00Z", datetime(1980, 1, 1)),
    ],
)
def test_the_file_is_as_old_as_the_scan(finished, created):
    properties = opened(report_of(timestamp_utc=finished)).properties
    assert properties.created == properties.modified == created


def test_the_organisation_is_author_and_company_and_stands_on_top():
    brand = Presentation(organisation="Müller & Söhne <GmbH>")
    workbook = opened(report_of(), brand)
    assert workbook.properties.creator == "Müller & Söhne <GmbH>"
    assert workbook.properties.title == "Cookie scan report: example.org"
    assert workbook["Summary"]["A1"].value == "Müller & Söhne <GmbH>"
    properties = ElementTree.fromstring(part(brand, "docProps/app.xml"))
    assert [item.text for item in properties if item.tag.endswith("}Company")] == [
        "Müller & Söhne <GmbH>"
    ]


def part(brand: Presentation, name: str) -> bytes:
    """One file of the workbook's archive."""
    with zipfile.ZipFile(io.BytesIO(render_xlsx(report_of(), brand))) as archive:
        return archive.read(name)


@pytest.mark.parametrize(
    ("footer", "printed"),
    [
        ("", "&L&R&P / &N"),
        ("Confidential", "&LConfidential&R&P / &N"),
        ("R&D", "&LR&&D&R&P / &N"),
        ("R&G [&[Picture]] 100 %", "&LR&& G [&& [Picture]] 100 %&R&P / &N"),
        ("&" * 300, f"&L{'&' * 238}…&R&P / &N"),
        ("🍪" * 300, f"&L{'🍪' * 119}…&R&P / &N"),
    ],
)
def test_the_footer_is_printed_on_every_sheet_and_read_on_the_first(footer, printed):
    brand = Presentation(footer=footer)
    for number in range(1, len(SHEETS) + 1):
        sheet = ElementTree.fromstring(part(brand, f"xl/worksheets/sheet{number}.xml"))
        assert [item.text for item in sheet.iter() if item.tag.endswith("}oddFooter")] == [printed]
    last = values(opened(report_of(), brand)["Summary"])[-1][0]
    assert last == (footer or load_language("en")["notice"])


@pytest.mark.parametrize(
    ("accent", "fill", "ink"),
    [("", "16243F", "FFFFFF"), ("#ffd400", "FFD400", "000000"), ("#7a0019", "7A0019", "FFFFFF")],
)
def test_the_head_wears_the_accent_and_can_be_read_on_it(accent, fill, ink):
    head = opened(report_of(), Presentation(accent=accent))["Inventory"]["A1"]
    assert head.fill.fgColor.rgb == f"FF{fill}"
    assert head.font.color.rgb == f"FF{ink}"

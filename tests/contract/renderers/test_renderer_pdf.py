"""What the PDF promises beyond the suite of all renderers."""

from __future__ import annotations

import io
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pikepdf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pypdf import PdfReader

from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from renderers.fonts import REGULAR
from renderers.pdf_document import render_pdf
from renderers.shaping import DIRECTIONS
from renderers.typeface import Typeface, _syllables
from schemas.presentation import Presentation
from schemas.reports import HistoryPoint
from schemas.scans import Scan, decode_scan

SCANS = Path(__file__).parents[2] / "data/scans"
PACK = load_pack("eu-baseline")


def reader_of(scan: Scan, **more) -> PdfReader:
    report = assess(scan, scan_sha256="ab" * 32, pack=PACK, bounds=Bounds(50_000, 8192), **more)
    return PdfReader(io.BytesIO(render_pdf(report)), strict=True)


def scan_with(cookies, **fields) -> Scan:
    base = {"scan_id": "5b8ff6a2-4c1e-4d6b-9d1c-0a4f2f6f3a11", "domain": "example.org",
            "page_count": 1}  # fmt: skip
    return msgspec.convert({**base, **fields, "cookies": cookies}, Scan)


@pytest.fixture(scope="module")
def document() -> PdfReader:
    return reader_of(decode_scan((SCANS / "cookieblock__lakersnation.com.json").read_bytes()))


def test_every_page_says_which_of_how_many_it_is(document):
    count = len(document.pages)
    for place, page in enumerate(document.pages, 1):
        text = " ".join(page.extract_text().split())
        assert f"Page {place} of" in text
        assert f"Page {place} of {count}" in text


def test_page_one_names_domain_score_and_verdict(document):
    text = " ".join(document.pages[0].extract_text().split())
    assert "lakersnation.com" in text
    assert "64 of 100" in text
    assert "7 findings on 65 cookies, 1 of high severity. Set before a choice: 7 cookies." in text


def test_an_inconclusive_report_shows_no_score():
    page = reader_of(scan_with([{"name": "a"}], status="failed")).pages[0]
    text = " ".join(page.extract_text().split())
    assert "held" in text
    assert "of 100" not in text
    assert "not with success" in text


def test_every_section_and_finding_has_a_bookmark(document):
    titles = [entry.title for entry in document.outline if not isinstance(entry, list)]
    assert titles == [
        "Verdict", "Contents", "Findings and actions", "Consent", "Cookie inventory",
        "Local and session storage", "Exemption reasoning", "Lifetimes", "Third parties",
        "Changes since the scan before", "Score history", "Limits of this report",
        "How the score is made", "Identity and method",
    ]  # fmt: skip
    (findings,) = [entry for entry in document.outline if isinstance(entry, list)]
    assert len(findings) == 7


def test_the_document_names_title_author_and_language_and_no_moment(document):
    assert document.metadata.title == "Cookie scan report: lakersnation.com"
    assert document.metadata.author == "scanherald"
    assert document.trailer["/Root"]["/Lang"] == "en"
    assert document.metadata.creation_date.year == 2000


def test_the_digests_of_scan_and_content_are_printed(document):
    text = "".join(document.pages[-1].extract_text().split())
    assert "ab" * 32 in text
    assert "eu-baseline2026.1" in text


def test_the_inventory_repeats_its_head_on_every_page():
    document = reader_of(scan_with([{"name": f"cookie-{n}"} for n in range(200)]))
    pages = [page.extract_text() for page in document.pages if page.mediabox.width > 800]
    assert len(pages) > 3
    for text in pages:
        assert "Domain and path" in text


def test_text_of_more_than_256_different_characters_is_drawn_and_read_back():
    face = Typeface(REGULAR)
    codes = [c for c in range(0x100, 0x1400) if face.show(chr(c)) == chr(c)]
    letters = [c for c in codes if chr(c).isalpha() and not 0x590 <= c < 0x900]
    assert len(letters) > 512
    words = ["".join(map(chr, letters[n : n + 10])) for n in range(0, 800, 10)]
    document = reader_of(scan_with([{"name": word} for word in words]))
    text = "".join("".join(page.extract_text().split()) for page in document.pages)
    for word in words:
        assert word in text


@given(st.text(max_size=200), st.floats(5, 200))
def test_wrapping_loses_nothing_but_spaces_and_keeps_the_width(text, width):
    face = Typeface(REGULAR)
    shown = face.show(text)
    lines = face.wrap(shown, 7, width)
    bare = [line.strip(DIRECTIONS) for line in lines]
    assert "".join(bare).replace(" ", "") == shown.replace(" ", "")
    for line in bare:
        assert face.width(line, 7) <= width + 0.001 or len(list(_syllables(line))) == 1


@given(st.text(max_size=200), st.floats(20, 200), st.integers(1, 3))
def test_what_is_clipped_keeps_lines_and_width_and_says_so(text, width, most):
    face = Typeface(REGULAR)
    shown = face.show(text)
    lines = face.clip(shown, 7, width, most)
    whole = face.wrap(shown, 7, width)
    assert len(lines) == min(most, len(whole))
    assert lines[: most - 1] == whole[: most - 1]
    assert lines == whole or lines[-1].endswith("…")
    last = lines[-1].strip(DIRECTIONS)
    assert face.width(last, 7) <= width + 0.001 or len(list(_syllables(last))) <= 2


def test_a_domain_of_hidden_characters_leaves_room_on_page_one():
    hostile = "\u200b" * 250
    document = reader_of(scan_with([], domain=hostile))
    first = "".join(document.pages[0].extract_text().split())
    assert "…" in first
    assert "of100" in first
    assert 10 < first.count("U+200B") < 100
    whole = "".join("".join(page.extract_text().split()) for page in document.pages)
    assert whole.count("U+200B") > 250


def test_no_text_leaves_the_page():
    long = "W" * 3000
    scan = scan_with(
        [{"name": long, "domain": long, "vendor": long, "cookie_duration": long,
          "same_site": long, "source": long, "category": long, "ml_confidence": 1e300,
          "size": 2**53}],
        domain="W" * 253, status=long, error=long, scan_mode=long, pages_visited=[long],
    )  # fmt: skip
    for page in reader_of(scan).pages:
        width, height = page.mediabox.width, page.mediabox.height

        def inside(text, _matrix, text_matrix, _font, size, width=width, height=height):
            if text.strip():
                assert 0 <= text_matrix[4] <= width - 20
                assert 0 <= text_matrix[5] <= height

        page.extract_text(visitor_text=inside)


def test_the_contents_lead_to_every_section_and_say_its_page(document):
    (page,) = [page for page in document.pages if "Contents\n" in page.extract_text()]
    numbers = [line for line in page.extract_text().split("\n") if line.strip().isdigit()]
    places = [document.get_destination_page_number(entry) + 1 for entry in _flat(document.outline)]
    targets = _link_pages(document, page)
    assert len(targets) == len(places) - 1  # all but the contents themselves
    told = [place for place, entry in zip(places, _flat(document.outline), strict=True)
            if entry.title != "Contents"]  # fmt: skip
    assert targets == told
    assert [int(number) for number in numbers[-len(told) :]] == told


def test_page_one_leads_to_each_finding(document):
    places = [
        document.get_destination_page_number(entry) + 1
        for entry in _flat(document.outline)
        if entry.title[0].isdigit()
    ]
    assert _link_pages(document, document.pages[0]) == places


def test_a_rule_leads_to_its_source_and_scan_data_to_nowhere():
    evil = "https://evil.example/"
    report = reader_of(scan_with([{"name": evil, "description": evil, "vendor": evil}], error=evil))
    uris = [
        note.get_object()["/A"]["/URI"]
        for page in report.pages
        for note in page.get("/Annots", [])
        if "/A" in note.get_object()
    ]
    assert uris
    assert not any("evil" in uri for uri in uris)


def _flat(outline) -> list:
    return [
        item for entry in outline for item in (_flat(entry) if isinstance(entry, list) else [entry])
    ]


def _link_pages(document, page) -> list[int]:
    places = {kid.indirect_reference.idnum: n for n, kid in enumerate(document.pages, 1)}
    found = []
    for note in page.get("/Annots", []):
        target = note.get_object()["/Dest"][0]
        found.append(places[target.idnum])
    return found


LOGO = io.BytesIO()
Image.new("RGBA", (60, 20), (200, 30, 30, 128)).save(LOGO, "PNG")
BRAND = Presentation(
    organisation="Müller & Søn 中文 <b>GmbH</b>",
    footer="Vertraulich · intern",
    accent="#0b6e4f",
    cover=True,
    logo=LOGO.getvalue(),
)


def branded(language: str = "de") -> bytes:
    scan = decode_scan((SCANS / "cookieblock__lakersnation.com.json").read_bytes())
    report = assess(scan, scan_sha256="ab" * 32, pack=PACK, bounds=Bounds(50_000, 8192),
                    language=language)  # fmt: skip
    return render_pdf(report, BRAND)


def test_a_brand_has_its_cover_logo_footer_and_colour():
    document = PdfReader(io.BytesIO(branded()), strict=True)
    cover, front = document.pages[0], document.pages[1]
    assert "Müller & Søn" in cover.extract_text()
    assert "Seite" not in cover.extract_text()
    assert "Vertraulich · intern" in front.extract_text()
    assert len(cover.images) == len(front.images) == 1
    assert document.metadata.author == "Müller & Søn 中文 <b>GmbH</b>"
    assert document.trailer["/Root"]["/Lang"] == "de"
    assert b"0.0431 0.431 0.31 rg" in cover.get_contents().get_data()


def test_a_branded_report_gives_the_same_bytes_again():
    first = branded()
    branded("en")
    assert branded() == first


def test_the_score_history_is_drawn_where_there_is_one():
    history = [
        HistoryPoint(scan_id=str(n), finished_at=datetime(2026, 1, n, tzinfo=UTC), score=40 + n)
        for n in (1, 2, 3)
    ]
    scan = scan_with([{"name": "a"}])
    pages = reader_of(scan, history=history).pages
    (page,) = [p for p in pages if "Score history" in p.extract_text() and "41" in p.extract_text()]
    assert b"1.2 w" in page.get_contents().get_data()


@pytest.mark.parametrize("make", [branded, lambda: render_pdf(_report(scan_with([])))])
def test_an_independent_library_finds_nothing_wrong(make):
    with pikepdf.open(io.BytesIO(make())) as document:
        assert document.check_pdf_syntax() == []
        for font in {obj["/BaseFont"] for page in document.pages for obj in _fonts(page)}:
            assert "+" in str(font), "every font is embedded as a subset"


@pytest.mark.parametrize("title", ["a (b) c\\", "ünï — “x”", "中文 (\\)", "\u202eevil"])
def test_a_title_of_any_letters_stands_in_the_outline(title):
    report = _report(scan_with([{"name": "a"}]))
    first, *others = report.findings
    changed = msgspec.structs.replace(
        report, findings=(msgspec.structs.replace(first, title=title), *others)
    )
    document = PdfReader(io.BytesIO(render_pdf(changed)), strict=True)
    titles = [entry.title for entry in _flat(document.outline)]
    shown = title.replace("\u202e", "‹U+202E›")
    assert f"1  {shown}" in titles


def test_reports_whose_data_is_ascii_embed_the_same_fonts():
    documents = [
        reader_of(scan_with([{"name": name, "description": f"{name} does ({name})"}]))
        for name in ("_ga", "session-id")
    ]
    first, second = ([_font_file(font) for font in _fonts(d.pages[0])] for d in documents)
    assert len(first) == 2
    assert first == second


def test_a_letter_of_its_own_changes_the_fonts_of_one_report_alone():
    plain = _report(scan_with([{"name": "a"}]))
    before = render_pdf(plain)
    reader_of(scan_with([{"name": "ŷ", "description": "ẅ ǆ ŷ"}]))
    assert render_pdf(plain) == before


def _font_file(font) -> bytes:
    return font.get_object()["/FontDescriptor"]["/FontFile2"].get_data()


def _fonts(page) -> list:
    return list(page["/Resources"]["/Font"].values())


def _report(scan: Scan):
    return assess(scan, scan_sha256="ab" * 32, pack=PACK, bounds=Bounds(50_000, 8192))


@pytest.mark.full
def test_qpdf_finds_nothing_wrong(tmp_path):
    path = tmp_path / "report.pdf"
    path.write_bytes(branded())
    told = subprocess.run(["qpdf", "--check", path], capture_output=True, text=True, check=True)
    assert "WARNING" not in told.stdout + told.stderr


def test_documents_drawn_by_threads_at_once_are_those_drawn_alone():
    reports = [
        assess(
            scan_with([{"name": f"c{place} {chr(0x400 + place)}{chr(0x3B1 + place % 20)}"}]),
            scan_sha256="ab" * 32,
            pack=PACK,
            bounds=Bounds(50_000, 8192),
        )
        for place in range(12)
    ]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(render_pdf, reports))
    assert together == [render_pdf(report) for report in reports]

"""What the PDF promises beyond the suite of all renderers."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from renderers.fonts import BOLD, FOLDER, REGULAR, Typeface, _loaded
from renderers.pdf_document import render_pdf
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
        "Verdict", "Findings and actions", "Consent", "Cookie inventory",
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


@pytest.mark.parametrize("name", [REGULAR, BOLD])
@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=0x17F), max_size=30))
def test_the_quick_way_for_ascii_encodes_like_reportlab_itself(name, text):
    plain = TTFont("plain", str(FOLDER / f"{name}.ttf")) if name not in PLAIN else PLAIN[name]
    PLAIN[name] = plain
    ours, theirs = Canvas(io.BytesIO())._doc, Canvas(io.BytesIO())._doc
    for part in ("first", text, "again", text[::-1]):
        assert _loaded(name).splitString(part, ours) == plain.splitString(part, theirs)


PLAIN: dict[str, TTFont] = {}


@given(st.text(max_size=200), st.floats(5, 200))
def test_wrapping_loses_nothing_but_spaces_and_keeps_the_width(text, width):
    face = Typeface(REGULAR)
    shown = face.show(text)
    lines = face.wrap(shown, 7, width)
    assert "".join(lines).replace(" ", "") == shown.replace(" ", "")
    assert all(face.width(line, 7) <= width + 0.001 or len(line) == 1 for line in lines)


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

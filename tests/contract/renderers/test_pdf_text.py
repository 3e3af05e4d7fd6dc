"""The text that went into a PDF comes out again: speed and shaping cost no character.

The extractor is PDFium, the engine of Chrome's viewer, so this is what a reader
copies and finds there.  Compared as Unicode-normalised text (NFKC) without
white space, soft line breaks and marks of direction.
"""

from __future__ import annotations

import random
import subprocess
import unicodedata
from pathlib import Path

import msgspec
import pypdfium2
import pytest

from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from renderers.fonts import REGULAR, font_for
from renderers.pdf_document import render_pdf
from renderers.visible import is_hidden
from schemas.presentation import Presentation
from schemas.reports import Report
from schemas.scans import Scan
from tests.scripts import POINTED, SENTENCES

_INVISIBLE = frozenset(
    "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u00ad\ufffe"
)


def report_of(*cookies: dict, **fields) -> Report:
    base = {"scan_id": "5b8ff6a2-4c1e-4d6b-9d1c-0a4f2f6f3a11", "domain": "example.org",
            "page_count": 1}  # fmt: skip
    scan = msgspec.convert({**base, **fields, "cookies": list(cookies)}, Scan)
    pack = load_pack("eu-baseline")
    return assess(scan, scan_sha256="ab" * 32, pack=pack, bounds=Bounds(50_000, 8192))


def normal(text: str) -> str:
    """What is compared: characters, whatever their form, spacing and direction marks."""
    folded = unicodedata.normalize("NFKC", text)
    return "".join(c for c in folded if not c.isspace() and c not in _INVISIBLE)


def pdfium_text(data: bytes) -> str:
    document = pypdfium2.PdfDocument(data)
    try:
        return "".join(page.get_textpage().get_text_range() for page in document)
    finally:
        document.close()


@pytest.fixture(scope="module")
def of_all_scripts() -> str:
    cookies = [
        {"name": name, "vendor": text, "description": text} for name, text in SENTENCES.items()
    ]
    return normal(pdfium_text(render_pdf(report_of(*cookies))))


@pytest.mark.parametrize("script", SENTENCES)
def test_a_sentence_of_every_script_comes_out_as_it_went_in(script, of_all_scripts):
    assert normal(SENTENCES[script]) in of_all_scripts
    assert "‹U+" not in of_all_scripts


@pytest.mark.parametrize("text", POINTED.values(), ids=POINTED)
def test_of_pointed_text_every_letter_and_point_comes_out(text):
    found = normal(pdfium_text(render_pdf(report_of({"name": text}))))
    for char in set(normal(text)):
        assert found.count(char) >= normal(text).count(char), hex(ord(char))


def test_a_thousand_different_characters_of_all_fonts_come_out():
    chars = [
        chr(code)
        for block in (
            range(0xC0, 0x250), range(0x388, 0x3CF), range(0x410, 0x460), range(0x10D0, 0x10F1),
            range(0x3041, 0x3097), range(0x4E00, 0x5100), range(0xAC00, 0xAD00),
        )
        for code in block
        if font_for(chr(code), REGULAR) and not is_hidden(code)
        if unicodedata.normalize("NFKC", chr(code)) == chr(code)
    ]  # fmt: skip
    assert len(chars) > 1000
    random.Random(7).shuffle(chars)
    words = ["".join(chars[place : place + 8]) for place in range(0, len(chars), 8)]
    found = normal(pdfium_text(render_pdf(report_of(*({"name": word} for word in words)))))
    missing = [word for word in words if word not in found]
    assert missing == []


def test_unique_strings_all_come_out():
    rng = random.Random(11)
    letters = "abcdefghijklmnopqrstuvwxyzäöüßéñ0123456789_"
    names = ["".join(rng.choices(letters, k=rng.randint(5, 40))) for _ in range(600)]
    purposes = [" ".join(rng.sample(names, 6)) for _ in names]
    cookies = (
        {"name": name, "description": purpose}
        for name, purpose in zip(names, purposes, strict=True)
    )
    found = normal(pdfium_text(render_pdf(report_of(*cookies))))
    assert [name for name in names if normal(name) not in found] == []
    assert [text for text in purposes if normal(text) not in found] == []


def test_a_document_of_every_script_gives_the_same_bytes_after_others():
    def make() -> bytes:
        return render_pdf(report_of(*({"name": text} for text in SENTENCES.values())))

    first = make()
    render_pdf(report_of(*({"name": text[::-1]} for text in reversed(SENTENCES.values()))))
    assert make() == first


LEFT_TO_RIGHT = [name for name in SENTENCES if name not in ("hebrew", "arabic", "urdu")]


@pytest.mark.full
def test_poppler_reads_the_same_in_the_order_drawn(tmp_path: Path):
    """Poppler sorts lines of two directions by its own guess, so only one direction is compared."""
    path = tmp_path / "scripts.pdf"
    path.write_bytes(render_pdf(report_of(*({"name": SENTENCES[s]} for s in LEFT_TO_RIGHT))))
    told = subprocess.run(
        ["pdftotext", "-raw", "-enc", "UTF-8", path, "-"], capture_output=True, check=True
    )
    found = normal(told.stdout.decode())
    assert [s for s in LEFT_TO_RIGHT if normal(SENTENCES[s]) not in found] == []


def test_a_right_to_left_domain_and_brand_carry_no_mark_on_any_page():
    hebrew, arabic = SENTENCES["hebrew"], SENTENCES["arabic"]
    report = report_of({"name": "a"}, domain="דוגמה.ישראל")
    brand = Presentation(organisation=hebrew, footer=arabic, cover=True)
    found = pdfium_text(render_pdf(report, brand))
    assert "‹U+" not in found
    assert normal(hebrew) in normal(found)
    assert normal(arabic) in normal(found)


def test_a_mark_of_direction_in_the_data_is_still_shown():
    brand = Presentation(organisation="\u200fx")
    assert "‹U+200F›" in normal(pdfium_text(render_pdf(report_of({"name": "a"}), brand)))

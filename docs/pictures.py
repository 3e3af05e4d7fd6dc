"""Takes the pictures of ``docs/reports.md`` from real reports: ``make pictures``.

PDF pages are drawn by PDFium, HTML pages by Chromium, which must be installed
(Debian's package ``chromium``).  Everything comes from the scans in
``tests/data``, so whoever changes a renderer takes them again.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pypdfium2
from PIL import Image, ImageDraw

from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from renderers.registry import render
from schemas.presentation import PLAIN, Presentation
from schemas.reports import Format, HistoryPoint, Report
from schemas.scans import Scan, decode_scan
from tests.scripts import SENTENCES

ROOT = Path(__file__).parents[1]
SCANS = ROOT / "tests/data/scans"
PICTURES = Path(__file__).parent / "pictures"
SCALE = 1.3
CHROMIUM = [
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
]  # fmt: skip


def take_pictures() -> None:
    """Write every picture."""
    PICTURES.mkdir(exist_ok=True)
    english, german = _report("en"), _report("de")
    pages = _pdf_pages(english)
    pages[0].save(PICTURES / "pdf-page-one.png", optimize=True)
    _beside(pages[1], pages[2]).save(PICTURES / "pdf-contents-findings.png", optimize=True)
    wide = next(page for page in pages if page.width > page.height)
    wide.save(PICTURES / "pdf-inventory.png", optimize=True)
    branded = _pdf_pages(german, _brand())
    _beside(branded[0], branded[1]).save(PICTURES / "pdf-branded-german.png", optimize=True)
    scripts = _pdf_pages(_of_all_scripts())
    next(page for page in scripts if page.width > page.height).save(
        PICTURES / "pdf-scripts.png", optimize=True
    )
    _html_picture(english, "html-light.png", [])
    _html_picture(english, "html-dark.png", ["--blink-settings=preferredColorScheme=0"])


def _report(language: str) -> Report:
    data = (SCANS / "cookieblock__lakersnation.com.json").read_bytes()
    start = datetime(2020, 9, 1, tzinfo=UTC)
    history = [
        HistoryPoint(
            scan_id=f"0000000{place}-7eb1-4d8c-8ce1-d74873ee5cea",
            finished_at=start + timedelta(days=30 * place),
            score=score,
        )
        for place, score in enumerate((41, 45, None, 52, 58))
    ]
    scan = decode_scan(data)
    return _assessed(scan, hashlib.sha256(data).hexdigest(), language, history)


def _of_all_scripts() -> Report:
    scan = msgspec.convert(
        {
            "scan_id": "5b8ff6a2-4c1e-4d6b-9d1c-0a4f2f6f3a11",
            "domain": "παράδειγμα.中文.example",
            "page_count": 1,
            "cookies": [
                {"name": name, "description": text, "category": "analytics"}
                for name, text in SENTENCES.items()
            ],
        },
        Scan,
    )
    return _assessed(scan, "ab" * 32, "en", [])


def _assessed(scan: Scan, digest: str, language: str, history: list[HistoryPoint]) -> Report:
    return assess(
        scan,
        scan_sha256=digest,
        pack=load_pack("eu-baseline"),
        history=history,
        language=language,
        bounds=Bounds(max_cookies=50_000, max_string_bytes=8192),
    )


def _brand() -> Presentation:
    logo = Image.new("RGBA", (360, 96), (0, 0, 0, 0))
    draw = ImageDraw.Draw(logo)
    draw.ellipse((4, 4, 92, 92), fill=(122, 31, 92, 255))
    draw.ellipse((30, 30, 66, 66), fill=(255, 255, 255, 255))
    draw.rectangle((116, 36, 350, 60), fill=(40, 40, 60, 255))
    out = io.BytesIO()
    logo.save(out, "PNG")
    return Presentation(
        organisation="Muster Datenschutz GmbH",
        footer="Vertraulich",
        accent="#7a1f5c",
        cover=True,
        logo=out.getvalue(),
    )


def _pdf_pages(report: Report, presentation: Presentation = PLAIN) -> list[Image.Image]:
    document = pypdfium2.PdfDocument(render(report, Format.PDF, presentation))
    pages = [_small(page.render(scale=SCALE).to_pil()) for page in document]
    document.close()
    return pages


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    size = (left.width + right.width + 16, left.height)
    both = Image.new("RGB", size, (200, 204, 212))
    both.paste(left.convert("RGB"), (0, 0))
    both.paste(right.convert("RGB"), (left.width + 16, 0))
    return _small(both)


def _small(picture: Image.Image) -> Image.Image:
    """Few colours are enough for a page, and make a small file."""
    return picture.convert("RGB").quantize(64, dither=Image.Dither.NONE)


def _html_picture(report: Report, name: str, options: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        page.write_bytes(render(report, Format.HTML))
        taken = Path(folder) / "taken.png"
        subprocess.run(  # noqa: S603 - our own words and files
            [*CHROMIUM, *options, f"--user-data-dir={folder}/profile", "--window-size=1280,1400",
             f"--screenshot={taken}", page.as_uri()],
            check=True,
            capture_output=True,
        )  # fmt: skip
        with Image.open(taken) as picture:
            _small(picture).save(PICTURES / name, optimize=True)


if __name__ == "__main__":
    take_pictures()

"""What the HTML page promises beyond the suite of all renderers."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from renderers.html_look import text_on
from renderers.html_page import render_html
from schemas.errors import RenderFailed
from schemas.presentation import PLAIN, Presentation
from schemas.reports import HistoryPoint
from schemas.scans import Scan, decode_scan

SCANS = Path(__file__).parents[2] / "data/scans"
PACK = load_pack("eu-baseline")
BOUNDS = Bounds(50_000, 8192)


def rendered(*cookies, look=PLAIN, history=(), domain="example.org", **fields) -> str:
    scan = {"scan_id": "5b8ff6a2-4c1e-4d6b-9d1c-0a4f2f6f3a11", "domain": domain, "page_count": 1}
    report = assess(
        msgspec.convert({**scan, **fields, "cookies": list(cookies)}, Scan),
        scan_sha256="ab" * 32,
        pack=PACK,
        bounds=BOUNDS,
        history=history,
    )
    return render_html(report, look).decode("utf-8")


@pytest.fixture(scope="module")
def page() -> str:
    data = (SCANS / "cookieblock__lakersnation.com.json").read_bytes()
    report = assess(
        decode_scan(data),
        scan_sha256="ab" * 32,
        pack=PACK,
        bounds=BOUNDS,
    )
    return render_html(report).decode("utf-8")


@pytest.mark.parametrize("tag", ["style", "script"])
def test_the_policy_allows_this_style_and_script_by_hash_and_nothing_else(page, tag):
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    policy = policy.replace("&#39;", "'")
    assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy


def test_the_page_asks_the_network_for_nothing(page):
    assert not re.search(r"<(?:link|img|iframe|object|embed|base|form)\b", page)
    assert not re.search(r"\b(?:src|srcset|action|poster|background)=", page)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|WebSocket", page)


def test_sections_stand_in_the_order_a_reader_asks(page):
    assert re.findall(r'<h2 id="h-(\w+)">', page) == [
        "verdict", "identity", "consent", "findings", "inventory", "storages", "exemptions",
        "lifetimes", "third", "drift", "limits", "score",
    ]  # fmt: skip


def test_every_section_is_named_by_its_head(page):
    heads = set(re.findall(r'<h2 id="([^"]+)"', page))
    assert set(re.findall(r'<section id="[^"]+" aria-labelledby="([^"]+)"', page)) == heads


def test_the_page_shows_score_verdict_and_digests(page):
    assert '<div class="score">64<small>of 100</small></div>' in page
    assert "7 findings on 65 cookies, 1 of high severity." in page
    assert "ab" * 32 in page


def test_every_section_is_in_the_contents(page):
    (contents,) = re.findall(r"<nav.*?</nav>", page, re.DOTALL)
    assert re.findall(r'href="#([^"]+)"', contents) == re.findall(r'<section id="([^"]+)"', page)


def test_every_link_inside_the_page_has_its_target(page):
    targets = re.findall(r'\bid="([^"]+)"', page)
    assert len(targets) == len(set(targets))
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert {"f1", "f7", "c3"} <= links <= set(targets)


def test_the_inventory_names_the_columns_of_the_pdf_in_its_order(page):
    head = page[page.index('<table id="inventory"') :].split("</thead>")[0]
    assert re.findall(r"<th[^>]*>([^<]*)</th>", head) == [
        "#", "Name", "Domain and path", "Party", "Category", "Purpose", "Vendor", "Lifetime",
        "Size", "Secure · HttpOnly · SameSite", "Set", "Classified by", "Findings",
    ]  # fmt: skip


def test_letters_of_any_script_are_isolated_from_their_surroundings():
    page = rendered({"name": "שם <b>", "vendor": "اسم", "domain": "example.org"})
    assert '<th scope="row"><bdi>שם &lt;b&gt;</bdi></th>' in page
    assert "<td><bdi>اسم</bdi></td>" in page
    assert "<td>example.org<small>" in page


def test_a_name_of_blanks_is_shown():
    assert '<th scope="row"><bdi>‹U+0020›‹U+0020›</bdi></th>' in rendered({"name": "  "})


def test_the_title_stays_short_however_long_the_domain_is():
    (title,) = re.findall("<title>(.*?)</title>", rendered(domain="<&>" * 60))
    assert len(title) <= 70
    assert title.endswith("…")


def test_two_scores_make_a_curve_and_one_does_not():
    point = HistoryPoint(scan_id="a", finished_at=datetime(2026, 1, 1, tzinfo=UTC), score=40)
    held = HistoryPoint(scan_id="b", finished_at=datetime(2026, 1, 2, tzinfo=UTC), score=None)
    now = "2026-01-03T00:00:00Z"
    page = rendered({"name": "a"}, history=[point, held], timestamp_utc=now)
    assert re.search('aria-label="[^"]*: 40, held, [0-9]+"', page)
    assert page.count("<circle") == 2
    assert 'class="line"' not in page, "a line drawn over a held score would claim one"
    assert "<circle" not in rendered({"name": "a"}, history=[held], timestamp_utc=now)


PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 8


def test_the_brand_is_on_the_page():
    look = Presentation(
        organisation="Müller & <Söhne>", footer="for the \u202eclient", accent="#F2C230", logo=PNG,
        stylesheet="h1 { color: red }\r\n/* \0 */",
    )  # fmt: skip
    page = rendered({"name": "a"}, look=look)
    assert "<bdi>Müller &amp; &lt;Söhne&gt;</bdi>" in page
    assert "for the ‹U+202E›client" in page
    assert "--band: #F2C230; --on-band: #000000;" in page
    assert '<img src="data:image/png;base64,' in page
    assert "img-src data:;" in page
    test_the_policy_allows_this_style_and_script_by_hash_and_nothing_else(page, "style")


def test_without_a_logo_no_image_is_allowed(page):
    assert "img-src" not in page


@pytest.mark.parametrize(
    ("look", "said"),
    [
        ({"accent": "red"}, "write it as #rrggbb"),
        ({"accent": "#12345}"}, "write it as #rrggbb"),
        ({"accent": "#123456\n"}, "write it as #rrggbb"),
        ({"logo": b"<svg onload='alert(1)'>"}, "neither PNG nor JPEG"),
        ({"stylesheet": "a { } </STYLE><script>"}, "</style"),
    ],
)
def test_what_of_a_brand_cannot_be_used_is_named(look, said):
    with pytest.raises(RenderFailed, match=said):
        rendered(look=Presentation(**look))


@pytest.mark.parametrize("colour", ["#000000", "#ffffff", "#777777", "#0000ff", "#ffff00"])
def test_the_text_on_a_colour_can_be_read(colour):
    def luminance(code: str) -> float:
        parts = [int(code[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        line = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
                for part in parts]  # fmt: skip
        return 0.2126 * line[0] + 0.7152 * line[1] + 0.0722 * line[2]

    dark, light = sorted([luminance(colour), luminance(text_on(colour))])
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_the_same_bytes_come_after_other_pages_and_with_rows_in_pieces():
    cookies = [{"name": f"n{number}", "vendor": chr(0x3B1 + number % 24)} for number in range(600)]
    first = rendered(*cookies)
    rendered({"name": "שם"}, look=Presentation(accent="#123456", html_template="{{ title }}"))
    assert rendered(*cookies) == first
    assert re.findall(r'<tr id="c(\d+)">', first) == [str(number) for number in range(1, 601)]


def test_evidence_leads_to_the_rows_of_its_cookies_and_is_escaped():
    page = rendered({"name": "<b>"}, {"name": "x\u202ey"}, storages={"local_storage": {"k": "v"}})
    assert '<a href="#c1">1</a> &lt;b&gt;' in page
    assert '<a href="#c2">2</a> <bdi>x‹U+202E›y (domain' in page
    assert "<b>" not in page.split("</style>")[1].split('id="s-findings"')[1].split("</section>")[0]

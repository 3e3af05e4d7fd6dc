"""What the HTML page promises beyond the suite of all renderers."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pytest

from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from renderers.html_page import render_html
from schemas.scans import decode_scan

SCANS = Path(__file__).parents[2] / "data/scans"


@pytest.fixture(scope="module")
def page() -> str:
    data = (SCANS / "cookieblock__lakersnation.com.json").read_bytes()
    report = assess(
        decode_scan(data),
        scan_sha256="ab" * 32,
        pack=load_pack("eu-baseline"),
        bounds=Bounds(50_000, 8192),
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
    assert set(re.findall(r'aria-labelledby="([^"]+)"', page)) == heads


def test_the_page_shows_score_verdict_and_digests(page):
    assert '<div class="score">64<small>of 100</small></div>' in page
    assert "7 findings on 65 cookies, 1 of high severity." in page
    assert "ab" * 32 in page

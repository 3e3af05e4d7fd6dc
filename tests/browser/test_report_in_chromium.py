"""The HTML report in the real Chromium: what a reader meets, with every tool a reader may use.

One node script drives the browser and answers in JSON, so that a failure names
what was found.
"""

from __future__ import annotations

import json
import statistics
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from languages.language import known_languages
from renderers.html_page import render_html
from schemas.presentation import PLAIN, Presentation
from schemas.reports import HistoryPoint, Report
from schemas.scans import Scan, decode_scan

pytestmark = pytest.mark.full

HERE = Path(__file__).parent
SCANS = HERE.parent / "data" / "scans"
PACK = load_pack("eu-baseline")
BOUNDS = Bounds(max_cookies=50_000, max_string_bytes=8192)
NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
COOKIES = 5_000

HOSTILE = (
    "</script><script>alert(1)</script></style></title></td></table>",
    '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "<!-- --> ]]> <![CDATA[",
    "javascript:alert(1)", "{{7*7}}{% for x in y %}${7*7}", "evil\u202egpj.exe", "a\x00b\x1bc\x85",
    "a\u2066b\u2069c\u200fd", "a\u3164b\u2800c", "n" * 8192, "", "   ", "中文名字", "اسم الكعكة",
    "שם (a)", "🍪cookie😀", "कुकी", "คุกกี้", "\uffff", "&nbsp;&lt;b&gt;",
)  # fmt: skip
BRAND = Presentation(
    organisation="Müller & <Söhne>", footer="For the client's eyes", accent="#f2c230",
    stylesheet="footer { letter-spacing: 0 }",
    logo=bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
        "1f15c4890000000d49444154789c63606060f80f00010401005fe5c34b0000000049454e44ae426082"
    ),
)  # fmt: skip


def judge(cookies: list[dict[str, Any]], language: str = "en", **fields: Any) -> Report:
    """A Report with drift and a score history."""

    def scan(kept: list[dict[str, Any]], number: int) -> Scan:
        base = {"scan_id": f"00000000-0000-0000-0000-{number:012}", "domain": "example.org",
                "timestamp_utc": NOW, "page_count": 3, "cookies": kept}  # fmt: skip
        return msgspec.convert({**base, **fields}, Scan)

    history = [
        HistoryPoint(
            scan_id=f"earlier {week}",
            finished_at=NOW - timedelta(weeks=week),
            score=None if week == 2 else 40 + week,
        )
        for week in (5, 3, 2, 1)
    ]
    return assess(
        scan(cookies, 2),
        scan_sha256="ab" * 32,
        pack=PACK,
        bounds=BOUNDS,
        language=language,
        previous=scan([{**cookie, "secure": True} for cookie in cookies[1:] or cookies], 1),
        history=history,
    )


def real(language: str = "en") -> Report:
    data = (SCANS / "cookieblock__lakersnation.com.json").read_bytes()
    return assess(
        decode_scan(data), scan_sha256="ab" * 32, pack=PACK, bounds=BOUNDS, language=language
    )


def hostile() -> Report:
    def cookie(text: str) -> dict[str, Any]:
        return {
            **dict.fromkeys(("name", "domain", "path", "cookie_duration", "same_site", "category",
                             "vendor", "description", "source"), text),
            "cookie_type": "Third Party", "set_after_accept": False, "iab_purposes": [text],
            "ml_confidence": 1e300, "size": -(2**53), "requires_review": True,
        }  # fmt: skip

    return judge(
        [*map(cookie, HOSTILE), {"name": HOSTILE[0], "category": "necessary"}],
        domain="<b>" + "x" * 200 + "\u202e",
        status=HOSTILE[0],
        error=HOSTILE[1],
        pages_visited=list(HOSTILE),
        storages={"localStorage": dict.fromkeys(HOSTILE, "v")},
    )


def many() -> Report:
    """Cookies as they come: drawn in turn from the real scans, with names of their own."""
    drawn = [
        cookie
        for path in sorted(SCANS.glob("*.json"))
        for cookie in json.loads(path.read_bytes()).get("cookies", [])
    ]
    cookies = []
    for number in range(COOKIES):
        cookie = drawn[number * 7 % len(drawn)]
        # Short enough for one line on paper, where a name is looked for.
        cookies.append({**cookie, "name": f"{cookie['name'][:6]}_{number}"})
    return judge(cookies)


def drive(command: str, pages: dict[str, Path], **more: Any) -> Any:
    """What the script saw; a failure of its own is a failure of the test, with its words."""
    if not (HERE / "node_modules" / "playwright-core").exists():
        pytest.fail("the browser's driver is missing; run: cd tests/browser && npm ci")
    job = {"command": command, "pages": {name: str(path) for name, path in pages.items()}, **more}
    told = subprocess.run(
        ["node", "chromium.mjs"],
        cwd=HERE,
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {f"real {code}": (real(code), PLAIN) for code in known_languages()}
    made["hostile"] = (hostile(), PLAIN)
    made["branded"] = (judge([{"name": "a", "secure": False}, {"name": "b"}]), BRAND)
    made["empty"] = (judge([], page_count=0), PLAIN)
    made["many"] = (many(), PLAIN)
    paths = {}
    for name, (report, look) in made.items():
        paths[name] = folder / f"{name.replace(' ', '-')}.html"
        paths[name].write_bytes(render_html(report, look))
    return paths


def test_axe_the_console_and_the_network_have_nothing_to_report_in_light_and_dark(pages):
    seen = drive("inspect", {name: path for name, path in pages.items() if name != "many"})
    assert len(seen) == 4 * (len(pages) - 1)
    for name, page in seen.items():
        assert page["violations"] == [], name
        assert page["console"] == [], name
        assert page["requests"] == [], name
        assert page["spills"] <= 0, f"{name} is wider than its window"
    assert seen["hostile light 1280"]["ground"] != seen["hostile dark 1280"]["ground"]


def test_html_validate_finds_no_error(pages):
    told = subprocess.run(
        ["node", "node_modules/html-validate/bin/html-validate.mjs", "--formatter", "json",
         "--config", ".htmlvalidate.json", *map(str, pages.values())],
        cwd=HERE, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    found = [
        f"{Path(file['filePath']).name}: {message['ruleId']}: {message['message']}"
        for file in json.loads(told.stdout)
        for message in file["messages"]
    ]
    assert found == []
    assert told.returncode == 0, told.stderr


def test_five_thousand_rows_answer_a_keystroke_within_a_tenth_of_a_second(pages):
    seen = drive("keystrokes", {"big": pages["many"]}, texts=["google", "a", "zz", "consent", "_1"])
    typing = statistics.quantiles(seen["typing"], n=20)[-1]
    sorting = statistics.quantiles(seen["sorting"], n=20)[-1]
    print(f"p95 from keystroke to paint: search {typing:.0f} ms, sort {sorting:.0f} ms")
    assert len(seen["typing"]) == 2 * 18
    assert [shown for text, shown in seen["answers"] if text == "zz"] == [
        f"0 of {COOKIES:,} cookies match"
    ]
    assert all(f" of {COOKIES:,} cookies match" in shown for _, shown in seen["answers"])
    assert typing < 100
    assert sorting < 200
    assert seen["console"] == []


def test_the_inventory_works_by_keyboard(pages):
    report = real()
    by_number = {str(cookie.number): cookie for cookie in report.cookies}
    seen = drive("work", {"small": pages["real en"], "big": pages["many"]}, name="_gads")
    assert seen["all"] == list(by_number)
    found = [number for number, cookie in by_number.items() if "_gads" in cookie.name]
    assert found
    assert seen["searched"] == [found, f"{len(found)} of {len(by_number)} cookies match"]
    assert seen["cleared"] == seen["all"]

    def numbers(keep: Any) -> list[str]:
        return [number for number, cookie in by_number.items() if keep(cookie)]

    assert seen["category"]["Advertising"] == numbers(lambda one: one.category == "advertising")
    assert seen["party"]["first"] == numbers(lambda one: one.party == "first")
    assert seen["set"]["before"] == numbers(lambda one: one.before_consent)
    assert seen["review"]["needs review"] == numbers(lambda one: one.needs_review)
    assert seen["finding"]["+"] == numbers(lambda one: one.rule_ids)
    assert seen["finding"]["-"] == numbers(lambda one: not one.rule_ids)
    rule = report.findings[0].rule_id
    assert seen["finding"]["1"] == numbers(lambda one: rule in one.rule_ids)

    for place, direction, shown in seen["sorts"]:
        assert sorted(shown, key=int) == seen["all"]
        sign = 1 if direction == "ascending" else -1
        if place == 8:
            sizes = [by_number[number].size_bytes for number in shown]
            assert sizes == sorted(sizes)[::sign]
        if place == 7:
            lives = [by_number[number] for number in shown]
            known = [0 if one.is_session else one.duration_seconds for one in lives]
            stated = [value for value in known if value is not None]
            assert stated == sorted(stated)[::sign]
            assert known[: len(stated)] == stated, "what was not stated comes last"
    assert [direction for _, direction, _ in seen["sorts"]] == ["ascending", "descending"] * 3
    assert seen["heads"] == 1

    assert seen["focus"] == ["BUTTON", "solid", "3px"]
    assert (seen["skip"], seen["skipped"]) == ("skip", "#main")
    assert seen["broken"] == []
    assert seen["linked"], "a link to a row of a later page shows it"
    assert seen["none"] == []
    assert seen["revealed"] == "", "a link to a row that is filtered away clears the filter"
    assert seen["console"] == []


def test_no_row_is_lost_without_script_or_on_paper_and_no_other_script_runs(pages, tmp_path):
    seen = drive("endure", {"small": pages["real en"], "big": pages["many"]}, folder=str(tmp_path))
    assert seen["plain"] == COOKIES
    assert not seen["tools"], "tools that cannot work without a script are not offered"

    assert seen["before"] == []
    assert not seen["harmed"]
    assert seen["styled"] == "static"
    assert len(seen["said"]) == 4, "script, handler, style and image: each refused aloud"
    assert seen["asked"] == []

    names = {str(cookie.number): cookie.name for cookie in many().cookies}
    paper = "".join(text_of(tmp_path / "big.pdf").split())
    assert [name for name in names.values() if name not in paper] == []
    small = text_of(tmp_path / "small.pdf")
    assert "https://lakersnation.com/" in small, "pages visited are open on paper"
    assert small.count("Domain and path") > 2, "the table's head is on every page"
    assert seen["matching"] < seen["after"] == 65
    assert text_of(tmp_path / "searched.pdf").count("CMP-declared") == seen["matching"]


def text_of(pdf: Path) -> str:
    told = subprocess.run(
        ["pdftotext", "-layout", str(pdf), "-"], capture_output=True, text=True, check=True
    )
    return told.stdout

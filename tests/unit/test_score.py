import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.assess import Bounds, assess
from compliance.rules import load_pack
from compliance.score import WEIGHTS, points_of
from schemas.reports import Severity
from schemas.scans import Scan, decode_scan

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/score.md").read_text("utf-8")
PACK = load_pack("eu-baseline-2026.1")
BOUNDS = Bounds(max_cookies=1000, max_string_bytes=8192)

maybe = st.none() | st.booleans()
cookies = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["a", "b"]),
            "category": st.sampled_from(
                ["necessary", "functional", "analytics", "advertising", None]
            ),
            "cookie_type": st.sampled_from(["First Party", "Third Party", None]),
            "set_after_accept": maybe,
            "secure": maybe,
            "http_only": maybe,
            "same_site": st.sampled_from(["None", "Lax", None]),
            "cookie_duration": st.sampled_from(["Session", "1 day", "14 months", "3 years", None]),
            "vendor": st.sampled_from(["v", None]),
            "description": st.sampled_from(["d", None]),
            "requires_review": maybe,
        }
    ),
    min_size=1,
    max_size=30,
)


def judged(found):
    raw = {"scan_id": "5b8ff6a2-4c1e-4d6b-9d1c-0a4f2f6f3a11", "domain": "example.org",
           "page_count": 1, "cookies": found}  # fmt: skip
    return assess(msgspec.convert(raw, Scan), scan_sha256="", pack=PACK, bounds=BOUNDS)


def test_the_worked_example_of_the_page_is_what_the_code_computes():
    data = (ROOT / "tests/data/scans/cookieblock__lakersnation.com.json").read_bytes()
    score = assess(decode_scan(data), scan_sha256="", pack=PACK, bounds=BOUNDS).score
    told = re.findall(r"^\| (\S+\.\S+) \| (\w+) \| (\d+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    assert told == [
        (term.rule_id, term.severity, str(term.count), f"{term.points:.2f}") for term in score.terms
    ]
    assert f"**Score: {score.value}**" in PAGE
    total = sum(float(row[3]) for row in told)
    assert f"Together {total:.2f} points; 100 − {total:.2f} = {100 - total:.2f}." in PAGE


def test_the_page_names_the_weights_of_the_code():
    assert {
        severity: int(weight) for severity, weight in re.findall(r"\| (\w+) \| (\d+) \|\n", PAGE)
    } == dict(WEIGHTS)


@pytest.mark.parametrize("severity", Severity)
def test_points_rise_with_the_count_and_stay_below_the_weight(severity):
    taken = [points_of(severity, count) for count in (1, 2, 5, 50, 500)]
    assert taken == sorted(taken)
    assert taken[-1] <= WEIGHTS[severity]
    assert points_of(severity, 5) == WEIGHTS[severity] / 2


@settings(deadline=None, max_examples=150)
@given(cookies, st.data())
def test_removing_a_cookie_never_lowers_the_score(found, data):
    place = data.draw(st.integers(0, len(found) - 1))
    less = found[:place] + found[place + 1 :]
    assert judged(less).score.value >= judged(found).score.value


REPAIRS = {
    "set_after_accept": True, "secure": True, "http_only": True, "cookie_duration": "1 day",
    "vendor": "v", "description": "d", "requires_review": False,
}  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(cookies, st.data())
def test_repairing_one_offence_never_lowers_the_score(found, data):
    place = data.draw(st.integers(0, len(found) - 1))
    field = data.draw(st.sampled_from(sorted(REPAIRS)))
    repaired = [dict(cookie) for cookie in found]
    repaired[place][field] = REPAIRS[field]
    assert judged(repaired).score.value >= judged(found).score.value


def test_the_score_does_not_fall_below_zero():
    worst = {
        "category": "advertising", "cookie_type": "Third Party", "set_after_accept": False,
        "secure": False, "same_site": "None", "cookie_duration": "3 years",
    }  # fmt: skip
    mixed = [{**worst, "category": word} for word in ("ads", "analytics", "functional", None)]
    score = judged(mixed * 200).score
    assert score.value == 0
    assert sum(term.points for term in score.terms) > 100


def test_a_clean_scan_scores_100():
    assert judged([]).score.value == 100

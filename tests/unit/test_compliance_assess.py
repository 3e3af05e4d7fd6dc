from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compliance.assess import Bounds, assess
from compliance.judging import MAX_EVIDENCE
from compliance.rules import load_pack
from schemas.reports import Category, HistoryPoint, canonical_digest
from schemas.scans import CUT_MARK, Cookie, Scan, decode_scan

SCANS = sorted((Path(__file__).parents[1] / "data/scans").glob("*.json"))
PACK = load_pack("eu-baseline")
BOUNDS = Bounds(max_cookies=50_000, max_string_bytes=8192)
SCAN_ID = "5b8ff6a2-4c1e-4d6b-9d1c-0a4f2f6f3a11"


def scan_of(**fields):
    base = {"scan_id": SCAN_ID, "domain": "example.org", "page_count": 3, "status": "success"}
    return msgspec.convert({**base, **fields}, Scan)


def report_of(scan, *, bounds=BOUNDS, **more):
    return assess(scan, scan_sha256="0" * 64, pack=PACK, bounds=bounds, **more)


def codes(report):
    return [limit.code for limit in report.limits]


def cookies_named(*names):
    return [
        {"name": name, "set_after_accept": True, "secure": True, "http_only": True}
        for name in names
    ]


@pytest.mark.parametrize("path", SCANS, ids=lambda path: path.stem)
def test_a_real_scan_is_judged_the_same_each_time(path):
    data = path.read_bytes()
    first, again = report_of(decode_scan(data)), report_of(decode_scan(data))
    assert first == again
    assert first.score.value is not None
    assert first.content_sha256 == canonical_digest(first)


@pytest.mark.parametrize("path", SCANS, ids=lambda path: path.stem)
def test_the_figures_of_a_real_scan_add_up(path):
    report = report_of(decode_scan(path.read_bytes()))
    totals = report.totals
    count = len(report.cookies)
    assert totals.cookies == count
    assert totals.first_party + totals.third_party + totals.unknown_party == count
    assert sum(category.count for category in totals.categories) == count
    assert sum(row.before + row.after + row.unknown for row in report.consent) == count
    assert sum(bar.count for bar in report.lifetimes) == count
    assert sum(party.cookies for party in report.third_parties) == totals.third_party
    assert sum(item.count for item in totals.severities) == len(report.findings)
    necessary = [cookie for cookie in report.cookies if cookie.category is Category.NECESSARY]
    assert [item.cookie_number for item in report.exemptions] == [
        cookie.number for cookie in necessary
    ]


@pytest.mark.parametrize("path", SCANS, ids=lambda path: path.stem)
def test_findings_and_inventory_name_the_same_cookies_worst_first(path):
    report = report_of(decode_scan(path.read_bytes()))
    ranks = [(-item.severity.rank, -item.count, item.rule_id) for item in report.findings]
    assert ranks == sorted(ranks)
    for finding in report.findings:
        named = [cookie for cookie in report.cookies if finding.rule_id in cookie.rule_ids]
        assert finding.count == len(named)
        assert [item.cookie_number for item in finding.evidence] == [
            cookie.number for cookie in named[:MAX_EVIDENCE]
        ]


def test_a_cookie_that_says_nothing_is_accepted():
    nothing = dict.fromkeys(Cookie.__struct_fields__)
    report = report_of(scan_of(cookies=[{**nothing, "name": ""}, {}]))
    assert [cookie.category for cookie in report.cookies] == [Category.UNCLASSIFIED] * 2
    assert report.totals.unknown_party == 2


text = st.text(max_size=30)
odd_cookie = st.builds(
    Cookie,
    name=text,
    domain=st.none() | text,
    cookie_duration=st.none() | text | st.floats(allow_nan=False, allow_infinity=False),
    size=st.none() | st.integers(-(2**53), 2**53),
    same_site=st.none() | text,
    category=st.none() | text,
    vendor=st.none() | text,
    cookie_type=st.none() | text,
    set_after_accept=st.none() | st.booleans(),
    iab_purposes=st.none() | st.lists(text | st.integers(-(2**53), 2**53), max_size=3),
    ml_confidence=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


@settings(deadline=None, max_examples=100)
@given(st.lists(odd_cookie, max_size=8), st.none() | text, st.none() | text)
def test_no_scan_is_too_odd_to_judge(cookies, status, error):
    scan = msgspec.structs.replace(scan_of(), cookies=cookies, status=status, error=error)
    report = report_of(scan, previous=scan)
    assert len(report.cookies) == len(cookies)
    assert (report.drift.added, report.drift.removed, report.drift.changed) == ((), (), ())


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"status": "failed"}, "scan_status"),
        ({"status": "partial"}, "scan_status"),
        ({"error": "blocked by a captcha"}, "scan_error"),
        ({"page_count": 0}, "no_pages"),
        ({"page_count": -1}, "no_pages"),
        ({"page_count": None, "pages_visited": []}, "no_pages"),
        ({"page_count": None}, "empty_scan"),
    ],
)
def test_a_scan_that_proves_nothing_holds_the_score(fields, code):
    report = report_of(scan_of(**fields))
    assert code in codes(report)
    assert report.inconclusive
    assert report.score.value is None


@pytest.mark.parametrize("status", ["success", "Completed", " OK ", None])
def test_a_scan_that_worked_is_scored(status):
    report = report_of(scan_of(status=status, cookies=cookies_named("a")))
    assert codes(report) == []
    assert report.score.value is not None


def test_a_held_score_still_shows_its_findings():
    report = report_of(scan_of(status="failed", cookies=[{"name": "a"}]))
    assert report.score.value is None
    assert report.findings
    assert len(report.score.terms) == len(report.findings)


def test_a_clean_site_is_scored_with_a_hint_to_check_the_scan():
    report = report_of(scan_of(cookies=[]))
    assert codes(report) == ["nothing_found"]
    assert report.score.value == 100


@pytest.mark.parametrize(
    ("before", "now", "held"),
    [(10, 5, False), (10, 4, True), (9, 1, False), (100, 49, True)],
)
def test_a_sudden_fall_in_cookies_holds_the_score(before, now, held):
    previous = scan_of(cookies=cookies_named(*map(str, range(before))))
    scan = scan_of(cookies=cookies_named(*map(str, range(now))))
    report = report_of(scan, previous=previous)
    assert ("cookies_fell" in codes(report)) is held
    assert report.inconclusive is held


def test_a_sudden_fall_in_pages_holds_the_score():
    cookies = cookies_named(*map(str, range(10)))
    report = report_of(
        scan_of(page_count=4, cookies=cookies), previous=scan_of(page_count=9, cookies=cookies)
    )
    assert codes(report) == ["pages_fell"]
    assert report.inconclusive


@pytest.mark.parametrize(("before", "now", "held"), [(20, 10, False), (20, 9, True), (3, 1, True)])
def test_a_fall_in_pages_is_judged_however_few_cookies_there_are(before, now, held):
    cookies = cookies_named("a", "b")
    report = report_of(
        scan_of(page_count=now, cookies=cookies),
        previous=scan_of(page_count=before, cookies=cookies),
    )
    assert ("pages_fell" in codes(report)) is report.inconclusive is held


@pytest.mark.parametrize(
    "had", [{"cookies": cookies_named("a")}, {"storages": {"localStorage": {"k": "v"}}}], ids=str
)
def test_a_scan_that_finds_nothing_where_there_was_something_is_not_praised(had):
    report = report_of(scan_of(cookies=[]), previous=scan_of(**had))
    assert codes(report) == ["nothing_left", "nothing_found"]
    assert report.score.value is None


def test_missing_facts_are_told_and_do_not_hold_the_score():
    report = report_of(scan_of(cookies=[{"name": "a"}], storages={"localStorage": {"k": "v"}}))
    assert codes(report) == ["consent_unknown", "flags_unknown", "storage_moment"]
    assert report.score.value is not None


def test_more_cookies_than_the_bound_are_told_and_hold_the_score():
    report = report_of(scan_of(cookies=cookies_named(*"abcde")), bounds=Bounds(3, 8192))
    assert [cookie.name for cookie in report.cookies] == ["a", "b", "c"]
    assert codes(report) == ["cookies_cut"]
    assert "the first 3" in report.limits[0].text
    assert report.inconclusive


def test_every_string_is_bounded_and_cuts_are_told():
    long = "x" * 5000
    cookie = dict.fromkeys(
        ("name", "domain", "path", "vendor", "category", "description", "same_site", "source",
         "cookie_duration"),
        long,
    )  # fmt: skip
    report = report_of(
        scan_of(
            scan_mode=long, pages_visited=[long], error=long,
            storages={"sessionStorage": {long: long}},
            cookies=[{**cookie, "iab_purposes": [long]}],
        ),
        bounds=Bounds(10, 256),
    )  # fmt: skip
    assert "strings_cut" in codes(report)
    assert long not in msgspec.json.encode(report).decode()
    assert report.cookies[0].name.endswith(CUT_MARK)
    assert len(report.cookies[0].name.encode()) <= 256


def test_pages_beyond_the_first_200_are_counted():
    report = report_of(scan_of(pages_visited=[str(page) for page in range(201)]))
    assert len(report.identity.pages) == 200
    assert "pages_cut" in codes(report)


def test_storage_keys_are_bounded_like_cookies():
    storages = {"localStorage": {str(key): "" for key in range(5)}}
    report = report_of(scan_of(storages=storages), bounds=Bounds(2, 8192))
    assert len(report.storages) == 2
    assert "storage_cut" in codes(report)


def test_evidence_is_bounded_and_the_inventory_names_all():
    report = report_of(scan_of(cookies=[{"name": str(n)} for n in range(150)]))
    finding = next(f for f in report.findings if f.rule_id == "classification.unclassified")
    assert finding.count == 150
    assert len(finding.evidence) == 100
    assert all(finding.rule_id in cookie.rule_ids for cookie in report.cookies)


@pytest.mark.parametrize(
    ("fields", "verdict", "reason"),
    [
        ({}, "plausible", "nothing the scan observed"),
        ({"cookie_type": "Third Party"}, "questionable", "third party"),
        ({"cookie_duration": "2 years"}, "questionable", "13 months"),
        ({"description": None}, "questionable", "no purpose"),
    ],
)
def test_an_exemption_is_reasoned_from_what_was_observed(fields, verdict, reason):
    cookie = {"name": "a", "category": "essential", "cookie_type": "First Party",
              "cookie_duration": "Session", "description": "Keeps you signed in."}  # fmt: skip
    (exemption,) = report_of(scan_of(cookies=[{**cookie, **fields}])).exemptions
    assert exemption.verdict == verdict
    assert reason in exemption.reason


def test_third_parties_are_listed_with_their_vendors_most_cookies_first():
    def third(domain, vendor):
        return {"name": "a", "domain": domain, "vendor": vendor, "cookie_type": "third party"}

    report = report_of(
        scan_of(cookies=[third("b.net", None), third(".A.net", "Z"), third("a.net", "Y"),
                         third("a.net", "Z"), {"name": "own", "domain": "example.org"}])
    )  # fmt: skip
    assert [(party.domain, party.vendors, party.cookies) for party in report.third_parties] == [
        ("a.net", ("Y", "Z"), 3),
        ("b.net", (), 1),
    ]


def test_the_scan_before_and_the_history_are_carried_into_the_report():
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    point = HistoryPoint(scan_id="earlier", finished_at=moment, score=70)
    previous = scan_of(timestamp_utc=moment.isoformat(), cookies=cookies_named("old", "kept"))
    report = report_of(
        scan_of(cookies=cookies_named("kept", "new")), previous=previous, history=[point]
    )
    assert report.drift.compared_with == SCAN_ID
    assert report.drift.compared_finished_at == moment
    assert [cookie.name for cookie in report.drift.added] == ["new"]
    assert [cookie.name for cookie in report.drift.removed] == ["old"]
    assert report.history == (point,)

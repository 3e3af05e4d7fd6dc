"""The scan result's decoder, and ``cut``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import InvalidEvent
from schemas.scans import CUT_MARK, Cookie, Scan, cut, decode_scan

SCANS = sorted((Path(__file__).parent.parent / "data" / "scans").glob("*.json"))
SCAN_ID = "3176b0cd-199b-5ec6-b280-ec5c6e92338a"


def scan_json(**fields: Any) -> bytes:
    return json.dumps({"scan_id": SCAN_ID, "domain": "example.org", **fields}).encode()


def scan_with(raw_fields: str) -> bytes:
    """A scan with fields that json.dumps would not write."""
    return scan_json()[:-1] + b", " + raw_fields.encode("utf-8", "surrogatepass") + b"}"


def reason(data: bytes) -> str:
    with pytest.raises(InvalidEvent) as caught:
        decode_scan(data)
    return str(caught.value)


@pytest.mark.parametrize("path", SCANS, ids=lambda path: path.stem)
def test_a_real_scan_is_decoded_whole(path: Path) -> None:
    source = json.loads(path.read_text(encoding="utf-8"))
    scan = decode_scan(path.read_bytes())
    assert str(scan.scan_id) == source["scan_id"]
    assert scan.domain == source["domain"]
    assert [cookie.name for cookie in scan.cookies or []] == [c["name"] for c in source["cookies"]]
    for cookie, sent in zip(scan.cookies or [], source["cookies"], strict=True):
        kept = msgspec.to_builtins(cookie)
        assert {key: kept[key] for key in sent} == sent


def test_there_are_eleven_real_scans() -> None:
    assert len(SCANS) == 11


def test_scan_id_and_domain_alone_are_enough() -> None:
    assert decode_scan(scan_json()) == Scan(scan_id=UUID(SCAN_ID), domain="example.org")


def test_every_documented_field_is_read() -> None:
    cookie = {
        "name": "_ga",
        "domain": ".example.org",
        "path": "/",
        "hashed_value": "55f0",
        "cookie_duration": "30 days",
        "size": 30,
        "http_only": False,
        "secure": True,
        "same_site": "Lax",
        "category": "Analytics",
        "vendor": "Google",
        "cookie_type": "First Party",
        "set_after_accept": False,
        "iab_purposes": ["1", 7],
        "description": "Counts visits",
        "source": "DB",
        "ml_confidence": 0.5,
        "requires_review": True,
        "metadata": {"any": ["thing"]},
    }
    scan = {
        "scan_id": SCAN_ID,
        "domain": "example.org",
        "scan_mode": "deep",
        "timestamp_utc": "2026-01-31T12:00:00Z",
        "status": "success",
        "duration_seconds": 1.5,
        "page_count": 2,
        "pages_visited": ["https://example.org/"],
        "error": "none",
        "params": {"depth": 2},
        "storages": {"localStorage": {"k": "v"}, "sessionStorage": {"n": 1}},
        "cookies": [cookie],
    }
    decoded = decode_scan(json.dumps(scan).encode())
    assert set(scan) == set(Scan.__struct_encode_fields__)
    assert set(cookie) == set(Cookie.__struct_encode_fields__)
    assert msgspec.to_builtins(decoded) == scan


@pytest.mark.parametrize("duration", ["Session", "30 days", 3600, 0.5, None])
def test_a_cookie_duration_is_text_or_seconds(duration: str | float | None) -> None:
    [cookie] = decode_scan(scan_json(cookies=[{"cookie_duration": duration}])).cookies or []
    assert cookie.cookie_duration == duration


def test_an_unknown_field_is_ignored() -> None:
    assert decode_scan(scan_json(colour="blue", cookies=[{"colour": 1}])).cookies == [Cookie()]


def test_the_last_of_duplicate_keys_counts() -> None:
    assert decode_scan(scan_with('"domain": "second.org"')).domain == "second.org"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("2026-01-31T12:00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31 12:00:00.25", datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)),
        (None, None),
    ],
)
def test_the_time_is_given_in_utc(text: str | None, moment: datetime | None) -> None:
    finished_at = decode_scan(scan_json(timestamp_utc=text)).finished_at
    assert finished_at == moment
    assert finished_at is None or finished_at.tzinfo is UTC


def test_sixty_thousand_cookies_are_decoded() -> None:
    cookies = decode_scan(scan_json(cookies=[{"name": "n"}] * 60_000)).cookies
    assert cookies is not None
    assert len(cookies) == 60_000


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"scan_id": "7"}, "$.scan_id"),
        ({"scan_id": None}, "$.scan_id"),
        ({"domain": 5}, "$.domain"),
        ({"domain": ""}, "$.domain"),
        ({"domain": "a" * 254}, "$.domain"),
        ({"domain": "example.org\x00"}, "$.domain"),
        ({"domain": "example.org\n"}, "$.domain"),
        ({"domain": "example\u2028.org"}, "$.domain"),
        ({"scan_mode": 1}, "$.scan_mode"),
        ({"timestamp_utc": "yesterday"}, "$.timestamp_utc"),
        ({"timestamp_utc": 1_700_000_000}, "$.timestamp_utc"),
        ({"timestamp_utc": "0001-01-01T00:00:00+23:00"}, "timestamp_utc"),
        ({"status": []}, "$.status"),
        ({"duration_seconds": "1"}, "$.duration_seconds"),
        ({"page_count": 1.5}, "$.page_count"),
        ({"page_count": 2**53 + 1}, "$.page_count"),
        ({"page_count": 2**64}, "$.page_count"),
        ({"pages_visited": ["https://example.org/", 2]}, "$.pages_visited[1]"),
        ({"error": {}}, "$.error"),
        ({"params": []}, "$.params"),
        ({"storages": {"localStorage": []}}, "$.storages.localStorage"),
        ({"cookies": {}}, "$.cookies"),
        ({"cookies": [{}, {"name": None}]}, "$.cookies[1].name"),
        ({"cookies": [{"size": "15"}]}, "$.cookies[0].size"),
        ({"cookies": [{"secure": "yes"}]}, "$.cookies[0].secure"),
        ({"cookies": [{"iab_purposes": [1.5]}]}, "$.cookies[0].iab_purposes[0]"),
        ({"cookies": [{"metadata": 1}]}, "$.cookies[0].metadata"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(fields: dict[str, Any], path: str) -> None:
    assert path in reason(scan_json(**fields))


@pytest.mark.parametrize("field", ["scan_id", "domain"])
def test_a_missing_required_field_is_named(field: str) -> None:
    fields = {"scan_id": SCAN_ID, "domain": "example.org"}
    del fields[field]
    assert f"missing required field `{field}`" in reason(json.dumps(fields).encode())


def test_a_blank_domain_is_refused() -> None:
    assert reason(scan_json(domain=" \u00a0 ")) == "scan result: `domain` is blank"


def test_a_control_character_is_named_in_words() -> None:
    assert "without control characters - at `$.domain`" in reason(scan_json(domain="a\tb"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"scan",
        b"\xef\xbb\xbf" + scan_json(),
        scan_json() + b"x",
        scan_with('"duration_seconds": NaN'),
        scan_with('"duration_seconds": Infinity'),
        scan_with('"status": "\\ud800"'),
        scan_with('"status": "\\udc00 "'),
        scan_with('"status": "\ud800"'),
    ],
)
def test_what_is_not_json_in_utf8_is_refused(data: bytes) -> None:
    assert reason(data).startswith("scan result is not JSON in UTF-8: ")


@pytest.mark.parametrize("field", ["domain", "status", "unknown"])
def test_invalid_utf8_is_refused_in_any_field(field: str) -> None:
    data = scan_json(**{field: "@"}).replace(b"@", b"\xff")
    assert reason(data).startswith("scan result is not JSON in UTF-8: ")


@pytest.mark.parametrize("data", [b"[]", b"null", b"5", b'"text"'])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    assert "Expected `object`" in reason(data)


@pytest.mark.parametrize("field", ["params", "unknown"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_ten_thousand_deep_is_refused(field: str, opening: str, closing: str) -> None:
    nested = opening * 10_000 + "1" + closing * 10_000
    assert reason(scan_with(f'"{field}": {{"x": {nested}}}')) == "scan result is nested too deeply"


@pytest.mark.parametrize("number", ["1e999", "9" * 30, "9" * 5000])
def test_a_number_that_nothing_can_hold_is_refused(number: str) -> None:
    assert "$.page_count" in reason(scan_with(f'"page_count": {number}'))


real_bytes = st.sampled_from([path.read_bytes() for path in SCANS if path.stat().st_size < 4000])


@st.composite
def mutated_scans(draw: st.DrawFn) -> bytes:
    """A real scan with a few slices replaced by arbitrary bytes."""
    data = bytearray(draw(real_bytes))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 20))] = draw(st.binary(max_size=8))
    return bytes(data)


@settings(deadline=None)
@given(st.one_of(st.binary(), mutated_scans()))
def test_any_bytes_give_a_scan_or_an_invalid_event(data: bytes) -> None:
    try:
        scan = decode_scan(data)
    except InvalidEvent:
        return
    assert scan.domain.strip()


any_text = st.text(alphabet=st.characters(exclude_categories=()))


def size_of(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


@settings(deadline=None)
@given(any_text, st.integers(min_value=0, max_value=80))
def test_cut_never_exceeds_its_bound_and_marks_what_it_cut(text: str, limit: int) -> None:
    bounded = cut(text, limit)
    assert size_of(bounded) <= limit
    if size_of(text) <= limit:
        assert bounded == text
    elif limit >= size_of(CUT_MARK):
        assert bounded.endswith(CUT_MARK)
        assert text.encode("utf-8", "ignore").startswith(bounded.removesuffix(CUT_MARK).encode())
    else:
        assert CUT_MARK.startswith(bounded)


def test_cut_does_not_split_a_character() -> None:
    assert cut("é" * 20, 20) == "ééééé" + CUT_MARK
    assert cut("é" * 10, 20) == "é" * 10

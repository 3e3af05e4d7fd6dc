"""The event contract: what an entry's fields mean, and what is refused."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import InvalidEvent, TooLarge, UnknownEventType
from schemas.events import PUBLISHED, CloudEvent, Event, EventType, decode_entry

SCANS = sorted((Path(__file__).parent.parent / "data" / "scans").glob("*.json"))
SCAN_ID = "3176b0cd-199b-5ec6-b280-ec5c6e92338a"
SCAN = json.dumps({"scan_id": SCAN_ID, "domain": "example.org"}).encode()
NO_LIMIT = 2**24


def decode(**fields: str | bytes) -> Event:
    """Decode an entry in binary mode."""
    raw = {
        name.encode(): value.encode() if isinstance(value, str) else value
        for name, value in fields.items()
    }
    return decode_entry(raw, max_bytes=NO_LIMIT)


def decode_structured(event: Any) -> Event:
    return decode(event=json.dumps(event))


def reason(**fields: str | bytes) -> str:
    with pytest.raises(InvalidEvent) as caught:
        decode(**fields)
    return str(caught.value)


def structured_reason(event: Any) -> str:
    return reason(event=json.dumps(event))


def test_data_alone_is_a_completed_scan() -> None:
    event = decode(data=SCAN)
    assert event.scan is not None
    assert event.scan.scan_id == UUID(SCAN_ID)
    assert event == Event(
        type=EventType.SCAN_COMPLETED,
        event_id=f"scan.completed:{SCAN_ID}",
        source="",
        data=SCAN,
        dataref=None,
        scan=event.scan,
        subject=None,
        time=None,
        userid=None,
        traceparent=None,
    )
    assert event.domain == "example.org"


ATTRIBUTES = {
    "type": "scan.failed",
    "id": "41",
    "source": "/scanner/7",
    "subject": "sub.example.org",
    "time": "2026-01-31T12:00:00+02:00",
    "specversion": "1.0",
    "userid": "user-1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}


def test_binary_and_structured_mode_read_every_documented_field_alike() -> None:
    binary = decode(data='{"a":1}', **ATTRIBUTES)
    structured = decode(event='{"data":{"a":1},' + json.dumps(ATTRIBUTES)[1:])
    assert {"data", "dataref", *ATTRIBUTES} == set(CloudEvent.__struct_fields__)
    assert binary == structured
    assert binary == Event(
        type=EventType.SCAN_FAILED,
        event_id="41",
        source="/scanner/7",
        data=b'{"a":1}',
        dataref=None,
        scan=None,
        subject="sub.example.org",
        time=datetime(2026, 1, 31, 10, tzinfo=UTC),
        userid="user-1",
        traceparent=ATTRIBUTES["traceparent"],
    )


@pytest.mark.parametrize("path", SCANS, ids=lambda path: path.stem)
def test_a_real_scan_is_the_same_event_in_both_modes(path: Path) -> None:
    data = path.read_bytes()
    binary = decode(data=data)
    structured = decode(event=b'{"specversion":"1.0","data":' + data + b"}")
    assert binary == structured
    assert binary.data == data.strip()


def test_the_original_bytes_are_kept() -> None:
    data = SCAN[:-1] + b', "heard_of": [ 1.50 ] }'
    assert decode(data=b" " + data + b"\n").data == data


def test_a_structured_event_hides_the_other_fields() -> None:
    event = decode(event=b'{"data":' + SCAN + b"}", type="nonsense", data="nonsense")
    assert event.type is EventType.SCAN_COMPLETED


def test_unknown_fields_are_ignored() -> None:
    assert decode(data=SCAN, datacontenttype="application/json", x=b"\xff") == decode(data=SCAN)
    assert decode_structured({"data": json.loads(SCAN), "x": [1]}).data == SCAN


def test_an_empty_attribute_counts_as_absent() -> None:
    empty = dict.fromkeys(
        ["dataref", "id", "source", "subject", "time", "specversion", "userid", "traceparent"], ""
    )
    assert decode(data=SCAN, **empty) == decode(data=SCAN)


def test_a_null_attribute_counts_as_absent_in_structured_mode() -> None:
    event = {"data": json.loads(SCAN), "id": None, "time": None, "userid": None, "dataref": None}
    assert decode_structured(event) == decode(data=SCAN)


@pytest.mark.parametrize("kind", PUBLISHED)
def test_every_type_of_the_contract_is_accepted(kind: EventType) -> None:
    assert decode(type=kind.value, data=SCAN).type is kind


@pytest.mark.parametrize("kind", ["scan.done", "SCAN.COMPLETED", ""])
def test_an_unknown_type_is_refused_with_the_known_ones(kind: str) -> None:
    with pytest.raises(UnknownEventType) as caught:
        decode(type=kind, data=SCAN)
    assert str(caught.value).startswith(f"type {kind!r} is not one of: scan.started, ")


@pytest.mark.parametrize("version", ["0.3", "1.1", "one"])
def test_another_specversion_is_refused(version: str) -> None:
    assert reason(data=SCAN, specversion=version).endswith("send 1.0")


# data and dataref


def test_a_dataref_is_left_for_a_task_to_fetch() -> None:
    event = decode(dataref="https://example.org/scan.json", subject="example.org")
    assert (event.data, event.dataref) == (b"", "https://example.org/scan.json")
    assert event.scan is None
    assert event.domain == "example.org"


def test_data_wins_over_dataref() -> None:
    event = decode(data=SCAN, dataref="https://example.org/scan.json")
    assert event.dataref is None
    assert event.scan is not None


@pytest.mark.parametrize("empty", ["", " ", "null"])
def test_empty_data_counts_as_absent(empty: str) -> None:
    assert decode(data=empty, dataref="s3://bucket/scan").dataref == "s3://bucket/scan"
    assert reason(data=empty) == "the entry has neither `data` nor `dataref`; send one of them"


def test_null_data_counts_as_absent_in_structured_mode() -> None:
    assert decode_structured({"data": None, "dataref": "s3://b/s"}).dataref == "s3://b/s"


def test_an_entry_without_fields_is_refused() -> None:
    assert "neither `data` nor `dataref`" in reason()


def test_a_dataref_has_a_bound_of_its_own() -> None:
    assert decode(dataref="https://example.org/" + "a" * 8172).dataref
    assert "at `$.dataref`" in reason(dataref="https://example.org/" + "a" * 8173)


# Identity


@pytest.mark.parametrize("kind", ["scan.started", "scan.completed", "scan.failed"])
def test_a_scan_event_is_identified_by_its_scan(kind: str) -> None:
    later = json.dumps({"scan_id": SCAN_ID, "domain": "example.org", "status": "x"})
    assert decode(type=kind, data=SCAN).event_id == f"{kind}:{SCAN_ID}"
    assert decode(type=kind, data=later).event_id == f"{kind}:{SCAN_ID}"


def test_the_spelling_of_a_scan_id_does_not_change_the_identity() -> None:
    shouted = SCAN.replace(SCAN_ID.encode(), SCAN_ID.upper().encode())
    assert decode(data=shouted).event_id == decode(data=SCAN).event_id


@pytest.mark.parametrize("kind", ["compliance.violation", "anomaly.detected", "schedule.failed"])
def test_another_event_is_identified_by_its_content(kind: str) -> None:
    digest = hashlib.sha256(SCAN).hexdigest()
    assert decode(type=kind, data=SCAN).event_id == f"{kind}:{digest}"


def test_a_scan_event_that_names_no_scan_is_identified_by_its_content() -> None:
    digest = hashlib.sha256(b"{}").hexdigest()
    assert decode(type="scan.failed", data="{}").event_id == f"scan.failed:{digest}"


def test_an_event_by_reference_is_identified_by_the_reference() -> None:
    digest = hashlib.sha256(b"s3://bucket/scan").hexdigest()
    assert decode(dataref="s3://bucket/scan").event_id == f"scan.completed:{digest}"


@pytest.mark.parametrize("kind", ["scan.completed", "schedule.created"])
def test_an_explicit_id_wins(kind: str) -> None:
    event = decode(type=kind, data=SCAN, id="41", source="/scanner/7")
    assert (event.source, event.event_id) == ("/scanner/7", "41")


# Time and attributes


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00.5-05:00", datetime(2026, 1, 31, 17, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-01-31T12:00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
    ],
)
def test_the_time_is_given_in_utc(text: str, moment: datetime) -> None:
    time = decode(data=SCAN, time=text).time
    assert time == moment
    assert time.tzinfo is UTC


@pytest.mark.parametrize(
    "text", ["yesterday", "1700000000", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+23:00"]
)
def test_a_time_that_is_none_is_refused(text: str) -> None:
    assert reason(data=SCAN, time=text).startswith(f"time {text!r} is not RFC 3339")


TEXT_ATTRIBUTES = [name for name in CloudEvent.__struct_fields__ if name != "data"]


@pytest.mark.parametrize("name", TEXT_ATTRIBUTES)
@pytest.mark.parametrize("bad", ["a\x00", "a\nb", "a\n", "\x7f", "a\x85b", "a\u2028"])
def test_a_control_character_in_an_attribute_is_refused(name: str, bad: str) -> None:
    expected = f"without control characters - at `$.{name}`"
    fields: dict[str, str | bytes] = {"data": SCAN, name: bad}
    assert expected in reason(**fields)
    assert expected in structured_reason({"data": json.loads(SCAN), name: bad})


@pytest.mark.parametrize("name", [name for name in TEXT_ATTRIBUTES if name != "dataref"])
def test_an_attribute_is_bounded(name: str) -> None:
    fields: dict[str, str | bytes] = {"data": SCAN, name: "a" * 256}
    assert f"length <= 255 - at `$.{name}`" in reason(**fields)


@pytest.mark.parametrize("name", TEXT_ATTRIBUTES)
def test_an_attribute_that_is_not_utf8_is_refused(name: str) -> None:
    fields: dict[str, str | bytes] = {"data": SCAN, name: b"\xff"}
    assert reason(**fields).startswith(f"field `{name}` is not UTF-8")


@pytest.mark.parametrize("name", TEXT_ATTRIBUTES)
def test_a_structured_attribute_of_a_wrong_type_is_refused_with_its_path(name: str) -> None:
    message = structured_reason({"data": json.loads(SCAN), name: 5})
    assert message.startswith("field `event`: Expected")
    assert message.endswith(f"at `$.{name}`")


# Size


def test_an_entry_beyond_its_size_bound_is_refused() -> None:
    size = len("data") + len(SCAN)
    assert decode_entry({b"data": SCAN}, max_bytes=size).scan
    with pytest.raises(TooLarge, match="SCANHERALD_MAX_ENTRY_BYTES"):
        decode_entry({b"data": SCAN}, max_bytes=size - 1)


def test_unknown_fields_count_towards_the_size_bound() -> None:
    with pytest.raises(TooLarge):
        decode_entry({b"data": SCAN, b"padding": b" " * 1000}, max_bytes=1000)


def test_sixty_thousand_cookies_are_accepted() -> None:
    event = decode(data=SCAN[:-1] + b', "cookies": [' + b"{}," * 59_999 + b"{}]}")
    assert event.scan is not None
    assert event.scan.cookie_count == 60_000


# Data


@pytest.mark.parametrize("kind", [kind.value for kind in PUBLISHED])
@pytest.mark.parametrize(
    "data", ["[]", "5", "{", "{}x", '{"a":NaN}', b'{"a":"\xff"}', '{"a":"\\ud800"}', "\ufeff{}"]
)
def test_data_that_is_no_json_object_is_refused_for_every_type(
    kind: str, data: str | bytes
) -> None:
    assert reason(type=kind, data=data).startswith(("scan result", "`data`"))


@pytest.mark.parametrize("kind", ["scan.completed", "scan.failed", "schedule.created"])
def test_data_nested_ten_thousand_deep_is_refused(kind: str) -> None:
    nested = SCAN[:-1] + b', "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"
    assert reason(type=kind, data=nested).endswith("nested too deeply")
    wrapped = b'{"data": ' + nested + b"}"
    assert reason(type=kind, event=wrapped) == "field `event` is nested too deeply"


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"scan_id": 5}, "$.scan_id"),
        ({"domain": []}, "$.domain"),
        ({"error": {}}, "$.error"),
        ({"scan_id": "a\x00"}, "$.scan_id"),
        ({"scan_id": "a" * 256}, "$.scan_id"),
        ({"domain": "example.org\n"}, "$.domain"),
    ],
)
def test_wrong_data_of_another_type_is_refused_with_its_path(data: Any, path: str) -> None:
    message = reason(type="scan.failed", data=json.dumps(data))
    assert message.startswith("`data`: ")
    assert message.endswith(f"at `{path}`")


def test_integers_beyond_64_bits_are_accepted_where_the_contract_leaves_the_type_open() -> None:
    data = '{"rows": 123456789012345678901234567890}'
    assert decode(type="anomaly.detected", data=data).data == data.encode()


def test_an_integer_of_five_thousand_digits_is_refused() -> None:
    assert "out of range" in reason(type="anomaly.detected", data='{"rows": ' + "9" * 5000 + "}")


def test_the_subject_is_taken_from_the_data_of_other_types() -> None:
    assert decode(type="scan.failed", data=SCAN).domain == "example.org"
    assert decode(type="scan.failed", data=SCAN, subject="other.org").domain == "other.org"


@pytest.mark.parametrize("event", ["", "text", "{", '{"id":"\\ud800"}', b'{"id":"\xff"}'])
def test_a_structured_event_that_is_not_json_is_refused(event: str | bytes) -> None:
    assert reason(event=event).startswith("field `event` is not JSON in UTF-8")


def test_the_last_of_duplicate_keys_counts() -> None:
    event = decode(event='{"id":"1","id":"2","type":"scan.failed","data":{}}')
    assert event.event_id == "2"


# Totality

names = st.one_of(
    st.binary(max_size=8),
    st.sampled_from([name.encode() for name in (*CloudEvent.__struct_fields__, "event")]),
)
values = st.one_of(
    st.binary(max_size=64),
    st.text(max_size=64).map(str.encode),
    st.sampled_from([kind.encode() for kind in EventType]),
    st.sampled_from([SCAN, b"{}", b"null", b'{"data":{}}', b"1.0", b"2026-01-31T12:00:00Z"]),
)
small_scans = st.sampled_from([path.read_bytes() for path in SCANS if path.stat().st_size < 4000])


def assert_event_or_invalid(fields: dict[bytes, bytes], max_bytes: int = NO_LIMIT) -> None:
    try:
        event = decode_entry(fields, max_bytes=max_bytes)
    except InvalidEvent:
        return
    assert event.event_id
    assert bool(event.data) != bool(event.dataref)


@settings(deadline=None, max_examples=500)
@given(st.dictionaries(names, values, max_size=6), st.sampled_from([40, NO_LIMIT]))
def test_any_mapping_of_bytes_gives_an_event_or_an_invalid_event(
    fields: dict[bytes, bytes], max_bytes: int
) -> None:
    assert_event_or_invalid(fields, max_bytes)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(CloudEvent.__struct_fields__),
        json_values | st.sampled_from([kind.value for kind in EventType]),
    )
)
def test_any_structured_event_gives_an_event_or_an_invalid_event(event: dict[str, Any]) -> None:
    assert_event_or_invalid({b"event": json.dumps(event).encode()})


@settings(deadline=None)
@given(
    small_scans,
    st.sampled_from([b"data", b"event"]),
    st.lists(
        st.tuples(st.integers(0, 4000), st.integers(0, 20), st.binary(max_size=8)), max_size=4
    ),
)
def test_a_mutated_real_scan_gives_an_event_or_an_invalid_event(
    scan: bytes, field: bytes, mutations: list[tuple[int, int, bytes]]
) -> None:
    data = bytearray(scan if field == b"data" else b'{"data":' + scan + b"}")
    for start, length, replacement in mutations:
        data[start : start + length] = replacement
    assert_event_or_invalid({field: bytes(data)})


@pytest.mark.parametrize(
    ("fields", "meaning"),
    [
        ({"data": b"\xef\xbb\xbf" + SCAN}, "starts with a byte order mark"),
        ({"event": b"\xef\xbb\xbf{}"}, "starts with a byte order mark"),
        ({"data": SCAN.decode().encode("utf-16")}, "looks like UTF-16"),
        ({"type": "scan.failed", "data": '{"error":"\\ud800"}'}, "half of a surrogate pair"),
        ({"data": SCAN[:-1] + b',"x":"\\udfff"}'}, "half of a surrogate pair"),
        ({"data": SCAN[:-1] + b',"x":-Infinity}'}, "NaN and Infinity are not JSON; send null"),
        ({"data_base64": "e30="}, "`data_base64` is not read"),
        ({"event": '{"data_base64":"e30="}'}, "`data_base64` is not read"),
        ({"event": "{}", "data": SCAN}, "field `event` has neither `data` nor `dataref` in it"),
    ],
)
def test_a_usual_fault_is_named_in_words(fields: dict[str, Any], meaning: str) -> None:
    assert meaning in reason(**fields)


def test_a_whole_surrogate_pair_is_not_called_half_of_one() -> None:
    assert "surrogate" not in reason(data='{"x":"\\ud83d\\ude00"')

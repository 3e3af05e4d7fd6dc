"""Whatever an entry holds, it is decoded or refused; and what is decoded can be recorded."""

from __future__ import annotations

import itertools
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from listener.decode import decode_batch
from schemas.events import PUBLISHED, CloudEvent
from schemas.reports import DEFAULT_FORMATS
from schemas.runs import Entry
from schemas.scans import Cookie, Scan
from store.events import BatchRecord, RunDefaults, count_outcomes, record_batch
from store.ledger import Ledger

MAX_BYTES = 200_000
NOW = datetime(2026, 1, 31, tzinfo=UTC)
SCAN_ID = "3176b0cd-199b-5ec6-b280-ec5c6e92338a"

fuzz = settings(deadline=None, derandomize=True, max_examples=500)

# Text that trips decoders, databases and terminals; JSON that trips parsers.
odd_texts = st.sampled_from(
    [
        "",
        " ",
        "a\x00b",
        "\x00",
        "\x1b[2J",
        "\x7f",
        "\x85",
        "\u2028",
        "\u202egnp.exe",
        "\ufeff",
        "\uffff",
        "e\u0301" * 120,
        "😀" * 255,
        "x" * 255,
        "x" * 256,
        "x" * 9000,
        "NaN",
        "1e400",
        "-1",
        "' OR 1=1 --",
        "{{7*7}}",
        "redis\tscans:events",
        SCAN_ID,
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-01-31T12:00:00.123456789Z",
    ]
)
texts = odd_texts | st.text(max_size=40)
odd_json = st.sampled_from(
    [
        b"NaN",
        b"-Infinity",
        b"1e400",
        b"-1e400",
        b"1e-400",
        b"9223372036854775807",
        b"9223372036854775808",
        b"18446744073709551616",
        b"-9223372036854775809",
        b"9" * 400,
        b"9" * 5000,
        b"-0",
        b"-0.0",
        b"01",
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\ud83d\\ude00"',
        b'"\\u0000"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"\x00"',
        b"\xef\xbb\xbf{}",
        b"[" * 10_000,
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"a":1,"a":2}',
        b'{"":{"":[]}}',
        b"{}",
        b"[]",
        b"null",
        b"true",
        b"",
    ]
)
json_texts = texts.map(lambda text: json.dumps(text).encode())
json_values = odd_json | json_texts | st.integers().map(lambda number: str(number).encode())


def objects(names: tuple[str, ...], inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """JSON objects with known and unknown keys, any of them more than once."""
    keys = st.sampled_from(names).map(lambda name: json.dumps(name).encode()) | json_texts
    members = st.lists(st.tuples(keys, inner), max_size=5)
    return members.map(lambda found: b"{" + b",".join(b":".join(pair) for pair in found) + b"}")


cookies = objects(Cookie.__struct_fields__, json_values)
anything = json_values | cookies.map(lambda cookie: b"[" + cookie + b"]")
valid = f'"scan_id":"{SCAN_ID}","domain":"a.example"'.encode()
scans = objects(Scan.__struct_fields__, anything)
almost_scans = scans.map(lambda scan: b"{" + valid + b"," + scan[1:] if scan != b"{}" else scan)
data = almost_scans | scans | anything
events = objects(CloudEvent.__struct_fields__, data | json_values)

# What is odd and yet keeps the contract: the ledger has to hold it.
NO_CONTROLS = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
attributes = st.text(NO_CONTROLS, min_size=1, max_size=255) | st.sampled_from(
    ["x" * 255, "😀" * 255, "\u202egnp.exe", "\ufeff", "\uffff", "' OR 1=1 --", "{{7*7}}", " a "]
)
domains = attributes.filter(lambda text: text.strip() != "").map(lambda text: text[:253])
whole = st.sampled_from([0, -1, 2**53, -(2**53), None])
numbers = st.sampled_from([0, -1, 0.5, 1e308, 5e-324, None]) | st.floats(allow_nan=False)
open_values = st.dictionaries(texts, texts | whole | st.just(10**400), max_size=2)
sound_scans = st.fixed_dictionaries(
    {"scan_id": st.uuids().map(str), "domain": domains},
    optional={
        "scan_mode": texts,
        "timestamp_utc": st.sampled_from(
            ["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999Z", "2026-02-28T24:00:00", None]
        ),
        "duration_seconds": numbers.filter(lambda number: abs(number or 0) != float("inf")),
        "page_count": whole,
        "pages_visited": st.lists(texts, max_size=2),
        "error": texts,
        "params": open_values,
        "cookies": st.lists(
            st.fixed_dictionaries(
                {},
                optional={"name": texts, "size": whole, "vendor": texts, "metadata": open_values},
            ),
            max_size=2,
        ),
        "unknown": texts,
    },
).map(lambda scan: json.dumps(scan).encode())
sound_attributes = {
    b"id": attributes.map(str.encode),
    b"source": attributes.map(str.encode),
    b"subject": attributes.map(str.encode),
    b"userid": attributes.map(str.encode),
    b"traceparent": attributes.map(str.encode),
    b"time": st.sampled_from([b"0001-01-01", b"9999-12-31T23:59:59Z", b""]),
    b"more": st.binary(max_size=8),
}

raw = st.binary(max_size=40) | texts.map(str.encode) | json_values
kinds = st.sampled_from([kind.value.encode() for kind in PUBLISHED])
entries = st.one_of(
    st.dictionaries(
        st.sampled_from([name.encode() for name in (*CloudEvent.__struct_fields__, "event", "")])
        | st.binary(max_size=12),
        raw | data,
        max_size=6,
    ),
    st.fixed_dictionaries(
        {b"data": data},
        optional={
            b"type": kinds | raw,
            b"id": raw,
            b"source": raw,
            b"subject": raw,
            b"time": raw,
            b"userid": raw,
            b"traceparent": raw,
            b"dataref": raw,
            b"data_base64": raw,
        },
    ),
    st.fixed_dictionaries({b"event": events}, optional={b"data": data}),
    *[st.fixed_dictionaries({b"data": sound_scans}, optional=sound_attributes)] * 2,
    st.fixed_dictionaries({b"data": objects(("error",), json_texts), b"type": kinds}),
    st.fixed_dictionaries({b"dataref": attributes.map(str.encode)}, optional=sound_attributes),
)


def numbered(found: list[dict[bytes, bytes]]) -> list[Entry]:
    return [Entry("scans:events", f"{number}-0", fields) for number, fields in enumerate(found)]


@fuzz
@given(st.lists(entries, max_size=4))
def test_each_entry_is_an_event_or_a_dead_letter_with_a_reason(
    found: list[dict[bytes, bytes]],
) -> None:
    batch = numbered(found)
    decoded, dead = decode_batch(batch, max_bytes=MAX_BYTES)

    ids = [item.entry.entry_id for item in decoded] + [letter.entry.entry_id for letter in dead]
    assert sorted(ids) == sorted(entry.entry_id for entry in batch)
    for item in decoded:
        assert item.event.event_id
        assert bool(item.event.data) != bool(item.event.dataref)
    for letter in dead:
        assert letter.reason
        assert "internal error" not in letter.reason, letter


@pytest.fixture(scope="module")
def record(
    empty_ledger: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[list[Entry]], tuple[BatchRecord, int]]]:
    """RECORD a batch in a real ledger; returns what it did, and the dead letters in there."""
    path = tmp_path_factory.mktemp("fuzzed") / "ledger.sqlite3"
    shutil.copy(empty_ledger, path)
    ledger = Ledger(f"sqlite:///{path}")
    defaults = RunDefaults(DEFAULT_FORMATS, "en", "eu-baseline-2026.1")
    numbers = itertools.count()

    def write(batch: list[Entry]) -> tuple[BatchRecord, int]:
        decoded, dead = decode_batch(batch, max_bytes=MAX_BYTES)
        with ledger.write() as connection:
            recorded = record_batch(
                connection,
                decoded,
                dead,
                defaults=defaults,
                now=NOW,
                dispatch_by=NOW,
                new_id=lambda: str(uuid.UUID(int=next(numbers))),
            )
        with ledger.read() as connection:
            return recorded, count_outcomes(connection).get("dead", 0)

    yield write
    ledger.close()


@fuzz
@given(entries)
def test_whatever_an_entry_holds_the_ledger_takes_it(
    record: Callable[[list[Entry]], tuple[BatchRecord, int]], fields: dict[bytes, bytes]
) -> None:
    entry = Entry("scans:events", str(uuid.uuid4()), fields)  # each a dead letter of its own
    before = record([])[1]
    recorded, letters = record([entry])
    assert recorded.new + recorded.repeats + recorded.dead == 1
    assert letters - before == recorded.dead

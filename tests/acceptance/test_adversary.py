"""What an adversary can XADD: nothing stops the listener, no entry goes without a trace."""

from __future__ import annotations

import itertools
import uuid
from contextlib import closing
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection, select

from store.tables import events

MIB = 1024 * 1024
LIMIT = 16 * MIB

Pairs = list[tuple[bytes, bytes]]
"""Field names and values as they go over the wire; a name may come twice."""

_numbers = itertools.count(1)


def scan(more: bytes = b"", *, domain: bytes = b'"a.example"') -> bytes:
    """A sound scan with an id of its own, and ``more`` members after the required ones."""
    scan_id = str(uuid.UUID(int=0xBAD0000 + next(_numbers))).encode()
    comma = b"," if more else b""
    return b'{"scan_id":"%s","domain":%s%s%s}' % (scan_id, domain, comma, more)


def data(more: bytes = b"", **known: bytes) -> Pairs:
    return [(b"data", scan(more, **known))]


def event(members: bytes) -> Pairs:
    return [(b"event", b"{%s}" % members)]


def about(kind: bytes, content: bytes) -> Pairs:
    return [(b"type", kind), (b"data", content)]


def filled_to(size: int) -> Pairs:
    """A sound scan whose entry has ``size`` bytes, most of them in one known string."""
    room = size - len(b"data") - len(scan(b'"error":""'))
    return data(b'"error":"%s"' % (b"x" * room))


DEEP = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
LISTS = b"[" * 10_000 + b"]" * 10_000

DEAD: list[tuple[str, Pairs, str]] = [
    ("an empty name and value", [(b"", b"")], "neither `data` nor `dataref`"),
    ("an empty value", [(b"data", b"")], "neither `data` nor `dataref`"),
    ("blank data", [(b"data", b" \n\t ")], "neither `data` nor `dataref`"),
    ("10 000 fields", [(b"f%d" % n, b"x") for n in range(10_000)], "neither `data` nor `dataref`"),
    ("a name of 1 MB", [(b"n" * MIB, b"x")], "neither `data` nor `dataref`"),
    ("a name above the limit", [(b"n" * LIMIT, b"x")], "SCANHERALD_MAX_ENTRY_BYTES"),
    ("noise", [(bytes(range(256)), bytes(range(256)))], "neither `data` nor `dataref`"),
    ("UTF-8 broken in a name", [(b"d\xffta", b"{}")], "neither `data` nor `dataref`"),
    ("UTF-8 broken in an attribute", [*data(), (b"subject", b"\xff")], "`subject` is not UTF-8"),
    ("UTF-8 broken in the type", [*data(), (b"type", b"\xc3")], "`type` is not UTF-8"),
    ("UTF-8 broken in data", data(b'"error":"\xff"'), "not JSON in UTF-8"),
    ("UTF-8 broken in an unknown field", data(b'"zzz":"\xc0\xaf"'), "not JSON in UTF-8"),
    ("a surrogate in UTF-8", data(b'"error":"\xed\xa0\x80"'), "not JSON in UTF-8"),
    ("half of a pair", data(b'"error":"\\ud800"'), "half of a surrogate pair"),
    ("half of a pair as domain", data(domain=b'"\\udc00"'), "half of a surrogate pair"),
    ("half of a pair in another type", about(b"scan.failed", b'{"x":"\\ud800"}'), "half of"),
    ("half of a pair in an event", event(b'"id":"\\ud800","data":{}'), "half of a surrogate"),
    ("a byte order mark", [(b"data", b"\xef\xbb\xbf" + scan())], "byte order mark"),
    ("UTF-16", [(b"data", scan().decode().encode("utf-16"))], "looks like UTF-16"),
    ("objects 10 000 deep", data(b'"params":' + DEEP), "nested too deeply"),
    ("unknown lists 10 000 deep", data(b'"zzz":' + LISTS), "nested too deeply"),
    ("an event 10 000 deep", event(b'"zzz":' + LISTS), "nested too deeply"),
    ("failure 10 000 deep", about(b"scan.failed", b'{"x":%s}' % LISTS), "nested too deeply"),
    ("a million open lists", data(b'"zzz":%s' % (b"[" * 1_000_000)), "nested too deeply"),
    ("NaN", data(b'"duration_seconds":NaN'), "NaN and Infinity are not JSON"),
    ("Infinity", data(b'"zzz":-Infinity'), "NaN and Infinity are not JSON"),
    ("1e400", data(b'"duration_seconds":1e400'), "out of range"),
    ("an integer beyond 64 bits", data(b'"page_count":18446744073709551616'), "$.page_count"),
    ("an integer of 5 000 digits", data(b'"params":{"a":%s}' % (b"9" * 5000)), "out of range"),
    ("a raw NUL", data(b'"error":"a\x00b"'), "not JSON in UTF-8"),
    ("NUL in the domain", data(domain=b'"a\\u0000b"'), "without control characters"),
    ("NUL in an attribute", [*data(), (b"userid", b"a\x00b")], "without control characters"),
    ("an escape in the id", [*data(), (b"id", b"\x1b[2J")], "without control characters"),
    ("a forged dead letter", [*data(), (b"source", b"redis\tscans:events")], "control characters"),
    ("an id of 256", [*data(), (b"id", b"i" * 256)], "length <= 255"),
    ("a source of 256", [*data(), (b"source", "é".encode() * 256)], "length <= 255"),
    ("a domain of 254", data(domain=b'"%s"' % (b"d" * 254)), "length <= 253"),
    ("no domain", [(b"data", b'{"scan_id":"%s"}' % str(uuid.uuid4()).encode())], "`domain`"),
    ("data as a string", [(b"data", orjson.dumps(scan().decode()))], "Expected `object`"),
    ("data as a list", [(b"data", b"[%s]" % scan())], "Expected `object`"),
    ("a number as domain", data(domain=b"7"), "$.domain"),
    ("a list of numbers as cookies", data(b'"cookies":[7]'), "$.cookies[0]"),
    ("an object as cookie name", data(b'"cookies":[{"name":{}}]'), "$.cookies[0].name"),
    ("a string as flag", data(b'"cookies":[{"secure":"yes"}]'), "$.cookies[0].secure"),
    ("a list as params", data(b'"params":[]'), "$.params"),
    ("a string as storages", data(b'"storages":"none"'), "$.storages"),
    ("two documents", [(b"data", scan() + scan())], "trailing characters"),
    ("an event that is a list", [(b"event", b"[]")], "Expected `object`"),
    ("an empty event", [(b"event", b"")], "field `event` is not JSON"),
    ("an event and data beside it", [(b"event", b"{}"), *data()], "`event` has neither"),
    ("data_base64", [(b"data_base64", b"e30=")], "`data_base64` is not read"),
    ("data_base64 in an event", event(b'"data_base64":"e30="'), "`data_base64` is not read"),
    ("an unknown type", about(b"scan.exploded", b"{}"), "is not one of"),
    ("our own type", about(b"operator.alert", b"{}"), "is not one of"),
    ("specversion 9", [*data(), (b"specversion", b"9")], "specversion '9' is not supported"),
    ("a time that is none", [*data(), (b"time", b"1e9")], "is not RFC 3339"),
    ("a time before time", data(b'"timestamp_utc":"0001-01-01T00:00:00+23:59"'), "out of range"),
    ("an entry one byte too large", filled_to(LIMIT + 1), "SCANHERALD_MAX_ENTRY_BYTES"),
    ("an entry of 40 MiB", filled_to(40 * MIB), "SCANHERALD_MAX_ENTRY_BYTES"),
]

SOUND: list[tuple[str, Pairs]] = [
    ("an entry just within the limit", filled_to(LIMIT)),
    ("the last of two scan ids", data(b'"scan_id":"%s"' % str(uuid.UUID(int=0xBAD)).encode())),
    ("the last of two data fields", [(b"data", b"{not json"), *data()]),
    ("10 000 fields beside data", [*data(), *((b"f%d" % n, b"\xff") for n in range(10_000))]),
    ("an id of 255", [*data(), (b"id", b"i" * 255), (b"source", b"s" * 255)]),
    ("an id of 255 wide characters", [*data(), (b"id", "😀".encode() * 255)]),
    ("a domain of 253", data(domain=b'"%s"' % (b"d" * 253))),
    ("a domain from right to left", data(domain='"\u202eelpmaxe.evil\u202c"'.encode())),
    ("controls in a text", data(b'"error":"\\u0000\\u001b[2J\\r\\n\\u202e"')),
    ("controls in a cookie", data(b'"cookies":[{"name":"\\u0000\\u001b]0;x\\u0007\\u202e"}]')),
    ("a formula as cookie", data(b'"cookies":[{"name":"=cmd|\' /C calc\'!A0"}]')),
    ("markup as cookie", data(b'"cookies":[{"name":"</td><script>alert(1)</script>"}]')),
    ("a whole pair", data(b'"error":"\\ud83d\\ude00"')),
    ("400 digits where the type is open", data(b'"params":{"a":%s}' % (b"9" * 400))),
    ("400 digits in metadata", data(b'"cookies":[{"metadata":{"a":-%s}}]' % (b"9" * 400))),
    ("1e400 where nobody reads it", data(b'"zzz":1e400')),
    ("the edges of numbers", data(b'"page_count":9007199254740992,"duration_seconds":-1e308')),
    ("cookies with edges", data(b'"cookies":[{"size":-9007199254740992,"ml_confidence":5e-324}]')),
    ("the end of the calendar", data(b'"timestamp_utc":"9999-12-31T23:59:59.999999Z"')),
    ("the start of the calendar", data(b'"timestamp_utc":"0001-01-01T00:00:00Z"')),
    ("names that are empty", data(b'"":{"":[]},"params":{"":""},"cookies":[{}]')),
    ("900 deep where nobody reads it", data(b'"zzz":' + b"[" * 900 + b"]" * 900)),
    ("400 deep in params", data(b'"params":' + b'{"a":' * 400 + b"1" + b"}" * 400)),
    ("an event beside nonsense", [*event(b'"data":' + scan()), (b"data", b"\xff")]),
    ("a failure", about(b"scan.failed", b'{"error":"\\u0000\\u202e"}')),
    ("a time of another type", [*about(b"scan.started", b"{}"), (b"time", b"0001-01-01")]),
    ("a huge number of another type", about(b"anomaly.detected", b'{"x":%s}' % (b"9" * 400))),
]


def publish(client: Any, found: list[Pairs]) -> list[str]:
    """XADD as a hostile client would: whatever bytes, names twice, no library in between."""
    ids = []
    for pairs in found:
        flat = [part for pair in pairs for part in pair]
        ids.append(client.execute_command("XADD", "scans:events", "*", *flat).decode())
    return ids


def rows_of(connection: Connection) -> list[Any]:
    wanted = (events.c.entry_id, events.c.outcome, events.c.reason, events.c.seen)
    return list(connection.execute(select(*wanted).where(events.c.stream == "scans:events")))


@pytest.mark.timeout(300)
def test_no_entry_stops_the_listener_and_none_is_acknowledged_without_a_trace(
    service: Any, scans: list[bytes]
) -> None:
    service.start()
    service.wait(lambda: bool(service.log_lines("listener")))
    listener = service.supervisor.pid("listener")
    with closing(service.redis()) as client:
        dead = dict(zip(publish(client, [pairs for _, pairs, _ in DEAD]), DEAD, strict=True))
        sound = dict(zip(publish(client, [pairs for _, pairs in SOUND]), SOUND, strict=True))
        repeated = publish(client, [SOUND[1][1], SOUND[1][1]])
        last = publish(client, [[(b"data", scans[0])]])
        service.wait(lambda: service.settled(len(SOUND) + 1), 240)
        service.wait(lambda: client.xpending("scans:events", "scanherald")["pending"] == 0)
        assert client.xinfo_groups("scans:events")[0]["lag"] == 0

    rows = {row.entry_id: row for row in service.rows(rows_of)}
    assert set(rows) == {*dead, *sound, *last}
    assert sum(row.seen for row in rows.values()) == len([*dead, *sound, *repeated, *last])
    for entry_id, (name, _, reason) in dead.items():
        assert rows[entry_id].outcome == "dead", name
        assert reason in rows[entry_id].reason, name
    for entry_id, (name, _) in sound.items():
        assert rows[entry_id].outcome == "done", (name, rows[entry_id].reason)
    assert rows[last[0]].outcome == "done"

    reports = service.reports()
    assert [row for row in reports if row["status"] != "ready"] == []
    scans_among = sum(pairs[0][0] != b"type" for _, pairs in SOUND)
    assert len(reports) == 4 * (scans_among + 1)
    good = orjson.loads(scans[0])["scan_id"]
    assert len([row for row in reports if row["scan_id"] == good]) == 4

    audit = service.scanherald("audit")
    assert audit.returncode == 0, audit.stdout + audit.stderr
    assert service.supervisor.pid("listener") == listener
    for part in ("listener", "worker", "beat"):
        log = (service.folder / "logs" / f"{part}.log").read_text(errors="replace")
        assert "Traceback" not in log, part
        said = {line["event"] for line in service.log_lines(part)}
        assert said & {"decode_crashed", "batch_refused", "entry_refused", "task_failed"} == set()

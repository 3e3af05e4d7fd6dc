"""The audit of the streams on a real server, and of a whole service that ran."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
import redis

from cli.embedded import free_port, valkey_part, wait_for_redis
from cli.supervisor import Supervisor
from listener import audit as auditing
from listener.audit import audit_streams
from listener.decode import decode_batch
from listener.stream import EventStreams
from schemas.audit import Audit
from schemas.errors import StreamUnavailable
from schemas.runs import DeadEntry, Entry
from store.events import RunDefaults, bury, record_batch
from store.ledger import Ledger

STREAM, GROUP = "scans:events", "scanherald"
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
DEFAULTS = RunDefaults(formats=(), language="en", rule_pack="eu-baseline")
PARTS = ("waiting", "pending", "recorded", "repeats", "dead", "lost")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("valkey")
    url = f"redis://127.0.0.1:{free_port()}/0"
    supervisor = Supervisor()
    supervisor.start(valkey_part(int(url[:-2].rpartition(":")[2]), folder, folder / "log"))
    wait_for_redis(url)
    yield url
    supervisor.stop()


@pytest.fixture
def client(server: str) -> Iterator[Any]:
    with contextlib.closing(redis.Redis.from_url(server, decode_responses=True)) as client:
        client.flushall()
        yield client


@pytest.fixture
def streams(server: str, client: Any) -> Iterator[EventStreams]:
    streams = EventStreams(server, (STREAM,), GROUP, "one", block_ms=10)
    streams.ensure_groups()
    yield streams
    streams.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def audit(server: str, ledger: Ledger) -> Callable[..., Audit]:
    def audit(since: datetime | None = None, names: tuple[str, ...] = (STREAM,)) -> Audit:
        found = Audit()
        audit_streams(
            server, names, GROUP, ledger, found, since=since, progress=lambda _part, _done: None
        )
        sums = found.sums["stream"]
        assert sums["entries"] == sum(sums[name] for name in PARTS)
        assert found.gaps_total == sums["lost"]
        return found

    return audit


def add(client: Any, *numbers: int, to: str = STREAM, **fields: str) -> list[str]:
    return [
        client.xadd(
            to,
            {
                "data": json.dumps({"scan_id": str(UUID(int=number)), "domain": "a.example"}),
                **fields,
            },
        )
        for number in numbers
    ]


def take(ledger: Ledger, entries: list[Entry]) -> None:
    """RECORD entries as the listener does."""
    decoded, dead = decode_batch(entries, max_bytes=1 << 24)
    with ledger.write() as connection:
        record_batch(
            connection,
            decoded,
            dead,
            defaults=DEFAULTS,
            now=NOW,
            dispatch_by=NOW,
            new_id=lambda: str(uuid4()),
        )


def counted(found: Audit) -> dict[str, int]:
    return {name: number for name, number in found.sums["stream"].items() if number}


def test_every_entry_is_waiting_in_hand_or_in_the_ledger(
    client: Any, streams: EventStreams, ledger: Ledger, audit: Any
) -> None:
    add(client, 1, 2, 1)  # the third brings the first one's event again
    client.xadd(STREAM, {"data": "not JSON"})
    finished = streams.read_new(4)
    take(ledger, finished)
    streams.ack(finished)
    add(client, 3, 4)
    take(ledger, streams.read_new(1))  # killed before its acknowledgement
    streams.read_new(1)  # killed before RECORD
    add(client, 5)
    found = audit()
    assert found.status == "clean"
    assert counted(found) == {
        "entries": 7,
        "recorded": 2,
        "repeats": 1,
        "dead": 1,
        "pending": 2,
        "waiting": 1,
    }


def test_an_entry_acknowledged_without_a_record_is_lost_and_named(
    client: Any, streams: EventStreams, ledger: Ledger, audit: Any
) -> None:
    add(client, 1)
    lost = [*add(client, 2), client.xadd(STREAM, {"data": "not JSON"})]
    entries = streams.read_new(10)
    take(ledger, entries[:1])
    streams.ack(entries)
    found = audit()
    assert [(gap.kind, gap.what["entry"]) for gap in found.gaps] == [
        ("lost entry", entry_id) for entry_id in lost
    ]
    assert found.gaps[0].what["stream"] == STREAM


def test_entries_that_the_group_was_moved_past_are_lost(
    client: Any, streams: EventStreams, audit: Any
) -> None:
    add(client, 1, 2)
    client.xgroup_setid(STREAM, GROUP, "$")
    assert counted(audit()) == {"entries": 2, "lost": 2}


def test_a_suspect_that_was_buried_is_a_dead_letter(
    client: Any, streams: EventStreams, ledger: Ledger, audit: Any
) -> None:
    add(client, 1)
    (entry,) = streams.read_new(1)
    with ledger.write() as connection:
        bury(connection, DeadEntry(entry, "set aside"), NOW)
    streams.ack([entry])
    assert counted(audit()) == {"entries": 1, "dead": 1}


def test_the_same_event_on_another_stream_is_a_repeat(
    client: Any, streams: EventStreams, ledger: Ledger, audit: Any
) -> None:
    add(client, 1)
    entries = streams.read_new(1)
    take(ledger, entries)
    streams.ack(entries)
    add(client, 1, to="second")
    client.xgroup_create("second", GROUP, id="$")
    assert counted(audit(names=(STREAM, "second"))) == {
        "entries": 2,
        "recorded": 1,
        "repeats": 1,
    }


def test_a_stream_without_our_group_waits_and_one_that_is_not_there_is_empty(
    client: Any, audit: Any
) -> None:
    assert counted(audit()) == {}
    add(client, 1, 2)
    client.xgroup_create(STREAM, "another", id="$")
    assert counted(audit()) == {"entries": 2, "waiting": 2}


def test_ids_are_ordered_as_numbers(client: Any, streams: EventStreams, audit: Any) -> None:
    fields = {"data": "{}"}
    for entry_id in ("9-9", "9-10", "10-1", f"{2**63}-{2**63}", f"{2**63}-{2**63 + 1}"):
        client.xadd(STREAM, fields, id=entry_id)
    streams.read_new(3)  # as text, 9-9 comes after 10-1
    assert counted(audit()) == {"entries": 5, "pending": 3, "waiting": 2}
    streams.read_new(1)  # as floating-point numbers, the last two are one
    assert counted(audit()) == {"entries": 5, "pending": 4, "waiting": 1}


def test_since_leaves_out_older_ids(client: Any, audit: Any) -> None:
    moment = datetime.fromtimestamp(1_700_000_000, UTC)
    for entry_id in ("1699999999999-7", "1700000000000-0", "1700000000001-0"):
        client.xadd(STREAM, {"data": "{}"}, id=entry_id)
    assert counted(audit(since=moment)) == {"entries": 2, "waiting": 2}
    assert counted(audit(since=datetime(1, 1, 1, tzinfo=UTC)))["entries"] == 3


def test_pages_join_without_a_seam_whether_entries_or_bytes_end_them(
    client: Any, streams: EventStreams, ledger: Ledger, audit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(client, *range(1, 11), note="x" * 1000)
    entries = streams.read_new(8)
    take(ledger, entries[:7])
    streams.ack(entries[:6])
    expected = {"entries": 10, "recorded": 6, "pending": 2, "waiting": 2}
    assert counted(audit()) == expected
    monkeypatch.setattr(auditing, "PAGE", 3)
    assert counted(audit()) == expected
    monkeypatch.setattr(auditing, "PAGE_BYTES", 1)
    assert counted(audit()) == expected


def test_an_entry_trimmed_during_the_audit_is_no_longer_one_of_the_stream(
    client: Any, streams: EventStreams, audit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(client, 1, 2)
    streams.ack(streams.read_new(2))
    look_up = auditing.recorded_entries

    def trim_first(ledger: Ledger, stream: str, entry_ids: list[str]) -> Any:
        client.xdel(stream, entry_ids[0])
        return look_up(ledger, stream, entry_ids)

    monkeypatch.setattr(auditing, "recorded_entries", trim_first)
    assert counted(audit()) == {"entries": 1, "lost": 1}


def test_an_audit_changes_nothing_in_redis(client: Any, streams: EventStreams, audit: Any) -> None:
    add(client, 1, 2)
    streams.read_new(1)
    before = client.dump(STREAM), client.xpending_range(STREAM, GROUP, "-", "+", 9)
    audit()
    after = client.dump(STREAM), client.xpending_range(STREAM, GROUP, "-", "+", 9)
    assert after[0] == before[0]
    assert after[1][0]["times_delivered"] == before[1][0]["times_delivered"] == 1


def test_a_key_that_is_no_stream_is_an_error_and_no_clean_answer(client: Any, audit: Any) -> None:
    client.set(STREAM, "x")
    with pytest.raises(StreamUnavailable, match="WRONGTYPE"):
        audit()


def test_a_service_that_ran_is_clean_and_a_spoilt_artifact_is_named(
    service: Any, scans: list[bytes]
) -> None:
    service.start()
    service.subscribe(mail=True)
    service.publish(*({"data": data} for data in scans[:3]), {"data": scans[0]}, {"data": b"no"})
    service.wait(lambda: service.settled(3) and len(service.dead_letters()) == 1)

    said = service.scanherald("audit", "--json")
    assert said.returncode == 0, said.stdout + said.stderr
    found = orjson.loads(said.stdout)
    stream = found["stream"]
    assert stream["entries"] == 5 == sum(stream[name] for name in PARTS)
    assert (stream["waiting"], stream["lost"]) == (0, 0)
    events = found["events"]
    assert (events["events"], events["done"], events["dead"], events["repeats"]) == (4, 3, 1, 1)
    assert found["reports"]["artifacts_read"] == 12
    assert found["deliveries"]["sent"] == len(service.deliveries())

    spoilt = service.reports()[0]
    with Path(spoilt["uri"]).open("ab") as file:
        file.write(b"!")
    said = service.scanherald("audit")
    assert said.returncode == 1
    assert f"bad artifact: report {spoilt['report_id']}" in said.stdout


def test_a_service_can_be_audited_while_it_works(service: Any, scans: list[bytes]) -> None:
    service.start()
    service.subscribe()
    service.publish(*({"data": data} for data in scans))
    audits = 0
    while not service.settled(len(scans)):
        service.supervisor.tend()
        said = service.scanherald("audit", "--json")
        assert said.returncode == 0, said.stdout + said.stderr
        audits += 1
        assert audits < 60, service.last_words()
    assert audits
    found = orjson.loads(service.scanherald("audit", "--json").stdout)
    assert found["events"]["done"] == len(scans)


def test_a_redis_that_lost_its_data_leaves_the_ledger_to_be_audited(
    service: Any, scans: list[bytes]
) -> None:
    service.start()
    service.publish({"data": scans[0]})
    service.wait(lambda: service.settled(1))
    with contextlib.closing(service.redis()) as client:
        client.flushall()
    assert service.scanherald("audit").returncode == 0
    service.supervisor.stop()
    away = service.scanherald("audit")
    assert away.returncode == 75
    assert "--no-stream audits the ledger alone" in away.stderr
    alone = service.scanherald("audit", "--no-stream")
    assert alone.returncode == 0, alone.stdout
    assert alone.stdout.splitlines()[-1] == "clean"

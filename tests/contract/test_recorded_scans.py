"""The walk over recorded scans, asked of SQLite and of PostgreSQL alike."""

from __future__ import annotations

import gc
import json
import weakref
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, update

from schemas.events import decode_entry
from schemas.runs import DecodedEntry, Entry
from store import events, recorded_scans, tables
from store.ledger import Ledger
from store.recorded_scans import RecordedScan, Selection, count_scans, read_scan, walk_scans

NOW = datetime(2026, 3, 4, 5, 6, 7, 890, tzinfo=UTC)
DAY = timedelta(days=1)
DEFAULTS = events.RunDefaults(formats=(), language="en", rule_pack="eu-baseline-2026.1")
EVERY = Selection(every=True)


def scan_data(number: int, domain: str, days: float) -> bytes:
    scan = {
        "scan_id": str(UUID(int=number)),
        "domain": domain,
        "timestamp_utc": (NOW + days * DAY).isoformat(),
        "cookies": [{"name": f"c{number}"}],
    }
    return json.dumps(scan).encode()


def record(ledger: Ledger, *scans: tuple[int, str, float], entry: str = "1") -> None:
    """RECORD scans by number, domain and days from now."""
    items = []
    for number, domain, days in scans:
        fields = {b"data": scan_data(number, domain, days), b"id": f"{entry}-{number}".encode()}
        found = Entry("scans:events", f"{entry}-{number}", fields)
        items.append(DecodedEntry(found, decode_entry(fields, max_bytes=1 << 24)))
    with ledger.write() as connection:
        events.record_batch(
            connection,
            items,
            [],
            defaults=DEFAULTS,
            now=NOW,
            dispatch_by=NOW,
            new_id=lambda: str(uuid4()),
        )


def met(ledger: Ledger, selection: Selection = EVERY, *, page: int = 2) -> list[int]:
    """Numbers of the scans that a walk meets, in its order."""
    return [UUID(scan.scan_id).int for scan in walk_scans(ledger, selection, page=page)]


@pytest.fixture
def seven(ledger: Ledger) -> Ledger:
    record(
        ledger,
        *((1, "b.example", 0), (2, "a.example", 1), (3, "b.example", -1)),
        *((4, "c.shop", 0), (5, "a.example", 2), (6, "b.example", 1), (7, "B.example", 9)),
    )
    return ledger


@pytest.mark.parametrize("page", [1, 2, 3, 7, 100])
def test_every_scan_is_met_once_by_domain_and_time(seven: Ledger, page: int) -> None:
    found = met(seven, page=page)
    assert sorted(found) == [1, 2, 3, 4, 5, 6, 7]
    assert [number for number in found if number in (1, 3, 6)] == [3, 1, 6]
    assert found.index(5) == found.index(2) + 1


@pytest.mark.parametrize("page", [1, 2, 100])
def test_of_each_domain_the_latest_is_met(seven: Ledger, page: int) -> None:
    assert sorted(met(seven, Selection(), page=page)) == [4, 5, 6, 7]


def test_of_two_scans_at_one_moment_the_one_is_met_that_a_later_scan_is_compared_with(
    ledger: Ledger,
) -> None:
    record(ledger, (8, "a.example", 0), (3, "a.example", 0), (9, "a.example", 0))
    assert met(ledger, Selection()) == [3]
    record(ledger, (10, "a.example", 1), entry="2")
    (latest,) = walk_scans(ledger, Selection())
    assert latest.inputs is not None
    assert latest.inputs.previous_scan_id == str(UUID(int=3))


def test_times_bound_the_scans_and_the_latest_is_that_within_them(seven: Ledger) -> None:
    def within(**bounds: Any) -> list[int]:
        return sorted(met(seven, Selection(**bounds)))

    assert within(since=NOW + DAY, every=True) == [2, 5, 6, 7]
    assert within(until=NOW, every=True) == [1, 3, 4]
    assert within(since=NOW, until=NOW, every=True) == [1, 4]
    assert within(until=NOW + DAY) == [2, 4, 6]
    assert within(since=NOW + 10 * DAY) == []


def test_a_glob_chooses_domains_whatever_their_case(seven: Ledger) -> None:
    assert sorted(met(seven, Selection(domain="*.EXAMPLE"))) == [5, 6, 7]
    assert sorted(met(seven, Selection(domain="b.example", every=True))) == [1, 3, 6, 7]
    assert met(seven, Selection(domain="example")) == []


def test_scans_are_counted_as_the_walk_will_meet_them(seven: Ledger) -> None:
    for selection in (EVERY, Selection(), Selection(until=NOW), Selection(since=NOW, every=True)):
        assert count_scans(seven, selection) == len(met(seven, selection))
    assert count_scans(seven, Selection(domain="*.example")) is None


def test_a_scan_comes_with_all_that_its_report_is_made_of(seven: Ledger) -> None:
    found = {UUID(scan.scan_id).int: scan for scan in walk_scans(seven, EVERY)}
    six = found[6]
    assert (six.domain, six.finished_at) == ("b.example", NOW + DAY)
    assert six.data == scan_data(6, "b.example", 1)
    assert six.inputs is not None
    assert [item.scan_id for item in six.inputs.earlier] == [
        str(UUID(int=number)) for number in (3, 1)
    ]
    assert six.inputs.rule_pack == "eu-baseline-2026.1"
    assert found[3].inputs is not None
    assert found[3].inputs.earlier == ()


def test_what_is_gone_is_none(seven: Ledger) -> None:
    with seven.write() as connection:
        connection.execute(
            update(tables.events).where(tables.events.c.event_pk == 1).values(payload=None)
        )
        connection.execute(delete(tables.runs).where(tables.runs.c.event_pk == 2))
    found = {UUID(scan.scan_id).int: scan for scan in walk_scans(seven, EVERY)}
    assert found[1].data is None
    assert found[6].data is not None
    assert found[2].inputs is None
    assert read_scan(seven, "x", 99) is None


def test_a_replayed_scan_comes_with_its_newest_runs_inputs(seven: Ledger) -> None:
    with seven.write() as connection:
        (run,) = connection.execute(
            tables.runs.select().where(tables.runs.c.event_pk == 1)
        ).mappings()
        later = {"run_id": "again", "kind": "replay", "created_at": NOW + DAY}
        inputs = {**run["inputs"], "rule_pack": "acme-2026.2"}
        connection.execute(tables.runs.insert().values({**run, **later, "inputs": inputs}))
    found = {UUID(scan.scan_id).int: scan for scan in walk_scans(seven, EVERY)}
    assert found[1].inputs is not None
    assert found[1].inputs.rule_pack == "acme-2026.2"
    assert len(found) == 7


@pytest.mark.parametrize("selection", [EVERY, Selection()], ids=["every", "latest"])
def test_nothing_is_met_twice_when_scans_are_recorded_meanwhile(
    seven: Ledger, selection: Selection
) -> None:
    expected = met(seven, selection)
    found = []
    for number, scan in enumerate(walk_scans(seven, selection, page=1)):
        found.append(UUID(scan.scan_id).int)
        record(seven, (100 + number, scan.domain, -5), entry=f"old-{number}")
        if not selection.every:
            record(seven, (200 + number, scan.domain, 20), entry=f"new-{number}")
    assert found == expected


def test_a_walk_holds_one_scan_at_a_time(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 3000
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    class Counted(RecordedScan):
        """Can be counted while it lives."""

        __slots__ = ("__weakref__",)

        def __init__(self, **fields: Any) -> None:
            super().__init__(**fields)
            alive.add(self)

        __hash__ = object.__hash__

    for first in range(0, count, 500):
        record(ledger, *((n, f"{n}.example", 0) for n in range(first, first + 500)))
    monkeypatch.setattr(recorded_scans, "RecordedScan", Counted)
    gc.disable()  # only what is let go of counts, not what would be found later
    try:
        most = total = 0
        for _ in walk_scans(ledger, Selection()):
            total += 1
            most = max(most, len(alive))
    finally:
        gc.enable()
    assert total == count
    assert most <= 2

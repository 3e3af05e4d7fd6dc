"""What the ledger promises of violations, asked of SQLite and of PostgreSQL alike."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import select, text

from schemas.events import decode_entry
from schemas.notifications import ChannelAddress, ChannelKind, Subscriber
from schemas.reports import Severity
from schemas.runs import DecodedEntry, Entry
from schemas.settings import load_settings
from schemas.violations import Sighting, Violation
from store import tables
from store.artifacts import ArtifactStore
from store.earlier_scans import find_scans
from store.events import RunDefaults, record_batch
from store.ledger import Ledger
from store.subscribers import save_subscriber
from store.violations import list_violations, save_violations, take_turn, violations_of
from tasks.finish import settle
from tasks.wiring import Wiring

NOW = datetime(2026, 3, 4, 5, 6, 7, 891_000, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DEFAULTS = RunDefaults(formats=(), language="en", rule_pack="eu-baseline")
HOSTILE = "'; DROP TABLE violations; --\u202e<script>%s {0} \\ \" $1 😀"
HARMLESS = {"name": "sid", "category": "necessary"}
SINNER = {
    "name": "_else",
    "domain": "else.example",
    "category": "necessary",
    "cookie_type": "Third Party",
    "set_after_accept": False,
}


def scan_id(number: int) -> str:
    return str(UUID(int=number))


def record(ledger: Ledger, number: int, *, at: datetime = NOW, **fields: Any) -> tuple[int, str]:
    """Record a scan; returns its event's key and its run's id."""
    event_id = fields.pop("event_id", str(uuid4()))
    now = fields.pop("now", NOW + timedelta(days=1))
    data = {
        "scan_id": scan_id(number),
        "domain": "a.example",
        "timestamp_utc": at.isoformat(),
        "page_count": 1,
        **fields,
    }
    raw = {b"data": json.dumps(data).encode(), b"id": event_id.encode()}
    item = DecodedEntry(Entry("scans", event_id, raw), decode_entry(raw, max_bytes=1 << 20))
    with ledger.write() as connection:
        ticket = record_batch(
            connection,
            [item],
            [],
            defaults=DEFAULTS,
            now=now,
            dispatch_by=now + MINUTE,
            new_id=lambda: str(uuid4()),
        ).tickets[0]
        event_pk = connection.execute(
            select(tables.runs.c.event_pk).where(tables.runs.c.run_id == ticket.run_id)
        ).scalar_one()
    return event_pk, ticket.run_id


def turn(ledger: Ledger, number: int, event_pk: int) -> datetime | None:
    with ledger.write() as connection:
        return take_turn(connection, scan_id(number), event_pk)


def violation(rule_id: str = "a", **values: Any) -> Violation:
    sighting = Sighting(
        rule_id=rule_id,
        severity=Severity.HIGH,
        title=values.pop("title", "of a rule"),
        count=3,
        scan_id=scan_id(1),
        rule_pack="eu-baseline",
        rule_pack_version="2026.1",
        wide=True,
    )
    whole: dict[str, Any] = {
        "domain": "a.example",
        "occurrence": 1,
        "first_seen_at": NOW,
        "last_seen_at": NOW,
        "last_told_at": NOW,
    }
    return Violation(sighting=sighting, **{**whole, **values})


def save(ledger: Ledger, *changed: Violation) -> None:
    with ledger.write() as connection:
        save_violations(connection, changed)


def known(ledger: Ledger, domain: str = "a.example") -> list[Violation]:
    with ledger.read() as connection:
        return violations_of(connection, domain)


# Rows


def test_a_violation_comes_back_as_it_was_saved(ledger: Ledger) -> None:
    saved = violation(title=HOSTILE, domain=HOSTILE, reminders=4, resolved_at=NOW + MINUTE)
    save(ledger, saved)
    assert known(ledger, HOSTILE) == [saved]
    assert known(ledger) == []


def test_a_domain_has_one_row_for_each_rule_whatever_its_occurrence(ledger: Ledger) -> None:
    save(ledger, violation("a"), violation("b"))
    save(ledger, violation("a", occurrence=2))
    found = {item.sighting.rule_id: item.occurrence for item in known(ledger)}
    assert found == {"a": 2, "b": 1}


def test_lists_are_bounded_filtered_and_begin_with_the_last_seen(ledger: Ledger) -> None:
    save(
        ledger,
        violation("a"),
        violation("b", last_seen_at=NOW + MINUTE, resolved_at=NOW + MINUTE),
        violation("c", domain="b.example", last_seen_at=NOW + 2 * MINUTE),
    )

    def listed(**options: Any) -> list[str]:
        with ledger.read() as connection:
            found = list_violations(connection, **{"limit": 10, **options})
        return [item.sighting.rule_id for item in found]

    assert listed() == ["c", "b", "a"]
    assert listed(limit=2) == ["c", "b"]
    assert listed(open_only=True) == ["c", "a"]
    assert listed(domain="a.example") == ["b", "a"]
    assert listed(domain="a.example", open_only=True) == ["a"]


def test_earlier_scans_are_found_by_their_ids_alone(ledger: Ledger) -> None:
    first, _ = record(ledger, 1, cookies=[{"name": "a"}, {"name": "b"}])
    again, _ = record(ledger, 1, cookies=[{"name": "a"}])
    with ledger.read() as connection:
        found = find_scans(connection, [scan_id(1), scan_id(2)])
        assert find_scans(connection, []) == {}
    assert list(found) == [scan_id(1)]
    assert (found[scan_id(1)].event_pk, found[scan_id(1)].cookie_count) == (again, 1)
    assert again != first


# Turns


def test_a_first_scan_has_its_turn_at_the_time_it_finished(ledger: Ledger) -> None:
    event_pk, _ = record(ledger, 1)
    assert turn(ledger, 1, event_pk) == NOW


@pytest.mark.parametrize(
    ("number", "later", "has_turn"),
    [(5, MINUTE, True), (5, -MINUTE, False), (5, timedelta(0), True), (2, timedelta(0), False)],
    ids=["later", "earlier", "at once, greater id", "at once, smaller id"],
)
def test_another_scan_has_a_turn_only_where_it_is_newer(
    ledger: Ledger, number: int, later: timedelta, has_turn: bool
) -> None:
    event_pk, _ = record(ledger, 3)
    assert turn(ledger, 3, event_pk) == NOW
    event_pk, _ = record(ledger, number, at=NOW + later)
    assert turn(ledger, number, event_pk) == (NOW + later if has_turn else None)


def test_the_same_event_has_no_second_turn(ledger: Ledger) -> None:
    event_pk, _ = record(ledger, 1)
    assert turn(ledger, 1, event_pk) is not None
    assert turn(ledger, 1, event_pk) is None


def test_a_scan_that_came_again_has_a_turn_by_its_later_event_alone(ledger: Ledger) -> None:
    first, _ = record(ledger, 1)
    assert turn(ledger, 1, first) == NOW
    second, _ = record(ledger, 1, at=NOW - MINUTE)
    assert turn(ledger, 1, first) is None
    assert turn(ledger, 1, second) == NOW - MINUTE
    assert turn(ledger, 1, second) is None


def test_a_scan_that_is_superseded_before_its_turn_has_none(ledger: Ledger) -> None:
    first, _ = record(ledger, 1)
    record(ledger, 1)
    assert turn(ledger, 1, first) is None


def test_a_scan_from_the_future_is_taken_at_the_time_it_was_recorded(ledger: Ledger) -> None:
    event_pk, _ = record(ledger, 1, at=NOW + timedelta(days=40_000), now=NOW)
    assert turn(ledger, 1, event_pk) == NOW
    event_pk, _ = record(ledger, 2, at=NOW + MINUTE)
    assert turn(ledger, 2, event_pk) == NOW + MINUTE


def test_a_domains_turn_is_no_other_domains(ledger: Ledger) -> None:
    event_pk, _ = record(ledger, 1)
    turn(ledger, 1, event_pk)
    event_pk, _ = record(ledger, 2, at=NOW - MINUTE, domain="b.example")
    assert turn(ledger, 2, event_pk) is not None


def test_a_turn_that_was_rolled_back_is_still_to_be_had(ledger: Ledger) -> None:
    event_pk, _ = record(ledger, 1)

    def die_after_it() -> None:
        with ledger.write() as connection:
            take_turn(connection, scan_id(1), event_pk)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        die_after_it()
    assert turn(ledger, 1, event_pk) == NOW


# At once


def wait_until_a_writer_is_blocked(ledger: Ledger) -> None:
    """Until a transaction waits for a lock.  SQLite's second writer waits before it looks."""
    give_up = time.monotonic() + 30
    waiting = int(ledger.url.startswith("sqlite"))
    while not waiting:
        assert time.monotonic() < give_up, "nobody waits for a lock"
        with ledger.read() as connection:
            waiting = connection.execute(
                text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            ).scalar_one()


@pytest.mark.parametrize("known_before", [False, True], ids=["a first scan", "a later one"])
@pytest.mark.parametrize("newer_first", [False, True], ids=["in order", "the newer one first"])
def test_the_second_of_two_scans_waits_and_sees_what_the_first_has_written(
    ledger: Ledger, newer_first: bool, known_before: bool
) -> None:
    if known_before:
        event_pk, _ = record(ledger, 9, at=NOW - MINUTE)
        turn(ledger, 9, event_pk)
    events = {1: record(ledger, 1)[0], 2: record(ledger, 2, at=NOW + MINUTE)[0]}
    first, second = (2, 1) if newer_first else (1, 2)
    inside = threading.Event()
    seen: list[tuple[datetime | None, list[Violation]]] = []

    def late() -> None:
        inside.wait(30)
        with ledger.write() as connection:
            moved = take_turn(connection, scan_id(second), events[second])
            seen.append((moved, violations_of(connection, "a.example")))

    waiter = threading.Thread(target=late)
    waiter.start()
    with ledger.write() as connection:
        assert take_turn(connection, scan_id(first), events[first]) is not None
        assert violations_of(connection, "a.example") == []
        inside.set()
        wait_until_a_writer_is_blocked(ledger)
        save_violations(connection, [violation("a")])
    waiter.join(30)
    assert seen == [(None if newer_first else NOW + MINUTE, [violation("a")])]


@pytest.fixture
def make_parts(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Wiring]:
    """What a worker process has, on the trial's ledger."""
    monkeypatch.setenv("SCANHERALD_ENCRYPTION_KEYS", Fernet.generate_key().decode())

    def make(**overrides: Any) -> Wiring:
        settings = load_settings(
            **{"data_dir": tmp_path, "database_url": ledger.url, "formats": (), **overrides}
        )
        return Wiring(settings, Ledger(ledger.url), ArtifactStore(settings.artifact_store_url))

    return make


def test_workers_that_settle_a_domains_scans_at_once_tell_each_occurrence_once(
    ledger: Ledger, make_parts: Callable[..., Wiring]
) -> None:
    """Five rounds of eight scans that all find it, then eight that do not; four workers."""
    workers = [make_parts() for _ in range(4)]
    reader = Subscriber(
        subscriber_id="anna",
        channels=(ChannelAddress(kind=ChannelKind.WEBHOOK, target="https://r.example/"),),
        events=("compliance.violation",),
    )
    with ledger.write() as connection:
        save_subscriber(connection, reader, workers[0].box, NOW)
    numbers = iter(range(1, 1000))
    shuffled = random.Random(7)
    for _ in range(5):
        for cookies in ([HARMLESS, SINNER], [HARMLESS]):
            runs = []
            for _ in range(8):
                number = next(numbers)
                run = record(ledger, number, at=NOW + number * MINUTE, cookies=cookies)
                runs.append(run[1])
            shuffled.shuffle(runs)
            jobs = [(worker, run_id) for run_id in runs for worker in shuffled.sample(workers, 2)]
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda job: settle(job[0], job[1], 1), jobs))
    for worker in workers:
        worker.close()

    with ledger.read() as connection:
        keys = list(
            connection.execute(
                select(tables.notifications.c.event_key).where(
                    tables.notifications.c.type == "compliance.violation"
                )
            ).scalars()
        )
        deliveries = connection.execute(select(tables.deliveries)).mappings().all()
        (row,) = connection.execute(select(tables.violations)).mappings().all()
    assert len(keys) == len(deliveries) == 10, "five times begun, five times ended"
    assert max(Counter(keys).values()) == 1
    assert row["occurrence"] == 5
    assert row["resolved_at"] is not None


def test_a_violations_content_is_kept_small(ledger: Ledger) -> None:
    save(ledger, violation(title="a" * 300))
    with ledger.read() as connection:
        content = connection.execute(select(tables.violations.c.content)).scalar_one()
    assert len(content) < len(msgspec.json.encode(violation(title="a" * 300).sighting))

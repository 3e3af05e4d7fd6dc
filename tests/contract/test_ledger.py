"""What the ledger promises, asked of SQLite and of PostgreSQL alike."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import msgspec
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from cryptography.fernet import Fernet
from sqlalchemy import Connection, make_url, select, update

import store
from schemas.errors import LedgerUnavailable, NotFound
from schemas.events import EventType, decode_entry
from schemas.notifications import (
    ChannelAddress,
    ChannelKind,
    Notification,
    QuietHours,
    Subscriber,
)
from schemas.reports import Format, Severity
from schemas.runs import DeadEntry, DecodedEntry, DeliveryState, Entry, Run, RunState, RunTicket
from schemas.scans import decode_scan
from store import (
    deliveries,
    earlier_scans,
    events,
    figures,
    retention,
    runs,
    subscribers,
    tables,
    tries,
)
from store.deliveries import DeliveryTicket, Recipient
from store.events import BatchRecord, RunDefaults
from store.ledger import Ledger
from store.runs import RenderedReport
from store.secrets import SecretBox
from store.tries import Attempt, DueDelivery

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
FORMATS = (Format.PDF, Format.HTML)
DEFAULTS = RunDefaults(formats=FORMATS, language="en", rule_pack="eu-baseline")
BOX = SecretBox([Fernet.generate_key().decode()])
STREAM = "scans:events"
HOSTILE = "'; DROP TABLE events; --\u202e<script>%s {0} \\ \" $1 😀 \U0010fffd"
UNSTORABLE = "\x00before\x00\ud800after"

Result = TypeVar("Result")


def scan_bytes(connection: Connection, scan: str) -> bytes | None:
    """The bytes that a scan's row points to."""
    event_pk = connection.execute(
        select(tables.scans.c.event_pk).where(tables.scans.c.scan_id == scan)
    ).scalar_one_or_none()
    return None if event_pk is None else events.read_payload(connection, event_pk)


def new_id() -> str:
    return str(uuid4())


def decoded(entry_id: str = "1-0", stream: str = STREAM, **fields: Any) -> DecodedEntry:
    raw = {
        name.encode(): value if isinstance(value, bytes) else str(value).encode()
        for name, value in fields.items()
    }
    entry = Entry(stream, entry_id, raw)
    return DecodedEntry(entry, decode_entry(raw, max_bytes=1 << 24))


def scan_id(number: int) -> str:
    return str(UUID(int=number))


def scan_data(
    number: int, *, finished: datetime = NOW, domain: str = "a.example", **more: Any
) -> bytes:
    return json.dumps(
        {
            "scan_id": scan_id(number),
            "domain": domain,
            "timestamp_utc": finished.isoformat(),
            "cookies": [{"name": "sid"}],
            **more,
        }
    ).encode()


def scan(number: int, entry_id: str | None = None, **options: Any) -> DecodedEntry:
    """A completed scan; ``id``, ``source`` and ``userid`` are the event's, the rest is its data."""
    attributes = {name: options.pop(name) for name in ("id", "source", "userid") if name in options}
    return decoded(entry_id or f"{number}-0", data=scan_data(number, **options), **attributes)


def record(
    ledger: Ledger,
    *items: DecodedEntry,
    dead: Iterable[DeadEntry] = (),
    now: datetime = NOW,
) -> BatchRecord:
    with ledger.write() as connection:
        return events.record_batch(
            connection,
            items,
            list(dead),
            defaults=DEFAULTS,
            now=now,
            dispatch_by=now + MINUTE,
            new_id=new_id,
        )


def write(ledger: Ledger, work: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    with ledger.write() as connection:
        return work(connection, *arguments, **options)


def read(ledger: Ledger, work: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    with ledger.read() as connection:
        return work(connection, *arguments, **options)


def load(ledger: Ledger, ticket: RunTicket) -> Run:
    return read(ledger, runs.load_run, ticket.run_id)


def recorded_run(ledger: Ledger, number: int = 1, **options: Any) -> Run:
    return load(ledger, record(ledger, scan(number, **options)).tickets[0])


def rows(ledger: Ledger, table: Any) -> list[Any]:
    with ledger.read() as connection:
        return list(connection.execute(select(table)).mappings())


def at_once(work: Callable[[], Result], times: int = 2) -> list[Result]:
    """The same work in so many threads that start together."""
    barrier = threading.Barrier(times)

    def start() -> Result:
        barrier.wait(30)
        return work()

    with ThreadPoolExecutor(times) as pool:
        return [future.result() for future in [pool.submit(start) for _ in range(times)]]


def wait_for_a_sweep_that_waits_for_nobody(ledger: Ledger, sweep: Future[Any]) -> None:
    """PostgreSQL's passes over a row in somebody's hands; SQLite's waits before it looks."""
    if not ledger.url.startswith("sqlite"):
        sweep.result(30)


# Transactions


def test_the_migrated_schema_is_that_of_the_tables(ledger: Ledger) -> None:
    with ledger.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, tables.metadata) == []


def test_the_schema_goes_down_to_nothing_and_up_again(ledger: Ledger) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(store.__file__).parent / "migrations"))
    with ledger.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    with ledger.read() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), tables.metadata)
        missing = {item[1].name for item in differences if item[0] == "add_table"}
        assert missing == set(tables.metadata.tables)
    ledger.migrate()
    ledger.migrate()

    assert record(ledger, scan(1)).new == 1
    with ledger.read() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, tables.metadata) == []


@pytest.mark.full
def test_migrations_of_one_postgresql_at_once_are_harmless(cluster: Any) -> None:
    cluster.administer("CREATE DATABASE fresh")
    ledgers = [Ledger(cluster.url("fresh")) for _ in range(4)]
    waiting = iter(ledgers)
    try:
        at_once(lambda: next(waiting).migrate(), times=4)
        assert record(ledgers[0], scan(1)).new == 1
    finally:
        for made in ledgers:
            made.close()
        cluster.administer("DROP DATABASE fresh WITH (FORCE)")


def test_a_look_stays_consistent_while_others_write(ledger: Ledger) -> None:
    with ledger.read() as connection:
        assert events.count_outcomes(connection) == {}
        record(ledger, scan(1))
        assert runs.count_runs(connection) == {}
        assert events.count_outcomes(connection) == {}
    assert read(ledger, runs.count_runs) == {"recorded": 1}


def test_an_exception_leaves_nothing_of_its_transaction(ledger: Ledger) -> None:
    def record_and_fall() -> None:
        with ledger.write() as connection:
            events.record_dead(connection, DeadEntry(Entry(STREAM, "1-0", {}), "why"), NOW)
            raise KeyError("fell")

    with pytest.raises(KeyError, match="fell"):
        record_and_fall()
    assert rows(ledger, tables.events) == []


# RECORD


def test_a_new_scan_is_recorded_with_all_that_its_tasks_need(ledger: Ledger) -> None:
    data = scan_data(7, scan_mode="deep", unknown_field={"kept": True})
    item = decoded(
        "7-0",
        data=data,
        source="/scanner",
        subject="other.example",
        userid="u-1",
        traceparent="00-ab-cd-01",
    )

    recorded = record(ledger, item)

    assert (recorded.new, recorded.repeats, recorded.dead) == (1, 0, 0)
    (ticket,) = recorded.tickets
    assert (ticket.attempt, ticket.formats, ticket.needs_data) == (1, FORMATS, False)
    run = load(ledger, ticket)
    assert run.state is RunState.RECORDED
    assert run.scan_id == scan_id(7)
    assert (run.inputs.language, run.inputs.rule_pack) == ("en", "eu-baseline")
    assert (run.inputs.previous_scan_id, run.inputs.history) == (None, ())
    assert run.event_type is EventType.SCAN_COMPLETED
    assert (run.source, run.event_id) == ("/scanner", f"scan.completed:{scan_id(7)}")
    assert (run.subject, run.user_id) == ("a.example", "u-1")
    assert (run.traceparent, run.dataref) == ("00-ab-cd-01", None)
    assert run.occurred_at == NOW
    assert run.data == data
    (row,) = rows(ledger, tables.scans)
    assert (row["scan_mode"], row["cookie_count"], row["score"]) == ("deep", 1, None)
    assert read(ledger, scan_bytes, scan_id(7)) == data
    assert read(ledger, events.count_outcomes) == {"pending": 1}


def test_a_time_without_scan_or_event_time_is_that_of_recording(ledger: Ledger) -> None:
    untimed = decoded("1-0", data=f'{{"scan_id":"{scan_id(1)}","domain":"a.example"}}')
    timed = decoded(
        "2-0",
        data=f'{{"scan_id":"{scan_id(2)}","domain":"a.example"}}',
        time="2026-01-01T01:00:00+01:00",
    )

    tickets = record(ledger, untimed, timed).tickets

    assert [load(ledger, ticket).occurred_at for ticket in tickets] == [
        NOW,
        datetime(2026, 1, 1, tzinfo=UTC),
    ]


def test_a_scan_stored_without_a_zone_comes_back_in_utc(ledger: Ledger) -> None:
    record(ledger, scan(1, finished=datetime.fromisoformat("2026-03-04T02:00:00.123456+05:30")))
    (row,) = rows(ledger, tables.scans)
    assert row["finished_at"] == datetime(2026, 3, 3, 20, 30, 0, 123456, tzinfo=UTC)
    assert row["finished_at"].utcoffset() == timedelta(0)


def test_a_repeat_is_counted_and_makes_nothing(ledger: Ledger) -> None:
    record(ledger, scan(1, "1-0"))

    again = record(ledger, scan(1, "2-0"), scan(1, "3-0"))

    assert (again.tickets, again.new, again.repeats) == ((), 0, 2)
    (row,) = rows(ledger, tables.events)
    assert (row["seen"], row["entry_id"]) == (3, "1-0")
    assert len(rows(ledger, tables.runs)) == 1


def test_a_repeat_within_one_batch_is_counted(ledger: Ledger) -> None:
    recorded = record(ledger, scan(1, "1-0"), scan(1, "2-0"), scan(2, "3-0"))

    assert (len(recorded.tickets), recorded.new, recorded.repeats) == (2, 2, 1)
    assert [ticket.attempt for ticket in recorded.tickets] == [1, 1]


def test_an_entry_that_came_back_before_its_dispatch_gets_the_next_attempt(ledger: Ledger) -> None:
    (first,) = record(ledger, scan(1, "1-0")).tickets

    back = record(ledger, scan(1, "1-0"))

    assert (back.new, back.repeats) == (0, 1)
    assert back.tickets == (RunTicket(first.run_id, 2, FORMATS, needs_data=False),)
    assert load(ledger, first).attempt == 2


def test_an_entry_that_came_back_with_its_dataref_unfetched_still_needs_its_data(
    ledger: Ledger,
) -> None:
    item = decoded("1-0", dataref="https://a.example/scan.json")
    assert [ticket.needs_data for ticket in record(ledger, item).tickets] == [True]
    assert [ticket.needs_data for ticket in record(ledger, item).tickets] == [True]


@pytest.mark.parametrize("settle", [False, True])
def test_an_entry_that_came_back_after_its_dispatch_is_left_alone(
    ledger: Ledger, settle: bool
) -> None:
    tickets = record(ledger, scan(1, "1-0")).tickets
    write(ledger, runs.mark_dispatched, tickets, NOW + DAY)
    if settle:
        write(ledger, runs.settle_dead, tickets[0].run_id, "for a test", NOW)

    back = record(ledger, scan(1, "1-0"))

    assert (back.tickets, back.repeats) == ((), 1)
    assert load(ledger, tickets[0]).attempt == 1


def test_the_same_entry_id_in_another_stream_is_another_entry(ledger: Ledger) -> None:
    record(ledger, decoded("1-0", data=scan_data(1)))
    other = record(ledger, decoded("1-0", stream="scans:more", data=scan_data(1)))
    assert (other.tickets, other.repeats) == ((), 1)


def test_an_explicit_id_with_its_source_is_the_identity(ledger: Ledger) -> None:
    recorded = record(
        ledger,
        scan(1, "1-0", id="x", source="/one"),
        scan(2, "2-0", id="x", source="/two"),
        scan(3, "3-0", id="x", source="/one"),
    )

    assert (recorded.new, recorded.repeats) == (2, 1)
    assert {row["scan_id"] for row in rows(ledger, tables.scans)} == {scan_id(1), scan_id(2)}


def test_a_scan_id_under_another_event_id_replaces_the_scan(ledger: Ledger) -> None:
    first = recorded_run(ledger, 1, entry_id="1-0", id="one")
    write(ledger, runs.settle_done, first, NOW, score=50, summary="")
    cookies = [{"name": "a"}, {"name": "b"}]
    second = recorded_run(
        ledger, 1, entry_id="2-0", id="two", cookies=cookies, finished=NOW + MINUTE
    )

    (row,) = rows(ledger, tables.scans)
    assert (row["cookie_count"], row["finished_at"], row["score"]) == (2, NOW + MINUTE, None)
    assert read(ledger, scan_bytes, scan_id(1)) == second.data
    assert load(ledger, RunTicket(first.run_id, 1, (), False)).data == first.data
    assert second.inputs.previous_scan_id is None


def test_the_score_of_a_replaced_scan_does_not_become_that_of_the_new_one(ledger: Ledger) -> None:
    first = recorded_run(ledger, 1, entry_id="1-0", id="one")
    second = recorded_run(ledger, 1, entry_id="2-0", id="two")

    assert write(ledger, runs.settle_done, first, NOW, score=50, summary="")
    assert [row["score"] for row in rows(ledger, tables.scans)] == [None]
    assert write(ledger, runs.settle_done, second, NOW, score=60, summary="")
    assert [row["score"] for row in rows(ledger, tables.scans)] == [60]


def test_an_event_that_is_not_a_scan_result_wants_no_reports(ledger: Ledger) -> None:
    item = decoded(type="scan.failed", data='{"scan_id":"s-1","domain":"a.example","error":"DNS"}')

    (ticket,) = record(ledger, item).tickets

    run = load(ledger, ticket)
    assert (ticket.formats, ticket.needs_data) == ((), False)
    assert (run.scan_id, run.formats, run.subject) == (None, (), "a.example")
    assert rows(ledger, tables.scans) == []


def test_a_run_freezes_the_scan_before_and_the_history_of_its_domain(ledger: Ledger) -> None:
    oldest = recorded_run(ledger, 1, finished=NOW - 3 * DAY)
    write(ledger, runs.settle_done, oldest, NOW, score=40, summary="")
    recorded_run(ledger, 2, finished=NOW - 2 * DAY)
    recorded_run(ledger, 3, finished=NOW - DAY, domain="b.example")

    newest = recorded_run(ledger, 4, finished=NOW)

    assert newest.inputs.previous_scan_id == scan_id(2)
    assert [(point.scan_id, point.score) for point in newest.inputs.history] == [
        (scan_id(1), 40),
        (scan_id(2), None),
    ]
    assert [point.finished_at for point in newest.inputs.history] == [NOW - 3 * DAY, NOW - 2 * DAY]


def test_a_run_freezes_the_last_scored_scan_and_the_latest_since(ledger: Ledger) -> None:
    count = earlier_scans.HISTORY_POINTS + 5
    for number in (1, 2):
        scored = recorded_run(ledger, number, finished=NOW + number * MINUTE)
        write(ledger, runs.settle_done, scored, NOW, score=40, summary="")
    record(ledger, *(scan(number, finished=NOW + number * MINUTE) for number in range(3, count)))

    def frozen(number: int) -> list[str]:
        run = recorded_run(ledger, number, finished=NOW + number * MINUTE)
        assert run.inputs.previous_scan_id == run.inputs.earlier[-1].scan_id
        return [item.scan_id for item in run.inputs.earlier]

    newest = [scan_id(count - step) for step in range(earlier_scans.SCANS_SINCE, 0, -1)]
    assert frozen(count) == [scan_id(2), *newest]
    last = recorded_run(ledger, count + 1, finished=NOW + (count + 1) * MINUTE)
    write(ledger, runs.settle_done, last, NOW, score=50, summary="")
    assert frozen(count + 2) == [scan_id(count + 1)]
    record(ledger, scan(count + 3, finished=NOW + (count + 3) * MINUTE))
    assert frozen(count + 4) == [scan_id(number + count) for number in (1, 2, 3)]


def test_what_was_frozen_is_not_changed_by_a_later_word_on_an_earlier_scan(ledger: Ledger) -> None:
    record(ledger, scan(1, id="first", finished=NOW - MINUTE))
    run = recorded_run(ledger, 2)
    record(ledger, scan(1, "3-0", id="second", finished=NOW - MINUTE, cookies=[]))
    again = read(ledger, runs.load_run, run.run_id)
    (earlier,) = again.inputs.earlier
    assert (earlier.scan_id, earlier.event_pk) == (scan_id(1), 1)
    assert earlier.finished_at == NOW - MINUTE


def test_scans_of_one_domain_in_one_batch_and_out_of_order_are_compared_by_their_times(
    ledger: Ledger,
) -> None:
    tickets = record(
        ledger,
        scan(1, finished=NOW - 2 * DAY),
        scan(3, finished=NOW),
        scan(2, finished=NOW - DAY),
    ).tickets

    before = [load(ledger, ticket).inputs.previous_scan_id for ticket in tickets]

    assert before == [None, scan_id(2), scan_id(1)]
    later = recorded_run(ledger, 4, finished=NOW + DAY)
    assert [point.scan_id for point in later.inputs.history] == [scan_id(1), scan_id(2), scan_id(3)]


def test_a_run_is_compared_with_a_scan_that_came_before_its_first_format_was_begun(
    ledger: Ledger,
) -> None:
    record(ledger, scan(1, finished=NOW - 2 * DAY))
    late, early = (scan(number, finished=NOW - (3 - number) * DAY) for number in (3, 2))
    (ticket,) = record(ledger, late).tickets
    record(ledger, early, now=NOW + MINUTE)
    assert load(ledger, ticket).inputs.previous_scan_id == scan_id(1)

    write(ledger, earlier_scans.freeze_again, ticket.run_id)

    inputs = load(ledger, ticket).inputs
    assert inputs.previous_scan_id == scan_id(2)
    assert [item.scan_id for item in inputs.earlier] == [scan_id(1), scan_id(2)]
    assert [point.scan_id for point in inputs.history] == [scan_id(1), scan_id(2)]


def test_nothing_moves_what_a_begun_run_is_compared_with(ledger: Ledger) -> None:
    run = recorded_run(ledger, 3, finished=NOW)
    start(ledger, run)
    record(ledger, scan(2, finished=NOW - DAY))

    write(ledger, earlier_scans.freeze_again, run.run_id)

    assert read(ledger, runs.load_run, run.run_id).inputs == run.inputs


def test_a_replay_keeps_what_the_run_before_was_compared_with(ledger: Ledger) -> None:
    run = recorded_run(ledger, 3, finished=NOW)
    with ledger.write() as connection:
        row = connection.execute(tables.runs.select()).mappings().one()
        again = {"run_id": "again", "kind": "replay", "created_at": NOW + DAY}
        connection.execute(tables.runs.insert().values({**row, **again}))
    record(ledger, scan(2, finished=NOW - DAY))

    write(ledger, earlier_scans.freeze_again, "again")

    assert read(ledger, runs.load_run, "again").inputs == run.inputs


def test_scans_that_finished_at_one_moment_are_both_compared_with_the_one_before(
    ledger: Ledger,
) -> None:
    tickets = record(
        ledger,
        scan(1, finished=NOW - DAY),
        scan(2, finished=NOW),
        scan(3, finished=NOW),
    ).tickets

    before = [load(ledger, ticket).inputs.previous_scan_id for ticket in tickets]

    assert before == [None, scan_id(1), scan_id(1)]


def test_listeners_that_record_the_same_in_other_orders_do_not_wait_for_ever(
    ledger: Ledger,
) -> None:
    count = 30
    items = [
        scan(number, f"{number}-{copy}", id=f"{copy}-{number % 10}")
        for number in range(count)
        for copy in range(2)
    ]
    chance = random.Random(20)
    orders = [chance.sample(items, len(items)) for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:  # a deadlock raises LedgerUnavailable
        for recorded in [pool.submit(record, ledger, *order) for order in orders]:
            recorded.result()

    events_rows = read(ledger, lambda connection: connection.execute(tables.events.select()).all())
    assert sum(row.seen for row in events_rows) == len(orders) * len(items)


def test_a_scan_of_the_same_moment_is_not_the_scan_before(ledger: Ledger) -> None:
    recorded_run(ledger, 1)
    assert recorded_run(ledger, 2).inputs.previous_scan_id is None


def test_the_history_is_bounded_and_keeps_the_newest(ledger: Ledger) -> None:
    count = earlier_scans.HISTORY_POINTS + 3
    record(ledger, *(scan(number, finished=NOW + number * MINUTE) for number in range(1, count)))

    history = recorded_run(ledger, count, finished=NOW + DAY).inputs.history

    assert [point.scan_id for point in history] == [scan_id(number) for number in range(3, count)]


def test_hostile_attributes_are_kept_as_they_came(ledger: Ledger) -> None:
    item = decoded(
        type="schedule.failed",
        data='{"message":"x"}',
        id=HOSTILE,
        source=HOSTILE,
        subject=HOSTILE,
        userid=HOSTILE,
        traceparent=HOSTILE,
    )
    reference = decoded("2-0", dataref="https://a.example/" + HOSTILE, id="ref")

    tickets = record(ledger, item, reference).tickets

    run = load(ledger, tickets[0])
    kept = (run.event_id, run.source, run.subject, run.user_id, run.traceparent)
    assert kept == (HOSTILE,) * 5
    assert load(ledger, tickets[1]).dataref == "https://a.example/" + HOSTILE
    assert record(ledger, item).repeats == 1
    assert len(read(ledger, runs.list_runs, limit=9, domain=HOSTILE)) == 1


def test_a_hostile_scan_is_kept_as_it_came(ledger: Ledger) -> None:
    data = scan_data(1, domain=HOSTILE, scan_mode=UNSTORABLE.replace("\ud800", ""), x="\x00")
    run = load(ledger, record(ledger, decoded(data=data)).tickets[0])
    assert run.data == data
    (row,) = rows(ledger, tables.scans)
    assert (row["domain"], row["scan_mode"]) == (HOSTILE, "beforeafter")


def test_texts_that_no_database_holds_are_mended_in_every_free_text(ledger: Ledger) -> None:
    mended = "before?after"
    run = recorded_run(ledger)
    letter = DeadEntry(Entry(STREAM, "9-0", {b"\x00\xff": b"\x00\xff"}), UNSTORABLE)
    record(ledger, dead=[letter])
    with ledger.write() as connection:
        runs.postpone(connection, run.run_id, 1, UNSTORABLE, NOW)
        runs.start_rendering(connection, run, FORMATS, max_tries=3, now=NOW)
        runs.save_render_error(connection, run, Format.PDF, UNSTORABLE, final=True)
    assert [row["last_error"] for row in rows(ledger, tables.runs)] == [mended]
    assert {row["error"] for row in rows(ledger, tables.reports)} == {None, mended}
    write(ledger, runs.settle_dead, run.run_id, UNSTORABLE, NOW)
    assert {row["reason"] for row in rows(ledger, tables.events)} == {mended}

    leased = lease(ledger, tell(ledger)[0])
    failed = attempt(leased, receipt=UNSTORABLE, error=UNSTORABLE)
    write(ledger, tries.settle_failed, leased.delivery_id, failed, NOW)
    (tried,) = rows(ledger, tables.attempts)
    assert (tried["receipt"], tried["error"]) == (mended, mended)
    assert [row["reason"] for row in rows(ledger, tables.deliveries)] == [mended]


def test_the_longest_identities_of_four_byte_characters_fit(ledger: Ledger) -> None:
    dice = random.Random(255)

    def long(length: int) -> str:
        return "".join(chr(dice.randrange(0x10000, 0x110000)) for _ in range(length))

    explicit = {"id": long(255), "source": long(255), "subject": long(255), "userid": long(255)}
    event = decoded("1-0", type="schedule.created", data="{}", **explicit)
    derived = decoded(
        "2-0",
        type="scan.failed",
        source=long(255),
        data=json.dumps({"scan_id": long(255), "domain": long(255)}),
    )
    domain = long(253)

    recorded = record(ledger, event, derived, scan(3, domain=domain))
    assert (recorded.new, record(ledger, event, derived).repeats) == (3, 2)
    assert load(ledger, recorded.tickets[0]).event_id == explicit["id"]

    subscriber = Subscriber(subscriber_id=long(128), user_id=long(255), domains=(domain,))
    write(ledger, subscribers.save_subscriber, subscriber, BOX, NOW)
    key = f"compliance.violation:{domain}:{'f' * 32}"
    address = ChannelAddress(kind=ChannelKind.WEBHOOK, target="https://h.example/")
    assert len(tell(ledger, key, Recipient(subscriber.subscriber_id, address))) == 1
    assert tell(ledger, key, Recipient(subscriber.subscriber_id, address)) == []


def test_two_listeners_that_record_the_same_batch_make_each_run_once(ledger: Ledger) -> None:
    batch = [scan(number) for number in range(1, 21)]

    recorded = at_once(lambda: record(ledger, *batch))

    assert sum(item.new for item in recorded) == 20
    assert sum(item.repeats for item in recorded) == 20
    assert len(rows(ledger, tables.runs)) == 20
    assert {row["seen"] for row in rows(ledger, tables.events)} == {2}


# Dead letters


def test_a_dead_letter_keeps_its_reason_and_its_content_in_bounds(ledger: Ledger) -> None:
    huge = b"x" * (3 * events.DEAD_ENTRY_BYTES)
    letter = DeadEntry(Entry(STREAM, "5-0", {b"data": huge, b"k\xff": b"\x00\xfe"}), "r" * 9000)

    recorded = record(ledger, scan(1), dead=[letter])

    assert (recorded.new, recorded.dead) == (1, 1)
    (row,) = read(ledger, events.list_dead_letters, 10)
    assert (row["stream"], row["entry_id"], row["type"]) == (STREAM, "5-0", None)
    assert row["reason"] == "r" * 2000
    assert row["payload_size"] == len(huge) + 4 + 2 + 2
    kept = read(ledger, events.read_payload, row["event_pk"])
    assert kept is not None
    assert kept.startswith(b'{"data":"xxx')
    assert events.DEAD_ENTRY_BYTES // 2 < len(kept) < events.DEAD_ENTRY_BYTES
    assert json.loads(kept)["k\\xff"] == "\x00\\xfe"  # whole: every field has its share
    assert read(ledger, events.count_outcomes) == {"pending": 1, "dead": 1}
    assert record(ledger, dead=[letter]).dead == 0


def test_the_bytes_of_a_small_dead_letter_can_be_read_back(ledger: Ledger) -> None:
    record(ledger, dead=[DeadEntry(Entry(STREAM, "5-0", {b"k\xff": b"\x00\xfe"}), "why")])
    (row,) = read(ledger, events.list_dead_letters, 10)
    kept = read(ledger, events.read_payload, row["event_pk"])
    assert json.loads(kept or b"") == {"k\\xff": "\x00\\xfe"}
    assert read(ledger, events.read_payload, row["event_pk"] + 1) is None


def test_dead_letters_are_listed_newest_first_and_bounded(ledger: Ledger) -> None:
    record(
        ledger,
        dead=[DeadEntry(Entry(STREAM, f"{number}-0", {}), "why") for number in range(1, 6)],
    )
    listed = read(ledger, events.list_dead_letters, 2)
    assert [row["entry_id"] for row in listed] == ["5-0", "4-0"]


def test_an_entry_is_known_as_event_and_as_dead_letter(ledger: Ledger) -> None:
    entry = Entry(STREAM, "9-0", {})
    record(ledger, scan(1, "1-0"))
    assert read(ledger, events.is_known, Entry(STREAM, "1-0", {}))
    assert not read(ledger, events.is_known, entry)
    assert not read(ledger, events.is_known, Entry("other", "1-0", {}))
    record(ledger, dead=[DeadEntry(entry, "why")])
    assert read(ledger, events.is_known, entry)


def test_an_exhumed_entry_is_recorded_as_if_it_had_never_died(ledger: Ledger) -> None:
    sound = scan(1, "1-0")
    record(
        ledger, dead=[DeadEntry(sound.entry, "suspected"), DeadEntry(Entry(STREAM, "2-0", {}), "")]
    )

    write(ledger, events.exhume, sound.entry)
    assert not read(ledger, events.is_known, sound.entry)
    assert record(ledger, sound).new == 1
    write(ledger, events.exhume, sound.entry)

    assert read(ledger, events.count_outcomes) == {"dead": 1, "pending": 1}


def test_no_event_can_take_the_identity_of_a_dead_letter(ledger: Ledger) -> None:
    forged = scan(1, "1-0", id="2-0", source=f"redis:{STREAM}")
    run = load(ledger, record(ledger, forged).tickets[0])
    write(ledger, runs.settle_dead, run.run_id, "given up", NOW)
    entry = Entry(STREAM, "2-0", {b"data": b"broken"})

    assert record(ledger, dead=[DeadEntry(entry, "not JSON")]).dead == 1
    write(ledger, events.exhume, entry)

    (row,) = read(ledger, events.list_dead_letters, 9)
    assert row["reason"] == "given up"


# Datarefs


def test_fetched_data_gives_its_run_what_an_inline_scan_would_have(ledger: Ledger) -> None:
    before = recorded_run(ledger, 1, finished=NOW - DAY)
    (ticket,) = record(ledger, decoded("2-0", dataref="https://h.example/s.json")).tickets
    assert (ticket.needs_data, ticket.formats) == (True, FORMATS)
    run = load(ledger, ticket)
    assert (run.data, run.scan_id, run.subject) == (b"", None, None)
    data = scan_data(2)

    for _ in range(2):
        write(
            ledger,
            events.store_fetched_scan,
            run.run_id,
            run.event_pk,
            data,
            decode_scan(data),
            defaults=DEFAULTS,
            now=NOW + MINUTE,
        )

    fetched = load(ledger, ticket)
    assert (fetched.data, fetched.scan_id, fetched.formats) == (data, scan_id(2), FORMATS)
    assert fetched.inputs.previous_scan_id == before.scan_id
    assert (fetched.subject, fetched.occurred_at) == ("a.example", NOW)
    assert fetched.data_sha256 != run.data_sha256
    found = read(ledger, runs.list_runs, limit=9, domain="a.example")
    assert {row["run_id"] for row in found} == {run.run_id, before.run_id}


def test_fetched_data_of_another_event_takes_the_short_way(ledger: Ledger) -> None:
    item = decoded(type="scan.failed", dataref="https://h.example/s.json", subject="a.example")
    run = load(ledger, record(ledger, item).tickets[0])

    write(
        ledger,
        events.store_fetched_scan,
        run.run_id,
        run.event_pk,
        b'{"error":"DNS"}',
        None,
        defaults=DEFAULTS,
        now=NOW,
    )

    fetched = read(ledger, runs.load_run, run.run_id)
    assert (fetched.data, fetched.formats) == (b'{"error":"DNS"}', ())
    assert (fetched.scan_id, fetched.subject) == (None, "a.example")


def test_the_sweep_fetches_again_only_what_was_not_fetched(ledger: Ledger) -> None:
    (first,) = record(ledger, decoded("1-0", dataref="https://h.example/1")).tickets
    (second,) = record(ledger, decoded("2-0", dataref="https://h.example/2")).tickets
    run = load(ledger, second)
    data = scan_data(2)
    write(
        ledger,
        events.store_fetched_scan,
        run.run_id,
        run.event_pk,
        data,
        decode_scan(data),
        defaults=DEFAULTS,
        now=NOW,
    )

    claimed = claim(ledger, NOW + DAY)

    needs = {ticket.run_id: ticket.needs_data for ticket in claimed.tickets}
    assert needs == {first.run_id: True, second.run_id: False}


# Rendering


def start(ledger: Ledger, run: Run, *formats: Format, max_tries: int = 2) -> runs.RenderStart:
    return write(
        ledger, runs.start_rendering, run, formats or FORMATS, max_tries=max_tries, now=NOW
    )


def rendered(name: Format, sha256: str = "ab") -> RenderedReport:
    key = f"key/{name.value}"
    return RenderedReport(name, key, f"/files/{key}", 1234, sha256, "eu-baseline 1", "c" * 64, 12.5)


def test_starts_are_counted_per_format_and_poison_is_given_up(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    assert start(ledger, run).wanted == FORMATS
    assert start(ledger, run, Format.PDF).wanted == (Format.PDF,)

    third = start(ledger, run)

    assert (third.wanted, third.poisoned) == ((Format.HTML,), (Format.PDF,))
    found = read(ledger, runs.reports_of_run, run)
    assert found[Format.PDF]["status"] == "failed"
    assert "poison: 2 starts" in found[Format.PDF]["error"]
    assert found[Format.HTML]["status"] == "pending"
    assert start(ledger, run, Format.PDF) == runs.RenderStart((), (), {Format.PDF: "failed"})


def test_a_rendered_format_is_not_wanted_again_by_its_run(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    start(ledger, run)

    write(ledger, runs.save_rendered, run, [rendered(Format.PDF)], NOW + MINUTE)

    row = read(ledger, runs.reports_of_run, run)[Format.PDF]
    assert (row["status"], row["sha256"], row["size_bytes"]) == ("ready", "ab", 1234)
    assert (row["artifact_key"], row["uri"]) == ("key/pdf", "/files/key/pdf")
    assert (row["render_ms"], row["ready_at"]) == (12.5, NOW + MINUTE)
    assert start(ledger, run).wanted == (Format.HTML,)


def test_a_new_run_of_a_scan_renders_it_again_with_a_fresh_count(ledger: Ledger) -> None:
    first = recorded_run(ledger, 1, entry_id="1-0", id="one")
    start(ledger, first)
    start(ledger, first)
    write(ledger, runs.save_rendered, first, [rendered(Format.PDF)], NOW)
    second = recorded_run(ledger, 1, entry_id="2-0", id="two")

    assert start(ledger, second).wanted == FORMATS
    write(ledger, runs.save_rendered, first, [rendered(Format.PDF, "late")], NOW)

    row = read(ledger, runs.reports_of_run, second)[Format.PDF]
    assert (row["run_id"], row["tries"], row["status"]) == (second.run_id, 1, "pending")
    assert row["sha256"] == "ab"


def test_an_error_of_a_format_is_kept_until_it_is_rendered(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    start(ledger, run)
    write(ledger, runs.save_render_error, run, Format.PDF, "store away", final=False)
    write(ledger, runs.save_render_error, run, Format.HTML, "bad template", final=True)
    found = read(ledger, runs.reports_of_run, run)
    assert (found[Format.PDF]["status"], found[Format.PDF]["error"]) == ("pending", "store away")
    assert (found[Format.HTML]["status"], found[Format.HTML]["error"]) == ("failed", "bad template")

    write(ledger, runs.save_rendered, run, [rendered(Format.PDF)], NOW)

    assert read(ledger, runs.reports_of_run, run)[Format.PDF]["error"] is None


def test_a_forgiven_start_does_not_count_and_the_others_do(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    start(ledger, run)

    write(ledger, runs.forgive_starts, run, [Format.HTML])
    start(ledger, run)

    tries = {name: row["tries"] for name, row in read(ledger, runs.reports_of_run, run).items()}
    assert tries == {name: 1 if name is Format.HTML else 2 for name in FORMATS}


def test_a_report_made_on_demand_stands_whatever_was_there_before(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    write(ledger, runs.save_on_demand, run, [rendered(Format.PDF)], NOW)
    start(ledger, run, Format.HTML)
    write(ledger, runs.save_render_error, run, Format.HTML, "bad", final=True)
    write(ledger, runs.save_on_demand, run, [rendered(Format.HTML)], NOW)

    made = read(ledger, runs.reports_of_run, run)
    assert {name: row["status"] for name, row in made.items()} == {
        Format.PDF: "ready",
        Format.HTML: "ready",
    }
    assert made[Format.HTML]["error"] is None


# Runs


def test_of_two_workers_that_settle_a_run_one_wins(ledger: Ledger) -> None:
    run = recorded_run(ledger)

    won = at_once(
        lambda: write(ledger, runs.settle_done, run, NOW, score=71, summary="2 artifacts")
    )

    assert sorted(won) == [False, True]
    settled = rows(ledger, tables.runs)[0]
    assert (settled["state"], settled["settled_at"], settled["deadline"]) == ("done", NOW, None)
    event = rows(ledger, tables.events)[0]
    assert (event["outcome"], event["reason"]) == ("done", "2 artifacts")
    assert rows(ledger, tables.scans)[0]["score"] == 71


def test_a_run_s_end_beside_its_scan_sent_again_waits_for_nobody_who_waits_for_it(
    ledger: Ledger,
) -> None:
    """Both take rows in one order: the event, of which the batch has a repeat, then the scan."""
    run = recorded_run(ledger, 1, entry_id="1-0", id="one")
    again = (scan(1, "2-0", id="one"), scan(1, "3-0", id="two"))
    with ThreadPoolExecutor(1) as pool:
        with ledger.write() as connection:
            assert runs.settle_done(connection, run, NOW, score=50, summary="2 artifacts")
            batch = pool.submit(record, ledger, *again)
            time.sleep(0.3)  # it waits for us now, or has not come so far
            runs.note_outcome(connection, run, "2 artifacts, 1 notifications")
        assert (batch.result(30).new, batch.result().repeats) == (1, 1)
    told = {row["event_id"]: row["reason"] for row in rows(ledger, tables.events)}
    assert told["one"] == "2 artifacts, 1 notifications"


def test_a_format_that_is_asked_for_twice_is_started_once(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    begun = start(ledger, run, Format.PDF, Format.PDF)
    assert set(begun.wanted) == {Format.PDF}
    assert read(ledger, runs.reports_of_run, run)[Format.PDF]["tries"] == 1


def test_a_settled_run_stays_as_it_was_settled(ledger: Ledger) -> None:
    done, dead = recorded_run(ledger, 1), recorded_run(ledger, 2)
    assert write(ledger, runs.settle_done, done, NOW, score=None, summary="fine")
    assert write(ledger, runs.settle_dead, dead.run_id, "no such host", NOW)

    assert not write(ledger, runs.settle_dead, done.run_id, "late", NOW + DAY)
    assert not write(ledger, runs.settle_dead, dead.run_id, "late", NOW + DAY)
    assert not write(ledger, runs.settle_done, dead, NOW + DAY, score=9, summary="late")
    write(ledger, runs.postpone, done.run_id, 1, "late", NOW)
    write(ledger, runs.postpone, dead.run_id, 1, "late", NOW)
    write(ledger, runs.mark_dispatched, [RunTicket(done.run_id, 1, (), False)], NOW)

    assert read(ledger, runs.count_runs) == {"done": 1, "dead": 1}
    by_id = {row["run_id"]: row for row in rows(ledger, tables.runs)}
    assert by_id[done.run_id]["last_error"] is None
    assert by_id[dead.run_id]["last_error"] == "no such host"
    assert claim(ledger, NOW + 9 * DAY) == runs.Sweepings((), ())
    assert read(ledger, events.count_outcomes) == {"done": 1, "dead": 1}


def test_an_unknown_run_or_scan_is_not_found(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="no run nothing"):
        read(ledger, runs.load_run, "nothing")
    with pytest.raises(NotFound, match=f"no scan {scan_id(5)}"):
        read(ledger, runs.latest_run_of_scan, scan_id(5))
    assert read(ledger, scan_bytes, scan_id(5)) is None
    assert not write(ledger, runs.settle_dead, "nothing", "why", NOW)


def test_the_latest_run_of_a_scan_is_the_newest(ledger: Ledger) -> None:
    record(ledger, scan(1, "1-0", id="one"))
    (newer,) = record(ledger, scan(1, "2-0", id="two"), now=NOW + MINUTE).tickets
    assert read(ledger, runs.latest_run_of_scan, scan_id(1)) == newer.run_id


def test_only_the_attempt_that_was_published_counts_as_dispatched(ledger: Ledger) -> None:
    (ticket,) = record(ledger, scan(1)).tickets
    overtaken = RunTicket(ticket.run_id, 2, ticket.formats, needs_data=False)

    write(ledger, runs.mark_dispatched, [overtaken], NOW + DAY)
    assert load(ledger, ticket).state is RunState.RECORDED
    write(ledger, runs.mark_dispatched, [ticket], NOW + DAY)
    assert load(ledger, ticket).state is RunState.DISPATCHED


# The sweep of runs


def claim(
    ledger: Ledger, now: datetime, *, max_attempts: int = 3, limit: int = 100
) -> runs.Sweepings:
    return write(
        ledger,
        runs.claim_unfinished,
        now,
        next_deadline=now + MINUTE,
        max_attempts=max_attempts,
        limit=limit,
    )


def test_only_overdue_runs_are_claimed_and_their_attempt_rises(ledger: Ledger) -> None:
    (first,) = record(ledger, scan(1)).tickets
    (second,) = record(ledger, scan(2)).tickets
    write(ledger, runs.mark_dispatched, [second], NOW + DAY)

    assert claim(ledger, NOW + MINUTE - timedelta(seconds=1)).tickets == ()
    assert claim(ledger, NOW + MINUTE).tickets == (
        RunTicket(first.run_id, 2, FORMATS, needs_data=False),
    )
    assert load(ledger, first).state is RunState.DISPATCHED
    assert load(ledger, second).attempt == 1
    assert claim(ledger, NOW + MINUTE).tickets == ()


def test_a_sweep_is_bounded_and_takes_the_longest_overdue_first(ledger: Ledger) -> None:
    late = record(ledger, scan(1), scan(2), now=NOW).tickets
    later = record(ledger, scan(3), now=NOW + MINUTE).tickets

    assert {ticket.run_id for ticket in claim(ledger, NOW + DAY, limit=2).tickets} == {
        ticket.run_id for ticket in late
    }
    assert [ticket.run_id for ticket in claim(ledger, NOW + DAY, limit=2).tickets] == [
        later[0].run_id
    ]


def test_after_its_last_attempt_a_run_is_dead_with_the_last_error(ledger: Ledger) -> None:
    told, silent, unseen = (recorded_run(ledger, number) for number in (1, 2, 3))
    start(ledger, told)
    start(ledger, silent)
    assert len(claim(ledger, NOW + DAY, max_attempts=2).tickets) == 3
    write(ledger, runs.postpone, told.run_id, 2, "the store is away", NOW + DAY)
    start(ledger, silent)

    found = claim(ledger, NOW + 2 * DAY, max_attempts=2)

    assert [ticket.run_id for ticket in found.tickets] == [unseen.run_id], "no worker began it"
    assert set(found.dead) == {told.run_id, silent.run_id}
    reasons = {row["run_id"]: row["last_error"] for row in rows(ledger, tables.runs)}
    assert reasons[told.run_id] == "gave up after 2 attempts: the store is away"
    assert "no attempt reported an error" in reasons[silent.run_id]
    assert read(ledger, events.count_outcomes) == {"dead": 2, "pending": 1}
    assert claim(ledger, NOW + 9 * DAY, max_attempts=2).dead == ()


def give_up(ledger: Ledger, run: Run) -> None:
    assert write(ledger, runs.settle_dead, run.run_id, "its disk was full", NOW)


def revive(ledger: Ledger, *run_ids: str, now: datetime = NOW) -> list[str]:
    return write(ledger, runs.revive, run_ids, now)


def test_a_dead_run_is_given_another_life_with_its_counts_begun_again(ledger: Ledger) -> None:
    dead, other = recorded_run(ledger, 1), recorded_run(ledger, 2)
    for _ in range(3):
        start(ledger, dead)
        write(ledger, runs.begin_work, dead.run_id)
        claim(ledger, NOW + DAY)
    write(ledger, runs.mark_dispatched, claim(ledger, NOW + 2 * DAY).tickets, NOW + 9 * DAY)
    give_up(ledger, dead)
    (row,) = (row for row in rows(ledger, tables.runs) if row["run_id"] == dead.run_id)
    attempt = row["attempt"]

    assert revive(ledger, dead.run_id, other.run_id, "no such run") == [dead.run_id]

    (row,) = (row for row in rows(ledger, tables.runs) if row["run_id"] == dead.run_id)
    assert (row["state"], row["starts"], row["started_attempt"], row["settling"]) == (
        "recorded",
        0,
        0,
        0,
    )
    assert row["settled_at"] is None
    assert read(ledger, events.count_outcomes) == {"pending": 2}
    assert revive(ledger, dead.run_id) == [], "it lives"
    assert claim(ledger, NOW, max_attempts=1).tickets == (
        RunTicket(dead.run_id, attempt + 1, FORMATS, needs_data=False),
    )


def test_a_revived_run_renders_the_formats_that_had_failed_or_never_ended(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    for _ in range(2):
        start(ledger, run)
    with ledger.write() as connection:
        runs.save_rendered(connection, run, [rendered(Format.HTML)], NOW)
    give_up(ledger, run)
    revive(ledger, run.run_id)
    assert start(ledger, run).wanted == (Format.PDF,), "its starts are counted anew"
    with ledger.write() as connection:
        runs.save_render_error(connection, run, Format.PDF, "poison", final=True)
    give_up(ledger, run)
    revive(ledger, run.run_id)
    assert start(ledger, run).wanted == (Format.PDF,)


def test_starts_of_the_body_are_counted_until_one_ends(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    assert [write(ledger, runs.begin_work, run.run_id) for _ in range(3)] == [1, 2, 3]
    write(ledger, runs.forgive_work, run.run_id)
    assert write(ledger, runs.begin_work, run.run_id) == 1
    write(ledger, runs.postpone, run.run_id, 1, "not yet", NOW)
    assert write(ledger, runs.begin_work, run.run_id) == 1
    give_up(ledger, run)
    assert write(ledger, runs.begin_work, run.run_id) == 0, "it is settled"


def test_an_attempt_whose_body_began_counts_towards_the_cap(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    write(ledger, runs.begin_work, run.run_id)
    assert claim(ledger, NOW + MINUTE, max_attempts=1).dead == (run.run_id,)


def test_the_dead_of_an_hour_are_counted(ledger: Ledger) -> None:
    found = [recorded_run(ledger, number) for number in (1, 2, 3)]
    for hour, run in enumerate(found):
        write(ledger, runs.settle_dead, run.run_id, "over", NOW + timedelta(hours=hour))
    assert read(ledger, runs.count_dead_since, NOW + timedelta(hours=1)) == 2
    letter = DeadEntry(Entry(STREAM, "9-0", {b"a": b"b"}), "no")
    record(ledger, dead=[letter], now=NOW)
    assert read(ledger, events.count_dead_letters_since, NOW) == 1
    assert read(ledger, events.count_dead_letters_since, NOW + MINUTE) == 0


def test_dead_runs_are_listed_by_when_they_died_and_bounded(ledger: Ledger) -> None:
    found = [recorded_run(ledger, number) for number in (1, 2, 3)]
    for hour, run in enumerate(found):
        write(ledger, runs.settle_dead, run.run_id, "over", NOW + timedelta(hours=hour))
    assert read(ledger, runs.dead_runs, NOW + timedelta(hours=1), 9) == [
        run.run_id for run in found[:2]
    ]
    assert read(ledger, runs.dead_runs, NOW + DAY, 1) == [found[0].run_id]


def test_a_postponed_run_waits_until_its_time(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    write(ledger, runs.postpone, run.run_id, 1, "not yet", NOW + DAY)
    assert claim(ledger, NOW + DAY - MINUTE).tickets == ()
    assert [ticket.attempt for ticket in claim(ledger, NOW + DAY).tickets] == [2]


def test_an_overtaken_attempt_cannot_postpone_the_next(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    claim(ledger, NOW + MINUTE)
    write(ledger, runs.postpone, run.run_id, 1, "the first attempt, late", NOW + DAY)
    assert [ticket.attempt for ticket in claim(ledger, NOW + 2 * MINUTE).tickets] == [3]


def test_of_two_sweeps_each_run_is_claimed_by_one(ledger: Ledger) -> None:
    record(ledger, *(scan(number) for number in range(1, 61)))
    for attempt_number in (2, 3):
        moment = NOW + attempt_number * DAY

        found = at_once(lambda moment=moment: claim(ledger, moment))  # type: ignore[misc]

        claimed = [ticket.run_id for sweepings in found for ticket in sweepings.tickets]
        assert len(claimed) == len(set(claimed)) == 60
        assert {row["attempt"] for row in rows(ledger, tables.runs)} == {attempt_number}
    with ledger.write() as connection:
        connection.execute(update(tables.runs).values(starts=3))
    found = at_once(lambda: claim(ledger, NOW + 9 * DAY))
    dead = [run_id for sweepings in found for run_id in sweepings.dead]
    assert len(dead) == len(set(dead)) == 60


def test_a_sweep_leaves_a_run_that_is_postponed_under_its_hands(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    with ThreadPoolExecutor(1) as pool:
        with ledger.write() as connection:
            runs.postpone(connection, run.run_id, 1, "not yet", NOW + 2 * DAY)
            sweep = pool.submit(claim, ledger, NOW + DAY)
            wait_for_a_sweep_that_waits_for_nobody(ledger, sweep)
        assert sweep.result() == runs.Sweepings((), ())


# Notifications and deliveries


def notification(key: str = "scan.completed:1", **changes: Any) -> Notification:
    values: dict[str, Any] = {
        "event_key": key,
        "type": EventType.SCAN_COMPLETED,
        "occurred_at": NOW,
        "domain": "a.example",
        "scan_id": scan_id(1),
        "severity": Severity.MEDIUM,
        "title": HOSTILE,
        "summary": "\x00",
    }
    return Notification(**{**values, **changes})


def webhook(subscriber_id: str = "one", **options: Any) -> Recipient:
    address = ChannelAddress(
        kind=ChannelKind.WEBHOOK, target="https://h.example/hook", secret="whsec_c2VjcmV0"
    )
    return Recipient(subscriber_id, address, keep_address=True, **options)


def tell(
    ledger: Ledger, key: str = "scan.completed:1", *recipients: Recipient, now: datetime = NOW
) -> list[DeliveryTicket]:
    with ledger.write() as connection:
        deliveries.save_notification(connection, notification(key), None, now)
        return deliveries.plan_deliveries(
            connection,
            key,
            recipients or [webhook()],
            now=now,
            started_by=now + MINUTE,
            new_id=new_id,
            box=BOX,
        )


def maybe_lease(ledger: Ledger, ticket: DeliveryTicket) -> DueDelivery | None:
    with ledger.write() as connection:
        found = tries.find_due(connection, ticket, BOX)
        taken = tries.lease(connection, ticket, lease_until=NOW + 5 * MINUTE)
    return found if taken else None


def lease(ledger: Ledger, ticket: DeliveryTicket) -> DueDelivery:
    leased = maybe_lease(ledger, ticket)
    assert leased is not None
    return leased


def attempt(leased: DueDelivery | DeliveryTicket, **values: Any) -> Attempt:
    return Attempt(number=leased.number, started_at=NOW, duration_ms=10.0, **values)


def due(ledger: Ledger, now: datetime, limit: int = 100) -> list[DeliveryTicket]:
    return write(ledger, deliveries.claim_due, now, started_by=now + MINUTE, limit=limit)


def delivery_row(ledger: Ledger, ticket: DeliveryTicket) -> Any:
    return next(
        row for row in rows(ledger, tables.deliveries) if row["delivery_id"] == ticket.delivery_id
    )


def delivery_state(ledger: Ledger, ticket: DeliveryTicket) -> str:
    state: str = delivery_row(ledger, ticket)["state"]
    return state


def test_an_event_key_is_told_once(ledger: Ledger) -> None:
    told = [
        write(ledger, deliveries.save_notification, notification(key), None, NOW)
        for key in ("k:1", "k:1", HOSTILE)
    ]
    assert told == [True, False, True]


def test_of_two_bodies_one_tells(ledger: Ledger) -> None:
    told = at_once(lambda: write(ledger, deliveries.save_notification, notification(), None, NOW))
    assert sorted(told) == [False, True]


def test_one_delivery_is_planned_per_subscriber_channel_and_event_key(ledger: Ledger) -> None:
    mail = Recipient("one", ChannelAddress(kind=ChannelKind.EMAIL, target="a@a.example"))

    assert len(tell(ledger, "k:1", webhook("one"), webhook("two"), mail)) == 3
    assert tell(ledger, "k:1", webhook("one"), webhook("two"), mail) == []
    assert len(tell(ledger, "k:2", webhook("one"))) == 1

    planned = {
        (row["subscriber_id"], row["channel"], row["event_key"])
        for row in rows(ledger, tables.deliveries)
    }
    assert len(planned) == len(rows(ledger, tables.deliveries)) == 4
    found = read(ledger, deliveries.planned_deliveries, "k:1", ["two", "one", "nobody"])
    assert [(row["subscriber_id"], row["channel"]) for row in found] == [
        ("one", "email"),
        ("one", "webhook"),
        ("two", "webhook"),
    ]


def test_two_bodies_that_plan_the_same_deliveries_make_each_once(ledger: Ledger) -> None:
    tell(ledger, "k:1", webhook("nobody"))
    recipients = [webhook(f"s-{number}") for number in range(20)]
    planned = at_once(lambda: tell(ledger, "k:1", *recipients))
    assert sum(map(len, planned)) == 20
    assert len(rows(ledger, tables.deliveries)) == 21


def test_a_suppressed_delivery_is_on_record_and_never_starts(ledger: Ledger) -> None:
    assert tell(ledger, "k:1", webhook(suppressed="the subscriber is paused")) == []
    (row,) = rows(ledger, tables.deliveries)
    assert (row["state"], row["reason"]) == ("suppressed", "the subscriber is paused")
    assert row["settled_at"] == NOW
    assert due(ledger, NOW + DAY) == []
    assert maybe_lease(ledger, DeliveryTicket(row["delivery_id"], 1)) is None


def test_a_lease_hands_over_the_notification_and_the_address(ledger: Ledger) -> None:
    (ticket,) = tell(ledger)

    leased = lease(ledger, ticket)

    assert leased.notification == notification()
    assert leased.address == webhook().address
    assert (leased.channel, leased.number) == (ChannelKind.WEBHOOK, 1)
    assert delivery_state(ledger, ticket) == "sending"


def test_the_address_is_the_subscriber_s_of_today(ledger: Ledger) -> None:
    moved = ChannelAddress(kind=ChannelKind.WEBHOOK, target="https://new.example/")
    mail = ChannelAddress(kind=ChannelKind.EMAIL, target="a@a.example")
    both = [
        Recipient("one", ChannelAddress(kind=ChannelKind.WEBHOOK, target="https://old.example/")),
        Recipient("gone", mail),
    ]
    subscriber = Subscriber(subscriber_id="one", channels=(mail, moved))
    write(ledger, subscribers.save_subscriber, subscriber, BOX, NOW)

    first, second = tell(ledger, "k:1", *both)

    assert lease(ledger, first).address == moved
    assert lease(ledger, second).address is None
    no_hook = Subscriber(subscriber_id="one", channels=(mail,))
    write(ledger, subscribers.save_subscriber, no_hook, BOX, NOW)
    (third,) = tell(ledger, "k:2", both[0])
    assert lease(ledger, third).address is None


def test_a_try_is_leased_once(ledger: Ledger) -> None:
    (ticket,) = tell(ledger)
    leased = at_once(lambda: maybe_lease(ledger, ticket), times=4)
    assert sum(item is not None for item in leased) == 1
    assert maybe_lease(ledger, DeliveryTicket(ticket.delivery_id, 3)) is None
    assert maybe_lease(ledger, DeliveryTicket("unknown", 1)) is None


def test_a_sent_delivery_is_settled_and_its_try_logged(ledger: Ledger) -> None:
    (ticket,) = tell(ledger)
    leased = lease(ledger, ticket)

    said = attempt(leased, status_code=200, receipt="ok" * 900)
    write(ledger, tries.settle_sent, leased.delivery_id, said, NOW + MINUTE)

    row = delivery_row(ledger, ticket)
    assert (row["state"], row["settled_at"], row["lease_until"]) == ("sent", NOW + MINUTE, None)
    (tried,) = rows(ledger, tables.attempts)
    assert (tried["outcome"], tried["status_code"], tried["number"]) == ("sent", 200, 1)
    assert tried["receipt"] == ("ok" * 900)[:500]
    assert maybe_lease(ledger, DeliveryTicket(ticket.delivery_id, 2)) is None
    assert due(ledger, NOW + DAY) == []


def test_a_failed_delivery_keeps_the_error_as_its_reason(ledger: Ledger) -> None:
    (ticket,) = tell(ledger)
    leased = lease(ledger, ticket)
    refused = attempt(leased, status_code=410, error="the hook is gone")
    write(ledger, tries.settle_failed, leased.delivery_id, refused, NOW)
    row = delivery_row(ledger, ticket)
    assert (row["state"], row["reason"], row["settled_at"]) == ("failed", "the hook is gone", NOW)
    assert [item["outcome"] for item in rows(ledger, tables.attempts)] == ["failed"]
    assert due(ledger, NOW + DAY) == []


def test_a_delivery_put_back_for_later_is_the_sweep_s_when_its_time_comes(ledger: Ledger) -> None:
    (ticket,) = tell(ledger)
    leased = lease(ledger, ticket)

    write(
        ledger,
        tries.put_back,
        leased.delivery_id,
        attempt(leased, status_code=503, error="busy"),
        due_at=NOW + DAY,
        lease_until=None,
    )

    assert delivery_state(ledger, ticket) == "pending"
    assert [item["outcome"] for item in rows(ledger, tables.attempts)] == ["retry"]
    assert due(ledger, NOW + DAY - MINUTE) == []
    assert due(ledger, NOW + DAY) == [DeliveryTicket(ticket.delivery_id, 2)]
    assert lease(ledger, DeliveryTicket(ticket.delivery_id, 2)).number == 2


def test_a_delivery_put_back_for_a_message_is_the_sweep_s_only_if_the_message_is_lost(
    ledger: Ledger,
) -> None:
    (ticket,) = tell(ledger)
    leased = lease(ledger, ticket)
    write(
        ledger,
        tries.put_back,
        leased.delivery_id,
        attempt(leased, error="busy"),
        due_at=NOW + MINUTE,
        lease_until=NOW + 3 * MINUTE,
    )
    assert due(ledger, NOW + 2 * MINUTE) == []
    assert due(ledger, NOW + 3 * MINUTE) == [DeliveryTicket(ticket.delivery_id, 2)]


def test_a_delivery_that_nobody_started_is_claimed_under_its_first_number(ledger: Ledger) -> None:
    (ticket,) = tell(ledger)
    assert due(ledger, NOW) == []
    assert due(ledger, NOW + MINUTE) == [ticket]
    assert due(ledger, NOW + MINUTE) == []
    assert due(ledger, NOW + 2 * MINUTE) == [ticket]


def test_a_delivery_whose_worker_died_is_claimed_under_its_next_number(ledger: Ledger) -> None:
    (ticket,) = tell(ledger)
    dead = lease(ledger, ticket)
    assert due(ledger, NOW + 4 * MINUTE) == []

    (following,) = due(ledger, NOW + 5 * MINUTE)

    assert following == DeliveryTicket(ticket.delivery_id, 2)
    lease(ledger, following)
    write(ledger, tries.settle_failed, dead.delivery_id, attempt(dead, error="late"), NOW)
    assert delivery_state(ledger, ticket) == "sending"
    write(ledger, tries.settle_sent, ticket.delivery_id, attempt(following), NOW)
    assert delivery_state(ledger, ticket) == "sent"
    assert len(rows(ledger, tables.attempts)) == 2


def test_a_claim_of_due_deliveries_is_bounded_and_takes_the_oldest_first(ledger: Ledger) -> None:
    old = tell(ledger, "k:1", webhook("a"), webhook("b"))
    new = tell(ledger, "k:2", now=NOW + MINUTE)
    assert {item.delivery_id for item in due(ledger, NOW + DAY, limit=2)} == {
        item.delivery_id for item in old
    }
    assert due(ledger, NOW + DAY, limit=2) == new


def test_of_two_sweeps_each_delivery_is_claimed_by_one(ledger: Ledger) -> None:
    tell(ledger, "k:1", *(webhook(f"s-{number}") for number in range(60)))
    for days in (1, 2):
        moment = NOW + days * DAY

        found = at_once(lambda moment=moment: due(ledger, moment))  # type: ignore[misc]

        claimed = [ticket.delivery_id for tickets in found for ticket in tickets]
        assert len(claimed) == len(set(claimed)) == 60


def test_a_sweep_leaves_a_delivery_that_is_put_back_under_its_hands(ledger: Ledger) -> None:
    (ticket,) = tell(ledger)
    leased = lease(ledger, ticket)
    with ThreadPoolExecutor(1) as pool:
        with ledger.write() as connection:
            tries.put_back(
                connection,
                leased.delivery_id,
                attempt(leased, error="come back tomorrow"),
                due_at=NOW + 2 * DAY,
                lease_until=None,
            )
            sweep = pool.submit(due, ledger, NOW + DAY)
            wait_for_a_sweep_that_waits_for_nobody(ledger, sweep)
        assert sweep.result() == []


def test_deliveries_are_listed_newest_first_and_never_with_an_address(ledger: Ledger) -> None:
    tell(ledger, "k:1", webhook("a"))
    tell(ledger, "k:2", webhook("b", suppressed="paused"), now=NOW + MINUTE)

    listed = read(ledger, deliveries.list_deliveries, limit=9)

    assert [row["subscriber_id"] for row in listed] == ["b", "a"]
    assert (listed[0]["type"], listed[0]["severity"]) == ("scan.completed", "medium")
    assert "address" not in listed[0]
    (pending,) = read(ledger, deliveries.list_deliveries, limit=9, state="pending")
    assert pending["subscriber_id"] == "a"
    assert len(read(ledger, deliveries.list_deliveries, limit=1)) == 1
    assert read(ledger, deliveries.count_deliveries) == {
        ("webhook", "pending"): 1,
        ("webhook", "suppressed"): 1,
    }


# Subscribers

HOOK = ChannelAddress(
    kind=ChannelKind.WEBHOOK, target="https://h.example/tokenish", secret="whsec_tokenish"
)
OFFICER = Subscriber(
    subscriber_id="officer",
    user_id="u-1",
    channels=(HOOK, ChannelAddress(kind=ChannelKind.EMAIL, target="tokenish@a.example")),
    events=("scan.completed",),
    domains=("*.example",),
    min_severity=Severity.MEDIUM,
)


def test_a_subscriber_is_saved_replaced_found_and_removed(ledger: Ledger) -> None:
    paused = Subscriber(subscriber_id="officer", user_id="u-2", paused=True)
    hostile = Subscriber(
        subscriber_id=HOSTILE, user_id="u-2", events=(HOSTILE,), domains=(HOSTILE,)
    )

    assert write(ledger, subscribers.save_subscriber, OFFICER, BOX, NOW)
    assert read(ledger, subscribers.find_subscriber, "officer", BOX) == OFFICER
    assert not write(ledger, subscribers.save_subscriber, paused, BOX, NOW)
    assert write(ledger, subscribers.save_subscriber, hostile, BOX, NOW)

    assert read(ledger, subscribers.list_subscribers, BOX) == sorted(
        [paused, hostile], key=lambda item: item.subscriber_id
    )
    assert read(ledger, figures.count_subscribers) == 1
    assert write(ledger, subscribers.remove_subscriber, "officer", NOW)
    assert not write(ledger, subscribers.remove_subscriber, "officer", NOW)
    assert read(ledger, subscribers.find_subscriber, "officer", BOX) is None


def test_users_subscribers_are_found_together_where_they_want_the_news(ledger: Ledger) -> None:
    def ask(*user_ids: str, event: str = "scan.completed") -> list[str]:
        news = msgspec.structs.replace(notification(), type=EventType(event))
        found = read(ledger, subscribers.subscribers_of_users, user_ids, news, BOX)
        assert all(item.channels == OFFICER.channels for item in found)
        return [item.subscriber_id for item in found]

    for name, user in (("b", "u-1"), ("a", "u-2"), ("c", "u-2"), ("other", "u-3")):
        saved = msgspec.structs.replace(OFFICER, subscriber_id=name, user_id=user)
        write(ledger, subscribers.save_subscriber, saved, BOX, NOW)
    assert ask("u-1", "u-2", "nobody") == ["a", "b", "c"]
    assert ask("u-2", event="scan.failed") == []
    assert ask() == []
    assert ask("nul \x00", "half a pair \ud800", "u" * 300, "u-1") == ["b"]


def test_the_preferences_of_an_address_without_a_row_stay_with_its_delivery(
    ledger: Ledger,
) -> None:
    wishes = Subscriber(
        subscriber_id="direct",
        locale="de-AT",
        quiet_hours=QuietHours(start="22:00", end="06:00", time_zone="Europe/Vienna"),
    )
    kept = subscribers.kept_preferences(wishes, NOW)
    told = Recipient("direct", HOOK, keep_address=True, preferences=kept)
    (ticket,) = tell(ledger, "k:1", told)
    (plain_one,) = tell(ledger, "k:2", Recipient("direct", HOOK, keep_address=True))
    found = read(ledger, tries.find_due, ticket, BOX)
    assert (found.address, found.locale) == (HOOK, "de-AT")
    assert found.quiet_hours == wishes.quiet_hours
    assert read(ledger, tries.find_due, plain_one, BOX).locale is None


def test_addresses_and_secrets_are_nowhere_in_plain_text(ledger: Ledger) -> None:
    write(ledger, subscribers.save_subscriber, OFFICER, BOX, NOW)
    tell(ledger, "k:1", Recipient("direct", HOOK, keep_address=True))

    kept = b"".join(
        value if isinstance(value, bytes) else repr(value).encode()
        for table in (tables.subscribers, tables.deliveries)
        for row in rows(ledger, table)
        for value in row.values()
    )
    if ledger.url.startswith("sqlite"):
        path = Path(str(make_url(ledger.url).database))
        kept += b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))

    assert b"officer" in kept
    assert b"tokenish" not in kept


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"type": EventType.SCAN_FAILED}, False),
        ({"severity": Severity.LOW}, False),
        ({"severity": Severity.HIGH}, True),
        ({"domain": "b.c.EXAMPLE"}, True),
        ({"domain": "example"}, False),
        ({"domain": "a.example.org"}, False),
        ({"domain": None}, False),
    ],
)
def test_a_subscriber_wants_what_all_its_filters_let_through(
    changes: dict[str, Any], expected: bool
) -> None:
    assert subscribers.wants(OFFICER, notification(**changes), None) is expected


def test_a_subscriber_without_filters_wants_everything() -> None:
    everything = Subscriber(subscriber_id="all")
    for changes in (
        {"domain": None},
        {"severity": Severity.INFO},
        {"type": EventType.SCAN_STARTED},
    ):
        assert subscribers.wants(everything, notification(**changes), None)


def test_the_owner_is_told_even_where_nothing_matches() -> None:
    unwanted = notification(type=EventType.SCAN_FAILED, severity=Severity.INFO, domain="x.org")
    assert subscribers.wants(OFFICER, unwanted, "u-1")
    assert not subscribers.wants(OFFICER, unwanted, "u-2")
    assert not subscribers.wants(Subscriber(subscriber_id="x", domains=("y",)), unwanted, None)


# Lists and figures


def test_runs_are_listed_newest_first_by_state_and_domain(ledger: Ledger) -> None:
    first = recorded_run(ledger, 1)
    record(ledger, scan(2), scan(3, domain="b.example"), now=NOW + MINUTE)
    write(ledger, runs.settle_done, first, NOW, score=88, summary="")

    listed = read(ledger, runs.list_runs, limit=9)
    assert [row["scan_id"] for row in listed] == [scan_id(3), scan_id(2), scan_id(1)]
    assert (listed[2]["score"], listed[2]["cookie_count"], listed[2]["state"]) == (88, 1, "done")
    assert (listed[2]["type"], listed[2]["subject"]) == ("scan.completed", "a.example")
    assert len(read(ledger, runs.list_runs, limit=1)) == 1
    assert len(read(ledger, runs.list_runs, limit=9, state="recorded")) == 2
    assert len(read(ledger, runs.list_runs, limit=9, domain="b.example")) == 1
    assert read(ledger, runs.list_runs, limit=9, state="done", domain="b.example") == []
    assert read(ledger, runs.count_runs) == {"recorded": 2, "done": 1}
    assert read(ledger, runs.oldest_unsettled) == NOW + MINUTE


def test_reports_are_listed_by_scan_and_domain(ledger: Ledger) -> None:
    for number, domain in ((1, "a.example"), (2, "b.example")):
        start(ledger, recorded_run(ledger, number, domain=domain))

    assert len(read(ledger, runs.list_reports, limit=9)) == 4
    assert len(read(ledger, runs.list_reports, limit=3)) == 3
    of_scan = read(ledger, runs.list_reports, limit=9, scan_id=scan_id(1))
    assert [(row["format"], row["domain"]) for row in of_scan] == [
        ("html", "a.example"),
        ("pdf", "a.example"),
    ]
    assert len(read(ledger, runs.list_reports, limit=9, domain="b.example")) == 2
    assert read(ledger, runs.list_reports, limit=9, domain="c.example") == []


def test_an_empty_ledger_has_empty_figures(ledger: Ledger) -> None:
    assert read(ledger, runs.oldest_unsettled) is None
    assert read(ledger, figures.activity_since, NOW) == {
        "runs": {},
        "events": {},
        "dead_events": 0,
        "scans_judged": 0,
        "mean_score": None,
        "reports": {},
    }
    assert read(ledger, figures.delivery_figures, NOW) == {
        "deliveries": {},
        "attempts": {},
        "send_ms": {},
    }
    assert read(ledger, figures.status_of, "nothing") is None
    assert read(ledger, figures.count_subscribers) == 0


def test_activity_counts_what_happened_since(ledger: Ledger) -> None:
    record(ledger, scan(9), now=NOW - DAY)
    first, second = recorded_run(ledger, 1), recorded_run(ledger, 2)
    record(ledger, dead=[DeadEntry(Entry(STREAM, "9-9", {}), "why")])
    start(ledger, first)
    write(ledger, runs.save_rendered, first, [rendered(Format.PDF)], NOW)
    write(ledger, runs.settle_done, first, NOW, score=70, summary="")
    write(ledger, runs.settle_done, second, NOW, score=81, summary="")

    assert read(ledger, figures.activity_since, NOW) == {
        "runs": {"done": 2},
        "events": {"scan.completed": 2},
        "dead_events": 1,
        "scans_judged": 2,
        "mean_score": 75.5,
        "reports": {
            "pdf": {
                "by_status": {"ready": 1},
                "render_ms": {"p50": 12.5, "p95": 12.5, "p99": 12.5},
            },
            "html": {"by_status": {"pending": 1}},
        },
    }


def test_delivery_figures_count_states_outcomes_and_times(ledger: Ledger) -> None:
    first, second = tell(ledger, "k:1", webhook("a"), webhook("b"))
    tell(ledger, "k:0", now=NOW - DAY)
    write(
        ledger,
        tries.put_back,
        first.delivery_id,
        attempt(lease(ledger, first), error="busy"),
        due_at=NOW + DAY,
        lease_until=None,
    )
    sent = attempt(lease(ledger, second))
    write(ledger, tries.settle_sent, second.delivery_id, sent, NOW)

    assert read(ledger, figures.delivery_figures, NOW) == {
        "deliveries": {"webhook": {"pending": 1, "sent": 1}},
        "attempts": {"retry": 1, "sent": 1},
        "send_ms": {"webhook": {"p50": 10.0, "p95": 10.0, "p99": 10.0}},
    }
    assert read(ledger, figures.overdue_deliveries, NOW) == 1
    assert read(ledger, figures.overdue_deliveries, NOW + 2 * DAY) == 2


def test_the_status_of_runs_and_deliveries_is_found_by_their_ids(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    write(ledger, runs.postpone, run.run_id, 1, "not yet", NOW)
    (ticket,) = tell(ledger)
    assert read(ledger, figures.status_of, run.run_id) == {
        "kind": "run",
        "state": "recorded",
        "attempt": 1,
        "error": "not yet",
    }
    assert read(ledger, figures.status_of, ticket.delivery_id) == {
        "kind": "delivery",
        "state": "pending",
        "attempt": 0,
        "error": None,
    }


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.14159], {"p50": 3.1, "p95": 3.1, "p99": 3.1}),
        ([2.0, 1.0], {"p50": 1.0, "p95": 2.0, "p99": 2.0}),
        (range(100, 0, -1), {"p50": 50, "p95": 95, "p99": 99}),
        (range(1, 21), {"p50": 10, "p95": 19, "p99": 20}),
        ([], {}),
    ],
)
def test_percentiles_are_by_nearest_rank(
    ledger: Ledger, values: list[float], expected: dict[str, float]
) -> None:
    for number, value in enumerate(values):
        write(ledger, save_report, f"r{number}", "pdf", value)
    write(ledger, save_report, "other", "csv", 7.0)
    write(ledger, save_report, "unmade", "pdf", None)
    table = tables.reports
    spent = select(table.c.format.label("kind"), table.c.render_ms.label("spent"))
    found = read(ledger, figures.percentiles, spent)
    assert found.pop("csv") == {"p50": 7.0, "p95": 7.0, "p99": 7.0}
    assert found.pop("pdf", {}) == expected
    assert found == {}


def save_report(connection: Connection, name: str, kind: str, render_ms: float | None) -> None:
    connection.execute(
        tables.reports.insert().values(
            report_id=name,
            scan_id=name,
            format=kind,
            language="en",
            run_id="run",
            tries=1,
            status="ready",
            render_ms=render_ms,
            created_at=NOW,
        )
    )


# Retention


def report_row(ledger: Ledger, report_id: str) -> Any:
    (row,) = [row for row in rows(ledger, tables.reports) if row["report_id"] == report_id]
    return row


def expire(ledger: Ledger, before: datetime, limit: int) -> list[tuple[str, str]]:
    """What a batch of the cleanup retires once all runs are over: (report id, artifact key)."""
    with ledger.write() as connection:
        connection.execute(update(tables.runs).values(state="done"))
        old = retention.find_old_reports(connection, before, keep_newest=0, after=None, limit=limit)
        retention.expire_reports(connection, [report.key for report in old])
    return [(report.key, report.place) for report in old]


def forget(ledger: Ledger, before: datetime, limit: int) -> int:
    """How many deliveries a batch of the cleanup deletes."""
    with ledger.write() as connection:
        old = retention.find_old_deliveries(connection, before, after=None, limit=limit)
        return retention.delete_deliveries(connection, [delivery.key for delivery in old])


def test_only_settled_reports_from_before_expire_and_keep_their_key_until_it_is_forgotten(
    ledger: Ledger,
) -> None:
    old, fresh = recorded_run(ledger, 1), recorded_run(ledger, 2)
    start(ledger, old)
    write(ledger, runs.save_rendered, old, [rendered(Format.PDF)], NOW)
    write(ledger, runs.start_rendering, fresh, FORMATS, max_tries=2, now=NOW + DAY)
    write(ledger, runs.save_rendered, fresh, map(rendered, FORMATS), NOW + DAY)
    pdf = f"{scan_id(1)}.en.pdf"

    assert expire(ledger, NOW, 9) == []
    assert read(ledger, retention.still_expired, [pdf]) == set()
    for _ in range(2):  # a cleanup that was killed finds it again
        assert expire(ledger, NOW + MINUTE, 9) == [(pdf, "key/pdf")]
        assert read(ledger, retention.still_expired, [pdf]) == {pdf}
    assert write(ledger, retention.forget_artifacts, [pdf, "unknown"]) == 1
    assert expire(ledger, NOW + MINUTE, 9) == []
    row = report_row(ledger, pdf)
    assert (row["status"], row["artifact_key"], row["uri"]) == ("expired", None, None)
    assert (row["sha256"], row["size_bytes"]) == ("ab", 1234)
    assert len(expire(ledger, NOW + 2 * DAY, 1)) == 1
    assert write(ledger, retention.forget_artifacts, []) == 0


def test_a_report_that_failed_for_good_has_nothing_to_expire(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    start(ledger, run, Format.PDF)
    write(ledger, runs.save_render_error, run, Format.PDF, "bad", final=True)
    assert expire(ledger, NOW + DAY, 9) == []
    assert report_row(ledger, f"{scan_id(1)}.en.pdf")["status"] == "failed"


def test_an_old_report_that_was_made_again_is_young(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    start(ledger, run, Format.PDF)
    write(ledger, runs.save_rendered, run, [rendered(Format.PDF)], NOW)
    write(ledger, runs.save_on_demand, run, [rendered(Format.PDF)], NOW + 30 * DAY)
    assert expire(ledger, NOW + DAY, 9) == []
    assert len(expire(ledger, NOW + 31 * DAY, 9)) == 1


def test_an_expired_report_asked_for_again_keeps_what_was_made(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    start(ledger, run, Format.PDF)
    write(ledger, runs.save_rendered, run, [rendered(Format.PDF)], NOW)
    ((report_id, _),) = expire(ledger, NOW + DAY, 9)
    write(ledger, runs.save_on_demand, run, [rendered(Format.PDF)], NOW + 30 * DAY)
    assert read(ledger, retention.still_expired, [report_id]) == set()
    assert write(ledger, retention.forget_artifacts, [report_id]) == 0
    row = report_row(ledger, report_id)
    assert (row["status"], row["artifact_key"]) == ("ready", "key/pdf")


def test_a_run_taken_up_again_makes_its_own_expired_report_again(ledger: Ledger) -> None:
    run = recorded_run(ledger)
    start(ledger, run, Format.PDF)
    write(ledger, runs.save_rendered, run, [rendered(Format.PDF)], NOW)
    assert start(ledger, run, Format.PDF).wanted == ()
    expire(ledger, NOW + DAY, 9)
    assert start(ledger, run, Format.PDF).wanted == (Format.PDF,)
    row = report_row(ledger, f"{scan_id(1)}.en.pdf")
    assert (row["status"], row["tries"]) == ("pending", 1)


def test_old_settled_deliveries_go_with_their_attempts_and_their_event_keys_stay(
    ledger: Ledger,
) -> None:
    sent, waiting = tell(ledger, "k:1", webhook("a"), webhook("b"))
    tell(ledger, "k:1", webhook("c", suppressed="paused"), now=NOW + DAY)
    for ticket in (sent, waiting):
        leased = lease(ledger, ticket)
        if ticket is sent:
            write(ledger, tries.settle_sent, leased.delivery_id, attempt(leased), NOW)
        else:
            write(
                ledger,
                tries.put_back,
                leased.delivery_id,
                attempt(leased, error="busy"),
                due_at=NOW + 9 * DAY,
                lease_until=None,
            )

    assert forget(ledger, NOW, 9) == 0
    assert forget(ledger, NOW + MINUTE, 9) == 1

    assert {row["subscriber_id"] for row in rows(ledger, tables.deliveries)} == {"b", "c"}
    assert [row["outcome"] for row in rows(ledger, tables.attempts)] == ["retry"]
    assert forget(ledger, NOW + 9 * DAY, 9) == 1
    assert not write(ledger, deliveries.save_notification, notification("k:1"), None, NOW)


def test_forgetting_deliveries_is_bounded(ledger: Ledger) -> None:
    tell(ledger, "k:1", *(webhook(f"s-{number}", suppressed="paused") for number in range(5)))
    counts = [forget(ledger, NOW + DAY, 2) for _ in range(4)]
    assert counts == [2, 2, 1, 0]


def test_statistics_are_kept_and_forgotten_by_their_age(ledger: Ledger) -> None:
    kept = {"runs": {"done": 1}, "note": HOSTILE, "mean": 1.5, "none": None}
    write(ledger, figures.save_statistics, "hourly", kept, NOW)
    write(ledger, figures.save_statistics, "hourly", {}, NOW + DAY)

    assert rows(ledger, tables.statistics)[0]["figures"] == kept
    assert write(ledger, retention.forget_statistics, NOW) == 0
    assert write(ledger, retention.forget_statistics, NOW + MINUTE) == 1
    assert [row["taken_at"] for row in rows(ledger, tables.statistics)] == [NOW + DAY]


def test_a_naive_time_is_refused(ledger: Ledger) -> None:
    with pytest.raises(Exception, match="naive datetime"), ledger.write() as connection:
        connection.execute(update(tables.runs).values(created_at=NOW.replace(tzinfo=None)))


def test_every_state_of_a_delivery_has_its_word_in_the_ledger(ledger: Ledger) -> None:
    """A delivery that is held keeps out of the sweep and of the nightly cleanup."""
    (ticket,) = tell(ledger)
    with ledger.write() as connection:
        connection.execute(
            update(tables.deliveries).values(state=DeliveryState.HELD.value, settled_at=None)
        )
    assert due(ledger, NOW + DAY) == []
    assert forget(ledger, NOW + DAY, 9) == 0
    assert maybe_lease(ledger, ticket) is None


def test_a_database_that_may_only_be_read_is_away(ledger: Ledger) -> None:
    with ledger.read() as connection:
        is_sqlite = connection.dialect.name == "sqlite"
    only_read = "PRAGMA query_only=ON" if is_sqlite else "SET TRANSACTION READ ONLY"

    def refuse() -> None:
        with ledger.write() as connection:
            connection.exec_driver_sql(only_read)  # as a demoted primary, or a full disk
            connection.execute(tables.runs.delete())

    with pytest.raises(LedgerUnavailable):
        refuse()
    ledger.close()
    with ledger.write() as connection:
        connection.execute(tables.runs.delete())

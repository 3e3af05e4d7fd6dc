"""What cleanup and erasing ask of the ledger, of SQLite and of PostgreSQL alike."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import func, select, update

from schemas.events import EventType, decode_entry
from schemas.notifications import ChannelAddress, ChannelKind, Notification, Subscriber
from schemas.reports import Format, Severity
from schemas.runs import DeadEntry, DecodedEntry, Entry, Run
from store import chores, deliveries, erasing, events, retention, runs, tables, tries
from store.deliveries import DeliveryTicket, Recipient
from store.earlier_scans import SCANS_SINCE
from store.figures import save_statistics
from store.ledger import Ledger
from store.named_scans import NamedScans
from store.orphans import mark_lost, ready_reports, reports_of_scans, restore_found
from store.runs import RenderedReport
from store.secrets import SecretBox
from store.subscribers import save_subscriber
from store.tries import Attempt

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
DAY = timedelta(days=1)
DEFAULTS = events.RunDefaults(formats=(Format.CSV,), language="en", rule_pack="eu-baseline")
BOX = SecretBox([Fernet.generate_key().decode()])
DAYS = 8


def scan_id(number: int) -> str:
    return str(UUID(int=number))


def address(name: str) -> ChannelAddress:
    return ChannelAddress(kind=ChannelKind.WEBHOOK, target=f"https://{name}.example/hook")


def record(ledger: Ledger, number: int, domain: str, now: datetime) -> Run:
    """RECORD a scan."""
    scan = {"scan_id": scan_id(number), "domain": domain, "timestamp_utc": now.isoformat()}
    fields = {b"data": json.dumps(scan).encode(), b"userid": b"u-1"}
    entry = Entry("scans:events", f"{number}-0", fields)
    item = DecodedEntry(entry, decode_entry(entry.fields, max_bytes=1 << 24))
    with ledger.write() as connection:
        recorded = events.record_batch(
            connection,
            [item],
            [],
            defaults=DEFAULTS,
            now=now,
            dispatch_by=now,
            new_id=lambda: str(uuid4()),
        )
        return runs.load_run(connection, recorded.tickets[0].run_id)


def report(ledger: Ledger, run: Run, now: datetime) -> None:
    """Render, settle and tell of it: to one whose delivery is sent, to one who is held."""
    made = RenderedReport(Format.CSV, f"{run.scan_id}/k", "u", 7, "ab", "p", "c", 1.0)
    key = f"scan.completed:{run.scan_id}"
    told = Notification(
        event_key=key,
        type=EventType.SCAN_COMPLETED,
        occurred_at=now,
        domain=run.subject,
        scan_id=run.scan_id,
        severity=Severity.INFO,
        title="t",
        summary="s",
    )
    with ledger.write() as connection:
        runs.start_rendering(connection, run, [Format.CSV], max_tries=4, now=now)
        runs.save_rendered(connection, run, [made], now)
        assert runs.settle_done(connection, run, now, score=50, summary="1 artifact")
        deliveries.save_notification(connection, told, run.run_id, now)
        (ticket,) = deliveries.plan_deliveries(
            connection,
            key,
            [Recipient("anna", address("anna"))],
            now=now,
            started_by=now,
            new_id=lambda: str(uuid4()),
            box=BOX,
        )
    send(ledger, ticket, now)


def send(ledger: Ledger, ticket: DeliveryTicket, now: datetime) -> None:
    attempt = Attempt(number=1, started_at=now, duration_ms=1.0, status_code=200)
    with ledger.write() as connection:
        tries.lease(connection, ticket, lease_until=now + DAY, destination="http:anna.example:443")
        tries.settle_sent(connection, ticket.delivery_id, attempt, now)


@pytest.fixture
def history(ledger: Ledger) -> list[Run]:
    """A scan a day of one domain, each reported and told."""
    made = []
    for number in range(1, DAYS + 1):
        now = NOW + (number - 1) * DAY
        made.append(record(ledger, number, "Shop.example", now))
        report(ledger, made[-1], now)
    return made


def read(ledger: Ledger, ask: Any, *arguments: Any, **options: Any) -> Any:
    with ledger.read() as connection:
        return ask(connection, *arguments, **options)


def write(ledger: Ledger, do: Any, *arguments: Any, **options: Any) -> Any:
    with ledger.write() as connection:
        return do(connection, *arguments, **options)


def count(ledger: Ledger, name: str) -> int:
    table = getattr(tables, name)
    with ledger.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def named_since(ledger: Ledger, young: datetime) -> NamedScans:
    with ledger.read() as connection:
        return NamedScans(connection, young, NOW)


def keys(found: list[retention.Old]) -> list[Any]:
    return [old.key for old in found]


def test_old_reports_are_found_page_by_page_but_for_the_newest(
    ledger: Ledger, history: list[Run]
) -> None:
    found: list[retention.Old] = []
    after = None
    while page := read(
        ledger,
        retention.find_old_reports,
        NOW + 6 * DAY,
        keep_newest=3,
        after=after,
        limit=2,
    ):
        found += page
        after = page[-1].position
    assert keys(found) == [f"{scan_id(number)}.en.csv" for number in range(1, 6)]
    assert {old.size for old in found} == {7}
    assert write(ledger, retention.expire_reports, keys(found)) is None
    assert write(ledger, retention.forget_artifacts, keys(found)) == 5


def test_bytes_are_kept_for_the_newest_and_for_what_young_runs_compare_with(
    ledger: Ledger, history: list[Run]
) -> None:
    def old(young: datetime, keep: int) -> list[Any]:
        found = read(
            ledger,
            retention.find_old_scans,
            named=named_since(ledger, young),
            keep_newest=keep,
            gone=None,
            after=None,
            limit=99,
        )
        return keys(found)

    pks = [run.event_pk for run in history]
    assert old(NOW + 99 * DAY, 0) == pks[:4]  # three, and the one before them
    assert old(NOW + 99 * DAY, 5) == pks[:2]
    assert old(NOW + 4 * DAY, 0) == pks[:3]  # the fourth is what the fifth was compared with
    assert write(ledger, retention.forget_bytes, pks[:3]) == 3
    assert old(NOW + 4 * DAY, 0) == []


def test_a_page_is_full_although_what_young_runs_name_was_left_out(
    ledger: Ledger, history: list[Run]
) -> None:
    pks = [run.event_pk for run in history]
    named = named_since(ledger, NOW + 4 * DAY)
    found: list[retention.Old] = []
    after = None
    while page := read(
        ledger,
        retention.find_old_scans,
        named=named,
        keep_newest=0,
        gone=None,
        after=after,
        limit=2,
    ):
        found += page
        after = page[-1].position
    assert keys(found) == pks[:3]


def test_what_is_named_after_the_search_is_kept_when_it_is_asked_again(
    ledger: Ledger, history: list[Run]
) -> None:
    pks = [run.event_pk for run in history]
    named = named_since(ledger, NOW + 4 * DAY)
    assert pks[1] not in named
    late = record(ledger, DAYS + 1, "Shop.example", NOW + 10 * DAY)
    with ledger.write() as connection:
        inputs = {"language": "en", "rule_pack": "p", "previous_event_pk": pks[1]}
        connection.execute(
            update(tables.runs)
            .where(tables.runs.c.run_id == late.run_id)
            .values(inputs=inputs, created_at=NOW)
        )
        named.keep_up(connection, NOW + DAY)
        again = retention.find_old_scans(
            connection,
            named=named,
            keep_newest=0,
            gone=None,
            after=None,
            limit=9,
            among=[pks[0], pks[1]],
        )
    assert keys(again) == [pks[0]]


def test_what_is_not_older_than_all_that_is_young_is_kept_whatever_its_clock_said(
    ledger: Ledger, history: list[Run]
) -> None:
    late = record(ledger, DAYS + 1, "other.example", NOW - DAY)  # its host's clock was set back
    found = read(
        ledger,
        retention.find_old_scans,
        named=named_since(ledger, NOW + 4 * DAY),
        keep_newest=0,
        gone=None,
        after=None,
        limit=9,
    )
    assert late.event_pk not in keys(found)


def test_a_record_is_in_use_until_its_artifact_is_gone_and_all_of_it_is_told(
    ledger: Ledger, history: list[Run]
) -> None:
    def old() -> list[Any]:
        found = read(
            ledger,
            retention.find_old_events,
            named=named_since(ledger, NOW + 99 * DAY),
            keep_newest=0,
            after=None,
            limit=99,
        )
        return keys(found)

    pks = [run.event_pk for run in history]
    assert old() == []
    ids = [f"{scan_id(number)}.en.csv" for number in range(1, 4)]
    write(ledger, retention.expire_reports, ids)
    write(ledger, retention.forget_artifacts, ids)
    assert old() == pks[:3]
    with ledger.write() as connection:
        connection.execute(
            update(tables.deliveries)
            .where(tables.deliveries.c.event_key == f"scan.completed:{scan_id(2)}")
            .values(state="held", settled_at=None)
        )
    assert old() == [pks[0], pks[2]]
    assert (
        write(ledger, retention.reduce_events, [pks[0], pks[2]], outcome="expired", reason="old")
        == 2
    )
    assert (count(ledger, "runs"), count(ledger, "scans"), count(ledger, "reports")) == (6, 6, 6)
    assert old() == []


def test_contents_go_with_their_last_delivery(ledger: Ledger, history: list[Run]) -> None:
    young = NOW + 3 * DAY
    found = read(ledger, retention.find_old_contents, young, after=None, limit=99)
    told = [f"scan.completed:{scan_id(number)}" for number in (1, 2, 3)]
    assert keys(found) == told
    assert all(old.size > 50 for old in found)
    assert write(ledger, retention.forget_contents, told) == 0  # their deliveries are there
    gone = keys(read(ledger, retention.find_old_deliveries, young, after=None, limit=99))
    assert write(ledger, retention.delete_deliveries, gone) == 3
    assert write(ledger, retention.forget_contents, told) == 3
    assert read(ledger, retention.find_old_contents, young, after=None, limit=99) == []
    assert count(ledger, "attempts") == DAYS - 3


def test_a_try_of_a_delivery_that_is_gone_is_not_noted(ledger: Ledger, history: list[Run]) -> None:
    (delivery_id, *_) = keys(
        read(ledger, retention.find_old_deliveries, NOW + 99 * DAY, after=None, limit=1)
    )
    write(ledger, erasing.erase_deliveries, [delivery_id])
    before = count(ledger, "attempts")
    late = Attempt(number=1, started_at=NOW, duration_ms=1.0, status_code=200)
    write(ledger, tries.settle_sent, delivery_id, late, NOW)
    assert count(ledger, "attempts") == before


def test_a_tick_is_claimed_by_one(ledger: Ledger) -> None:
    def hourly(last: datetime) -> bool:
        return last <= NOW

    def never(last: datetime) -> bool:
        return False

    assert write(ledger, chores.last_ticks, ["a", "b"], NOW) == {"a": NOW, "b": NOW}
    assert write(ledger, chores.last_ticks, ["a"], NOW + DAY) == {"a": NOW}
    assert write(ledger, chores.claim_tick, "a", NOW + DAY, hourly) is None
    assert write(ledger, chores.claim_tick, "a", NOW + DAY, hourly) == NOW + DAY
    assert write(ledger, chores.claim_tick, "new", NOW, never) is None
    write(ledger, chores.save_position, "a", "there")
    assert read(ledger, chores.read_position, "a") == "there"
    assert read(ledger, chores.read_position, "b") == ""


def test_a_lost_artifact_is_marked_and_one_that_is_found_again_restored(
    ledger: Ledger, history: list[Run]
) -> None:
    first, second = read(ledger, ready_reports, after="", limit=2)
    write(ledger, mark_lost, [first], "its artifact was not in the store on 2026-03-04")
    again, _ = read(ledger, ready_reports, after="", limit=2)
    assert (again.report_id, again.is_ready) == (first.report_id, False)
    write(ledger, restore_found, [again])
    assert read(ledger, ready_reports, after="", limit=2) == [first, second]
    named, known = read(ledger, reports_of_scans, {scan_id(1), scan_id(99)})
    assert (named, known) == ({f"{scan_id(1)}/k"}, {scan_id(1)})


def test_a_domain_is_found_whatever_its_case_and_erased(ledger: Ledger, history: list[Run]) -> None:
    other = record(ledger, 50, "other.example", NOW)
    with ledger.write() as connection:
        save_statistics(connection, "tasks", {"busiest": "shop.EXAMPLE"}, NOW)
        save_statistics(connection, "tasks", {"busiest": "100%"}, NOW)
        letter = DeadEntry(Entry("scans:events", "99-0", {b"data": b"SHOP.example"}), "not JSON")
        events.record_dead(connection, letter, NOW)
    found = read(ledger, erasing.find_domain_events, "shop.example", 0, 3)
    assert [event.event_pk for event in found] == [run.event_pk for run in history[:3]]
    assert found[0].artifacts == (f"{scan_id(1)}/{history[0].data_sha256[:12]}-",)
    assert write(ledger, erasing.cancel_runs, [other.event_pk], NOW) == 1
    pks = [run.event_pk for run in history]
    names = read(ledger, erasing.names_of_events, pks)
    assert {table: len(rows) for table, rows in names.items()} == {
        "events": DAYS,
        "runs": DAYS,
        "scans": DAYS,
        "reports": DAYS,
    }
    write(ledger, erasing.erase_events, pks, NOW)
    assert read(ledger, erasing.find_domain_events, "shop.example", 0, 3) == []
    told = read(ledger, erasing.find_domain_news, "SHOP.example", "", 99)
    assert len(read(ledger, erasing.names_of_news, told)["attempts"]) == DAYS
    write(ledger, erasing.erase_news, told, "shop.example")
    dead, on = read(ledger, erasing.find_dead_letters, "shop.example", 0, 9)
    assert (len(dead), on) == (1, None)
    names = read(ledger, erasing.names_of_domain, "shop.example")
    assert len(names["statistics"]) == 1
    write(ledger, erasing.erase_domain_rows, "shop.example")
    assert (count(ledger, "statistics"), count(ledger, "scans"), count(ledger, "attempts")) == (
        1,
        1,
        0,
    )


def test_a_person_is_erased_with_all_deliveries(ledger: Ledger, history: list[Run]) -> None:
    anna = Subscriber(subscriber_id="anna", user_id="u-1", channels=(address("anna"),))
    write(ledger, save_subscriber, anna, BOX, NOW)
    person = read(ledger, erasing.find_person, "anna")
    assert person.ids == ("anna", "direct:u-1")
    names = write(ledger, erasing.erase_person, person)
    assert {table: len(rows) for table, rows in names.items()} == {
        "subscribers": 1,
        "endpoints": 0,
        "pacing": 0,
        "owners": DAYS,
    }
    page = read(ledger, erasing.find_deliveries_to, person, "", 99)
    assert len(read(ledger, erasing.names_of_deliveries, page)["attempts"]) == DAYS
    write(ledger, erasing.erase_deliveries, page)
    assert (count(ledger, "deliveries"), count(ledger, "notifications")) == (0, DAYS)
    assert read(ledger, erasing.find_deliveries_to, person, "", 99) == []


def test_the_newest_scored_scans_keep_their_bytes_however_many_have_come_since(
    ledger: Ledger, history: list[Run]
) -> None:
    later = [
        record(ledger, number, "Shop.example", NOW + number * DAY)
        for number in range(DAYS + 1, DAYS + 11)
    ]
    for run in later:
        with ledger.write() as connection:
            assert runs.settle_done(connection, run, NOW, score=None, summary="inconclusive")
    found = read(
        ledger,
        retention.find_old_scans,
        named=named_since(ledger, NOW + 99 * DAY),
        keep_newest=0,
        gone=None,
        after=None,
        limit=99,
    )
    pks = [run.event_pk for run in (*history, *later)]
    assert keys(found) == [*pks[: DAYS - 2], *pks[DAYS:-4]]
    young = read(
        ledger,
        retention.find_old_scans,
        # the last one alone is young: it names the scored one and five since
        named=named_since(ledger, NOW + 18 * DAY),
        keep_newest=0,
        gone=None,
        after=None,
        limit=99,
    )
    assert keys(young) == [*pks[: DAYS - 2], *pks[DAYS : -SCANS_SINCE - 1]]


def test_a_scan_whose_bytes_are_gone_is_nothing_to_compare_with(
    ledger: Ledger, history: list[Run]
) -> None:
    assert write(ledger, retention.forget_bytes, [history[-1].event_pk]) == 1
    assert record(ledger, 99, "Shop.example", NOW + 20 * DAY).inputs.earlier == ()

"""Replays and the events they walk over, asked of SQLite and of PostgreSQL alike."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from schemas.audit import Audit
from schemas.errors import NotFound
from schemas.events import decode_entry
from schemas.replays import Counts, Failure, ReplayRequest, ReplaySource, ReplayState, Selection
from schemas.reports import Format
from schemas.runs import DeadEntry, DecodedEntry, Entry, RunState, RunTicket
from store import events, letters, replayed, replays, retention, runs, tables
from store.audit import LedgerAudit
from store.ledger import Ledger

NOW = datetime(2026, 3, 4, 5, 6, 7, 890, tzinfo=UTC)
DEFAULTS = events.RunDefaults(
    formats=(Format.JSON, Format.CSV), language="en", rule_pack="eu-baseline-2026.1"
)
REQUEST = ReplayRequest(
    ReplaySource.ARCHIVE,
    Selection(domain="*.example", since=NOW, numbers=(1, 2)),
    renders=True,
    tells=False,
    formats=(Format.PDF,),
    force=True,
    rate=2.5,
    in_flight=7,
)


def scan_entry(number: int, **fields: Any) -> DecodedEntry:
    scan = {"scan_id": str(UUID(int=number)), "domain": f"{number}.example", "status": "completed"}
    attributes = {name.encode(): str(value).encode() for name, value in fields.items()}
    entry = Entry("scans:events", f"{number}-0", {b"data": json.dumps(scan).encode(), **attributes})
    return DecodedEntry(entry, decode_entry(entry.fields, max_bytes=1 << 24))


def record(ledger: Ledger, *items: DecodedEntry, now: datetime = NOW) -> list[RunTicket]:
    with ledger.write() as connection:
        found = events.record_batch(
            connection,
            items,
            [],
            defaults=DEFAULTS,
            now=now,
            dispatch_by=now,
            new_id=lambda: str(uuid4()),
        )
    return list(found.tickets)


def settle(ledger: Ledger, ticket: RunTicket, *ready: Format) -> None:
    with ledger.write() as connection:
        run = runs.load_run(connection, ticket.run_id)
        runs.start_rendering(connection, run, ready, max_tries=3, now=NOW)
        made = [
            runs.RenderedReport(
                format=name,
                artifact_key="key",
                uri="file:///key",
                size_bytes=1,
                sha256="0" * 64,
                rule_pack="pack",
                content_sha256="0" * 64,
                render_ms=1.0,
            )
            for name in ready
        ]
        runs.save_rendered(connection, run, made, NOW)
        runs.settle_done(connection, run, NOW, score=7, summary="done")


def begin(ledger: Ledger, request: ReplayRequest = REQUEST) -> Any:
    with ledger.write() as connection:
        replays.create_replay(connection, "r-1", request, "me", NOW)
        return replays.load_replay(connection, "r-1")


def start_run(ledger: Ledger, event_pk: int, *formats: Format) -> RunTicket | None:
    with ledger.write() as connection:
        known = replayed.look_up(connection, [event_pk], "r-1")[event_pk]
        return replayed.insert_replay_run(
            connection,
            known,
            formats,
            replay_id="r-1",
            now=NOW + timedelta(seconds=1),
            dispatch_by=NOW,
            new_id=lambda: str(uuid4()),
        )


def test_a_replay_is_kept_as_it_was_asked_for(ledger: Ledger) -> None:
    found = begin(ledger)
    assert found.request == REQUEST
    assert (found.state, found.step, found.checkpoint) == (ReplayState.RUNNING, 0, None)
    with ledger.read() as connection, pytest.raises(NotFound):
        replays.load_replay(connection, "r-2")


def test_a_step_is_taken_once_and_by_its_driver_alone(ledger: Ledger) -> None:
    replay = begin(ledger)
    counts = Counts(selected=3, new=1, started=2, failed=0, skipped={"already there": 1})
    step: dict[str, Any] = {
        "checkpoint": {"event": 3},
        "counts": counts,
        "failures": [Failure(f"line {number}", "bad\x00") for number in range(150)],
        "now": NOW,
    }
    with ledger.write() as connection:
        assert not replays.advance(connection, replace(replay, driver="other"), **step)
        assert replays.advance(connection, replay, **step)
        assert not replays.advance(connection, replay, **step)
        found = replays.load_replay(connection, "r-1")
    assert (found.step, found.checkpoint, found.counts) == (1, {"event": 3}, counts)
    assert len(found.failures) == 100
    assert found.failures[0] == Failure("line 0", "bad")


def test_whoever_takes_a_replay_over_is_its_driver(ledger: Ledger) -> None:
    replay = begin(ledger)
    with ledger.write() as connection:
        assert replays.end_replay(connection, replay, ReplayState.INTERRUPTED, "stopped", NOW)
        taken = replays.take_over(connection, "r-1", "other", NOW)
        assert (taken.state, taken.driver, taken.reason) == (ReplayState.RUNNING, "other", None)
        assert not replays.end_replay(connection, replay, ReplayState.DONE, None, NOW)
        assert replays.end_replay(connection, taken, ReplayState.DONE, None, NOW)
        assert replays.take_over(connection, "r-1", "third", NOW).driver == "other"


def test_an_event_has_one_run_of_a_replay_under_its_newest_runs_inputs(ledger: Ledger) -> None:
    begin(ledger)
    (ticket,) = record(ledger, scan_entry(1))
    settle(ledger, ticket, Format.JSON)
    first = start_run(ledger, 1, Format.CSV)
    assert first is not None
    assert first.is_replay
    assert start_run(ledger, 1, Format.CSV) is None
    with ledger.read() as connection:
        live, again = (runs.load_run(connection, item.run_id) for item in (ticket, first))
        assert replays.count_in_flight(connection, "r-1") == 1
    assert again.inputs == live.inputs
    assert (live.replay_id, live.tells, again.replay_id, again.tells) == (None, True, "r-1", False)
    settle(ledger, first, Format.CSV)
    with ledger.read() as connection:
        found = replays.describe(connection, replays.load_replay(connection, "r-1"))
        assert runs.formats_of_event(connection, 1) == (Format.JSON, Format.CSV)
    assert found["runs"] == {"done": 1, "dead": 0, "cancelled": 0, "unfinished": 0}
    assert found["reports"] == {"ready": 1}
    assert found["deliveries"] == {}


def test_an_overdue_run_of_a_replay_is_swept_as_one(ledger: Ledger) -> None:
    begin(ledger)
    (ticket,) = record(ledger, scan_entry(1))
    settle(ledger, ticket)
    started = start_run(ledger, 1, Format.CSV)
    assert started is not None
    with ledger.write() as connection:
        found = runs.claim_unfinished(
            connection, NOW, next_deadline=NOW + timedelta(hours=1), max_attempts=3, limit=9
        )
    assert found.tickets == (
        RunTicket(started.run_id, 2, (Format.CSV,), needs_data=False, is_replay=True),
    )


def test_a_published_run_of_a_replay_is_spared_while_messages_wait(ledger: Ledger) -> None:
    begin(ledger)
    (ticket,) = record(ledger, scan_entry(1))
    settle(ledger, ticket)
    started = start_run(ledger, 1, Format.CSV)
    assert started is not None

    def swept(**options: bool) -> int:
        with ledger.write() as connection:
            found = runs.claim_unfinished(
                connection, NOW, next_deadline=NOW, max_attempts=9, limit=9, **options
            )
        return len(found.tickets)

    assert swept(spare_waiting_replays=True) == 1  # it was never published
    assert swept(spare_waiting_replays=True) == 0
    assert swept() == 1
    with ledger.write() as connection:
        run = runs.load_run(connection, started.run_id)
        runs.start_rendering(connection, run, [Format.CSV], max_tries=3, now=NOW)
    assert swept(spare_waiting_replays=True) == 1  # its worker died


def test_a_cancelled_replay_takes_no_step_and_can_be_resumed(ledger: Ledger) -> None:
    replay = begin(ledger)
    with ledger.write() as connection:
        replays.cancel_replay(connection, "r-1", "a slip", NOW)
        step: dict[str, Any] = {"checkpoint": None, "counts": Counts(), "failures": [], "now": NOW}
        assert not replays.advance(connection, replay, **step)
        assert not replays.end_replay(connection, replay, ReplayState.DONE, None, NOW)
        found = replays.load_replay(connection, "r-1")
        assert (found.state, found.reason) == (ReplayState.CANCELLED, "cancelled: a slip")
        taken = replays.take_over(connection, "r-1", "other", NOW)
        assert replays.advance(connection, taken, **step)
        assert replays.end_replay(connection, taken, ReplayState.DONE, None, NOW)
        replays.cancel_replay(connection, "r-1", "late", NOW)
        assert replays.load_replay(connection, "r-1").state is ReplayState.DONE
        with pytest.raises(NotFound):
            replays.cancel_replay(connection, "r-2", "a slip", NOW)


def test_replays_count_together_and_apart_from_live_runs(ledger: Ledger) -> None:
    begin(ledger)
    first, second = record(ledger, scan_entry(1), scan_entry(2))
    settle(ledger, first)
    with ledger.read() as connection:
        assert replays.count_unsettled(connection) == 0
        assert runs.oldest_unsettled(connection) == NOW
    assert start_run(ledger, 1, Format.CSV) is not None
    settle(ledger, second)
    with ledger.read() as connection:
        assert replays.count_unsettled(connection) == 1
        assert runs.oldest_unsettled(connection) is None


def test_an_ended_replay_goes_when_it_is_old_and_nothing_of_it_is_unfinished(
    ledger: Ledger,
) -> None:
    def old(days: int) -> list[str]:
        with ledger.read() as connection:
            found = retention.find_old_replays(
                connection, NOW + timedelta(days=days), after=None, limit=9
            )
        return [item.key for item in found]

    begin(ledger)
    (ticket,) = record(ledger, scan_entry(1))
    settle(ledger, ticket)
    started = start_run(ledger, 1, Format.CSV)
    assert started is not None
    assert old(1) == []
    settle(ledger, started, Format.CSV)
    assert old(0) == []
    assert old(1) == ["r-1"]
    with ledger.write() as connection:
        assert retention.delete_replays(connection, ["r-1"]) == 1
        assert not runs.load_run(connection, started.run_id).tells


def test_a_repeat_through_the_stream_leaves_a_replays_run_alone(ledger: Ledger) -> None:
    begin(ledger)
    (ticket,) = record(ledger, scan_entry(1))
    settle(ledger, ticket)
    started = start_run(ledger, 1, Format.CSV)
    assert record(ledger, scan_entry(1)) == []
    with ledger.read() as connection:
        assert started is not None
        run = runs.load_run(connection, started.run_id)
    assert (run.attempt, run.state) == (1, RunState.RECORDED)


def test_what_is_known_of_an_event(ledger: Ledger) -> None:
    done, _, older = record(ledger, scan_entry(1), scan_entry(2), scan_entry(3))
    settle(ledger, done, Format.JSON)
    settle(ledger, older)
    (later,) = record(ledger, scan_entry(3, id="later"))
    settle(ledger, later)
    (fetching,) = record(ledger, _dataref())
    settle(ledger, fetching)
    with ledger.read() as connection:
        found = replayed.look_up(connection, [1, 2, 3, 4, 5, 99], None)
        pks = replayed.find_known(
            connection,
            [scan_entry(1).event, scan_entry(3, id="third").event, scan_entry(9).event],
        )
    assert sorted(found) == [1, 2, 3, 4, 5]
    assert found[1].ready == {Format.JSON}
    assert found[1].formats == (Format.JSON, Format.CSV)
    assert [found[pk].in_flight for pk in (1, 2)] == [False, True]
    assert [found[pk].superseded for pk in (1, 3, 4)] == [False, True, False]
    assert [found[pk].needs_data for pk in (1, 5)] == [False, True]
    assert pks == [1, 4, None]


def _dataref() -> DecodedEntry:
    entry = Entry("scans:events", "5-0", {b"dataref": b"https://x.example/scan.json"})
    return DecodedEntry(entry, decode_entry(entry.fields, max_bytes=1 << 24))


@pytest.mark.parametrize("page", [1, 2, 100])
def test_the_archive_is_walked_in_the_order_of_recording(ledger: Ledger, page: int) -> None:
    record(ledger, scan_entry(1), scan_entry(2))
    record(ledger, scan_entry(3), now=NOW + timedelta(hours=1))
    bury(ledger, 9, {b"data": b"{"})
    failed = Entry("scans:events", "4-0", {b"type": b"scan.failed", b"data": b'{"scan_id": "s"}'})
    record(ledger, DecodedEntry(failed, decode_entry(failed.fields, max_bytes=99)))

    def walk(**filters: Any) -> list[int]:
        found: list[int] = []
        after = 0
        with ledger.read() as connection:
            while True:
                chosen, last = replayed.page_of_archive(
                    connection, Selection(**filters), after, page
                )
                found += chosen
                if last is None:
                    return found
                after = last

    assert walk() == [1, 2, 3, 5]
    assert walk(since=NOW + timedelta(minutes=1)) == [3]
    assert walk(until=NOW) == [1, 2, 5]
    assert walk(domain="2.*") == [2]
    assert walk(scan_id=str(UUID(int=3))) == [3]
    assert walk(scan_id="s") == [5]
    assert walk(type="scan.failed") == [5]
    assert walk(status="completed") == [1, 2, 3]
    assert walk(last_event=2) == [1, 2]


def bury(ledger: Ledger, number: int, fields: dict[bytes, bytes]) -> int:
    with ledger.write() as connection:
        events.record_dead(
            connection, DeadEntry(Entry("scans:events", f"{number}-0", fields), "bad"), NOW
        )
        return int(events.list_dead_letters(connection, 1)[0]["event_pk"])


def test_letters_come_whole_or_say_that_they_are_not(ledger: Ledger) -> None:
    whole = {b"data": b'{"a": 1}', b"type": b"scan.failed"}
    first = bury(ledger, 1, whole)
    second = bury(ledger, 2, {b"data": b"x" * 100_000})
    third = bury(ledger, 3, {b"data": b"\xff"})
    with ledger.read() as connection:
        found = letters.page_of_letters(connection, 0, 9)
        assert letters.page_of_letters(connection, first, 9, [first, third]) == [found[2]]
        assert letters.letters_among(connection, "scans:events", ["1-0", "5-0"]) == {"1-0"}
    assert [item.number for item in found] == [first, second, third]
    assert [item.whole for item in found] == [True, False, False]
    assert found[0].fields == whole
    assert found[1].is_original({b"data": b"x" * 100_000})
    assert not found[1].is_original({b"data": b"y" * 100_000})


def test_a_discarded_letter_stays_accounted_for(ledger: Ledger) -> None:
    number = bury(ledger, 1, {b"data": b"{"})
    with ledger.write() as connection:
        letters.refuse_again(connection, number, "still bad")
        letters.discard_letter(connection, number, "a test", NOW)
    with ledger.read() as connection:
        with pytest.raises(NotFound, match="was discarded on 2026-03-04"):
            letters.load_letter(connection, number)
        assert events.list_dead_letters(connection, 9) == []
        assert events.is_known(connection, Entry("scans:events", "1-0", {}))
    assert sums(ledger)["events"]["discarded"] == 1
    with ledger.write() as connection:
        assert not events.record_dead(
            connection, DeadEntry(Entry("scans:events", "1-0", {b"data": b"{"}), "bad"), NOW
        )


def sums(ledger: Ledger) -> dict[str, dict[str, int]]:
    audit = Audit()
    told = LedgerAudit(ledger, audit, since=None, overdue_before=NOW, progress=lambda *_: None)
    told.events()
    told.runs()
    assert audit.gaps == []
    return audit.sums


def test_a_replay_that_tells_nobody_is_no_gap_and_one_that_should_have_told_is(
    ledger: Ledger,
) -> None:
    begin(ledger)
    (ticket,) = record(ledger, scan_entry(1))
    with ledger.write() as connection:
        assert runs.settle_dead(connection, ticket.run_id, "broken", NOW)
    started = start_run(ledger, 1)
    assert started is not None
    settle(ledger, started)
    assert sums(ledger)["runs"]["done"] == 1
    with ledger.write() as connection:
        connection.execute(update(tables.replays).values(tells=True))
    with pytest.raises(AssertionError, match="untold run"):
        sums(ledger)


def test_the_end_of_a_replays_run_changes_nothing_that_was_settled(ledger: Ledger) -> None:
    begin(ledger)
    (ticket,) = record(ledger, scan_entry(1))
    settle(ledger, ticket)

    def outcome() -> tuple[str, str]:
        with ledger.read() as connection:
            row = connection.execute(tables.events.select()).mappings().one()
        return row["outcome"], row["reason"]

    before = outcome()
    started = start_run(ledger, 1)
    assert started is not None
    with ledger.write() as connection:
        assert runs.settle_dead(connection, started.run_id, "broken", NOW)
    assert outcome() == before
    with ledger.write() as connection:
        assert runs.revive(connection, [started.run_id], NOW) == [started.run_id]
    assert outcome() == before
    settle(ledger, started)
    assert outcome() == before

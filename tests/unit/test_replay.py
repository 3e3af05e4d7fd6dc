"""A replay from its request to its end: what runs again, what does not, and who is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from listener import replay as driving
from listener.replay import Driver, Progress, TakenOver
from listener.replay_archive import ArchiveSource
from listener.replay_files import resolve
from listener.replay_items import Page
from listener.replay_sources import bounded, open_source
from schemas.audit import Audit
from schemas.errors import BrokerUnavailable, LedgerUnavailable
from schemas.replays import Replay, ReplayRequest, ReplaySource, ReplayState, Selection, Skip
from schemas.reports import DEFAULT_FORMATS, Format
from schemas.runs import RunTicket
from store import replays, runs, tables
from store.audit import LedgerAudit
from tasks.finish import settle
from tasks.notifications import try_delivery
from tasks.reports import render_formats
from tasks.sweep import sweep_once
from tasks.wiring import Wiring

FORMATS = (Format.JSON, Format.CSV)


@pytest.fixture
def parts(make_parts: Callable[..., Wiring]) -> Wiring:
    return make_parts(formats="json,csv")


def work(parts: Wiring, tickets: Iterable[RunTicket]) -> None:
    """Do what workers do."""
    for ticket in tickets:
        if ticket.formats:
            render_formats(parts, ticket.run_id, ticket.formats)
        for delivery in settle(parts, ticket.run_id, ticket.attempt):
            assert delivery.is_replay == ticket.is_replay
            try_delivery(parts, delivery)


@pytest.fixture
def lived(parts: Wiring, record: Any, make_scan: Any) -> Callable[..., RunTicket]:
    """Record an event and let its live run end."""

    def lived(data: bytes | None = None, **attributes: str) -> RunTicket:
        ticket = record(parts, make_scan() if data is None else data, **attributes)
        work(parts, [ticket])
        return ticket

    return lived


def request_of(source: ReplaySource = ReplaySource.ARCHIVE, **asked: Any) -> ReplayRequest:
    selection = Selection(**asked.pop("selection", {}))
    return ReplayRequest(source, selection, **{"renders": True, "tells": False, **asked})


def begin(parts: Wiring, request: ReplayRequest) -> Replay:
    request = replace(request, selection=bounded(parts, request.source, request.selection))
    replay_id = parts.new_id()
    with parts.ledger.write() as connection:
        replays.create_replay(connection, replay_id, request, "me", parts.clock())
        return replays.load_replay(connection, replay_id)


def drive(
    parts: Wiring,
    replay: Replay,
    dispatch: Callable[[Iterable[RunTicket]], None] | None = None,
    show: Callable[[Progress], None] = lambda _: None,
) -> Replay:
    """Drive to the end, with workers that are done before the next step."""
    with open_source(parts, replay.request) as source:
        Driver(
            parts, replay, source, dispatch or (lambda tickets: work(parts, tickets)), show
        ).run()
    with parts.ledger.read() as connection:
        return replays.load_replay(connection, replay.replay_id)


def replayed(parts: Wiring, **asked: Any) -> Replay:
    return drive(parts, begin(parts, request_of(**asked)))


def assert_clean(parts: Wiring) -> None:
    audit = Audit()
    told = LedgerAudit(
        parts.ledger, audit, since=None, overdue_before=parts.clock(), progress=lambda *_: None
    )
    told.events()
    told.runs()
    told.reports(parts.artifacts)
    told.deliveries()
    assert audit.gaps == []


def lose_reports(parts: Wiring, *names: str) -> None:
    with parts.ledger.write() as connection:
        connection.execute(
            update(tables.reports)
            .where(tables.reports.c.format.in_(names))
            .values(status="expired", artifact_key=None, uri=None)
        )


def test_what_is_there_is_not_made_again(parts: Wiring, lived: Any, rows: Any) -> None:
    lived()
    found = replayed(parts)
    assert (found.state, found.counts.selected, found.counts.started) == (ReplayState.DONE, 1, 0)
    assert found.counts.skipped == {Skip.ALREADY_THERE: 1}
    assert len(rows(parts, "runs")) == 1
    assert_clean(parts)


def test_what_is_missing_is_made_to_the_same_bytes_under_the_replays_id(
    parts: Wiring, lived: Any, rows: Any, subscribe: Any
) -> None:
    subscribe(parts)
    lived()
    before = {row["format"]: row["sha256"] for row in rows(parts, "reports")}
    told, standing = rows(parts, "deliveries"), rows(parts, "violations")
    lose_reports(parts, "csv")

    found = replayed(parts)

    assert (found.counts.started, found.counts.new) == (1, 0)
    made = {row["format"]: row for row in rows(parts, "reports")}
    assert {name: row["sha256"] for name, row in made.items()} == before
    assert {name: row["status"] for name, row in made.items()} == {"json": "ready", "csv": "ready"}
    assert made["csv"]["replay_id"] == found.replay_id
    assert made["json"]["replay_id"] is None
    (run,) = [row for row in rows(parts, "runs") if row["kind"] == "replay"]
    assert (run["replay_id"], run["formats"], run["state"]) == (found.replay_id, ["csv"], "done")
    assert rows(parts, "deliveries") == told
    assert rows(parts, "violations") == standing
    assert_clean(parts)


def test_force_makes_all_anew_and_formats_choose(parts: Wiring, lived: Any, rows: Any) -> None:
    lived()
    found = replayed(parts, force=True)
    assert {row["replay_id"] for row in rows(parts, "reports")} == {found.replay_id}
    other = replayed(parts, force=True, formats=(Format.HTML, Format.CSV))
    made = {row["format"]: row["replay_id"] for row in rows(parts, "reports")}
    assert made == {"json": found.replay_id, "csv": other.replay_id, "html": other.replay_id}
    assert_clean(parts)


def test_notify_tells_everybody_once_more_and_renders_nothing(
    parts: Wiring, lived: Any, rows: Any, subscribe: Any
) -> None:
    subscribe(parts)
    lived()
    keys = [row["event_key"] for row in rows(parts, "notifications")]
    assert any(key.startswith("compliance.violation:") for key in keys)
    made = rows(parts, "reports")

    found = replayed(parts, renders=False, tells=True)

    again = [row for row in rows(parts, "notifications") if row["event_key"] not in keys]
    assert sorted(row["event_key"] for row in again) == sorted(
        f"{key}:replay:{found.replay_id}" for key in keys
    )
    ours = [row for row in rows(parts, "deliveries") if row["replay_id"] == found.replay_id]
    assert len(ours) == len(keys)
    assert rows(parts, "reports") == made
    with parts.ledger.read() as connection:
        listed = replays.describe(connection, found)
    assert listed["deliveries"] == {"sent": len(keys)}
    assert_clean(parts)


def test_a_second_replay_tells_again_and_a_repeated_run_does_not(
    parts: Wiring, lived: Any, rows: Any, subscribe: Any
) -> None:
    subscribe(parts)
    lived()
    first = replayed(parts, renders=False, tells=True)
    count = len(rows(parts, "deliveries"))
    (run,) = [row for row in rows(parts, "runs") if row["replay_id"] == first.replay_id]
    assert settle(parts, run["run_id"], 1) == []
    assert len(rows(parts, "deliveries")) == count
    replayed(parts, renders=False, tells=True)
    assert len(rows(parts, "deliveries")) == count * 3 // 2


def test_news_of_a_replay_speaks_of_all_formats_that_are_there(
    parts: Wiring, lived: Any, subscribe: Any
) -> None:
    subscribe(parts)
    lived()
    lose_reports(parts, "csv")
    found = replayed(parts, renders=False, tells=True)
    with parts.ledger.read() as connection:
        from schemas.events import EventType
        from store.deliveries import news_of_event

        (_, again) = news_of_event(connection, 1, EventType.SCAN_COMPLETED)
    assert found.replay_id in again.event_key
    assert [artifact.format for artifact in again.artifacts] == ["json"]
    assert again.missing_formats == ("csv",)


def test_both_render_and_tell(parts: Wiring, lived: Any, rows: Any, subscribe: Any) -> None:
    subscribe(parts)
    lived()
    count = len(rows(parts, "deliveries"))
    lose_reports(parts, "csv", "json")
    replayed(parts, tells=True)
    assert {row["status"] for row in rows(parts, "reports")} == {"ready"}
    assert len(rows(parts, "deliveries")) == 2 * count
    assert_clean(parts)


def test_events_of_other_types_are_told_or_skipped(parts: Wiring, lived: Any, rows: Any) -> None:
    lived(b'{"domain": "a.example", "error": "DNS"}', type="scan.failed")
    assert replayed(parts).counts.skipped == {Skip.NO_REPORTS: 1}
    assert replayed(parts, renders=False, tells=True).counts.started == 1
    assert_clean(parts)


def test_what_is_in_flight_superseded_or_gone_is_skipped(
    parts: Wiring, lived: Any, record: Any, make_scan: Any
) -> None:
    record(parts, make_scan(1))
    lived(make_scan(2), id="first")
    lived(make_scan(2, cookies=[]), id="later")
    lived(make_scan(3))
    with parts.ledger.write() as connection:
        connection.execute(
            update(tables.events).where(tables.events.c.event_pk == 4).values(payload=None)
        )
    assert replayed(parts, force=True).counts.skipped == {
        Skip.IN_FLIGHT: 1,
        Skip.SUPERSEDED: 1,
        Skip.DATA_GONE: 1,
    }


def test_a_dead_event_is_done_once_a_replay_has_made_its_reports(
    parts: Wiring, record: Any, make_scan: Any, rows: Any
) -> None:
    ticket = record(parts, make_scan())
    with parts.ledger.write() as connection:
        assert runs.settle_dead(connection, ticket.run_id, "broken", parts.clock())
    found = replayed(parts)
    assert found.counts.started == 1
    (event,) = rows(parts, "events")
    assert event["outcome"] == "done"
    assert found.replay_id in event["reason"]
    assert_clean(parts)


def test_a_replay_that_dies_takes_nothing_from_its_event(
    parts: Wiring, lived: Any, rows: Any
) -> None:
    lived()
    (before,) = rows(parts, "events")

    def kill(tickets: Iterable[RunTicket]) -> None:
        for ticket in tickets:
            with parts.ledger.write() as connection:
                runs.settle_dead(connection, ticket.run_id, "broken", parts.clock())

    drive(parts, begin(parts, request_of(force=True)), kill)
    (after,) = rows(parts, "events")
    assert after == before
    assert_clean(parts)
    with parts.ledger.write() as connection:
        runs.revive(connection, [rows(parts, "runs")[1]["run_id"]], parts.clock())
    assert rows(parts, "events") == [before]


def test_a_new_event_from_a_file_is_recorded_as_a_replay_and_tells_nobody(
    parts: Wiring, rows: Any, make_scan: Any, subscribe: Any, tmp_path: Path
) -> None:
    subscribe(parts)
    (tmp_path / "scan.json").write_bytes(make_scan())
    found = replayed(parts, source=ReplaySource.FILES, selection={"files": resolve([tmp_path])})
    assert (found.counts.started, found.counts.new) == (1, 1)
    (run,) = rows(parts, "runs")
    assert (run["kind"], run["replay_id"]) == ("replay", found.replay_id)
    assert run["formats"] == ["json", "csv"]
    (event,) = rows(parts, "events")
    assert (event["outcome"], event["stream"], event["entry_id"]) == ("done", "file:scan.json", "1")
    assert rows(parts, "notifications") == rows(parts, "violations") == []
    assert rows(parts, "scans")[0]["score"] is not None
    assert_clean(parts)
    again = replayed(parts, source=ReplaySource.FILES, selection={"files": resolve([tmp_path])})
    assert again.counts.skipped == {Skip.ALREADY_THERE: 1}
    assert rows(parts, "events")[0]["seen"] == 1


def test_a_new_event_that_is_told_is_told_under_its_usual_key(
    parts: Wiring, rows: Any, make_scan: Any, subscribe: Any, tmp_path: Path, record: Any
) -> None:
    subscribe(parts)
    (tmp_path / "scan.json").write_bytes(make_scan())
    found = replayed(
        parts, source=ReplaySource.FILES, tells=True, selection={"files": resolve([tmp_path])}
    )
    assert not any(":replay:" in row["event_key"] for row in rows(parts, "notifications"))
    assert {row["replay_id"] for row in rows(parts, "deliveries")} == {found.replay_id}
    assert rows(parts, "violations")
    assert_clean(parts)


def test_a_file_never_replaces_a_scan_that_another_event_brought(
    parts: Wiring, lived: Any, rows: Any, make_scan: Any, tmp_path: Path
) -> None:
    lived(make_scan(1), id="its-own", source="scanner")
    (tmp_path / "older.json").write_bytes(make_scan(1, cookies=[]))
    found = replayed(parts, source=ReplaySource.FILES, selection={"files": resolve([tmp_path])})
    assert found.counts.skipped == {Skip.ALREADY_THERE: 1}
    assert len(rows(parts, "events")) == 1


def test_of_one_step_each_event_is_taken_once(
    parts: Wiring, rows: Any, make_scan: Any, tmp_path: Path
) -> None:
    path = tmp_path / "scans.jsonl"
    event = {"specversion": "1.0", "id": "other", "data": json.loads(make_scan())}
    path.write_bytes(make_scan() + b"\n" + make_scan() + b"\n" + json.dumps(event).encode() + b"\n")
    found = replayed(parts, source=ReplaySource.FILES, selection={"files": resolve([path])})
    assert (found.counts.selected, found.counts.started) == (3, 1)
    assert found.counts.skipped == {Skip.SELECTED_TWICE: 2}
    assert len(rows(parts, "events")) == len(rows(parts, "runs")) == 1


def test_notify_alone_tells_nothing_of_what_the_ledger_does_not_know(
    parts: Wiring, rows: Any, make_scan: Any, tmp_path: Path
) -> None:
    (tmp_path / "scan.json").write_bytes(make_scan())
    found = replayed(
        parts,
        source=ReplaySource.FILES,
        renders=False,
        tells=True,
        selection={"files": resolve([tmp_path])},
    )
    assert found.counts.skipped == {Skip.UNKNOWN: 1}
    assert rows(parts, "events") == []


def test_what_the_ledger_refuses_is_counted_and_stops_nothing(
    parts: Wiring, rows: Any, make_scan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scans.jsonl"
    path.write_bytes(b"".join(make_scan(number) + b"\n" for number in range(1, 6)))
    recorded = driving.record_for_replay

    def refuse(connection: Any, item: Any, **options: Any) -> Any:
        if item.entry.entry_id == "3":
            raise IntegrityError("INSERT", {}, Exception("refused"))
        return recorded(connection, item, **options)

    monkeypatch.setattr(driving, "record_for_replay", refuse)
    found = replayed(parts, source=ReplaySource.FILES, selection={"files": resolve([path])})
    assert (found.counts.started, found.counts.failed) == (4, 1)
    (failure,) = found.failures
    assert failure.name.endswith("scans.jsonl:3")
    assert failure.reason == "the ledger refuses it: refused"
    assert len(rows(parts, "runs")) == 4


def test_at_most_the_cap_is_in_flight(parts: Wiring, lived: Any, make_scan: Any, rows: Any) -> None:
    for number in range(1, 13):
        lived(make_scan(number))
    waiting: list[RunTicket] = []
    most = 0

    def show(progress: Progress) -> None:
        nonlocal most
        unsettled = [row for row in rows(parts, "runs") if row["state"] != "done"]
        most = max(most, len(unsettled))
        if len(waiting) > 3:
            work(parts, [waiting.pop(0)])
        elif progress.fraction == 1.0:
            work(parts, waiting)
            waiting.clear()

    replay = begin(parts, request_of(force=True, in_flight=4))
    found = drive(parts, replay, waiting.extend, show)
    assert found.counts.started == 12
    assert most == 4


def test_replays_at_once_share_half_of_what_closes_the_intake(
    make_parts: Any, record: Any, make_scan: Any, rows: Any
) -> None:
    parts = make_parts(formats="json,csv", reports_high_water=30)  # three runs of all replays
    for number in range(1, 6):
        work(parts, [record(parts, make_scan(number))])
    others: list[RunTicket] = []
    with pytest.raises(Stop):
        drive(parts, begin(parts, request_of(force=True, in_flight=2)), others.extend, stop_at(2))
    assert len(others) == 2
    mine: list[RunTicket] = []
    most = 0

    def show(_: Progress) -> None:
        nonlocal most
        most = max(most, sum(row["state"] != "done" for row in rows(parts, "runs")))
        work(parts, mine)
        mine.clear()

    found = drive(parts, begin(parts, request_of(force=True, in_flight=3)), mine.extend, show)
    assert found.counts.started == 3  # two are in flight with the other one
    assert most == 3


def test_a_cancelled_replay_stops_its_driver(parts: Wiring, lived: Any, make_scan: Any) -> None:
    for number in (1, 2):
        lived(make_scan(number))
    replay = begin(parts, request_of(force=True, in_flight=1))

    def cancel(tickets: Iterable[RunTicket]) -> None:
        work(parts, tickets)
        with parts.ledger.write() as connection:
            replays.cancel_replay(connection, replay.replay_id, "a slip", parts.clock())

    with pytest.raises(TakenOver, match="was cancelled"):
        drive(parts, replay, cancel)


def test_a_rate_is_kept(parts: Wiring, lived: Any, make_scan: Any) -> None:
    for number in range(1, 9):
        lived(make_scan(number))
    began = parts.clock()
    replayed(parts, force=True, rate=2.0)
    assert 3 <= (parts.clock() - began).total_seconds() <= 5


def test_deliveries_that_nobody_has_tried_count_as_in_flight(
    parts: Wiring, lived: Any, rows: Any, subscribe: Any
) -> None:
    subscribe(parts)
    lived()
    replay = begin(parts, request_of(renders=False, tells=True))
    with parts.ledger.read() as connection:
        assert replays.count_in_flight(connection, replay.replay_id) == 0

    planned: list[Any] = []

    def plan(tickets: Iterable[RunTicket]) -> None:
        for ticket in tickets:
            planned.extend(settle(parts, ticket.run_id, ticket.attempt))

    def deliver(progress: Progress) -> None:
        if progress.fraction == 1.0 and planned:
            with parts.ledger.read() as connection:
                assert replays.count_in_flight(connection, replay.replay_id) == 1
            while planned:
                try_delivery(parts, planned.pop())

    found = drive(parts, replay, plan, deliver)
    assert found.state is ReplayState.DONE
    with parts.ledger.read() as connection:
        assert replays.count_in_flight(connection, replay.replay_id) == 0


class Stop(Exception):
    """Ends a driver as a kill would: nothing of it runs any more."""


def stop_at(started: int) -> Callable[[Progress], None]:
    """Stop a driver once it has started so many runs."""

    def show(progress: Progress) -> None:
        if progress.replay.counts.started >= started:
            raise Stop

    return show


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("moment", ["before the commit", "after it", "after the dispatch"])
def test_stopped_anywhere_and_resumed_it_makes_nothing_twice_and_loses_nothing(
    parts: Wiring,
    lived: Any,
    make_scan: Any,
    rows: Any,
    stop: int,
    moment: str,
    subscribe: Any,
    monkeypatch: pytest.MonkeyPatch,
    dispatched: list[RunTicket],
) -> None:
    subscribe(parts)
    for number in range(1, 5):
        lived(make_scan(number))
    told = len(rows(parts, "deliveries"))
    lose_reports(parts, "csv")
    replay = begin(parts, request_of(tells=True, in_flight=2))
    points = {
        "before the commit": "replay.committing",
        "after it": "replay.recorded",
        "after the dispatch": "replay.dispatched",
    }
    passes = 0

    def crash(point: str) -> None:
        nonlocal passes
        passes += point == points[moment]
        if point == points[moment] and passes == stop:
            raise Stop

    monkeypatch.setattr(driving, "crash_here", crash)
    monkeypatch.setattr(Driver, "_end", lambda *_: None)
    published: list[RunTicket] = []

    def dispatch(tickets: Iterable[RunTicket]) -> None:
        published.extend(tickets)
        work(parts, tickets)

    try:
        drive(parts, replay, dispatch)
    except Stop:
        assert passes == stop
    monkeypatch.undo()
    parts.clock.forward(3600)  # type: ignore[attr-defined]
    monkeypatch.setattr("tasks.sweep.dispatch", dispatched.extend)
    monkeypatch.setattr("tasks.sweep.queue_depth", lambda _: 0)
    monkeypatch.setattr("tasks.sweep.start_deliveries", lambda _: None)
    sweep_once(parts)
    assert all(ticket.is_replay for ticket in dispatched)
    work(parts, dispatched)
    with parts.ledger.write() as connection:
        resumed = replays.take_over(connection, replay.replay_id, "another", parts.clock())
    found = drive(parts, resumed, dispatch)

    assert (found.state, found.counts.selected, found.counts.started) == (ReplayState.DONE, 4, 4)
    ours = [row for row in rows(parts, "runs") if row["kind"] == "replay"]
    assert len({row["event_pk"] for row in ours}) == len(ours) == 4
    assert {row["state"] for row in ours} == {"done"}
    assert {row["status"] for row in rows(parts, "reports")} == {"ready"}
    assert len(rows(parts, "deliveries")) == 2 * told
    assert_clean(parts)


def test_interrupted_it_says_so_and_can_be_resumed(
    parts: Wiring, lived: Any, make_scan: Any
) -> None:
    for number in range(1, 4):
        lived(make_scan(number))

    def interrupt(_: Iterable[RunTicket]) -> None:
        raise KeyboardInterrupt

    replay = begin(parts, request_of(force=True, in_flight=1))
    with pytest.raises(KeyboardInterrupt):
        drive(parts, replay, interrupt)
    with parts.ledger.read() as connection:
        stopped = replays.load_replay(connection, replay.replay_id)
    assert (stopped.state, stopped.counts.started) == (ReplayState.INTERRUPTED, 1)


def test_of_two_drivers_the_later_one_goes_on(parts: Wiring, lived: Any, rows: Any) -> None:
    lived()
    replay = begin(parts, request_of(force=True))
    with parts.ledger.write() as connection:
        replays.take_over(connection, replay.replay_id, "another", parts.clock())
    with pytest.raises(TakenOver, match=replay.replay_id):
        drive(parts, replay)
    assert len(rows(parts, "runs")) == 1
    with parts.ledger.read() as connection:
        left = replays.load_replay(connection, replay.replay_id)
    assert (left.state, left.driver) == (ReplayState.RUNNING, "another")


def test_a_broker_that_is_away_leaves_the_runs_to_the_sweep(
    parts: Wiring, lived: Any, dispatched: list[RunTicket], rows: Any
) -> None:
    lived()

    def away(_: Iterable[RunTicket]) -> None:
        raise BrokerUnavailable("away")

    def sweep(progress: Progress) -> None:
        if progress.fraction == 1.0 and progress.in_flight:
            parts.clock.forward(100)  # type: ignore[attr-defined]
            sweep_once(parts)
            work(parts, dispatched)
            dispatched.clear()

    found = drive(parts, begin(parts, request_of(force=True)), away, sweep)
    assert found.state is ReplayState.DONE
    assert {row["state"] for row in rows(parts, "runs")} == {"done"}


@pytest.mark.parametrize("written", [True, False])
def test_a_commit_whose_answer_is_lost_is_not_made_twice(
    parts: Wiring, lived: Any, rows: Any, written: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived()
    lost = iter([True])

    def lose(point: str) -> None:
        at = "replay.recorded" if written else "replay.committing"
        if point == at and next(lost, False):
            raise LedgerUnavailable("the connection was lost")

    monkeypatch.setattr(driving, "crash_here", lose)
    found = replayed(parts, force=True)
    assert (found.counts.selected, found.counts.started, found.step) == (1, 1, 1)
    assert len(rows(parts, "runs")) == 2
    assert {row["state"] for row in rows(parts, "runs")} == {"done"}


def test_a_ledger_that_stays_away_ends_the_driver(
    parts: Wiring, lived: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived()

    def away(_: str) -> None:
        raise LedgerUnavailable("away")

    monkeypatch.setattr(driving, "crash_here", away)
    replay = begin(parts, request_of(force=True))
    with pytest.raises(LedgerUnavailable):
        drive(parts, replay)
    with parts.ledger.read() as connection:
        left = replays.load_replay(connection, replay.replay_id)
    assert (left.state, left.reason) == (ReplayState.FAILED, "LedgerUnavailable: away")


def test_what_is_recorded_after_the_start_is_not_selected(
    parts: Wiring, lived: Any, make_scan: Any
) -> None:
    lived(make_scan(1))
    replay = begin(parts, request_of(force=True))
    lived(make_scan(2))
    assert drive(parts, replay).counts.selected == 1


def test_pages_without_anything_selected_move_the_fraction(
    parts: Wiring, lived: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived()

    def empty(self: Any, after: Any) -> Iterator[Page]:
        yield Page([], {"event": 1})

    monkeypatch.setattr(ArchiveSource, "pages", empty)
    shown: list[float] = []
    drive(parts, begin(parts, request_of()), show=lambda item: shown.append(item.fraction))
    assert shown[0] == 1.0


def test_the_formats_of_a_run_are_all_by_default() -> None:
    assert request_of().formats is None
    assert set(FORMATS) <= set(DEFAULT_FORMATS)

"""The listener's loop on a real ledger and an in-process Redis: nothing lost, nobody blocked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy.exc import DataError
from structlog.testing import capture_logs

from listener import consumer, decode
from listener.consumer import Listener
from listener.decode import TRIMMED
from schemas.errors import BrokerUnavailable, LedgerUnavailable
from schemas.runs import RunTicket
from store import events, runs
from tasks.reports import assessed_report
from tasks.sweep import sweep_once

STREAM = "scans:events"
GROUP = "scanherald"


class Killed(BaseException):
    """What kill -9 leaves: no handler runs."""


class Stop(threading.Event):
    """Never really waits; each wait is counted and told to ``on_wait``."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0
        self.on_wait: Callable[[int], None] = lambda _: None

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += 1
        assert self.waits < 100, "waits for ever"
        self.on_wait(self.waits)
        return self.is_set()


class CountingHeart:
    """What the loop says of itself."""

    def __init__(self) -> None:
        self.beats: list[str | None] = []
        self.is_stopped = False

    def beat(self, waits_for: str | None = None, holds_s: float = 0.0) -> None:
        self.beats.append(waits_for)

    def stop(self) -> None:
        self.is_stopped = True


class Trial:
    """A listener that stops when it has read all there is."""

    def __init__(self, parts: Any, client: Any, join: Callable[..., Any]) -> None:
        self.parts = parts
        self.client = client
        self.join = join
        self.stop = Stop()
        self.heart: Any = CountingHeart()
        self.journal: list[tuple[str, Any]] = []
        self.on_dispatch: Callable[[list[RunTicket]], None] = lambda _: None
        self.logs: list[Any] = []
        self.depth = 0

    def listen(self, consumer: str = "one") -> None:
        streams = self.join(consumer, self.parts.settings.streams, now=False)
        read = streams.read_new

        def read_new(count: int, acks: Any = ()) -> list[Any]:
            found: list[Any] = read(count, acks)
            self.journal.append(("read", count))
            if not found:
                self.stop.set()
            return found

        streams.read_new = read_new
        self.stop.clear()
        with capture_logs() as self.logs:
            Listener(
                streams, self.parts, self._dispatch, lambda: self.depth, self.stop, self.heart
            ).run()

    def _dispatch(self, tickets: Any) -> None:
        self.journal.append(("dispatch", list(tickets)))
        self.on_dispatch(list(tickets))

    @property
    def dispatched(self) -> list[RunTicket]:
        return [ticket for what, seen in self.journal if what == "dispatch" for ticket in seen]

    def add(self, data: bytes, **attributes: Any) -> str:
        return str(self.client.xadd(STREAM, {"data": data, **attributes}).decode())

    def give(self, consumer: str = "one", count: int = 100) -> None:
        """Deliver what waits to a consumer that dies before it does anything."""
        self.join(consumer).read_new(count)

    def age(self, entry_id: str, owner: str = "one", deliveries: int = 1) -> None:
        self.client.xclaim(STREAM, GROUP, owner, 0, [entry_id], idle=600_000, retrycount=deliveries)

    def pending(self) -> int:
        return int(self.client.xpending(STREAM, GROUP)["pending"])

    def said(self, event: str) -> list[Any]:
        return [line for line in self.logs if line["event"] == event]


@pytest.fixture
def make_trial(
    make_parts: Callable[..., Any], client: Any, join: Callable[..., Any]
) -> Callable[..., Trial]:
    return lambda **settings: Trial(make_parts(**settings), client, join)


@pytest.fixture
def trial(make_trial: Callable[..., Trial]) -> Trial:
    return make_trial()


def break_ledger(parts: Any, should_fail: Callable[[], bool]) -> None:
    real = parts.ledger.write

    @contextmanager
    def write() -> Iterator[Any]:
        if should_fail():
            raise LedgerUnavailable("ledger: database is locked")
        with real() as connection:
            yield connection

    parts.ledger.migrate = lambda: None
    parts.ledger.write = write


def test_a_ledger_that_is_away_at_the_start_is_waited_for_before_anything_is_read(
    trial: Trial, make_scan: Any, rows: Any
) -> None:
    tries = iter([LedgerUnavailable("ledger: starting up")] * 3)

    def migrate() -> None:
        for error in tries:
            raise error

    trial.parts.ledger.migrate = migrate
    trial.add(make_scan())
    trial.stop.on_wait = lambda _: trial.journal.append(("wait", trial.client.exists(STREAM)))
    trial.listen()
    assert [what for what, _ in trial.journal] == ["wait"] * 3 + ["read", "dispatch", "read"]
    assert len(trial.said("ledger_unavailable")) == len(trial.said("ledger_back")) == 1


def test_a_published_scan_is_recorded_dispatched_and_acknowledged(
    trial: Trial, make_scan: Any, rows: Any
) -> None:
    trial.add(make_scan())
    trial.listen()
    (run,) = rows(trial.parts, "runs")
    assert run["state"] == "dispatched"
    assert [ticket.run_id for ticket in trial.dispatched] == [run["run_id"]]
    assert trial.pending() == 0


def test_dispatch_follows_record_and_precedes_the_next_read(
    trial: Trial, make_scan: Any, rows: Any
) -> None:
    seen: list[tuple[int, int]] = []
    trial.on_dispatch = lambda _: seen.append((len(rows(trial.parts, "runs")), trial.pending()))
    trial.add(make_scan())
    trial.listen()
    assert [what for what, _ in trial.journal] == ["read", "dispatch", "read"]
    assert seen == [(1, 1)], "recorded, and not acknowledged yet"


def test_an_entry_stays_pending_when_recording_fails(
    trial: Trial, make_scan: Any, rows: Any
) -> None:
    break_ledger(trial.parts, lambda: True)
    trial.stop.on_wait = lambda waits: trial.stop.set() if waits == 3 else None
    trial.add(make_scan())
    trial.listen()
    assert trial.pending() == 1
    assert rows(trial.parts, "events") == []
    assert trial.dispatched == []
    assert len(trial.said("stopped_while_waiting")) == 1


def test_an_entry_is_recorded_and_acknowledged_once_the_ledger_is_back(
    trial: Trial, make_scan: Any, rows: Any
) -> None:
    pending: list[int] = []
    trial.stop.on_wait = lambda _: pending.append(trial.pending())
    break_ledger(trial.parts, lambda: trial.stop.waits < 4)
    trial.add(make_scan())
    trial.listen()
    assert pending == [1, 1, 1, 1]
    assert trial.pending() == 0
    assert len(rows(trial.parts, "runs")) == len(trial.dispatched) == 1
    assert len(trial.said("ledger_unavailable")) == len(trial.said("ledger_back")) == 1


def test_a_broker_outage_leaves_the_run_to_the_sweep_and_the_stream_goes_on(
    trial: Trial, make_scan: Any, rows: Any, clock: Any, dispatched: list[RunTicket]
) -> None:
    def fail(_: list[RunTicket]) -> None:
        raise BrokerUnavailable("broker: refused")

    trial.on_dispatch = fail
    trial.add(make_scan())
    trial.listen()
    (run,) = rows(trial.parts, "runs")
    assert run["state"] == "recorded"
    assert trial.pending() == 0
    assert len(trial.said("dispatch_left_to_sweep")) == 1
    assert sweep_once(trial.parts)["runs"] == 0
    clock.forward(61)
    assert sweep_once(trial.parts)["runs"] == 1
    assert [(ticket.run_id, ticket.attempt) for ticket in dispatched] == [(run["run_id"], 2)]


def test_a_ledger_lost_after_dispatch_leaves_the_run_to_the_sweep(
    trial: Trial, make_scan: Any, rows: Any
) -> None:
    break_ledger(trial.parts, lambda: bool(trial.dispatched))
    trial.add(make_scan())
    trial.listen()
    assert [run["state"] for run in rows(trial.parts, "runs")] == ["recorded"]
    assert trial.pending() == 0


def test_own_pending_entries_are_taken_before_new_ones(trial: Trial, make_scan: Any) -> None:
    trial.add(make_scan(1))
    trial.give()
    trial.add(make_scan(2))
    trial.listen()
    assert [what for what, _ in trial.journal][:2] == ["dispatch", "read"]
    assert len(trial.dispatched) == 2
    assert trial.pending() == 0


def test_many_own_pending_entries_are_taken_page_by_page(
    make_trial: Any, make_scan: Any, rows: Any
) -> None:
    trial = make_trial(batch_entries=2)
    for number in range(1, 6):
        trial.add(make_scan(number))
    trial.give()
    trial.listen()
    assert len(rows(trial.parts, "runs")) == 5
    assert trial.pending() == 0


def test_a_dead_consumers_idle_entries_are_claimed(trial: Trial, make_scan: Any) -> None:
    entry_id = trial.add(make_scan())
    trial.give("dead")
    trial.age(entry_id, "dead")
    trial.listen()
    assert len(trial.dispatched) == 1
    assert trial.pending() == 0
    assert [line["entries"] for line in trial.said("entries_claimed")] == [1]


def test_a_living_consumers_fresh_entries_are_left_to_it(trial: Trial, make_scan: Any) -> None:
    trial.add(make_scan())
    trial.give("other")
    trial.listen()
    assert trial.dispatched == []
    assert trial.pending() == 1


def test_claims_go_on_through_all_idle_entries_as_time_passes(
    make_trial: Any, make_scan: Any, clock: Any
) -> None:
    trial = make_trial(batch_entries=1, claim_idle_ms=60_000)
    for number in range(1, 4):
        trial.add(make_scan(number))
    trial.give("dead")
    for row in trial.client.xpending_range(STREAM, GROUP, "-", "+", 10):
        trial.age(row["message_id"].decode(), "dead")
    trial.add(make_scan(4))
    trial.add(make_scan(5))
    trial.on_dispatch = lambda _: clock.forward(31)
    trial.listen()
    assert len(trial.dispatched) == 5
    assert trial.pending() == 0


def test_a_repeat_is_counted_and_wakes_nobody(trial: Trial, make_scan: Any, rows: Any) -> None:
    trial.add(make_scan())
    trial.add(make_scan())
    trial.listen()
    assert len(trial.dispatched) == 1
    assert [event["seen"] for event in rows(trial.parts, "events")] == [2]
    assert trial.pending() == 0


def test_an_entry_recorded_but_never_dispatched_is_dispatched_when_it_comes_back(
    trial: Trial, make_scan: Any, rows: Any
) -> None:
    def die(_: list[RunTicket]) -> None:
        raise Killed

    trial.on_dispatch = die
    trial.add(make_scan())
    with pytest.raises(Killed):
        trial.listen()
    assert trial.pending() == 1
    trial.on_dispatch = lambda _: None
    trial.journal.clear()
    trial.listen()
    assert [ticket.attempt for ticket in trial.dispatched] == [2], "ids are never used again"
    assert len(rows(trial.parts, "runs")) == 1
    assert trial.pending() == 0


def deep(depth: int) -> bytes:
    nested = b"[" * depth + b"]" * depth
    return (
        b'{"scan_id":"3176b0cd-199b-5ec6-b280-ec5c6e92338a","domain":"a.example",'
        b'"params":{"p":' + nested + b"}}"
    )


SOUND_ID = b'"scan_id":"3176b0cd-199b-5ec6-b280-ec5c6e92338a"'

BAD_INPUTS: dict[str, tuple[dict[str, bytes], str]] = {
    "not JSON": ({"data": b"{nope"}, "not JSON"),
    "not an object": ({"data": b"[1]"}, "object"),
    "wrong type of the id": ({"data": b'{"scan_id":7,"domain":"a.example"}'}, "scan_id"),
    "wrong type of the cookies": (
        {"data": b"{" + SOUND_ID + b',"domain":"a.example","cookies":"many"}'},
        "cookies",
    ),
    "missing scan_id": ({"data": b'{"domain":"a.example"}'}, "scan_id"),
    "missing domain": ({"data": b"{" + SOUND_ID + b"}"}, "domain"),
    "too large": ({"data": b'"' + b"x" * 5000 + b'"'}, "SCANHERALD_MAX_ENTRY_BYTES"),
    "unknown type": ({"type": b"scan.paused", "data": b"{}"}, "scan.paused"),
    "neither data nor dataref": ({"type": b"scan.completed"}, "neither `data` nor `dataref`"),
    "invalid UTF-8": ({"data": b'{"scan_id":"\xff\xfe"}'}, "UTF-8"),
    "an attribute in invalid UTF-8": ({"data": b"{}", "userid": b"\xff"}, "userid"),
    "structured mode that is not JSON": ({"event": b"<xml/>"}, "field `event` is not JSON"),
    "a time that is none": ({"data": b"{}", "type": b"scan.failed", "time": b"noon"}, "RFC 3339"),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_what_breaks_the_contract_becomes_a_dead_letter_with_reason_and_origin(
    make_trial: Any, make_scan: Any, rows: Any, name: str
) -> None:
    fields, words = BAD_INPUTS[name]
    trial = make_trial(max_entry_bytes=4096)
    entry_id = trial.client.xadd(STREAM, fields).decode()
    trial.add(make_scan())
    trial.listen()
    dead, sound = rows(trial.parts, "events")
    if dead["outcome"] != "dead":
        dead, sound = sound, dead
    assert dead["outcome"] == "dead"
    assert words in dead["reason"]
    assert (dead["stream"], dead["entry_id"]) == (STREAM, entry_id)
    assert sound["outcome"] == "pending"
    assert len(trial.dispatched) == 1
    assert trial.pending() == 0
    assert [line["entry_id"] for line in trial.said("entry_dead")] == [entry_id]


def test_ten_thousand_levels_of_nesting_are_a_dead_letter(trial: Trial, rows: Any) -> None:
    trial.add(deep(10_000))
    trial.listen()
    (dead,) = rows(trial.parts, "events")
    assert (dead["outcome"], "nested too deeply" in dead["reason"]) == ("dead", True)
    assert trial.pending() == 0


def test_sixty_thousand_cookies_are_accepted_and_the_report_marks_the_cut(
    trial: Trial, make_scan: Any
) -> None:
    cookies = [{"name": f"c{number}"} for number in range(60_000)]
    trial.add(make_scan(cookies=cookies))
    trial.listen()
    (ticket,) = trial.dispatched
    with trial.parts.ledger.read() as connection:
        run = runs.load_run(connection, ticket.run_id)
    report = assessed_report(trial.parts, run)
    assert len(report.cookies) == trial.parts.settings.max_cookies == 50_000
    (limit,) = (limit for limit in report.limits if limit.code == "cookies_cut")
    assert "60000" in limit.text.replace(",", "")
    assert report.score.value is None


def test_a_bug_in_decoding_costs_one_entry_and_is_logged_whole(
    trial: Trial, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = decode.decode_entry

    def decode_entry(fields: Any, *, max_bytes: int) -> Any:
        if b"bug" in fields:
            raise ZeroDivisionError("ours")
        return real(fields, max_bytes=max_bytes)

    monkeypatch.setattr(decode, "decode_entry", decode_entry)
    trial.add(make_scan(1), bug="1")
    trial.add(make_scan(2))
    trial.listen()
    reasons = [event["reason"] for event in rows(trial.parts, "events")]
    assert sorted(map(str, reasons)) == [
        "None",
        "internal error while decoding: ZeroDivisionError: ours",
    ]
    assert trial.said("decode_crashed")[0]["exc_info"] is True
    assert len(trial.dispatched) == 1


def test_a_pending_entry_that_was_trimmed_is_dead_with_what_to_do(
    trial: Trial, make_scan: Any, rows: Any
) -> None:
    trial.add(make_scan())
    trial.give()
    trial.client.xtrim(STREAM, maxlen=0)
    trial.listen()
    (dead,) = rows(trial.parts, "events")
    assert (dead["outcome"], dead["reason"]) == ("dead", TRIMMED)
    assert trial.pending() == 0


def test_a_trimmed_entry_that_had_been_recorded_is_no_dead_letter(
    trial: Trial, make_scan: Any, rows: Any
) -> None:
    def die(_: list[RunTicket]) -> None:
        raise Killed

    trial.on_dispatch = die
    trial.add(make_scan())
    with pytest.raises(Killed):
        trial.listen()
    trial.client.xtrim(STREAM, maxlen=0)
    trial.listen()
    assert [event["outcome"] for event in rows(trial.parts, "events")] == ["pending"]
    assert trial.pending() == 0


def test_a_flushed_server_gets_its_group_back_at_the_beginning(
    trial: Trial, make_scan: Any, rows: Any
) -> None:
    def flush(_: list[RunTicket]) -> None:
        if not trial.client.exists("flushed"):
            trial.client.flushall()
            trial.client.set("flushed", 1)
            trial.add(make_scan(2))

    trial.on_dispatch = flush
    trial.add(make_scan(1))
    trial.listen()
    assert len(rows(trial.parts, "runs")) == 2
    assert trial.pending() == 0
    assert len(trial.said("stream_lost")) == 1


def test_being_told_to_stop_finishes_the_batch_and_acknowledges_it(
    trial: Trial, make_scan: Any, rows: Any
) -> None:
    trial.on_dispatch = lambda _: trial.stop.set()
    trial.add(make_scan())
    trial.listen()
    assert [what for what, _ in trial.journal] == ["read", "dispatch"]
    assert [run["state"] for run in rows(trial.parts, "runs")] == ["dispatched"]
    assert trial.pending() == 0


def test_an_entry_delivered_often_is_buried_before_it_is_looked_at_and_exhumed_if_sound(
    trial: Trial, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[tuple[int, list[str]]] = []
    real = consumer.decode_batch

    def decode_batch(entries: Any, *, max_bytes: int) -> Any:
        outcomes = [event["outcome"] for event in rows(trial.parts, "events")]
        looks.append((len(entries), outcomes))
        return real(entries, max_bytes=max_bytes)

    monkeypatch.setattr(consumer, "decode_batch", decode_batch)
    suspect = trial.add(make_scan(1))
    trial.add(make_scan(2))
    trial.give()
    trial.age(suspect, deliveries=9)
    trial.listen()
    assert looks == [(1, []), (1, ["pending", "dead"])], "the other first, the suspect alone"
    assert [event["outcome"] for event in rows(trial.parts, "events")] == ["pending", "pending"]
    assert len(trial.dispatched) == 2
    assert trial.pending() == 0


def test_an_entry_that_kills_its_listener_is_set_aside_when_it_comes_back(
    trial: Trial, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(entries: Any, *, max_bytes: int) -> Any:
        raise Killed

    entry_id = trial.add(make_scan())
    trial.give()
    trial.age(entry_id, deliveries=9)
    monkeypatch.setattr(consumer, "decode_batch", die)
    for _ in range(consumer.LOOKS):
        with pytest.raises(Killed):
            trial.listen()
    trial.listen()  # would die again if it looked
    (dead,) = rows(trial.parts, "events")
    assert dead["outcome"] == "dead"
    assert "set aside after 5 deliveries" in dead["reason"]
    assert trial.pending() == 0


def test_a_suspect_whose_first_look_was_cut_short_is_looked_at_again(
    trial: Trial, make_scan: Any, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(entries: Any, *, max_bytes: int) -> Any:
        raise Killed

    entry_id = trial.add(make_scan())
    trial.give()
    trial.age(entry_id, deliveries=9)
    with monkeypatch.context() as patched:
        patched.setattr(consumer, "decode_batch", die)
        with pytest.raises(Killed):
            trial.listen()
    trial.listen()
    (event,) = rows(trial.parts, "events")
    assert event["outcome"] == "pending"
    assert len(rows(trial.parts, "runs")) == 1
    assert trial.pending() == 0


def test_a_suspect_that_breaks_the_contract_is_dead_for_its_own_reason(
    trial: Trial, rows: Any
) -> None:
    entry_id = trial.add(b"{nope")
    trial.give()
    trial.age(entry_id, deliveries=9)
    trial.listen()
    (dead,) = rows(trial.parts, "events")
    assert "not JSON" in dead["reason"]
    assert trial.pending() == 0


def test_a_claimed_entry_delivered_often_is_taken_alone_too(
    trial: Trial, make_scan: Any, rows: Any
) -> None:
    entry_id = trial.add(make_scan())
    trial.give("dead")
    trial.age(entry_id, "dead", deliveries=9)
    trial.listen()
    assert len(trial.said("suspect_taken")) == 1
    assert [event["outcome"] for event in rows(trial.parts, "events")] == ["pending"]
    assert trial.pending() == 0


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger that answers and refuses events of one user."""
    real = events.record_batch

    def record_batch(connection: Any, decoded: Any, *arguments: Any, **options: Any) -> Any:
        if any(item.event.userid == "refused" for item in decoded):
            raise DataError("INSERT INTO events", {}, ValueError("out of range"))
        return real(connection, decoded, *arguments, **options)

    monkeypatch.setattr(events, "record_batch", record_batch)


def test_a_batch_the_ledger_refuses_is_taken_one_by_one_and_only_the_culprit_buried(
    trial: Trial, make_scan: Any, rows: Any, refused: None
) -> None:
    trial.add(make_scan(1))
    culprit = trial.add(make_scan(2), userid="refused")
    trial.add(make_scan(3))
    trial.listen()
    found = rows(trial.parts, "events")
    assert sorted(event["outcome"] for event in found) == ["dead", "pending", "pending"]
    (dead,) = (event for event in found if event["outcome"] == "dead")
    assert dead["entry_id"] == culprit
    assert dead["reason"] == "the ledger refuses it: out of range"
    assert len(trial.dispatched) == 2
    assert trial.pending() == 0


def test_a_suspect_that_the_ledger_refuses_stays_buried_and_the_stream_goes_on(
    trial: Trial, make_scan: Any, rows: Any, refused: None
) -> None:
    culprit = trial.add(make_scan(1), userid="refused")
    trial.give()
    trial.age(culprit, deliveries=9)
    trial.add(make_scan(2))
    trial.listen()
    outcomes = {event["entry_id"] == culprit: event for event in rows(trial.parts, "events")}
    assert outcomes[True]["outcome"] == "dead"
    assert outcomes[False]["outcome"] == "pending"
    assert trial.pending() == 0


def test_the_count_adapts_to_the_bytes_of_the_last_batch(make_trial: Any) -> None:
    trial = make_trial(batch_entries=8, batch_bytes=2048)

    def add(number: int, size: int) -> None:
        data = json.dumps({"scan_id": f"s{number}", "pad": "x" * size}).encode()
        trial.add(data, type="scan.failed")

    for number in range(2):
        add(number, 200)
    for number in range(2, 8):
        add(number, 1000)
    for number in range(8, 12):
        add(number, 1)
    trial.listen()
    counts = [count for what, count in trial.journal if what == "read"]
    assert counts[0] == 1, "nothing is known of their weight: one first"
    assert counts[1] > 4, "small entries raise it"
    assert counts[2] == 2, "entries of 1 kB fill 2 kB: few at a time"
    assert counts[-1] > counts[2], "small entries raise it again"
    assert max(counts) <= 8
    assert len(trial.dispatched) == 12


def test_an_unavailable_redis_is_waited_for_and_reported_once(
    trial: Trial, make_scan: Any, server: Any
) -> None:
    def heal(waits: int) -> None:
        server.connected = waits >= 4

    trial.stop.on_wait = heal
    trial.add(make_scan())
    server.connected = False
    trial.listen()
    assert trial.stop.waits == 4
    assert len(trial.said("stream_unavailable")) == len(trial.said("stream_back")) == 1
    assert len(trial.dispatched) == 1
    assert trial.pending() == 0


def test_a_redis_lost_in_mid_run_costs_nothing(
    trial: Trial, make_scan: Any, rows: Any, server: Any
) -> None:
    def lose(_: list[RunTicket]) -> None:
        server.connected = False

    trial.on_dispatch = lose
    trial.stop.on_wait = lambda _: setattr(server, "connected", True)
    trial.add(make_scan())
    trial.listen()
    assert len(rows(trial.parts, "runs")) == 1
    assert trial.pending() == 0
    assert len(trial.said("stream_lost")) == 1


def test_an_unavailable_redis_does_not_keep_the_listener_from_stopping(
    trial: Trial, server: Any
) -> None:
    server.connected = False
    trial.stop.on_wait = lambda waits: trial.stop.set()
    trial.listen()
    assert [line["on"] for line in trial.said("stopped_while_waiting")] == ["stream"]
    assert len(trial.said("listener_stopped")) == 1


def test_above_the_high_water_mark_the_listener_reads_nothing_until_the_low_one(
    make_trial: Any, make_scan: Any, rows: Any
) -> None:
    trial = make_trial(reports_high_water=100, reports_low_water=20)
    trial.depth = 100
    depths = iter([99, 21, 20])
    seen: list[int] = []

    def work(_: int) -> None:
        seen.append(len(rows(trial.parts, "events")))
        trial.depth = next(depths)

    trial.stop.on_wait = work
    trial.add(make_scan())
    trial.listen()
    assert seen == [0, 0, 0]
    assert len(trial.dispatched) == 1
    assert len(trial.said("intake_paused")) == len(trial.said("intake_resumed")) == 1


def test_what_was_recorded_before_a_pause_is_acknowledged_during_it(
    make_trial: Any, make_scan: Any
) -> None:
    trial = make_trial(batch_entries=1, reports_high_water=4, reports_low_water=1)
    pending: list[int] = []

    def work(_: int) -> None:
        pending.append(trial.pending())
        trial.depth = 0

    def fill(_: Any) -> None:
        trial.depth = 4

    trial.on_dispatch = fill
    trial.stop.on_wait = work
    trial.add(make_scan(1))
    trial.add(make_scan(2))
    trial.listen()
    assert pending == [0, 0]
    assert len(trial.dispatched) == 2


def test_a_pause_can_be_ended_by_a_stop(make_trial: Any, make_scan: Any) -> None:
    trial = make_trial()
    trial.depth = 10_000
    trial.stop.on_wait = lambda _: trial.stop.set()
    trial.add(make_scan())
    trial.listen()
    assert trial.dispatched == []
    assert trial.said("listener_stopped")


def test_operators_are_told_of_entries_that_were_trimmed_unread(
    trial: Trial, make_scan: Any, rows: Any, subscribe: Any, published: list[Any]
) -> None:
    subscribe(trial.parts, "operator", events=("operator.alert",))
    entry_id = trial.add(make_scan())
    trial.give()
    trial.client.xtrim(STREAM, maxlen=0)
    trial.listen()
    (alert,) = trial.said("operator_alert")
    assert trial.said("entry_dead")
    assert (alert["kind"], alert["concerned"]) == ("entries_trimmed", [entry_id])
    (delivery,) = rows(trial.parts, "deliveries")
    assert [(row[0], row[1]) for row in published] == [(delivery["delivery_id"], 1)]


def test_housekeeping_that_fails_does_not_stop_the_intake(
    make_trial: Any, make_scan: Any, clock: Any
) -> None:
    trial = make_trial(batch_entries=1, housekeeping_s=10)  # the in-process server has no scripts
    trial.add(make_scan(1))
    trial.add(make_scan(2))
    trial.on_dispatch = lambda _: clock.forward(11)
    trial.listen()
    assert len(trial.dispatched) == 2
    assert len(trial.said("housekeeping_failed")) == 2
    assert trial.said("stream_lost") == []


def test_a_repeat_with_other_content_is_said_and_the_first_word_stands(
    trial: Trial, make_scan: Any, rows: Any
) -> None:
    trial.add(make_scan(1))
    trial.add(make_scan(1))
    trial.add(make_scan(1, page_count=9))
    trial.listen()
    (event,) = rows(trial.parts, "events")
    assert event["seen"] == 3
    assert [line["event_pk"] for line in trial.said("repeat_differs")] == [event["event_pk"]]


def test_no_scanner_can_publish_an_operators_alert(trial: Trial, rows: Any) -> None:
    trial.add(b"{}", type="operator.alert")
    trial.listen()
    (event,) = rows(trial.parts, "events")
    assert event["outcome"] == "dead"
    assert "'operator.alert' is not one of" in event["reason"]

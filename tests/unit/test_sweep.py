"""The sweep starts what should have happened and did not, once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import update
from structlog.testing import capture_logs

from schemas.errors import BrokerUnavailable
from schemas.runs import RunTicket
from store import runs, tables
from store.secrets import SecretBox
from tasks import chords
from tasks import sweep as sweeping
from tasks.finish import settle
from tasks.sweep import sweep, sweep_once

RETRY_LIMIT = "Retry limit exceeded while trying to reconnect to the Celery result store"

NOTHING = {"runs": 0, "deliveries": 0, "dead": 0}


def mark_dispatched(parts: Any, ticket: RunTicket, seconds: float) -> None:
    with parts.ledger.write() as connection:
        runs.mark_dispatched(connection, [ticket], parts.clock() + timedelta(seconds=seconds))


def test_a_recorded_run_is_left_to_its_listener_for_the_grace_and_then_dispatched(
    parts: Any, record: Any, make_scan: Any, clock: Any, dispatched: list[RunTicket]
) -> None:
    ticket = record(parts, make_scan())
    clock.forward(59)
    assert sweep_once(parts) == NOTHING
    clock.forward(1)
    assert sweep_once(parts) == {**NOTHING, "runs": 1}
    assert dispatched == [RunTicket(ticket.run_id, 2, ticket.formats, needs_data=False)]


def test_a_dispatched_run_has_until_its_deadline(
    parts: Any, record: Any, make_scan: Any, clock: Any, dispatched: list[RunTicket]
) -> None:
    mark_dispatched(parts, record(parts, make_scan()), 900)
    clock.forward(899)
    assert sweep_once(parts) == NOTHING
    clock.forward(1)
    assert sweep_once(parts)["runs"] == 1
    assert [ticket.attempt for ticket in dispatched] == [2]


def test_one_tick_after_the_other_starts_nothing_twice(
    parts: Any,
    record: Any,
    make_scan: Any,
    subscribe: Any,
    clock: Any,
    dispatched: list[RunTicket],
    published: list[Any],
) -> None:
    subscribe(parts)
    record(parts, make_scan())
    event = record(parts, b'{"error":"DNS"}', type="scan.failed")
    settle(parts, event.run_id, 1)
    clock.forward(61)
    assert sweep_once(parts) == {"runs": 1, "deliveries": 1, "dead": 0}
    assert sweep_once(parts) == NOTHING
    clock.forward(59)
    assert sweep_once(parts) == NOTHING
    assert (len(dispatched), len(published)) == (1, 1)


def test_a_run_that_waits_for_its_data_is_sent_by_the_fetch_again(
    parts: Any, record: Any, clock: Any, dispatched: list[RunTicket]
) -> None:
    record(parts, dataref="https://scans.example/1")
    clock.forward(61)
    sweep_once(parts)
    assert [ticket.needs_data for ticket in dispatched] == [True]


def test_a_settled_run_is_left_alone(
    parts: Any, record: Any, clock: Any, dispatched: list[RunTicket]
) -> None:
    ticket = record(parts, b'{"error":"DNS"}', type="scan.failed")
    settle(parts, ticket.run_id, 1)
    clock.forward(100_000)
    assert sweep_once(parts) == NOTHING
    assert dispatched == []


def test_after_the_cap_a_run_is_dead_with_its_last_error_and_an_alert(
    make_parts: Callable[..., Any],
    record: Any,
    make_scan: Any,
    rows: Any,
    clock: Any,
    dispatched: list[RunTicket],
) -> None:
    parts = make_parts(run_max_attempts=3)
    ticket = record(parts, make_scan())
    for _ in range(2):
        begin(parts, ticket.run_id)
        clock.forward(901)
        assert sweep_once(parts) == {**NOTHING, "runs": 1}
    settle(parts, ticket.run_id, 3)  # its formats are late: the attempt says why
    clock.forward(901)
    with capture_logs() as logs:
        assert sweep_once(parts) == {**NOTHING, "dead": 1}
    assert [line["run_id"] for line in logs if line["event"] == "run_dead"] == [ticket.run_id]
    assert [line["kind"] for line in logs if line["event"] == "operator_alert"] == ["runs_dead"]
    (run,), (event,) = rows(parts, "runs"), rows(parts, "events")
    assert (run["state"], event["outcome"]) == ("dead", "dead")
    assert event["reason"].startswith("gave up after 3 attempts: ")
    assert "not rendered yet" in event["reason"]
    clock.forward(100_000)
    assert sweep_once(parts) == NOTHING
    assert [item.attempt for item in dispatched] == [2, 3]


def begin(parts: Any, run_id: str) -> None:
    """A worker takes the run's attempt in hand, and is never heard of again."""
    with parts.ledger.write() as connection:
        run = runs.load_run(connection, run_id)
        runs.start_rendering(connection, run, run.formats, max_tries=99, now=parts.clock())


def test_attempts_that_no_worker_began_condemn_nobody(
    make_parts: Callable[..., Any],
    record: Any,
    make_scan: Any,
    rows: Any,
    clock: Any,
    dispatched: list[RunTicket],
) -> None:
    parts = make_parts(run_max_attempts=2)
    record(parts, make_scan())
    for _ in range(9):
        clock.forward(901)
        assert sweep_once(parts) == {**NOTHING, "runs": 1}
    assert rows(parts, "runs")[0]["state"] == "dispatched"
    assert [item.attempt for item in dispatched] == list(range(2, 11))


def test_a_run_whose_attempts_said_nothing_is_dead_with_a_reason_all_the_same(
    make_parts: Callable[..., Any], record: Any, make_scan: Any, rows: Any, clock: Any
) -> None:
    parts = make_parts(run_max_attempts=1)
    begin(parts, record(parts, make_scan()).run_id)
    clock.forward(61)
    assert sweep_once(parts)["dead"] == 1
    assert "its workers died or hung" in rows(parts, "events")[0]["reason"]


def test_a_due_delivery_that_nobody_started_is_started_under_its_number(
    parts: Any, record: Any, subscribe: Any, clock: Any, published: list[Any]
) -> None:
    subscribe(parts)
    ticket = record(parts, b'{"error":"DNS"}', type="scan.failed")
    (delivery,) = settle(parts, ticket.run_id, 1)
    clock.forward(59)
    assert sweep_once(parts) == NOTHING
    clock.forward(1)
    assert sweep_once(parts) == {**NOTHING, "deliveries": 1}
    assert published == [(delivery.delivery_id, 1, 0.0)]


def test_a_tick_is_bounded_and_the_next_one_goes_on(
    make_parts: Callable[..., Any],
    record: Any,
    make_scan: Any,
    clock: Any,
    dispatched: list[RunTicket],
) -> None:
    parts = make_parts(sweep_batch=2)
    known = {record(parts, make_scan(number)).run_id for number in range(1, 6)}
    clock.forward(61)
    assert [sweep_once(parts)["runs"] for _ in range(4)] == [2, 2, 1, 0]
    assert {ticket.run_id for ticket in dispatched} == known


def test_a_broker_outage_cuts_the_tick_short_and_a_later_one_starts_the_rest(
    parts: Any,
    record: Any,
    make_scan: Any,
    subscribe: Any,
    clock: Any,
    published: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: Any) -> None:
        raise BrokerUnavailable("broker: refused")

    subscribe(parts)
    record(parts, make_scan())
    event = record(parts, b'{"error":"DNS"}', type="scan.failed")
    settle(parts, event.run_id, 1)
    clock.forward(61)
    with monkeypatch.context() as patched:
        patched.setattr(sweeping, "dispatch", refuse)
        with capture_logs() as logs:
            sweep_once(parts)
    assert "sweep_cut_short" in [line["event"] for line in logs]
    assert published == []
    seen: list[RunTicket] = []
    monkeypatch.setattr(sweeping, "dispatch", seen.extend)
    clock.forward(901)
    assert sweep_once(parts) == {"runs": 1, "deliveries": 1, "dead": 0}
    assert [ticket.attempt for ticket in seen] == [3]
    assert len(published) == 1


def test_an_idle_tick_is_silent(parts: Any) -> None:
    with capture_logs() as logs:
        assert sweep.apply().get() == NOTHING
    assert [line for line in logs if line["event"] == "swept"] == []


def test_a_result_store_that_is_away_cuts_the_tick_short_too(
    parts: Any, record: Any, make_scan: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: RunTicket) -> None:
        try:
            raise RedisConnectionError("refused")
        except RedisConnectionError as error:
            raise RuntimeError(RETRY_LIMIT) from error

    monkeypatch.setattr(chords, "_chord", refuse)
    record(parts, make_scan())
    clock.forward(61)
    with capture_logs() as logs:
        sweep_once(parts)
    (cut_short,) = (line for line in logs if line["event"] == "sweep_cut_short")
    assert cut_short["error"] == "result store: ConnectionError: refused"


def test_a_bug_in_publishing_stays_loud(
    parts: Any, record: Any, make_scan: Any, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_: RunTicket) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(chords, "_chord", crash)
    record(parts, make_scan())
    clock.forward(61)
    with pytest.raises(RuntimeError, match="ours"):
        sweep_once(parts)


def die(parts: Any, clock: Any, record: Any, make_scan: Any, *numbers: int) -> None:
    """Let these scans' runs end dead in one sweep."""
    for number in numbers:
        begin(parts, record(parts, make_scan(number)).run_id)
    clock.forward(61)
    assert sweep_once(parts)["dead"] == len(numbers)


def test_operators_who_ask_for_alerts_are_told_at_the_first_and_the_tenth_of_an_hour(
    make_parts: Callable[..., Any],
    record: Any,
    make_scan: Any,
    rows: Any,
    clock: Any,
    subscribe: Any,
    dispatched: list[RunTicket],
    published: list[Any],
) -> None:
    parts = make_parts(run_max_attempts=1)
    subscribe(parts, "operator", events=("operator.alert",))
    subscribe(parts, "officer")
    told = []
    for numbers in ((1,), (2,), range(3, 15), (15,)):
        die(parts, clock, record, make_scan, *numbers)
        told.append(len(rows(parts, "deliveries")))
    assert told == [1, 1, 2, 2]
    clock.forward(3600)
    die(parts, clock, record, make_scan, 16)
    alerts = rows(parts, "deliveries")
    assert len(alerts) == 3, "another hour"
    assert {row["subscriber_id"] for row in alerts} == {"operator"}
    assert {row["delivery_id"] for row in alerts} == {row[0] for row in published}


def test_an_alert_that_nobody_listened_to_is_told_to_who_comes_later(
    make_parts: Callable[..., Any],
    record: Any,
    make_scan: Any,
    rows: Any,
    clock: Any,
    subscribe: Any,
    dispatched: list[RunTicket],
    published: list[Any],
) -> None:
    parts = make_parts(run_max_attempts=1)
    die(parts, clock, record, make_scan, 1)
    subscribe(parts, "operator", events=("operator.alert",))
    die(parts, clock, record, make_scan, 2)
    assert len(rows(parts, "deliveries")) == 1


def test_an_address_that_fits_no_key_does_not_stop_the_sweep(
    make_parts: Callable[..., Any],
    record: Any,
    make_scan: Any,
    rows: Any,
    clock: Any,
    subscribe: Any,
    dispatched: list[RunTicket],
) -> None:
    parts = make_parts(run_max_attempts=1)
    subscribe(parts, "operator", events=("operator.alert",))
    (parts.settings.data_dir / "secrets.key").unlink(missing_ok=True)
    parts._box = SecretBox([Fernet.generate_key().decode()])
    with parts.ledger.write() as connection:  # as a release before this one wrote it
        connection.execute(update(tables.subscribers).values(kinds=None))
    begin(parts, record(parts, make_scan(1)).run_id)
    late = record(parts, make_scan(2))
    clock.forward(61)
    with capture_logs() as logs:
        assert sweep_once(parts) == {"runs": 1, "deliveries": 0, "dead": 1}
    assert "operator_alert_untold" in [line["event"] for line in logs]
    assert [ticket.run_id for ticket in dispatched] == [late.run_id]
    assert sorted(run["state"] for run in rows(parts, "runs")) == ["dead", "dispatched"]


@pytest.mark.parametrize("full", ["reports", "notifications"])
def test_a_queue_that_is_deep_already_is_given_no_more(
    parts: Any,
    record: Any,
    make_scan: Any,
    subscribe: Any,
    clock: Any,
    rows: Any,
    dispatched: list[RunTicket],
    published: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    full: str,
) -> None:
    depth = {"reports": 0, "notifications": 0}
    monkeypatch.setattr(sweeping, "queue_depth", lambda name: depth[name])
    subscribe(parts)
    record(parts, make_scan())
    event = record(parts, b'{"error":"DNS"}', type="scan.failed")
    settle(parts, event.run_id, 1)
    clock.forward(61)
    depth[full] = parts.settings.reports_high_water
    found = sweep_once(parts)
    assert (found["runs"], found["deliveries"]) == ((0, 1) if full == "reports" else (1, 0))
    depth[full] -= 1
    found = sweep_once(parts)
    assert (found["runs"], found["deliveries"]) == ((1, 0) if full == "reports" else (0, 1))


def test_a_broker_that_cannot_be_asked_costs_no_run_an_attempt(
    parts: Any,
    record: Any,
    make_scan: Any,
    clock: Any,
    rows: Any,
    dispatched: list[RunTicket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(name: str) -> int:
        raise BrokerUnavailable("broker: refused")

    record(parts, make_scan())
    clock.forward(61)
    monkeypatch.setattr(sweeping, "queue_depth", away)
    assert sweep_once(parts) == NOTHING
    assert [row["attempt"] for row in rows(parts, "runs")] == [1]
    assert dispatched == []

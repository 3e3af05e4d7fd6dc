"""Cancelling runs: the ledger decides, the tasks are told, and everything stays accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from kombu.exceptions import OperationalError
from sqlalchemy import select, update
from typer.testing import CliRunner

from cli.main import app
from schemas.audit import Audit
from schemas.errors import InvalidSettings, NotFound
from schemas.events import EventType
from store import tables
from store.audit import LedgerAudit
from store.decisions import read_decision
from store.runs import dead_runs, load_run, revive, settle_dead
from tasks import wiring
from tasks.cancelling import Cancelling, cancel
from tasks.explaining import explain
from tasks.finish import settle
from tasks.reports import render_formats
from tasks.sweep import sweep_once

CANCELLED = "cancelled: a trial"


@pytest.fixture
def revoked(broker: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of tasks that workers were told to leave."""
    told: list[str] = []
    monkeypatch.setattr(broker.control, "revoke", told.extend)
    return told


@pytest.fixture
def audited(parts: Any) -> Callable[[], Audit]:
    """The audit of the ledger; no gap is allowed."""

    def audited() -> Audit:
        audit = Audit()
        told = LedgerAudit(
            parts.ledger,
            audit,
            since=None,
            overdue_before=parts.clock() - timedelta(hours=1),
            progress=lambda *_: None,
        )
        told.events()
        told.runs()
        told.reports(None)
        told.deliveries()
        assert audit.gaps == []
        return audit

    return audited


def states(parts: Any, rows: Any, name: str) -> list[str]:
    return [row["state"] for row in rows(parts, name)]


def test_an_unfinished_run_ends_and_nothing_starts_it_again(
    parts: Any,
    record: Any,
    make_scan: Any,
    rows: Any,
    clock: Any,
    revoked: list[str],
    dispatched: list[Any],
    audited: Any,
) -> None:
    ticket = record(parts, make_scan())
    outcome = cancel(parts, [ticket.run_id], "a trial")
    assert outcome.cancelled == [ticket.run_id]
    (run,) = rows(parts, "runs")
    assert (run["state"], run["last_error"], run["deadline"]) == ("cancelled", CANCELLED, None)
    (event,) = rows(parts, "events")
    assert (event["outcome"], event["reason"]) == ("cancelled", CANCELLED)
    assert f"{ticket.run_id}:finish:a1" in revoked
    assert f"{ticket.run_id}:pdf:a1" in revoked
    assert f"{ticket.run_id}:pdf+html+json+csv:a1" in revoked
    assert len(revoked) == 7
    clock.forward(100_000)
    assert sweep_once(parts)["runs"] == 0
    assert audited().sums["runs"]["cancelled"] == 1
    assert audited().sums["events"]["cancelled"] == 1


def test_tasks_that_start_after_all_do_nothing(
    parts: Any, record: Any, make_scan: Any, subscribe: Any, rows: Any, revoked: list[str]
) -> None:
    subscribe(parts)
    ticket = record(parts, make_scan())
    render_formats(parts, ticket.run_id, ticket.formats[:1])
    cancel(parts, [ticket.run_id], "a trial")
    left = render_formats(parts, ticket.run_id, ticket.formats[1:])
    assert set(left.values()) == {"cancelled"}
    assert settle(parts, ticket.run_id, 1) == []
    assert len(rows(parts, "reports")) == 1
    assert rows(parts, "deliveries") == []


def test_a_body_that_settled_first_wins_and_what_it_planned_is_not_sent(
    parts: Any,
    record: Any,
    subscribe: Any,
    rows: Any,
    clock: Any,
    revoked: list[str],
    published: list[Any],
    audited: Any,
) -> None:
    for name in ("anna", "bert", "carl"):
        subscribe(parts, name)
    ticket = record(parts, b'{"error":"DNS"}', type="scan.failed")
    settle(parts, ticket.run_id, 1)
    with parts.ledger.write() as connection:
        ids = list(connection.execute(select(tables.deliveries.c.delivery_id)).scalars())
        for delivery_id, state in zip(ids, ("pending", "held", "sending"), strict=True):
            connection.execute(
                update(tables.deliveries)
                .where(tables.deliveries.c.delivery_id == delivery_id)
                .values(state=state)
            )
    outcome = cancel(parts, [ticket.run_id], "a trial")
    assert (outcome.cancelled, outcome.ended_before) == ([], [ticket.run_id])
    assert (outcome.suppressed, outcome.in_hand, outcome.nothing_left) == (2, 1, [])
    assert sorted(states(parts, rows, "deliveries")) == ["sending", "suppressed", "suppressed"]
    assert states(parts, rows, "runs") == ["done"]
    assert revoked == []
    audited()
    again = cancel(parts, [ticket.run_id], "a trial")
    assert (again.suppressed, again.nothing_left) == (0, [ticket.run_id])


def test_what_a_digest_tells_of_is_left_to_it(
    parts: Any, record: Any, subscribe: Any, rows: Any, revoked: list[str]
) -> None:
    subscribe(parts)
    ticket = record(parts, b'{"error":"DNS"}', type="scan.failed")
    settle(parts, ticket.run_id, 1)
    with parts.ledger.write() as connection:
        connection.execute(
            update(tables.deliveries).values(state="held", merged_into="a digest's delivery")
        )
    outcome = cancel(parts, [ticket.run_id], "a trial")
    assert (outcome.suppressed, outcome.in_hand) == (0, 1)
    assert states(parts, rows, "deliveries") == ["held"]


def test_a_cancelled_run_may_be_taken_up_again_by_its_id(
    parts: Any,
    record: Any,
    make_scan: Any,
    rows: Any,
    clock: Any,
    revoked: list[str],
    dispatched: list[Any],
    audited: Any,
) -> None:
    ticket = record(parts, make_scan())
    render_formats(parts, ticket.run_id, ticket.formats[:1])
    cancel(parts, [ticket.run_id], "a trial")
    with parts.ledger.write() as connection:
        assert dead_runs(connection, clock(), 9) == []
        assert revive(connection, [ticket.run_id], clock()) == [ticket.run_id]
    sweep_once(parts)
    (again,) = dispatched
    assert (again.run_id, again.attempt) == (ticket.run_id, 2)
    render_formats(parts, again.run_id, again.formats)
    settle(parts, again.run_id, 2)
    assert states(parts, rows, "runs") == ["done"]
    audited()


def test_an_event_that_was_reported_stays_done_when_its_replay_is_cancelled(
    parts: Any, record: Any, rows: Any, revoked: list[str], audited: Any
) -> None:
    ticket = record(parts, b'{"error":"DNS"}', type="scan.failed")
    settle(parts, ticket.run_id, 1)
    with parts.ledger.write() as connection:
        (row,) = connection.execute(select(tables.runs)).mappings()
        replayed = {"run_id": "replayed", "kind": "replay", "state": "recorded", "attempt": 1}
        connection.execute(tables.runs.insert().values({**row, **replayed}))
        connection.execute(update(tables.events).values(outcome="pending"))
    cancel(parts, ["replayed"], "a trial")
    (event,) = rows(parts, "events")
    assert event["outcome"] == "done"
    assert event["reason"].endswith("; a replay was cancelled: a trial")
    audited()


def test_an_event_with_another_run_under_way_says_nothing_yet(
    parts: Any, record: Any, rows: Any, revoked: list[str]
) -> None:
    ticket = record(parts, b'{"error":"DNS"}', type="scan.failed")
    with parts.ledger.write() as connection:
        (row,) = connection.execute(select(tables.runs)).mappings()
        connection.execute(tables.runs.insert().values({**row, "run_id": "second"}))
    cancel(parts, [ticket.run_id], "a trial")
    assert [row["outcome"] for row in rows(parts, "events")] == ["pending"]


def test_a_broker_that_is_away_leaves_the_ledgers_word(
    parts: Any, record: Any, make_scan: Any, rows: Any, broker: Any, monkeypatch: Any
) -> None:
    def away(_: Any) -> None:
        raise OperationalError("refused")

    monkeypatch.setattr(broker.control, "revoke", away)
    outcome = cancel(parts, [record(parts, make_scan()).run_id], "a trial")
    assert outcome.not_revoked == "broker: OperationalError: refused"
    assert states(parts, rows, "runs") == ["cancelled"]


def test_why_tells_that_it_was_cancelled(
    parts: Any, record: Any, make_scan: Any, subscribe: Any, revoked: list[str], clock: Any
) -> None:
    subscribe(parts)
    ticket = record(parts, make_scan())
    cancel(parts, [ticket.run_id], "a trial")
    with parts.ledger.read() as connection:
        run = load_run(connection, ticket.run_id)
        decision = read_decision(connection, "anna", ticket.run_id)
    steps = explain(decision, clock(), parts.settings)
    assert run.event_type is EventType.SCAN_COMPLETED
    assert steps[0].text == (
        f"the run {ticket.run_id} of scan.completed tells nothing: {CANCELLED}; "
        f"again: scanherald runs retry {ticket.run_id}"
    )


# The command


@pytest.fixture
def command(
    parts: Any, revoked: list[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Cancel by command; returns its JSON."""
    monkeypatch.setattr("tasks.logs.configure_logs", lambda _: None)  # of the whole process
    monkeypatch.setattr(wiring, "use", lambda _: None)
    monkeypatch.setattr(parts, "close", lambda: None)
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(parts.settings.data_dir))

    def command(*arguments: str) -> dict[str, Any]:
        given = ["runs", "cancel", *arguments, "--yes", "--json"]
        result = CliRunner().invoke(app, given, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        said: dict[str, Any] = json.loads(result.stdout)
        return said

    return command


def test_runs_are_cancelled_by_domain(
    parts: Any, record: Any, make_scan: Any, command: Any, monkeypatch: Any, clock: Any
) -> None:
    monkeypatch.setattr("cli.runs.BATCH", 2)
    runs = {
        name: record(parts, make_scan(number, domain=name)).run_id
        for number, name in enumerate(("a.test", "b.test", "c.example", "d.test"))
    }
    with parts.ledger.write() as connection:
        settle_dead(connection, runs["d.test"], "why", clock())
    said = command("--domain", "A.*", "--domain", "*.test", "--reason", "a trial")
    assert sorted(said["cancelled"]) == sorted([runs["a.test"], runs["b.test"]])
    assert command("--domain", "*.test")["cancelled"] == []


def test_the_command_says_what_it_did_and_did_not(
    parts: Any, record: Any, make_scan: Any, command: Any
) -> None:
    ticket = record(parts, make_scan())
    given = ["runs", "cancel", ticket.run_id, "nonsense", "--yes"]
    result = CliRunner().invoke(app, given)
    assert isinstance(result.exception, NotFound)
    assert "no such runs: nonsense" in str(result.exception)
    assert result.stdout.startswith("1 runs cancelled, 0 deliveries suppressed.")
    result = CliRunner().invoke(app, ["runs", "cancel", ticket.run_id, "--yes"])
    assert "1 runs had ended with nothing left to cancel." in result.stdout


def test_it_asks_first_and_wants_runs_or_domains(parts: Any, record: Any, command: Any) -> None:
    run_id = record(parts, b"{}", type="scan.failed").run_id
    for arguments in ((run_id,), (), (run_id, "--domain", "*", "--yes")):
        result = CliRunner().invoke(app, ["runs", "cancel", *arguments])
        assert isinstance(result.exception, InvalidSettings)


def test_an_outcome_names_the_runs_that_there_are() -> None:
    assert Cancelling(["a"], ["b"]).known == {"a", "b"}

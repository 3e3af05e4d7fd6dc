"""What monitors ask of the ledger, on each database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from listener.tally import LATE, Tally
from store import tables
from store.figures import OUTCOMES, save_statistics
from store.gauges import (
    attempt_totals,
    count_ended,
    events_since,
    last_errors,
    read_gauges,
    render_totals,
)
from store.ledger import Ledger

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def event(key: int, outcome: str, *, letter: bool = False, minutes: float = 1) -> dict[str, Any]:
    return {
        "event_pk": key,
        "source": "redis\tscans:events" if letter else "",
        "event_id": f"e{key}",
        "stream": "scans:events",
        "entry_id": f"{key}-0",
        "payload_size": 0,
        "payload_sha256": "",
        "outcome": outcome,
        "reason": "it broke" if outcome == "dead" else None,
        "seen": 1,
        "recorded_at": ago(minutes),
    }


def run(key: int, state: str, **fields: Any) -> dict[str, Any]:
    return {
        "run_id": f"r{key}",
        "event_pk": key,
        "kind": "live",
        "state": state,
        "attempt": 1,
        "deadline": None,
        "formats": [],
        "inputs": {},
        "last_error": None,
        "created_at": ago(key),
        "settled_at": None,
        **fields,
    }


def delivery(key: int, channel: str, state: str, due: float = 1) -> dict[str, Any]:
    return {
        "delivery_id": f"d{key}",
        "subscriber_id": f"s{key}",
        "channel": channel,
        "event_key": "k",
        "state": state,
        "tries": 0,
        "due_at": ago(due),
        "reason": "refused" if state == "failed" else None,
        "created_at": ago(due),
        "settled_at": ago(due) if state == "failed" else None,
    }


def attempt(key: int, number: int, outcome: str, ms: float = 20.0) -> dict[str, Any]:
    return {
        "attempt_pk": key,
        "delivery_id": f"d{number}",
        "number": 1,
        "started_at": ago(1),
        "duration_ms": ms,
        "outcome": outcome,
    }


def report(name: str, key: int, status: str, ms: float | None) -> dict[str, Any]:
    return {
        "report_id": f"{key}.{name}",
        "scan_id": f"{key}",
        "format": name,
        "language": "en",
        "run_id": f"r{key}",
        "tries": 1,
        "status": status,
        "render_ms": ms,
        "created_at": ago(2),
        "ready_at": ago(1) if status == "ready" else None,
    }


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    with ledger.write() as connection:
        for table, rows in (
            (
                tables.events,
                [
                    event(1, "pending"),
                    event(2, "pending"),
                    event(3, "done"),
                    event(4, "dead"),
                    event(5, "dead", letter=True, minutes=90),
                ],
            ),
            (
                tables.runs,
                [
                    run(1, "recorded", deadline=NOW),
                    run(2, "dispatched", deadline=NOW, last_error="late"),
                    run(3, "done", settled_at=NOW),
                    run(4, "dead", settled_at=ago(3), last_error="gave up"),
                ],
            ),
            (
                tables.notifications,
                [
                    {
                        "event_key": "k",
                        "type": "scan.completed",
                        "severity": "info",
                        "content": b"",
                        "created_at": NOW,
                    }
                ],
            ),
            (
                tables.deliveries,
                [
                    delivery(1, "email", "pending", due=7),
                    delivery(2, "email", "held", due=-60),
                    delivery(3, "webhook", "sending"),
                    delivery(4, "webhook", "sent"),
                    delivery(5, "webhook", "failed"),
                    delivery(6, "slack", "suppressed"),
                    delivery(7, "slack", "pending", due=-1),
                ],
            ),
            (tables.attempts, [attempt(1, 4, "sent"), attempt(2, 5, "failed", 40.0)]),
            (
                tables.reports,
                [
                    report("pdf", 1, "ready", 30.0),
                    report("pdf", 2, "ready", 50.0),
                    report("csv", 1, "failed", None),
                ],
            ),
            (
                tables.endpoints,
                [
                    {"subscriber_id": "s1", "channel": "email", "disabled_at": NOW},
                    {"subscriber_id": "s2", "channel": "email", "disabled_at": None},
                ],
            ),
        ):
            connection.execute(insert(table), rows)
        save_statistics(connection, "celery_health", {}, ago(4))
        save_statistics(connection, "tasks", {}, NOW)
    return ledger


def test_what_is_open(filled: Ledger) -> None:
    with filled.read() as connection:
        found = read_gauges(connection, NOW)
    assert found.runs == {"recorded": 1, "dispatched": 1, "dead": 1}
    assert found.oldest_unfinished == ago(2)
    assert found.dead_letters == 1
    assert found.deliveries == {
        ("email", "pending"): 1,
        ("email", "held"): 1,
        ("webhook", "sending"): 1,
        ("slack", "pending"): 1,
    }
    assert found.oldest_due == ago(7)
    assert found.disabled_addresses == {"email": 1}
    assert found.beat_ticked == ago(4)


def test_an_empty_ledger_has_nothing_open(ledger: Ledger) -> None:
    with ledger.read() as connection:
        found = read_gauges(connection, NOW)
        ended = count_ended(connection)
        assert last_errors(connection, 5) == []
    assert found.runs == {"recorded": 0, "dispatched": 0, "dead": 0}
    assert (found.oldest_unfinished, found.oldest_due, found.beat_ticked) == (None, None, None)
    assert ended.deliveries == {"sent": 0, "failed": 0, "suppressed": 0}


def test_what_has_ended(filled: Ledger) -> None:
    with filled.read() as connection:
        ended = count_ended(connection)
    assert ended.runs == {"done": 1, "cancelled": 0}
    assert ended.deliveries == {"sent": 1, "failed": 1, "suppressed": 1}


def test_what_happened_lately(filled: Ledger) -> None:
    with filled.read() as connection:
        found = events_since(connection, ago(5))
        assert {outcome: count for outcome, count in found.items() if count} == {
            "pending": 2,
            "done": 1,
            "dead": 1,
        }
        assert set(found) == set(OUTCOMES)
        renders = {(t.name, t.outcome): t for t in render_totals(connection, ago(5))}
        tries = {(t.name, t.outcome): t for t in attempt_totals(connection, ago(5))}
        assert render_totals(connection, NOW) == []
    assert (renders["pdf", "ready"].count, renders["pdf", "ready"].mean_ms) == (2, 40.0)
    assert renders["pdf", "ready"].longest_ms == 50.0
    assert renders["csv", "failed"].mean_ms is None
    assert {key: total.count for key, total in tries.items()} == {
        ("webhook", "sent"): 1,
        ("webhook", "failed"): 1,
    }


def test_the_last_errors_come_newest_first(filled: Ledger) -> None:
    with filled.read() as connection:
        found = last_errors(connection, 10)
        assert len(last_errors(connection, 2)) == 2
    assert [(row["what"], row["identity"], row["error"]) for row in found] == [
        ("webhook", "d5", "refused"),
        ("run", "r2", "late"),
        ("scans:events", "r4", "it broke"),
        ("scans:events", "5-0", "it broke"),
    ]


def test_each_row_is_counted_once_also_one_that_appears_late(filled: Ledger) -> None:
    tally = Tally()

    def look(seconds: float) -> None:
        with filled.read() as connection:
            tally.look(connection, NOW + timedelta(seconds=seconds))

    look(0)
    for seconds, key in ((5, 12), (10, 10), (15, 11)):  # committed in another order than numbered
        with filled.write() as connection:
            connection.execute(insert(tables.attempts), [attempt(key, 4, "sent")])
        look(seconds)
        look(seconds + 1)
    assert tally.attempts["webhook", "sent"] == 3
    with filled.write() as connection:
        connection.execute(tables.attempts.delete())
    look(20 + LATE.total_seconds())
    with filled.write() as connection:  # SQLite begins its numbers again
        connection.execute(insert(tables.attempts), [attempt(1, 4, "sent")])
    look(25 + LATE.total_seconds())
    assert tally.attempts["webhook", "sent"] == 4
    assert tally.sends["webhook"].cumulative[-1] == ("+Inf", 4.0)

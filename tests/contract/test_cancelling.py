"""Cancelling against the body of the same run, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import insert, select

from schemas.events import EventType, decode_entry
from schemas.notifications import ChannelAddress, ChannelKind, Notification
from schemas.reports import Format, Severity
from schemas.runs import DecodedEntry, Entry
from store import tables
from store.cancelling import cancel_run, list_cancellable, unsettled_of_replay
from store.deliveries import Recipient, plan_deliveries, save_notification
from store.events import RunDefaults, record_batch
from store.ledger import Ledger
from store.runs import load_run, revive, settle_dead, settle_done
from store.secrets import SecretBox

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
BOX = SecretBox([Fernet.generate_key().decode()])
DEFAULTS = RunDefaults(formats=(Format.PDF,), language="en", rule_pack="eu-baseline")
HOOK = ChannelAddress(kind=ChannelKind.WEBHOOK, target="https://h.example/hook")


def record(ledger: Ledger, number: int, minutes: int = 0) -> str:
    """A run of a failed scan."""
    fields = {b"type": b"scan.failed", b"data": b"{}", b"id": str(number).encode()}
    entry = Entry("scans:events", f"{number}-0", fields)
    now = NOW + timedelta(minutes=minutes)
    with ledger.write() as connection:
        recorded = record_batch(
            connection,
            [DecodedEntry(entry, decode_entry(entry.fields, max_bytes=10_000))],
            [],
            defaults=DEFAULTS,
            now=now,
            dispatch_by=now,
            new_id=lambda: str(uuid4()),
        )
    return recorded.tickets[0].run_id


def settle(ledger: Ledger, run_id: str) -> bool:
    """What the body does: settle, and plan a delivery in the same transaction."""
    news = Notification(
        event_key=f"scan.failed:{run_id}",
        type=EventType.SCAN_FAILED,
        occurred_at=NOW,
        domain=None,
        scan_id=None,
        severity=Severity.HIGH,
        title="",
        summary="",
    )
    with ledger.read() as connection:
        run = load_run(connection, run_id)
    with ledger.write() as connection:
        if not settle_done(connection, run, NOW, score=None, summary=""):
            return False
        save_notification(connection, news, run_id, NOW)
        plan_deliveries(
            connection,
            news.event_key,
            [Recipient("one", HOOK, keep_address=True)],
            now=NOW,
            started_by=NOW,
            new_id=lambda: str(uuid4()),
            box=BOX,
        )
    return True


def cancel(ledger: Ledger, run_id: str) -> bool:
    with ledger.write() as connection:
        found = cancel_run(connection, run_id, "a trial", NOW)
    assert found is not None
    return found.attempt is not None


def test_of_a_body_and_a_cancelling_at_once_one_wins_and_nothing_is_sent(ledger: Ledger) -> None:
    run_ids = [record(ledger, number) for number in range(20)]
    start = threading.Barrier(2)

    def each(work: object) -> list[bool]:
        done = []
        for run_id in run_ids:
            start.wait(30)
            done.append(work(ledger, run_id))  # type: ignore[operator]
        return done

    with ThreadPoolExecutor(2) as pool:
        settled, cancelled = pool.map(each, (settle, cancel))
    assert all(one != other for one, other in zip(settled, cancelled, strict=True))
    with ledger.read() as connection:
        states = connection.execute(select(tables.deliveries.c.state)).scalars().all()
        ended = dict(connection.execute(select(tables.runs.c.run_id, tables.runs.c.state)).all())
    assert set(states) <= {"suppressed"}
    assert len(states) == sum(settled)
    assert [ended[run_id] for run_id in run_ids] == [
        "done" if one else "cancelled" for one in settled
    ]


def test_an_unknown_run_is_none(ledger: Ledger) -> None:
    with ledger.write() as connection:
        assert cancel_run(connection, "nonsense", "a trial", NOW) is None


@pytest.mark.parametrize("limit", [1, 2, 9])
def test_what_can_be_cancelled_is_listed_page_by_page(ledger: Ledger, limit: int) -> None:
    run_ids = [record(ledger, number, minutes=number // 2) for number in range(5)]
    settle(ledger, run_ids[1])
    settle(ledger, run_ids[2])
    cancel(ledger, run_ids[2])  # its delivery
    cancel(ledger, run_ids[3])
    found: list[str] = []
    after = None
    while True:
        with ledger.read() as connection:
            page = list_cancellable(connection, after=after, limit=limit)
        found += [row["run_id"] for row in page]
        if len(page) < limit:
            break
        after = (page[-1]["created_at"], page[-1]["run_id"])
    assert sorted(found) == sorted([run_ids[0], run_ids[1], run_ids[4]])
    assert found[-1] == run_ids[4]


def test_what_ended_before_a_replay_of_it_was_cancelled_stays_so(ledger: Ledger) -> None:
    done, dead, neither = (record(ledger, number) for number in range(3))
    settle(ledger, done)
    with ledger.write() as connection:
        settle_dead(connection, dead, "a bad disk", NOW)
        for number, run_id in enumerate((done, dead, neither)):
            event_pk = load_run(connection, run_id).event_pk
            values = {"formats": [], "inputs": {}, "created_at": NOW, "attempt": 1}
            connection.execute(
                insert(tables.runs).values(
                    run_id=f"again-{number}",
                    event_pk=event_pk,
                    kind="replay",
                    state="dispatched",
                    replay_id="r-1",
                    **values,
                )
            )
        cancel_run(connection, neither, "a trial", NOW)
        assert sorted(unsettled_of_replay(connection, "r-1")) == ["again-0", "again-1", "again-2"]
        for number in range(3):
            assert cancel_run(connection, f"again-{number}", "a trial", NOW) is not None
        assert unsettled_of_replay(connection, "r-1") == []
        outcomes = connection.execute(
            select(tables.events.c.outcome, tables.events.c.reason).order_by("event_pk")
        ).all()
    assert [outcome for outcome, _ in outcomes] == ["done", "dead", "cancelled"]
    assert outcomes[1][1] == "a bad disk; a replay was cancelled: a trial"


def test_a_cancelled_run_that_is_taken_up_again_is_pending_as_its_event_is(ledger: Ledger) -> None:
    run_id = record(ledger, 1)
    cancel(ledger, run_id)
    with ledger.write() as connection:
        assert revive(connection, [run_id], NOW) == [run_id]
        outcome = connection.execute(select(tables.events.c.outcome)).scalar_one()
    assert outcome == "pending"

"""Deliveries that wait, asked of SQLite and of PostgreSQL alike: two sweeps, late comers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from cryptography.fernet import Fernet
from sqlalchemy import select

from schemas.events import EventType
from schemas.notifications import (
    ChannelAddress,
    ChannelKind,
    HeldFor,
    Hold,
    Notification,
    Subscriber,
)
from schemas.reports import Severity
from store import deliveries, held, tables
from store.deliveries import Recipient
from store.held import DueDigest
from store.ledger import Ledger
from store.secrets import SecretBox
from store.subscribers import remove_subscriber, save_subscriber
from store.tries import find_due, hold_back

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
DUE = NOW + timedelta(hours=1)
BOX = SecretBox([Fernet.generate_key().decode()])


def news(key: str, severity: Severity = Severity.LOW) -> Notification:
    return Notification(
        event_key=key,
        type=EventType.SCAN_COMPLETED,
        occurred_at=NOW,
        domain=None,
        scan_id=None,
        severity=severity,
        title=key,
        summary="s",
    )


def hold(ledger: Ledger, key: str, held_for: HeldFor = HeldFor.DIGEST, **more: Any) -> None:
    waits = Hold(until=DUE, held_for=held_for, reason="as wished")
    address = ChannelAddress(kind=more.pop("kind", ChannelKind.EMAIL), target="a@example.org")
    with ledger.write() as connection:
        deliveries.save_notification(
            connection, news(key, more.pop("severity", Severity.LOW)), None, NOW
        )
        started = deliveries.plan_deliveries(
            connection,
            key,
            [Recipient(more.pop("name", "anna"), address, hold=waits, **more)],
            now=NOW,
            started_by=NOW,
            new_id=lambda: str(uuid4()),
            box=BOX,
        )
    assert started == []


def states(ledger: Ledger) -> dict[str, str]:
    with ledger.read() as connection:
        found = connection.execute(select(tables.deliveries.c.event_key, tables.deliveries.c.state))
        return dict(found.all())


def merge(ledger: Ledger, now: datetime = DUE) -> list[int]:
    """What one sweep does about digests; returns how many each tells of."""
    told = []
    with ledger.write() as connection:
        for due in held.due_digests(connection, now, 100):
            digest_id = str(uuid4())
            merged = held.merge_members(connection, due, digest_id, now, 2)
            if merged.total:
                held.save_digest(connection, due, digest_id, now, news)
                told.append(merged.total)
    return told


def test_what_waits_is_claimed_by_nobody_before_its_time(ledger: Ledger) -> None:
    hold(ledger, "k:1", HeldFor.QUIET_HOURS)
    with ledger.write() as connection:
        assert held.release_held(connection, DUE - timedelta(microseconds=1), 9) == 0
        assert deliveries.claim_due(connection, DUE, started_by=DUE, limit=9) == []
    with ledger.write() as connection:
        assert held.release_held(connection, DUE, 9) == 1
        assert len(deliveries.claim_due(connection, DUE, started_by=DUE, limit=9)) == 1
        assert held.release_held(connection, DUE, 9) == 0


def test_no_more_are_released_than_the_limit(ledger: Ledger) -> None:
    for number in range(3):
        hold(ledger, f"k:{number}", HeldFor.QUIET_HOURS)
    with ledger.write() as connection:
        assert held.release_held(connection, DUE, 0) == 0
        assert held.release_held(connection, DUE, 2) == 2
    assert sorted(states(ledger).values()) == ["held", "pending", "pending"]


def test_a_try_that_must_wait_gives_its_number_back(ledger: Ledger) -> None:
    hold(ledger, "k:1", HeldFor.QUIET_HOURS)
    with ledger.write() as connection:
        held.release_held(connection, DUE, 9)
        (ticket,) = deliveries.claim_due(connection, DUE, started_by=DUE, limit=9)
        wait = Hold(until=DUE + timedelta(hours=8), held_for=HeldFor.QUIET_HOURS, reason="night")
        hold_back(connection, ticket, wait)
        assert find_due(connection, ticket, BOX) is None
        row = connection.execute(select(tables.deliveries)).mappings().one()
        assert (row["state"], row["tries"], row["due_at"]) == ("held", 0, wait.until)
        assert (row["held_until"], row["lease_until"]) == (wait.until, None)


def test_a_digest_is_for_one_subscriber_on_one_channel(ledger: Ledger) -> None:
    hold(ledger, "k:1")
    hold(ledger, "k:2")
    hold(ledger, "k:3", kind=ChannelKind.SLACK)
    hold(ledger, "k:4", name="ben")
    hold(ledger, "k:5", HeldFor.QUIET_HOURS)
    with ledger.read() as connection:
        assert held.due_digests(connection, DUE - timedelta(seconds=1), 9) == []
        assert held.due_digests(connection, DUE, 9) == [
            DueDigest("anna", ChannelKind.EMAIL, DUE, 2),
            DueDigest("anna", ChannelKind.SLACK, DUE, 1),
            DueDigest("ben", ChannelKind.EMAIL, DUE, 1),
        ]
        assert held.count_held(connection, "anna") == {"digest": 3, "quiet_hours": 1}


def test_what_is_not_asked_for_any_more_is_released_to_nobody(ledger: Ledger) -> None:
    for number in range(3):
        hold(ledger, f"quiet:{number}", HeldFor.QUIET_HOURS)
        hold(ledger, f"digest:{number}")
    hold(ledger, "ben", HeldFor.QUIET_HOURS, name="ben")
    with ledger.write() as connection:
        for name, events in (("anna", ("scan.failed",)), ("ben", ())):
            changed = Subscriber(subscriber_id=name, events=events)
            save_subscriber(connection, changed, BOX, NOW + timedelta(minutes=1))
        assert held.release_held(connection, DUE, 9) == 1
        (due,) = held.due_digests(connection, DUE, 9)
        assert held.drop_unwanted(connection, due, DUE) == due.members == 3
        assert held.due_digests(connection, DUE, 9) == []
    told = states(ledger)
    assert told.pop("ben") == "pending"
    assert set(told.values()) == {"suppressed"}


def test_the_removal_of_a_subscriber_ends_what_waits_for_them_alone(ledger: Ledger) -> None:
    hold(ledger, "anna")
    hold(ledger, "passed", keep_address=True)
    hold(ledger, "ben", name="ben")
    with ledger.write() as connection:
        save_subscriber(connection, Subscriber(subscriber_id="anna"), BOX, NOW)
        assert remove_subscriber(connection, "anna", DUE)
    assert states(ledger) == {"anna": "suppressed", "passed": "held", "ben": "held"}


def test_the_most_severe_are_listed_and_all_are_counted(ledger: Ledger) -> None:
    for number, severity in enumerate([Severity.LOW, Severity.MEDIUM, Severity.INFO, Severity.LOW]):
        hold(ledger, f"k:{number}", severity=severity)
    with ledger.write() as connection:
        (due,) = held.due_digests(connection, DUE, 9)
        merged = held.merge_members(connection, due, "d", DUE, 2)
    assert merged.counts == {Severity.LOW: 2, Severity.MEDIUM: 1, Severity.INFO: 1}
    assert [item.title for item in merged.listed] == ["k:1", "k:0"]


def test_of_two_sweeps_at_once_one_makes_the_digest(ledger: Ledger) -> None:
    for number in range(20):
        hold(ledger, f"k:{number}")
    barrier = threading.Barrier(2)

    def sweep() -> list[int]:
        barrier.wait()
        return merge(ledger)

    with ThreadPoolExecutor(2) as pool:
        told = [future.result() for future in [pool.submit(sweep), pool.submit(sweep)]]
    assert sorted(told) == [[], [20]]
    assert len([key for key in states(ledger) if key.startswith("digest:")]) == 1


def test_what_comes_after_its_digest_makes_another_of_the_same_time(ledger: Ledger) -> None:
    hold(ledger, "k:1")
    hold(ledger, "k:2")
    assert merge(ledger) == [2]
    hold(ledger, "k:3")
    hold(ledger, "k:4")
    assert merge(ledger) == [2]
    first, second = sorted(key for key in states(ledger) if key.startswith("digest:"))
    assert first == "digest:anna:email:2026-03-04T13:00Z"
    assert second.startswith(f"{first}:")


def test_an_address_that_only_its_delivery_holds_is_told_by_itself(ledger: Ledger) -> None:
    hold(ledger, "k:1", keep_address=True)
    hold(ledger, "k:2", keep_address=True)
    assert merge(ledger) == []
    with ledger.write() as connection:
        assert held.release_held(connection, DUE, 9) == 2

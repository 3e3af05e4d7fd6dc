"""One notification for many users: planned in batches, started in batches, never twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from schemas.errors import InvalidEvent, LedgerUnavailable, TooLarge
from schemas.notifications import ChannelKind, QuietHours, Subscriber
from store import subscribers as store_subscribers
from store.subscribers import find_subscriber, remove_subscriber, save_subscriber
from tasks import fan_out, notifications, send_bulk_notifications_async
from tasks.app import app
from tasks.fan_out import BATCH_USERS
from tasks.notifications import deliver
from tasks.sweep import sweep_once

EVENT = "scan.failed"


def bulk(user_ids: Any, task_id: str = "t-1", data: Any = None) -> dict[str, Any]:
    """What the task returns; a repeat has the same id."""
    said: dict[str, Any] = send_bulk_notifications_async.apply(
        (EVENT, data or {}, user_ids), task_id=task_id
    ).get()
    return said


@pytest.fixture
def many(parts: Any, subscribe: Any) -> Callable[[int], list[str]]:
    """So many users, each with one subscriber on a webhook."""

    def many(count: int) -> list[str]:
        subscribe(parts, "s-0", user_id="u-0")
        with parts.ledger.write() as connection:
            first = find_subscriber(connection, "s-0", parts.box)
            assert isinstance(first, Subscriber)
            for number in range(1, count):
                another = Subscriber(
                    subscriber_id=f"s-{number}", user_id=f"u-{number}", channels=first.channels
                )
                save_subscriber(connection, another, parts.box, parts.clock())
        return [f"u-{number}" for number in range(count)]

    return many


class Spy:
    """Counts transactions, and what is decrypted."""

    def __init__(self) -> None:
        self.writes = 0
        self.reads = 0
        self.opened = 0


@pytest.fixture
def spy(parts: Any, monkeypatch: pytest.MonkeyPatch) -> Spy:
    spy = Spy()
    write, read, opened = parts.ledger.write, parts.ledger.read, store_subscribers.open_addresses

    @contextmanager
    def spied_write() -> Iterator[Any]:
        spy.writes += 1
        with write() as connection:
            yield connection

    @contextmanager
    def spied_read() -> Iterator[Any]:
        spy.reads += 1
        with read() as connection:
            yield connection

    def spied_open(*arguments: Any) -> Any:
        spy.opened += 1
        return opened(*arguments)

    monkeypatch.setattr(parts.ledger, "write", spied_write)
    monkeypatch.setattr(parts.ledger, "read", spied_read)
    monkeypatch.setattr(store_subscribers, "open_addresses", spied_open)
    return spy


def test_every_user_is_planned_for_and_every_delivery_is_a_task_of_its_own(
    parts: Any, subscribe: Any, rows: Any, published: list[Any]
) -> None:
    subscribe(parts, "anna", (ChannelKind.EMAIL, ChannelKind.WEBHOOK), user_id="u-1")
    subscribe(parts, "paul", user_id="u-2")
    assert bulk(["u-1", "u-2", "nobody"]) == {
        "event": EVENT,
        "total_users": 3,
        "successful_users": 2,
        "failed_users": 1,
        "total_notifications": 3,
    }
    assert {row["delivery_id"] for row in rows(parts, "deliveries")} == {
        delivery_id for delivery_id, _, _ in published
    }
    assert len(published) == 3
    assert parts.channel(ChannelKind.WEBHOOK).sent == []


def test_a_batch_of_users_takes_one_transaction_and_decrypts_those_who_are_told(
    parts: Any, many: Any, subscribe: Any, spy: Spy, published: list[Any]
) -> None:
    users = many(2 * BATCH_USERS + 1)
    subscribe(parts, "uninterested", user_id="u-0", events=("scan.completed",))
    subscribe(parts, "stranger", user_id="somebody else")
    spy.writes = spy.reads = spy.opened = 0
    assert bulk(users)["total_notifications"] == len(users) == len(published)
    assert (spy.writes, spy.reads) == (3, 0)
    assert spy.opened == len(users)


def test_however_many_are_told_the_content_is_kept_once(
    parts: Any, many: Any, rows: Any, published: list[Any]
) -> None:
    bulk(many(BATCH_USERS + 1))
    (row,) = rows(parts, "notifications")
    assert row["event_key"] == f"{EVENT}:task:t-1"


def test_a_user_who_is_named_twice_is_one_user_and_told_once(
    parts: Any, subscribe: Any, published: list[Any]
) -> None:
    subscribe(parts, user_id="7")
    said = bulk(["7", "nobody", 7, "nobody", "7"])
    assert (said["total_users"], said["successful_users"], said["failed_users"]) == (2, 1, 1)
    assert said["total_notifications"] == len(published) == 1


def test_who_is_paused_is_not_counted_and_who_is_held_is(
    parts: Any, subscribe: Any, rows: Any, published: list[Any]
) -> None:
    noon = QuietHours(start="11:00", end="13:00", time_zone="UTC")
    subscribe(parts, "asleep", user_id="u-1", quiet_hours=noon)
    subscribe(parts, "paused", user_id="u-2", paused=True)
    said = bulk(["u-1", "u-2"])
    assert (said["successful_users"], said["total_notifications"]) == (1, 1)
    states = {row["subscriber_id"]: row["state"] for row in rows(parts, "deliveries")}
    assert states == {"asleep": "held", "paused": "suppressed"}
    assert published == []


def test_ids_that_no_row_could_hold_are_nobodys(parts: Any, subscribe: Any) -> None:
    subscribe(parts, user_id="u" * 255)
    said = bulk(["u" * 256, "half a pair \ud800", "nul \x00", ""])
    assert (said["total_users"], said["successful_users"]) == (4, 0)


@pytest.mark.parametrize("user_ids", ["u-1", None, {"u-1": 1}])
def test_user_ids_that_are_no_list_are_refused(parts: Any, user_ids: Any) -> None:
    with pytest.raises(InvalidEvent, match="user_ids is not a list"):
        bulk(user_ids)


def test_an_id_that_is_no_id_is_refused_by_its_place(parts: Any) -> None:
    with pytest.raises(InvalidEvent, match="user_ids item 2 is neither a text nor a number"):
        bulk(["u-1", ["u-2"]])


def test_more_users_than_the_setting_allows_are_refused_before_anything_is_planned(
    make_parts: Any, rows: Any
) -> None:
    parts = make_parts(bulk_max_users=2)
    with pytest.raises(TooLarge, match=r"3 users, more than 2 \(SCANHERALD_BULK_MAX_USERS\)"):
        bulk(["u-1", "u-2", "u-3"])
    assert rows(parts, "notifications") == []
    assert bulk(["u-1", "u-2"])["total_users"] == 2


def test_a_task_that_comes_back_plans_nothing_twice_and_says_the_same(
    parts: Any, many: Any, rows: Any, published: list[Any]
) -> None:
    users = many(3)
    first = bulk(users)
    assert bulk(users) == first
    assert first["total_notifications"] == 3
    assert len(rows(parts, "deliveries")) == len(published) == 3


def test_a_repeat_counts_what_is_planned_whatever_was_changed_meanwhile(
    parts: Any, many: Any, subscribe: Any, rows: Any, published: list[Any]
) -> None:
    users = many(3)
    first = bulk(users)
    subscribe(parts, "s-0", user_id="u-0", paused=True)
    assert bulk(users) == first
    with parts.ledger.write() as connection:
        remove_subscriber(connection, "s-1", parts.clock())
    assert bulk(users)["successful_users"] == 2, "nobody can say any more whose it was"
    assert len(rows(parts, "deliveries")) == 3


def test_asked_for_anew_everybody_is_told_anew(
    parts: Any, many: Any, rows: Any, published: list[Any]
) -> None:
    users = many(2)
    bulk(users)
    bulk(users, task_id="t-2")
    assert len(rows(parts, "deliveries")) == len(published) == 4


class Killed(BaseException):
    """A death: nothing of ours catches it."""


def test_killed_between_planning_and_starting_a_repeat_goes_on_and_the_sweep_starts_the_rest(
    parts: Any,
    many: Any,
    rows: Any,
    clock: Any,
    published: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    users = many(3 * BATCH_USERS)
    passes = 0

    def die_at_the_second(_: Any) -> None:
        nonlocal passes
        passes += 1
        if passes == 2:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(fan_out, "crash_here", die_at_the_second)
        with pytest.raises(Killed):
            bulk(users)
    assert len(published) == BATCH_USERS
    assert len(rows(parts, "deliveries")) == 2 * BATCH_USERS

    said = bulk(users)
    assert (said["successful_users"], said["total_notifications"]) == (len(users), len(users))
    assert len(rows(parts, "deliveries")) == len(users)
    assert len(published) == 2 * BATCH_USERS, "the repeat starts what it planned"
    clock.forward(parts.settings.starting_grace_s + 1)
    sweep_once(parts)
    assert {delivery_id for delivery_id, _, _ in published} == {
        row["delivery_id"] for row in rows(parts, "deliveries")
    }


def test_a_ledger_that_is_away_in_the_middle_is_waited_for(
    parts: Any, many: Any, rows: Any, published: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    users = many(2 * BATCH_USERS)
    write, passes = parts.ledger.write, 0

    def fail_at_the_second() -> Any:
        nonlocal passes
        passes += 1
        if passes == 2:
            raise LedgerUnavailable("locked")
        return write()

    monkeypatch.setattr(parts.ledger, "write", fail_at_the_second)
    said = bulk(users)
    assert said["total_notifications"] == len(users)
    assert len(rows(parts, "deliveries")) == len(published) == len(users)


def test_a_broker_that_is_away_leaves_the_rest_to_the_sweep_and_costs_no_more_time(
    parts: Any, many: Any, clock: Any, monkeypatch: pytest.MonkeyPatch, published: list[Any]
) -> None:
    users = many(5 * BATCH_USERS)
    attempts = 0

    def refuse(*_: Any, **__: Any) -> None:
        nonlocal attempts
        attempts += 1
        raise ConnectionRefusedError("broker")

    with monkeypatch.context() as patched:
        patched.setattr(deliver, "apply_async", refuse)
        said = bulk(users)
    assert said["total_notifications"] == len(users)
    assert attempts == 2 * fan_out.MAX_BROKER_FAULTS, "each together, then alone"
    clock.forward(61)
    assert sweep_once(parts)["deliveries"] == len(published) > 0


def test_a_broker_that_comes_back_is_given_what_follows(
    parts: Any, many: Any, monkeypatch: pytest.MonkeyPatch, published: list[Any]
) -> None:
    users = many(3 * BATCH_USERS)
    keep, faults = deliver.apply_async, [ConnectionResetError("broker")] * 2

    def fail_at_first(*arguments: Any, **options: Any) -> None:
        if faults:
            raise faults.pop()
        keep(*arguments, **options)

    monkeypatch.setattr(deliver, "apply_async", fail_at_first)
    bulk(users)
    assert len(published) == 2 * BATCH_USERS


def test_messages_that_could_not_be_published_together_are_published_one_by_one(
    parts: Any, many: Any, monkeypatch: pytest.MonkeyPatch, published: list[Any]
) -> None:
    keep, faults = deliver.apply_async, [ConnectionResetError("broker")]

    def fail_once(*arguments: Any, **options: Any) -> None:
        if faults:
            raise faults.pop()
        keep(*arguments, **options)

    monkeypatch.setattr(deliver, "apply_async", fail_once)
    users = many(notifications.PUBLISHED_AT_ONCE + 1)
    bulk(users)
    assert len(published) == len(users)


def test_no_result_is_kept_of_a_delivery_that_is_started(
    parts: Any, many: Any, broker: Any
) -> None:
    users = many(3)
    done = send_bulk_notifications_async.apply((EVENT, {}, users), task_id="t-1")
    assert done.get()["total_notifications"] == 3
    assert done.children in (None, [])
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("notifications")
        assert {queue.get(block=False).headers["id"].rpartition(":")[2] for _ in users} == {"a1"}

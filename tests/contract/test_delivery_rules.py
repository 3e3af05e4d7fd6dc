"""Pace, silence, the health of addresses and new starts, asked of SQLite and PostgreSQL alike."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import delete, select, update

from schemas.events import EventType
from schemas.notifications import ChannelAddress, ChannelKind, Notification, Subscriber
from schemas.reports import Severity
from schemas.runs import DeliveryState
from store import deliveries, endpoints, pacing, tables, tries, undelivered
from store.deliveries import DeliveryTicket, Recipient
from store.ledger import Ledger
from store.pacing import Pace, Slot
from store.secrets import SecretBox
from store.subscribers import remove_subscriber, save_subscriber
from store.tries import Attempt

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
BOX = SecretBox([Fernet.generate_key().decode()])
HOOK = ChannelAddress(
    kind=ChannelKind.WEBHOOK, target="https://h.example/hook", secret="whsec_c2U="
)
WEBHOOK = ChannelKind.WEBHOOK

Result = TypeVar("Result")


def write(ledger: Ledger, work: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
    with ledger.write() as connection:
        return work(connection, *arguments, **options)


def at_once(work: Callable[[], Result], times: int) -> list[Result]:
    barrier = threading.Barrier(times)

    def start() -> Result:
        barrier.wait(30)
        return work()

    with ThreadPoolExecutor(times) as pool:
        return [future.result() for future in [pool.submit(start) for _ in range(times)]]


def plan(
    ledger: Ledger, key: str = "k:1", *names: str, now: datetime = NOW, kept: bool = False
) -> list[DeliveryTicket]:
    """One delivery for each of these subscribers, by default for one."""
    with ledger.write() as connection:
        told = Notification(
            event_key=key,
            type=EventType.SCAN_COMPLETED,
            occurred_at=now,
            domain="a.example",
            scan_id=None,
            severity=Severity.MEDIUM,
            title="told",
            summary="",
        )
        deliveries.save_notification(connection, told, None, now)
        return deliveries.plan_deliveries(
            connection,
            key,
            [Recipient(name, HOOK, keep_address=kept) for name in names or ("one",)],
            now=now,
            started_by=now,
            new_id=lambda: str(uuid4()),
            box=BOX,
        )


def take(ledger: Ledger, ticket: DeliveryTicket, destination: str = "http:h.example:443") -> None:
    assert write(ledger, tries.lease, ticket, lease_until=NOW + 5 * MINUTE, destination=destination)


def attempt(ticket: DeliveryTicket, **values: Any) -> Attempt:
    return Attempt(number=ticket.number, started_at=NOW, duration_ms=1.0, **values)


def row_of(ledger: Ledger, ticket: DeliveryTicket) -> Any:
    found = select(tables.deliveries).where(tables.deliveries.c.delivery_id == ticket.delivery_id)
    with ledger.read() as connection:
        return connection.execute(found).mappings().one()


def claim(ledger: Ledger, now: datetime, limit: int = 100, **options: Any) -> list[DeliveryTicket]:
    return write(ledger, deliveries.claim_due, now, started_by=now + MINUTE, limit=limit, **options)


# An even pace


def waits(ledger: Ledger, pace: Pace, count: int, now: datetime = NOW) -> list[float]:
    """How long so many sends at once have to wait, in seconds."""
    slots = [write(ledger, pacing.reserve, pace, now) for _ in range(count)]
    return [round((slot.at - now).total_seconds(), 3) for slot in slots]


def test_a_burst_goes_at_once_and_the_rest_gets_a_slot_each(ledger: Ledger) -> None:
    pace = Pace("http:h.example:443", 0.5, 3)
    assert waits(ledger, pace, 6) == [0.0, 0.0, 0.0, 0.5, 1.0, 1.5]


def test_without_a_burst_each_waits_for_the_one_before(ledger: Ledger) -> None:
    assert waits(ledger, Pace("slack:1", 1.0, 1), 4) == [0.0, 1.0, 2.0, 3.0]


def test_a_quiet_time_gives_back_the_burst_and_no_more(ledger: Ledger) -> None:
    pace = Pace("k", 1.0, 2)
    assert waits(ledger, pace, 3) == [0.0, 0.0, 1.0]
    assert waits(ledger, pace, 2, NOW + SECOND) == [1.0, 2.0]
    assert waits(ledger, pace, 3, NOW + DAY) == [0.0, 0.0, 1.0]


def test_paces_of_different_keys_know_nothing_of_each_other(ledger: Ledger) -> None:
    assert waits(ledger, Pace("a", 60.0, 1), 2) == [0.0, 60.0]
    assert waits(ledger, Pace("b", 60.0, 1), 2) == [0.0, 60.0]


def test_looking_at_a_key_moves_nothing_on(ledger: Ledger) -> None:
    assert waits(ledger, Pace("k", 0.0, 1), 3) == [0.0, 0.0, 0.0]
    assert waits(ledger, Pace("k", 5.0, 1), 2) == [0.0, 5.0]


def test_workers_that_ask_at_once_never_get_the_same_slot(ledger: Ledger) -> None:
    pace = Pace("k", 1.0, 1)
    slots = at_once(lambda: write(ledger, pacing.reserve, pace, NOW), 8)
    assert sorted(slot.at for slot in slots) == [NOW + number * SECOND for number in range(8)]


def test_idle_keys_are_forgotten_and_silent_ones_are_not(ledger: Ledger) -> None:
    for key in ("idle", "silent"):
        waits(ledger, Pace(key, 1.0, 1), 1)
    waits(ledger, Pace("busy", 1.0, 1), 1, NOW + 2 * DAY)
    write(ledger, pacing.note_silence, "silent", lambda _: None)
    assert write(ledger, pacing.forget_paces, NOW + DAY) == 1


# Destinations that do not answer


def look(ledger: Ledger, key: str = "k", now: datetime = NOW) -> Slot:
    return write(ledger, pacing.reserve, Pace(key, 0.0, 1), now)


def test_silence_is_counted_in_a_row_until_an_answer(ledger: Ledger) -> None:
    look(ledger)
    asked: list[int] = []

    def never(failures: int) -> None:
        asked.append(failures)

    for _ in range(3):
        assert write(ledger, pacing.note_silence, "k", never) is None
    assert (asked, look(ledger).failures) == ([1, 2, 3], 3)
    write(ledger, pacing.note_answer, "k")
    assert look(ledger) == Slot(NOW, 0, None)


def test_a_closed_destination_gives_slots_from_its_opening_on(ledger: Ledger) -> None:
    pace = Pace("k", 1.0, 1)
    waits(ledger, pace, 1)
    until = NOW + 30 * SECOND
    assert write(ledger, pacing.note_silence, "k", lambda _: until) == until
    assert look(ledger).closed_until == until
    assert waits(ledger, pace, 3) == [30.0, 31.0, 32.0]


def test_sends_under_way_are_counted_by_destination_and_lease(ledger: Ledger) -> None:
    first, second, third = plan(ledger, "k:1", "one", "two", "three")
    take(ledger, first)
    take(ledger, second)
    take(ledger, third, "http:other.example:443")

    def look(beyond: datetime) -> tuple[int, datetime | None]:
        return write(ledger, tries.look_under_way, "http:h.example:443", beyond)

    end_of_lease = NOW + 5 * MINUTE
    assert (look(NOW), look(end_of_lease)) == ((2, end_of_lease), (0, None))
    write(ledger, tries.settle_sent, first.delivery_id, attempt(first), NOW)
    assert look(NOW) == (1, end_of_lease)


# Put off


def test_a_try_that_is_put_off_counts_nothing_and_comes_again_under_its_number(
    ledger: Ledger,
) -> None:
    (ticket,) = plan(ledger)
    slot = NOW + 90 * SECOND
    assert write(ledger, tries.put_off, ticket, slot_at=slot, lease_until=None, reason="waits")
    row = row_of(ledger, ticket)
    assert (row["state"], row["tries"], row["due_at"], row["reason"]) == (
        "pending",
        0,
        slot,
        "waits",
    )
    with ledger.read() as connection:
        assert tries.list_attempts(connection, ticket.delivery_id) == []
    assert claim(ledger, NOW, ahead=MINUTE) == []
    (again,) = claim(ledger, NOW + MINUTE, ahead=MINUTE)
    assert (again.delivery_id, again.number, again.delay_s) == (ticket.delivery_id, 1, 30.0)
    with ledger.read() as connection:
        found = tries.find_due(connection, again, BOX)
    assert found is not None
    assert found.slot_at == slot


def test_a_retry_that_waits_for_its_time_is_not_started_ahead_of_it(ledger: Ledger) -> None:
    (ticket,) = plan(ledger)
    take(ledger, ticket)
    write(
        ledger,
        tries.put_back,
        ticket.delivery_id,
        attempt(ticket, error="503"),
        due_at=NOW + 30 * SECOND,
        lease_until=None,
    )
    assert claim(ledger, NOW, ahead=MINUTE) == []


def test_a_try_that_was_taken_cannot_be_put_off(ledger: Ledger) -> None:
    (ticket,) = plan(ledger)
    take(ledger, ticket)
    assert not write(ledger, tries.put_off, ticket, slot_at=NOW, lease_until=None, reason="waits")


def test_each_subscriber_s_first_is_claimed_before_a_flood_s_second(ledger: Ledger) -> None:
    flood = [plan(ledger, f"k:{number}", "flooded")[0] for number in range(30)]
    (late,) = plan(ledger, "k:late", "patient", now=NOW + MINUTE)
    claimed = claim(ledger, NOW + 2 * MINUTE, limit=5)
    assert late.delivery_id in {ticket.delivery_id for ticket in claimed}
    assert len(claimed) == 5
    rest = [claim(ledger, NOW + 2 * MINUTE, limit=5) for _ in range(6)]
    assert sum(map(len, rest)) == len(flood) - 4


# The health of addresses


def fail(
    ledger: Ledger,
    now: datetime,
    *,
    gone: bool = False,
    may_pass: bool = False,
    name: str = "one",
) -> str | None:
    return write(
        ledger,
        endpoints.note_failure,
        name,
        WEBHOOK,
        now=now,
        max_failing=5 * DAY,
        max_gap=2 * DAY,
        gone=gone,
        may_pass=may_pass,
    )


def refusal(ledger: Ledger, name: str = "one") -> str | None:
    return write(ledger, endpoints.endpoint_refusal, name, WEBHOOK)


def test_an_address_is_disabled_when_it_has_failed_for_days_without_a_good_answer(
    ledger: Ledger,
) -> None:
    for days in (0, 2, 4):
        assert fail(ledger, NOW + days * DAY) is None
    assert fail(ledger, NOW + 5 * DAY - SECOND) is None
    assert refusal(ledger) is None
    assert fail(ledger, NOW + 5 * DAY, may_pass=True) is None
    assert refusal(ledger) is None
    reason = fail(ledger, NOW + 5 * DAY)
    assert reason == (
        "the address is disabled: nothing could be delivered since 2026-03-04 05:06 UTC"
    )
    assert refusal(ledger) == reason
    assert write(ledger, endpoints.disabled_endpoints) == {("one", WEBHOOK): reason}
    assert write(ledger, endpoints.endpoint_refusal, "one", ChannelKind.EMAIL) is None


def test_a_good_answer_starts_the_days_anew(ledger: Ledger) -> None:
    for days in (0, 2, 4):
        fail(ledger, NOW + days * DAY)
    write(ledger, endpoints.note_good, "one", WEBHOOK)
    assert fail(ledger, NOW + 6 * DAY) is None


def test_failures_with_a_long_quiet_time_between_them_are_not_one_that_lasts(
    ledger: Ledger,
) -> None:
    for days in (0, 2, 4, 7, 10, 12, 14):  # a gap of three days, and one again
        assert fail(ledger, NOW + days * DAY) is None
    assert "since 2026-03-14" in (fail(ledger, NOW + 16 * DAY) or "")


def test_two_failures_disable_nothing_however_long_they_lasted(ledger: Ledger) -> None:
    limits = {"max_failing": DAY, "max_gap": 2 * DAY, "gone": False}
    for days in (0, 2):
        moment = NOW + days * DAY
        write(ledger, endpoints.note_failure, "one", WEBHOOK, now=moment, **limits)
    assert refusal(ledger) is None


def test_a_row_from_before_failures_were_counted_is_read_by_its_start(ledger: Ledger) -> None:
    def before(days: int) -> None:
        with ledger.write() as connection:
            connection.execute(delete(tables.endpoints))
            connection.execute(
                tables.endpoints.insert().values(
                    subscriber_id="one", channel="webhook", failing_since=NOW - days * DAY
                )
            )

    before(1)
    fail(ledger, NOW)
    with ledger.read() as connection:
        row = endpoints.find_endpoint(connection, "one", WEBHOOK)
        assert row is not None
        assert (row["failing_since"], row["failures"]) == (NOW - DAY, 1)
    before(9)
    fail(ledger, NOW)
    with ledger.read() as connection:
        row = endpoints.find_endpoint(connection, "one", WEBHOOK)
        assert row is not None
        assert (row["failing_since"], row["last_failed_at"], row["failures"]) == (NOW, NOW, 1)


def test_an_address_that_is_gone_is_disabled_at_once_and_enabled_as_new(ledger: Ledger) -> None:
    assert "410" in (fail(ledger, NOW, gone=True) or "")
    assert write(ledger, endpoints.enable_endpoint, "one", WEBHOOK)
    assert not write(ledger, endpoints.enable_endpoint, "one", WEBHOOK)
    assert refusal(ledger) is None
    assert fail(ledger, NOW + 6 * DAY) is None, "the failures before count no more"


def test_what_waits_for_a_disabled_address_ends_in_batches_with_its_digest_s_members(
    ledger: Ledger,
) -> None:
    waiting = [plan(ledger, f"k:{number}")[0] for number in range(3)]
    (in_hand,), (other,) = plan(ledger, "k:hand"), plan(ledger, "k:0", "two")
    (direct,) = plan(ledger, "k:direct", kept=True)
    (member,) = plan(ledger, "k:member")
    take(ledger, in_hand)
    merge(ledger, member, into=waiting[0])

    def end(limit: int) -> int:
        return write(
            ledger,
            endpoints.fail_waiting,
            "one",
            WEBHOOK,
            reason="the address is disabled: gone",
            now=NOW,
            limit=limit,
        )

    assert [end(2), end(2), end(2)] == [2, 1, 0]
    for ticket in (*waiting, member):
        row = row_of(ledger, ticket)
        assert (row["state"], row["settled_at"]) == ("failed", NOW)
        assert row["reason"] == "the address is disabled: gone"
    assert [row_of(ledger, item)["state"] for item in (in_hand, other, direct)] == [
        "sending",
        "pending",
        "pending",
    ]


def test_operators_are_told_of_a_disabled_address_once(ledger: Ledger) -> None:
    reason = fail(ledger, NOW, gone=True)
    assert write(ledger, endpoints.untold_endpoints) == []
    assert write(ledger, endpoints.unended_endpoints, 9) == [("one", WEBHOOK, reason)]
    write(ledger, endpoints.note_ended, "one", WEBHOOK, NOW)
    assert write(ledger, endpoints.unended_endpoints, 9) == []
    assert write(ledger, endpoints.untold_endpoints) == [("one", WEBHOOK)]
    write(ledger, endpoints.note_told, [("one", WEBHOOK)], NOW)
    assert write(ledger, endpoints.untold_endpoints) == []
    fail(ledger, NOW + MINUTE, gone=True)  # a send that was under way
    assert write(ledger, endpoints.unended_endpoints, 9) == []
    assert write(ledger, endpoints.untold_endpoints) == []


def test_an_address_that_is_enabled_and_disabled_again_is_told_of_again(ledger: Ledger) -> None:
    for _ in range(2):
        reason = fail(ledger, NOW, gone=True)
        assert write(ledger, endpoints.unended_endpoints, 9) == [("one", WEBHOOK, reason)]
        write(ledger, endpoints.note_ended, "one", WEBHOOK, NOW)
        assert write(ledger, endpoints.untold_endpoints) == [("one", WEBHOOK)]
        write(ledger, endpoints.note_told, [("one", WEBHOOK)], NOW)
        write(ledger, endpoints.enable_endpoint, "one", WEBHOOK)
        write(ledger, endpoints.note_ended, "one", WEBHOOK, NOW)  # by a sweep that came too late
        assert write(ledger, endpoints.untold_endpoints) == []


def test_a_due_delivery_knows_whether_its_address_is_disabled(ledger: Ledger) -> None:
    subscriber = Subscriber(
        subscriber_id="one", channels=(HOOK,), locale="de", attach=("pdf",), paused=False
    )
    write(ledger, save_subscriber, subscriber, BOX, NOW)
    (held,), (kept,) = plan(ledger, "k:1"), plan(ledger, "k:2", kept=True)
    reason = fail(ledger, NOW, gone=True)
    with ledger.read() as connection:
        found = [tries.find_due(connection, ticket, BOX) for ticket in (held, kept)]
    ours, direct = found
    assert ours is not None
    assert direct is not None
    assert (ours.disabled, ours.has_endpoint, ours.locale) == (reason, True, "de")
    assert (ours.attach, ours.address) == (("pdf",), HOOK)
    assert (direct.disabled, direct.has_endpoint, direct.address) == (None, False, HOOK)


# Digests


def merge(ledger: Ledger, *members: DeliveryTicket, into: DeliveryTicket) -> None:
    with ledger.write() as connection:
        connection.execute(
            update(tables.deliveries)
            .where(tables.deliveries.c.delivery_id.in_([item.delivery_id for item in members]))
            .values(state=DeliveryState.HELD.value, merged_into=into.delivery_id)
        )


@pytest.mark.parametrize("state", ["sent", "failed"])
def test_what_a_digest_tells_of_settles_with_it(ledger: Ledger, state: str) -> None:
    digest, *members = (plan(ledger, f"k:{number}")[0] for number in range(3))
    (stranger,) = plan(ledger, "k:other")
    merge(ledger, *members, into=digest)
    merge(ledger, stranger, into=DeliveryTicket("another", 1))
    take(ledger, digest)
    if state == "sent":
        write(ledger, tries.settle_sent, digest.delivery_id, attempt(digest), NOW)
    else:
        error = attempt(digest, error="gone")
        write(ledger, tries.settle_failed, digest.delivery_id, error, NOW)
    for ticket in (digest, *members):
        row = row_of(ledger, ticket)
        assert (row["state"], row["settled_at"]) == (state, NOW)
        assert row["reason"] == (None if state == "sent" else "gone")
    assert row_of(ledger, stranger)["state"] == "held"


def test_members_stay_held_while_their_digest_is_tried_again(ledger: Ledger) -> None:
    digest, member = plan(ledger, "k:1")[0], plan(ledger, "k:2")[0]
    merge(ledger, member, into=digest)
    take(ledger, digest)
    write(
        ledger,
        tries.put_back,
        digest.delivery_id,
        attempt(digest, error="503"),
        due_at=NOW,
        lease_until=None,
    )
    assert row_of(ledger, member)["state"] == "held"


def test_a_digest_that_is_overtaken_settles_nobody(ledger: Ledger) -> None:
    digest, member = plan(ledger, "k:1")[0], plan(ledger, "k:2")[0]
    merge(ledger, member, into=digest)
    take(ledger, digest)
    take(ledger, DeliveryTicket(digest.delivery_id, 2))
    late = attempt(digest, error="late")
    write(ledger, tries.settle_failed, digest.delivery_id, late, NOW)
    assert row_of(ledger, member)["state"] == "held"


def test_a_digest_that_is_refused_untried_takes_its_members_along(ledger: Ledger) -> None:
    digest, member = plan(ledger, "k:1")[0], plan(ledger, "k:2")[0]
    merge(ledger, member, into=digest)
    write(ledger, tries.fail_untried, digest, "the subscriber was removed", NOW)
    assert row_of(ledger, member)["state"] == "failed"


# Tried again


def end(ledger: Ledger, key: str, state: str, name: str = "one", now: datetime = NOW) -> str:
    """A delivery that ended so; returns its id."""
    (ticket,) = plan(ledger, key, name, now=now)
    if state == "suppressed":
        reason = f"{endpoints.DISABLED}gone"
        write(ledger, tries.suppress_untried, ticket, reason, now)
    elif state == "paused":
        write(ledger, tries.suppress_untried, ticket, "the subscriber is paused", now)
    else:
        take(ledger, ticket)
        settle = tries.settle_sent if state == "sent" else tries.settle_failed
        write(ledger, settle, ticket.delivery_id, attempt(ticket, error="no"), now)
    return ticket.delivery_id


def test_what_failed_or_met_a_disabled_address_is_undelivered(ledger: Ledger) -> None:
    failed = end(ledger, "k:1", "failed")
    refused = end(ledger, "k:2", "suppressed")
    for key, state in (("k:3", "sent"), ("k:4", "paused")):
        end(ledger, key, state)
    other = end(ledger, "k:5", "failed", "two", NOW + DAY)

    def found(**options: Any) -> set[str]:
        given = {"by": NOW + DAY, "since": None, "subscriber_id": None, "limit": 9, **options}
        return set(write(ledger, undelivered.list_undelivered, **given))

    assert found() == {failed, refused, other}
    assert found(since=NOW + SECOND) == {other}
    assert found(subscriber_id="one") == {failed, refused}
    assert found(by=NOW) == {failed, refused}
    assert len(found(limit=2)) == 2


def test_a_revived_delivery_is_due_with_all_its_tries_and_its_address_enabled(
    ledger: Ledger,
) -> None:
    failed, sent = end(ledger, "k:1", "failed"), end(ledger, "k:2", "sent")
    fail(ledger, NOW, gone=True)
    later = NOW + DAY
    assert write(ledger, undelivered.revive_deliveries, [failed, sent, "?"], later) == [failed]
    assert refusal(ledger) is None
    (ticket,) = claim(ledger, later)
    assert ticket == DeliveryTicket(failed, 1)
    row = row_of(ledger, ticket)
    assert (row["state"], row["tries"], row["settled_at"]) == ("pending", 0, None)
    with ledger.read() as connection:
        assert len(tries.list_attempts(connection, failed)) == 1, "the log stays"
    assert write(ledger, undelivered.revive_deliveries, [sent], later) == []


def test_a_digest_is_revived_with_what_it_tells_of_and_never_a_part_of_it(ledger: Ledger) -> None:
    digest, member = plan(ledger, "k:1")[0], plan(ledger, "k:2")[0]
    merge(ledger, member, into=digest)
    write(ledger, tries.fail_untried, digest, "gone", NOW)
    assert write(ledger, undelivered.revive_deliveries, [member.delivery_id], NOW) == []
    revived = write(ledger, undelivered.revive_deliveries, [digest.delivery_id], NOW)
    assert revived == [digest.delivery_id]
    assert row_of(ledger, member)["state"] == "held"
    take(ledger, digest)
    write(ledger, tries.settle_sent, digest.delivery_id, attempt(digest), NOW)
    assert row_of(ledger, member)["state"] == "sent"


def test_another_address_starts_with_a_clean_record_and_the_same_one_does_not(
    ledger: Ledger,
) -> None:
    def save(target: str) -> None:
        address = ChannelAddress(kind=WEBHOOK, target=target, secret="whsec_c2U=")
        anna = Subscriber(subscriber_id="anna", channels=(address,))
        write(ledger, save_subscriber, anna, BOX, NOW)

    save("https://old.example/x")
    assert fail(ledger, NOW, gone=True, name="anna")
    save("https://old.example/x")
    assert refusal(ledger, "anna")
    save("https://new.example/x")
    assert refusal(ledger, "anna") is None


def test_a_name_that_is_given_away_starts_with_a_clean_record(ledger: Ledger) -> None:
    write(ledger, save_subscriber, Subscriber(subscriber_id="anna", channels=(HOOK,)), BOX, NOW)
    assert fail(ledger, NOW, gone=True, name="anna")
    assert write(ledger, remove_subscriber, "anna", NOW)
    assert refusal(ledger, "anna") is None

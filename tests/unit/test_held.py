"""Deliveries that wait by their subscriber's wish: held, released, held again, told together."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.errors import ChannelUnavailable, DeliveryRejected, UnknownEventType
from schemas.events import EventType, decode_entry
from schemas.notifications import (
    ChannelKind,
    Digest,
    DigestRhythm,
    Notification,
    QuietHours,
)
from schemas.reports import Severity
from store import subscribers as subscribing
from store.held import due_digests, merge_members
from store.runs import settle_dead
from tasks.digests import LISTED
from tasks.holding import is_quiet
from tasks.notifications import try_delivery
from tasks.sweep import sweep_once
from tasks.telling import plan

LUNCH = QuietHours(start="11:00", end="14:00", time_zone="UTC")
"""It is noon when a test begins."""
DAILY = Digest(rhythm=DigestRhythm.DAILY, at="18:00", time_zone="UTC")
HOURLY = Digest(rhythm=DigestRhythm.HOURLY)


@pytest.fixture
def of_user(parts: Any, record: Any) -> Callable[[str], str]:
    """A settled run of an event of this user's; returns its id."""
    numbers = itertools.count(1)

    def of_user(user: str) -> str:
        event = {"type": "scan.failed", "id": f"e-{next(numbers)}", "userid": user}
        run_id: str = record(parts, b'{"error":"DNS"}', **event).run_id
        with parts.ledger.write() as connection:
            settle_dead(connection, run_id, "for this test", parts.clock())
        return run_id

    return of_user


@pytest.fixture
def tell(parts: Any, of_user: Callable[[str], str]) -> Callable[..., list[Any]]:
    """Plan the deliveries of so many news; returns the tries to start now."""

    def tell(
        count: int = 1,
        severity: Severity = Severity.LOW,
        name: str = "news",
        run: bool = False,
        **fields: Any,
    ) -> list[Any]:
        told = [
            Notification(
                event_key=f"{name}:{number}",
                type=EventType.SCAN_COMPLETED,
                occurred_at=parts.clock(),
                domain="shop.example",
                scan_id=None,
                severity=severity,
                title=f"{name} {number}",
                summary="",
                **fields,
            )
            for number in range(count)
        ]
        run_id = of_user("u-1") if run else None
        with parts.ledger.write() as connection:
            return plan(connection, parts, told, run_id=run_id, owner=None)[0]

    return tell


@pytest.fixture
def sweep(parts: Any, published: list[Any]) -> Callable[[], int]:
    """One sweep, and every try that it published made; returns how many it published."""
    from store.deliveries import DeliveryTicket

    def sweep() -> int:
        published.clear()
        sweep_once(parts)
        for delivery_id, number, _ in list(published):
            try_delivery(parts, DeliveryTicket(delivery_id, number))
        return len(published)

    return sweep


def sent(parts: Any, kind: ChannelKind = ChannelKind.WEBHOOK) -> list[Notification]:
    return [message.notification for message in parts.channel(kind).sent]


def at(hour: int, minute: int = 0, day: int = 4) -> datetime:
    return datetime(2026, 3, day, hour, minute, tzinfo=UTC)


# Quiet hours


def test_what_comes_in_quiet_hours_is_held_and_told_when_they_end(
    parts, subscribe, tell, sweep, rows, clock
):
    subscribe(parts, quiet_hours=LUNCH)
    assert tell() == []
    (row,) = rows(parts, "deliveries")
    assert (row["state"], row["due_at"], row["tries"]) == ("held", at(14), 0)
    assert row["reason"] == "quiet hours 11:00-14:00 UTC"
    clock.now = at(13, 59)
    assert sweep() == 0
    clock.now = at(14)
    assert sweep() == 1
    (row,) = rows(parts, "deliveries")
    assert (row["state"], row["tries"], row["held_until"]) == ("sent", 1, at(14))
    assert len(sent(parts)) == 1
    assert sweep() == 0


def test_what_is_severe_enough_passes(parts, subscribe, tell):
    subscribe(parts, quiet_hours=LUNCH)
    subscribe(parts, "ben", quiet_hours=msgspec.structs.replace(LUNCH, passing=None))
    assert len(tell(severity=Severity.HIGH)) == 1


def test_a_beat_that_was_out_into_the_next_quiet_hours_delays_and_drops_nothing(
    parts, subscribe, tell, sweep, rows, clock
):
    subscribe(parts, quiet_hours=LUNCH)
    tell()
    clock.now = at(12, day=5)
    assert sweep() == 1
    (row,) = rows(parts, "deliveries")
    assert (row["state"], row["due_at"], row["tries"]) == ("held", at(14, day=5), 0)
    assert sent(parts) == []
    clock.now = at(14, day=5)
    sweep()
    assert len(sent(parts)) == 1


def test_a_changed_wish_counts_when_the_time_has_come(parts, subscribe, tell, sweep, clock):
    subscribe(parts, quiet_hours=LUNCH)
    tell()
    subscribe(parts, quiet_hours=QuietHours(start="13:00", end="16:00", time_zone="UTC"))
    clock.now = at(14)
    sweep()
    assert sent(parts) == []
    clock.now = at(16)
    sweep()
    assert len(sent(parts)) == 1


def test_a_pause_suppresses_what_was_held(parts, subscribe, tell, sweep, rows, clock):
    subscribe(parts, quiet_hours=LUNCH)
    tell()
    subscribe(parts, quiet_hours=LUNCH, paused=True)
    clock.now = at(14)
    sweep()
    (row,) = rows(parts, "deliveries")
    assert (row["state"], row["reason"]) == ("suppressed", "the subscriber is paused")
    assert sent(parts) == []


def test_a_removed_subscriber_ends_what_was_held_with_a_reason(
    parts, subscribe, tell, sweep, rows, clock
):
    subscribe(parts, quiet_hours=LUNCH)
    tell()
    with parts.ledger.write() as connection:
        subscribing.remove_subscriber(connection, "anna", clock())
    clock.now = at(14)
    assert sweep() == 0
    (row,) = rows(parts, "deliveries")
    assert (row["state"], row["reason"]) == ("suppressed", "the subscriber was removed")


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "wishes", [{"quiet_hours": LUNCH}, {"digest": DAILY}], ids=["quiet", "digest"]
)
def test_who_is_given_a_removed_name_gets_nothing_of_what_waited_for_the_other(
    parts, subscribe, tell, sweep, rows, clock, wishes, count
):
    subscribe(parts, **wishes)
    tell(count)
    with parts.ledger.write() as connection:
        subscribing.remove_subscriber(connection, "anna", clock())
    subscribe(parts)
    clock.now = at(18)
    assert sweep() == 0
    assert sent(parts) == []
    assert {row["state"] for row in rows(parts, "deliveries")} == {"suppressed"}


# Wishes that change meanwhile


@pytest.mark.parametrize("by_run", [True, False])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "wishes", [{"quiet_hours": LUNCH}, {"digest": DAILY}], ids=["quiet", "digest"]
)
def test_what_is_not_asked_for_any_more_when_its_time_comes_is_not_told(
    parts, subscribe, tell, sweep, rows, clock, wishes, count, by_run
):
    subscribe(parts, **wishes)
    tell(count, run=by_run)
    clock.forward(60)
    subscribe(parts, **wishes, events=("scan.failed",))
    clock.now = at(18)
    assert sweep() == 0
    assert sent(parts) == []
    assert {(row["state"], row["reason"]) for row in rows(parts, "deliveries")} == {
        ("suppressed", "the preferences do not ask for it any more")
    }


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"min_severity": Severity.MEDIUM}, ["high 0"]),
        ({"domains": ("other.example",)}, []),
        ({"domains": ("*.example",)}, ["Digest: 3 notifications"]),
        ({"domains": ("other.example",), "user_id": "u-1"}, ["Digest: 3 notifications"]),
    ],
)
def test_a_digest_tells_of_what_is_still_asked_for(
    parts, subscribe, tell, sweep, clock, changed, told
):
    daily = Digest(rhythm=DigestRhythm.DAILY, at="18:00", below=Severity.HIGH)
    subscribe(parts, digest=daily)
    tell(2, name="low", run=True)
    tell(1, Severity.MEDIUM, name="high", run=True)
    clock.forward(60)
    subscribe(parts, digest=daily, **changed)
    clock.now = at(18)
    sweep()
    assert [item.title for item in sent(parts)] == told


def test_what_a_task_told_by_name_is_not_filtered_by_domain_or_severity(
    parts, subscribe, tell, sweep, clock
):
    subscribe(parts, quiet_hours=LUNCH)
    tell()
    clock.forward(60)
    subscribe(parts, quiet_hours=LUNCH, min_severity=Severity.HIGH, domains=("x.example",))
    clock.now = at(14)
    assert sweep() == 1
    assert len(sent(parts)) == 1


def test_a_retry_that_falls_into_quiet_hours_waits_for_their_end(
    parts, subscribe, tell, sweep, rows, clock
):
    subscribe(parts, quiet_hours=LUNCH)
    clock.now = at(10, 59)
    (ticket,) = tell()
    parts.channel(ChannelKind.WEBHOOK).script = [ChannelUnavailable("busy", retry_after=3600)]
    try_delivery(parts, ticket)
    clock.now = at(12, 30)
    assert sweep() == 1
    (row,) = rows(parts, "deliveries")
    assert (row["state"], row["tries"], row["due_at"]) == ("held", 1, at(14))
    clock.now = at(14)
    sweep()
    (row,) = rows(parts, "deliveries")
    assert (row["state"], row["tries"]) == ("sent", 2)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.integers(0, 23),
    length=st.integers(1, 23),
    passing=st.sampled_from([None, *Severity]),
    severities=st.lists(st.sampled_from(list(Severity)), min_size=1, max_size=4),
    ticks=st.lists(st.integers(1, 40), min_size=1, max_size=8),
)
def test_nothing_is_lost_and_nothing_but_what_passes_is_sent_in_quiet_hours(
    start,
    length,
    passing,
    severities,
    ticks,
    make_parts,
    clock,
    subscribe,
    published,
    tmp_path_factory,
):
    from store.deliveries import DeliveryTicket

    parts = make_parts(data_dir=tmp_path_factory.mktemp("held"))
    clock.now = at(12)
    end = (start + length) % 24
    hours = QuietHours(
        start=f"{start:02}:00", end=f"{end:02}:00", time_zone="Europe/Berlin", passing=passing
    )
    subscribe(parts, quiet_hours=hours)
    channel = parts.channel(ChannelKind.WEBHOOK)
    told = [
        Notification(
            event_key=f"k:{number}", type=EventType.SCAN_COMPLETED, occurred_at=clock.now,
            domain=None, scan_id=None, severity=severity, title="t", summary="s",
        )
        for number, severity in enumerate(severities)
    ]  # fmt: skip
    with parts.ledger.write() as connection:
        tickets, _ = plan(connection, parts, told, run_id=None, owner=None)
    for ticket in tickets:
        try_delivery(parts, ticket)

    def look() -> None:
        passes = [item for item in sent(parts) if not passing or item.severity.rank < passing.rank]
        assert not (passes and is_quiet(hours, clock.now)) or len(passes) == before[0]
        before[0] = len(passes)

    before = [0]
    look()
    for tick in [*ticks, 24, 24]:
        clock.now += timedelta(hours=tick, minutes=7)
        while is_quiet(hours, clock.now) and tick == 24:
            clock.now += timedelta(hours=1)
        published.clear()
        sweep_once(parts)
        for delivery_id, number, _ in list(published):
            try_delivery(parts, DeliveryTicket(delivery_id, number))
        look()
    assert sorted(item.event_key for item in sent(parts)) == [item.event_key for item in told]
    channel.sent.clear()


# Digests


def test_many_become_one_message_that_settles_them_all(parts, subscribe, tell, sweep, rows, clock):
    subscribe(parts, digest=DAILY)
    assert tell(2) == []
    assert tell(1, Severity.MEDIUM, "worse") == []
    clock.now = at(17, 59)
    assert sweep() == 0
    clock.now = at(18)
    assert sweep() == 1
    (digest,) = sent(parts)
    assert digest.type is EventType.NOTIFICATION_DIGEST
    assert digest.event_key == "digest:anna:webhook:2026-03-04T18:00Z"
    assert digest.severity is Severity.MEDIUM
    assert (digest.title, digest.summary) == (
        "Digest: 3 notifications",
        "0 high, 1 medium, 2 low, 0 info",
    )
    assert [line.title for line in digest.lines] == ["worse 0", "news 0", "news 1"]
    assert digest.values == {
        "notifications": 3, "high": 0, "medium": 1, "low": 2, "info": 0, "more": 0,
    }  # fmt: skip
    found = rows(parts, "deliveries")
    (told_by,) = [row for row in found if row["event_key"].startswith("digest:")]
    members = [row for row in found if row is not told_by]
    assert {row["merged_into"] for row in members} == {told_by["delivery_id"]}
    assert {row["state"] for row in found} == {"sent"}
    assert {row["settled_at"] for row in found} == {at(18)}


def test_one_alone_is_told_as_itself(parts, subscribe, tell, sweep, clock):
    subscribe(parts, digest=DAILY)
    tell()
    clock.now = at(18)
    sweep()
    assert [item.event_key for item in sent(parts)] == ["news:0"]


def test_what_is_severe_is_told_at_once(parts, subscribe, tell):
    subscribe(parts, digest=DAILY)
    assert len(tell(2, Severity.HIGH)) == 2


def test_each_channel_has_its_own_digest(parts, subscribe, tell, sweep, clock):
    kinds = (ChannelKind.WEBHOOK, ChannelKind.EMAIL)
    subscribe(parts, kinds=kinds, digest=HOURLY)
    subscribe(parts, "ben", digest=HOURLY)
    tell(2)
    clock.now = at(13)
    assert sweep() == 3
    assert len(sent(parts)) == 2
    assert len(sent(parts, ChannelKind.EMAIL)) == 1


def test_a_digest_waits_for_quiet_hours_to_end(parts, subscribe, tell, sweep, clock):
    subscribe(parts, digest=HOURLY, quiet_hours=LUNCH)
    tell(2)
    for minutes in range(0, 120, 15):
        clock.now = at(12) + timedelta(minutes=minutes)
        assert sweep() == 0
    tell(1, name="late")
    clock.now = at(14)
    assert sweep() == 1
    (digest,) = sent(parts)
    assert len(digest.lines) == 3


def test_a_digest_that_meets_quiet_hours_set_since_is_held_too(
    parts, subscribe, tell, sweep, rows, clock
):
    subscribe(parts, digest=HOURLY)
    tell(2)
    subscribe(parts, digest=HOURLY, quiet_hours=LUNCH)
    clock.now = at(13)
    sweep()
    assert sent(parts) == []
    assert {row["state"] for row in rows(parts, "deliveries")} == {"held"}
    clock.now = at(14)
    sweep()
    assert len(sent(parts)) == 1
    assert {row["state"] for row in rows(parts, "deliveries")} == {"sent"}


def test_a_digest_that_fails_ends_what_it_tells_of_with_its_reason(
    parts, subscribe, tell, sweep, rows, clock
):
    subscribe(parts, digest=HOURLY)
    tell(2)
    parts.channel(ChannelKind.WEBHOOK).script = [DeliveryRejected("no", status_code=400)]
    clock.now = at(13)
    sweep()
    found = rows(parts, "deliveries")
    assert {row["state"] for row in found} == {"failed"}
    assert {row["reason"] for row in found} == {"no"}


def test_a_sweep_killed_before_its_commit_has_merged_nothing(
    parts, subscribe, tell, sweep, rows, clock, monkeypatch
):
    subscribe(parts, digest=HOURLY)
    tell(3)
    clock.now = at(13)
    monkeypatch.setattr("tasks.digests.save_digest", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sweep_once(parts)
    assert {row["merged_into"] for row in rows(parts, "deliveries")} == {None}


def test_a_sweep_killed_after_its_commit_leaves_the_digest_to_the_next(
    parts, subscribe, tell, published, clock, rows
):
    from store.deliveries import DeliveryTicket

    subscribe(parts, digest=HOURLY)
    tell(3)
    clock.now = at(13)
    sweep_once(parts)
    (first,) = published  # and nobody makes that try
    published.clear()
    sweep_once(parts)
    assert published == []
    clock.forward(parts.settings.starting_grace_s + 120)
    sweep_once(parts)
    assert [item[:2] for item in published] == [first[:2]]
    try_delivery(parts, DeliveryTicket(*first[:2]))
    assert len(sent(parts)) == 1
    assert len(rows(parts, "deliveries")) == 4


def test_what_was_planned_while_its_digest_went_out_makes_a_second_one(
    parts, subscribe, tell, sweep, clock, rows
):
    subscribe(parts, digest=HOURLY)
    tell(2)
    clock.now = at(13)
    sweep()
    clock.now = at(12, 59)  # a plan that was made before, and committed only now
    tell(2, name="late")
    clock.now = at(13, 1)
    sweep()
    first, second = sent(parts)
    assert second.event_key.startswith(f"{first.event_key}:")
    assert [line.title for line in second.lines] == ["late 0", "late 1"]
    assert {row["state"] for row in rows(parts, "deliveries")} == {"sent"}


def test_thousands_make_one_bounded_message_that_counts_the_rest(
    parts, subscribe, tell, sweep, clock, rows
):
    subscribe(parts, digest=DAILY)
    for batch in range(50):
        tell(100, name=f"batch{batch:02}")
    clock.now = at(18)
    tracemalloc.start()
    try:
        sweep()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (digest,) = sent(parts)
    assert digest.values["notifications"] == 5000
    assert len(digest.lines) == LISTED
    assert digest.values["more"] == 5000 - LISTED
    assert digest.summary == "0 high, 0 medium, 5000 low, 0 info; and 4980 more than are listed"
    assert len(msgspec.json.encode(digest)) < 20_000
    assert peak < 8_000_000
    assert {row["state"] for row in rows(parts, "deliveries")} == {"sent"}


def test_a_digest_says_where_each_report_is(parts, subscribe, tell, sweep, clock):
    from schemas.notifications import ArtifactLink

    subscribe(parts, digest=HOURLY)
    link = ArtifactLink(format="pdf", uri="https://r.example/1.pdf", size_bytes=1, sha256="0")
    tell(2, artifacts=(link,))
    clock.now = at(13)
    sweep()
    assert {line.link for line in sent(parts)[0].lines} == {"https://r.example/1.pdf"}


def test_a_second_sweep_merges_nothing_of_what_the_first_has(parts, subscribe, tell, clock):
    subscribe(parts, digest=HOURLY)
    tell(3)
    clock.now = at(13)
    with parts.ledger.write() as connection:
        (due,) = due_digests(connection, clock.now, 9)
        assert merge_members(connection, due, "first", clock.now, 9).total == 3
        assert merge_members(connection, due, "second", clock.now, 9).total == 0
        assert due_digests(connection, clock.now, 9) == []


def test_a_digest_is_no_event_that_a_scanner_may_publish_or_a_subscriber_ask_for():
    with pytest.raises(UnknownEventType):
        decode_entry({b"type": b"notification.digest", b"data": b"{}"}, max_bytes=1000)

"""Who has to wait: an even pace, destinations that hang, and floods that starve nobody."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from schemas.errors import ChannelUnavailable, DeliveryRejected, RateLimited
from schemas.events import EventType
from schemas.notifications import ChannelAddress, ChannelKind, Notification, Receipt, Subscriber
from schemas.reports import Severity
from schemas.settings import load_settings
from store.deliveries import DeliveryTicket, Recipient, plan_deliveries, save_notification
from store.subscribers import save_subscriber
from tasks.cleanup import cleanup_old_notifications
from tasks.notifications import deliver, started_by, try_delivery
from tasks.pace import FIRST_SILENCE_S, PATIENCE, destination_of, silence_s
from tasks.sweep import sweep_once

WEBHOOK, SLACK, EMAIL = ChannelKind.WEBHOOK, ChannelKind.SLACK, ChannelKind.EMAIL
APPRISE = ChannelKind.APPRISE
NO_PACE = {"destination_per_s": 0, "slack_per_s": 0, "subscriber_per_min": 0}


class Town:
    """Subscribers with an address each, and deliveries planned for them."""

    def __init__(self, parts: Any, rows: Any) -> None:
        self.parts = parts
        self._rows = rows
        self._keys = itertools.count(1)

    def settle(self, name: str, target: str, kind: ChannelKind = WEBHOOK) -> None:
        address = ChannelAddress(kind=kind, target=target)
        subscriber = Subscriber(subscriber_id=name, channels=(address,))
        with self.parts.ledger.write() as connection:
            save_subscriber(connection, subscriber, self.parts.box, self.parts.clock())

    def plan(self, name: str, count: int = 1, kind: ChannelKind = WEBHOOK) -> list[DeliveryTicket]:
        now = self.parts.clock()
        tickets: list[DeliveryTicket] = []
        with self.parts.ledger.write() as connection:
            for _ in range(count):
                told = Notification(
                    event_key=f"k:{next(self._keys)}",
                    type=EventType.SCAN_FAILED,
                    occurred_at=now,
                    domain=None,
                    scan_id=None,
                    severity=Severity.INFO,
                    title="",
                    summary="",
                )
                save_notification(connection, told, None, now)
                tickets += plan_deliveries(
                    connection,
                    told.event_key,
                    [Recipient(name, ChannelAddress(kind=kind, target="kept by the subscriber"))],
                    now=now,
                    started_by=started_by(self.parts),
                    new_id=self.parts.new_id,
                    box=self.parts.box,
                )
        return tickets

    def send(self, *tickets: DeliveryTicket) -> None:
        for ticket in tickets:
            try_delivery(self.parts, ticket)

    def sent(self, kind: ChannelKind = WEBHOOK) -> int:
        return len(self.parts.channel(kind).sent)

    def row(self, ticket: DeliveryTicket) -> Any:
        (row,) = (
            row
            for row in self._rows(self.parts, "deliveries")
            if row["delivery_id"] == ticket.delivery_id
        )
        return row

    def states(self) -> list[str]:
        return [row["state"] for row in self._rows(self.parts, "deliveries")]


@pytest.fixture
def make_town(
    make_parts: Callable[..., Any], rows: Any, published: list[Any]
) -> Callable[..., Town]:
    def make(**settings: Any) -> Town:
        town = Town(make_parts(**settings), rows)
        town.settle("anna", "https://hooks.example/anna")
        town.settle("ben", "https://hooks.example/ben")
        town.settle("carl", "https://carl.example/hook")
        return town

    return make


def hang(town: Town, clock: Any, seconds: float = 10.0) -> Callable[[], BaseException]:
    """A send that takes so long and has no answer."""

    def answer() -> BaseException:
        clock.forward(seconds)
        return ChannelUnavailable("no answer")

    return answer


# An even pace


def test_beyond_its_burst_a_host_is_sent_to_at_its_pace_whoever_subscribes(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    town = make_town(destination_per_s=2, destination_burst=2)
    tickets = [*town.plan("anna", 2), *town.plan("ben", 2)]
    town.send(*tickets)
    assert town.sent() == 2
    assert [delay for _, _, delay in published] == [0.5, 1.0]
    town.send(*town.plan("carl"))
    assert town.sent() == 3, "another host keeps its own pace"


def test_who_waits_has_no_attempt_and_keeps_its_number(
    make_town: Callable[..., Town], clock: Any, published: list[Any], rows: Any
) -> None:
    town = make_town(destination_per_s=1, destination_burst=1)
    first, second = town.plan("anna", 2)
    with capture_logs() as logs:
        town.send(first, second)
    assert [line["event"] for line in logs] == ["delivery_sent", "delivery_put_off"]
    row = town.row(second)
    assert (row["state"], row["tries"]) == ("pending", 0)
    assert row["due_at"] == row["slot_at"] == clock() + timedelta(seconds=1)
    assert row["lease_until"] > row["due_at"], "its message has it"
    assert len(rows(town.parts, "attempts")) == 1
    assert published == [(second.delivery_id, 1, 1.0)]
    clock.forward(1)
    town.send(second)
    assert town.sent() == 2
    assert town.row(second)["state"] == "sent"


def test_a_message_that_comes_before_its_turn_waits_for_the_same_turn(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    town = make_town(destination_per_s=1, destination_burst=1)
    first, second = town.plan("anna", 2)
    town.send(first, second)
    clock.forward(0.4)
    town.send(second)
    assert town.sent() == 1
    assert [delay for _, _, delay in published] == [1.0, 0.6]


def test_who_comes_far_too_late_to_its_turn_takes_another(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    town = make_town(destination_per_s=1, destination_burst=1)
    tickets = town.plan("anna", 5)
    town.send(*tickets)
    clock.forward(3600)  # beat was away: all turns have passed
    town.send(*tickets[1:])
    assert town.sent() == 2, "the outage does not go out in one burst"
    assert [delay for _, _, delay in published[4:]] == [1.0, 2.0, 3.0]


def test_slack_gets_one_message_a_second_and_each_url_for_itself(
    make_town: Callable[..., Town], published: list[Any]
) -> None:
    town = make_town()
    town.settle("dora", "https://hooks.slack.example/services/T/secret-one", SLACK)
    town.settle("emil", "https://hooks.slack.example/services/T/secret-two", SLACK)
    town.send(*town.plan("dora", 3, SLACK), *town.plan("emil", 1, SLACK))
    assert town.sent(SLACK) == 2
    assert [delay for _, _, delay in published] == [1.0, 2.0]


def test_a_flood_to_one_address_becomes_a_stream_and_others_do_not_wait(
    make_town: Callable[..., Town], published: list[Any]
) -> None:
    town = make_town(destination_per_s=0, subscriber_per_min=60, subscriber_burst=3)
    town.send(*town.plan("anna", 5))
    assert [delay for _, _, delay in published] == [1.0, 2.0]
    town.send(*town.plan("ben", 3))
    assert town.sent() == 6


def test_a_flooded_channel_does_not_delay_the_same_subscriber_s_other_one(
    make_town: Callable[..., Town], published: list[Any]
) -> None:
    town = make_town(subscriber_burst=1)
    both = (
        ChannelAddress(kind=WEBHOOK, target="https://both.example/hook"),
        ChannelAddress(kind=EMAIL, target="both@example.org"),
    )
    with town.parts.ledger.write() as connection:
        both_ways = Subscriber(subscriber_id="both", channels=both)
        save_subscriber(connection, both_ways, town.parts.box, town.parts.clock())
    town.send(*town.plan("both", 3), *town.plan("both", 1, EMAIL))
    assert (town.sent(), town.sent(EMAIL)) == (1, 1)


def test_a_pace_of_zero_is_no_limit(make_town: Callable[..., Town], published: list[Any]) -> None:
    town = make_town(**NO_PACE)
    town.send(*town.plan("anna", 60))
    assert (town.sent(), published) == (60, [])


def test_a_long_wait_is_a_due_time_that_the_sweep_starts_just_ahead_of_its_turn(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    town = make_town(destination_per_s=0.01, destination_burst=1)  # every 100 s
    tickets = town.plan("anna", 3)
    town.send(*tickets)
    assert published == []
    assert town.row(tickets[2])["lease_until"] is None
    clock.forward(60)
    assert sweep_once(town.parts)["deliveries"] == 1
    assert published == [(tickets[1].delivery_id, 1, 40.0)]
    assert sweep_once(town.parts)["deliveries"] == 0, "its message has it"


def test_a_flood_to_one_host_is_looked_at_twice_each_and_leaves_at_its_pace(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    """Two minutes of it: whatever number waits, none is asked again before its turn."""
    town = make_town(destination_per_s=2, destination_burst=10, subscriber_per_min=0)
    tickets = town.plan("anna", 500)
    town.send(*tickets)
    assert town.sent() == 10
    looked_at = 0
    for _ in range(2):
        sweep_once(town.parts)
        minute = clock()
        due = sorted(published, key=lambda item: float(item[2]))
        published.clear()
        for delivery_id, number, delay in due:
            clock.now = minute + timedelta(seconds=delay)
            town.send(DeliveryTicket(delivery_id, number))
            looked_at += 1
        clock.now = minute + timedelta(seconds=60)
    assert town.sent() - 10 == looked_at == 2 * 60 * 2


def test_all_countdowns_are_below_the_visibility_timeout(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    town = make_town(destination_per_s=0.05, destination_burst=1, sweep_interval_s=3600)
    town.send(*town.plan("anna", 30))
    sweep_once(town.parts)
    assert published
    assert max(delay for _, _, delay in published) < town.parts.settings.visibility_timeout_s


# Destinations that hang


def test_a_send_that_hangs_closes_its_host_to_everybody_and_no_other(
    make_town: Callable[..., Town], clock: Any, published: list[Any], rows: Any
) -> None:
    town = make_town()
    (hanging,), (waiting,), (other,) = town.plan("anna"), town.plan("ben"), town.plan("carl")
    channel = town.parts.channel(WEBHOOK)
    channel.script = [hang(town, clock)]
    with capture_logs() as logs:
        town.send(hanging)
    assert "destination_closed" in [line["event"] for line in logs]
    town.send(waiting, other)
    assert len(channel.sent) == 2
    row = town.row(waiting)
    assert (row["state"], row["tries"]) == ("pending", 0)
    assert row["due_at"] >= clock() + timedelta(seconds=FIRST_SILENCE_S)
    assert "did not answer" in row["reason"]
    assert town.row(other)["state"] == "sent"


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        (SLACK, "https://hooks.slack.example/services/T/{}"),
        (APPRISE, "discord://{}/token"),
        (APPRISE, "ntfys://notify.example/{}"),
    ],
    ids=["slack", "a service of apprise", "a host of apprise"],
)
def test_a_service_that_hangs_holds_one_worker_once_however_many_urls_lead_to_it(
    make_town: Callable[..., Town], clock: Any, published: list[Any], kind: ChannelKind, url: str
) -> None:
    town = make_town()
    tickets = []
    for number in range(20):
        town.settle(f"s{number}", url.format(number), kind)
        tickets += town.plan(f"s{number}", 1, kind)
    channel = town.parts.channel(kind)
    channel.script = [hang(town, clock)] * 20
    town.send(*tickets)
    assert len(channel.sent) == 1
    clock.forward(FIRST_SILENCE_S + 1)
    town.send(*tickets[1:])
    assert len(channel.sent) == 2, "one finds out"
    assert town.states().count("failed") == 0


def test_urls_of_one_service_are_not_sent_to_side_by_side_beyond_the_cap(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    town = make_town()
    town.settle("dora", "https://hooks.slack.example/one", SLACK)
    town.settle("emil", "https://hooks.slack.example/two", SLACK)
    (first,), others = town.plan("dora", 1, SLACK), town.plan("emil", 3, SLACK)

    def meanwhile() -> Receipt:
        town.send(*others)
        return Receipt(status_code=200, text="")

    town.parts.channel(SLACK).script = [meanwhile]
    town.send(first)
    assert town.sent(SLACK) == 1
    delays = sorted(delay for _, _, delay in published)
    assert delays[0] > 0
    assert min(after - before for before, after in itertools.pairwise(delays)) >= 0.9, "its pace"


def test_a_pause_that_one_url_asks_for_delays_no_other_of_its_service(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    town = make_town()
    town.settle("dora", "https://hooks.slack.example/one", SLACK)
    town.settle("emil", "https://hooks.slack.example/two", SLACK)
    town.parts.channel(SLACK).script = [RateLimited("slow down", 20.0, 429)]
    town.send(*town.plan("dora", 1, SLACK), *town.plan("emil", 1, SLACK))
    assert town.sent(SLACK) == 2


def test_one_send_at_a_time_finds_out_whether_a_closed_host_answers_again(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    town = make_town()
    first, probe, third = town.plan("ben", 3)
    channel = town.parts.channel(WEBHOOK)
    channel.script = [hang(town, clock)]
    town.send(first)
    town.send(probe, third)
    clock.forward(FIRST_SILENCE_S + 1)

    def meanwhile() -> Receipt:
        town.send(third)
        return Receipt(status_code=200, text="")

    channel.script = [meanwhile]
    town.send(probe)
    assert town.row(probe)["state"] == "sent"
    assert town.row(third)["state"] == "pending", "it did not go along with the probe"
    clock.forward(1)
    town.send(third)
    assert town.row(third)["state"] == "sent", "the answer opened the host"


def test_a_host_that_stays_silent_is_asked_ever_more_rarely(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    assert [silence_s(number, 0.0, 600) for number in range(1, 9)] == [
        *[0.0] * (PATIENCE - 1),
        30.0,
        60.0,
        120.0,
        240.0,
        480.0,
        600.0,
    ]
    assert silence_s(1, 10.0, 600) == FIRST_SILENCE_S
    assert silence_s(10_000, 10.0, 600) == 600


def test_quick_failures_close_a_host_only_when_they_are_many_in_a_row(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    town = make_town()
    channel = town.parts.channel(WEBHOOK)
    refused = ChannelUnavailable("connection refused")
    channel.script = [refused, refused, Receipt(status_code=200, text=""), refused, refused]
    town.send(*town.plan("ben", 5))
    town.send(*town.plan("anna"))
    assert len(channel.sent) == 6, "an answer between them counts anew"
    channel.script = [refused] * PATIENCE
    town.send(*town.plan("ben", PATIENCE))
    town.send(*town.plan("anna"))
    assert len(channel.sent) == 6 + PATIENCE


def test_a_host_that_answers_with_errors_is_not_silent(
    make_town: Callable[..., Town], published: list[Any]
) -> None:
    town = make_town()
    channel = town.parts.channel(WEBHOOK)
    channel.script = [
        ChannelUnavailable("503", status_code=503),
        DeliveryRejected("400", 400),
        RateLimited("429", 3600.0, 429),
    ] * 5
    town.send(*town.plan("ben", 15))
    town.send(*town.plan("anna"))
    assert len(channel.sent) == 16


def test_what_slack_asks_of_one_message_holds_for_all_of_its_url(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    town = make_town(slack_per_s=0)
    town.settle("dora", "https://hooks.slack.example/services/T/secret", SLACK)
    first, second = town.plan("dora", 2, SLACK)
    town.parts.channel(SLACK).script = [RateLimited("slow down", 20.0, 429)]
    town.send(first, second)
    assert town.sent(SLACK) == 1
    assert published[-1] == (second.delivery_id, 1, 20.0)


def drive(
    town: Town, clock: Any, published: list[Any], tickets: list[DeliveryTicket], seconds: int
) -> list[float]:
    """Let time pass with a broker and a beat; return when each send was made, in seconds."""
    began, waiting = clock(), [(clock(), item.delivery_id, item.number) for item in tickets]
    sweep_at, sends = clock() + timedelta(seconds=60), []
    while clock() < began + timedelta(seconds=seconds):
        if clock() >= sweep_at:
            sweep_once(town.parts)
            sweep_at += timedelta(seconds=60)
        waiting += [
            (clock() + timedelta(seconds=delay), name, number) for name, number, delay in published
        ]
        published.clear()
        waiting.sort()
        if waiting and waiting[0][0] <= clock():
            at, (_, name, number) = clock(), waiting.pop(0)
            before = sum(town.sent(kind) for kind in ChannelKind)
            town.send(DeliveryTicket(name, number))
            if sum(town.sent(kind) for kind in ChannelKind) > before:
                sends.append((at - began).total_seconds())
            continue
        clock.now = min([sweep_at, *(at for at, _, _ in waiting)])
    return sends


def test_what_waited_for_a_url_that_asked_for_a_pause_leaves_at_its_pace(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    town = make_town()
    town.settle("dora", "https://hooks.slack.example/services/T/secret", SLACK)
    tickets = town.plan("dora", 30, SLACK)
    answer = Receipt(status_code=200, text="")
    town.parts.channel(SLACK).script = [answer, RateLimited("slow down", 30.0, 429)]
    sends = drive(town, clock, published, tickets, 200)
    assert set(town.states()) == {"sent"}
    assert sends[:3] == [0.0, 1.0, 31.0]
    apart = [after - before for before, after in itertools.pairwise(sends)]
    assert min(apart) >= 0.9, "not all at once when the pause is over"


def test_what_waited_for_a_silent_host_leaves_at_its_subscribers_pace(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    town = make_town(subscriber_per_min=60, subscriber_burst=5)
    answer = Receipt(status_code=200, text="")
    town.parts.channel(WEBHOOK).script = [*[answer] * 5, hang(town, clock)]
    sends = drive(town, clock, published, town.plan("anna", 60), 400)
    assert set(town.states()) == {"sent"}
    busiest = max(sum(at <= other < at + 10 for other in sends) for at in sends)
    assert busiest <= 5 + 10, "a burst, and one for each second"


def test_no_more_than_the_allowed_sends_are_under_way_to_one_host(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    town = make_town(**NO_PACE)
    first, second = town.plan("anna", 2)
    (other,) = town.plan("carl")

    def meanwhile() -> Receipt:
        town.send(second, other)
        return Receipt(status_code=200, text="")

    town.parts.channel(WEBHOOK).script = [meanwhile]
    town.send(first)
    assert [town.row(item)["state"] for item in (first, second, other)] == [
        "sent",
        "pending",
        "sent",
    ]
    (again,) = published
    assert again[:2] == (second.delivery_id, 1)
    assert 0 < again[2] < 1
    clock.forward(1)
    town.send(second)
    assert town.row(second)["state"] == "sent"


def test_those_who_find_a_host_crowded_come_back_one_after_the_other(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    town = make_town(**NO_PACE)
    first, *others = town.plan("anna", 11)

    def meanwhile() -> Receipt:
        town.send(*others)
        return Receipt(status_code=200, text="")

    town.parts.channel(WEBHOOK).script = [meanwhile]
    town.send(first)
    delays = [delay for _, _, delay in published]
    assert len(delays) == len(others)
    assert max(delays) >= 0.05 * (len(others) - 1), "not all at once, again and again"


def test_a_send_whose_worker_died_does_not_block_its_host_for_ever(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    class Killed(BaseException):
        """What kill -9 leaves: no handler runs."""

    town = make_town()
    dead, other = town.plan("anna", 2)
    town.parts.channel(WEBHOOK).script = [Killed()]
    with pytest.raises(Killed):
        town.send(dead)
    town.send(other)
    assert town.row(other)["state"] == "pending"
    clock.forward(61)  # long before the lease of the dead one ends
    town.send(other)
    assert town.row(other)["state"] == "sent"


def test_the_longer_a_send_hangs_the_later_the_others_look_again(
    make_town: Callable[..., Town], clock: Any, published: list[Any]
) -> None:
    town = make_town(**NO_PACE)
    first, second = town.plan("anna", 2)

    def meanwhile() -> Receipt:
        for seconds in (2, 2, 4):
            clock.forward(seconds)
            town.send(second)
        return Receipt(status_code=200, text="")

    town.parts.channel(WEBHOOK).script = [meanwhile]
    town.send(first)
    assert [delay for _, _, delay in published] == [2.0, 4.0, 8.0]


# Crashes and faults


def test_a_turn_whose_message_was_lost_is_the_sweep_s(
    make_town: Callable[..., Town],
    clock: Any,
    published: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError("broker")

    town = make_town(destination_per_s=1, destination_burst=1)
    first, second = town.plan("anna", 2)
    with monkeypatch.context() as broken:
        broken.setattr(deliver, "apply_async", refuse)
        town.send(first, second)
    assert town.row(second)["state"] == "pending"
    clock.forward(62)
    assert sweep_once(town.parts)["deliveries"] == 1
    assert published == [(second.delivery_id, 1, 0.0)]


def test_a_flood_that_was_never_started_lets_others_through_the_next_sweep(
    make_town: Callable[..., Town], clock: Any, published: list[Any], monkeypatch: Any
) -> None:
    town = make_town(sweep_batch=10)
    town.plan("anna", 500)
    clock.forward(1)
    (late,) = town.plan("carl")
    clock.forward(61)
    monkeypatch.setattr("tasks.sweep.ROUNDS", 1)
    assert sweep_once(town.parts)["deliveries"] == 10
    assert late.delivery_id in {delivery_id for delivery_id, _, _ in published}


def test_a_sweep_starts_all_that_is_due_batch_by_batch_until_the_queue_is_full(
    make_town: Callable[..., Town], clock: Any, published: list[Any], monkeypatch: Any
) -> None:
    town = make_town(sweep_batch=10, reports_high_water=30)
    town.plan("anna", 50)
    clock.forward(61)
    monkeypatch.setattr(
        "tasks.sweep.queue_depth", lambda name: len(published) if name == "notifications" else 0
    )
    assert sweep_once(town.parts)["deliveries"] == 30


def test_paces_that_nobody_needs_are_cleaned_at_night(
    make_town: Callable[..., Town], rows: Any, clock: Any, published: list[Any]
) -> None:
    town = make_town()
    town.send(*town.plan("anna"))
    clock.forward(90_000)
    town.send(*town.plan("carl"))
    assert len(rows(town.parts, "pacing")) == 4
    cleanup_old_notifications()
    assert [row["pace_key"] for row in rows(town.parts, "pacing")] == [
        "http:carl.example:443",
        "subscriber:carl:webhook",
    ]


# Destinations


def test_a_destination_names_a_host_with_its_port_and_never_a_secret(
    clean_environment: None,
) -> None:
    settings = load_settings(smtp_host="mail.example", smtp_port=25, data_dir="unused")

    def key(kind: ChannelKind, target: str) -> str:
        return destination_of(ChannelAddress(kind=kind, target=target), settings).key

    assert key(WEBHOOK, "https://Hooks.Example/a?token=s3cret") == "http:hooks.example:443"
    assert key(WEBHOOK, "http://hooks.example/b") == "http:hooks.example:80"
    assert key(WEBHOOK, "https://u:p@hooks.example:8443/") == "http:hooks.example:8443"
    assert key(EMAIL, "anna@example.org") == key(EMAIL, "ben@other.org") == "smtp:mail.example:25"
    slack = key(SLACK, "https://hooks.slack.com/services/T0/B0/s3cret")
    assert slack.startswith("slack:")
    assert "s3cret" not in slack
    answers = [
        destination_of(ChannelAddress(kind=kind, target=target), settings).host
        for kind, target in (
            (SLACK, "https://hooks.slack.com/services/T0/B0/s3cret"),
            (APPRISE, "discord://s3cret/other"),
            (APPRISE, "Discord://another"),
            (APPRISE, "ntfys://notify.example/s3cret"),
            (APPRISE, "ntfys://s3cret.example"),
        )
    ]
    assert answers[:3] == ["http:hooks.slack.com:443", "apprise:discord", "apprise:discord"]
    assert len(set(answers[3:])) == 2
    assert "s3cret" not in str(answers)
    for broken in ("https://[", "https://h:99999999/", "\ud800", f"https://{'a' * 999}/"):
        assert len(key(WEBHOOK, broken)) <= 300
        assert len(key(SLACK, broken)) <= 300

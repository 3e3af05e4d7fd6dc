"""One try of a delivery at a time: leased, sent, settled, and told apart by its number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from structlog.testing import capture_logs

from schemas.errors import (
    ChannelUnavailable,
    DeliveryRejected,
    LedgerUnavailable,
    RateLimited,
)
from schemas.notifications import ChannelKind, Receipt
from store.deliveries import DeliveryTicket
from store.subscribers import find_subscriber, remove_subscriber, save_subscriber
from tasks.finish import settle
from tasks.notifications import deliver, try_delivery
from tasks.retry import last_number
from tasks.sweep import sweep_once


class Post:
    """One planned delivery to one webhook."""

    def __init__(self, parts: Any, ticket: DeliveryTicket, rows: Any) -> None:
        self.parts = parts
        self.ticket = ticket
        self.channel = parts.channel(ChannelKind.WEBHOOK)
        self._rows = rows

    def try_number(self, number: int) -> None:
        try_delivery(self.parts, DeliveryTicket(self.ticket.delivery_id, number))

    @property
    def row(self) -> Any:
        (row,) = self._rows(self.parts, "deliveries")
        return row

    @property
    def attempts(self) -> list[Any]:
        return list(self._rows(self.parts, "attempts"))


@pytest.fixture
def make_post(
    make_parts: Callable[..., Any], record: Any, subscribe: Any, rows: Any
) -> Callable[..., Post]:
    def make(**settings: Any) -> Post:
        parts = make_parts(**settings)
        subscribe(parts)
        run = record(parts, b'{"scan_id":"s-1","error":"DNS"}', type="scan.failed")
        (ticket,) = settle(parts, run.run_id, 1)
        return Post(parts, ticket, rows)

    return make


@pytest.fixture
def post(make_post: Callable[..., Post], published: list[Any]) -> Post:
    return make_post()


def test_an_accepted_message_is_sent_and_its_receipt_kept(post: Post, clock: Any) -> None:
    post.channel.script = [Receipt(status_code=202, text="queued")]
    post.try_number(1)
    assert (post.row["state"], post.row["settled_at"]) == ("sent", clock())
    assert (post.row["tries"], post.row["lease_until"], post.row["reason"]) == (1, None, None)
    (attempt,) = post.attempts
    assert (attempt["number"], attempt["outcome"]) == (1, "sent")
    assert (attempt["status_code"], attempt["receipt"]) == (202, "queued")
    (message,) = post.channel.sent
    assert message.message_id == post.ticket.delivery_id
    assert message.subscriber_id == "anna"
    assert message.address.target == "https://anna.example/webhook"
    assert message.notification.summary == "DNS"


def test_a_passing_fault_puts_it_back_and_publishes_the_next_try(
    post: Post, clock: Any, published: list[Any]
) -> None:
    post.channel.script = [ChannelUnavailable("503", status_code=503, receipt="busy")]
    post.try_number(1)
    assert (post.row["state"], post.row["reason"]) == ("pending", "503")
    assert (post.row["due_at"] - clock()).total_seconds() == 0.5
    assert post.row["lease_until"] > post.row["due_at"], "the message has it"
    assert published == [(post.ticket.delivery_id, 2, 0.5)]
    (attempt,) = post.attempts
    assert (attempt["outcome"], attempt["status_code"]) == ("retry", 503)
    assert (attempt["receipt"], attempt["error"]) == ("busy", "503")
    post.try_number(2)
    assert post.row["state"] == "sent"
    assert [message.message_id for message in post.channel.sent] == [post.ticket.delivery_id] * 2


def test_what_the_other_side_asks_for_is_the_delay(
    post: Post, clock: Any, published: list[Any]
) -> None:
    post.channel.script = [RateLimited("slow down", 42.0, 429)]
    post.try_number(1)
    assert published == [(post.ticket.delivery_id, 2, 42.0)]
    assert (post.row["due_at"] - clock()).total_seconds() == 42.0


def test_a_long_wait_is_a_due_time_in_the_ledger_and_no_message(
    post: Post, clock: Any, published: list[Any]
) -> None:
    post.channel.script = [RateLimited("come back in an hour", 3600.0, 429)]
    post.try_number(1)
    assert published == []
    assert (post.row["state"], post.row["lease_until"]) == ("pending", None)
    clock.forward(3599)
    assert sweep_once(post.parts)["deliveries"] == 0
    clock.forward(1)
    assert sweep_once(post.parts)["deliveries"] == 1
    assert published == [(post.ticket.delivery_id, 2, 0.0)]


def test_a_refusal_for_good_is_a_failure_with_its_reason(post: Post, published: list[Any]) -> None:
    post.channel.script = [DeliveryRejected("410 Gone", 410, "bye")]
    post.try_number(1)
    assert post.row["state"] == "failed"
    assert post.row["reason"].startswith("410 Gone; the address is disabled: ")
    assert post.row["settled_at"] is not None
    assert [attempt["outcome"] for attempt in post.attempts] == ["failed"]
    assert published == []


def test_after_the_last_step_of_the_schedule_it_has_failed(
    make_post: Callable[..., Post], clock: Any, published: list[Any]
) -> None:
    post = make_post(task_max_retries=1, delivery_schedule_s=(300.0,))
    post.channel.script = [ChannelUnavailable(f"fault {number}") for number in (1, 2, 3)]
    for number in (1, 2, 3):
        post.try_number(number)
    assert (post.row["state"], post.row["reason"]) == ("failed", "fault 3")
    assert [attempt["outcome"] for attempt in post.attempts] == ["retry", "retry", "failed"]
    assert len(published) == 1


def test_a_number_taken_twice_is_sent_once(post: Post) -> None:
    post.channel.script = [ChannelUnavailable("503")]
    post.try_number(1)
    with capture_logs() as logs:
        post.try_number(1)
    assert len(post.channel.sent) == 1
    assert [line["event"] for line in logs] == ["delivery_not_ours"]


def test_a_number_taken_while_it_is_being_sent_is_sent_once(post: Post) -> None:
    post.channel.script = [lambda: post.try_number(1) or Receipt(status_code=200, text="")]
    post.try_number(1)
    assert len(post.channel.sent) == 1
    assert post.row["state"] == "sent"


def test_a_settled_delivery_is_not_sent_again(post: Post) -> None:
    post.try_number(1)
    post.try_number(2)
    assert len(post.channel.sent) == 1
    assert post.row["tries"] == 1


def test_a_number_ahead_of_its_turn_is_left_alone(post: Post) -> None:
    post.try_number(3)
    assert post.channel.sent == []
    assert post.row["state"] == "pending"


def test_to_a_removed_subscriber_no_try_is_made_whoever_has_the_name_next(
    post: Post, subscribe: Any, clock: Any
) -> None:
    with post.parts.ledger.write() as connection:
        assert remove_subscriber(connection, "anna", clock())
    subscribe(post.parts)
    post.try_number(1)
    assert post.channel.sent == []
    assert (post.row["state"], post.row["reason"]) == ("suppressed", "the subscriber was removed")


@pytest.mark.parametrize("answer", [Receipt(status_code=200, text="ok"), ChannelUnavailable("503")])
def test_a_subscriber_removed_during_a_send_gets_no_second_one(
    post: Post, subscribe: Any, clock: Any, published: list[Any], answer: Any
) -> None:
    def meanwhile() -> Any:
        with post.parts.ledger.write() as connection:
            assert remove_subscriber(connection, "anna", clock())
        subscribe(post.parts)
        return answer

    post.channel.script = [meanwhile]
    post.try_number(1)
    post.try_number(2)
    assert len(post.channel.sent) == 1
    assert (post.row["state"], post.row["reason"]) == ("suppressed", "the subscriber was removed")
    assert len(post.attempts) == 1, "what came of it is on record"


def test_a_subscriber_without_this_channel_any_more_is_a_failure_too(
    post: Post, subscribe: Any
) -> None:
    subscribe(post.parts, kinds=(ChannelKind.EMAIL,))
    post.try_number(1)
    assert post.row["state"] == "failed"
    assert post.parts.channel(ChannelKind.EMAIL).sent == []


def test_a_changed_address_is_used_by_the_next_try(post: Post, subscribe: Any) -> None:
    post.channel.script = [ChannelUnavailable("503")]
    post.try_number(1)
    subscribe(post.parts, "ben")
    with post.parts.ledger.write() as connection:
        ben = find_subscriber(connection, "ben", post.parts.box)
        moved = msgspec.structs.replace(ben, subscriber_id="anna")
        save_subscriber(connection, moved, post.parts.box, post.parts.clock())
    post.try_number(2)
    assert post.row["state"] == "sent"
    assert [message.address.target for message in post.channel.sent] == [
        "https://anna.example/webhook",
        "https://ben.example/webhook",
    ]


def test_a_send_that_runs_into_the_soft_time_limit_is_tried_again(
    post: Post, published: list[Any]
) -> None:
    post.channel.script = [SoftTimeLimitExceeded()]
    post.try_number(1)
    assert post.row["state"] == "pending"
    assert "longer than a task may take" in post.row["reason"]
    assert published == [(post.ticket.delivery_id, 2, 0.5)]


class Killed(BaseException):
    """What kill -9 leaves: no handler runs."""


def die(post: Post, number: int) -> None:
    post.channel.script = [Killed()]
    with pytest.raises(Killed):
        post.try_number(number)


def test_a_dead_workers_try_is_followed_by_the_next_number_under_the_same_id(
    post: Post, clock: Any, published: list[Any]
) -> None:
    die(post, 1)
    assert post.row["state"] == "sending"
    clock.forward(post.parts.settings.delivery_lease_s - 1)
    assert sweep_once(post.parts)["deliveries"] == 0, "it may still be at work"
    clock.forward(2)
    assert sweep_once(post.parts)["deliveries"] == 1
    assert published == [(post.ticket.delivery_id, 2, 0.0)]
    post.try_number(2)
    assert post.row["state"] == "sent"
    assert len({message.message_id for message in post.channel.sent}) == 1


def test_a_message_that_kills_its_worker_every_time_is_given_up(
    make_post: Callable[..., Post], clock: Any, published: list[Any]
) -> None:
    post = make_post(task_max_retries=1, delivery_schedule_s=(300.0,))
    for number in range(1, last_number(post.parts.settings) + 1):
        die(post, number)
        clock.forward(post.parts.settings.delivery_lease_s + 1)
        assert sweep_once(post.parts)["deliveries"] == 1
    post.try_number(published[-1][1])
    assert len(post.channel.sent) == 3
    assert post.row["state"] == "failed"
    assert "poison" in post.row["reason"]
    clock.forward(100_000)
    assert sweep_once(post.parts)["deliveries"] == 0


def test_a_try_that_was_overtaken_changes_nothing_but_the_log(
    post: Post, clock: Any, published: list[Any]
) -> None:
    def overtaken() -> Receipt:
        clock.forward(post.parts.settings.delivery_lease_s + 1)
        sweep_once(post.parts)
        post.channel.script = [DeliveryRejected("410 Gone", 410)]
        post.try_number(2)
        return Receipt(status_code=200, text="late")

    post.channel.script = [overtaken]
    post.try_number(1)
    assert (post.row["state"], post.row["tries"]) == ("failed", 2)
    assert [(row["number"], row["outcome"]) for row in post.attempts] == [
        (2, "failed"),
        (1, "sent"),
    ]


def test_a_retry_that_cannot_be_published_is_the_sweeps(
    make_post: Callable[..., Post], clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionRefusedError("broker")

    post = make_post()
    monkeypatch.setattr(deliver, "apply_async", refuse)
    post.channel.script = [ChannelUnavailable("503")]
    with capture_logs() as logs:
        post.try_number(1)
    assert "retry_left_to_sweep" in [line["event"] for line in logs]
    assert post.row["state"] == "pending"
    clock.forward(61)
    assert sweep_once(post.parts)["deliveries"] == 1


def test_the_task_tries_again_while_the_ledger_is_away(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = post.parts.ledger.write
    faults = [LedgerUnavailable("locked"), LedgerUnavailable("locked")]

    def write() -> Any:
        if faults:
            raise faults.pop()
        return real()

    monkeypatch.setattr(post.parts.ledger, "write", write)
    deliver.apply((post.ticket.delivery_id, 1)).get()
    assert post.row["state"] == "sent"
    assert len(post.channel.sent) == 1


def test_logs_of_a_delivery_hold_ids_and_never_the_address(post: Post) -> None:
    post.channel.script = [ChannelUnavailable("503", status_code=503)]
    with capture_logs() as logs:
        post.try_number(1)
        post.try_number(2)
    assert [line["event"] for line in logs] == ["delivery_put_back", "delivery_sent"]
    assert all(line["delivery_id"] == post.ticket.delivery_id for line in logs)
    assert "anna.example" not in str(logs)

"""Addresses that are gone or fail for days: disabled, told of once, and used again."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from cli.main import app
from schemas.errors import ChannelUnavailable, DeliveryRejected
from schemas.notifications import ChannelKind, Receipt
from store.deliveries import DeliveryTicket
from store.endpoints import disabled_endpoints, enable_endpoint
from store.ledger import unpack
from tasks.finish import settle
from tasks.notifications import try_delivery
from tasks.sweep import sweep_once

WEBHOOK, EMAIL = ChannelKind.WEBHOOK, ChannelKind.EMAIL
DAY = 86_400.0
GONE = DeliveryRejected("h.example answered 410", 410)


@pytest.fixture
def fail_scan(parts: Any, record: Any) -> Callable[..., list[DeliveryTicket]]:
    """One more failed scan; returns the tries it starts."""
    numbers = itertools.count(1)

    def fail(parts: Any = parts) -> list[DeliveryTicket]:
        run = record(parts, b'{"error":"DNS"}', type="scan.failed", id=f"e-{next(numbers)}")
        return settle(parts, run.run_id, 1)

    return fail


def disabled(parts: Any) -> dict[tuple[str, ChannelKind], str]:
    with parts.ledger.read() as connection:
        return disabled_endpoints(connection)


def send(parts: Any, *tickets: DeliveryTicket) -> None:
    for ticket in tickets:
        try_delivery(parts, ticket)


def test_an_address_that_answers_410_is_disabled_and_its_waiting_deliveries_end(
    parts: Any, subscribe: Any, fail_scan: Any, rows: Any, published: list[Any]
) -> None:
    subscribe(parts)
    tickets = [ticket for _ in range(3) for ticket in fail_scan()]
    parts.channel(WEBHOOK).script = [GONE]
    with capture_logs() as logs:
        send(parts, tickets[0])
    assert "endpoint_disabled" in [line["event"] for line in logs]
    assert "anna.example" not in str(logs)
    assert list(disabled(parts)) == [("anna", WEBHOOK)]
    send(parts, tickets[1])
    assert len(parts.channel(WEBHOOK).sent) == 1, "a message that was on its way is not sent"
    sweep_once(parts)
    found = rows(parts, "deliveries")
    assert {row["state"] for row in found} == {"failed"}
    assert all("the address is disabled: it said that it is gone" in row["reason"] for row in found)
    assert len(rows(parts, "attempts")) == 1


def test_an_address_that_fails_for_days_is_disabled_by_the_failure_after_them(
    parts: Any, subscribe: Any, fail_scan: Any, rows: Any, clock: Any, published: list[Any]
) -> None:
    subscribe(parts)
    channel = parts.channel(WEBHOOK)
    refusal = DeliveryRejected("h.example answered 404", 404)
    for _ in range(5):
        channel.script = [refusal]
        send(parts, *fail_scan())
        clock.forward(DAY)
    assert disabled(parts) == {}
    passing = ChannelUnavailable("h.example answered 503", status_code=503)
    channel.script = [passing, passing]
    (ticket,) = fail_scan()
    send(parts, ticket)
    assert disabled(parts) == {}, "a first try of what may pass"
    send(parts, DeliveryTicket(ticket.delivery_id, 2))
    assert list(disabled(parts)) == [("anna", WEBHOOK)]
    row = rows(parts, "deliveries")[-1]
    assert row["state"] == "failed", "no more tries, although this error would pass"
    assert row["reason"].startswith("h.example answered 503; the address is disabled: nothing")


def test_failures_that_are_isolated_keep_an_address(
    parts: Any, subscribe: Any, fail_scan: Any, rows: Any, clock: Any, published: list[Any]
) -> None:
    subscribe(parts)
    channel = parts.channel(WEBHOOK)
    for answer in (
        DeliveryRejected("h.example answered 400", 400),
        ChannelUnavailable("h.example answered 503", status_code=503),
        *[DeliveryRejected("h.example answered 400", 400)] * 4,
    ):
        channel.script = [answer]
        send(parts, *fail_scan())
        clock.forward(7 * DAY)
    assert disabled(parts) == {}
    assert "pending" in {row["state"] for row in rows(parts, "deliveries")}, "the 503 is retried"


def test_a_good_answer_between_failures_keeps_an_address(
    parts: Any, subscribe: Any, fail_scan: Any, clock: Any, published: list[Any]
) -> None:
    subscribe(parts)
    refusal = DeliveryRejected("404", 404)
    parts.channel(WEBHOOK).script = [refusal, Receipt(status_code=200, text=""), refusal]
    for _ in range(3):
        send(parts, *fail_scan())
        clock.forward(3 * DAY)
    assert disabled(parts) == {}


def test_the_mail_server_s_outage_speaks_against_no_mailbox_and_its_refusal_does(
    parts: Any, subscribe: Any, fail_scan: Any, clock: Any, published: list[Any]
) -> None:
    subscribe(parts, kinds=(EMAIL,))
    channel = parts.channel(EMAIL)
    channel.script = [
        ChannelUnavailable("no connection"),
        DeliveryRejected("the mail server refused the message with 554", 554),
        ChannelUnavailable("the mail server refused the sender with 550", status_code=550),
    ]
    for _ in range(3):
        send(parts, *fail_scan())
        clock.forward(6 * DAY)
    refusal = DeliveryRejected(
        "the mail server refused the recipient with 550", 550, of_mailbox=True
    )
    for _ in range(5):
        channel.script = [refusal]
        send(parts, *fail_scan())
        clock.forward(DAY)
    assert disabled(parts) == {}
    channel.script = [refusal]
    send(parts, *fail_scan())
    assert list(disabled(parts)) == [("anna", EMAIL)]


def test_another_channel_of_the_subscriber_goes_on(
    parts: Any, subscribe: Any, fail_scan: Any, published: list[Any]
) -> None:
    subscribe(parts, kinds=(WEBHOOK, EMAIL))
    parts.channel(WEBHOOK).script = [GONE]
    send(parts, *fail_scan())
    send(parts, *fail_scan())
    assert len(parts.channel(WEBHOOK).sent) == 1
    assert len(parts.channel(EMAIL).sent) == 2


def test_what_is_planned_for_a_disabled_address_is_suppressed_with_the_reason(
    parts: Any, subscribe: Any, fail_scan: Any, rows: Any, published: list[Any]
) -> None:
    subscribe(parts)
    parts.channel(WEBHOOK).script = [GONE]
    send(parts, *fail_scan())
    assert fail_scan() == []
    row = rows(parts, "deliveries")[-1]
    assert row["state"] == "suppressed"
    assert row["reason"].startswith("the address is disabled: ")


def test_operators_are_told_of_disabled_addresses_by_the_next_sweep_and_once(
    parts: Any, subscribe: Any, fail_scan: Any, rows: Any, published: list[Any]
) -> None:
    subscribe(parts, events=("scan.failed",))
    subscribe(parts, "operator", events=("operator.alert",))
    parts.channel(WEBHOOK).script = [GONE]
    send(parts, *fail_scan())
    for _ in range(3):
        sweep_once(parts)
    (alert,) = (row for row in rows(parts, "deliveries") if row["subscriber_id"] == "operator")
    assert "endpoints_disabled" in alert["event_key"]
    send(parts, DeliveryTicket(alert["delivery_id"], 1))
    message = parts.channel(WEBHOOK).sent[-1].notification
    assert message.data["such_as"] == ["anna (webhook)"]
    assert "anna.example" not in str(message)


def test_operators_are_told_of_every_disabled_address_by_an_alert_that_counts_it(
    parts: Any, subscribe: Any, fail_scan: Any, rows: Any, clock: Any, published: list[Any]
) -> None:
    subscribe(parts, "operator", events=("operator.alert",))
    for number in range(15):
        subscribe(parts, f"s{number:02}", events=("scan.failed",))
    parts.channel(WEBHOOK).script = [GONE] * 15
    for ticket in fail_scan():
        send(parts, ticket)
        sweep_once(parts)
        clock.forward(60)
    clock.forward(3600)
    for _ in range(3):
        sweep_once(parts)
    told = [
        json.loads(unpack(row["content"]))
        for row in rows(parts, "notifications")
        if row["type"] == "operator.alert"
    ]
    counts = sorted(item["values"]["total"] for item in told)
    assert counts == [1, 4, 10], "the first, then ten together, and the rest an hour later"
    assert all(row["told_at"] for row in rows(parts, "endpoints"))
    named = {name for item in told for name in item["data"]["such_as"]}
    assert len(named) == 15


def test_many_addresses_that_are_disabled_at_once_are_one_alert(
    parts: Any, subscribe: Any, fail_scan: Any, rows: Any, published: list[Any]
) -> None:
    subscribe(parts, "operator", events=("operator.alert",))
    for number in range(120):
        subscribe(parts, f"s{number:03}", events=("scan.failed",))
    parts.channel(WEBHOOK).script = [GONE] * 120
    send(parts, *fail_scan())
    for _ in range(3):
        sweep_once(parts)
    (alert,) = [row for row in rows(parts, "notifications") if row["type"] == "operator.alert"]
    assert json.loads(unpack(alert["content"]))["values"]["total"] == 120
    assert all(row["told_at"] for row in rows(parts, "endpoints"))


def test_an_alert_whose_own_address_is_gone_brings_no_endless_alerts(
    parts: Any, subscribe: Any, fail_scan: Any, rows: Any, clock: Any, published: list[Any]
) -> None:
    subscribe(parts, events=("scan.failed",))
    for name in ("operator-1", "operator-2"):
        subscribe(parts, name, events=("operator.alert",))
    parts.channel(WEBHOOK).script = [GONE] * 50
    send(parts, *fail_scan())
    for _ in range(10):
        sweep_once(parts)
        send(parts, *(DeliveryTicket(name, number) for name, number, _ in published))
        published.clear()
        clock.forward(3600)  # the throttle of an hour does not hide it
    assert len(disabled(parts)) == 3
    alerts = [row for row in rows(parts, "notifications") if row["type"] == "operator.alert"]
    assert 1 <= len(alerts) <= 3
    assert len(parts.channel(WEBHOOK).sent) == 3, "each address heard one message"


def test_a_sweep_killed_while_it_ends_deliveries_goes_on_the_next_time(
    make_parts: Any,
    subscribe: Any,
    fail_scan: Any,
    rows: Any,
    published: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = make_parts(sweep_batch=2)
    subscribe(parts)
    subscribe(parts, "operator", events=("operator.alert",))
    tickets = [ticket for _ in range(6) for ticket in fail_scan(parts)]
    parts.channel(WEBHOOK).script = [GONE]
    send(parts, tickets[0])
    monkeypatch.setattr("tasks.endpoints.ROUNDS", 1)
    sweep_once(parts)
    states = [row["state"] for row in rows(parts, "deliveries")]
    assert (states.count("failed"), states.count("pending")) == (3, 3)
    monkeypatch.setattr("tasks.endpoints.ROUNDS", 9)
    sweep_once(parts)
    states = [row["state"] for row in rows(parts, "deliveries")]
    assert states.count("failed") == 6
    assert [row["type"] for row in rows(parts, "notifications")].count("operator.alert") == 1


# By command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, parts: Any) -> Callable[..., Any]:
    """Run a command on the ledger of ``parts``."""
    monkeypatch.setenv("SCANHERALD_DATA_DIR", str(parts.settings.data_dir))

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["deliveries", *arguments])

    return run


def test_a_disabled_address_is_enabled_by_command(
    parts: Any, subscribe: Any, fail_scan: Any, published: list[Any], command: Any
) -> None:
    subscribe(parts)
    parts.channel(WEBHOOK).script = [GONE]
    send(parts, *fail_scan())
    assert command("enable", "anna", "--channel", "webhook").exit_code == 0
    assert disabled(parts) == {}
    send(parts, *fail_scan())
    assert len(parts.channel(WEBHOOK).sent) == 2
    again = command("enable", "anna", "--channel", "webhook")
    assert "is not disabled" in str(again.exception)


def test_failed_deliveries_are_listed_and_tried_again_and_sent_ones_never(
    parts: Any,
    subscribe: Any,
    fail_scan: Any,
    rows: Any,
    clock: Any,
    published: list[Any],
    command: Any,
) -> None:
    subscribe(parts)
    sent, failed = fail_scan(), fail_scan()
    send(parts, *sent)
    parts.channel(WEBHOOK).script = [GONE]
    send(parts, *failed)
    fail_scan()  # suppressed: the address is disabled
    listed = json.loads(command("--failed", "--json").stdout)
    assert sorted(row["state"] for row in listed) == ["failed", "suppressed"]
    said = command("retry", "--failed", "--json")
    revived = json.loads(said.stdout)["revived"]
    assert sorted(revived) == sorted(row["delivery_id"] for row in listed)
    assert json.loads(command("retry", "--failed", "--json").stdout) == {"revived": [], "left": []}
    clock.forward(10 * 365 * DAY)  # the command told the time by the machine's own clock
    assert sweep_once(parts)["deliveries"] == 2
    send(parts, *(DeliveryTicket(name, number) for name, number, _ in published))
    assert {row["state"] for row in rows(parts, "deliveries")} == {"sent"}
    ids = [message.message_id for message in parts.channel(WEBHOOK).sent]
    assert ids.count(sent[0].delivery_id) == 1
    refused = command("retry", sent[0].delivery_id)
    assert "neither failed nor suppressed" in str(refused.exception)


def test_a_delivery_is_shown_with_every_try_and_the_state_of_its_address(
    parts: Any, subscribe: Any, fail_scan: Any, published: list[Any], command: Any
) -> None:
    subscribe(parts)
    (ticket,) = fail_scan()
    parts.channel(WEBHOOK).script = [
        ChannelUnavailable("h.example answered 503", status_code=503, receipt="busy [now]"),
        GONE,
    ]
    send(parts, ticket, DeliveryTicket(ticket.delivery_id, 2))
    shown = json.loads(command("show", ticket.delivery_id, "--json").stdout)
    assert [item["outcome"] for item in shown["attempts"]] == ["retry", "failed"]
    assert shown["attempts"][0]["receipt"] == "busy [now]"
    assert shown["endpoint"]["disabled_at"] is not None
    said = command("show", ticket.delivery_id).stdout
    assert "busy [now]" in said
    assert "disabled: it said that it is gone" in said
    assert "anna.example" not in said
    assert "no delivery" in str(command("show", "nothing").exception)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("retry",), "name deliveries"),
        (("retry", "id", "--failed"), "name deliveries"),
        (("retry", "id", "--since", "1d"), "go with --failed"),
        (("retry", "--failed", "--since", "soon"), "neither a duration"),
    ],
)
def test_a_retry_that_says_nothing_clear_is_refused(
    parts: Any, command: Any, arguments: tuple[str, ...], complaint: str
) -> None:
    assert complaint in str(command(*arguments).exception)


def test_enabling_forgets_the_failures_before(
    parts: Any, subscribe: Any, fail_scan: Any, clock: Any, published: list[Any]
) -> None:
    subscribe(parts)
    parts.channel(WEBHOOK).script = [GONE]
    send(parts, *fail_scan())
    with parts.ledger.write() as connection:
        assert enable_endpoint(connection, "anna", WEBHOOK)
    clock.forward(6 * DAY)
    parts.channel(WEBHOOK).script = [DeliveryRejected("404", 404)]
    send(parts, *fail_scan())
    assert disabled(parts) == {}

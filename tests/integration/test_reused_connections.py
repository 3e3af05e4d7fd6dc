"""A hundred sends by one process: the connections of a channel are kept between them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from channels.signing import new_secret
from cli.sinks import HttpSink, MailSink
from schemas.events import EventType
from schemas.notifications import ChannelAddress, ChannelKind, Notification, Subscriber
from schemas.reports import Severity
from schemas.settings import load_settings
from store.deliveries import Recipient, count_deliveries, plan_deliveries, save_notification
from store.subscribers import save_subscriber
from tasks.notifications import try_delivery
from tasks.wiring import Wiring, utc_now, wire

SENDS = 100
TARGETS: dict[ChannelKind, Callable[[HttpSink], str]] = {
    ChannelKind.EMAIL: lambda _: "officer@example.org",
    ChannelKind.WEBHOOK: lambda sink: f"{sink.url}/hook",
    ChannelKind.SLACK: lambda sink: f"{sink.url}/slack/T/B/x",
}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Where connections were opened to."""
    seen: list[Any] = []
    real = socket.create_connection

    def count(address: Any, *arguments: Any, **options: Any) -> socket.socket:
        seen.append(address)
        return real(address, *arguments, **options)

    monkeypatch.setattr(socket, "create_connection", count)
    return seen


@pytest.fixture
def make_parts(tmp_path: Path) -> Iterator[Callable[[MailSink, HttpSink], Wiring]]:
    made: list[Wiring] = []

    def make(mails: MailSink, sink: HttpSink) -> Wiring:
        settings = load_settings(
            data_dir=tmp_path,
            smtp_host="127.0.0.1",
            smtp_port=mails.port,
            smtp_security="none",
            http_allow=(f"127.0.0.1:{sink.port}",),
            destination_per_s=0,
            slack_per_s=0,
            subscriber_per_min=0,
        )
        made.append(wire(settings))
        made[-1].ledger.migrate()
        return made[-1]

    yield make
    for parts in made:
        parts.close()


@pytest.mark.parametrize("kind", TARGETS)
def test_a_hundred_sends_share_one_connection(
    kind: ChannelKind, make_parts: Callable[..., Wiring], opened: list[Any]
) -> None:
    with MailSink() as mails, HttpSink() as sink:
        parts = make_parts(mails, sink)
        secret = new_secret(lambda size: b"s" * size) if kind is ChannelKind.WEBHOOK else None
        address = ChannelAddress(kind=kind, target=TARGETS[kind](sink), secret=secret)
        with parts.ledger.write() as connection:
            save_subscriber(
                connection,
                Subscriber(subscriber_id="one", channels=(address,)),
                parts.box,
                utc_now(),
            )
            tickets = [
                ticket
                for number in range(SENDS)
                for ticket in _plan(connection, parts, f"k:{number}", address)
            ]
        opened.clear()
        for ticket in tickets:
            try_delivery(parts, ticket)
        with parts.ledger.read() as connection:
            assert count_deliveries(connection) == {(kind.value, "sent"): SENDS}
        assert len(opened) == 1
        parts.close()


def _plan(connection: Any, parts: Wiring, key: str, address: ChannelAddress) -> Any:
    now = utc_now()
    told = Notification(
        event_key=key,
        type=EventType.SCAN_FAILED,
        occurred_at=now,
        domain="shop.example",
        scan_id=None,
        severity=Severity.INFO,
        title="told",
        summary="",
    )
    save_notification(connection, told, None, now)
    return plan_deliveries(
        connection,
        key,
        [Recipient("one", address)],
        now=now,
        started_by=now,
        new_id=lambda: str(uuid4()),
        box=parts.box,
    )

"""Chosen artifacts travel with an e-mail, as far as they fit; the rest stay links."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_bytes, policy
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from channels.mail_message import compose
from schemas.errors import ArtifactsUnavailable
from schemas.notifications import ChannelAddress, ChannelKind, Message
from schemas.reports import Format
from store.deliveries import DeliveryTicket
from store.tables import deliveries, reports
from tasks.attaching import attach
from tasks.finish import settle
from tasks.notifications import try_delivery
from tasks.reports import render_formats

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.fixture
def told(
    parts: Any, record: Any, make_scan: Callable[..., bytes], subscribe: Any, published: list[Any]
) -> Any:
    """A settled scan with two artifacts and its news, on the way to one e-mail address."""
    subscribe(parts, kinds=(ChannelKind.EMAIL,), attach=("pdf", "csv"))
    run = record(parts, make_scan())
    render_formats(parts, run.run_id, [Format.PDF, Format.HTML, Format.JSON, Format.CSV])
    tickets = settle(parts, run.run_id, 1)
    for ticket in tickets:
        try_delivery(parts, ticket)
    return next(
        message
        for message in parts.channel(ChannelKind.EMAIL).sent
        if message.notification.type.value == "scan.completed"
    )


def names(message: Message) -> list[str]:
    return [attached.file_name for attached in message.attachments]


def test_the_chosen_formats_are_attached_whole(told: Message) -> None:
    links = {link.format: link for link in told.notification.artifacts}
    assert names(told) == [
        "report-shop.example-2026-03-04.pdf",
        "report-shop.example-2026-03-04.csv",
    ]
    for attached in told.attachments:
        link = links[attached.file_name.rpartition(".")[2]]
        assert hashlib.sha256(attached.data).hexdigest() == link.sha256
    assert told.too_large == ()


def test_what_does_not_fit_stays_a_link_and_the_mail_says_so(parts: Any, told: Message) -> None:
    address = ChannelAddress(kind=ChannelKind.EMAIL, target="dpo@example.org")
    told = msgspec.structs.replace(told, address=address)
    sizes = {link.format: link.size_bytes for link in told.notification.artifacts}
    assert sizes["csv"] < sizes["pdf"]
    for room, attached, too_large in (
        (sizes["csv"], ["csv"], ("pdf",)),
        (sizes["pdf"], ["pdf"], ("csv",)),
        (sizes["pdf"] + sizes["csv"], ["pdf", "csv"], ()),
        (0, [], ("pdf", "csv")),
    ):
        parts.settings = parts.settings.model_copy(update={"mail_max_attachment_bytes": room})
        made = attach(parts, told, ("pdf", "csv"))
        assert [name.rpartition(".")[2] for name in names(made)] == attached
        assert made.too_large == too_large
        text = compose(made, mail_from="a@b.example", unsubscribe_url=None, now=NOON).content
        mail = message_from_bytes(text, policy=policy.default)
        said = f"Too large to attach, see the list of reports: {', '.join(too_large).upper()}"
        for body in (mail.get_body(("plain",)), mail.get_body(("html",))):
            assert (said in body.get_content()) is bool(too_large)
            assert ("Attached: report-shop.example" in body.get_content()) is bool(attached)


@pytest.mark.parametrize("harm", ["deleted", "replaced", "forgotten"])
def test_an_artifact_that_is_gone_stays_a_link(
    parts: Any, told: Message, rows: Any, harm: str
) -> None:
    (row,) = (row for row in rows(parts, "reports") if row["format"] == "pdf")
    if harm == "deleted":
        parts.artifacts.delete(row["artifact_key"])
    elif harm == "replaced":
        parts.artifacts.put(row["artifact_key"], b"something else")
    else:
        with parts.ledger.write() as connection:
            connection.execute(reports.update().values(sha256="another"))
    with capture_logs() as logs:
        made = attach(parts, told, ("pdf",))
    assert (made.attachments, made.too_large) == ((), ())
    assert [entry["event"] for entry in logs] == ["attachment_gone"]


def test_only_an_e_mail_carries_anything_and_only_by_choice(parts: Any, told: Message) -> None:
    bare = msgspec.structs.replace(told, attachments=())
    assert attach(parts, bare, ()) == bare
    for kind in set(ChannelKind) - {ChannelKind.EMAIL}:
        address = ChannelAddress(kind=kind, target="https://hooks.example/x")
        elsewhere = msgspec.structs.replace(bare, address=address)
        assert attach(parts, elsewhere, ("pdf",)) == elsewhere


@pytest.mark.parametrize("domain", ["../../etc", "Ü\r\nBcc: x", "a" * 300, None, "...", "a b"])
def test_a_file_name_is_safe_whatever_the_domain(
    parts: Any, told: Message, domain: str | None
) -> None:
    hostile = msgspec.structs.replace(told.notification, domain=domain)
    made = attach(parts, msgspec.structs.replace(told, notification=hostile), ("pdf",))
    assert re.fullmatch(r"report(-[a-z0-9][a-z0-9.-]{0,79})?-2026-03-04\.pdf", *names(made))


def test_a_store_that_is_away_puts_the_mail_off(
    parts: Any, told: Message, rows: Any, published: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(key: str) -> bytes:
        raise ArtifactsUnavailable("away")

    with parts.ledger.write() as connection:
        connection.execute(deliveries.update().values(state="pending", tries=0))
    (row,) = (row for row in rows(parts, "deliveries") if row["delivery_id"] == told.message_id)
    before = len(parts.channel(ChannelKind.EMAIL).sent)
    ticket = DeliveryTicket(told.message_id, 1)
    with monkeypatch.context() as broken:
        broken.setattr(parts.artifacts, "get", away)
        try_delivery(parts, ticket)
    assert len(parts.channel(ChannelKind.EMAIL).sent) == before
    (row,) = (row for row in rows(parts, "deliveries") if row["delivery_id"] == told.message_id)
    assert row["state"] == "pending"
    try_delivery(parts, DeliveryTicket(told.message_id, 2))
    assert names(parts.channel(ChannelKind.EMAIL).sent[-1]) == names(told)
    (row,) = (row for row in rows(parts, "deliveries") if row["delivery_id"] == told.message_id)
    assert row["state"] == "sent"

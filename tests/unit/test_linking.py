"""What a message links: a bucket's artifacts are signed as it is sent, and nowhere kept signed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from schemas.errors import ArtifactsUnavailable
from schemas.notifications import ChannelKind, Message
from schemas.reports import Format
from store.ledger import unpack
from store.tables import deliveries, notifications
from tasks.finish import settle
from tasks.linking import with_links
from tasks.notifications import try_delivery
from tasks.reports import render_formats


class SigningStore:
    """The store of the test, as if it were a bucket."""

    folder = None

    def __init__(self, store: Any) -> None:
        self._store = store
        self.asked: list[timedelta] = []
        self.fails = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def presigned(self, uri: str, expires_in: timedelta) -> str:
        if self.fails:
            raise ArtifactsUnavailable("no key to sign with")
        self.asked.append(expires_in)
        return f"https://bucket.example/{len(self.asked)}?signature=tokenish"


@pytest.fixture
def signing(parts: Any) -> SigningStore:
    parts.artifacts = SigningStore(parts.artifacts)
    store: SigningStore = parts.artifacts
    return store


@pytest.fixture
def planned(
    parts: Any, signing: SigningStore, record: Any, make_scan: Callable[..., bytes], subscribe: Any
) -> Any:
    """Deliveries of a settled scan's news to one webhook, planned and not sent."""
    subscribe(parts, kinds=(ChannelKind.WEBHOOK,))
    run = record(parts, make_scan())
    render_formats(parts, run.run_id, run.formats)
    return settle(parts, run.run_id, 1)


def sent(parts: Any) -> Message:
    return next(
        message
        for message in parts.channel(ChannelKind.WEBHOOK).sent
        if message.notification.type.value == "scan.completed"
    )


def test_links_are_signed_as_the_message_is_sent_and_the_ledger_keeps_the_uri(
    parts: Any, signing: SigningStore, planned: Any, published: list[Any]
) -> None:
    assert signing.asked == [], "what is planned may wait for long"
    for ticket in planned:
        try_delivery(parts, ticket)

    links = [artifact.uri for artifact in sent(parts).notification.artifacts]
    assert len(links) == len(Format) - 1
    assert all(link.startswith("https://bucket.example/") for link in links)
    assert set(signing.asked) == {timedelta(days=7)}
    with parts.ledger.read() as connection:
        kept = connection.execute(select(notifications.c.content)).scalars().all()
    assert not any(b"tokenish" in unpack(content) for content in kept)


def test_an_expiry_of_nought_leaves_the_uri(
    parts: Any, signing: SigningStore, planned: Any, published: list[Any]
) -> None:
    parts.settings = parts.settings.model_copy(update={"link_expires_s": 0})
    for ticket in planned:
        try_delivery(parts, ticket)
    assert signing.asked == []
    assert all("tokenish" not in link.uri for link in sent(parts).notification.artifacts)


def test_the_lines_of_a_digest_are_linked_alike(
    parts: Any, signing: SigningStore, planned: Any, published: list[Any]
) -> None:
    for ticket in planned:
        try_delivery(parts, ticket)
    told = sent(parts).notification
    from tasks.digests import _line

    digest = msgspec.structs.replace(told, artifacts=(), lines=(_line(told),))
    (line,) = with_links(parts, digest).lines
    assert line.link is not None
    assert "tokenish" in line.link


def test_a_store_that_cannot_sign_delays_the_delivery(
    parts: Any, signing: SigningStore, planned: Any, published: list[Any]
) -> None:
    signing.fails = True
    for ticket in planned:
        try_delivery(parts, ticket)
    with parts.ledger.read() as connection:
        rows = connection.execute(select(deliveries.c.state)).scalars().all()
    assert set(rows) == {"pending"}
    assert parts.channel(ChannelKind.WEBHOOK).sent == []

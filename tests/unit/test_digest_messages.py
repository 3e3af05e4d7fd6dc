"""A digest on every channel: each notification with its domain, its severity and its report."""

from __future__ import annotations

import email
import email.policy
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from channels.mail_message import compose
from channels.slack import slack_payload
from channels.webhook import MAX_BODY_BYTES, event_body
from schemas.events import EventType
from schemas.notifications import (
    ArtifactLink,
    ChannelAddress,
    ChannelKind,
    Message,
    Notification,
)
from schemas.reports import Severity
from store.held import DueDigest, Merged
from tasks.digests import LISTED, digest

NOW = datetime(2026, 3, 4, 18, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script> <!channel> *bold* \u202e\x07"


def told(number: int, title: str = "") -> Notification:
    return Notification(
        event_key=f"k:{number}",
        type=EventType.SCAN_FAILED,
        occurred_at=NOW,
        domain=f"site{number}.example",
        scan_id=None,
        severity=Severity.LOW,
        title=title or f"Scan number {number} failed",
        summary="",
        artifacts=(
            ArtifactLink(
                format="html", uri=f"https://r.example/{number}.html", size_bytes=1, sha256="0"
            ),
        ),
    )


def message(kind: ChannelKind, *listed: Notification, total: int = 0) -> Message:
    merged = Merged({Severity.LOW: total or len(listed)}, listed)
    due = DueDigest("anna", kind, NOW, merged.total)
    return Message(
        message_id="m-1",
        notification=digest("digest:anna", merged, due, NOW),
        address=ChannelAddress(kind=kind, target="anna@example.org"),
    )


def mail(*listed: Notification, total: int = 0) -> dict[str, str]:
    envelope = compose(
        message(ChannelKind.EMAIL, *listed, total=total),
        mail_from="a@example.org",
        unsubscribe_url=None,
        now=NOW,
    )
    parsed = email.message_from_bytes(envelope.content, policy=email.policy.default)
    return {
        part.get_content_type(): part.get_content()
        for part in parsed.walk()
        if not part.is_multipart()
    }


def slack(*listed: Notification, total: int = 0) -> dict[str, Any]:
    return slack_payload(message(ChannelKind.SLACK, *listed, total=total))


def webhook(*listed: Notification, total: int = 0) -> dict[str, Any]:
    body = event_body(message(ChannelKind.WEBHOOK, *listed, total=total))
    assert len(body) < MAX_BODY_BYTES
    return json.loads(body)  # type: ignore[no-any-return]


@pytest.mark.parametrize("channel", [mail, slack, webhook])
def test_every_channel_lists_what_a_digest_tells_of(channel):
    said = channel(told(1), told(2))
    parts = said.values() if channel is mail else [json.dumps(said)]
    for text in parts:
        for number in (1, 2):
            assert f"Scan number {number} failed" in text
            assert f"site{number}.example" in text
            assert f"https://r.example/{number}.html" in text


@pytest.mark.parametrize("channel", [mail, slack])
def test_people_are_told_how_many_there_are_more(channel):
    said = channel(*map(told, range(LISTED)), total=5000)
    for text in said.values() if channel is mail else [json.dumps(said)]:
        assert "4980 more" in text or "4,980 more" in text


def test_machines_are_told_how_many_there_are_more():
    data = webhook(*map(told, range(LISTED)), total=5000)["data"]
    assert (data["details"]["total"], data["details"]["more"]) == (5000, 4980)
    assert len(data["lines"]) == LISTED


def test_what_a_website_wrote_stays_harmless_in_a_digest():
    said = mail(told(1, HOSTILE), told(2))
    assert "<script>" not in said["text/html"]
    blocks = slack(told(1, HOSTILE), told(2))["blocks"]
    assert "<!channel>" not in json.dumps(blocks)
    assert all(
        block["text"]["type"] == "plain_text" for block in blocks if "alert(1)" in json.dumps(block)
    )


def test_the_longest_titles_fit_every_limit():
    long = [told(number, "&" * 5000) for number in range(LISTED)]
    for block in slack(*long, total=LISTED)["blocks"]:
        assert len(block.get("text", {}).get("text", "")) <= 3000
    webhook(*long)

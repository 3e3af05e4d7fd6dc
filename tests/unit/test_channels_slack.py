"""Slack's limits, its link syntax, and its habit of answering 200 to much."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.slack import MAX_FINDINGS, SlackChannel, slack_payload
from cli.sinks import HttpSink, SinkAnswer
from schemas.events import EventType
from schemas.notifications import (
    ArtifactLink,
    ChannelAddress,
    ChannelKind,
    Fact,
    FindingSummary,
    Message,
    Notification,
)
from schemas.reports import Severity
from schemas.settings import Settings

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def message(target: str = "https://hooks.slack.example/T/B/x", **changes: Any) -> Message:
    fields: dict[str, Any] = {
        "event_key": "scan.completed:1",
        "type": EventType.SCAN_COMPLETED,
        "occurred_at": NOW,
        "domain": "example.org",
        "scan_id": "1",
        "severity": Severity.MEDIUM,
        "title": "A title",
        "summary": "A summary",
    }
    return Message(
        message_id="dlv-1",
        notification=Notification(**{**fields, **changes}),
        address=ChannelAddress(kind=ChannelKind.SLACK, target=target),
    )


def blocks(**changes: Any) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = slack_payload(message(**changes))["blocks"]
    return made


def link(uri: str, name: str = "pdf") -> ArtifactLink:
    return ArtifactLink(format=name, uri=uri, size_bytes=1, sha256="0")


def test_a_plain_notification_reads_well() -> None:
    payload = slack_payload(
        message(
            facts=(Fact(label="Score", value="71"),),
            findings=(
                FindingSummary(rule_id="r", severity=Severity.HIGH, title="Early cookie", count=3),
            ),
            missing_formats=("html",),
            artifacts=(link("https://r.example/a.pdf"), link("file:///a.csv", "csv")),
        )
    )

    assert payload["text"] == "A title: A summary"
    shown = [
        [block.get("text")] if "text" in block else block.get("fields") or block["elements"]
        for block in payload["blocks"]
    ]
    assert [text["text"] for group in shown for text in group] == [
        "A title",
        "A summary",
        "Score\n71",
        "• HIGH  Early cookie (3)",
        "⚠ Could not be rendered: HTML",
        "<https://r.example/a.pdf|PDF> · CSV",
        "example.org · Medium · scan 1 · message dlv-1",
    ]


def test_the_three_characters_slack_reads_are_escaped_and_no_others() -> None:
    assert blocks(title="<!channel> & 'x' \"y\" *z*")[0]["text"] == {
        "type": "plain_text",
        "text": "&lt;!channel&gt; &amp; 'x' \"y\" *z*",
        "emoji": False,
    }


@pytest.mark.parametrize("text", ["&" * 5000, "<" * 149, "a&" * 80, "x" * 5000, "🍪" * 5000])
def test_escaping_never_breaks_an_entity_or_a_limit(text: str) -> None:
    header = blocks(title=text)[0]["text"]["text"]

    assert len(header) <= 150
    bare = header.replace("&amp;", "").replace("&lt;", "")
    assert not set("&<>") & set(bare)


def test_ten_fields_are_the_most() -> None:
    fields = blocks(facts=(Fact(label="l", value="v" * 9000),) * 30)[2]["fields"]

    assert len(fields) == 10
    assert all(len(field["text"]) <= 2000 for field in fields)


def test_more_findings_than_fit_are_counted() -> None:
    finding = FindingSummary(rule_id="r", severity=Severity.LOW, title="Early cookie", count=1)
    lines = blocks(findings=(finding,) * 57)[2]["text"]["text"].splitlines()

    assert len(lines) == MAX_FINDINGS + 1
    assert lines[-1] == "… and 37 more"


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("https://r.example/a?x=1&y=2", "<https://r.example/a?x=1&amp;y=2|PDF>"),
        ("https://r.example/a|b", "<https://r.example/a%7Cb|PDF>"),
        ("https://r.example/<!channel>", "<https://r.example/%3C!channel%3E|PDF>"),
        ("https://r.example/a> <!here", "<https://r.example/a%3E%20%3C!here|PDF>"),
        ("javascript:alert(1)", "PDF"),
        ("file:///data/a.pdf", "PDF"),
        ("s3://bucket/a.pdf", "PDF"),
        ("https://", "PDF"),
        ("https://slack.com@evil.example/", "PDF"),
        ("https://r.example/\n", "PDF"),
        ("!channel", "PDF"),
        ("", "PDF"),
    ],
)
def test_a_link_leads_where_it_says_or_is_no_link(uri: str, text: str) -> None:
    assert blocks(artifacts=(link(uri),))[2]["text"] == {
        "type": "mrkdwn",
        "text": text,
        "verbatim": True,
    }


def test_a_format_name_cannot_mention_anyone() -> None:
    text = blocks(artifacts=(link("https://r.example/", "<!channel>"),))[2]["text"]["text"]

    assert text == "<https://r.example/|&lt;!CHANNEL&gt;>"


def test_links_that_do_not_fit_are_left_off_whole() -> None:
    text = blocks(artifacts=(link("https://r.example/" + "a" * 900),) * 9)[2]["text"]["text"]

    assert len(text) <= 3000
    assert text.count("|PDF>") == 3
    assert text.endswith("[cut]")


texts = st.builds(lambda text, times: text * times, st.text(max_size=20), st.integers(1, 500))


@settings(max_examples=60, deadline=None)
@given(text=texts, many=st.integers(0, 60))
def test_every_payload_keeps_to_the_limits(text: str, many: int) -> None:
    payload = slack_payload(
        message(
            title=text,
            summary=text,
            domain=text,
            scan_id=text,
            facts=(Fact(label=text, value=text),) * many,
            findings=(FindingSummary(rule_id=text, severity=Severity.LOW, title=text, count=many),)
            * many,
            artifacts=(link(text, text), link("https://r.example/" + text, text)) * many,
            missing_formats=(text,) * many,
        )
    )

    assert json.dumps(payload)
    assert 2 <= len(payload["blocks"]) <= 50
    header, *others = payload["blocks"]
    assert 0 < len(header["text"]["text"]) <= 150
    for block in others:
        if "text" in block:
            assert 0 < len(block["text"]["text"]) <= 3000
        for each in (*block.get("fields", ()), *block.get("elements", ())):
            assert 0 < len(each["text"]) <= 2000
        assert len(block.get("fields", ())) <= 10


def test_an_answer_other_than_ok_is_accepted_and_noted() -> None:
    with HttpSink() as sink:
        allowed = Settings(http_allow=(f"127.0.0.1:{sink.port}",), http_timeout_s=20)
        with closing(SlackChannel(allowed, lambda: NOW)) as channel:
            sink.script(SinkAnswer(body=b"<html>login</html>"))
            odd = channel.send(message(f"{sink.url}/slack/x"))
            fine = channel.send(message(f"{sink.url}/slack/x"))

    assert odd.text == "accepted, but the answer was not Slack's ok: <html>login</html>"
    assert fine.text == "ok"

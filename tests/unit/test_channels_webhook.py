"""The webhook's body and headers: always bounded, always the same, always signed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook

from channels.signing import new_secret
from channels.webhook import MAX_BODY_BYTES, WebhookChannel, event_body
from cli.sinks import HttpSink, SinkAnswer
from schemas.errors import ChannelUnavailable, DeliveryRejected
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
from schemas.scans import CUT_MARK
from schemas.settings import Settings

SECRET = new_secret(lambda n: b"s" * n)
OLD_SECRET = new_secret(lambda n: b"o" * n)


def message(
    target: str = "https://r.example/", secret: str | None = SECRET, **changes: Any
) -> Message:
    fields: dict[str, Any] = {
        "event_key": "scan.completed:1",
        "type": EventType.SCAN_COMPLETED,
        "occurred_at": datetime(2026, 3, 4, 6, 6, 7, tzinfo=timezone(timedelta(hours=1))),
        "domain": "example.org",
        "scan_id": "1",
        "severity": Severity.HIGH,
        "title": "A title",
        "summary": "A summary",
    }
    return Message(
        message_id="dlv-1",
        notification=Notification(**{**fields, **changes}),
        address=ChannelAddress(kind=ChannelKind.WEBHOOK, target=target, secret=secret),
    )


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    with HttpSink() as sink:
        yield sink


@pytest.fixture
def channel(sink: HttpSink) -> Iterator[WebhookChannel]:
    # The verifier compares the timestamp with its own clock, so this one must run.
    allow = Settings(http_allow=(f"127.0.0.1:{sink.port}",), http_timeout_s=20)
    with closing(WebhookChannel(allow, lambda: datetime.now(UTC))) as channel:
        yield channel


@pytest.mark.parametrize("status", [200, 403, 503])
def test_a_secret_that_the_other_side_repeats_is_kept_nowhere(
    sink: HttpSink, channel: WebhookChannel, status: int
) -> None:
    key = OLD_SECRET.removeprefix("whsec_")
    sink.script(SinkAnswer(status, {}, f"signed with {SECRET}, not with {key}".encode()))
    try:
        said = channel.send(message(sink.url, f"{SECRET} {OLD_SECRET}")).text
    except (ChannelUnavailable, DeliveryRejected) as error:
        said = error.receipt

    assert said == "signed with …, not with …"


def test_what_arrives_is_a_cloudevent_that_an_independent_verifier_accepts(
    sink: HttpSink, channel: WebhookChannel
) -> None:
    channel.send(message(sink.url, facts=(Fact(label="Score", value="71"),)))

    (request,) = sink.requests
    Webhook(SECRET).verify(request.body, dict(request.headers))
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == "scanherald"
    assert "traceparent" not in request.headers
    assert json.loads(request.body) == {
        "specversion": "1.0",
        "id": "dlv-1",
        "source": "scanherald",
        "type": "scan.completed",
        "subject": "example.org",
        "time": "2026-03-04T05:06:07Z",
        "datacontenttype": "application/json",
        "data": {
            "event_key": "scan.completed:1",
            "domain": "example.org",
            "scan_id": "1",
            "severity": "high",
            "title": "A title",
            "summary": "A summary",
            "facts": [{"label": "Score", "value": "71"}],
            "findings": [],
            "artifacts": [],
            "missing_formats": [],
        },
    }


def test_two_secrets_both_sign_while_one_replaces_the_other(
    sink: HttpSink, channel: WebhookChannel
) -> None:
    channel.send(message(sink.url, secret=f"{SECRET} {OLD_SECRET}"))

    (request,) = sink.requests
    for secret in (SECRET, OLD_SECRET):
        Webhook(secret).verify(request.body, dict(request.headers))


@pytest.mark.parametrize("secret", [None, "", "  "])
def test_nothing_is_ever_sent_unsigned(
    sink: HttpSink, channel: WebhookChannel, secret: str | None
) -> None:
    with pytest.raises(DeliveryRejected, match="no signing secret"):
        channel.send(message(sink.url, secret=secret))

    assert sink.requests == ()


def test_a_valid_trace_context_travels_along_and_any_other_is_left_out(
    sink: HttpSink, channel: WebhookChannel
) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for traceparent in (trace, "nonsense", trace + "\r\nx-evil: 1", "ü", ""):
        channel.send(message(sink.url, traceparent=traceparent))

    assert [request.headers.get("traceparent") for request in sink.requests] == [
        trace,
        None,
        None,
        None,
        None,
    ]


def test_an_event_without_a_domain_has_no_subject() -> None:
    assert "subject" not in json.loads(event_body(message(domain=None)))


def test_what_the_scanner_sent_comes_as_details() -> None:
    details = {"schedule": "nightly", "attempt": 3, "deep": {"list": [1, None, True, 1.5]}}

    assert json.loads(event_body(message(data=details)))["data"]["details"] == details
    assert "truncated" not in json.loads(event_body(message(data=details)))["data"]


def _findings(count: int, text: str) -> tuple[FindingSummary, ...]:
    return (FindingSummary(rule_id="rule", severity=Severity.LOW, title=text, count=1),) * count


def test_long_lists_are_cut_first_and_their_true_length_is_told() -> None:
    data = json.loads(event_body(message(findings=_findings(900, "A finding"))))["data"]

    assert data["truncated"] == {"findings": 900}
    assert 0 < len(data["findings"]) < 900
    assert data["findings"][0]["title"] == "A finding"


def test_long_texts_are_cut_with_a_mark_when_the_lists_are_short() -> None:
    data = json.loads(event_body(message(summary="é" * 30_000)))["data"]

    assert data["summary"].endswith(CUT_MARK)
    assert data["title"] == "A title"
    assert data["truncated"] == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: (
        st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=9), inner, max_size=9)
    ),
    max_leaves=40,
)
# Text of every kind, blown up: what escapes to six bytes, what encodes to four.
texts = st.builds(lambda text, times: text * times, st.text(max_size=20), st.integers(1, 2000))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    text=texts,
    many=st.integers(0, 400),
    value=json_values,
    domain=st.none() | texts,
)
def test_every_body_is_json_below_20_kB(
    text: str, many: int, value: Any, domain: str | None
) -> None:
    link = ArtifactLink(format=text, uri=text, size_bytes=2**60, sha256=text)
    nested: Any = value
    for _ in range(many):
        nested = {text[:5] or "k": [nested, text]}
    sent = message(
        event_key=text,
        scan_id=text,
        title=text,
        summary=text,
        domain=domain,
        facts=(Fact(label=text, value=text),) * many,
        findings=_findings(many, text),
        artifacts=(link,) * many,
        missing_formats=(text,) * many,
        data={"nested": nested, text: text, "wide": [text] * many, "number": 10**40},
    )

    body = event_body(sent)

    assert len(body) < MAX_BODY_BYTES
    assert body == event_body(sent)
    event = json.loads(body)
    assert event["id"] == "dlv-1"
    assert event["data"]["severity"] == "high"


@pytest.mark.parametrize(
    "details",
    [
        {"list": [0] * 1001},
        {"number": 2**64 + 1},
        {"k" * 300: 1},
        {"deep": [[[[[[[[[[[[[[[[[[["too deep"]]]]]]]]]]]]]]]]]]]},
    ],
)
def test_nothing_is_cut_without_saying_so(details: dict[str, Any]) -> None:
    assert json.loads(event_body(message(data=details)))["data"]["truncated"] == {}


@pytest.mark.parametrize("text", ["\x00", "\x1f", "\U0001f36a", "\ud800", '"', "</script>"])
def test_the_worst_text_everywhere_still_fits(text: str) -> None:
    big = text * 10_000
    link = ArtifactLink(format=big, uri=big, size_bytes=2**62, sha256=big)
    body = event_body(
        message(
            event_key=big,
            scan_id=big,
            title=big,
            summary=big,
            domain=big,
            facts=(Fact(label=big, value=big),) * 50,
            findings=_findings(50, big),
            artifacts=(link,) * 50,
            missing_formats=(big,) * 50,
            data={f"{number}{big}": {big: [big], text: 1} for number in range(50)},
        )
    )

    assert len(body) < MAX_BODY_BYTES
    assert set(json.loads(body)["data"]["truncated"]) == {
        "facts",
        "findings",
        "artifacts",
        "missing_formats",
    }


def test_a_message_id_too_long_for_any_body_is_rejected() -> None:
    sent = message()
    huge = Message(message_id="x" * 20_000, notification=sent.notification, address=sent.address)

    with pytest.raises(DeliveryRejected, match="message id"):
        event_body(huge)

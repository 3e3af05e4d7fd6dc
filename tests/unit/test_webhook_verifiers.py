"""What the webhook channel sends, judged by two libraries that receivers use.

The bytes and headers are those that arrived at a real HTTP server; each library
must accept them as they are and refuse them with any one byte changed.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import standardwebhooks
import svix.webhooks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels.signing import new_secret
from channels.webhook import WebhookChannel
from cli.sinks import HttpSink, SunkRequest
from schemas.events import EventType
from schemas.notifications import ChannelAddress, ChannelKind, Fact, Message, Notification
from schemas.reports import Severity
from schemas.settings import Settings

NEW, OLD = new_secret(lambda n: b"n" * n), new_secret(lambda n: b"o" * n)
LIBRARIES: dict[str, tuple[Any, type[Exception]]] = {
    "standardwebhooks": (standardwebhooks.Webhook, standardwebhooks.WebhookVerificationError),
    "svix": (svix.webhooks.Webhook, svix.webhooks.WebhookVerificationError),
}
GENEROUS = settings(
    max_examples=60,
    deadline=None,
    # The fixtures are one server and one channel, which every example may share.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@dataclass
class Receiver:
    """A real HTTP server, and the real channel pointed at it."""

    sink: HttpSink
    channel: WebhookChannel

    def receive(self, text: str = "A title", secret: str = NEW, number: int = 1) -> SunkRequest:
        self.channel.send(
            Message(
                message_id=f"dlv-{number}",
                notification=Notification(
                    event_key="scan.completed:1",
                    type=EventType.SCAN_COMPLETED,
                    occurred_at=datetime(2026, 3, 4, tzinfo=UTC),
                    domain="example.org",
                    scan_id="1",
                    severity=Severity.HIGH,
                    title=text,
                    summary=text,
                    facts=(Fact(label=text, value=text),),
                    data={"told": text},
                ),
                address=ChannelAddress(
                    kind=ChannelKind.WEBHOOK, target=f"{self.sink.url}/hook", secret=secret
                ),
            )
        )
        return self.sink.requests[-1]


@pytest.fixture(scope="module")
def sink() -> Iterator[HttpSink]:
    with HttpSink() as sink:
        yield sink


@pytest.fixture
def receiver(sink: HttpSink) -> Iterator[Receiver]:
    # The libraries compare the timestamp with their own clock, so this one must run.
    yield from _receiver(sink, timedelta(0))


def _receiver(sink: HttpSink, late: timedelta) -> Iterator[Receiver]:
    allowed = Settings(http_allow=(f"127.0.0.1:{sink.port}",), http_timeout_s=20)
    with closing(WebhookChannel(allowed, lambda: datetime.now(UTC) - late)) as channel:
        yield Receiver(sink, channel)


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> tuple[Any, type[Exception]]:
    return LIBRARIES[request.param]


@GENEROUS
@given(text=st.text(max_size=300) | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1")))
def test_every_body_that_arrives_is_accepted(
    receiver: Receiver, library: tuple[Any, type[Exception]], text: str
) -> None:
    verifier, _ = library
    request = receiver.receive(text)

    verifier(NEW).verify(request.body, dict(request.headers))


@GENEROUS
@given(text=st.text(max_size=80), place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_one_changed_byte_of_the_body_is_refused(
    receiver: Receiver, library: tuple[Any, type[Exception]], text: str, place: float, flip: int
) -> None:
    verifier, refusal = library
    request = receiver.receive(text)
    body = bytearray(request.body)
    at = int(place * len(body))
    body[at] ^= flip

    with pytest.raises((refusal, ValueError)):  # the latter for what is no UTF-8 any more
        verifier(NEW).verify(bytes(body), dict(request.headers))


@GENEROUS
@given(place=st.floats(0, 1, exclude_max=True), other=st.sampled_from("Aa0Zz9-+/"))
@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_one_changed_byte_of_a_header_is_refused(
    receiver: Receiver,
    library: tuple[Any, type[Exception]],
    name: str,
    place: float,
    other: str,
) -> None:
    verifier, refusal = library
    request = receiver.receive()
    value = request.headers[name]
    start = 3 if name == "webhook-signature" else 0  # behind the version: "v1,"
    at = start + int(place * (len(value) - start))
    changed = value[:at] + other + value[at + 1 :]
    if _means_the_same(name, value, changed):
        return

    with pytest.raises((refusal, ValueError)):  # the latter for what is no base64 any more
        verifier(NEW).verify(request.body, {**request.headers, name: changed})


def _means_the_same(name: str, value: str, changed: str) -> bool:
    """The last character of base64 carries bits that nobody reads."""
    if name != "webhook-signature":
        return value == changed
    try:
        return base64.b64decode(value[3:]) == base64.b64decode(changed[3:])
    except ValueError:
        return False


def test_while_a_secret_is_replaced_either_accepts_and_no_other(
    receiver: Receiver, library: tuple[Any, type[Exception]]
) -> None:
    verifier, refusal = library
    request = receiver.receive(secret=f"{NEW} {OLD}")

    signatures = request.headers["webhook-signature"].split(" ")
    assert len(signatures) == 2
    for secret, own in zip((NEW, OLD), signatures, strict=True):
        verifier(secret).verify(request.body, dict(request.headers))
        verifier(secret).verify(request.body, {**request.headers, "webhook-signature": own})
        others = {**request.headers, "webhook-signature": next(s for s in signatures if s != own)}
        with pytest.raises(refusal):
            verifier(secret).verify(request.body, others)
    with pytest.raises(refusal):
        verifier(new_secret(secrets.token_bytes)).verify(request.body, dict(request.headers))


@pytest.mark.parametrize("late", [timedelta(minutes=6), timedelta(minutes=-6)])
def test_a_message_signed_long_ago_or_in_the_future_is_refused(
    sink: HttpSink, library: tuple[Any, type[Exception]], late: timedelta
) -> None:
    verifier, refusal = library
    for receiver in _receiver(sink, late):
        request = receiver.receive()

        with pytest.raises(refusal, match="too old" if late > timedelta(0) else "too new"):
            verifier(NEW).verify(request.body, dict(request.headers))


def test_a_retry_is_signed_anew_under_the_same_id(
    receiver: Receiver, library: tuple[Any, type[Exception]]
) -> None:
    verifier, _ = library
    for request in (receiver.receive(number=7), receiver.receive(number=7)):
        verifier(NEW).verify(request.body, dict(request.headers))
        assert request.headers["webhook-id"] == "dlv-7"

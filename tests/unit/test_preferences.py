"""Preferences that the platform passes along: what each key means, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import InvalidEvent
from schemas.notifications import (
    PASSED_ALONG,
    ChannelAddress,
    ChannelKind,
    QuietHours,
    Subscriber,
)
from schemas.reports import Severity
from tasks.preferences import read_preferences

MAIL = {"email": "officer@example.org"}


def read(preferences: Any, channel: str | None = None) -> Subscriber:
    return read_preferences(preferences, channel=channel, user_id="u-1")


def test_an_address_alone_asks_for_everything_at_once() -> None:
    assert read(MAIL) == Subscriber(
        subscriber_id="direct:u-1",
        channels=(ChannelAddress(kind=ChannelKind.EMAIL, target="officer@example.org"),),
    )


def test_no_subscriber_can_have_the_name_of_whoever_an_address_is_passed_along_for() -> None:
    assert read(MAIL).subscriber_id.startswith(PASSED_ALONG)


def test_the_first_address_there_is_is_used_and_only_a_webhook_has_a_secret() -> None:
    preferences = {
        "slack_webhook_url": "https://hooks.example/x",
        "webhook_url": "https://r.example/hook",
        "webhook_secret": "whsec_c2VjcmV0",
        "email": None,
        "email_address": "",
    }
    (address,) = read(preferences).channels
    assert (address.kind, address.secret) == (ChannelKind.WEBHOOK, "whsec_c2VjcmV0")
    (address,) = read(preferences, "slack").channels
    assert (address.target, address.secret) == ("https://hooks.example/x", None)


def test_the_user_of_the_preferences_stands_in_for_the_notifications() -> None:
    named = read_preferences({**MAIL, "user_id": 7}, channel=None, user_id=None)
    assert named.subscriber_id == "direct:7"
    nobody = read_preferences(MAIL, channel=None, user_id=None)
    assert nobody.subscriber_id == "direct:unknown"


@pytest.mark.parametrize(
    ("key", "value", "field", "read_as"),
    [
        ("language", "de", "locale", "de"),
        ("locale", "de_AT", "locale", "de-AT"),
        ("locale", "", "locale", None),
        ("min_severity", "medium", "min_severity", Severity.MEDIUM),
        ("enabled_events", ["scan.failed"], "events", ("scan.failed",)),
        ("events", ["scan.failed", "scan.completed"], "events", ("scan.failed", "scan.completed")),
        ("events", [], "events", ()),
        ("enabled", False, "paused", True),
        ("enabled", True, "paused", False),
        ("enabled", None, "paused", False),
        ("quiet_hours", {}, "quiet_hours", None),
        (
            "quiet_hours",
            {"start": "22:00", "end": "06:00", "timezone": "Europe/Berlin", "days": [1]},
            "quiet_hours",
            QuietHours(start="22:00", end="06:00", time_zone="Europe/Berlin"),
        ),
        (
            "quiet_hours",
            {"start": "22:00", "end": "06:00", "time_zone": "UTC"},
            "quiet_hours",
            QuietHours(start="22:00", end="06:00", time_zone="UTC"),
        ),
        ("font", "Comic Sans", "locale", None),
    ],
)
def test_a_wish_is_read_as_a_subscribers(key: str, value: Any, field: str, read_as: Any) -> None:
    assert getattr(read({**MAIL, key: value}), field) == read_as


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("language", "xx", "preferences: language: language 'xx' has no catalogue; known: "),
        ("locale", 7, "preferences: locale: not a text"),
        ("min_severity", "huge", "preferences: min_severity: 'huge' is not one of: info, low"),
        ("min_severity", [], r"preferences: min_severity: \[\] is not one of"),
        ("enabled_events", "scan.failed", "preferences: enabled_events: not a list"),
        ("events", ["scan.paused"], r"preferences: events: 'scan\.paused' is not one of"),
        ("events", [None], "preferences: events: None is not one of"),
        ("enabled", "no", "preferences: enabled: 'no' is neither true nor false"),
        ("quiet_hours", "22-06", "preferences: quiet_hours: not an object"),
        ("quiet_hours", {"start": "22:00", "end": "06:00"}, "quiet_hours: time_zone is missing"),
        ("quiet_hours", {"start": 22, "end": "06:00"}, "quiet_hours: start is not a text"),
        (
            "quiet_hours",
            {"start": "22:00", "end": "25:00", "timezone": "UTC"},
            "quiet_hours: '25:00' is not a time of day",
        ),
        (
            "quiet_hours",
            {"start": "22:00", "end": "06:00", "timezone": "Berlin"},
            "quiet_hours: time zone 'Berlin' is unknown; did you mean Europe/Berlin",
        ),
    ],
)
def test_a_wish_that_cannot_be_read_is_refused_by_its_key(key: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidEvent, match=words):
        read({**MAIL, key: value})


@pytest.mark.parametrize("key", ["email", "webhook_url", "slack_webhook_url", "webhook_secret"])
def test_an_address_that_is_no_text_is_refused_and_never_quoted(key: str) -> None:
    channel = "slack" if key.startswith("slack") else None
    with pytest.raises(InvalidEvent, match=f"preferences: {key}: not a text") as refused:
        read({"webhook_url": "https://r.example", key: ["secret-thing"]}, channel)
    assert "secret-thing" not in str(refused.value)

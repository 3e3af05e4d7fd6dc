"""The tasks that the platform calls by name: arguments, result keys, and what they leave behind."""

from __future__ import annotations

import csv
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from renderers.registry import RENDERERS, Renderer
from schemas.errors import (
    ArtifactsUnavailable,
    ChannelUnavailable,
    DeliveryRejected,
    InvalidEvent,
    LedgerUnavailable,
    NotFound,
)
from schemas.events import PUBLISHED
from schemas.notifications import VARIANTS, ChannelKind
from schemas.reports import Format
from store.deliveries import DeliveryTicket
from tasks import (
    cleanup_old_notifications,
    export_scan_to_csv_async,
    generate_multiple_reports_async,
    generate_report_async,
    send_bulk_notifications_async,
    send_event_notifications_async,
    send_notification_async,
)
from tasks.finish import settle
from tasks.notifications import try_delivery
from tasks.reports import render_formats
from tasks.sweep import sweep_once

REPORT_KEYS = {
    "report_id",
    "scan_id",
    "format",
    "file_path",
    "file_size",
    "generated_at",
    "status",
    "error",
}


def call(task: Any, *arguments: Any) -> Any:
    return task.apply(arguments).get()


@pytest.fixture
def scan_id(parts: Any, record: Any, make_scan: Any) -> str:
    record(parts, make_scan())
    return str(json.loads(make_scan())["scan_id"])


@pytest.mark.parametrize("name", [name.value for name in Format])
def test_one_report_is_made_on_demand(parts: Any, scan_id: str, name: str, clock: Any) -> None:
    made = call(generate_report_async, scan_id, name)
    assert set(made) == REPORT_KEYS
    assert made["report_id"] == f"{scan_id}.en.{name}"
    assert (made["scan_id"], made["format"]) == (scan_id, name)
    assert (made["status"], made["error"]) == ("completed", None)
    assert made["file_size"] == Path(made["file_path"]).stat().st_size > 0
    assert made["generated_at"] == clock().isoformat()


def test_a_scan_id_is_known_in_any_spelling(scan_id: str) -> None:
    made = call(generate_report_async, f" {scan_id.upper()} ", "csv")
    assert made["scan_id"] == scan_id


def test_several_reports_are_made_in_the_order_asked_for(scan_id: str) -> None:
    made = call(generate_multiple_reports_async, scan_id, ["json", "csv"])
    assert set(made) == {"scan_id", "reports", "total_generated", "total_failed"}
    assert [report["format"] for report in made["reports"]] == ["json", "csv"]
    assert all(set(report) == REPORT_KEYS for report in made["reports"])
    assert (made["total_generated"], made["total_failed"]) == (2, 0)


def test_a_format_that_fails_is_counted_and_leaves_the_others(
    scan_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> bytes:
        raise ZeroDivisionError("no page")

    monkeypatch.setitem(RENDERERS, Format.PDF, Renderer(fail, "application/pdf", ".pdf"))
    made = call(generate_multiple_reports_async, scan_id, ["pdf", "csv"])
    assert (made["total_generated"], made["total_failed"]) == (1, 1)
    failed, ready = made["reports"]
    assert (failed["status"], failed["file_path"], failed["file_size"]) == ("failed", None, None)
    assert "no page" in failed["error"]
    assert ready["status"] == "completed"


def test_the_csv_export_is_the_csv_report(scan_id: str) -> None:
    made = call(export_scan_to_csv_async, scan_id)
    assert made == call(generate_report_async, scan_id, "csv")
    with Path(made["file_path"]).open(encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 2


def test_making_a_report_again_gives_the_same_bytes(scan_id: str) -> None:
    first = Path(call(generate_report_async, scan_id, "pdf")["file_path"]).read_bytes()
    again = Path(call(generate_report_async, scan_id, "pdf")["file_path"]).read_bytes()
    assert first == again


def test_an_unknown_scan_is_not_found(parts: Any) -> None:
    for task, arguments in (
        (generate_report_async, ("no-such-scan", "pdf")),
        (generate_multiple_reports_async, ("no-such-scan", ["pdf"])),
        (export_scan_to_csv_async, ("no-such-scan",)),
    ):
        with pytest.raises(NotFound, match="no scan no-such-scan in the ledger"):
            call(task, *arguments)


def test_an_unknown_format_is_refused_and_nothing_is_made(
    parts: Any, scan_id: str, rows: Any
) -> None:
    with pytest.raises(ValueError, match="xls"):
        call(generate_report_async, scan_id, "xls")
    with pytest.raises(ValueError, match="xls"):
        call(generate_multiple_reports_async, scan_id, ["csv", "xls"])
    assert rows(parts, "reports") == []


def test_a_report_on_demand_tries_again_while_the_store_is_away(
    parts: Any, scan_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = parts.artifacts.place
    faults = [ArtifactsUnavailable("no route"), ArtifactsUnavailable("no route")]

    def put(key: str, data: bytes) -> None:
        if faults:
            raise faults.pop()
        real(key, data)

    monkeypatch.setattr(parts.artifacts, "place", put)
    assert call(generate_report_async, scan_id, "csv")["status"] == "completed"
    faults += [ArtifactsUnavailable("no route")] * 9
    with pytest.raises(ArtifactsUnavailable):
        call(generate_report_async, scan_id, "csv")


def test_a_report_on_demand_of_a_settled_run_wakes_nobody(
    make_parts: Any, record: Any, make_scan: Any, subscribe: Any, rows: Any
) -> None:
    parts = make_parts(formats=("csv",))
    subscribe(parts)
    ticket = record(parts, make_scan())
    render_formats(parts, ticket.run_id, ticket.formats)
    settle(parts, ticket.run_id, 1)
    before = len(rows(parts, "deliveries"))
    call(generate_report_async, json.loads(make_scan())["scan_id"], "json")
    assert len(rows(parts, "deliveries")) == before
    assert rows(parts, "runs")[0]["state"] == "done"


NOTIFICATION: dict[str, Any] = {
    "notification_id": "n-1",
    "event": "scan.completed",
    "user_id": "u-1",
    "data": {"domain": "shop.example", "scan_id": "s-1", "cookies": 5},
}

PREFERENCES: dict[str, dict[str, Any]] = {
    "email": {"email_address": "officer@example.org"},
    "webhook": {"webhook_url": "https://r.example/hook", "webhook_secret": "whsec_c2VjcmV0"},
    "slack": {"slack_webhook_url": "https://hooks.example/T/B/x"},
    "apprise": {"apprise_url": "ntfys://push.example/topic"},
}


@pytest.mark.parametrize("kind", list(ChannelKind))
def test_a_notification_goes_to_the_address_in_the_preferences(
    parts: Any, kind: ChannelKind
) -> None:
    said = call(send_notification_async, NOTIFICATION, PREFERENCES[kind.value])
    assert said == {
        "notification_id": "n-1",
        "status": "sent",
        "success": True,
        "retry_count": 0,
        "error": None,
    }
    (message,) = parts.channel(kind).sent
    assert message.address.target in PREFERENCES[kind.value].values()
    assert message.address.secret == PREFERENCES[kind.value].get("webhook_secret")
    assert message.notification.title == "Scan finished for shop.example"
    assert message.notification.scan_id == "s-1"
    assert message.notification.data["cookies"] == 5


def test_the_channel_named_in_the_notification_is_used(parts: Any) -> None:
    everything = {key: value for one in PREFERENCES.values() for key, value in one.items()}
    call(send_notification_async, {**NOTIFICATION, "channel": "slack"}, everything)
    assert len(parts.channel(ChannelKind.SLACK).sent) == 1
    assert parts.channel(ChannelKind.EMAIL).sent == []


def test_title_and_message_of_the_platform_are_used(parts: Any) -> None:
    call(
        send_notification_async,
        {**NOTIFICATION, "subject": "Look", "message": "at this"},
        PREFERENCES["email"],
    )
    (message,) = parts.channel(ChannelKind.EMAIL).sent
    assert (message.notification.title, message.notification.summary) == ("Look", "at this")
    assert message.notification.variant == "", "somebody's own words are not translated"


def test_without_words_of_its_own_a_notification_is_told_in_the_readers_language(
    parts: Any,
) -> None:
    notification = {**NOTIFICATION, "data": {**NOTIFICATION["data"], "message": "3 pages"}}
    call(send_notification_async, notification, {**PREFERENCES["email"], "locale": "de_AT"})
    (message,) = parts.channel(ChannelKind.EMAIL).sent
    assert message.language == "de-AT"
    assert message.notification.variant == "scan.completed.reported"
    assert message.notification.values == {"domain": "shop.example", "said": "3 pages"}


@pytest.mark.parametrize("event", [str(kind) for kind in PUBLISHED])
def test_every_event_has_a_text_for_people_when_the_platform_asks_for_it(
    parts: Any, event: str
) -> None:
    call(send_notification_async, {**NOTIFICATION, "event": event}, PREFERENCES["webhook"])
    (message,) = parts.channel(ChannelKind.WEBHOOK).sent
    told = message.notification
    assert set(told.values) == set(VARIANTS[told.variant])


QUIET = {"start": "08:00", "end": "18:00", "timezone": "Europe/Berlin"}


def test_a_notification_in_quiet_hours_is_held_and_sent_when_they_end(
    parts: Any, clock: Any, rows: Any, published: list[Any]
) -> None:
    preferences = {**PREFERENCES["email"], "quiet_hours": QUIET}
    said = call(send_notification_async, NOTIFICATION, preferences)
    assert (said["status"], said["success"], said["error"]) == ("held", False, None)
    assert parts.channel(ChannelKind.EMAIL).sent == []
    clock.forward(5 * 3600 - 1)  # it is noon in UTC, one o'clock there
    assert sweep_once(parts)["deliveries"] == 0
    clock.forward(2)
    assert sweep_once(parts)["deliveries"] == 1
    ((delivery_id, number, _),) = published
    try_delivery(parts, DeliveryTicket(delivery_id, number))
    assert rows(parts, "deliveries")[0]["state"] == "sent"


def test_a_notification_that_is_tried_again_in_quiet_hours_is_held_too(
    parts: Any, clock: Any, rows: Any, published: list[Any]
) -> None:
    clock.forward(-5 * 3600 - 1)  # a second before they begin
    parts.channel(ChannelKind.EMAIL).script = [ChannelUnavailable("451 greylisted")]
    preferences = {**PREFERENCES["email"], "quiet_hours": QUIET}
    assert call(send_notification_async, NOTIFICATION, preferences)["status"] == "pending"
    ((delivery_id, number, delay),) = published
    clock.forward(1 + delay)
    try_delivery(parts, DeliveryTicket(delivery_id, number))
    assert rows(parts, "deliveries")[0]["state"] == "held"
    assert len(parts.channel(ChannelKind.EMAIL).sent) == 1
    clock.forward(10 * 3600)
    published.clear()
    assert sweep_once(parts)["deliveries"] == 1
    try_delivery(parts, DeliveryTicket(*published[0][:2]))
    assert rows(parts, "deliveries")[0]["state"] == "sent"


def test_what_is_severe_passes_quiet_hours(parts: Any) -> None:
    preferences = {**PREFERENCES["email"], "quiet_hours": QUIET}
    said = call(send_notification_async, {**NOTIFICATION, "severity": "high"}, preferences)
    assert said["status"] == "sent"


@pytest.mark.parametrize(
    ("wishes", "reason"),
    [
        ({"enabled": False}, "the subscriber is paused"),
        ({"enabled_events": ["scan.failed"]}, "the preferences do not ask for scan.completed"),
        ({"min_severity": "low"}, "the preferences ask for nothing below low"),
    ],
)
def test_what_the_preferences_do_not_ask_for_is_suppressed_with_its_reason(
    parts: Any, wishes: Any, reason: str
) -> None:
    said = call(send_notification_async, NOTIFICATION, {**PREFERENCES["email"], **wishes})
    assert (said["status"], said["success"], said["error"]) == ("suppressed", False, reason)
    assert parts.channel(ChannelKind.EMAIL).sent == []


def test_a_subscriber_of_that_name_does_not_change_what_the_platform_passed_along(
    parts: Any, subscribe: Any
) -> None:
    subscribe(parts, "direct:u-1", paused=True, locale="fr")
    told = call(
        send_notification_async,
        {"event": "scan.completed", "user_id": "u-1"},
        {"email": "anna@example.org", "language": "de"},
    )

    (message,) = parts.channel(ChannelKind.EMAIL).sent
    assert told["status"] == "sent"
    assert message.language == "de"


def test_one_notification_to_two_channels_is_two_deliveries_each_with_its_answer(
    parts: Any,
) -> None:
    everything = {key: value for one in PREFERENCES.values() for key, value in one.items()}
    parts.channel(ChannelKind.SLACK).script = [DeliveryRejected("404 no such hook", 404)]
    for name, status in (("email", "sent"), ("slack", "failed"), ("email", "sent")):
        said = call(send_notification_async, {**NOTIFICATION, "channel": name}, everything)
        assert said["status"] == status
    assert len(parts.channel(ChannelKind.EMAIL).sent) == 1


@pytest.mark.parametrize(
    ("changes", "preferences", "words"),
    [
        ({}, {}, "the preferences hold no address"),
        ({"channel": "slack"}, PREFERENCES["email"], "slack_webhook_url"),
        ({"channel": "pigeon"}, PREFERENCES["email"], "channel 'pigeon' is not one of"),
        ({"event": "scan.paused"}, PREFERENCES["email"], r"event 'scan\.paused' is not one of"),
        ({"event": None}, PREFERENCES["email"], "event 'None' is not one of"),
        ({"data": "x"}, PREFERENCES["email"], "data is not an object"),
        ({"severity": "huge"}, PREFERENCES["email"], "severity 'huge' is not one of"),
        ({}, "officer@example.org", "the preferences are not an object"),
        ({}, {**PREFERENCES["email"], "language": "xx"}, "preferences: language: "),
    ],
)
def test_what_cannot_be_sent_is_refused_in_words(
    parts: Any, rows: Any, changes: Any, preferences: Any, words: str
) -> None:
    with pytest.raises(InvalidEvent, match=words):
        call(send_notification_async, {**NOTIFICATION, **changes}, preferences)
    assert rows(parts, "deliveries") == []


def test_a_notification_that_is_refused_says_why(parts: Any) -> None:
    parts.channel(ChannelKind.EMAIL).script = [DeliveryRejected("550 no such user", 550)]
    said = call(send_notification_async, NOTIFICATION, PREFERENCES["email"])
    assert (said["status"], said["success"], said["error"]) == (
        "failed",
        False,
        "550 no such user",
    )


def test_a_notification_that_fails_for_now_is_tried_again_by_the_usual_schedule(
    parts: Any, published: list[Any]
) -> None:
    parts.channel(ChannelKind.EMAIL).script = [ChannelUnavailable("451 busy")]
    said = call(send_notification_async, NOTIFICATION, PREFERENCES["email"])
    assert (said["status"], said["success"], said["error"]) == ("pending", False, "451 busy")
    assert [number for _, number, _ in published] == [2]
    again = call(send_notification_async, NOTIFICATION, PREFERENCES["email"])
    assert again == said, "asked again, it only says how it stands"
    assert len(parts.channel(ChannelKind.EMAIL).sent) == 1


def test_the_same_notification_asked_for_twice_is_sent_once(parts: Any) -> None:
    first = call(send_notification_async, NOTIFICATION, PREFERENCES["email"])
    assert call(send_notification_async, NOTIFICATION, PREFERENCES["email"]) == first
    assert len(parts.channel(ChannelKind.EMAIL).sent) == 1


@pytest.mark.parametrize("named", [True, False], ids=["users", "nobody named"])
def test_an_id_that_is_used_again_for_somebody_else_is_another_message(
    parts: Any, rows: Any, named: bool
) -> None:
    for name in ("anna", "ben", "anna"):
        notification = {**NOTIFICATION, "subject": f"for {name}", "message": name}
        notification["user_id"] = name if named else None
        said = call(send_notification_async, notification, {"email": f"{name}@x.example"})
        assert (said["notification_id"], said["status"]) == ("n-1", "sent")
    sent = parts.channel(ChannelKind.EMAIL).sent
    assert [(message.address.target, message.notification.title) for message in sent] == [
        ("anna@x.example", "for anna"),
        ("ben@x.example", "for ben"),
    ]
    assert len({row["subscriber_id"] for row in rows(parts, "deliveries")}) == 2
    assert "x.example" not in str([row["event_key"] for row in rows(parts, "notifications")])


def test_one_user_with_two_addresses_is_told_at_both(parts: Any) -> None:
    for address in ("a@x.example", "b@x.example"):
        call(send_notification_async, {**NOTIFICATION, "user_id": "u"}, {"email": address})
    assert len(parts.channel(ChannelKind.EMAIL).sent) == 2


def test_the_same_notification_asked_for_after_the_cleanup_is_not_sent_again(
    parts: Any, clock: Any, rows: Any
) -> None:
    call(send_notification_async, NOTIFICATION, PREFERENCES["email"])
    clock.forward(31 * 86_400)
    call(cleanup_old_notifications, 30)
    assert rows(parts, "deliveries") == []
    said = call(send_notification_async, NOTIFICATION, PREFERENCES["email"])
    assert (said["status"], said["success"]) == ("suppressed", False)
    assert said["error"] == "it was told before; what became of it is no longer on record"
    assert len(parts.channel(ChannelKind.EMAIL).sent) == 1


def test_an_address_from_the_preferences_is_sealed_in_the_ledger(parts: Any, rows: Any) -> None:
    call(send_notification_async, NOTIFICATION, PREFERENCES["email"])
    (row,) = rows(parts, "deliveries")
    assert b"officer" not in row["address"]


def test_a_broken_text_does_not_keep_a_notification_from_being_sent(parts: Any) -> None:
    data = {"domain": "shop\ud800.example", "note": "half a pair: \udfff", "nan": float("nan")}
    notification = {**NOTIFICATION, "notification_id": "n-\ud800", "data": data}
    said = call(send_notification_async, notification, PREFERENCES["webhook"])
    assert said["success"] is True
    (message,) = parts.channel(ChannelKind.WEBHOOK).sent
    assert message.notification.domain == "shop?.example"


def test_a_notification_tries_again_while_the_ledger_is_away(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = parts.ledger.write
    faults = [LedgerUnavailable("locked")]

    def write() -> AbstractContextManager[Any]:
        if faults:
            raise faults.pop()
        opened: AbstractContextManager[Any] = real()
        return opened

    monkeypatch.setattr(parts.ledger, "write", write)
    assert call(send_notification_async, NOTIFICATION, PREFERENCES["email"])["success"] is True


def test_an_event_is_told_to_every_channel_of_its_user(parts: Any, subscribe: Any) -> None:
    subscribe(parts, "anna", (ChannelKind.EMAIL, ChannelKind.WEBHOOK), user_id="u-1")
    subscribe(parts, "other", user_id="u-2")
    said = call(send_event_notifications_async, "scan.failed", {"error": "DNS"}, "u-1")
    assert set(said) == {"event", "user_id", "notifications_sent", "notifications"}
    assert (said["event"], said["user_id"], said["notifications_sent"]) == (
        "scan.failed",
        "u-1",
        2,
    )
    assert [(item["channel"], item["status"]) for item in said["notifications"]] == [
        ("email", "sent"),
        ("webhook", "sent"),
    ]
    (message,) = parts.channel(ChannelKind.EMAIL).sent
    assert message.message_id == said["notifications"][0]["notification_id"]
    assert message.notification.summary == "DNS"


def test_a_channel_that_fails_for_now_is_not_counted_as_sent(
    parts: Any, subscribe: Any, published: list[Any]
) -> None:
    subscribe(parts, "anna", (ChannelKind.EMAIL, ChannelKind.WEBHOOK), user_id="u-1")
    parts.channel(ChannelKind.EMAIL).script = [ChannelUnavailable("451")]
    said = call(send_event_notifications_async, "scan.failed", {}, "u-1")
    assert said["notifications_sent"] == 1
    assert [item["status"] for item in said["notifications"]] == ["pending", "sent"]
    assert len(published) == 1


def test_a_user_is_told_only_of_events_the_subscriber_asked_for(parts: Any, subscribe: Any) -> None:
    subscribe(parts, user_id="u-1", events=("scan.completed",))
    said = call(send_event_notifications_async, "scan.failed", {}, "u-1")
    assert (said["notifications_sent"], said["notifications"]) == (0, [])


def test_a_paused_subscriber_is_listed_as_suppressed(parts: Any, subscribe: Any) -> None:
    subscribe(parts, user_id="u-1", paused=True)
    said = call(send_event_notifications_async, "scan.failed", {}, "u-1")
    assert [item["status"] for item in said["notifications"]] == ["suppressed"]
    assert parts.channel(ChannelKind.WEBHOOK).sent == []


def test_an_unknown_event_is_refused_in_words(parts: Any) -> None:
    for task, user in (
        (send_event_notifications_async, "u-1"),
        (send_bulk_notifications_async, ["u-1"]),
        (send_bulk_notifications_async, []),
    ):
        with pytest.raises(InvalidEvent, match=r"'scan\.paused' is not one of"):
            call(task, "scan.paused", {}, user)


def test_a_report_asked_for_during_an_outage_leaves_what_was_there(
    make_parts: Any,
    make_scan: Any,
    record: Any,
    rows: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = make_parts(task_max_retries=0)
    ticket = record(parts, make_scan())
    render_formats(parts, ticket.run_id, ticket.formats)
    before = rows(parts, "reports")

    def away(_key: str, _data: bytes) -> None:
        raise ArtifactsUnavailable("the folder is full")

    monkeypatch.setattr(parts.artifacts, "place", away)
    made = generate_report_async.apply((json.loads(make_scan())["scan_id"], "csv"))

    assert isinstance(made.result, ArtifactsUnavailable)
    assert rows(parts, "reports") == before

"""Every kind of news is told in every language, whole, and only to people."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec
import pytest

from channels.mail_message import compose
from channels.slack import slack_payload
from channels.spoken import language_of, speak
from channels.webhook import event_body
from languages.language import known_languages, load_language
from schemas.events import PUBLISHED, EventType
from schemas.notifications import (
    FACTS,
    REASONS,
    VARIANTS,
    ArtifactLink,
    Attachment,
    ChannelAddress,
    ChannelKind,
    DigestLine,
    Fact,
    FindingSummary,
    Message,
    Notification,
)
from schemas.reports import Severity
from tasks.sample import sample

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
WORDS = {
    "domain": "example.org",
    "since": "2026-01-31",
    "reason": "unreadable",
    "said": "<b>so</b>",
}
TITLE = "Advertising cookies set before a choice"


def notification(variant: str, **changes) -> Notification:
    kind = next(
        (kind for kind in sorted(EventType, key=len, reverse=True) if variant.startswith(kind)),
        EventType.SCAN_COMPLETED,
    )
    fields = {
        "event_key": "k",
        "type": kind,
        "occurred_at": NOW,
        "domain": "example.org",
        "scan_id": "s-1",
        "severity": Severity.HIGH,
        "title": "ENGLISH TITLE",
        "summary": "ENGLISH SUMMARY",
        "variant": variant,
        "values": {name: WORDS.get(name, 12345) for name in VARIANTS.get(variant, ())},
        "facts": tuple(Fact(label=label, value="1234") for label in FACTS),
        "findings": (
            FindingSummary(rule_id="r", severity=Severity.HIGH, title=TITLE, count=2),
        ),
    }  # fmt: skip
    return Notification(**{**fields, **changes})


def message(told: Notification, language: str, kind: ChannelKind = ChannelKind.EMAIL, **more):
    target = "dpo@example.org" if kind is ChannelKind.EMAIL else "https://hooks.example/x"
    address = ChannelAddress(kind=kind, target=target)
    return Message(
        message_id="dlv-1", notification=told, address=address, language=language, **more
    )


@pytest.mark.parametrize("code", known_languages())
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_news_is_told_in_every_language(variant, code):
    told = speak(notification(variant), load_language(code))
    english = speak(notification(variant), load_language("en"))
    assert "ENGLISH" not in told.title + told.summary
    assert not re.search(r"{\w+}", told.title + told.summary)
    if "domain" in VARIANTS[variant]:
        assert "example.org" in told.title
    if code != "en":
        assert told.title != english.title
        assert "2026-01-31" not in told.summary
        assert told.findings[0].title != TITLE


@pytest.mark.parametrize("code", known_languages())
@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_is_told_in_the_readers_language(reason, code):
    values = {"domain": "example.org", "reason": reason}
    told = speak(notification("scan.completed.unjudged", values=values), load_language(code))
    assert (REASONS[reason] in told.summary) is (code == "en")
    assert reason not in told.summary.split()


def test_a_reason_in_the_words_of_an_earlier_release_is_told_as_it_is():
    values = {"domain": "example.org", "reason": "no format came out"}
    told = speak(notification("scan.completed.unjudged", values=values), load_language("de"))
    assert told.summary == "Der Grund: no format came out"


@pytest.mark.parametrize("code", known_languages())
def test_nothing_of_a_sample_is_english_to_those_who_read_another_language(code):
    said = sample(NOW)
    told = speak(said, load_language(code))
    for shown, english in ((told.title, said.title), (told.summary, said.summary)):
        assert (shown == english) is (code == "en")
    assert (told.findings[0].title == said.findings[0].title) is (code == "en")


def test_every_event_of_the_contract_has_a_variant():
    for kind in {*PUBLISHED, EventType.OPERATOR_ALERT, EventType.NOTIFICATION_DIGEST}:
        assert any(variant.startswith(kind.value) for variant in VARIANTS)


def test_somebodys_own_words_stay_and_labels_of_ours_are_translated():
    german = load_language("de")
    told = speak(
        notification("", facts=(Fact(label="score", value="held"), Fact(label="X", value="1"))),
        german,
    )
    assert (told.title, told.summary) == ("ENGLISH TITLE", "ENGLISH SUMMARY")
    assert told.facts == (Fact(label="Punktzahl", value="offen"), Fact(label="X", value="1"))


def test_values_of_another_release_fall_back_to_the_english_title():
    told = speak(notification("scan.completed", values={"domain": "x"}), load_language("fr"))
    assert told.title == "ENGLISH TITLE"


def test_a_language_whose_catalogue_is_gone_is_english():
    assert language_of("xx").code == "en"


def test_numbers_are_written_as_the_reader_does():
    told = speak(notification("scan.completed"), load_language("de"))
    assert "12.345" in told.title
    assert Fact(label="Cookies", value="1.234") in told.facts


@pytest.mark.parametrize(
    ("label", "value", "shown"),
    [
        ("cookies", "1234567", "1.234.567"),
        ("new_cookies", "1234 (a, 5678, …)", "1.234 (a, 5678, …)"),
        ("new_cookies", "12 (a\nb)", "12 (a\nb)"),
        ("score_change", "80 → 70", "80 → 70"),
        ("score", "held", "offen"),
        ("first_seen", "2026-01-31", "31. Januar 2026"),
        ("first_seen", "some day", "some day"),
        ("such_as", "1234567", "1.234.567"),
        ("rule_pack", "eu-baseline 1", "eu-baseline 1"),
        ("cookies", "9" * 5000, "9" * 5000),
        ("cookies", "٣", "٣"),
        ("cookies", "", ""),
    ],
)
def test_a_fact_is_written_as_the_reader_does(label, value, shown):
    told = speak(
        notification("scan.completed", facts=(Fact(label=label, value=value),)),
        load_language("de"),
    )
    assert told.facts[0].value == shown


def test_the_lines_of_a_digest_are_told_in_the_readers_language():
    line = DigestLine(
        occurred_at=NOW, type=EventType.SCAN_FAILED, domain="example.org",
        severity=Severity.MEDIUM, title="Scan failed for example.org", variant="scan.failed",
        values={"domain": "example.org", "said": "x"},
    )  # fmt: skip
    told = speak(notification("notification.digest", lines=(line,)), load_language("es"))
    assert told.lines[0].title == "El escaneo ha fallado: example.org"


@pytest.mark.parametrize("code", known_languages())
def test_a_mail_is_of_one_language_and_says_which(code):
    told = notification(
        "scan.completed",
        missing_formats=("html",),
        artifacts=(
            ArtifactLink(format="pdf", uri="https://r.example/a.pdf", size_bytes=9, sha256="0"),
        ),
    )
    envelope = compose(
        message(told, code), mail_from="a@example.org", unsubscribe_url="https://x.example/u",
        now=NOW,
    )  # fmt: skip
    mail = _parsed(envelope.content)
    page = mail.get_body(("html",)).get_content()
    text = mail.get_body(("plain",)).get_content()
    assert mail["Content-Language"] == code
    assert f'<html lang="{code}" dir="ltr">' in page
    for shown in (page, text):
        words = ("Reports", "Findings", "Unsubscribe", "Sent by", "Could not", "High", "complete")
        assert [word for word in words if word in shown] == ([] if code != "en" else [*words])


def test_slack_is_told_in_the_readers_language_and_the_webhook_in_english():
    told = notification("compliance.violation")
    payload = msgspec.json.encode(slack_payload(message(told, "de", ChannelKind.SLACK))).decode()
    assert "Befunde zur Einwilligung auf example.org" in payload
    assert "HOCH" in payload
    body = event_body(message(told, "de", ChannelKind.WEBHOOK)).decode()
    assert "ENGLISH TITLE" in body
    assert "Befunde" not in body


@pytest.mark.parametrize("code", known_languages())
def test_hostile_values_start_no_header_in_any_language(code):
    told = notification("scan.completed", values={
        "domain": "a\r\nBcc: x@evil.example\r\n\r\n<script>", "score": 1, "cookies": 2,
        "before_consent": 3, "findings": 4,
    })  # fmt: skip
    envelope = compose(
        message(told, code), mail_from="a@example.org", unsubscribe_url=None, now=NOW
    )
    mail = _parsed(envelope.content)
    assert mail["Bcc"] is None
    assert "<script" not in mail.get_body(("html",)).get_content()


def test_attachments_travel_and_the_bytes_stay_the_same():
    attached = (
        Attachment(file_name="report-s-1.pdf", content_type="application/pdf", data=b"%PDF"),
        Attachment(file_name="a.csv", content_type="text/csv; charset=utf-8", data=b"a\r\n"),
    )

    def make() -> bytes:
        return compose(
            message(notification("scan.completed"), "de", attachments=attached),
            mail_from="a@example.org", unsubscribe_url=None, now=NOW,
        ).content  # fmt: skip

    mail = _parsed(make())
    assert make() == make()
    names = [part.get_filename() for part in mail.iter_attachments()]
    assert names == ["report-s-1.pdf", "a.csv"]
    assert [part.get_content_type() for part in mail.iter_attachments()] == [
        "application/pdf", "text/csv",
    ]  # fmt: skip
    assert next(mail.iter_attachments()).get_content() == b"%PDF"
    assert "Angehängt: report-s-1.pdf, a.csv" in mail.get_body(("plain",)).get_content()


def _parsed(content: bytes):
    from email import message_from_bytes, policy

    return message_from_bytes(content, policy=policy.default)


def test_who_hears_of_a_start_hears_of_the_end():
    from schemas.notifications import Subscriber
    from store.subscribers import wants

    strict = Subscriber(subscriber_id="anna", min_severity=Severity.HIGH)
    end = notification("compliance.violation.resolved", severity=Severity.INFO)
    assert not wants(strict, end, None)
    assert wants(strict, msgspec.structs.replace(end, weighs=Severity.HIGH), None)

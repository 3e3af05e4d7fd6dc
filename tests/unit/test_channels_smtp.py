"""The mail channel: what it writes, and what it does when the mail server misbehaves."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.mail_message import compose, subject
from channels.smtp import SmtpChannel
from channels.unsubscribing import subscriber_of_token, unsubscribe_token
from cli.sinks import MailSink
from schemas.errors import ChannelUnavailable, DeliveryRejected
from schemas.events import EventType
from schemas.notifications import (
    ArtifactLink,
    Attachment,
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


def message(
    target: str = "dpo@example.org",
    message_id: str = "dlv-1",
    subscriber_id: str = "",
    **changes: Any,
) -> Message:
    fields: dict[str, Any] = {
        "event_key": "scan.completed:1",
        "type": EventType.SCAN_COMPLETED,
        "occurred_at": NOW,
        "domain": "example.org",
        "scan_id": "1",
        "severity": Severity.HIGH,
        "title": "Scan finished",
        "summary": "A summary",
    }
    return Message(
        message_id=message_id,
        subscriber_id=subscriber_id,
        notification=Notification(**{**fields, **changes}),
        address=ChannelAddress(kind=ChannelKind.EMAIL, target=target),
    )


def mail_settings(port: int, **changes: Any) -> Settings:
    return Settings(
        **{
            "smtp_host": "127.0.0.1",
            "smtp_port": port,
            "smtp_security": "none",
            "smtp_timeout_s": 20,
            "mail_from": "Herald <herald@scanherald.example>",
            **changes,
        }
    )


@pytest.fixture
def sink() -> Iterator[MailSink]:
    with MailSink() as sink:
        yield sink


def deliver(sink: MailSink, sent: Message, **changes: Any) -> None:
    with closing(SmtpChannel(mail_settings(sink.port, **changes), lambda: NOW)) as channel:
        channel.send(sent)


def test_the_headers_are_complete(sink: MailSink) -> None:
    deliver(sink, message(), list_unsubscribe_url="https://example.org/stop?u=1")

    (sunk,) = sink.messages
    assert dict(sunk.parsed.items()) == {
        "From": "Herald <herald@scanherald.example>",
        "To": "dpo@example.org",
        "Subject": "Scan finished · example.org",
        "Date": "Wed, 04 Mar 2026 05:06:07 +0000",
        "Message-ID": "<dlv-1@scanherald.example>",
        "Auto-Submitted": "auto-generated",
        "List-Unsubscribe": "<https://example.org/stop?u=1>",
        "MIME-Version": "1.0",
        "Content-Type": sunk.parsed["Content-Type"],
        "Content-Language": "en",
    }
    assert sunk.sender == "herald@scanherald.example"
    assert sunk.recipients == ("dpo@example.org",)
    assert sunk.content.isascii()


def test_without_an_unsubscribe_address_nothing_offers_one(sink: MailSink) -> None:
    deliver(sink, message())

    (sunk,) = sink.messages
    assert b"nsubscribe" not in sunk.content


STOP = {"list_unsubscribe_url": "https://example.org/stop?t={token}", "unsubscribe_key": "k" * 32}


def test_a_link_to_unsubscribe_says_for_whom_and_nobody_else_can_make_it(sink: MailSink) -> None:
    for name in ("anna", "ben"):
        deliver(sink, message(subscriber_id=name), **STOP)

    for name, sunk in zip(("anna", "ben"), sink.messages, strict=True):
        assert sunk.parsed["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
        (token,) = re.fullmatch(
            r"<https://example\.org/stop\?t=([\w.-]+)>", sunk.parsed["List-Unsubscribe"]
        ).groups()
        assert subscriber_of_token(token, "k" * 32) == name
        assert subscriber_of_token(token, "x" * 32) is None
        for part in ("plain", "html"):
            assert token in sunk.parsed.get_body((part,)).get_content()
        # As docs/notifications.md tells operators to check it.
        who, mac = token.split(".")
        assert base64.urlsafe_b64decode(who + "==") == name.encode()
        digest = hmac.new(b"k" * 32, name.encode(), hashlib.sha256).digest()
        assert base64.urlsafe_b64encode(digest).decode().rstrip("=") == mac


def test_a_link_that_names_nobody_is_no_one_click_address(sink: MailSink) -> None:
    deliver(sink, message(subscriber_id="anna"), list_unsubscribe_url="https://example.org/stop")
    deliver(sink, message(), **STOP)
    deliver(sink, message(subscriber_id="\U0001f600" * 200), **STOP)

    page, nobody, too_long = (sunk.parsed for sunk in sink.messages)
    assert page["List-Unsubscribe"] == "<https://example.org/stop>"
    assert page["List-Unsubscribe-Post"] is None
    for parsed in (nobody, too_long):
        assert "nsubscribe" not in parsed.as_string()


@pytest.mark.parametrize("token", ["", ".", "YW5uYQ", "YW5uYQ.", "YW5uYQ.YW5uYQ", "ü.ü", "%.%"])
def test_what_is_no_token_is_nobodys(token: str) -> None:
    made = unsubscribe_token("anna", "k" * 32)
    assert subscriber_of_token(made, "k" * 32) == "anna"
    assert subscriber_of_token(token, "k" * 32) is None
    assert subscriber_of_token(f"YmVu.{made.partition('.')[2]}", "k" * 32) is None


def test_both_texts_tell_the_whole_story(sink: MailSink) -> None:
    deliver(
        sink,
        message(
            summary="First paragraph.\n\nSecond paragraph.",
            facts=(Fact(label="Score", value="71 of 100"),),
            findings=(
                FindingSummary(
                    rule_id="early-cookie", severity=Severity.HIGH, title="Early cookie", count=3
                ),
            )
            * 53,
            artifacts=(
                ArtifactLink(
                    format="pdf", uri="https://r.example/a?x=1&y=2", size_bytes=48_211, sha256="0"
                ),
                ArtifactLink(format="csv", uri="javascript:alert(1)", size_bytes=7, sha256="0"),
            ),
            missing_formats=("html", "json"),
        ),
        list_unsubscribe_url="https://example.org/stop",
    )

    (sunk,) = sink.messages
    page = sunk.parsed.get_body(("html",)).get_content()
    plain = sunk.parsed.get_body(("plain",)).get_content().replace("\r\n", "\n")
    for text in (page, plain):
        for needle in (
            "Scan finished",
            "example.org",
            "First paragraph.",
            "Second paragraph.",
            "Score",
            "71 of 100",
            "Early cookie",
            "early-cookie",
            "nd 3 more in the report",
            "HTML, JSON",
            "48 kB",
            "dlv-1",
            "https://example.org/stop",
        ):
            assert needle in text
    assert '<a href="https://r.example/a?x=1&amp;y=2"' in page
    assert 'href="javascript' not in page
    assert page.count("<a ") == 2
    assert "https://r.example/a?x=1&y=2" in plain
    for loader in ("<img", "<link", "<style", "<script", "src=", "url(", "@import"):
        assert loader not in page
    assert "\n\n\n" not in plain


def test_two_attempts_are_the_same_message_but_for_the_date(sink: MailSink) -> None:
    deliver(sink, message())
    deliver(sink, message())
    deliver(sink, message(message_id="dlv-2"))

    first, second, other = (sunk.content for sunk in sink.messages)
    assert first == second
    assert first != other


@pytest.mark.parametrize(
    "message_id", ["a b", "a:b", "<x>", "a@b", "", "x\r\nBcc: a@b", "ü", "x" * 300, ".a"]
)
def test_an_id_that_cannot_stand_in_a_message_id_becomes_a_digest(message_id: str) -> None:
    def left_side(each: str) -> str:
        made = compose(
            message(message_id=each), mail_from="a@b.example", unsubscribe_url=None, now=NOW
        )
        line = next(line for line in made.content.split(b"\r\n") if line.startswith(b"Message-ID"))
        return line.decode().removeprefix("Message-ID: <").removesuffix("@b.example>")

    assert len(left_side(message_id)) == 64
    assert left_side(message_id) == left_side(message_id)
    assert left_side(message_id) != left_side(message_id + "x")


@pytest.mark.parametrize(
    "target",
    [
        "",
        "dpo",
        "@example.org",
        "dpo@",
        "dpo@example.org\r\nBcc: evil@evil.example",
        "dpo@example.org\nRCPT TO:<evil@evil.example>",
        "dpo\r\n@example.org",
        "dpo@example.org, evil@evil.example",
        "dpo@example.org evil@evil.example",
        "<dpo@example.org>",
        "Dpo <dpo@example.org>",
        '"a b"@example.org',
        "a@b@example.org",
        "dpo@[127.0.0.1]",
        "dpo@exa mple.org",
        "dpo@example.org>",
        "dpo@example.org\x00",
        "d\u202epo@example.org",
        "x" * 65 + "@example.org",
        "dpo@" + "x" * 64 + "ü.example",
    ],
)
def test_an_address_that_is_none_is_rejected_without_being_shown(
    sink: MailSink, target: str
) -> None:
    with pytest.raises(DeliveryRejected, match="not an e-mail address") as caught:
        deliver(sink, message(target))

    assert "example" not in f"{caught.value} {caught.value.__cause__}"
    assert sink.messages == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mail_from", "nobody"),
        ("mail_from", "Herald\r\nBcc: x@y.example"),
        ("mail_from", '"Herald\r\nBcc: x@y.example" <herald@scanherald.example>'),
        ("list_unsubscribe_url", "http://example.org/"),
        ("list_unsubscribe_url", "https://example.org/\r\nBcc: x@y.example"),
        ("list_unsubscribe_url", "https://example.org/>,<mailto:x@y.example"),
    ],
)
def test_a_setting_that_cannot_stand_in_a_header_is_named(
    sink: MailSink, name: str, value: str
) -> None:
    with pytest.raises(DeliveryRejected, match=f"SCANHERALD_{name.upper()}"):
        deliver(sink, message(), **{name: value})


def test_a_long_unsubscribe_address_stays_one_readable_line(sink: MailSink) -> None:
    url = "https://example.org/stop?token=" + "a" * 400
    deliver(sink, message(message_id="m" * 150), list_unsubscribe_url=url)

    lines = sink.messages[0].content.split(b"\r\n")
    assert f"List-Unsubscribe: <{url}>".encode() in lines
    assert f"Message-ID: <{'m' * 150}@scanherald.example>".encode() in lines


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=300), domain=st.none() | st.text(max_size=50))
def test_no_text_adds_a_header_or_a_recipient(text: str, domain: str | None) -> None:
    sent = message(title=text, summary=text, domain=domain, scan_id=text)
    made = compose(sent, mail_from="Herald <a@b.example>", unsubscribe_url=None, now=NOW)
    head = made.content.split(b"\r\n\r\n", 1)[0].replace(b"\r\n ", b" ").split(b"\r\n")

    assert [line.split(b":")[0] for line in head] == [
        b"From",
        b"To",
        b"Subject",
        b"Date",
        b"Message-ID",
        b"Auto-Submitted",
        b"MIME-Version",
        b"Content-Type",
        b"Content-Language",
    ]
    assert b"\n" not in made.content.replace(b"\r\n", b"")
    assert b"\r" not in made.content.replace(b"\r\n", b"")
    assert made.content.isascii()
    assert 0 < len(subject(sent.notification)) <= 160


@settings(max_examples=300, deadline=None)
@given(
    title=st.text(max_size=200)
    | st.lists(st.sampled_from(["a", "é", "=?utf-8?q?=0ABcc?=", "שלום", "🍪", "x" * 90])).map(
        " ".join
    )
)
def test_a_subject_arrives_as_it_was_written(title: str) -> None:
    sent = message(title=title)
    content = compose(sent, mail_from="a@b.example", unsubscribe_url=None, now=NOW).content
    parsed = message_from_bytes(content, policy=policy.default)
    assert parsed["Subject"] == subject(sent.notification)
    assert str(make_header(decode_header(message_from_bytes(content)["Subject"]))) == subject(
        sent.notification
    )
    assert all(len(line) <= 250 for line in content.split(b"\r\n\r\n")[0].split(b"\r\n"))


@pytest.mark.parametrize(
    ("file_name", "content_type", "name", "kind"),
    [
        ("report.pdf", "application/pdf", "report.pdf", "application/pdf"),
        ("a.csv", "text/csv; charset=utf-8; header=present", "a.csv", "text/csv"),
        ("../../etc/passwd", "text/html", "etc-passwd", "text/html"),
        ('a"\r\nBcc: x@y.example.pdf', "a/b\r\nBcc: x@y", "a-Bcc-x-y.example.pdf", None),
        ("a.eml", "message/rfc822", "a.eml", None),
        ("שלום.pdf", "multipart/mixed; boundary=x", "pdf", None),
        ("", "", "attachment", None),
        ("x" * 300 + ".pdf", "message/rfc822", "x" * 96 + ".pdf", None),
        (".htaccess", "TEXT/HTML", "htaccess", None),
    ],
)
def test_an_attachment_says_nothing_but_a_name_and_a_type(
    sink: MailSink, file_name: str, content_type: str, name: str, kind: str | None
) -> None:
    data = b"\r\n.\r\n--=_x--\r\n\x00\xff" * 30
    attached = Attachment(file_name=file_name, content_type=content_type, data=data)
    deliver(sink, msgspec.structs.replace(message(), attachments=(attached,)))

    (part,) = sink.messages[0].parsed.iter_attachments()
    assert part.get_filename() == name
    assert part.get_content_type() == (kind or "application/octet-stream")
    assert part.get_payload(decode=True) == data
    assert part.get_param("charset") == ("utf-8" if "charset" in content_type else None)
    assert sink.messages[0].parsed["Bcc"] is None
    assert sink.messages[0].content.isascii()
    assert name in sink.messages[0].parsed.get_body(("plain",)).get_content()


def test_a_mail_with_attachments_is_the_same_bytes_every_time() -> None:
    attached = tuple(
        Attachment(file_name=f"{number}.pdf", content_type="application/pdf", data=b"%PDF")
        for number in range(3)
    )
    sent = msgspec.structs.replace(message(), attachments=attached, language="fr")
    made = {
        compose(sent, mail_from="a@b.example", unsubscribe_url=None, now=NOW).content
        for _ in range(3)
    }
    assert len(made) == 1
    boundaries = [
        part.get_boundary()
        for part in message_from_bytes(made.pop(), policy=policy.default).walk()
        if part.is_multipart()
    ]
    assert len(boundaries) == len(set(boundaries)) == 2


def test_a_script_from_right_to_left_is_kept_apart_from_what_is_around_it(sink: MailSink) -> None:
    domain = "דוגמה.example"
    told = message(
        variant="scan.completed",
        domain=domain,
        values={"domain": domain, "score": 7, "cookies": 1, "before_consent": 2, "findings": 3},
        facts=(Fact(label="such_as", value="مثال 12"),),
    )
    deliver(sink, msgspec.structs.replace(told, language="de"))

    parsed = sink.messages[0].parsed
    page = parsed.get_body(("html",)).get_content()
    assert '<html lang="de" dir="ltr">' in page
    assert f'<bdi dir="ltr">{domain}</bdi>' in page
    assert "<bdi>مثال 12</bdi>" in page
    assert parsed["Subject"] == f"Scan von {domain} beendet: Punktzahl 7"


def test_an_international_domain_travels_as_punycode(sink: MailSink) -> None:
    deliver(sink, message("dpo@bücher.example"))

    assert sink.messages[0].recipients == ("dpo@xn--bcher-kva.example",)
    assert sink.messages[0].parsed["To"] == "dpo@xn--bcher-kva.example"


def test_an_international_local_part_travels_by_smtputf8(sink: MailSink) -> None:
    deliver(sink, message("jürgen@bücher.example"))

    (sunk,) = sink.messages
    assert sunk.recipients == ("jürgen@xn--bcher-kva.example",)
    assert "To: jürgen@xn--bcher-kva.example".encode() in sunk.content


def test_a_server_without_smtputf8_is_not_given_an_international_address() -> None:
    with (
        MailSink(enable_SMTPUTF8=False) as sink,
        pytest.raises(DeliveryRejected, match="SMTPUTF8"),
    ):
        deliver(sink, message("jürgen@example.org"))

    assert sink.messages == ()


def test_without_a_mail_server_the_refusal_says_what_to_set() -> None:
    with (
        closing(SmtpChannel(Settings(), lambda: NOW)) as channel,
        pytest.raises(ChannelUnavailable, match="SCANHERALD_SMTP_HOST"),
    ):
        channel.send(message())


@pytest.mark.parametrize(
    ("step", "reply"),
    [
        ("MAIL", "530 5.7.0 Must issue a STARTTLS command first"),
        ("MAIL", "530 5.7.1 Authentication required"),
        ("MAIL", "550 5.7.1 sender not allowed"),
        ("MAIL", "553 sender syntax"),
        ("RCPT", "554 5.7.1 Relay access denied"),
        ("RCPT", "550 relaying denied"),
        ("RCPT", "535 authentication failed"),
        ("DATA", "530 authentication required"),
    ],
)
def test_what_the_server_will_not_take_from_us_waits_for_an_operator(step: str, reply: str) -> None:
    with (
        dialogue({step: reply}) as (port, _),
        closing(SmtpChannel(mail_settings(port), lambda: NOW)) as channel,
        pytest.raises(ChannelUnavailable) as caught,
    ):
        channel.send(message())
    assert caught.value.status_code == int(reply[:3])


@pytest.mark.parametrize(
    ("step", "reply", "of_mailbox"),
    [
        ("RCPT", "550 5.1.1 user unknown", True),
        ("RCPT", "552 mailbox full", True),
        ("DATA", "554 5.6.0 no", False),
        (".", "552 5.3.4 message too big", False),
        (".", "554 5.7.1 spam", False),
    ],
)
def test_only_a_refused_recipient_speaks_against_its_mailbox(
    step: str, reply: str, of_mailbox: bool
) -> None:
    with (
        dialogue({step: reply}) as (port, _),
        closing(SmtpChannel(mail_settings(port), lambda: NOW)) as channel,
        pytest.raises(DeliveryRejected) as caught,
    ):
        channel.send(message())
    assert caught.value.of_mailbox is of_mailbox


@pytest.mark.parametrize(
    ("reply", "kind"), [("450 busy", ChannelUnavailable), ("550 no such user", DeliveryRejected)]
)
def test_a_refused_recipient_is_translated_like_a_refused_message(
    sink: MailSink, reply: str, kind: type[Exception]
) -> None:
    sink.script("RCPT", reply)
    with pytest.raises(kind, match="refused the recipient with"):
        deliver(sink, message())

    assert sink.messages == ()


@contextmanager
def dialogue(*connections: dict[str, str | None]) -> Iterator[tuple[int, list[list[str]]]]:
    """A mail server that follows a script, one for each connection, and keeps what it heard.

    A script maps a command to its reply; ``GREETING`` is said first, ``.`` after
    a message's end, and None hangs up.
    """
    heard: list[list[str]] = []

    def serve() -> None:
        for script in connections:
            try:
                connection, _ = listening.accept()
            except OSError:
                return  # the test made fewer connections than were scripted
            lines: list[str] = []
            heard.append(lines)
            with connection, connection.makefile("rwb") as stream:
                _follow({"GREETING": "220 hello", **script}, stream, lines)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1], heard
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _follow(script: dict[str, str | None], stream: Any, lines: list[str]) -> None:
    defaults = {"DATA": "354 go on", ".": "250 kept"}
    word, in_data = "GREETING", False
    while True:
        reply = script.get(word, defaults.get(word, "250 OK"))
        if reply is None:
            return
        stream.write(reply.encode() + b"\r\n")
        stream.flush()
        in_data = word == "DATA" and reply.startswith("354")
        word = ""
        while not word:
            line = stream.readline().decode().rstrip("\r\n")
            if not line and not in_data:
                return
            if not in_data or line == ".":
                lines.append(line)
                word = line.split(" ")[0].upper()


def commands(lines: list[str]) -> list[str]:
    return [line.split(" ")[0].split(":")[0].upper() for line in lines]


def test_a_connection_is_kept_and_asked_before_it_is_used_again() -> None:
    with (
        dialogue({}) as (port, heard),
        closing(SmtpChannel(mail_settings(port), lambda: NOW)) as channel,
    ):
        channel.send(message())
        channel.send(message(message_id="dlv-2"))

    once = ["MAIL", "RCPT", "DATA", "."]
    assert [commands(lines) for lines in heard] == [["EHLO", *once, "NOOP", *once, "QUIT"]]


@pytest.mark.parametrize("noop", ["421 closing", None])
def test_a_stale_connection_is_replaced_before_a_word_of_the_message_is_said(
    noop: str | None,
) -> None:
    with (
        dialogue({"NOOP": noop}, {}) as (port, heard),
        closing(SmtpChannel(mail_settings(port), lambda: NOW)) as channel,
    ):
        channel.send(message())
        channel.send(message(message_id="dlv-2"))

    once = ["EHLO", "MAIL", "RCPT", "DATA", "."]
    assert [commands(lines) for lines in heard] == [[*once, "NOOP"], [*once, "QUIT"]]


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "."])
def test_a_connection_lost_in_mid_message_is_not_tried_again_in_this_attempt(step: str) -> None:
    with (
        dialogue({step: None}, {}) as (port, heard),
        closing(SmtpChannel(mail_settings(port), lambda: NOW)) as channel,
    ):
        with pytest.raises(ChannelUnavailable):
            channel.send(message())
        assert len(heard) == 1

        channel.send(message())
        assert len(heard) == 2


@pytest.mark.parametrize("greeting", ["554 no service", "421 too busy", "hello?", None])
def test_a_server_that_does_not_greet_is_unavailable(greeting: str | None) -> None:
    with (
        dialogue({"GREETING": greeting}) as (port, _),
        closing(SmtpChannel(mail_settings(port), lambda: NOW)) as channel,
        pytest.raises(ChannelUnavailable),
    ):
        channel.send(message())


def test_a_server_that_stripped_starttls_is_told_nothing() -> None:
    with dialogue({}) as (port, heard):
        starttls = mail_settings(
            port, smtp_security="starttls", smtp_username="u", smtp_password="p"
        )
        with (
            closing(SmtpChannel(starttls, lambda: NOW)) as channel,
            pytest.raises(ChannelUnavailable, match="SCANHERALD_SMTP_SECURITY is starttls"),
        ):
            channel.send(message())

    assert [commands(lines) for lines in heard] == [["EHLO"]]


def test_what_a_server_repeats_of_the_address_is_blanked_out() -> None:
    with (
        dialogue({"RCPT": "550 5.1.1 <DPO@Example.org>: user unknown"}) as (port, _),
        closing(SmtpChannel(mail_settings(port), lambda: NOW)) as channel,
        pytest.raises(DeliveryRejected) as caught,
    ):
        channel.send(message())

    assert caught.value.receipt == "5.1.1 <…>: user unknown"


def test_a_mail_server_name_that_is_none_is_named() -> None:
    with (
        closing(SmtpChannel(mail_settings(25, smtp_host="x" * 70), lambda: NOW)) as channel,
        pytest.raises(ChannelUnavailable, match="SCANHERALD_SMTP_HOST"),
    ):
        channel.send(message())

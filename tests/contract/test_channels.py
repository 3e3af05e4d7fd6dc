"""What every channel promises, asked of each against a real other side on this machine."""

from __future__ import annotations

import html
import json
import re
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from functools import cache
from typing import Any

import pytest
from babel.messages.pofile import read_po

from channels.registry import CHANNELS, Channel
from cli.sinks import HttpSink, MailSink, SinkAnswer
from languages.language import CATALOGUES, known_languages, load_language
from schemas.errors import ChannelUnavailable, DeliveryRejected, RateLimited
from schemas.events import EventType
from schemas.notifications import (
    FACTS,
    MAX_RECEIPT_CHARS,
    VARIANTS,
    ArtifactLink,
    ChannelAddress,
    ChannelKind,
    DigestLine,
    Fact,
    FindingSummary,
    Message,
    Notification,
)
from schemas.reports import Severity
from schemas.settings import Settings

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SECRET = "whsec_" + "c2Nhbmhlcm" * 4
TARGETS = {
    ChannelKind.EMAIL: "dpo.tokenish@example.org",
    ChannelKind.WEBHOOK: "/hooks/tokenish?key=tokenish",
    ChannelKind.SLACK: "/slack/T000/B000/tokenish",
    ChannelKind.APPRISE: "/apprise/tokenish?-key=tokenish",
}


def clock() -> datetime:
    return NOW


def notification(text: str = "Scan of example.org finished", **changes: Any) -> Notification:
    fields: dict[str, Any] = {
        "event_key": "scan.completed:1",
        "type": EventType.SCAN_COMPLETED,
        "occurred_at": NOW,
        "domain": "example.org",
        "scan_id": "0b7b9f1e-1111-4222-8333-444455556666",
        "severity": Severity.HIGH,
        "title": text,
        "summary": text,
        "facts": (Fact(label="Score", value=text),),
        "findings": (FindingSummary(rule_id="early", severity=Severity.HIGH, title=text, count=2),),
        "artifacts": (
            ArtifactLink(format="pdf", uri="https://r.example.org/a.pdf", size_bytes=9, sha256="0"),
        ),
        "missing_formats": ("html",),
    }
    return Notification(**{**fields, **changes})


@dataclass
class Wire:
    """One channel, and the sink at its other end."""

    kind: ChannelKind
    mail: MailSink
    http: HttpSink
    settings: Settings
    channel: Channel

    def message(
        self,
        message_id: str = "dlv-1",
        text: str | None = None,
        language: str = "en",
        **changes: Any,
    ) -> Message:
        target = TARGETS[self.kind]
        if self.kind is not ChannelKind.EMAIL:
            target = self.http.url + target
        if self.kind is ChannelKind.APPRISE:
            target = target.replace("http://", "json://")
        return Message(
            message_id=message_id,
            notification=notification(**changes) if text is None else notification(text, **changes),
            language=language,
            address=ChannelAddress(
                kind=self.kind,
                target=target,
                secret=SECRET if self.kind is ChannelKind.WEBHOOK else None,
            ),
        )

    def ids(self) -> list[str]:
        """The message ids on the wire, oldest first."""
        if self.kind is ChannelKind.EMAIL:
            return [mail.parsed["Message-ID"][1:].split("@")[0] for mail in self.mail.messages]
        if self.kind is ChannelKind.WEBHOOK:
            return [request.headers["webhook-id"] for request in self.http.requests]
        if self.kind is ChannelKind.APPRISE:
            return [
                json.loads(request.body)["message"].rsplit("message ", 1)[1]
                for request in self.http.requests
            ]
        return [
            json.loads(request.body)["blocks"][-1]["elements"][0]["text"].rsplit("message ", 1)[1]
            for request in self.http.requests
        ]

    def bodies(self) -> list[bytes]:
        if self.kind is ChannelKind.EMAIL:
            return [mail.content for mail in self.mail.messages]
        return [request.body for request in self.http.requests]

    def shown(self) -> list[str]:
        """What each message says to whoever reads it, oldest first."""
        if self.kind is ChannelKind.EMAIL:
            return [_read_mail(mail.parsed) for mail in self.mail.messages]
        said = [json.loads(request.body) for request in self.http.requests]
        if self.kind is ChannelKind.SLACK:
            texts = ([each["text"] for each in _text_objects(body["blocks"])] for body in said)
            return [html.unescape("\n".join(each)) for each in texts]
        if self.kind is ChannelKind.APPRISE:
            return [f"{body['title']}\n{body['message']}".replace("\u200b", "") for body in said]
        return [json.dumps(body["data"], ensure_ascii=False) for body in said]

    def answer_once(self, code: int, text: str = "no") -> None:
        """Have the other side answer the next message with an HTTP status or SMTP code."""
        if self.kind is ChannelKind.EMAIL:
            self.mail.script("DATA", f"{code} {text}")
        else:
            self.http.script(SinkAnswer(status=code, body=text.encode()))


@pytest.fixture(params=list(ChannelKind))
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    kind: ChannelKind = request.param
    with MailSink() as mail, HttpSink() as http:
        settings = Settings(
            smtp_host="127.0.0.1",
            smtp_port=mail.port,
            smtp_security="none",
            smtp_timeout_s=20,
            http_timeout_s=20,
            http_allow=(f"127.0.0.1:{http.port}",),
            mail_from="Herald <herald@scanherald.example>",
        )
        with closing(CHANNELS[kind](settings, clock)) as channel:
            yield Wire(kind, mail, http, settings, channel)


def test_every_kind_of_channel_is_in_the_registry() -> None:
    assert set(CHANNELS) == set(ChannelKind)
    assert set(TARGETS) == set(ChannelKind)


def test_a_message_arrives_once_and_brings_back_a_receipt(wire: Wire) -> None:
    receipt = wire.channel.send(wire.message())

    assert wire.ids() == ["dlv-1"]
    assert receipt.status_code in (200, 250)


def test_two_attempts_carry_the_same_id_and_the_same_body(wire: Wire) -> None:
    wire.channel.send(wire.message())
    wire.channel.send(wire.message())

    assert wire.ids() == ["dlv-1", "dlv-1"]
    first, second = wire.bodies()
    assert first == second


def test_a_passing_failure_is_unavailable_and_the_channel_stays_usable(wire: Wire) -> None:
    codes = (421, 450, 451) if wire.kind is ChannelKind.EMAIL else (408, 425, 429, 500, 502, 503)
    for code in codes:
        wire.answer_once(code, "busy")
        with pytest.raises(ChannelUnavailable, match=str(code)) as caught:
            wire.channel.send(wire.message())
        assert caught.value.status_code == code
        assert caught.value.receipt == "busy"

    wire.channel.send(wire.message("dlv-2"))
    assert wire.ids()[-1] == "dlv-2"


def test_a_refusal_is_rejected_for_good_and_the_channel_stays_usable(wire: Wire) -> None:
    codes = (550, 552, 554) if wire.kind is ChannelKind.EMAIL else (301, 307, 400, 404, 410, 422)
    for code in codes:
        wire.answer_once(code, "never")
        with pytest.raises(DeliveryRejected, match=str(code)) as caught:
            wire.channel.send(wire.message())
        assert caught.value.status_code == code
        assert caught.value.receipt == "never"

    wire.channel.send(wire.message("dlv-2"))
    assert wire.ids()[-1] == "dlv-2"


@pytest.mark.parametrize(
    "wire", [ChannelKind.WEBHOOK, ChannelKind.SLACK, ChannelKind.APPRISE], indirect=True
)
def test_a_request_to_slow_down_says_for_how_long(wire: Wire) -> None:
    for value in ("17", "Wed, 04 Mar 2026 05:06:24 GMT"):
        wire.http.script(
            SinkAnswer(
                429, {"retry-after": value, "date": "Wed, 04 Mar 2026 05:06:07 GMT"}, b"slow down"
            )
        )
        with pytest.raises(RateLimited) as caught:
            wire.channel.send(wire.message())
        assert caught.value.retry_after == 17


@pytest.mark.parametrize("code", [250, 451, 550])
def test_a_long_answer_is_bounded_in_the_receipt(wire: Wire, code: int) -> None:
    code = {250: 200, 451: 503, 550: 400}[code] if wire.kind is not ChannelKind.EMAIL else code
    wire.answer_once(code, "x\x1b[2J" * 1000)

    try:
        text = wire.channel.send(wire.message()).text
    except (ChannelUnavailable, DeliveryRejected) as error:
        text = error.receipt

    assert 100 < len(text) <= MAX_RECEIPT_CHARS
    assert "\x1b" not in text


@pytest.mark.parametrize("code", [451, 550])
def test_no_address_and_no_secret_reaches_an_error(wire: Wire, code: int) -> None:
    message = wire.message()
    target = TARGETS[wire.kind]
    http_code = {451: 500, 550: 404}[code]
    echo = f"cannot deliver to {target}"
    wire.answer_once(code if wire.kind is ChannelKind.EMAIL else http_code, echo)

    with pytest.raises((ChannelUnavailable, DeliveryRejected)) as caught:
        wire.channel.send(message)

    said = _everything_said(caught.value) + caught.value.receipt
    assert "cannot deliver to" in said
    assert "tokenish" not in said
    assert SECRET not in said


def _everything_said(error: BaseException | None) -> str:
    said = ""
    while error is not None:
        said += f"{error!r} {error}\n"
        error = error.__cause__
    return said


def _elsewhere(wire: Wire, port: int, timeout_s: float = 20) -> tuple[Channel, Message]:
    """The same channel, pointed at another port of this machine."""
    settings = wire.settings.model_copy(
        update={
            "smtp_port": port,
            "smtp_timeout_s": timeout_s,
            "http_timeout_s": timeout_s,
            "http_allow": ("127.0.0.1",),
        }
    )
    message = wire.message()
    moved = message.address.target.replace(f":{wire.http.port}/", f":{port}/")
    address = ChannelAddress(kind=wire.kind, target=moved, secret=message.address.secret)
    return CHANNELS[wire.kind](settings, clock), Message(
        message_id="dlv-1", notification=message.notification, address=address
    )


def test_a_refused_connection_is_unavailable(wire: Wire) -> None:
    with socket.socket() as bound_but_deaf:
        bound_but_deaf.bind(("127.0.0.1", 0))
        channel, message = _elsewhere(wire, bound_but_deaf.getsockname()[1])
        with closing(channel), pytest.raises(ChannelUnavailable) as caught:
            channel.send(message)

    assert "tokenish" not in _everything_said(caught.value)


def test_a_server_that_never_answers_is_unavailable(wire: Wire) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        channel, message = _elsewhere(wire, silent.getsockname()[1], timeout_s=0.2)
        with closing(channel), pytest.raises(ChannelUnavailable) as caught:
            channel.send(message)

    assert "tokenish" not in _everything_said(caught.value)


def test_many_threads_share_a_channel_and_each_message_arrives_once(wire: Wire) -> None:
    ids = [f"dlv-{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda each: wire.channel.send(wire.message(each)), ids))

    assert sorted(wire.ids()) == sorted(ids)


def test_closing_twice_is_safe(wire: Wire) -> None:
    wire.channel.send(wire.message())
    wire.channel.close()
    wire.channel.close()


HOSTILE = {
    "mention": "<!channel> <@U012AB3CD> <!here|here> @here",
    "link": "<https://evil.example|click> [x](https://evil.example) *b* _i_ `c` :tada:",
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)>&amp;\"'",
    "template": "{{ 7*7 }}{% raw %}${7*7}",
    "crlf": "a\r\nBcc: everyone@evil.example\r\n\r\n.\r\nRCPT TO:<x@evil.example>\r\n",
    "bidi": "\u202egnp.exe\u202c \u2066evil\u2069 \u200fx",
    "controls": "nul\x00 esc\x1b[31m bell\x07 sep\u2028line",
    "long": "é" * 8192,
    "blank": " \n\t ",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_arrives_harmless(wire: Wire, name: str) -> None:
    text = HOSTILE[name]
    wire.channel.send(wire.message(text=text))
    HARMLESS[wire.kind](wire, text)


@pytest.mark.parametrize("language", known_languages())
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_values_arrive_harmless_in_every_language(
    wire: Wire, name: str, language: str
) -> None:
    text = HOSTILE[name]
    message = wire.message(
        text=text,
        language=language,
        variant="compliance.violation.reminder",
        values={"domain": text, "rules": 3, "evidence": 5, "since": text},
        facts=tuple(Fact(label=label, value=text) for label in FACTS),
    )
    wire.channel.send(message)
    HARMLESS[wire.kind](wire, text)


def _harmless_mail(wire: Wire, text: str) -> None:
    (sunk,) = wire.mail.messages
    mail = sunk.parsed
    assert sunk.recipients == (TARGETS[ChannelKind.EMAIL],)
    assert mail.keys() == [
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "MIME-Version",
        "Content-Type",
        "Content-Language",
    ]
    assert len(mail["Subject"]) <= 160
    assert all(len(line) <= 998 for line in sunk.content.split(b"\r\n"))
    page = mail.get_body(("html",)).get_content()
    plain = mail.get_body(("plain",)).get_content()
    for shown in (page, plain, mail["Subject"]):
        assert not set("\x00\x07\x1b\u202e\u2066\u2069\u200f\u2028") & set(shown)
    assert "<script" not in page
    assert "<img" not in page
    assert "<!channel" not in page
    assert "49" not in plain  # no template was evaluated


def _harmless_webhook(wire: Wire, text: str) -> None:
    (request,) = wire.http.requests
    assert len(request.body) < 20_000
    assert b"\x1b" not in request.body
    assert b"\n" not in request.body
    title = json.loads(request.body)["data"]["title"]
    assert title == text or title.endswith("[cut]")
    assert set(request.headers) == {
        "host",
        "user-agent",
        "accept-encoding",
        "content-type",
        "content-length",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }


def _harmless_slack(wire: Wire, text: str) -> None:
    (request,) = wire.http.requests
    payload = json.loads(request.body)
    texts = list(_text_objects(payload["blocks"]))
    marked_up = [each for each in texts if each["type"] == "mrkdwn"]
    assert [each["text"] for each in marked_up] == ["<https://r.example.org/a.pdf|PDF>"]
    assert all(each["verbatim"] for each in marked_up)
    for each in texts:
        if each["type"] == "plain_text":
            assert not set("<>\x00\x07\x1b\u202e\u2066\u2069\u200f\u2028") & set(each["text"])
            assert each["emoji"] is False
            assert 0 < len(each["text"]) <= 3000
    assert not set("<>") & set(payload["text"])
    assert payload["link_names"] is False


def _harmless_apprise(wire: Wire, text: str) -> None:
    (request,) = wire.http.requests
    payload = json.loads(request.body)
    assert payload["attachments"] == []
    shown = payload["title"] + payload["message"]
    assert not set("\x00\x07\x1b\u202e\u2066\u2069\u200f\u2028\r") & set(shown)
    assert not re.search(r"[@<](?!\u200b)|\]\(", shown)
    assert "\n" not in payload["title"]
    assert len(shown) <= 4000


HARMLESS: dict[ChannelKind, Callable[[Wire, str], None]] = {
    ChannelKind.EMAIL: _harmless_mail,
    ChannelKind.WEBHOOK: _harmless_webhook,
    ChannelKind.SLACK: _harmless_slack,
    ChannelKind.APPRISE: _harmless_apprise,
}


def _text_objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if node.get("type") in ("plain_text", "mrkdwn"):
            yield node
        for value in node.values():
            yield from _text_objects(value)
    elif isinstance(node, list):
        for value in node:
            yield from _text_objects(value)


WORDS = {"domain": "shop.example", "since": "2026-01-31", "reason": "XYZ", "said": "XYZ"}
LINK = "https://r.example.org/a.pdf"


def _told(variant: str) -> dict[str, Any]:
    """One kind of news with everything that can be in it."""
    kinds = (kind for kind in sorted(EventType, key=len) if variant.startswith(kind))
    line = DigestLine(
        occurred_at=NOW,
        type=EventType.SCAN_FAILED,
        domain="line.example",
        severity=Severity.LOW,
        title="ENGLISH LINE",
        variant="scan.failed",
        values={"domain": "line.example", "said": "XYZ"},
        link="https://r.example.org/line.html",
    )
    return {
        "type": next(kinds),
        "title": "ENGLISH TITLE",
        "summary": "ENGLISH SUMMARY",
        "variant": variant,
        "values": {name: WORDS.get(name, 12345) for name in VARIANTS[variant]},
        "facts": tuple(Fact(label=label, value="1234") for label in FACTS),
        "findings": (
            FindingSummary(
                rule_id="consent.advertising",
                severity=Severity.HIGH,
                title="Advertising cookies set before a choice",
                count=1234,
            ),
        ),
        "lines": (line,) if variant == "notification.digest" else (),
    }


@pytest.mark.parametrize("language", known_languages())
def test_every_kind_of_news_is_told_whole_in_every_language(wire: Wire, language: str) -> None:
    t = load_language(language)
    for variant in VARIANTS:
        wire.channel.send(wire.message(language=language, **_told(variant)))

    for variant, shown in zip(VARIANTS, wire.shown(), strict=True):
        assert LINK in shown
        if wire.kind is ChannelKind.WEBHOOK:
            assert "ENGLISH TITLE" in shown
            assert "ENGLISH SUMMARY" in shown
            assert '"label": "before_consent"' in shown
            continue
        assert "ENGLISH" not in shown
        assert not re.search(r"{\w*}", shown)
        title = re.escape(t[f"message.{variant}.title"])
        assert re.search(re.sub(r"\\{\w+\\}", ".+", title), shown)
        said = VARIANTS[variant]
        assert ("XYZ" in shown) is bool({"said", "reason"} & {*said})
        assert ("line.example" in shown) is (variant == "notification.digest")
        assert "shop.example" in shown or "domain" not in said
        if "since" in said:
            assert t.day(datetime(2026, 1, 31, tzinfo=UTC)) in shown
        assert _foreign(shown, language) == set()


@pytest.mark.parametrize("wire", [ChannelKind.WEBHOOK], indirect=True)
def test_machines_are_told_the_same_in_every_language(wire: Wire) -> None:
    for language in known_languages():
        wire.channel.send(wire.message(language=language, **_told("compliance.violation")))

    assert len(set(wire.bodies())) == 1
    assert b'"variant"' not in wire.bodies()[0]


def _read_mail(mail: EmailMessage) -> str:
    plain, page = (mail.get_body((kind,)).get_content() for kind in ("plain", "html"))
    words = html.unescape(re.sub(r"<[^>]+>", "\n", page)).replace("\xa0", " ")
    return f"{mail['Subject']}\n{plain}\n{words}"


@cache
def _english(language: str) -> list[re.Pattern[str]]:
    """What the English catalogue says and this language says otherwise, names left open."""
    texts = {}
    for code in ("en", language):
        with (CATALOGUES / f"{code}.po").open("rb") as file:
            texts[code] = {each.id: each.string for each in read_po(file) if each.id}
    said = {key: text for key, text in texts["en"].items() if isinstance(text, str)}
    return [
        re.compile(".+".join(map(re.escape, re.split(r"{\w+}", text))))
        for key, text in said.items()
        if texts[language][key] != text and re.search(r"[a-z]{3}", re.sub(r"{\w+}", "", text))
    ]


def _foreign(shown: str, language: str) -> set[str]:
    """Pieces of a message that are a text of ours in English."""
    pieces = {
        piece.strip(" -[]•⚠")
        for line in shown.splitlines()
        for piece in (line, *re.split(r" · |: |  ", line))
    }
    return {piece for piece in pieces for english in _english(language) if english.fullmatch(piece)}


def test_without_an_exemption_nothing_on_this_machine_is_reached() -> None:
    with ExitStack() as stack:
        http = stack.enter_context(HttpSink())
        for kind, scheme in (
            (ChannelKind.WEBHOOK, "https"),
            (ChannelKind.SLACK, "https"),
            (ChannelKind.APPRISE, "jsons"),
        ):
            channel = stack.enter_context(closing(CHANNELS[kind](Settings(), clock)))
            address = ChannelAddress(
                kind=kind, target=http.url.replace("http", scheme) + "/x", secret=SECRET
            )
            with pytest.raises(DeliveryRejected, match="private or reserved"):
                channel.send(
                    Message(message_id="dlv-1", notification=notification(), address=address)
                )
        assert http.requests == ()

"""Apprise's plugins on the guarded transport: what they can reach, say and wait for."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from apprise.plugins.custom_json import NotifyJSON

from channels import apprise as ours
from channels.answers import Answer
from channels.apprise import AppriseChannel, apprise_text
from channels.guarded_http import Exchange, GuardedHttp
from channels.guarded_requests import carried
from cli.sinks import HttpSink, SinkAnswer
from cli.subscribers import shortened
from cli.wishes import check_address
from schemas.errors import (
    ChannelUnavailable,
    DeliveryRejected,
    DestinationForbidden,
    RateLimited,
)
from schemas.events import EventType
from schemas.notifications import (
    ArtifactLink,
    ChannelAddress,
    ChannelKind,
    DigestLine,
    Fact,
    FindingSummary,
    Message,
    Notification,
    Receipt,
)
from schemas.reports import Severity
from schemas.settings import HTTP_SERVICES, Settings
from tests.authority import Authority

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
LETTERS = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789" * 7
HEX = "0123456789abcdef" * 4
UUID = "8b799edf-6f98-4d3a-9be7-2862fb4e5752"

SAMPLES = {
    "dingtalk": f"dingtalk://{LETTERS[:20]}",
    "discord": f"discord://{DIGITS[:18]}/{LETTERS[:64]}",
    "feishu": f"feishu://{UUID}",
    "form": "form://hooks.example/a/path",
    "forms": "forms://hooks.example/a/path",
    "gchat": f"gchat://workspace/{LETTERS[:12]}/{LETTERS[:20]}",
    "gotify": f"gotify://hooks.example/{LETTERS[:16]}",
    "gotifys": f"gotifys://hooks.example/{LETTERS[:16]}",
    "ifttt": f"ifttt://{LETTERS[:20]}/an_event",
    "ilert": f"ilert://{LETTERS[:20]}",
    "incidentio": f"incidentio://{LETTERS[:20]}/{LETTERS[:20]}",
    "json": "json://hooks.example/a/path",
    "jsons": "jsons://hooks.example/a/path",
    "lark": f"lark://{UUID}",
    "line": f"line://{LETTERS[:40]}/U{HEX[:32]}",
    "matrix": "matrix://user:password@hooks.example/#room",
    "matrixs": "matrixs://user:password@hooks.example/#room",
    "mmost": f"mmost://hooks.example/{LETTERS[:24]}",
    "mmosts": f"mmosts://hooks.example/{LETTERS[:24]}",
    "ntfy": "ntfy://hooks.example/topic",
    "ntfys": "ntfys://hooks.example/topic",
    "opsgenie": f"opsgenie://{UUID}?action=new",
    "pagerduty": f"pagerduty://{LETTERS[:32]}@{LETTERS[:20]}/source/component",
    "pagertree": "pagertree://int_123456789",
    "pbul": f"pbul://{LETTERS[:32]}",
    "pover": f"pover://{LETTERS[:30]}@{LETTERS[:30]}",
    "rocket": f"rocket://{LETTERS[:16]}/{LETTERS[:24]}@hooks.example/#channel",
    "rockets": f"rockets://{LETTERS[:16]}/{LETTERS[:24]}@hooks.example/#channel",
    "signl4": f"signl4://{LETTERS[:10]}",
    "spike": f"spike://{HEX[:32]}",
    "splunk": f"splunk://route@{UUID}",
    "squadcast": f"squadcast://{LETTERS[:20]}",
    "tgram": f"tgram://123456789:{LETTERS[:35]}/12315544",
    "twilio": f"twilio://AC{HEX[:32]}:{HEX[:32]}@+15551231234/+15551231235",
    "workflows": f"workflows://hooks.example/{HEX[:32]}/{LETTERS[:30]}",
    "wxteams": f"wxteams://{LETTERS}abcd",
    "xml": "xml://hooks.example/a/path",
    "xmls": "xmls://hooks.example/a/path",
    "zulip": f"zulip://bot@organization/{LETTERS[:32]}/a-stream",
}
AGREEABLE = {
    "access_token": "t",
    "m.homeserver": {"base_url": "https://matrix.example"},
    "ok": True,
    "requestId": "1",
    "room_id": "!r:x",
    "user_id": "u",
    "versions": [],
}
"""What one service or another wants to hear."""
PLAIN_HTTP = {"form", "gotify", "json", "matrix", "mmost", "ntfy", "rocket", "xml"}


def message(target: str, title: str = "A title", **changes: Any) -> Message:
    fields: dict[str, Any] = {
        "event_key": "scan.completed:1",
        "type": EventType.SCAN_COMPLETED,
        "occurred_at": NOW,
        "domain": "example.org",
        "scan_id": "1",
        "severity": Severity.HIGH,
        "title": title,
        "summary": "A summary",
    }
    return Message(
        message_id="dlv-1",
        notification=Notification(**{**fields, **changes}),
        address=ChannelAddress(kind=ChannelKind.APPRISE, target=target),
    )


class Scripted(GuardedHttp):
    """A guarded transport whose other side is a script; what was asked is in ``asked``."""

    def __init__(self, status: int = 200, body: bytes = b'{"access_token": "t", "ok": true}'):
        super().__init__(clock=lambda: NOW)
        self.status, self.body = status, body
        self.asked: list[tuple[str, str, bytes, Mapping[str, str]]] = []

    def exchange(
        self,
        method: str,
        url: str,
        content: bytes,
        headers: Mapping[str, str],
        **_: Any,
    ) -> Exchange:
        self.asked.append((method, url, content, headers))
        text = self.body.decode()
        return Exchange("https://there", Answer(self.status, {}, text), self.body, True)


def channel(http: GuardedHttp, **changes: Any) -> AppriseChannel:
    return AppriseChannel(Settings(**changes), lambda: NOW, http)


def deliver(http: GuardedHttp, target: str, **changes: Any) -> Receipt:
    with closing(channel(http, **changes)) as made:
        return made.send(message(target))


def test_there_is_a_sample_for_each_service_that_is_on_by_default() -> None:
    assert set(SAMPLES) == set(HTTP_SERVICES)


@pytest.mark.parametrize("scheme", HTTP_SERVICES)
def test_a_service_reaches_out_through_the_guard_and_by_no_other_way(scheme: str) -> None:
    http = Scripted(body=json.dumps(AGREEABLE).encode())
    # Any connection of the plugin's own would be refused, and the delivery with it.
    deliver(http, SAMPLES[scheme])

    assert http.asked
    kinds = {url.split(":")[0] for _, url, _, _ in http.asked}
    assert kinds == {"http" if scheme in PLAIN_HTTP else "https"}
    said = b" ".join(content for _, _, content, _ in http.asked)
    assert b"title" in said.lower()


# One of them leaves closing its socket to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("rsyslog://127.0.0.1:{port}", socket.SOCK_DGRAM),
        ("irc://127.0.0.1:{port}/#channel?auto_join=no", socket.SOCK_STREAM),
        ("mailto://user:password@127.0.0.1:{port}?from=a@example.org", socket.SOCK_STREAM),
    ],
)
def test_a_service_with_a_protocol_of_its_own_is_refused_although_it_is_allowed(
    target: str, kind: socket.SocketKind
) -> None:
    with socket.socket(socket.AF_INET, kind) as listening:
        listening.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            listening.listen()
        listening.settimeout(0)
        target = target.format(port=listening.getsockname()[1])
        with (
            closing(GuardedHttp(allow=["127.0.0.1"])) as http,
            pytest.raises(DestinationForbidden, match="past the guard"),
        ):
            deliver(http, target, apprise_schemes=("rsyslog", "irc", "mailto"))
        with pytest.raises(BlockingIOError):
            listening.accept() if kind is socket.SOCK_STREAM else listening.recvfrom(1)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("", "no Apprise URL"),
        ("tokenish", "no Apprise URL"),
        ("tokenish token://x", "no Apprise URL"),
        ("syslog://tokenish", "SCANHERALD_APPRISE_SCHEMES"),
        ("dbus://", "SCANHERALD_APPRISE_SCHEMES"),
        ("file:///etc/tokenish", "SCANHERALD_APPRISE_SCHEMES"),
        ("https://discord.com/api/webhooks/1/tokenish", "SCANHERALD_APPRISE_SCHEMES"),
        ("discord://tokenish", "cannot read this discord:// URL"),
        ("json://:tokenish", "cannot read this json:// URL"),
        (f"tgram://123456789:{LETTERS[:35]}/1/2?retry=3", "names 2 targets"),
        ("ntfys://hooks.example/tokenish/other", "names 2 targets"),
        (f"discord://{DIGITS[:18]}/{LETTERS[:64]}?template=/etc/passwd", "names a file"),
        (f"discord://{DIGITS[:18]}/{LETTERS[:64]}?template=https://evil.example/", "names a file"),
        (f"tgram://123456789:{LETTERS[:35]}/1?template=file:///etc/passwd", "names a file"),
        (f"workflows://h.example/{HEX}/{LETTERS[:9]}?template=/proc/self/environ", "names a file"),
    ],
)
def test_what_could_never_be_sent_is_refused_without_being_shown(target: str, reason: str) -> None:
    http = Scripted()
    with pytest.raises(DeliveryRejected, match=reason) as caught:
        deliver(http, target)

    assert "tokenish" not in str(caught.value)
    assert LETTERS[:9] not in str(caught.value)
    assert http.asked == []


def test_a_command_refuses_what_could_never_be_sent_and_shows_only_the_scheme() -> None:
    good, bad = (
        ChannelAddress(kind=ChannelKind.APPRISE, target=target)
        for target in (SAMPLES["tgram"], "discord://tokenish")
    )
    check_address(good, Settings())

    assert shortened(good) == "tgram://…"  # behind it stands the token, where a host would be
    with pytest.raises(DeliveryRejected, match="cannot read"):
        check_address(bad, Settings())


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    with HttpSink() as sink:
        yield sink


@pytest.fixture
def http(sink: HttpSink) -> Iterator[GuardedHttp]:
    with closing(GuardedHttp(allow=[f"127.0.0.1:{sink.port}"], timeout_s=20)) as http:
        yield http


def test_the_url_cannot_ask_for_redirects_patience_or_other_headers(
    sink: HttpSink, http: GuardedHttp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    netrc = tmp_path / "netrc"
    netrc.write_text("default login operator password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    wish = "redirect=yes&verify=no&rto=9999&cto=9999&retry=5&wait=60&overflow=split"
    sink.script(SinkAnswer(302, {"location": f"{sink.url}/elsewhere"}), SinkAnswer(200))
    target = f"json://127.0.0.1:{sink.port}/hook?{wish}&+Host=evil&+X-Mine=1&+Content-Length=1"

    with pytest.raises(DeliveryRejected, match="redirects are refused"):
        deliver(http, target)
    deliver(http, target)

    assert [request.path for request in sink.requests] == ["/hook"] * 2
    headers = sink.requests[1].headers
    assert headers["host"] == f"127.0.0.1:{sink.port}"
    assert headers["x-mine"] == "1"
    assert headers["accept-encoding"] == "identity"
    assert "authorization" not in headers
    assert json.loads(sink.requests[1].body)["title"] == "A title"


def test_a_certificate_is_verified_although_the_url_says_not_to(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with HttpSink(ssl_context=authority.server("127.0.0.1")) as sink:
        target = f"jsons://127.0.0.1:{sink.port}/hook?verify=no"
        allow = [f"127.0.0.1:{sink.port}"]
        with (
            closing(GuardedHttp(allow=allow, timeout_s=20)) as http,
            pytest.raises(ChannelUnavailable, match="certificate"),
        ):
            deliver(http, target)
        assert sink.requests == ()
        trusting = GuardedHttp(allow=allow, timeout_s=20, ssl_context=authority.trusted())
        with closing(trusting):
            deliver(trusting, target)
        assert len(sink.requests) == 1


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "127.1", "[::1]", "169.254.169.254", "0x7f.1"]
)
@pytest.mark.parametrize("scheme", ["json", "jsons", "xmls", "gotifys", "mmosts", "workflows"])
def test_a_typed_host_inside_is_refused(scheme: str, host: str) -> None:
    path = f"{HEX[:32]}/{LETTERS[:30]}" if scheme == "workflows" else LETTERS[:16]
    with (
        closing(GuardedHttp()) as http,
        pytest.raises(DeliveryRejected, match=r"private or reserved|by https|cannot read|valid"),
    ):
        deliver(http, f"{scheme}://{host}/{path}")


def test_all_that_a_service_asks_for_one_message_meets_one_deadline(
    sink: HttpSink, http: GuardedHttp
) -> None:
    body = b'{"access_token": "t", "room_id": "!r:x", "user_id": "u"}'
    # Each of three answers comes well within the time for one; together they do not.
    sink.script(*(SinkAnswer(body=body, drip_s=0.005) for _ in range(3)))
    target = f"matrix://user:password@127.0.0.1:{sink.port}/#room"
    began = time.monotonic()

    with pytest.raises(ChannelUnavailable, match="did not finish within"):
        deliver(http, target, http_timeout_s=0.5)

    assert time.monotonic() - began < 5
    assert len(sink.requests) < 4


def test_what_a_plugin_says_when_it_is_garbage_is_not_sent(
    sink: HttpSink, http: GuardedHttp
) -> None:
    body = b'{"access_token": "t", "room_id": "!r:x", "user_id": "u"}'
    sink.script(*(SinkAnswer(body=body) for _ in range(9)))

    deliver(http, f"matrix://user:password@127.0.0.1:{sink.port}/#room")

    assert [request.path.rsplit("/", 1)[-1] for request in sink.requests] == [
        "login",
        "%23room%3A127.0.0.1",
        "0",
    ]


def test_a_request_to_slow_down_ends_the_send_at_once() -> None:
    http = Scripted(429)
    with pytest.raises(RateLimited):
        deliver(http, SAMPLES["discord"])

    assert len(http.asked) == 1  # its plugin would have asked again


@pytest.mark.parametrize("severity", Severity)
def test_a_message_that_its_url_leaves_aside_does_not_count_as_sent(severity: Severity) -> None:
    target = f"opsgenie://{UUID}?:info=note&:warning=note&:failure=note"
    with (
        closing(channel(Scripted())) as made,
        pytest.raises(DeliveryRejected, match="leave such messages aside"),
    ):
        made.send(message(target, severity=severity))


def test_an_unknown_failure_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object, **__: object) -> bool:
        raise KeyError("tokenish")

    for send in (breaks, lambda *_, **__: False):
        monkeypatch.setattr(NotifyJSON, "send", send)
        with pytest.raises(ChannelUnavailable, match="could not send through JSON") as caught:
            deliver(Scripted(), "jsons://hooks.example/tokenish")
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


def test_an_answer_that_says_no_with_a_good_status_may_pass_and_is_kept() -> None:
    target = f"opsgenie://{UUID}?action=new&tags=to%20kenish"
    with pytest.raises(ChannelUnavailable) as caught:
        deliver(Scripted(body=f"not json: {UUID} to kenish".encode()), target)

    assert caught.value.status_code == 200
    assert caught.value.receipt == "not json: … …"


def test_nothing_of_a_url_or_a_message_is_logged(
    sink: HttpSink, http: GuardedHttp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    sink.script(SinkAnswer(500, {}, b"tokenish"), SinkAnswer(200))
    target = f"json://user:passwordish@127.0.0.1:{sink.port}/tokenish"

    with pytest.raises(ChannelUnavailable):
        deliver(http, target)
    deliver(http, target)
    with pytest.raises(DeliveryRejected):
        deliver(http, "discord://tokenish")

    for secret in ("tokenish", "passwordish", "A title", "A summary"):
        assert secret not in caplog.text


def test_whoever_else_uses_requests_notices_nothing(sink: HttpSink, http: GuardedHttp) -> None:
    deliver(http, f"json://127.0.0.1:{sink.port}/hook")  # all is in place from here on
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(requests.post(f"{sink.url}/else", data=b"x", timeout=20).status_code)

    with carried(http, 20):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        with pytest.raises(PermissionError, match="past the guard"):
            socket.create_connection(("127.0.0.1", sink.port))
        with pytest.raises(PermissionError, match="past the guard"):
            subprocess.run(["true"], check=True)
    ask()

    assert statuses == [200, 200]


def test_a_plugin_off_its_thread_reaches_nothing(sink: HttpSink, http: GuardedHttp) -> None:
    with closing(channel(http)) as made:
        target = f"json://127.0.0.1:{sink.port}/hook"
        plugin = ours.open_plugin(target, Settings())
        assert plugin.notify(body="x") is False
        made.send(message(target))

    assert len(sink.requests) == 1


def test_apprise_is_imported_by_its_first_message_and_not_before() -> None:
    code = (
        "import sys; from channels.registry import CHANNELS; from schemas.settings import Settings;"
        "made = [make(Settings(), None) for make in CHANNELS.values()];"
        "print(sorted({'apprise', 'requests', 'urllib3', 'yaml'} & set(sys.modules)))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert said.stdout == "[]\n"


def test_without_the_extra_a_message_waits_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours._library.cache_clear()
    monkeypatch.setitem(sys.modules, "apprise", None)

    with pytest.raises(ChannelUnavailable, match=r"pip install 'scanherald\[apprise\]'"):
        deliver(Scripted(), SAMPLES["discord"])


@pytest.mark.parametrize("room", [160, 1000, 4000, 100_000])
def test_the_text_fits_and_ends_with_the_message_id(room: int) -> None:
    sent = message(
        "json://h.example",
        title="T" * 1000,
        summary="é" * 30_000,
        artifacts=(
            ArtifactLink(format="pdf", uri="https://r.example/a.pdf", size_bytes=9, sha256="0"),
            ArtifactLink(format="csv", uri="javascript:alert(1)", size_bytes=9, sha256="0"),
        ),
    )
    title, body = apprise_text(sent, room)

    assert len(title) <= 150
    assert len(title) + len(body) <= max(room, 200)
    assert body.endswith("message dlv-1")
    assert "javascript" not in body


def test_the_text_tells_of_all_that_people_are_told_of() -> None:
    _, body = apprise_text(
        message(
            "json://h.example",
            facts=(Fact(label="Score", value="71 @here"),),
            findings=(
                FindingSummary(
                    rule_id="early", severity=Severity.HIGH, title="Too <!early>", count=2
                ),
            ),
            lines=(
                DigestLine(
                    occurred_at=NOW,
                    type=EventType.SCAN_COMPLETED,
                    domain="example.org",
                    severity=Severity.LOW,
                    title="Scan finished",
                ),
            ),
            missing_formats=("html",),
            artifacts=(
                ArtifactLink(format="pdf", uri="https://r.example/a.pdf", size_bytes=9, sha256="0"),
            ),
        )
    )

    assert body.split("\n\n") == [
        "A summary",
        "Score: 71 @\u200bhere",
        "• HIGH  Too <\u200b!early> (2)",
        "• LOW  example.org  Scan finished",
        "⚠ Could not be rendered: HTML",
        "PDF: https://r.example/a.pdf",
        "message dlv-1",
    ]

"""TLS and logins: certificates are checked against the name, passwords go nowhere else."""

from __future__ import annotations

import socket
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult, LoginPassword

from channels.guarded_http import GuardedHttp
from channels.smtp import SmtpChannel
from cli.sinks import HttpSink, MailSink
from schemas.errors import ChannelUnavailable
from schemas.events import EventType
from schemas.notifications import ChannelAddress, ChannelKind, Message, Notification
from schemas.reports import Severity
from schemas.settings import Settings
from tests.authority import Authority

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
MESSAGE = Message(
    message_id="dlv-1",
    notification=Notification(
        event_key="scan.completed:1",
        type=EventType.SCAN_COMPLETED,
        occurred_at=NOW,
        domain="example.org",
        scan_id="1",
        severity=Severity.LOW,
        title="Scan finished",
        summary="A summary",
    ),
    address=ChannelAddress(kind=ChannelKind.EMAIL, target="dpo@example.org"),
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def resolve_here(host: str, port: int, *, type: int) -> list[tuple[Any, ...]]:
    return [(socket.AF_INET, type, 6, "", ("127.0.0.1", port))]


def test_a_webhooks_certificate_is_checked_against_its_name_not_its_address(
    authority: Authority,
) -> None:
    with (
        HttpSink(ssl_context=authority.server("hooks.example")) as sink,
        closing(
            GuardedHttp(
                allow=["hooks.example", "other.example"],
                resolve=resolve_here,
                ssl_context=authority.trusted(),
                timeout_s=20,
            )
        ) as http,
    ):
        assert http.post(f"https://hooks.example:{sink.port}/slack", b"", {}).text_excerpt == "ok"
        assert http.post(f"https://HOOKS.example.:{sink.port}/slack", b"", {}).status_code == 200
        with pytest.raises(ChannelUnavailable, match="certificate"):
            http.post(f"https://other.example:{sink.port}/token", b"", {})

    assert [request.headers["host"] for request in sink.requests] == [
        f"hooks.example:{sink.port}",
        f"hooks.example:{sink.port}",
    ]


def test_an_exemption_from_the_guard_is_none_from_the_certificate(authority: Authority) -> None:
    with (
        HttpSink(ssl_context=authority.server("hooks.example")) as sink,
        closing(GuardedHttp(allow=["hooks.example"], resolve=resolve_here, timeout_s=20)) as http,
        pytest.raises(ChannelUnavailable, match="certificate"),
    ):
        http.post(f"https://hooks.example:{sink.port}/", b"", {})

    assert sink.requests == ()


def check_login(
    _server: object, _session: object, _envelope: object, _mechanism: str, data: Any
) -> AuthResult:
    return AuthResult(success=data == LoginPassword(b"herald", b"right"), handled=False)


def mail_channel(authority: Authority, port: int, **changes: Any) -> SmtpChannel:
    fields: dict[str, Any] = {
        "smtp_host": "127.0.0.1",
        "smtp_port": port,
        "smtp_timeout_s": 20,
        "mail_from": "herald@scanherald.example",
    }
    return SmtpChannel(Settings(**{**fields, **changes}), lambda: NOW, authority.trusted())


def test_starttls_and_a_login_come_before_the_message(authority: Authority) -> None:
    with (
        MailSink(
            tls_context=authority.server("127.0.0.1"),
            require_starttls=True,
            authenticator=check_login,
            auth_required=True,
        ) as sink,
        closing(
            mail_channel(
                authority,
                sink.port,
                smtp_security="starttls",
                smtp_username="herald",
                smtp_password="right",
            )
        ) as channel,
    ):
        channel.send(MESSAGE)
        channel.send(MESSAGE)

        assert len(sink.messages) == 2


def test_implicit_tls_carries_the_message(authority: Authority) -> None:
    with (
        MailSink(ssl_context=authority.server("127.0.0.1")) as sink,
        closing(mail_channel(authority, sink.port, smtp_security="tls")) as channel,
    ):
        channel.send(MESSAGE)

        assert len(sink.messages) == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_mail_server_with_another_name_is_told_nothing(
    authority: Authority, security: str
) -> None:
    context = authority.server("mail.example")
    options = {"ssl_context" if security == "tls" else "tls_context": context}
    with (
        MailSink(**options) as sink,
        closing(mail_channel(authority, sink.port, smtp_security=security)) as channel,
        pytest.raises(ChannelUnavailable, match="certificate"),
    ):
        channel.send(MESSAGE)

    assert sink.messages == ()


@pytest.mark.parametrize("password", ["wrong", "wröng"])
def test_a_refused_login_says_what_to_check_and_shows_nothing(
    authority: Authority, password: str
) -> None:
    with (
        MailSink(
            tls_context=authority.server("127.0.0.1"),
            authenticator=check_login,
            auth_required=True,
        ) as sink,
        closing(
            mail_channel(authority, sink.port, smtp_username="herald", smtp_password=password)
        ) as channel,
        pytest.raises(ChannelUnavailable, match="SCANHERALD_SMTP_PASSWORD") as caught,
    ):
        channel.send(MESSAGE)

    assert password not in str(caught.value)
    assert caught.value.__cause__ is None
    assert sink.messages == ()

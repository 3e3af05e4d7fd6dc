"""``config check`` against real servers: each mistake has a sentence that says which it is."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult

from cli.embedded import free_port, valkey_part, wait_for_redis
from cli.sinks import MailSink
from cli.supervisor import Supervisor
from listener.config_check import check_all
from schemas.health import PartHealth, State
from schemas.settings import load_settings
from tasks.wiring import wire
from tests.authority import Authority
from tests.bucket import Bucket


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., PartHealth]:
    """The line of one check, with these settings."""

    def check(name: str, **settings: Any) -> PartHealth:
        given = {"data_dir": tmp_path / "data", "health_timeout_s": 10.0, **settings}
        parts = wire(load_settings(**given))
        try:
            (found,) = [part for part in check_all(parts, {}) if part.part == name]
        finally:
            parts.close()
        assert bool(found.do) == (found.state is not State.HEALTHY)
        assert "hush" not in found.says + found.do
        return found

    return check


@contextlib.contextmanager
def valkey(folder: Path, *options: str) -> Iterator[int]:
    port, supervisor = free_port(), Supervisor()
    part = valkey_part(port, folder, folder / "log")
    supervisor.start(replace(part, command=[*part.command, *options]))
    try:
        wait_for_redis(f"redis://:hush@127.0.0.1:{port}/0")
        yield port
    finally:
        supervisor.stop()


@contextlib.contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on loopback that does this with each connection, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(OSError):
                        serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield int(listening.getsockname()[1])
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_redis_is_told_apart_by_what_is_wrong_with_it(
    tmp_path: Path, check: Callable[..., PartHealth]
) -> None:
    def says(url: str) -> tuple[State, str]:
        found = check("REDIS_URL", redis_url=url)
        return found.state, f"{found.says} → {found.do}"

    folder = tmp_path / "valkey"
    lax = ("--requirepass", "hush", "--maxmemory-policy", "allkeys-lru", "--appendonly", "no")
    with valkey(folder, *lax) as port:
        state, said = says(f"redis://:hush@127.0.0.1:{port}/0")
        assert state is State.DEGRADED
        assert "Valkey" in said
        assert "maxmemory-policy is allkeys-lru" in said
        assert "append-only file is off" in said
        for url in (f"redis://:hush-not@127.0.0.1:{port}/0", f"redis://127.0.0.1:{port}/0"):
            assert "refuses that user and password" in says(url)[1]
        tls = check("REDIS_URL", redis_url=f"rediss://127.0.0.1:{port}/0", health_timeout_s=1)
        assert "does not speak it on that port" in tls.says
    assert "nothing listens" in says(f"redis://127.0.0.1:{port}/0")[1]
    assert "no machine has that host name" in says("redis://nowhere.invalid/0")[1]


def test_tls_a_wrong_port_and_silence_are_told_apart(
    tmp_path: Path, check: Callable[..., PartHealth]
) -> None:
    context = Authority(tmp_path).server("localhost")

    def tls(connection: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError):
            context.wrap_socket(connection, server_side=True).close()

    def web(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    ended = threading.Event()
    with server(tls) as port:
        plain = check("REDIS_URL", redis_url=f"redis://127.0.0.1:{port}/0")
        assert "hangs up on a connection without TLS" in plain.says
        assert "ask for TLS in REDIS_URL" in plain.do
        secure = check("REDIS_URL", redis_url=f"rediss://localhost:{port}/0")
        assert "certificate is not trusted" in secure.says
    with server(web) as port:
        other = check("REDIS_URL", redis_url=f"redis://127.0.0.1:{port}/0")
        assert "another kind of server" in other.says
    with server(lambda _: ended.wait(10) and None) as port:
        try:
            silent = check(
                "REDIS_URL", redis_url=f"redis://127.0.0.1:{port}/0", health_timeout_s=0.5
            )
        finally:
            ended.set()
        assert silent.state is State.DOWN
        assert "answer" in silent.says
        assert silent.latency_ms < 3000


def test_a_broker_of_its_own_is_tried_too(check: Callable[..., PartHealth]) -> None:
    for url in (f"amqp://u:hush@127.0.0.1:{free_port()}//", f"redis://127.0.0.1:{free_port()}/0"):
        found = check("CELERY_BROKER_URL", celery_broker_url=url)
        assert (found.state, found.says) == (State.DOWN, "nothing listens on that host and port")
        assert "CELERY_BROKER_URL" in found.do
    other = check("CELERY_RESULT_BACKEND", celery_result_backend="rpc://")
    assert other.state is State.DEGRADED


class Login:
    """Lets ``post`` in with its password."""

    def __call__(self, _server: Any, _session: Any, _envelope: Any, _how: str, said: Any) -> Any:
        known = (said.login, said.password) == (b"post", b"hush")
        return AuthResult(success=known, handled=False)


def test_the_mail_server_is_greeted_and_sent_nothing(
    tmp_path: Path, check: Callable[..., PartHealth]
) -> None:
    def asked(port: int, **settings: Any) -> PartHealth:
        given = {"smtp_host": "127.0.0.1", "smtp_port": port, "smtp_security": "none", **settings}
        return check("e-mail", **given)

    login = {"smtp_username": "post", "smtp_password": "hush"}
    options = {"authenticator": Login(), "auth_require_tls": False}
    with MailSink(**options) as sink:
        good = asked(sink.port, mail_from="us@example.org", **login)
        assert (good.state, good.says) == (
            State.HEALTHY,
            f"127.0.0.1:{sink.port} answers, logged in; nothing was sent",
        )
        wrong = asked(sink.port, **{**login, "smtp_password": "hush-not"})
        assert "refuses that user and password" in wrong.says
        assert "does not speak it" in asked(sink.port, smtp_security="starttls").says
        assert "does not speak it" in asked(sink.port, smtp_security="tls").says
        assert "other servers refuse it" in asked(sink.port).says  # scanherald@localhost
        assert sink.messages == ()
    assert "nothing listens" in asked(sink.port).says
    context = Authority(tmp_path).server("mail.example")
    with MailSink(ssl_context=context) as sink:
        assert "not trusted here" in asked(sink.port, smtp_security="tls").says


def test_a_bucket_is_probed_and_left_as_it_was(
    check: Callable[..., PartHealth], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Bucket() as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        good = check("ARTIFACTS_URL", artifacts_url="s3://reports/scans")
        assert good.state is State.HEALTHY, good
        assert bucket.objects == {}
    refused = check("ARTIFACTS_URL", artifacts_url="s3://reports/scans")
    assert "nothing listens" in refused.says


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket"])
def test_a_bucket_that_refuses_says_why(
    code: str, check: Callable[..., PartHealth], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = f"<Error><Code>{code}</Code></Error>".encode()
    status = b"404 Not Found" if code == "NoSuchBucket" else b"403 Forbidden"

    def refuse(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(
            b"HTTP/1.1 %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, len(body), body)
        )

    with server(refuse) as port:
        for name, value in {
            "AWS_ENDPOINT": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "eu-test-1",
            "AWS_ACCESS_KEY_ID": "key-id",
            "AWS_SECRET_ACCESS_KEY": "hush",
        }.items():
            monkeypatch.setenv(name, value)
        said = check("ARTIFACTS_URL", artifacts_url="s3://reports/scans")
    meant = "no bucket of that name" if code == "NoSuchBucket" else "refuses that user"
    assert meant in said.says


@pytest.mark.full
def test_the_commands_line_by_line(service: Any) -> None:
    """A healthy service: every line ok or a warning, exit status 0; then one that fails."""
    service.start("none but the server")
    said = service.scanherald("config", "check", "--json")
    found = json.loads(said.stdout)
    by_name = {item["check"]: item for item in found["checks"]}
    assert said.returncode == 0, said.stdout
    assert by_name["REDIS_URL"]["result"] == by_name["DATABASE_URL"]["result"] == "ok"
    assert by_name["e-mail"]["result"] == "warning"  # the sender of a sink's mail
    service.environment["REDIS_URL"] = f"redis://:hush@127.0.0.1:{free_port()}/0"
    said = service.scanherald("config", "check")
    assert said.returncode == 1
    assert "REDIS_URL" in said.stdout
    assert "→ mend the port in REDIS_URL, or start the server" in said.stdout
    assert "hush" not in said.stdout + said.stderr

"""A full run with recognisable secrets, good and bad days included: none is written down."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiosmtpd.smtp import AuthResult, LoginPassword
from sqlalchemy import Connection, select

from cli.sinks import HttpSink, MailSink, SinkAnswer, SunkRequest
from store.tables import metadata

REDIS = "hunter2-redis-password"
SMTP = "hunter2-smtp-password"
SIGNING = base64.b64encode(b"hunter2-webhook-signing-secret!!").decode()
DIRECT_SIGNING = base64.b64encode(b"hunter2-direct-signing-secret!!!").decode()
SLACK = "hunter2SlackPathToken"
HOOK = "hunter2-webhook-url-token"
DIRECT_HOOK = "hunter2-direct-url-token"
MAIL = "hunter2.officer@example.org"
REFUSED_MAIL = "hunter2.nobody@example.org"
BUCKET = "hunter2-artifacts-password"
S3 = "hunter2-s3-secret-key"
DATABASE = "hunter2-database-password"
FERNET = base64.urlsafe_b64encode(b"hunter2-encryption-key-32-bytes!").decode()
DATAREF = "hunter2-dataref-password"
DATAREF_TOKEN = "hunter2-dataref-token"
PAYLOAD = "hunter2-payload-marker"

NEVER = {
    REDIS, SMTP, SIGNING, DIRECT_SIGNING, SLACK, HOOK, DIRECT_HOOK, MAIL, REFUSED_MAIL,
    BUCKET, S3, DATABASE, FERNET,
}  # fmt: skip
"""What may stand in nothing that the service writes."""

OF_EVENTS = {DATAREF, DATAREF_TOKEN, PAYLOAD}
"""What publishers put into entries: it stays in the stream and with the event, nowhere else."""


def spellings(secret: str) -> set[bytes]:
    """A secret as it is, and as URLs, JSON and basic authentication spell it."""
    plain = secret.encode()
    # base64 of a longer text holds it in one of three alignments; the edges depend on neighbours
    shifted = {base64.b64encode(b"x" * shift + plain)[4 * (shift > 0) : -4] for shift in range(3)}
    return {plain, quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode(), *shifted}


def found_in(content: bytes, secrets: set[str]) -> set[str]:
    return {name for name in secrets if any(spelt in content for spelt in spellings(name))}


# The other side


def hostile(request: SunkRequest) -> SinkAnswer:
    """An S3 endpoint, good and bad receivers; the bad ones repeat what they were asked."""
    said = f"you asked {request.path} with {dict(request.headers)}".encode()
    if request.path.startswith("/reports/"):
        return SinkAnswer(headers={"etag": '"1"'})
    if request.path.startswith("/good"):
        return SinkAnswer(body=b"ok")
    if request.path.startswith("/bad-slack"):
        return SinkAnswer(404, body=said)
    return SinkAnswer(500, body=said)


class Doorman:
    """A mail server's check of the password: refuses the first login, and repeats it aloud."""

    def __init__(self) -> None:
        self.logins = 0

    def __call__(self, _server: Any, _session: Any, _envelope: Any, _how: str, data: Any) -> Any:
        self.logins += 1
        assert isinstance(data, LoginPassword)
        assert data.password == SMTP.encode()
        if self.logins == 1:
            said = f"535 5.7.8 no {data.login.decode()} with {data.password.decode()}"
            return AuthResult(success=False, handled=False, message=said)
        return AuthResult(success=True)


class PickyMailSink(MailSink):
    """Knows not everyone, and says whom not."""

    async def handle_RCPT(self, server: Any, session: Any, *rest: Any) -> str:
        envelope, address, options = rest
        if address == REFUSED_MAIL:
            return f"550 5.1.1 <{address}> is unknown here"
        return await super().handle_RCPT(server, session, envelope, address, options)


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    with HttpSink(answer=hostile) as running:
        yield running


@pytest.fixture
def mails() -> Iterator[MailSink]:
    with PickyMailSink(authenticator=Doorman(), auth_require_tls=False) as running:
        yield running


# What was written


def commands_of(log: bytes) -> Iterator[list[bytes]]:
    """The commands of an append-only file."""
    at = 0

    def line() -> bytes:
        nonlocal at
        end = log.index(b"\r\n", at)
        found, at = log[at:end], end + 2
        return found

    while at < len(log):
        command = []
        for _ in range(int(line()[1:])):
            size = int(line()[1:])
            command.append(log[at : at + size])
            at += size + 2
        yield command


def redis_commands(folder: Path) -> list[bytes]:
    """Everything that was written to Redis but the entries that the test published."""
    files = sorted((folder / "valkey" / "appendonlydir").glob("*.incr.aof"))
    commands = [command for path in files for command in commands_of(path.read_bytes())]
    assert any(command[0].upper() == b"XADD" for command in commands)
    return [b" ".join(command) for command in commands if command[0].upper() != b"XADD"]


def dump(connection: Connection) -> list[tuple[str, bytes]]:
    """Every value in the ledger as text, packed ones unpacked, with its column."""
    return [
        (f"{table.name}.{column.name}", unpacked(value))
        for table in metadata.sorted_tables
        for row in connection.execute(select(table))
        for column, value in zip(table.c, row, strict=True)
        if value is not None
    ]


def unpacked(value: Any) -> bytes:
    if not isinstance(value, bytes):
        return str(value).encode()
    try:
        return zlib.decompress(value)
    except zlib.error:  # encrypted
        return value


def written_files(folder: Path) -> dict[str, bytes]:
    """Every file of the run but Redis's own."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "appendonlydir" not in path.parts
    }


# The run


def with_secrets(service: Any, sink: HttpSink, mails: MailSink) -> dict[str, str]:
    return {
        "REDIS_URL": f"redis://:{REDIS}@127.0.0.1:{service.port}/0",
        "ARTIFACTS_URL": f"s3://mailer:{BUCKET}@reports/prefix",
        "AWS_ENDPOINT": sink.url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "eu-test-1",
        "AWS_ACCESS_KEY_ID": "key-id",
        "AWS_SECRET_ACCESS_KEY": S3,
        "SCANHERALD_ENCRYPTION_KEYS": FERNET,
        "SCANHERALD_SMTP_PORT": str(mails.port),
        "SCANHERALD_SMTP_USERNAME": "mailer",
        "SCANHERALD_SMTP_PASSWORD": SMTP,
        "SCANHERALD_HTTP_ALLOW": f"127.0.0.1:{sink.port}",
        "SCANHERALD_TASK_MAX_RETRIES": "1",
        "SCANHERALD_RETRY_MAX_S": "0.2",
        "SCANHERALD_DELIVERY_SCHEDULE_S": "0.1",
        "SCANHERALD_LOG_LEVEL": "DEBUG",
    }


def scan(**fields: Any) -> bytes:
    known = {"scan_id": str(uuid.uuid4()), "domain": "a.example", "page_count": 1}
    return json.dumps({**known, **fields}).encode()


def dead_events(sink: HttpSink) -> list[dict[str, Any]]:
    """Each breaks the contract, or leads nowhere, close to something that is not to be told."""
    datarefs = [
        f"http://user:{DATAREF}@127.0.0.1:{sink.port}/data?token={DATAREF_TOKEN}",
        f"{sink.url}/data/{DATAREF_TOKEN}?token={DATAREF_TOKEN}",
        f"https://user:{DATAREF}@h\u2100st/{DATAREF_TOKEN}",
        f"https://user:{DATAREF}@[::1/{DATAREF_TOKEN}",
        f"https://user:{DATAREF}@a.example:port/{DATAREF_TOKEN}",
        f"s3://user:{DATAREF}@bucket/key?token={DATAREF_TOKEN}",
        f"ftp://user:{DATAREF}@a.example/{DATAREF_TOKEN}",
        f"file:///{DATAREF_TOKEN}",
    ]
    contents = [
        scan(cookies=PAYLOAD),
        scan(domain=[PAYLOAD]),
        scan(scan_id=PAYLOAD),
        b"{" + PAYLOAD.encode(),
        json.dumps({"domain": PAYLOAD}).encode(),
    ]
    return [{"dataref": place} for place in datarefs] + [{"data": content} for content in contents]


SEND_DIRECTLY = """
import sys
from tasks import send_notification_async
hook, secret = sys.argv[1:]
print(send_notification_async.delay(
    {"event": "scan.failed", "data": {"error": "x"}, "channel": "webhook"},
    {"webhook_url": hook, "webhook_secret": secret},
).get(timeout=60))
"""

UNUSABLE = [
    (["runs"], "DATABASE_URL", f"postgresql://u:{DATABASE}@127.0.0.1:1/x", 75),
    (["runs"], "DATABASE_URL", f"postgresql://u@127.0.0.1:1/x?password={DATABASE}", 75),
    (["runs"], "DATABASE_URL", f"postgresql://u:a@{DATABASE}@127.0.0.1:1/x", 1),
    (["runs"], "DATABASE_URL", f"mysql://u:{DATABASE}@127.0.0.1/x", 1),
    (["runs"], "DATABASE_URL", DATABASE, 1),
    (["publish", __file__], "REDIS_URL", f"redis://:{DATABASE}@127.0.0.1:1/0", 75),
    (["publish", __file__], "REDIS_URL", f"redis://127.0.0.1:1/0?password={DATABASE}", 75),
    (["publish", __file__], "REDIS_URL", f"redis://:{DATABASE}#@127.0.0.1:1/0", 1),
    (["publish", __file__], "REDIS_URL", DATABASE, 1),
    (["listen"], "CELERY_BROKER_URL", f"amqp://u:{DATABASE}/@127.0.0.1//", 1),
    (["subscribers", "list"], "SCANHERALD_ENCRYPTION_KEYS", DATABASE, 1),
]
"""Commands, a setting with a slip in it, and the exit status that it earns."""


class Operator:
    """Runs commands and keeps all that they said."""

    def __init__(self, service: Any) -> None:
        self._service = service
        self.heard = b""

    def run(self, *arguments: str, status: int = 0) -> None:
        answer = self._service.scanherald(*arguments)
        assert answer.returncode == status, answer.stdout + answer.stderr
        self.hear(answer)

    def hear(self, answer: subprocess.CompletedProcess[str]) -> None:
        self.heard += (answer.stdout + answer.stderr).encode()


@pytest.mark.full  # three quarters of a minute
@pytest.mark.timeout(240)
def test_no_secret_is_written_down_on_a_good_day_or_a_bad_one(
    service: Any, sink: HttpSink, mails: MailSink, tmp_path: Path
) -> None:
    service.valkey_options = ["--requirepass", REDIS]
    service.environment |= with_secrets(service, sink, mails)
    operator = Operator(service)
    add = ("subscribers", "add")
    good = ("--email", MAIL, "--webhook", f"{sink.url}/good?token={HOOK}")
    signed = ("--webhook-secret", f"whsec_{SIGNING}", "--slack", f"{sink.url}/good/{SLACK}")
    operator.run(*add, "good", *good, *signed)
    bad = ("--email", REFUSED_MAIL, "--webhook", f"{sink.url}/bad/{HOOK}")
    operator.run(*add, "bad", *bad, "--slack", f"{sink.url}/bad-slack/{SLACK}")
    operator.run(*add, "ugly", "--webhook", f"https://user:{HOOK}@a.example/", status=1)

    service.start()
    dead = dead_events(sink)
    service.publish({"data": scan(error=PAYLOAD, cookies=[{"name": PAYLOAD}])}, *dead)
    service.wait(lambda: len(service.dead_letters()) == len(dead) and service.settled(1))
    send_directly(service, operator, f"{sink.url}/bad/{DIRECT_HOOK}", f"whsec_{DIRECT_SIGNING}")
    lock_out_for_a_while(service)
    service.publish({"data": scan(error=PAYLOAD)})
    service.wait(lambda: count_done(service) == 2 and service.settled(2))

    for listing in ("runs", "reports", "deliveries", "dead-letters"):
        operator.run(listing, "--json")
    operator.run("subscribers", "list")
    operator.run("audit", "--no-artifacts")  # the bucket takes everything and gives nothing
    proper = dict(service.environment)
    for command, name, url, status in UNUSABLE:
        service.environment = {**proper, name: url}
        operator.run(*command, status=status)
    service.environment = proper

    ended = {(row["channel"], row["state"]) for row in service.deliveries()}
    channels = ("email", "webhook", "slack")
    assert ended == {(channel, state) for channel in channels for state in ("sent", "failed")}
    check_what_was_written(service, tmp_path)
    assert found_in(operator.heard, NEVER | OF_EVENTS) == set()


def send_directly(service: Any, operator: Operator, *arguments: str) -> None:
    """As the platform does: address and signing secret travel in its own task message."""
    answer = subprocess.run(
        [sys.executable, "-c", SEND_DIRECTLY, *arguments],
        env={**os.environ, **service.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    operator.hear(answer)
    service.wait(lambda: all(row["settled_at"] for row in service.deliveries()))


def lock_out_for_a_while(service: Any) -> None:
    """The server takes another password than ours, until the parts have met that.

    Seldom a worker says nothing of it within a minute; it has to work again afterwards, which
    the caller asks, but is not waited for: what it might write down is the same.
    """
    with closing(service.redis()) as client:
        client.config_set("requirepass", "changed")
        client.client_kill_filter(skipme=True)
        logs = {part: service.folder / "logs" / f"{part}.log" for part in PARTS}
        give_up = time.monotonic() + 20
        service.wait(
            lambda: (
                met_another_password(logs["listener"], logs["beat"])
                and (met_another_password(logs["worker"]) or time.monotonic() > give_up)
            )
        )
        client.config_set("requirepass", REDIS)


PARTS = ("listener", "worker", "beat")


def met_another_password(*logs: Path) -> bool:
    return all("invalid username-password" in log.read_text() for log in logs)


def count_done(service: Any) -> int:
    return sum(run["state"] == "done" for run in service.runs())


def check_what_was_written(service: Any, folder: Path) -> None:
    for name, content in written_files(folder).items():
        events_too = name.startswith("data/ledger.")
        assert found_in(content, NEVER if events_too else NEVER | OF_EVENTS) == set(), name
    for column, line in service.rows(dump):
        # a notification tells those concerned what the event says: cookie names, errors
        told = column in {"events.payload", "events.dataref", "notifications.content"}
        assert found_in(line, NEVER if told else NEVER | OF_EVENTS) == set(), line
    for command in redis_commands(folder):
        by_the_platform = {DIRECT_SIGNING, DIRECT_HOOK} if b"notifications" in command else set()
        assert found_in(command, (NEVER | OF_EVENTS) - by_the_platform) == set(), command[:500]

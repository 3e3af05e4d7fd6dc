"""The sinks that the demo and these tests share keep what comes in, and close cleanly."""

from __future__ import annotations

import http.client
import json
import smtplib
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from pathlib import Path

import pytest

from cli.sinks import HttpSink, MailSink, SinkAnswer


def post(
    sink: HttpSink, path: str, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=20)
    try:
        connection.request("POST", path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def mail(subject: str) -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "a@b.example", "c@d.example", subject
    made.set_content("text")
    return made


def test_requests_are_kept_in_order_and_written_to_the_folder(tmp_path: Path) -> None:
    with HttpSink(tmp_path / "posts") as sink:
        assert post(sink, "/hooks/a", b'{"n": 1}', {"webhook-id": "dlv-1"}) == (200, b"")
        assert post(sink, "/slack/../b", b'{"n": 2}') == (200, b"ok")

        assert [(each.method, each.path, each.body) for each in sink.requests] == [
            ("POST", "/hooks/a", b'{"n": 1}'),
            ("POST", "/slack/../b", b'{"n": 2}'),
        ]
        assert sink.requests[0].headers["webhook-id"] == "dlv-1"

    written = sorted((tmp_path / "posts").iterdir())
    assert [path.name for path in written] == ["hooks_a-dlv-1.json", "slack_.._b-0002.json"]
    assert [json.loads(path.read_bytes())["n"] for path in written] == [1, 2]


def test_scripted_answers_come_before_the_usual_one() -> None:
    with HttpSink(answer=lambda request: SinkAnswer(body=request.body.upper())) as sink:
        sink.script(SinkAnswer(503, {"retry-after": "7"}, b"busy"))

        assert post(sink, "/", b"x") == (503, b"busy")
        assert post(sink, "/", b"x") == (200, b"X")


def test_the_http_sink_closes_under_an_idle_and_a_waiting_client() -> None:
    idle: http.client.HTTPConnection
    with ThreadPoolExecutor(1) as threads:
        with HttpSink() as sink:
            idle = http.client.HTTPConnection("127.0.0.1", sink.port, timeout=20)
            idle.request("GET", "/")
            assert idle.getresponse().status == 200
            sink.script(SinkAnswer(delay_s=600))
            waiting = threads.submit(post, sink, "/", b"")
            while len(sink.requests) < 2:
                assert not waiting.done()
        assert isinstance(waiting.exception(), ConnectionError | http.client.HTTPException) or (
            waiting.result() == (200, b"")
        )
    idle.close()


def test_mails_are_kept_in_order_and_written_to_the_folder(tmp_path: Path) -> None:
    with MailSink(tmp_path / "mails") as sink:
        for subject in ("one", "two"):
            with smtplib.SMTP("127.0.0.1", sink.port, timeout=20) as client:
                client.send_message(mail(subject))

        assert [each.parsed["Subject"] for each in sink.messages] == ["one", "two"]
        assert sink.messages[0].sender == "a@b.example"
        assert sink.messages[0].recipients == ("c@d.example",)

    written = sorted((tmp_path / "mails").iterdir())
    assert [path.name for path in written] == ["0001.eml", "0002.eml"]
    assert b"Subject: two" in written[1].read_bytes()


def test_the_mail_sink_closes_under_an_idle_client() -> None:
    with MailSink() as sink:
        client = smtplib.SMTP("127.0.0.1", sink.port, timeout=20)
        assert client.noop()[0] == 250
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.noop()
    client.close()


def test_many_clients_at_once_are_all_kept() -> None:
    def send(number: int) -> None:
        with smtplib.SMTP("127.0.0.1", mails.port, timeout=20) as client:
            client.send_message(mail(str(number)))
        post(posts, f"/{number}", b"")

    with MailSink() as mails, HttpSink() as posts, ThreadPoolExecutor(8) as threads:
        list(threads.map(send, range(24)))

        assert {each.parsed["Subject"] for each in mails.messages} == set(map(str, range(24)))
        assert {each.path for each in posts.requests} == {f"/{number}" for number in range(24)}

"""Operators word their own messages, in a sandbox that costs no message."""

from __future__ import annotations

import re
import resource
from contextlib import closing
from datetime import UTC, datetime
from email import message_from_bytes, policy

import msgspec
import pytest
from structlog.testing import capture_logs

from channels.apprise import apprise_text
from channels.mail_message import compose
from channels.operator_templates import OperatorTemplates, check_templates, load_templates
from channels.registry import CHANNELS
from channels.slack import slack_payload
from channels.template_sandbox import MAX_CHARS
from cli import processes
from cli.sinks import HttpSink, MailSink
from cli.trial import send_samples
from languages.language import load_language
from schemas.errors import InvalidSettings
from schemas.events import EventType
from schemas.notifications import (
    ChannelAddress,
    ChannelKind,
    FindingSummary,
    Message,
    Notification,
    Subscriber,
)
from schemas.reports import Severity
from schemas.scans import CUT_MARK
from schemas.settings import Settings

NOW = datetime(2026, 3, 4, tzinfo=UTC)


def message(kind: ChannelKind, title: str = "A title") -> Message:
    return Message(
        message_id="dlv-1",
        notification=Notification(
            event_key="k",
            type=EventType.SCAN_COMPLETED,
            occurred_at=NOW,
            domain="example.org",
            scan_id="s-1",
            severity=Severity.HIGH,
            title=title,
            summary="A summary",
        ),
        address=ChannelAddress(kind=kind, target="dpo@example.org"),
    )


def templates(folder, **files: str) -> OperatorTemplates:
    for name, source in files.items():
        (folder / f"{name.replace('__', '.').replace('_', '.')}.j2").write_text(source, "utf-8")
    return load_templates(folder)


def mail(made: OperatorTemplates, title: str = "A title"):
    envelope = compose(
        message(ChannelKind.EMAIL, title), mail_from="a@example.org", unsubscribe_url=None,
        now=NOW, templates=made,
    )  # fmt: skip
    return message_from_bytes(envelope.content, policy=policy.default)


def test_the_most_specific_template_words_a_part_and_ours_the_rest(tmp_path):
    made = templates(
        tmp_path,
        all_email_subject="all {{ notification.domain }}",
        scan_completed_email_subject="finished {{ notification.domain }}",
        scan_started_email_txt="another event",
    )
    received = mail(made)
    assert received["Subject"] == "finished example.org"
    assert "A summary" in received.get_body(("plain",)).get_content()


def test_a_page_of_the_operators_escapes_what_it_prints(tmp_path):
    made = templates(tmp_path, all_email_html="<p>{{ notification.title }}</p>")
    page = mail(made, "<script>x</script>").get_body(("html",)).get_content()
    assert page.strip() == "<p>&lt;script&gt;x&lt;/script&gt;</p>"


def test_a_subject_stays_one_line(tmp_path):
    made = templates(tmp_path, all_email_subject="a\nBcc: evil@example.org\n\nb")
    received = mail(made)
    assert received["Bcc"] is None
    assert received["Subject"] == "a Bcc: evil@example.org b"


def test_slack_text_of_the_operators_pages_nobody(tmp_path):
    made = templates(tmp_path, all_slack_title="<!channel> {{ notification.domain }}")
    payload = msgspec.json.encode(slack_payload(message(ChannelKind.SLACK), made)).decode()
    assert "<!channel>" not in payload
    assert "&lt;!channel&gt; example.org" in payload


@pytest.mark.parametrize(
    "source",
    [
        "{{ notification.nothing }}",
        "{{ 1 / 0 }}",
        "{{ ''['__class__'] }}",
        "{{ notification.title() }}",
        "{{ t.say('no.such.key') }}",
        "{{ notification }}",
    ],
)
def test_a_template_that_fails_costs_its_wording_and_is_told_once(tmp_path, source):
    made = templates(tmp_path, all_email_txt=f"\n\n{source}")
    with capture_logs() as logs:
        received = [mail(made), mail(made)]
    assert all("A summary" in one.get_body(("plain",)).get_content() for one in received)
    assert [entry["event"] for entry in logs] == ["template_failed"]
    assert (logs[0]["template"], logs[0]["line"]) == ("all.email.txt.j2", 3)


def test_the_log_of_a_failure_quotes_nothing_that_a_website_wrote(tmp_path):
    made = templates(
        tmp_path,
        all_email_txt="{{ notification.values[notification.title] }}",
        all_email_subject="{{ 1 // notification.title }}",
    )
    with capture_logs() as logs:
        mail(made, "hostile\x1b[2J")
    assert len(logs) == 2
    assert "hostile" not in repr(logs)


LARGE = "{% set s = 'a b' %}" + "{% set s = s ~ s %}" * 16
OFTEN = "{% for i in range(1000) %}{% for j in range(40) %}{% if DONE %}{% endif %}"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "done",
    [
        "s.split(' ')",
        "s.upper()",
        "s.title()",
        "s.splitlines()",
        "s.count('a')",
        "s.find('zz')",
        "'xx'.find(s)",
        "s + 'x'",
        "s ~ 'x'",
        "'bab' in s",
        "'bab' not in s",
        "s[::2]",
    ],
)
def test_what_is_done_to_a_long_text_counts_by_its_length(tmp_path, done):
    """Each would be a minute of a worker's time, or some seconds, where it cost one step."""
    source = LARGE + OFTEN.replace("DONE", done) + "{% endfor %}{% endfor %}"
    with capture_logs() as logs:
        received = mail(templates(tmp_path, all_email_txt=source), "x")
    assert "A summary" in received.get_body(("plain",)).get_content()
    assert "rounds of loops and calls" in logs[0]["error"]


def test_a_loop_over_short_texts_has_the_steps_it_had(tmp_path):
    often = OFTEN.replace("range(40)", "range(20)").replace("DONE", "notification.title.upper()")
    text = mail(templates(tmp_path, all_email_txt=f"{often}{'{% endfor %}' * 2}whole"), "x" * 90)
    assert text.get_body(("plain",)).get_content().strip() == "whole"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "source",
    [
        "{% set a = 'xxxxxxxx' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
        "{% set a = 'xxxxxxxx' %}" + "{% set a = a + a %}" * 40 + "{{ a }}",
        "{% set a = 'xxxxxxxx' %}" + "{% set a = a|join(a) %}" * 9 + "{{ a }}",
        "{% set a = 999 %}" + "{% set a = a * a %}" * 40 + "{{ a }}",
        "{{ 'x' * 999999999 }}",
        "{{ '%999999999d' % 3 }}",
        "{{ '{:>999999999}'.format(3) }}",
        "{{ 'x'.center(999999999) }}",
        "{{ t.decimal(1, 999999999) }}",
        "{{ notification.values.a.to_bytes(999999999, 'big') }}",
        "{% for a in range(999999999) %}{% endfor %}",
        "{% for a in notification.title %}" * 5 + "{% endfor %}" * 5,
        "{% for a in notification.title if a == 'y' %}{% endfor %}" * 600,
    ],
)
def test_a_template_takes_neither_the_memory_nor_the_time_of_a_worker(tmp_path, source):
    made = templates(tmp_path, all_email_txt=source)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with capture_logs() as logs:
        received = mail(made, "x" * 500)
    assert "A summary" in received.get_body(("plain",)).get_content()
    assert [entry["event"] for entry in logs] == ["template_failed"]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


LONG = (
    "{% for a in notification.title %}{% for b in notification.title %}"
    "0123456789{% endfor %}{% endfor %}"
)


def test_a_text_that_is_too_long_is_cut_with_a_mark(tmp_path):
    text = mail(templates(tmp_path, all_email_txt=LONG), "x" * 500).get_body(("plain",))
    said = text.get_content().strip()
    assert len(said) == MAX_CHARS
    assert said.endswith(CUT_MARK)


def test_half_a_page_is_no_page(tmp_path):
    made = templates(tmp_path, all_email_html=LONG)
    with capture_logs() as logs:
        page = mail(made, "x" * 500).get_body(("html",)).get_content()
    assert "A summary" in page
    assert "a page of more than" in logs[0]["error"]


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("all_email_html", "{{ notification.title | safe }}", "always escaped; filter 'safe'"),
        ("all_email_html", "{{ notification.title | forceescape }}", "always escaped"),
        ("all_email_txt", "{{ notification.title | tojson }}", "filter 'tojson' is refused"),
        ("all_email_html", "{% autoescape false %}x{% endautoescape %}", "autoescape is refused"),
        ("all_email_txt", "a\n{% if %}", "line 2"),
        ("all_email_txt", "\n\n{{ ''.__class__ }}", "line 3: '__class__' is private"),
        ("all_email_txt", "{% include 'x' %}", "include is refused"),
        ("all_email_txt", "{% import 'x' as x %}", "import is refused"),
        ("all_email_txt", "{% extends 'x' %}", "extends is refused"),
        ("all_email_txt", "{% macro m() %}{% endmacro %}", "macro is refused"),
        ("all_email_txt", "{% set a %}x{% endset %}", "assignblock is refused"),
        ("all_email_txt", "{{ 2 ** 999999999 }}", "pow is refused"),
        ("all_email_txt", "{% set a = [a, a] %}", "nothing but texts and numbers"),
        ("all_email_txt", "{{ " + "(" * 5000 + ")" * 5000 + " }}", "nested too deeply"),
        ("all_email_txt", "x" * 70_000, "more than 65,536 characters"),
        ("all_pigeon_txt", "x", "no message has such a part"),
        ("all_webhook_text", "x", "no message has such a part"),
        ("all_email_title", "x", "no message has such a part"),
        ("scan_done_email_txt", "x", "there is no 'scan.done'; known are all, anomaly.detected"),
        ("email_txt", "x", "there is no ''"),
    ],
)
def test_a_template_that_cannot_be_taken_is_refused_by_file_and_line(tmp_path, name, source, said):
    with capture_logs() as logs:
        made = templates(tmp_path, **{name: source})
    with pytest.raises(InvalidSettings, match=re.escape(said)) as caught:
        check_templates(tmp_path)
    assert ".j2" in str(caught.value)
    # Whoever sends goes on without it.
    assert [entry["event"] for entry in logs] == ["template_refused"]
    assert said in logs[0]["reason"]
    assert "A summary" in mail(made).get_body(("plain",)).get_content()


def test_every_template_that_cannot_be_taken_is_named_at_once(tmp_path):
    (tmp_path / "all.email.txt.j2").write_text("{% if %}")
    (tmp_path / "all.slack.text.j2").write_bytes(b"\xff")
    with pytest.raises(InvalidSettings) as caught:
        check_templates(tmp_path)
    assert "all.email.txt.j2, line 1" in str(caught.value)
    assert "all.slack.text.j2" in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InvalidSettings, match=r"SCANHERALD_TEMPLATES_DIR: .+ is no folder"):
        check_templates(tmp_path / "missing")
    check_templates(None)


def test_a_variant_goes_before_its_event_type(tmp_path):
    made = templates(
        tmp_path,
        scan_completed_slack_title="finished",
        scan_completed_held_slack_title="held",
    )
    told = {
        variant: made.reword(
            ChannelKind.SLACK,
            msgspec.structs.replace(message(ChannelKind.SLACK).notification, variant=variant),
            "dlv-1",
            load_language("en"),
        ).title
        for variant in ("scan.completed", "scan.completed.held", "")
    }
    assert told == {"scan.completed": "finished", "scan.completed.held": "held", "": "finished"}


def test_a_template_that_says_nothing_leaves_the_words_to_us(tmp_path):
    made = templates(
        tmp_path,
        all_email_subject="\u200b\n",
        all_email_txt="{% if notification.domain == 'other.example' %}x{% endif %}\n",
    )
    received = mail(made)
    assert received["Subject"] == "A title · example.org"
    assert "A summary" in received.get_body(("plain",)).get_content()


def test_a_template_has_the_readers_language_and_our_filters(tmp_path):
    made = templates(
        tmp_path,
        all_email_txt="{{ t.code }} {{ t['severity.' ~ notification.severity.value] }} "
        "{{ t.number(1234567) }} {{ 1234567 | size }} {{ t.day(notification.occurred_at) }} "
        "{{ findings | sort(attribute='severity.rank', reverse=true) | map(attribute='title') "
        "| join(', ') }}{% for f in findings %}{{ loop.index }}{% endfor %} {{ sent }} "
        "{{ notification.values.cookies }}{{ notification.scan_id or 'none' }}",
    )
    findings = tuple(
        FindingSummary(rule_id="r", severity=severity, title=severity.upper(), count=1)
        for severity in (Severity.LOW, Severity.HIGH)
    )
    told = msgspec.structs.replace(
        message(ChannelKind.EMAIL).notification, findings=findings, values={"cookies": 3}
    )
    sent = msgspec.structs.replace(message(ChannelKind.EMAIL), notification=told, language="de")
    envelope = compose(
        sent, mail_from="a@example.org", unsubscribe_url=None, now=NOW, templates=made
    )
    text = message_from_bytes(envelope.content, policy=policy.default).get_body(("plain",))
    assert text.get_content().strip() == (
        "de Hoch 1.234.567 1,2 MB 4. März 2026 HIGH, LOW12 "
        "Gesendet von scanherald zum Scan s-1, Nachricht dlv-1 3s-1"
    )


@pytest.mark.parametrize(
    "source",
    [
        "{{ notification.title }}",
        "{{ notification.title | e }}",
        "{{ notification.title ~ '' }}",
        "{{ notification.title + '' }}",
        "{{ (notification.title | e) ~ notification.title }}",
        "{{ ['a', 'b'] | join(notification.title) }}{{ notification.title.split() | join }}",
        "{{ notification.title | e | reverse | reverse }}",
        "{{ (notification.title | e)[0:] }}",
        "{{ t.say('labelled', label=notification.title, value=notification.title) }}",
        "{{ t.translate(notification.title) }}",
        "{{ notification.title | default('x') | upper | lower | trim | title }}",
        "{{ notification.title | truncate(20) }}",
        "{% for part in notification.title.split() %}{{ part }}{% endfor %}",
        '<a title="{{ notification.title }}">',
    ],
)
def test_no_way_of_printing_in_a_page_lets_markup_or_what_nobody_sees_through(tmp_path, source):
    made = templates(tmp_path, all_email_html=f"<p>{source}</p>", all_email_txt=source)
    hostile = "\"'&<script>\x00\x1b[2J\u202e\ud800 &lt;img> </p>"
    with capture_logs() as logs:
        received = mail(made, hostile)
    assert logs == []
    page = received.get_body(("html",)).get_content()
    assert page.count("<") - page.count("<a title=") == 2
    assert page.count('"') == 2 * page.count("<a title=")
    assert not set("\x00\x1b\u202e") & set(page + received.get_body(("plain",)).get_content())


def test_apprise_is_worded_too_and_stays_tame(tmp_path):
    made = templates(tmp_path, all_apprise_text="<@everyone> {{ notification.title }}")
    title, body = apprise_text(message(ChannelKind.APPRISE, "@here"), templates=made)
    assert title == "@\u200bhere"
    assert body.startswith("<\u200b@\u200beveryone> @\u200bhere")
    assert "A summary" not in body


def test_the_operators_slack_texts_keep_to_the_limits_of_block_kit(tmp_path):
    made = templates(tmp_path, all_slack_title="{{ 'x' }}" * 400, all_slack_text="&" * 5000)
    blocks = slack_payload(message(ChannelKind.SLACK), made)["blocks"]
    assert len(blocks[0]["text"]["text"]) <= 150
    assert len(blocks[1]["text"]["text"]) <= 3000


def test_no_worker_starts_and_no_sample_is_sent_with_a_template_that_cannot_be_used(
    tmp_path, make_parts, monkeypatch
):
    (tmp_path / "all.email.txt.j2").write_text("fine\n{% nonsense %}")
    parts = make_parts(templates_dir=tmp_path)
    monkeypatch.setattr("tasks.logs.configure_logs", lambda _: None)
    monkeypatch.setattr("tasks.wiring.use", lambda _: None)
    anna = Subscriber(
        subscriber_id="anna",
        channels=(ChannelAddress(kind=ChannelKind.EMAIL, target="a@b.example"),),
    )
    for start in (
        lambda: processes.run_worker(parts.settings, processes.WorkerOptions()),
        lambda: send_samples(parts, anna, None, as_json=False),
    ):
        with pytest.raises(InvalidSettings, match=r"all\.email\.txt\.j2, line 2"):
            start()
    assert parts.channel(ChannelKind.EMAIL).sent == []


@pytest.mark.parametrize("kind", [ChannelKind.EMAIL, ChannelKind.SLACK, ChannelKind.APPRISE])
def test_a_channel_words_its_messages_from_the_folder_of_the_settings(tmp_path, kind):
    (tmp_path / "all.email.subject.j2").write_text("Worded {{ notification.domain }}")
    (tmp_path / "all.slack.title.j2").write_text("Worded {{ notification.domain }}")
    (tmp_path / "all.apprise.title.j2").write_text("Worded {{ notification.domain }}")
    with MailSink() as mail, HttpSink() as http:
        settings = Settings(
            templates_dir=tmp_path, http_allow=(f"127.0.0.1:{http.port}",), smtp_host="127.0.0.1",
            smtp_port=mail.port, smtp_security="none", mail_from="a@example.org",
        )  # fmt: skip
        target = {
            ChannelKind.EMAIL: "dpo@example.org",
            ChannelKind.SLACK: http.url,
            ChannelKind.APPRISE: http.url.replace("http:", "json:"),
        }[kind]
        sent = msgspec.structs.replace(
            message(kind), address=ChannelAddress(kind=kind, target=target)
        )
        with closing(CHANNELS[kind](settings, lambda: NOW)) as channel:
            channel.send(sent)
        arrived = [each.content for each in mail.messages] + [each.body for each in http.requests]
    assert b"Worded example.org" in arrived[0]

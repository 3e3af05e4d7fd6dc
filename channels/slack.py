"""Slack: a notification as Block Kit, posted to an incoming webhook.

Whatever a website put into a message goes into ``plain_text`` objects, where
Slack reads no markup, and is escaped besides, so that it can neither page a
channel nor pose as a link.  The one piece of markup is ours: links to artifacts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx
import msgspec
from slack_sdk.models.blocks import (
    Block,
    ContextBlock,
    HeaderBlock,
    MarkdownTextObject,
    PlainTextObject,
    SectionBlock,
)

from channels.guarded_http import GuardedHttp
from channels.operator_templates import NO_TEMPLATES, OperatorTemplates, load_templates
from channels.protocol import Clock
from channels.readable import cut_chars, one_line, paragraphs
from channels.spoken import language_of, speak
from languages.language import Language
from schemas.notifications import (
    ChannelKind,
    FindingSummary,
    Message,
    Notification,
    Receipt,
)
from schemas.reports import Severity
from schemas.scans import CUT_MARK
from schemas.settings import Settings

MAX_HEADER_CHARS = 150
MAX_TEXT_CHARS = 3000
MAX_FIELD_CHARS = 2000
MAX_FIELDS = 10
MAX_FINDINGS = 20
"""More findings than this are counted: the report is a link away."""


class SlackChannel:
    """Posts to incoming webhooks; the URL is the only credential and is never shown."""

    def __init__(self, settings: Settings, clock: Clock, http: GuardedHttp | None = None) -> None:
        self._templates = load_templates(settings.templates_dir)
        self._http = http or GuardedHttp(
            allow=settings.http_allow, timeout_s=settings.http_timeout_s, clock=clock
        )

    def send(self, message: Message) -> Receipt:
        """Post once.  See ``Channel.send``.

        Slack knows no idempotency key: an answer lost on the way shows the
        message twice, with the same id in its last line.
        """
        body = msgspec.json.encode(slack_payload(message, self._templates))
        answer = self._http.post(
            message.address.target, body, {"content-type": "application/json; charset=utf-8"}
        )
        text = answer.text_excerpt
        if text != "ok":
            # Accepted all the same: sending it again could show it twice.
            text = one_line(f"accepted, but the answer was not Slack's ok: {text}", 500)
        return Receipt(status_code=answer.status_code, text=text)

    def close(self) -> None:
        """Close all connections.  Safe to repeat."""
        self._http.close()


def slack_payload(message: Message, templates: OperatorTemplates = NO_TEMPLATES) -> dict[str, Any]:
    """The JSON of an incoming webhook, within every limit of Block Kit."""
    t = language_of(message.language)
    spoken = speak(message.notification, t)
    notification = templates.reword(ChannelKind.SLACK, spoken, message.message_id, t)
    return {
        "text": _escaped(one_line(_headline(notification), 300), MAX_TEXT_CHARS),
        "blocks": [block.to_dict() for block in _blocks(notification, message.message_id, t)],
        # The fallback text is read as plainly as the blocks.
        "mrkdwn": False,
        "link_names": False,
        "unfurl_links": False,
        "unfurl_media": False,
    }


def _headline(notification: Notification) -> str:
    return f"{notification.title}: {notification.summary}"


def _blocks(notification: Notification, message_id: str, t: Language) -> Iterable[Block]:
    title = one_line(notification.title, MAX_HEADER_CHARS) or notification.type.value
    yield HeaderBlock(text=_plain(title, MAX_HEADER_CHARS))
    if summary := paragraphs(notification.summary, MAX_TEXT_CHARS):
        yield SectionBlock(text=_plain(summary, MAX_TEXT_CHARS))
    if fields := [
        _plain(
            f"{one_line(fact.label, 200)}\n{one_line(fact.value, MAX_FIELD_CHARS)}", MAX_FIELD_CHARS
        )
        for fact in notification.facts[:MAX_FIELDS]
    ]:
        yield SectionBlock(fields=fields)
    if notification.findings:
        yield SectionBlock(text=_plain(_findings(notification.findings, t), MAX_TEXT_CHARS))
    if notification.lines:
        yield SectionBlock(text=_plain(_lines(notification, t), MAX_TEXT_CHARS))
        if reports := [
            (str(number), line.link)
            for number, line in enumerate(notification.lines, 1)
            if line.link
        ]:
            yield SectionBlock(text=_links(reports))
    if notification.missing_formats:
        missing = ", ".join(
            one_line(name.upper(), 20) for name in notification.missing_formats[:10]
        )
        said = t.say("mail.not_rendered", formats=missing)
        yield SectionBlock(text=_plain(f"⚠ {said}", MAX_TEXT_CHARS))
    if notification.artifacts:
        yield SectionBlock(
            text=_links((item.format.upper(), item.uri) for item in notification.artifacts)
        )
    yield ContextBlock(
        elements=[_plain(_small_print(notification, message_id, t), MAX_FIELD_CHARS)]
    )


def _findings(findings: tuple[FindingSummary, ...], t: Language) -> str:
    lines = [
        f"• {_severity(finding.severity, t)}  {one_line(finding.title, 200)} "
        f"({t.number(finding.count)})"
        for finding in findings[:MAX_FINDINGS]
    ]
    if len(findings) > MAX_FINDINGS:
        lines.append(f"… {t.say('mail.more', count=len(findings) - MAX_FINDINGS)}")
    return "\n".join(lines)


def _lines(notification: Notification, t: Language) -> str:
    """What a digest tells of, numbered as far as they fit, and how many there are more."""
    text, shown = "", 0
    for number, line in enumerate(notification.lines, 1):
        about = t.moment(line.occurred_at), line.domain, line.title
        said = " · ".join(one_line(part, 200) for part in about if part)
        piece = f"{number}. {_severity(line.severity, t)}  {said}\n"
        if len(_escaped(text + piece, MAX_TEXT_CHARS * 2)) > MAX_TEXT_CHARS - 40:
            break
        text, shown = text + piece, number
    more = len(notification.lines) - shown + int(notification.values.get("more", 0))
    return text + (f"… {t.say('mail.more', count=more)}" if more else "")


def _severity(severity: Severity, t: Language) -> str:
    return t[f"severity.{severity}"].upper()


def _small_print(notification: Notification, message_id: str, t: Language) -> str:
    parts = (
        notification.domain,
        t[f"severity.{notification.severity}"],
        t.say("mail.scan", scan=notification.scan_id) if notification.scan_id else None,
        t.say("mail.message", message=message_id),
    )
    return " · ".join(one_line(part, 300) for part in parts if part)


def _links(named: Iterable[tuple[str, str]]) -> MarkdownTextObject:
    """Links joined as far as they fit; an artifact that no browser can open is named."""
    text = ""
    for title, uri in named:
        name = _escaped(one_line(title, 20), 100) or "–"
        url = _linkable(uri)
        piece = f"<{url}|{name}>" if url else name
        if len(text) + len(piece) + len(CUT_MARK) + 3 > MAX_TEXT_CHARS:
            text += CUT_MARK
            break
        text = f"{text} · {piece}" if text else piece
    return MarkdownTextObject(text=text, verbatim=True)


def _linkable(uri: str) -> str | None:
    """``uri`` as it may stand in Slack's link syntax, or None when it is no web address."""
    try:
        url = httpx.URL(uri)
    except (httpx.InvalidURL, ValueError):
        return None  # said plainly by its format's name instead
    if url.scheme not in ("https", "http") or not url.host or url.userinfo:
        return None
    safe = str(url).replace("|", "%7C").replace("<", "%3C").replace(">", "%3E")
    return safe.replace("&", "&amp;")


def _plain(text: str, limit: int) -> PlainTextObject:
    # emoji off: ``:name:`` in a website's data stays what it is.
    return PlainTextObject(text=_escaped(text, limit) or "–", emoji=False)


def _escaped(text: str, limit: int) -> str:
    """Escape what Slack asks to escape, and cut so that the result fits and no entity breaks."""
    room = limit
    while True:
        escaped = (
            cut_chars(text, room).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        )
        if len(escaped) <= limit:
            return escaped
        room -= max(1, (len(escaped) - limit) // 5)

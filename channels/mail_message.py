"""One notification as an e-mail: headers, plain text and HTML.

A pure function of the message and the time.  Addresses are validated and text
is made one line before it comes near a header, so nothing scanned or typed can
start a header of its own.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from email import policy
from email.header import Header
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from functools import cache
from pathlib import Path
from typing import Any

import idna
import jinja2

from channels.operator_templates import NO_TEMPLATES, OperatorTemplates
from channels.readable import one_line
from channels.spoken import language_of, speak
from channels.template_filters import FILTERS, TESTS
from channels.unsubscribing import unsubscribe_link
from languages.language import Language
from schemas.errors import DeliveryRejected
from schemas.notifications import Attachment, ChannelKind, Message, Notification

MAX_SUBJECT_CHARS = 160
MAX_FINDINGS = 50
"""More findings than this are counted: the report is a link away."""

_LOCAL_PART = re.compile(
    r"[^\s@<>()\[\],;:\\\"\x00-\x20\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f]{1,64}"
)
_DOT_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_CONTENT_TYPE = re.compile(
    r"(application|image|text)/([a-z0-9][a-z0-9.+-]*)"
    r"(?:; *charset=([a-z0-9-]+))?(?:;[ -~]*)?",
    re.ASCII,
)
_HTTPS_URL = re.compile(r"https://[!-;=?-~]+")


class _OneLine(UnstructuredHeader, BaseHeader):
    """A header that is never folded.

    The library folds a long word by encoding it, which makes a URL in
    List-Unsubscribe unreadable; the values given to it are checked ASCII.
    """

    def fold(self, *, policy: policy.Policy) -> str:
        return f"{self.name}: {self}{policy.linesep}"


class _Subject(UnstructuredHeader, BaseHeader):
    """A subject that arrives as it was written.

    The library decodes what looks like an encoded word when it is set, and its
    folding doubles a space where a plain word meets an encoded one.
    """

    @classmethod
    def parse(cls, value: str, kwds: dict[str, Any]) -> None:
        kwds["decoded"], kwds["parse_tree"] = value, cls.value_parser("")

    def fold(self, *, policy: policy.Policy) -> str:
        plain = self.isascii() and "=?" not in self
        coded = Header(str(self), "us-ascii" if plain else "utf-8", header_name=self.name)
        return f"{self.name}: {coded.encode(linesep=policy.linesep)}{policy.linesep}"


def _headers() -> HeaderRegistry:
    headers = HeaderRegistry()
    headers.map_to_type("subject", _Subject)
    for name in ("list-unsubscribe", "message-id"):
        headers.map_to_type(name, _OneLine)
    return headers


# Seven bits on the way: a relay without 8BITMIME must not be able to damage it.
_PLAIN = policy.SMTP.clone(cte_type="7bit", header_factory=_headers())
_INTERNATIONAL = _PLAIN.clone(utf8=True)


@dataclass(frozen=True, slots=True)
class Envelope:
    """An e-mail ready for the wire, with the addresses the server is told."""

    sender: str
    recipient: str
    content: bytes
    international: bool
    """The server must speak SMTPUTF8: an address has a local part beyond ASCII."""


def compose(
    message: Message,
    *,
    mail_from: str,
    unsubscribe_url: str | None,
    now: datetime,
    unsubscribe_key: str | None = None,
    templates: OperatorTemplates = NO_TEMPLATES,
) -> Envelope:
    """Build the e-mail.

    Its ``Message-ID`` depends on the message alone, so a mailbox can tell a
    repeat.  Raises DeliveryRejected for an address or setting that cannot stand
    in a header; the address itself is never in the text.
    """
    if not mail_from.isprintable():
        raise DeliveryRejected("SCANHERALD_MAIL_FROM holds a control character")
    name, sender_address = parseaddr(mail_from)
    sender = mailbox(sender_address, "the sender (SCANHERALD_MAIL_FROM)")
    recipient = mailbox(message.address.target, "the subscriber's e-mail address")
    if unsubscribe_url is not None and not _HTTPS_URL.fullmatch(unsubscribe_url):
        raise DeliveryRejected("SCANHERALD_LIST_UNSUBSCRIBE_URL is not an https address")
    t = language_of(message.language)
    notification = speak(message.notification, t)
    international = not (sender.addr_spec.isascii() and recipient.addr_spec.isascii())
    link = unsubscribe_link(message.subscriber_id, unsubscribe_url, unsubscribe_key)
    shown = _shown(message, notification, link.url if link else None, t)
    texts = templates.texts(ChannelKind.EMAIL, notification, shown)
    mail = EmailMessage(policy=_INTERNATIONAL if international else _PLAIN)
    mail["From"] = Address(one_line(name, 100), sender.username, sender.domain)
    mail["To"] = recipient
    worded = one_line(texts.get("subject", ""), MAX_SUBJECT_CHARS)
    mail["Subject"] = worded or subject(notification)
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = f"<{_left_side(message.message_id)}@{sender.domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    if link is not None:
        mail["List-Unsubscribe"] = f"<{link.url}>"
        if link.one_click:
            mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    mail.set_content(texts.get("txt") or _template("mail.txt.j2").render(shown))
    mail.add_alternative(
        texts.get("html") or _template("mail.html.j2").render(shown), subtype="html"
    )
    for attachment in message.attachments:
        _attach(mail, attachment)
    _set_boundaries(mail, message.message_id)
    mail["Content-Language"] = t.code  # last: the library moves such headers into the first part
    return Envelope(sender.addr_spec, recipient.addr_spec, mail.as_bytes(), international)


def _shown(
    message: Message, notification: Notification, unsubscribe_url: str | None, t: Language
) -> dict[str, Any]:
    """What the templates are given; ``notification`` is spoken already."""
    message_id, scan_id = one_line(message.message_id, 200), notification.scan_id
    missing = ", ".join(one_line(name.upper(), 20) for name in notification.missing_formats[:10])
    attached = ", ".join(_file_name(attachment) for attachment in message.attachments)
    too_large = ", ".join(one_line(name.upper(), 20) for name in message.too_large[:10])
    return {
        "notification": notification,
        "t": t,
        "language": t.code,
        "direction": "rtl" if t.right_to_left else "ltr",
        "findings": notification.findings[:MAX_FINDINGS],
        "more_findings": max(0, len(notification.findings) - MAX_FINDINGS),
        "missing": t.say("mail.not_rendered", formats=missing),
        "attached": t.say("mail.attached", formats=attached) if attached else "",
        "too_large": t.say("mail.too_large", formats=too_large) if too_large else "",
        "sent": t.say("mail.sent_for_scan", scan=one_line(scan_id, 100), message=message_id)
        if scan_id
        else t.say("mail.sent", message=message_id),
        "unsubscribe_url": unsubscribe_url,
        "message_id": message_id,
    }


def _attach(mail: EmailMessage, attachment: Attachment) -> None:
    # Whoever made it, neither its name nor its type can say more than a name or a type.
    known = _CONTENT_TYPE.fullmatch(attachment.content_type)
    kind, subtype, charset = known.groups() if known else ("application", "octet-stream", None)
    mail.add_attachment(
        attachment.data,
        maintype=kind,
        subtype=subtype,
        filename=_file_name(attachment),
        params={"charset": charset} if charset else None,
    )


def _file_name(attachment: Attachment) -> str:
    """A name that is safe wherever it is saved, and in one piece in its header."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", attachment.file_name)[-100:].lstrip(".-")
    return name or "attachment"


def _set_boundaries(mail: EmailMessage, message_id: str) -> None:
    """The library would draw them at random; a repeat should be the same message."""
    for place, part in enumerate(mail.walk()):
        if part.is_multipart():
            digest = hashlib.sha256(f"{message_id}/{place}".encode()).hexdigest()
            part.set_boundary(f"=_{digest[:48]}")


def subject(notification: Notification) -> str:
    """Title and domain in one bounded line."""
    title = one_line(notification.title, MAX_SUBJECT_CHARS) or notification.type.value
    domain = one_line(notification.domain or "", 80)
    return title if domain in title else one_line(f"{title} · {domain}", MAX_SUBJECT_CHARS)


def mailbox(address: str, whose: str) -> Address:
    """``address`` in its parts, its domain in ASCII.  Raises DeliveryRejected, not quoting it."""
    local, _, domain = address.rpartition("@")
    try:
        ascii_domain = domain if domain.isascii() else idna.encode(domain, uts46=True).decode()
    except idna.IDNAError:
        ascii_domain = ""  # not chained: its text quotes the address
    if not _LOCAL_PART.fullmatch(local) or not re.fullmatch(r"[A-Za-z0-9._-]{1,253}", ascii_domain):
        raise DeliveryRejected(f"{whose} is not an e-mail address")
    try:
        return Address(username=local, domain=ascii_domain)
    except ValueError:
        raise DeliveryRejected(f"{whose} is not an e-mail address") from None  # quotes it too


def _left_side(message_id: str) -> str:
    """``message_id`` where it may stand in a Message-ID, else a digest that is as unique."""
    if len(message_id) <= 200 and _DOT_ATOM.fullmatch(message_id):
        return message_id
    return hashlib.sha256(message_id.encode("utf-8", "replace")).hexdigest()


@cache
def _template(name: str) -> jinja2.Template:
    """Compiled once per process: compiling costs more than rendering."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",), default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    environment.tests.update(TESTS)
    return environment.get_template(name)

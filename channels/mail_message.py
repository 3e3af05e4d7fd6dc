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
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from functools import cache
from pathlib import Path

import idna
import jinja2

from channels.readable import one_line, paragraphs
from schemas.errors import DeliveryRejected
from schemas.notifications import Message, Notification

MAX_SUBJECT_CHARS = 160
MAX_FINDINGS = 50
"""More findings than this are counted: the report is a link away."""

_LOCAL_PART = re.compile(
    r"[^\s@<>()\[\],;:\\\"\x00-\x20\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f]{1,64}"
)
_DOT_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_HTTPS_URL = re.compile(r"https://[!-;=?-~]+")


class _OneLine(UnstructuredHeader, BaseHeader):
    """A header that is never folded.

    The library folds a long word by encoding it, which makes a URL in
    List-Unsubscribe unreadable; the values given to it are checked ASCII.
    """

    def fold(self, *, policy: policy.Policy) -> str:
        return f"{self.name}: {self}{policy.linesep}"


def _headers() -> HeaderRegistry:
    headers = HeaderRegistry()
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
    message: Message, *, mail_from: str, unsubscribe_url: str | None, now: datetime
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
    international = not (sender.addr_spec.isascii() and recipient.addr_spec.isascii())
    mail = EmailMessage(policy=_INTERNATIONAL if international else _PLAIN)
    mail["From"] = Address(one_line(name, 100), sender.username, sender.domain)
    mail["To"] = recipient
    mail["Subject"] = subject(message.notification)
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = f"<{_left_side(message.message_id)}@{sender.domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    if unsubscribe_url is not None:
        mail["List-Unsubscribe"] = f"<{unsubscribe_url}>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    shown = {
        "notification": message.notification,
        "findings": message.notification.findings[:MAX_FINDINGS],
        "more_findings": max(0, len(message.notification.findings) - MAX_FINDINGS),
        "unsubscribe_url": unsubscribe_url,
        "message_id": message.message_id,
    }
    mail.set_content(_template("mail.txt.j2").render(shown))
    mail.add_alternative(_template("mail.html.j2").render(shown), subtype="html")
    # The library would draw one at random; a repeat should be the same message.
    mail.set_boundary("=_" + hashlib.sha256(message.message_id.encode()).hexdigest()[:48])
    return Envelope(sender.addr_spec, recipient.addr_spec, mail.as_bytes(), international)


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


def _web_address(uri: str) -> bool:
    return uri.startswith(("https://", "http://"))


def _size(size_bytes: int) -> str:
    if size_bytes < 10_000:
        return f"{size_bytes:,} bytes"
    return (
        f"{size_bytes / 1000:,.0f} kB" if size_bytes < 10_000_000 else f"{size_bytes / 1e6:,.0f} MB"
    )


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
    environment.filters.update(line=one_line, paragraphs=paragraphs, size=_size)
    environment.tests["web_address"] = _web_address
    return environment.get_template(name)

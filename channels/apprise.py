"""Apprise: one more channel that reaches a hundred services by one kind of URL.

Apprise turns ``discord://…`` into that service's own requests; whether, when and
how often to send stays ours.  Guarded is all that a plugin does on the wire: it
speaks HTTP through the guarded transport (names resolved once, addresses checked
and pinned, https unless exempt, no redirects, one deadline for the whole send) or
not at all.  So only services that speak HTTP are supported, and of those the ones
named in the settings; what a service does with a message is its own affair.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from channels.guarded_http import GuardedHttp
from channels.operator_templates import NO_TEMPLATES, OperatorTemplates, load_templates
from channels.protocol import Clock
from channels.readable import cut_chars, one_line, paragraphs, receipt_text
from channels.spoken import language_of, speak
from languages.language import Language
from schemas.errors import (
    ChannelUnavailable,
    DeliveryRejected,
    DestinationForbidden,
    InvalidSettings,
)
from schemas.notifications import ChannelKind, Message, Notification, Receipt
from schemas.reports import Severity
from schemas.settings import Settings

if TYPE_CHECKING:
    from apprise import AppriseAsset, NotifyBase

    from channels.guarded_requests import Carried

MAX_TITLE_CHARS = 150
MAX_BODY_CHARS = 4000
"""Longer than most services take; Apprise cuts to what each of them does."""
MAX_FACTS = 10
MAX_FINDINGS = 10
MAX_LINES = 20

_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+]{0,30})://.*", re.IGNORECASE | re.DOTALL)


class AppriseChannel:
    """Sends through Apprise's plugins; the whole URL is a secret and never shown.

    Each send makes its plugin anew, so threads share nothing but connections.
    """

    def __init__(self, settings: Settings, clock: Clock, http: GuardedHttp | None = None) -> None:
        self._settings = settings
        self._templates = load_templates(settings.templates_dir)
        self._http = http or GuardedHttp(
            allow=settings.http_allow, timeout_s=settings.http_timeout_s, clock=clock
        )

    def send(self, message: Message) -> Receipt:
        """Send once.  See ``Channel.send``.

        No service of Apprise's takes an idempotency key: an answer lost on the
        way shows the message twice, with the same id in its last line.
        """
        target = message.address.target
        try:
            plugin = open_plugin(target, self._settings)
        except InvalidSettings as error:
            # Not for good: once it is installed, the delivery's next try succeeds.
            raise ChannelUnavailable(str(error)) from error
        from channels.guarded_requests import carried

        title, body = apprise_text(message, plugin.body_maxlen, self._templates)
        with carried(self._http, self._settings.http_timeout_s) as line:
            accepted = _notify(plugin, title, body, message.notification.severity)
        hidden = _parts(target)
        if not accepted:
            raise _failure(plugin, line, hidden)
        if line.answer is None:
            raise DeliveryRejected(
                f"{_service(plugin)} was asked nothing: its URL says to leave such messages aside"
            )
        return Receipt(
            status_code=line.answer.status_code,
            text=receipt_text(line.answer.text_excerpt, hidden),
        )

    def close(self) -> None:
        """Close all connections.  Safe to repeat."""
        self._http.close()


def open_plugin(target: str, settings: Settings) -> NotifyBase:
    """The plugin behind an Apprise URL; opens no connection.

    Raises InvalidSettings where Apprise is not installed, DestinationForbidden for a
    service that the settings do not name, DeliveryRejected for what Apprise cannot
    read, names several targets (a failure at one would repeat the message at the
    others) or a file on this machine.
    """
    match = _URL.fullmatch(target.strip())
    if match is None:
        raise DeliveryRejected("this is no Apprise URL, such as discord://id/token")
    scheme = match["scheme"].lower()
    if scheme not in map(str.lower, settings.apprise_schemes):
        raise DestinationForbidden(
            f"{scheme}:// is not one of the services in SCANHERALD_APPRISE_SCHEMES"
        )
    asset = _library()
    from apprise import Apprise, AppriseAttachment
    from apprise.common import OverflowMode

    plugin = Apprise.instantiate(target.strip(), asset=asset)
    if plugin is None:
        raise DeliveryRejected(f"Apprise cannot read this {scheme}:// URL")
    # Waiting, trying again and splitting are the schedule's and the subscriber's, not the URL's.
    plugin.retry, plugin.request_rate_per_sec = 0, 0
    plugin.overflow_mode = OverflowMode.TRUNCATE
    if len(plugin) > 1:
        raise DeliveryRejected(
            f"this {scheme}:// URL names {len(plugin)} targets; give each a subscriber of its own"
        )
    if any(isinstance(part, AppriseAttachment) and len(part) for part in vars(plugin).values()):
        raise DeliveryRejected(f"this {scheme}:// URL names a file to read, which is not allowed")
    return plugin


@cache
def _library() -> AppriseAsset:
    """Import Apprise, silenced and on the guarded transport.

    Its log has addresses and messages in it; what it would keep on disk, it keeps
    in memory, which ends with each message.
    """
    try:
        from apprise import Apprise, AppriseAsset
        from apprise.common import PersistentStoreMode
    except ImportError as error:
        raise InvalidSettings(
            "Apprise is not installed; run: pip install 'scanherald[apprise]'"
        ) from error
    from channels.guarded_requests import guard_package

    logging.getLogger("apprise").disabled = True
    asset = AppriseAsset(
        app_id="scanherald",
        app_desc="scanherald",
        async_mode=False,
        storage_mode=PersistentStoreMode.MEMORY,
    )
    Apprise.instantiate("json://localhost", asset=asset)  # the first one imports all plugins
    guard_package("apprise")
    return asset


def _notify(plugin: NotifyBase, title: str, body: str, severity: Severity) -> bool:
    from apprise import NotifyFormat, NotifyType

    kind = {Severity.HIGH: NotifyType.FAILURE, Severity.MEDIUM: NotifyType.WARNING}
    try:
        return plugin.notify(
            body=body,
            title=title,
            notify_type=kind.get(severity, NotifyType.INFO),
            body_format=NotifyFormat.TEXT,
        )
    except Exception:  # noqa: BLE001 - a hundred strangers' plugins: any of them may break
        # Not chained: what broke may quote the URL or the message.  The caller says that it failed.
        return False


def _failure(
    plugin: NotifyBase, line: Carried, hidden: list[str]
) -> ChannelUnavailable | DeliveryRejected:
    """Why a plugin said no: what the wire says, else a fault that may pass."""
    if line.failure is not None:
        line.failure.receipt = receipt_text(line.failure.receipt, hidden)
        return line.failure
    return ChannelUnavailable(
        f"Apprise could not send through {_service(plugin)}",
        status_code=line.answer.status_code if line.answer else None,
        receipt=receipt_text(line.answer.text_excerpt if line.answer else "", hidden),
    )


def _service(plugin: NotifyBase) -> str:
    return one_line(str(plugin.service_name), 50)


def _parts(target: str) -> list[str]:
    """The pieces of an Apprise URL as typed and as meant: tokens, users, hosts."""
    typed = re.split(r"[/:@?&=,+]+", target)[1:]
    return [*typed, *map(unquote, typed)]


def apprise_text(
    message: Message, room: int = MAX_BODY_CHARS, templates: OperatorTemplates = NO_TEMPLATES
) -> tuple[str, str]:
    """Title and body as plain text of at most ``room`` characters together."""
    t = language_of(message.language)
    spoken = speak(message.notification, t)
    notification = templates.reword(ChannelKind.APPRISE, spoken, message.message_id, t)
    title = _tame(one_line(notification.title, MAX_TITLE_CHARS)) or notification.type.value
    last = t.say("mail.message", message=one_line(message.message_id, 100))
    room = min(room, MAX_BODY_CHARS) - len(title) - len(last) - 4
    body = "\n\n".join(part for part in _sections(notification, t) if part)
    return title, f"{cut_chars(body, max(0, room))}\n\n{last}".strip()


def _sections(notification: Notification, t: Language) -> list[str]:
    links = [
        (one_line(artifact.format.upper(), 20), artifact.uri) for artifact in notification.artifacts
    ]
    return [
        _tame(paragraphs(notification.summary, 1500)),
        _listed(
            t.say("labelled", label=one_line(fact.label, 100), value=one_line(fact.value, 200))
            for fact in notification.facts[:MAX_FACTS]
        ),
        _listed(
            f"• {_severity(finding.severity, t)}  {one_line(finding.title, 150)} "
            f"({t.number(finding.count)})"
            for finding in notification.findings[:MAX_FINDINGS]
        ),
        _listed(
            f"• {_severity(line.severity, t)}  {one_line(line.domain or '', 100)}  "
            f"{one_line(line.title, 150)}"
            for line in notification.lines[:MAX_LINES]
        ),
        _listed(
            f"⚠ {t.say('mail.not_rendered', formats=one_line(name.upper(), 20))}"
            for name in notification.missing_formats[:10]
        ),
        "\n".join(_link(name, url) for name, url in links),
    ]


def _severity(severity: Severity, t: Language) -> str:
    return t[f"severity.{severity}"].upper()


def _listed(lines: Iterable[str]) -> str:
    return _tame("\n".join(lines))


def _link(name: str, url: str) -> str:
    return f"{name}: {url}" if re.fullmatch(r"https?://[!-~]{1,500}", url) else name


def _tame(text: str) -> str:
    """Keep a website's words from paging a channel or posing as a link, in any service's markup."""
    return text.replace("@", "@\u200b").replace("<", "<\u200b").replace("](", "]\u200b(")

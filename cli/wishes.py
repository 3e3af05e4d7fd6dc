"""What a subscriber wants, as people write it: options of a command, or a line of a file.

Every value is checked here, against the same code that will use it, so that a
wish that cannot be granted is refused when it is made.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from schemas.errors import InvalidSettings
from schemas.events import ASKED_FOR
from schemas.notifications import (
    PASSED_ALONG,
    ChannelAddress,
    ChannelKind,
    Digest,
    DigestRhythm,
    QuietHours,
    Subscriber,
)
from schemas.reports import Format, Severity

if TYPE_CHECKING:
    from schemas.settings import Settings

NONE, ALL = "none", "all"

MAX_SECRETS = 2
"""Of one webhook: the new one and the old one, while one replaces the other."""

_SPAN = re.compile(r"(\S+?)\s*[-–]\s*(\S+)")
_GLOB = re.compile(r"(?:[\w.*?-]|\[!?[\w-]+\])+")


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What was said of a subscriber; None where nothing was.

    ``none`` takes away: an address, the quiet hours, the attachments.  ``all``
    asks for every event, or every domain.
    """

    user: str | None = None
    email: str | None = None
    webhook: str | None = None
    webhook_secret: str | None = None
    slack: str | None = None
    apprise: str | None = None
    events: tuple[str, ...] | None = None
    domains: tuple[str, ...] | None = None
    min_severity: str | None = None
    quiet_hours: str | None = None
    time_zone: str | None = None
    passing: str | None = None
    digest: str | None = None
    digest_at: str | None = None
    digest_below: str | None = None
    language: str | None = None
    attach: tuple[str, ...] | None = None
    paused: bool | None = None

    @property
    def targets(self) -> dict[ChannelKind, str | None]:
        """What was said of each channel's address."""
        return {
            ChannelKind.EMAIL: self.email,
            ChannelKind.WEBHOOK: self.webhook,
            ChannelKind.SLACK: self.slack,
            ChannelKind.APPRISE: self.apprise,
        }

    @property
    def nothing(self) -> bool:
        """Whether nothing at all was said."""
        return self == Wishes()


@dataclass(frozen=True, slots=True)
class Granted:
    """The subscriber as wished, and the secret that was made for a webhook without one."""

    subscriber: Subscriber
    made_secret: str | None


def grant(wishes: Wishes, before: Subscriber, settings: Settings) -> Granted:
    """The subscriber ``before`` with what was said changed, and nothing else.

    Raises InvalidSettings, or DeliveryRejected for an address that no message
    could ever reach.
    """
    _check_name(before.subscriber_id)
    channels, made = _channels(wishes, before, settings)
    return Granted(
        msgspec.structs.replace(
            before,
            user_id=_given(wishes.user, before.user_id),
            channels=channels,
            events=_each(wishes.events, before.events, _event),
            domains=_each(wishes.domains, before.domains, _glob),
            min_severity=_severity(wishes.min_severity, "--min-severity") or before.min_severity,
            quiet_hours=_quiet_hours(wishes, before),
            digest=_digest(wishes, before),
            locale=_language(wishes.language, before.locale),
            attach=_each(wishes.attach, before.attach, _format),
            paused=before.paused if wishes.paused is None else wishes.paused,
        ),
        made,
    )


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= 128 or not name.isprintable() or name != name.strip():
        raise InvalidSettings(
            "a subscriber's name has 1 to 128 printable characters, and no blank before or after"
        )
    if name.startswith(PASSED_ALONG):
        raise InvalidSettings(
            f"names that begin with {PASSED_ALONG} are those of addresses that the platform "
            "passes along; choose another one"
        )


def check_address(address: ChannelAddress, settings: Settings) -> None:
    """Refuse now what every delivery would be refused for.  Raises DeliveryRejected."""
    from channels.apprise import open_plugin
    from channels.destinations import checked_url, parse_allow
    from channels.mail_message import mailbox
    from channels.signing import signing_key

    if address.kind is ChannelKind.EMAIL:
        mailbox(address.target, "--email")
        return
    if address.kind is ChannelKind.APPRISE:
        open_plugin(address.target, settings)
        return
    checked_url(address.target, parse_allow(settings.http_allow))
    for secret in (address.secret or "").split():
        signing_key(secret)


def _channels(
    wishes: Wishes, before: Subscriber, settings: Settings
) -> tuple[tuple[ChannelAddress, ...], str | None]:
    known = {address.kind: address for address in before.channels}
    for kind, target in wishes.targets.items():
        if target == NONE:
            known.pop(kind, None)
        elif target is not None:
            secret = known[kind].secret if kind in known else None
            if secret is not None and not _same_host(known[kind].target, target):
                secret = None  # whoever answered at the old host knows it
            known[kind] = ChannelAddress(kind=kind, target=target, secret=secret)
    made = None
    hook = known.get(ChannelKind.WEBHOOK)
    if hook is None and wishes.webhook_secret is not None:
        raise InvalidSettings("--webhook-secret needs --webhook")
    if hook is not None:
        from channels.signing import new_secret

        secret = wishes.webhook_secret or hook.secret
        if secret is not None and len(secret.split()) > MAX_SECRETS:
            raise InvalidSettings("--webhook-secret takes one secret, or two while one goes")
        if secret is None:
            secret = made = new_secret(secrets.token_bytes)
        known[ChannelKind.WEBHOOK] = msgspec.structs.replace(hook, secret=secret)
    if not known:
        options = ", ".join(f"--{kind}" for kind in wishes.targets)
        raise InvalidSettings(f"give at least one of {options}")
    for address in known.values():
        if wishes.targets.get(address.kind) or address.kind is ChannelKind.WEBHOOK:
            check_address(address, settings)
    return tuple(known[kind] for kind in ChannelKind if kind in known), made


def _same_host(before: str, now: str) -> bool:
    try:
        parts = [urlsplit(url) for url in (before, now)]
        one, other = ((part.scheme, part.hostname, part.port) for part in parts)
    except ValueError:
        return False
    return one == other


def _quiet_hours(wishes: Wishes, before: Subscriber) -> QuietHours | None:
    from tasks.holding import clock_time, zone

    said = wishes.quiet_hours
    if said == NONE or (said is None and before.quiet_hours is None):
        if wishes.passing is not None:
            raise InvalidSettings("--passing needs --quiet-hours, such as 22:00-06:00")
        return None
    hours = before.quiet_hours
    time_zone = wishes.time_zone or (hours and hours.time_zone)
    if not time_zone and before.digest.rhythm is not DigestRhythm.IMMEDIATE:
        time_zone = before.digest.time_zone
    if not time_zone:
        raise InvalidSettings("--quiet-hours needs --time-zone, such as Europe/Berlin")
    zone(time_zone)
    hours = QuietHours(start="", end="", time_zone=time_zone) if hours is None else hours
    if said is not None:
        span = _SPAN.fullmatch(said.strip())
        if span is None:
            raise InvalidSettings(f"--quiet-hours {said!r} is not two times, such as 22:00-06:00")
        start, end = clock_time(span[1]), clock_time(span[2])
        if start == end:
            raise InvalidSettings(
                f"--quiet-hours {said!r} begin when they end; to be told nothing, pause"
            )
        hours = msgspec.structs.replace(hours, start=span[1], end=span[2])
    passing = hours.passing
    if wishes.passing is not None:
        passing = None if wishes.passing == NONE else _severity(wishes.passing, "--passing", NONE)
    return msgspec.structs.replace(hours, time_zone=time_zone, passing=passing)


def _digest(wishes: Wishes, before: Subscriber) -> Digest:
    from tasks.holding import clock_time, zone

    digest = before.digest
    if wishes.digest is not None:
        digest = msgspec.structs.replace(
            digest, rhythm=DigestRhythm(_one_of(wishes.digest, DigestRhythm, "--digest"))
        )
    if wishes.digest_at is not None:
        if digest.rhythm is not DigestRhythm.DAILY:
            raise InvalidSettings("--digest-at needs --digest daily")
        clock_time(wishes.digest_at)
        digest = msgspec.structs.replace(digest, at=wishes.digest_at)
    if wishes.digest_below is not None:
        if digest.rhythm is DigestRhythm.IMMEDIATE:
            raise InvalidSettings("--digest-below needs --digest hourly or daily")
        below = _severity(wishes.digest_below, "--digest-below") or digest.below
        digest = msgspec.structs.replace(digest, below=below)
    if wishes.time_zone is not None:
        zone(wishes.time_zone)
        digest = msgspec.structs.replace(digest, time_zone=wishes.time_zone)
    elif (
        wishes.digest is not None
        and before.digest.rhythm is DigestRhythm.IMMEDIATE
        and before.quiet_hours is not None
    ):
        digest = msgspec.structs.replace(digest, time_zone=before.quiet_hours.time_zone)
    return digest


def _given(said: str | None, before: str | None) -> str | None:
    return before if said is None else None if said == NONE else said


def _language(said: str | None, before: str | None) -> str | None:
    code = _given(said, before)
    if said is not None and code is not None:
        from languages.language import load_language

        load_language(code)
    return code


def _each(
    said: Sequence[str] | None, before: tuple[str, ...], check: Callable[[str], str]
) -> tuple[str, ...]:
    if said is None:
        return before
    if list(said) in ([ALL], [NONE]):
        return ()
    return tuple(dict.fromkeys(check(item) for item in said))


def _event(name: str) -> str:
    return _one_of(name, ASKED_FOR, "--event")


def _format(name: str) -> str:
    return _one_of(name.lower(), Format, "--attach")


def _glob(text: str) -> str:
    if not _GLOB.fullmatch(text):
        raise InvalidSettings(
            f"--domain {text!r} is not a domain or a glob such as *.example.org: letters, digits, "
            "dots and hyphens, * for any text, ? for one character, [abc] for one of several"
        )
    return text.lower()


def _severity(name: str | None, option: str, *more: str) -> Severity | None:
    return None if name is None else Severity(_one_of(name, Severity, option, *more))


def _one_of(name: str, known: Iterable[str], option: str, *more: str) -> str:
    """``name``, if it is known.  Raises InvalidSettings that says what may be meant."""
    names = [str(item) for item in known]
    if name in names:
        return name
    near = get_close_matches(name.lower(), names, 1)
    meant = f"did you mean {near[0]}?" if near else f"it is one of: {', '.join([*names, *more])}"
    raise InvalidSettings(f"{option} {name!r} is unknown; {meant}")

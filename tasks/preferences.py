"""The preferences that the platform passes along, as the wishes of a subscriber.

What is read here goes the way of every subscriber: the same quiet hours, the same
severities, the same languages.  Nothing of it is kept but with its delivery.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from languages.language import load_language
from schemas.errors import InvalidEvent, InvalidSettings
from schemas.events import published_type
from schemas.notifications import ChannelAddress, ChannelKind, QuietHours, Subscriber
from schemas.reports import Severity
from tasks.derive import whole
from tasks.holding import clock_time, zone

T = TypeVar("T")

NOBODY = "direct:unknown"
"""Where no user is named."""

ADDRESS_KEYS: Mapping[ChannelKind, tuple[str, ...]] = {
    ChannelKind.EMAIL: ("email_address", "email"),
    ChannelKind.WEBHOOK: ("webhook_url",),
    ChannelKind.SLACK: ("slack_webhook_url", "slack_url"),
    ChannelKind.APPRISE: ("apprise_url",),
}


def read_preferences(preferences: Any, *, channel: Any, user_id: Any) -> Subscriber:
    """Somebody with one address, on ``channel`` or else the first there is, and their wishes.

    The keys, all optional but an address; unknown ones, and those that are null,
    are left aside:

    - ``email_address`` or ``email``, ``webhook_url`` with ``webhook_secret``,
      ``slack_webhook_url``, ``apprise_url``
    - ``language`` or ``locale``: ``de``, ``de-AT``, ``de_AT``
    - ``quiet_hours``: ``start`` and ``end`` as ``HH:MM``, ``time_zone`` or
      ``timezone`` as an IANA name; what is of high severity passes
    - ``min_severity``: info, low, medium or high
    - ``enabled_events`` or ``events``: a list of event types; empty means all
    - ``enabled``: false tells nothing at all

    Raises InvalidEvent that names the key.
    """
    if not isinstance(preferences, Mapping):
        raise InvalidEvent("the preferences are not an object")
    user = user_id or preferences.get("user_id")
    enabled = _read(preferences, _switch, "enabled")
    return Subscriber(
        subscriber_id=f"direct:{whole(str(user), 200)}" if user else NOBODY,
        channels=(_address(preferences, channel),),
        events=_read(preferences, _events, "enabled_events", "events") or (),
        min_severity=_read(preferences, _severity, "min_severity") or Severity.INFO,
        quiet_hours=_read(preferences, _quiet_hours, "quiet_hours"),
        locale=_read(preferences, _language, "language", "locale"),
        paused=enabled is False,
    )


def _address(preferences: Mapping[str, Any], channel: Any) -> ChannelAddress:
    if channel and channel not in list(ADDRESS_KEYS):
        raise InvalidEvent(f"channel {channel!r} is not one of: {', '.join(ADDRESS_KEYS)}")
    kinds = [ChannelKind(channel)] if channel else list(ADDRESS_KEYS)
    for kind in kinds:
        target = _read(preferences, _text, *ADDRESS_KEYS[kind])
        if target:
            webhook = kind is ChannelKind.WEBHOOK
            secret = _read(preferences, _text, "webhook_secret") if webhook else None
            return ChannelAddress(kind=kind, target=target, secret=secret or None)
    wanted = ", ".join(key for kind in kinds for key in ADDRESS_KEYS[kind])
    raise InvalidEvent(f"the preferences hold no address; expected one of: {wanted}")


def _read(preferences: Mapping[str, Any], read: Callable[[Any], T], *keys: str) -> T | None:
    """The first of these keys that says anything, read; None where none does."""
    for key in keys:
        value = preferences.get(key)
        if value is None or value == "":
            continue
        try:
            return read(value)
        except (ValueError, InvalidSettings) as error:
            raise InvalidEvent(f"preferences: {key}: {error}") from error
    return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")  # never the value: it may be an address or a secret
    return value


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _events(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("not a list of event types")
    return tuple(published_type(name).value for name in value)


def _severity(value: Any) -> Severity:
    if value not in list(Severity):
        raise ValueError(f"{value!r} is not one of: {', '.join(Severity)}")
    return Severity(value)


def _language(value: Any) -> str:
    return load_language(_text(value).replace("_", "-")).code


def _quiet_hours(value: Any) -> QuietHours | None:
    if not isinstance(value, Mapping):
        raise ValueError("not an object of start, end and time_zone")
    if not value:
        return None
    said: dict[str, Any] = {
        "start": value.get("start"),
        "end": value.get("end"),
        "time_zone": value.get("time_zone") or value.get("timezone"),
    }
    for name, part in said.items():
        if not isinstance(part, str):
            raise ValueError(f"{name} is missing" if part is None else f"{name} is not a text")
    hours = QuietHours(**said)
    clock_time(hours.start)
    clock_time(hours.end)
    zone(hours.time_zone)
    return hours

"""Webhooks: a notification as a signed CloudEvents 1.0 JSON event.

The body is a pure function of the message, so every attempt sends the same
bytes under the same ``webhook-id``; only the timestamp, and with it the
signature, is new.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from channels.guarded_http import GuardedHttp
from channels.protocol import Clock
from channels.signing import SECRET_PREFIX, sign
from schemas.errors import DeliveryRejected
from schemas.notifications import Message, Notification, Receipt
from schemas.scans import CUT_MARK, cut
from schemas.settings import Settings

MAX_BODY_BYTES = 20_000
"""Standard Webhooks asks for less than 20 kB; every body stays below."""

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class _Bound:
    """How much of the notification goes in: entries per list, bytes per text, levels."""

    items: int
    text_bytes: int
    depth: int


# Lists give way before texts do: a reader follows a link for the rest of a list,
# a text without its end may say something else.  The last bound fits whatever
# came in, with every byte escaped to six.
_BOUNDS = (
    _Bound(1000, MAX_BODY_BYTES, 16),
    _Bound(50, MAX_BODY_BYTES, 8),
    _Bound(20, MAX_BODY_BYTES, 6),
    _Bound(10, 4096, 6),
    _Bound(10, 1024, 4),
    _Bound(10, 256, 4),
    _Bound(5, 128, 3),
    _Bound(3, 64, 2),
)


class WebhookChannel:
    """Posts signed events to subscribers' URLs through the guarded transport."""

    def __init__(self, settings: Settings, clock: Clock, http: GuardedHttp | None = None) -> None:
        self._clock = clock
        self._http = http or GuardedHttp(
            allow=settings.http_allow, timeout_s=settings.http_timeout_s, clock=clock
        )

    def send(self, message: Message) -> Receipt:
        """Post once.  See ``Channel.send``; a receiver tells repeats by ``webhook-id``."""
        secrets = (message.address.secret or "").split()
        if not secrets:
            raise DeliveryRejected(
                "this webhook has no signing secret and is never sent unsigned; "
                "give the subscriber a whsec_… secret"
            )
        body = event_body(message)
        headers = {
            "content-type": "application/json",
            **sign(secrets, message.message_id, self._clock(), body),
        }
        traceparent = message.notification.traceparent or ""
        if _TRACEPARENT.fullmatch(traceparent):
            headers["traceparent"] = traceparent
        keys = [secret.removeprefix(SECRET_PREFIX) for secret in secrets]
        answer = self._http.post(message.address.target, body, headers, hidden=[*secrets, *keys])
        return Receipt(status_code=answer.status_code, text=answer.text_excerpt)

    def close(self) -> None:
        """Close all connections.  Safe to repeat."""
        self._http.close()


def event_body(message: Message) -> bytes:
    """The CloudEvents JSON of ``message``, always below MAX_BODY_BYTES.

    What was cut is marked: ``data.truncated`` gives the true length of each list
    that lost entries, and a cut text ends with CUT_MARK.
    """
    body = b""
    for bound in _BOUNDS:
        body = msgspec.json.encode(_event(message, bound))
        if len(body) < MAX_BODY_BYTES:
            return body
    raise DeliveryRejected(f"the message id alone makes a body of {len(body):,} bytes")


def _event(message: Message, bound: _Bound) -> dict[str, Any]:
    notification = message.notification
    event = {
        "specversion": "1.0",
        "id": message.message_id,
        "source": "scanherald",
        "type": notification.type.value,
        "time": _utc(notification.occurred_at),
        "datacontenttype": "application/json",
        "data": _data(notification, bound),
    }
    if notification.domain:
        event["subject"] = _bounded(notification.domain, bound, 0)
    return event


def _utc(moment: datetime) -> str:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _data(notification: Notification, bound: _Bound) -> dict[str, Any]:
    # Structs and enums become dicts and strings; what the scanner sent stays as it is.
    plain = msgspec.to_builtins(notification, builtin_types=(datetime,))
    whole = {
        name: plain[name]
        for name in (
            "event_key",
            "domain",
            "scan_id",
            "severity",
            "title",
            "summary",
            "facts",
            "findings",
            "artifacts",
            "missing_formats",
        )
    }
    if notification.lines:
        spoken = ("variant", "values")  # what people are told by; machines read the rest
        whole["lines"] = [
            {name: value for name, value in line.items() if name not in spoken}
            for line in plain["lines"]
        ]
    if notification.data:
        whole["details"] = plain["data"]
    data = {name: _bounded(value, bound, 1) for name, value in whole.items()}
    if data != whole:
        data["truncated"] = {
            name: len(value)
            for name, value in whole.items()
            if isinstance(value, list | tuple) and len(value) > bound.items
        }
    return data


def _bounded(value: Any, bound: _Bound, depth: int) -> Any:
    if isinstance(value, str):
        return _text(value, bound.text_bytes)
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= 64 else CUT_MARK
    if isinstance(value, dict | list | tuple) and depth > bound.depth:
        return CUT_MARK
    if isinstance(value, dict):
        return {
            _text(str(key), min(bound.text_bytes, 256)): _bounded(item, bound, depth + 1)
            for key, item in list(value.items())[: bound.items]
        }
    if isinstance(value, list | tuple):
        return type(value)(_bounded(item, bound, depth + 1) for item in value[: bound.items])
    if isinstance(value, datetime):
        return _utc(value)
    return _bounded(str(value), bound, depth)


def _text(value: str, limit: int) -> str:
    if len(value) <= limit and value.isascii():
        return value  # nearly all of them
    # Half a surrogate pair is no Unicode, and no JSON reader must meet one.
    return cut(value.encode("utf-8", "replace").decode("utf-8"), limit)

"""The event contract: one stream entry is one CloudEvents 1.0 event.

``decode_entry`` turns the raw fields of an entry into an ``Event``; it is pure
and total: any input gives an Event or raises InvalidEvent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from schemas.errors import InvalidEvent, TooLarge, UnknownEventType
from schemas.scans import NO_CONTROLS, ScanOutline, decode_scan, explain, not_json


class EventType(StrEnum):
    """What may be told; the stream may carry all but our own, see ``PUBLISHED``."""

    SCAN_STARTED = "scan.started"
    SCAN_COMPLETED = "scan.completed"
    SCAN_FAILED = "scan.failed"
    COMPLIANCE_VIOLATION = "compliance.violation"
    ANOMALY_DETECTED = "anomaly.detected"
    SCHEDULE_CREATED = "schedule.created"
    SCHEDULE_UPDATED = "schedule.updated"
    SCHEDULE_FAILED = "schedule.failed"
    OPERATOR_ALERT = "operator.alert"
    NOTIFICATION_DIGEST = "notification.digest"


PUBLISHED = tuple(
    kind
    for kind in EventType
    if kind not in (EventType.OPERATOR_ALERT, EventType.NOTIFICATION_DIGEST)
)
"""The types that a scanner publishes; alerts and digests are our own."""

ASKED_FOR = tuple(kind for kind in EventType if kind is not EventType.NOTIFICATION_DIGEST)
"""What a subscriber may name; digests come to whoever set a rhythm."""


ShortText = Annotated[str, msgspec.Meta(max_length=255, pattern=NO_CONTROLS)]
"""An attribute: short enough for a unique index on two of them, without control characters."""


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The attributes of an entry.  ``data`` or ``dataref`` is needed, the rest has defaults."""

    data: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)
    """A JSON object: the scan result, or the event's own data for other types."""
    dataref: Annotated[str, msgspec.Meta(max_length=8192, pattern=NO_CONTROLS)] | None = None
    """Where to fetch ``data``: https:, s3:, gs:, az:, or file: under an allowed folder."""
    type: ShortText = EventType.SCAN_COMPLETED.value
    """What happened."""
    id: ShortText | None = None
    """With ``source`` the event's identity; derived from scan_id or content when absent."""
    source: ShortText = ""
    """Who says so."""
    subject: ShortText | None = None
    """The domain the event speaks of."""
    time: ShortText | None = None
    """When it happened, RFC 3339; a time without zone is taken as UTC."""
    specversion: ShortText = "1.0"
    userid: ShortText | None = None
    """The subscriber who owns the scan: told even where no subscription matches."""
    traceparent: ShortText | None = None
    """W3C trace context, carried to the tasks and the webhooks."""


@dataclass(frozen=True, slots=True)
class Event:
    """One decoded event.

    ``source`` and ``event_id`` are its identity: a repeat is recognised by them.
    ``data`` holds the original bytes; ``scan`` is set for scan results that came inline, and is
    their outline: every cookie was read and checked, and a batch need not hold them all.
    """

    type: EventType
    event_id: str
    source: str
    data: bytes
    dataref: str | None
    scan: ScanOutline | None
    subject: str | None
    time: datetime | None
    userid: str | None
    traceparent: str | None

    @property
    def domain(self) -> str | None:
        """The domain the event speaks of, where it says one."""
        return self.scan.domain if self.scan else self.subject


class EventData(msgspec.Struct, frozen=True):
    """The ``data`` of events other than scan results: whatever the scanner says, plus these."""

    scan_id: ShortText | None = None
    domain: ShortText | None = None
    error: str | None = None


_ATTRIBUTES = {name.encode(): name for name in CloudEvent.__struct_fields__ if name != "data"}
_structured = msgspec.json.Decoder(CloudEvent)
_data = msgspec.json.Decoder(EventData)
_any_object = msgspec.json.Decoder(dict[str, Any])


def published_type(name: str) -> EventType:
    """The type that a scanner or the platform calls so.  Raises ValueError, naming all."""
    for kind in PUBLISHED:
        if kind.value == name:
            return kind
    raise ValueError(f"{name!r} is not one of: {', '.join(PUBLISHED)}")


def decode_entry(fields: Mapping[bytes, bytes], *, max_bytes: int) -> Event:
    """Decode and validate the fields of one stream entry.

    ``max_bytes`` bounds the whole entry.  Raises InvalidEvent (or its children
    UnknownEventType, TooLarge) with a reason a person can act on.
    """
    size = sum(len(key) + len(value) for key, value in fields.items())
    if size > max_bytes:
        raise TooLarge(
            f"the entry has {size:,} bytes, the limit is {max_bytes:,} "
            "(SCANHERALD_MAX_ENTRY_BYTES); send a `dataref` instead of `data`"
        )
    cloud, data = _structured_mode(fields) if b"event" in fields else _binary_mode(fields)
    data = data.strip()
    if data == b"null":  # CloudEvents lets a producer say so for "no data"
        data = b""
    if not data and not cloud.dataref:
        raise InvalidEvent(_nothing_to_read(fields))
    return _event(cloud, data)


def _nothing_to_read(fields: Mapping[bytes, bytes]) -> str:
    """Why an entry has no data for us, in terms of what it does have."""
    if b"data_base64" in fields or b'"data_base64"' in fields.get(b"event", b""):
        return "`data_base64` is not read; send `data`, a JSON object"
    if b"event" in fields and (b"data" in fields or b"dataref" in fields):
        return (
            "field `event` has neither `data` nor `dataref` in it, and where it stands all other "
            "fields are ignored; put `data` into it, or leave `event` out"
        )
    return "the entry has neither `data` nor `dataref`; send one of them"


def _structured_mode(fields: Mapping[bytes, bytes]) -> tuple[CloudEvent, bytes]:
    try:
        cloud = _structured.decode(fields[b"event"])
        return cloud, bytes(cloud.data)
    except msgspec.ValidationError as error:
        raise InvalidEvent(f"field `event`: {explain(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why = not_json(fields[b"event"], error)
        raise InvalidEvent(f"field `event` is not JSON in UTF-8: {why}") from error
    except RecursionError as error:
        raise InvalidEvent("field `event` is nested too deeply") from error


def _binary_mode(fields: Mapping[bytes, bytes]) -> tuple[CloudEvent, bytes]:
    attributes: dict[str, str] = {}
    for key, name in _ATTRIBUTES.items():
        if key not in fields:
            continue
        try:
            attributes[name] = fields[key].decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidEvent(f"field `{name}` is not UTF-8: {error}") from error
    try:
        return msgspec.convert(attributes, CloudEvent), fields.get(b"data", b"")
    except msgspec.ValidationError as error:
        raise InvalidEvent(f"entry: {explain(error)}") from error


def _event(cloud: CloudEvent, data: bytes) -> Event:
    try:
        kind = published_type(cloud.type)
    except ValueError as error:
        raise UnknownEventType(f"type {error}") from error
    if cloud.specversion not in ("1.0", ""):
        raise InvalidEvent(f"specversion {cloud.specversion!r} is not supported; send 1.0")
    scan = decode_scan(data).outline if data and kind is EventType.SCAN_COMPLETED else None
    details = EventData() if scan or not data else decode_data(data)
    return Event(
        type=kind,
        event_id=cloud.id or _derived_id(kind, scan, details, data, cloud.dataref),
        source=cloud.source,
        data=data,
        dataref=None if data else cloud.dataref,
        scan=scan,
        subject=cloud.subject or details.domain,
        time=_time(cloud.time),
        userid=cloud.userid or None,
        traceparent=cloud.traceparent or None,
    )


def decode_data(data: bytes) -> EventData:
    """Validate the data of an event that is not a scan result.  Raises InvalidEvent."""
    try:
        _any_object.decode(data)
        return _data.decode(data)
    except msgspec.ValidationError as error:
        raise InvalidEvent(f"`data`: {explain(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEvent(f"`data` is not JSON in UTF-8: {not_json(data, error)}") from error
    except RecursionError as error:
        raise InvalidEvent("`data` is nested too deeply") from error


def _derived_id(
    kind: EventType, scan: ScanOutline | None, details: EventData, data: bytes, dataref: str | None
) -> str:
    """The identity of an event that brought none: its scan's, else that of its content."""
    scan_id = str(scan.scan_id) if scan else details.scan_id
    if scan_id and kind.startswith("scan."):
        return f"{kind}:{scan_id}"
    content = data or (dataref or "").encode()
    return f"{kind}:{hashlib.sha256(content).hexdigest()}"


def _time(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidEvent(
            f"time {text!r} is not RFC 3339, such as 2026-01-31T12:00:00Z"
        ) from error

"""The scan result: what a scanner found on a website, as the event carries it.

Decoding is typed and bounded here and nowhere else.  The structs drop fields
they do not know; the ledger keeps the original bytes, so nothing a scanner
sent is lost.  ``null`` always means that the source did not say.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec

from schemas.errors import InvalidEvent

CUT_MARK = "… [cut]"
"""Ends every string that was longer than its bound."""

Whole = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
"""An integer that every JSON reader and every database column can hold."""

NO_CONTROLS = r"^(?![\s\S]*[\x00-\x1f\x7f-\x9f\u2028\u2029])"
"""No control character and no line separator anywhere: no database, header or log line takes
them.  A lookahead, because ``$`` would let a trailing line feed through."""

Domain = Annotated[str, msgspec.Meta(min_length=1, max_length=253, pattern=NO_CONTROLS)]
"""The scanned host: at most 253 characters as in DNS, none of them a control character."""


# It can be in no cycle: left to the garbage collector, looking at cookies took as long as decoding.
class Cookie(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One cookie as the scanner reported it."""

    name: str = ""
    domain: str | None = None
    path: str | None = None
    hashed_value: str | None = None
    cookie_duration: str | float | None = None
    """ "Session", "30 days", or seconds."""
    size: Whole | None = None
    """Bytes."""
    http_only: bool | None = None
    secure: bool | None = None
    same_site: str | None = None
    category: str | None = None
    vendor: str | None = None
    cookie_type: str | None = None
    """ "First Party" or "Third Party"; anything else is unknown."""
    set_after_accept: bool | None = None
    """False: it was there before the visitor chose."""
    iab_purposes: list[str | Whole] | None = None
    description: str | None = None
    source: str | None = None
    """How the category was found."""
    ml_confidence: float | None = None
    requires_review: bool | None = None
    metadata: dict[str, Any] | None = None


class Storages(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename={
        "local_storage": "localStorage",
        "session_storage": "sessionStorage",
    },
):
    """Keys and values found in the browser's web storage."""

    local_storage: dict[str, Any] | None = None
    session_storage: dict[str, Any] | None = None


class ScanOutline(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the ledger notes of a scan; all else stays in the original bytes."""

    scan_id: UUID
    domain: str
    scan_mode: str | None
    finished_at: datetime | None
    """In UTC."""
    cookie_count: int


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """One finished scan of one website.  Only ``scan_id`` and ``domain`` are required."""

    scan_id: UUID
    domain: Domain
    scan_mode: str | None = None
    """quick, deep, scheduled or realtime; other words are kept."""
    timestamp_utc: datetime | None = None
    status: str | None = None
    duration_seconds: float | None = None
    page_count: Whole | None = None
    pages_visited: list[str] | None = None
    error: str | None = None
    params: dict[str, Any] | None = None
    storages: Storages | None = None
    cookies: list[Cookie] | None = None

    @property
    def finished_at(self) -> datetime | None:
        """When the scan finished, in UTC; a time without zone is taken as UTC."""
        if self.timestamp_utc is None:
            return None
        if self.timestamp_utc.tzinfo is None:
            return self.timestamp_utc.replace(tzinfo=UTC)
        return self.timestamp_utc.astimezone(UTC)

    @property
    def outline(self) -> ScanOutline:
        """What the ledger notes of it."""
        return ScanOutline(
            scan_id=self.scan_id,
            domain=self.domain,
            scan_mode=self.scan_mode,
            finished_at=self.finished_at,
            cookie_count=len(self.cookies or ()),
        )


_decoder = msgspec.json.Decoder(Scan)


def decode_scan(data: bytes) -> Scan:
    """Decode and validate one scan result.

    Raises InvalidEvent with the JSON path of the offence; never anything else,
    whatever the bytes are.
    """
    try:
        if not data.isascii():
            data.decode()  # the decoder skips unknown fields unread, yet the ledger keeps them too
        scan = _decoder.decode(data)
        _ = scan.finished_at  # a time at the edge of the calendar overflows on the way to UTC
    except msgspec.ValidationError as error:
        raise InvalidEvent(f"scan result: {explain(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEvent(f"scan result is not JSON in UTF-8: {not_json(data, error)}") from error
    except RecursionError as error:
        raise InvalidEvent("scan result is nested too deeply") from error
    except OverflowError as error:
        raise InvalidEvent(f"scan result: timestamp_utc is out of range: {error}") from error
    if not scan.domain.strip():
        raise InvalidEvent("scan result: `domain` is blank")
    return scan


def explain(error: msgspec.ValidationError) -> str:
    """Say in words, for a dead letter, what the decoder said with our pattern."""
    return str(error).replace(f"matching regex {NO_CONTROLS!r}", "without control characters")


_USUAL_FAULTS = (
    (re.compile(rb"\A\xef\xbb\xbf"), "it starts with a byte order mark; leave that out"),
    (re.compile(rb"\A(\xff\xfe|\xfe\xff)"), "it looks like UTF-16"),
    (re.compile(rb"[:,\[]\s*-?(NaN|Infinity)"), "NaN and Infinity are not JSON; send null"),
    (
        re.compile(
            rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
            rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
        ),
        "half of a surrogate pair, such as \\ud800, is no character",
    ),
)
"""What scanners get wrong, by its look.  Only asked of what the decoder has refused."""

LOOKED_THROUGH = 1024 * 1024
"""Bytes looked through for a usual fault: a refused entry must not cost more than a sound one."""


def not_json(data: bytes, error: Exception) -> str:
    """Say in words, for a dead letter, why the decoder could not read ``data``."""
    for look, meaning in _USUAL_FAULTS:
        if look.search(data, 0, LOOKED_THROUGH):
            return f"{error} ({meaning})"
    return str(error)


def cut(text: str, limit: int) -> str:
    """Bound ``text`` to ``limit`` bytes of UTF-8; a cut text ends with ``CUT_MARK``.

    The bound wins: where it is shorter than the mark, only the mark's start is left.
    """
    if len(text) * 4 <= limit or (len(text) <= limit and text.isascii()):
        return text
    raw = text.encode("utf-8", "surrogatepass")
    if len(raw) <= limit:
        return text
    mark = CUT_MARK.encode()
    if limit < len(mark):
        return mark[: max(0, limit)].decode("utf-8", "ignore")
    return raw[: limit - len(mark)].decode("utf-8", "ignore") + CUT_MARK

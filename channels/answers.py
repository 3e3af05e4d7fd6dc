"""What an HTTP answer means for a delivery: accepted, try again, or never.

The guarded transport passes every answer through ``accept``, so webhooks, Slack
and datarefs read a status code the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from schemas.errors import ChannelUnavailable, DeliveryRejected, RateLimited

TRANSIENT_4XX = frozenset({408, 425})
"""Client errors that pass: request timeout, too early."""

MAX_RETRY_AFTER_S = 86_400.0
"""A longer wait is taken as a day: the delivery's own schedule knows when to give up."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer.  ``headers`` have lower-case names; ``text_excerpt`` is one bounded line."""

    status_code: int
    headers: Mapping[str, str]
    text_excerpt: str


def accept(answer: Answer, destination: str, now: datetime) -> Answer:
    """Return a 2xx ``answer``; raise what any other means.

    ``destination`` names the other side in the error's text and must hold no
    secret.  429 is RateLimited; 408, 425 and 5xx are ChannelUnavailable; all
    else, redirects included, is DeliveryRejected.
    """
    code = answer.status_code
    if 200 <= code < 300:
        return answer
    if code == 429 or code >= 500 or code in TRANSIENT_4XX:
        kind = RateLimited if code == 429 else ChannelUnavailable
        raise kind(
            f"{destination} answered {code}",
            retry_after=retry_after_s(answer.headers, now),
            status_code=code,
            receipt=answer.text_excerpt,
        )
    raise DeliveryRejected(
        f"{destination} answered {code}{_advice(code)}",
        status_code=code,
        receipt=answer.text_excerpt,
    )


def _advice(code: int) -> str:
    if 300 <= code < 400:
        return ": redirects are refused, store the final address"
    if code == 410:
        return ": the address is gone for good"
    return ""


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that ``Retry-After`` asks us to wait, 0 to MAX_RETRY_AFTER_S; None when unreadable.

    A date is measured from the answer's own ``Date`` where it has one, which
    takes the difference between the two clocks out of it, else from ``now``.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        # More digits than this are past the bound anyway, and int() refuses thousands of them.
        return min(float(value[:12]), MAX_RETRY_AFTER_S)
    until = _http_date(value)
    if until is None:
        return None
    seconds = (until - (_http_date(headers.get("date", "")) or now)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _http_date(value: str) -> datetime | None:
    try:
        parsed = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)

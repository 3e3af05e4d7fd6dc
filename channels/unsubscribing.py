"""Whom a List-Unsubscribe link is of: a token that only the holder of its key can make.

An operator's endpoint gets the token of a mail and nothing else, one click by a
mail client without any login.  So the token says whose it is, and proves it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass

PLACEHOLDER = "{token}"

MAX_LINK_CHARS = 900
"""A header that is never folded has to fit a line of a mail: 998 bytes."""


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """The link of one subscriber's mails."""

    url: str
    one_click: bool
    """A mail client may post to it: the link alone says who wants to hear no more."""


def unsubscribe_token(subscriber_id: str, key: str) -> str:
    """The name and its HMAC-SHA256 under ``key``, both in url-safe base64, with a dot between."""
    name = subscriber_id.encode()
    return f"{_encoded(name)}.{_encoded(_mac(name, key))}"


def subscriber_of_token(token: str, key: str) -> str | None:
    """The subscriber whose token it is; None where nobody with ``key`` has made it."""
    name, _, mac = token.partition(".")
    try:
        who = _decoded(name)
        return who.decode() if hmac.compare_digest(_decoded(mac), _mac(who, key)) else None
    except (binascii.Error, ValueError):
        return None


def unsubscribe_link(subscriber_id: str, url: str | None, key: str | None) -> Unsubscribe | None:
    """The link of a subscriber's mails, or None where there is none.

    A ``url`` without the placeholder is everybody's: a page for people, and no
    address that a mail client could post to, because it would not say for whom.
    """
    if url is None or PLACEHOLDER not in url:
        return None if url is None else Unsubscribe(url, one_click=False)
    if key is None or not subscriber_id:
        return None
    filled = url.replace(PLACEHOLDER, unsubscribe_token(subscriber_id, key))
    return Unsubscribe(filled, one_click=True) if len(filled) <= MAX_LINK_CHARS else None


def _mac(name: bytes, key: str) -> bytes:
    return hmac.new(key.encode(), name, hashlib.sha256).digest()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    padded = text.encode("ascii") + b"=" * (-len(text) % 4)
    return base64.b64decode(padded, altchars=b"-_", validate=True)

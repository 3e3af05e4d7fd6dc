"""Standard Webhooks signatures: how a receiver knows that a webhook is ours.

The scheme is that of the Standard Webhooks specification: HMAC-SHA256 over
``id.timestamp.body``, so neither the body nor the moment can be exchanged.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from datetime import datetime

from schemas.errors import DeliveryRejected

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public prefix of every secret, not one of them
MIN_KEY_BYTES, MAX_KEY_BYTES = 24, 64
"""The specification's bounds on a key."""


def new_secret(random_bytes: Callable[[int], bytes]) -> str:
    """Make a secret of 256 bits; ``random_bytes`` is ``secrets.token_bytes`` outside tests."""
    return SECRET_PREFIX + base64.b64encode(random_bytes(32)).decode()


def signing_key(secret: str) -> bytes:
    """Decode one ``whsec_…`` secret.

    Raises DeliveryRejected, without the secret in its text, when it is not one.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""  # the cause is not chained: nothing of the secret may reach a log
    if not secret.startswith(SECRET_PREFIX) or not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise DeliveryRejected(
            f"the webhook's secret is not {SECRET_PREFIX} followed by "
            f"{MIN_KEY_BYTES} to {MAX_KEY_BYTES} bytes in base64; give the subscriber a new one"
        )
    return key


def sign(
    secrets: Sequence[str], message_id: str, timestamp: datetime, body: bytes
) -> dict[str, str]:
    """The three headers of a signed webhook.

    One signature per secret, in their order: while a secret is rotated, the new
    and the old one both sign, and the receiver accepts either.  Pure; raises
    DeliveryRejected for an unusable secret.
    """
    seconds = str(int(timestamp.timestamp()))
    signed = b".".join((message_id.encode(), seconds.encode(), body))
    signatures = (
        hmac.new(signing_key(secret), signed, hashlib.sha256).digest() for secret in secrets
    )
    return {
        "webhook-id": message_id,
        "webhook-timestamp": seconds,
        "webhook-signature": " ".join(
            "v1," + base64.b64encode(signature).decode() for signature in signatures
        ),
    }

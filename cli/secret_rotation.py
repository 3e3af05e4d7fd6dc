"""A webhook's secret exchanged without a message that its receiver would refuse.

For a while two secrets sign every message, the new one first: the receiver may
know either.  Nobody needs to know the old one to make the new one.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from channels.signing import new_secret
from schemas.errors import InvalidSettings, NotFound
from schemas.notifications import ChannelAddress, ChannelKind, Subscriber


def secrets_of(subscriber: Subscriber) -> list[str]:
    """The secrets that sign a subscriber's webhooks, the newest first."""
    hook = _webhook(subscriber)
    return (hook.secret or "").split() if hook else []


def begin_rotation(
    subscriber: Subscriber, random_bytes: Callable[[int], bytes]
) -> tuple[Subscriber, str]:
    """The subscriber with a new secret before the present one, and that secret.

    Raises NotFound without a webhook, InvalidSettings where a rotation is under
    way: a third secret would shut out whoever knows the oldest alone.
    """
    known = _known(subscriber)
    if len(known) > 1:
        raise InvalidSettings(
            f"a rotation of {subscriber.subscriber_id!r} is under way; once the receiver knows "
            "the new secret: scanherald subscribers rotate-secret NAME --finish"
        )
    made = new_secret(random_bytes)
    return _signed_with(subscriber, [made, *known]), made


def finish_rotation(subscriber: Subscriber) -> Subscriber:
    """The subscriber with the newest secret alone.  Raises NotFound, InvalidSettings."""
    known = _known(subscriber)
    if len(known) < 2:
        raise InvalidSettings(
            f"no rotation of {subscriber.subscriber_id!r} is under way; "
            "begin one: scanherald subscribers rotate-secret NAME"
        )
    return _signed_with(subscriber, known[:1])


def _known(subscriber: Subscriber) -> list[str]:
    if _webhook(subscriber) is None:
        raise NotFound(f"{subscriber.subscriber_id!r} has no webhook")
    return secrets_of(subscriber)


def _webhook(subscriber: Subscriber) -> ChannelAddress | None:
    return next((item for item in subscriber.channels if item.kind is ChannelKind.WEBHOOK), None)


def _signed_with(subscriber: Subscriber, secrets: list[str]) -> Subscriber:
    return msgspec.structs.replace(
        subscriber,
        channels=tuple(
            msgspec.structs.replace(item, secret=" ".join(secrets))
            if item.kind is ChannelKind.WEBHOOK
            else item
            for item in subscriber.channels
        ),
    )

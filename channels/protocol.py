"""What every channel promises, in one small shape.

Kept apart from the registry so that a channel file can name the clock without
importing the list that names the channel.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from schemas.notifications import Message, Receipt

Clock = Callable[[], datetime]
"""Answers the time now, with a time zone."""


class Channel(Protocol):
    """A way to the outside.

    Made once per worker process after fork, used by any of its threads, and
    kept for many messages so that connections are reused.
    """

    def send(self, message: Message) -> Receipt:
        """Hand ``message`` to the other side and return what it answered.

        Blocks for at most the channel's timeouts of the settings.  Repeating is
        at least once: the wire carries the same ``message_id`` in every attempt,
        so the receiver can tell.  Raises DeliveryRejected (or its child
        DestinationForbidden) when trying again cannot help, ChannelUnavailable
        (or its child RateLimited) when it may; nothing else.
        """

    def close(self) -> None:
        """Let go of all connections.  Safe to repeat."""

"""When to stop reading: workers that fall behind leave their backlog in the stream.

The stream is the cheapest and safest place for a backlog.  Read on regardless,
it would become messages in the broker, whose deadlines pass while they wait.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from schemas.errors import BrokerUnavailable

log = structlog.get_logger("listener.backpressure")

LOOK_EVERY_S = 0.5
"""How long an answer is believed while fewer than a quarter of the way up is published."""


class Backpressure:
    """Closed from the high-water mark on until the queue has fallen to the low one.

    ``depth`` gives the number of waiting tasks and may raise BrokerUnavailable:
    a broker that cannot be asked cannot be given work, so that closes too.
    ``monotonic`` gives seconds.
    """

    def __init__(
        self, depth: Callable[[], int], high: int, low: int, monotonic: Callable[[], float]
    ) -> None:
        self._depth = depth
        self._high = high
        self._low = low
        self._monotonic = monotonic
        self._closed = False
        self._published = 0
        self._look_at = monotonic()

    def published(self, tasks: int) -> None:
        """So many tasks more were given to the queue."""
        self._published += tasks

    def closed(self) -> bool:
        """Whether reading must wait.  Says once when it begins and once when it ends."""
        now = self._monotonic()
        if not self._closed and now < self._look_at and self._published * 4 < self._high:
            return False
        self._look_at = now + LOOK_EVERY_S
        self._published = 0
        was_closed = self._closed
        try:
            depth: int | None = self._depth()
            reason = f"{depth} report tasks wait"
        except BrokerUnavailable as error:
            depth, reason = None, str(error)
        self._closed = depth is None or depth > (self._low if was_closed else self._high - 1)
        if self._closed and not was_closed:
            log.warning("intake_paused", reason=reason)
        elif was_closed and not self._closed:
            log.info("intake_resumed", reason=reason)
        return self._closed

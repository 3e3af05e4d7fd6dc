"""Which messages go first: live ones before those of a replay, on the same queues.

Transports count in opposite directions, so each has its own numbers.  On Redis
a queue is one list per priority, and 0, the plain list of the queue's name, is
read first.  On RabbitMQ the highest goes first, in queues that declare how high
it gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Priorities:
    """The numbers of one transport, and what it has to be told of them."""

    live: int
    replay: int
    transport_options: dict[str, Any]
    """Of the broker's connection."""
    max_priority: int | None = None
    """What its queues declare."""

    def of(self, *, is_replay: bool) -> int:
        """The number of a message."""
        return self.replay if is_replay else self.live


_REDIS = Priorities(
    live=0,
    replay=9,
    # A worker asks for all of a queue's lists with every read: two, where the default is four.
    transport_options={"priority_steps": [0, 9]},
)
_RABBITMQ = Priorities(live=1, replay=0, transport_options={}, max_priority=1)
_WITHOUT = Priorities(live=0, replay=0, transport_options={})


def priorities_of(broker_url: str) -> Priorities:
    """The numbers for a broker by its URL, ours or Celery's.

    Transports that know no priority get one for all.
    """
    if broker_url.startswith(("redis", "sentinel")):
        return _REDIS
    if broker_url.startswith(("amqp", "pyamqp")):
        return _RABBITMQ
    return _WITHOUT

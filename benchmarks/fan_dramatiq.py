"""No-op groups with a completion callback by dramatiq."""

from __future__ import annotations

import os
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend

URL = os.environ.get("FAN_URL", "redis://127.0.0.1:6379/3")
broker = RedisBroker(url=URL)
broker.add_middleware(GroupCallbacks(RedisBackend(url=URL)))
dramatiq.set_broker(broker)
client: Any = redis.Redis.from_url(URL)


@dramatiq.actor
def head() -> None:
    """No-op."""


@dramatiq.actor
def body() -> None:
    """Count."""
    client.incr("done")


def start(count: int) -> None:
    """Publish groups."""
    for _ in range(count):
        group = dramatiq.group([head.message() for _ in range(4)])
        group.add_completion_callback(body.message())
        group.run()

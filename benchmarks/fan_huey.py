"""No-op fan-ins by huey: the last header task to count itself starts the body."""

from __future__ import annotations

import os
import uuid
from typing import Any

import redis
from huey import RedisHuey

URL = os.environ.get("FAN_URL", "redis://127.0.0.1:6379/5")
huey = RedisHuey("fan", url=URL, results=False)
client: Any = redis.Redis.from_url(URL)


@huey.task()
def head(group: str) -> None:
    """Count itself; the last one goes on."""
    if client.incr(f"group:{group}") == 4:
        client.delete(f"group:{group}")
        body()


@huey.task()
def body() -> None:
    """Count."""
    client.incr("done")


def start(count: int) -> None:
    """Publish the headers of so many groups."""
    for _ in range(count):
        group = str(uuid.uuid4())
        for _ in range(4):
            head(group)

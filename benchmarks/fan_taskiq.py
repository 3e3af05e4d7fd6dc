"""No-op fan-ins by taskiq, without a chord: the last header task starts the body."""

from __future__ import annotations

import asyncio
import os
import uuid

from redis.asyncio import Redis
from taskiq_redis import ListQueueBroker

URL = os.environ.get("FAN_URL", "redis://127.0.0.1:6379/4")
broker = ListQueueBroker(url=URL)
client: Redis = Redis.from_url(URL)


@broker.task(task_name="head")
async def head(group: str) -> None:
    """Count itself; the last one goes on."""
    if await client.incr(f"group:{group}") == 4:
        await client.delete(f"group:{group}")
        await body.kiq()


@broker.task(task_name="body")
async def body() -> None:
    """Count."""
    await client.incr("done")


def start(count: int) -> None:
    """Publish the headers of so many groups."""
    _loop.run_until_complete(_start(count))


async def _start(count: int) -> None:
    for _ in range(count):
        group = str(uuid.uuid4())
        for _ in range(4):
            await head.kiq(group)


_loop = asyncio.new_event_loop()

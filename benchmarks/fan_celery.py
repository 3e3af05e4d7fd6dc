"""No-op chords by Celery's default settings."""

from __future__ import annotations

import os
from typing import Any

import redis
from celery import Celery, chord

URL = os.environ.get("FAN_URL", "redis://127.0.0.1:6379/2")
app = Celery("fan_celery", broker=URL, backend=URL)
client: Any = redis.Redis.from_url(URL)


@app.task(name="head")
def head() -> None:
    """No-op."""


@app.task(name="body")
def body(_: list[None]) -> None:
    """Count."""
    client.incr("done")


def start(count: int) -> None:
    """Publish chords."""
    for _ in range(count):
        chord([head.s() for _ in range(4)], app=app)(body.s())

"""No-op chords by our application's own settings: four header tasks and a body."""

from __future__ import annotations

import os
from typing import Any

import redis
from celery import Celery, chord

from schemas.settings import load_settings
from tasks.app import celery_settings

URL = os.environ.get("FAN_URL", "redis://127.0.0.1:6379/1")
app = Celery("fan_ours")
app.conf.update(
    celery_settings(load_settings(CELERY_BROKER_URL=URL, CELERY_RESULT_BACKEND=URL)),
    beat_schedule={},
    task_routes={},
    worker_consumer="celery.worker.consumer:Consumer",
)
client: Any = redis.Redis.from_url(URL)


@app.task(name="head", ignore_result=True)
def head() -> None:
    """No-op."""


@app.task(name="body", ignore_result=True)
def body(_: list[None]) -> None:
    """Count."""
    client.incr("done")


def start(count: int) -> None:
    """Publish chords, as our publishers do: without subscribing to their results."""
    app.backend_cls = f"tasks.results:SubscriptionFreeBackend+{URL}"
    for _ in range(count):
        chord([head.s() for _ in range(4)], app=app)(body.s())

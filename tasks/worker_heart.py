"""A worker's heart: Celery's consumer, whose loop says that it comes round.

The loop is the worker's main one, which takes messages and watches the pool.  A
task that hangs in a pool process is not its matter: the loop ends it at its
time limit.  A ``solo`` pool works in the loop itself, so while it has a task
its heartbeat holds for as long as a task may take.
"""

from __future__ import annotations

import atexit
from functools import cache
from typing import Any

from celery.concurrency.solo import TaskPool as SoloPool
from celery.signals import task_postrun, task_prerun, worker_shutting_down

from store.heartbeats import HOLDS_S
from tasks import wiring
from tasks.heart import FILE_EVERY_S, Heart
from tasks.newer import PatientConsumer

BROKER = "the broker"


@cache
def _heart() -> Heart:
    heart = Heart("worker", wiring.settings())
    atexit.register(heart.stop)  # Celery's signal of the end is not sent in a cold shutdown
    return heart


class BeatingConsumer(PatientConsumer):
    """Celery's consumer, beating while it waits for the broker too."""

    hub: Any
    pool: Any
    timer: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # The first beat is the first look at the broker: before that Celery has not said yet what
        # becomes of a SIGTERM, which would leave the file behind.
        if self.hub is not None:  # then the loop itself keeps the timer; else a thread does
            self.timer.call_repeatedly(FILE_EVERY_S, _heart().beat)
        if isinstance(self.pool, SoloPool):
            task_prerun.connect(_solo_begins)
            task_postrun.connect(_solo_ends)
        worker_shutting_down.connect(_stopping)

    def perform_pending_operations(self) -> None:
        """Beat: every turn of the loop that serves brokers without an event loop comes here."""
        _heart().beat()
        super().perform_pending_operations()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Let go of the broken connection, which may wait for its server more than once."""
        _heart().beat(waits_for=BROKER)
        super().on_connection_error_after_connected(exc)
        _heart().beat(waits_for=BROKER)

    def on_close(self) -> None:
        """Between letting go and connecting anew each step of the consumer is stopped."""
        _heart().beat(waits_for=BROKER)
        super().on_close()

    def ensure_connected(self, conn: Any) -> Any:
        """Wait for the broker as Celery does, and beat at every look whether to stop."""
        _heart().beat(waits_for=BROKER)
        ensure = conn.ensure_connection

        def beating(*arguments: Any, callback: Any, **options: Any) -> Any:
            def look() -> None:
                _heart().beat(waits_for=BROKER)
                callback()

            return ensure(*arguments, callback=look, **options)

        conn.ensure_connection = beating
        return super().ensure_connected(conn)


def _solo_begins(**_: Any) -> None:
    _heart().beat(holds_s=wiring.settings().task_time_limit_s + HOLDS_S)


def _solo_ends(**_: Any) -> None:
    _heart().beat()


def _stopping(**_: Any) -> None:
    """Tasks in hand are finished now, and the loop rests."""
    holds_s = wiring.settings().task_time_limit_s + HOLDS_S
    _heart().beat(waits_for="the end of its tasks", holds_s=holds_s)

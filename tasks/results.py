"""A Redis result backend for processes that publish and never await."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend


class SubscriptionFreeBackend(RedisBackend):
    """The usual backend without the subscription that each publish makes, and its undoing."""

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do not subscribe: nobody here waits for ``task_id``."""

    def remove_pending_result(self, result: Any) -> Any:
        """Do not unsubscribe either; the usual one connects while the interpreter ends."""
        return result

"""A Redis result backend for processes that publish and never await."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery.backends.redis import RedisBackend, SentinelBackend


class _SubscriptionFree:
    """A backend without a subscription for each result that is published.

    A chord subscribes twice, when it is published and when its result object is
    made; and letting the object go unsubscribes, while the interpreter ends.
    """

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Do not subscribe: nobody here waits for ``task_id``."""

    def add_pending_result(
        self,
        result: Any,
        weak: bool = False,  # noqa: ARG002  # the signature is Celery's
        start_drainer: bool = True,  # noqa: ARG002  # the signature is Celery's
    ) -> Any:
        """Do not wait for ``result``."""
        return result

    def add_pending_results(
        self,
        results: Iterable[Any],
        weak: bool = False,  # noqa: ARG002  # the signature is Celery's
    ) -> list[Any]:
        """Do not wait for any of ``results``."""
        return list(results)

    def remove_pending_result(self, result: Any) -> Any:
        """There is nothing to undo."""
        return result


class SubscriptionFreeBackend(_SubscriptionFree, RedisBackend):
    """The usual backend, otherwise."""


class SubscriptionFreeSentinelBackend(_SubscriptionFree, SentinelBackend):
    """The same behind sentinels."""

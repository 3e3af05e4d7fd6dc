"""Doing a fast retry of a task; ``retry.py`` decides how soon."""

from __future__ import annotations

from typing import Any

from celery import Task
from celery.exceptions import Retry

from schemas.errors import TransientError
from tasks.retry import fast_delay
from tasks.wiring import Wiring


def retry_soon(task: Task[..., Any], error: TransientError, parts: Wiring) -> Retry:
    """Publish the task again and return what ends this try, to be raised.

    After the last retry it raises ``error`` itself.
    """
    return task.retry(
        exc=error,
        countdown=fast_delay(error, task.request.retries + 1, parts.settings, parts.jitter),
        max_retries=parts.settings.task_max_retries,
        throw=False,
    )

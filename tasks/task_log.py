"""Each task's start, end, retry and failure, with the ids it works on bound to every line."""

from __future__ import annotations

import time
from typing import Any

import structlog
from celery.signals import task_failure, task_postrun, task_prerun, task_retry
from structlog.contextvars import bind_contextvars, clear_contextvars

log = structlog.get_logger("tasks")

BOUND_ARGUMENTS = ("run_id", "attempt", "formats", "delivery_id", "number", "scan_id", "format")
"""Arguments that are ids or counts; anything else may hold a payload or an address."""

_started: dict[str, float] = {}


@task_prerun.connect
def task_started(task_id: str, task: Any, args: Any, kwargs: Any, **_: Any) -> None:
    """Bind the ids and say that work began."""
    clear_contextvars()
    names = task.run.__code__.co_varnames[: task.run.__code__.co_argcount]
    given = {**dict(zip([name for name in names if name != "self"], args, strict=False)), **kwargs}
    bind_contextvars(
        task=task.name,
        task_id=task_id,
        **{name: given[name] for name in BOUND_ARGUMENTS if name in given},
    )
    _started[task_id] = time.monotonic()
    log.info("task_started", retries=task.request.retries)


@task_postrun.connect
def task_ended(task_id: str, state: str | None = None, **_: Any) -> None:
    """Say how it ended, and let the ids go."""
    began = _started.pop(task_id, None)
    log.info(
        "task_ended",
        state=state,
        duration_ms=None if began is None else round((time.monotonic() - began) * 1000, 1),
    )
    clear_contextvars()


@task_retry.connect
def task_retried(request: Any, reason: Any, **_: Any) -> None:
    """Say that it will be tried again, and why."""
    log.warning("task_retried", task_id=request.id, reason=str(reason)[:500])


@task_failure.connect
def task_failed(task_id: str, exception: BaseException, **_: Any) -> None:
    """Say that it failed for good; Celery logs the traceback."""
    error = f"{type(exception).__name__}: {exception}"
    log.error("task_failed", task_id=task_id, error=error[:500])

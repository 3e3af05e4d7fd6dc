"""A run in one task: its formats, then its end, where a chord has nothing to wait for.

The road of a small scan, and of a run of one format.  The same two steps as a
chord's header and body, one after the other in one process: the body finds the
judged Report there, and neither a message nor a wait for a free worker lies
between.  Killed before the body ends, the message comes back, and the formats
that are ready are not made again.
"""

from __future__ import annotations

from typing import Any

from celery import Task

from tasks.app import RENDER_AND_FINISH, app
from tasks.finish import finish_attempt
from tasks.reports import render_attempt


@app.task(name=RENDER_AND_FINISH, bind=True, ignore_result=True)
def render_and_finish(self: Task[..., Any], run_id: str, attempt: int, formats: list[str]) -> None:
    """Render ``formats`` of a run, then settle it, as ``render_report`` and ``finish_run`` do.

    Both share the task's time and its fast retries.
    """
    statuses = render_attempt(self, run_id, attempt, formats)
    finish_attempt(self, [statuses], run_id, attempt)
